/**
 * Keys of the task page: what each does, in the words of the list that the question mark shows, and who changed which.
 *
 * @typedef {object} Shortcut
 * @property {string[]} keys Keys as `spell` spells an event; the first is shown.
 * @property {string} does
 * @property {string} act
 * @property {"make" | "masks" | "view" | "task"} group
 * @property {boolean} [isFixed] Whether the keys cannot be changed.
 */

import { saveSettings, settings } from "../app/settings.js";

/** @type {Shortcut[]} */
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
  { group: "make", keys: ["Escape"], act: "drop", isFixed: true, does: "Drop it, or deselect" },
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
  { group: "view", keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], act: "cursor", isFixed: true, does: "Move the cursor a pixel" },
  { group: "view", keys: ["Shift+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowDown"], act: "cursor", isFixed: true, does: "Move the cursor far" },
  { group: "view", keys: ["+", "="], act: "zoomIn", does: "Zoom in at the cursor" },
  { group: "view", keys: ["-"], act: "zoomOut", does: "Zoom out" },
  { group: "view", keys: ["0"], act: "fit", does: "Whole picture" },
  { group: "view", keys: ["9"], act: "actual", does: "One image pixel on one screen pixel" },
  { group: "view", keys: ["Z"], act: "zoomMask", does: "Zoom to the selected mask" },
  { group: "view", keys: ["W"], act: "nextGap", does: "Next place without a mask" },
  { group: "view", keys: ["H"], act: "hide", does: "Hide or show all masks" },
  { group: "view", keys: ["S"], act: "solo", does: "Show the selected mask alone" },
  { group: "view", keys: ["O"], act: "outlines", does: "Outlines only" },
  { group: "view", keys: [","], act: "fainter", does: "Fainter masks" },
  { group: "view", keys: ["."], act: "stronger", does: "Stronger masks" },
  { group: "task", keys: ["Ctrl+Enter"], act: "submit", does: "Submit and next" },
  { group: "task", keys: ["Ctrl+Shift+S"], act: "skip", does: "Skip with a reason" },
  { group: "task", keys: ["?"], act: "help", isFixed: true, does: "This list" },
];

let byKey = index();

/** Shortcuts by each of their keys, with this browser's changes. */
function index() {
  return new Map(SHORTCUTS.flatMap((each) => keysOf(each).map((key) => /** @type {[string, Shortcut]} */ ([key, each]))));
}

/** @param {Shortcut} shortcut */
function keysOf({ act, keys, isFixed }) {
  const changed = isFixed ? undefined : settings.keys[act];
  return changed ? [changed] : keys;
}

/** The key of an act, as it is shown. @param {string} act */
export function keyOf(act) {
  const shortcut = SHORTCUTS.find((each) => each.act === act);
  return shortcut ? keysOf(shortcut)[0] : "";
}

/** What a key does now. @param {string} key @returns {Shortcut | undefined} */
export function holderOf(key) {
  return byKey.get(key);
}

/** Give an act another key, in this browser. @param {string} act @param {string} key One that nothing else has. */
export function setKey(act, key) {
  saveSettings({ keys: { ...settings.keys, [act]: key } });
  byKey = index();
}

/** Forget all changes. */
export function resetKeys() {
  saveSettings({ keys: {} });
  byKey = index();
}

/** A key for people. @param {string} key */
export function pretty(key) {
  return key.replace("ArrowLeft", "Arrows").replace("Escape", "Esc").replace("Delete", "Del").replace("Ctrl+", "Ctrl ").replace("Shift+", "Shift ");
}

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
  return byKey.get(spelled)?.act;
}
