/**
 * Keys of the task page: what each does, by the names of acts.js, and which of them somebody changed.
 *
 * @typedef {object} Shortcut
 * @property {string[]} keys Keys as `spell` spells an event; the first is shown.
 * @property {keyof typeof text.keys.does} act
 * @property {"make" | "masks" | "view" | "task"} group
 * @property {boolean} [isFixed] Whether the keys cannot be changed.
 */

import { saveSettings, settings } from "../app/settings.js";
import { text } from "../app/strings.js";

/** @type {Shortcut[]} */
export const SHORTCUTS = [
  { group: "make", keys: ["Q"], act: "tool:click" },
  { group: "make", keys: ["L"], act: "tool:scribble" },
  { group: "make", keys: ["X"], act: "tool:box" },
  { group: "make", keys: ["Y"], act: "tool:wand" },
  { group: "make", keys: ["B"], act: "tool:brush" },
  { group: "make", keys: ["E"], act: "tool:eraser" },
  { group: "make", keys: ["P"], act: "tool:polygon" },
  { group: "make", keys: ["["], act: "smaller" },
  { group: "make", keys: ["]"], act: "larger" },
  { group: "make", keys: ["F"], act: "positive" },
  { group: "make", keys: ["G"], act: "negative" },
  { group: "make", keys: ["C"], act: "nextCandidate" },
  { group: "make", keys: ["1"], act: "candidate:0" },
  { group: "make", keys: ["2"], act: "candidate:1" },
  { group: "make", keys: ["3"], act: "candidate:2" },
  { group: "make", keys: ["Enter"], act: "accept" },
  { group: "make", keys: ["Escape"], act: "drop", isFixed: true },
  { group: "make", keys: ["Ctrl+Z"], act: "undo" },
  { group: "make", keys: ["Ctrl+Shift+Z", "Ctrl+Y"], act: "redo" },
  { group: "masks", keys: ["V"], act: "tool:select" },
  { group: "masks", keys: ["J"], act: "nextMask" },
  { group: "masks", keys: ["K"], act: "previousMask" },
  { group: "masks", keys: ["Shift+J"], act: "alsoNextMask" },
  { group: "masks", keys: ["N"], act: "nextUndecided" },
  { group: "masks", keys: ["A"], act: "acceptMask" },
  { group: "masks", keys: ["R"], act: "rejectMask" },
  { group: "masks", keys: ["Delete", "Backspace"], act: "removeMask" },
  { group: "masks", keys: ["M"], act: "merge" },
  { group: "masks", keys: ["U"], act: "subtract" },
  { group: "masks", keys: ["I"], act: "fillHoles" },
  { group: "masks", keys: ["D"], act: "split" },
  { group: "view", keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], act: "cursor", isFixed: true },
  { group: "view", keys: ["Shift+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowDown"], act: "cursor:far", isFixed: true },
  { group: "view", keys: ["+", "="], act: "zoomIn" },
  { group: "view", keys: ["-"], act: "zoomOut" },
  { group: "view", keys: ["0"], act: "fit" },
  { group: "view", keys: ["9"], act: "actual" },
  { group: "view", keys: ["Z"], act: "zoomMask" },
  { group: "view", keys: ["W"], act: "nextGap" },
  { group: "view", keys: ["H"], act: "hide" },
  { group: "view", keys: ["S"], act: "solo" },
  { group: "view", keys: ["Shift+H"], act: "preview" },
  { group: "view", keys: ["T"], act: "committed" },
  { group: "view", keys: ["O"], act: "outlines" },
  { group: "view", keys: [","], act: "fainter" },
  { group: "view", keys: ["."], act: "stronger" },
  { group: "task", keys: ["Ctrl+Enter"], act: "submit" },
  { group: "task", keys: ["Ctrl+Shift+S"], act: "skip" },
  { group: "task", keys: ["Ctrl+Shift+Enter"], act: "back" },
  { group: "task", keys: ["?"], act: "help", isFixed: true },
];

let byKey = index();

/** Shortcuts by each of their keys; a key that somebody chose in this browser is theirs, whatever else has it by now. */
function index() {
  const isChanged = (/** @type {Shortcut} */ { act, isFixed }) => Number(!isFixed && act in settings.keys);
  const ordered = SHORTCUTS.toSorted((one, other) => isChanged(one) - isChanged(other));
  return new Map(ordered.flatMap((each) => keysOf(each).map((key) => /** @type {[string, Shortcut]} */ ([key, each]))));
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
