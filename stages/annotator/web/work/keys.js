/**
 * Keys of the task page: what each does, in the words of the list that the question mark shows.
 *
 * @typedef {{keys: string[], does: string, act: string, group: "make" | "masks" | "view" | "task"}} Shortcut
 */

/** @type {Shortcut[]} `keys` are spelled as `spell` spells an event; the first is shown. */
export const SHORTCUTS = [
  { group: "make", keys: ["Q"], act: "tool:click", does: "Click tool" },
  { group: "make", keys: ["X"], act: "tool:box", does: "Box tool" },
  { group: "make", keys: ["B"], act: "tool:brush", does: "Brush" },
  { group: "make", keys: ["E"], act: "tool:eraser", does: "Eraser" },
  { group: "make", keys: ["P"], act: "tool:polygon", does: "Polygon" },
  { group: "make", keys: ["["], act: "smaller", does: "Smaller brush" },
  { group: "make", keys: ["]"], act: "larger", does: "Larger brush" },
  { group: "make", keys: ["F"], act: "positive", does: "Click on the object, at the cursor" },
  { group: "make", keys: ["G"], act: "negative", does: "Click beside the object, at the cursor" },
  { group: "make", keys: ["C"], act: "nextCandidate", does: "Next suggestion" },
  { group: "make", keys: ["1"], act: "candidate:0", does: "First suggestion" },
  { group: "make", keys: ["2"], act: "candidate:1", does: "Second suggestion" },
  { group: "make", keys: ["3"], act: "candidate:2", does: "Third suggestion" },
  { group: "make", keys: ["Enter"], act: "accept", does: "Accept the mask" },
  { group: "make", keys: ["Escape"], act: "drop", does: "Drop it, or deselect" },
  { group: "make", keys: ["Ctrl+Z"], act: "undo", does: "Undo" },
  { group: "make", keys: ["Ctrl+Shift+Z", "Ctrl+Y"], act: "redo", does: "Redo" },
  { group: "masks", keys: ["V"], act: "tool:select", does: "Select tool" },
  { group: "masks", keys: ["J"], act: "nextMask", does: "Next mask" },
  { group: "masks", keys: ["K"], act: "previousMask", does: "Previous mask" },
  { group: "masks", keys: ["N"], act: "nextUndecided", does: "Next undecided mask" },
  { group: "masks", keys: ["A"], act: "acceptMask", does: "Accept prefilled mask, go to the next" },
  { group: "masks", keys: ["R"], act: "rejectMask", does: "Reject prefilled mask, go to the next" },
  { group: "masks", keys: ["Delete", "Backspace"], act: "removeMask", does: "Delete selected masks" },
  { group: "masks", keys: ["M"], act: "merge", does: "Merge selected masks" },
  { group: "masks", keys: ["U"], act: "subtract", does: "Subtract the others from the first selected" },
  { group: "masks", keys: ["I"], act: "fillHoles", does: "Fill the holes of the mask" },
  { group: "masks", keys: ["D"], act: "split", does: "Split the mask into its parts" },
  { group: "view", keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], act: "cursor", does: "Move the cursor a pixel" },
  { group: "view", keys: ["Shift+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowDown"], act: "cursor", does: "Move the cursor far" },
  { group: "view", keys: ["+", "="], act: "zoomIn", does: "Zoom in at the cursor" },
  { group: "view", keys: ["-"], act: "zoomOut", does: "Zoom out" },
  { group: "view", keys: ["0"], act: "fit", does: "Whole picture" },
  { group: "view", keys: ["9"], act: "actual", does: "One image pixel on one screen pixel" },
  { group: "view", keys: ["Z"], act: "zoomMask", does: "Zoom to the selected mask" },
  { group: "view", keys: ["H"], act: "hide", does: "Hide or show all masks" },
  { group: "view", keys: ["S"], act: "solo", does: "Show the selected mask alone" },
  { group: "view", keys: ["O"], act: "outlines", does: "Outlines only" },
  { group: "view", keys: [","], act: "fainter", does: "Fainter masks" },
  { group: "view", keys: ["."], act: "stronger", does: "Stronger masks" },
  { group: "task", keys: ["Ctrl+Enter"], act: "submit", does: "Submit and next" },
  { group: "task", keys: ["Ctrl+Shift+S"], act: "skip", does: "Skip with a reason" },
  { group: "task", keys: ["?"], act: "help", does: "This list" },
];

const BY_KEY = new Map(SHORTCUTS.flatMap((each) => each.keys.map((key) => [key, each.act])));

/**
 * Spell the keys of an event, as in SHORTCUTS.
 * @param {KeyboardEvent} event
 */
export function spell(event) {
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  const isSign = event.key.length === 1 && !/[a-z]/i.test(event.key);
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  return `${control}${event.shiftKey && !isSign ? "Shift+" : ""}${key}`;
}

/**
 * What an event asks for; undefined where it asks for nothing, as while somebody types.
 * @param {KeyboardEvent} event
 */
export function actOf(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const isTyping = target.closest("input:not([type=range]):not([type=checkbox]), textarea, select, dialog");
  if (isTyping || event.isComposing || event.altKey) return undefined;
  const spelled = spell(event);
  // Enter on a button presses that button; arrow keys move a slider.
  if (spelled === "Enter" && target.closest("button, a, summary")) return undefined;
  if (spelled.includes("Arrow") && target.closest("input, [role=listbox], [role=radiogroup]")) return undefined;
  return BY_KEY.get(spelled);
}
