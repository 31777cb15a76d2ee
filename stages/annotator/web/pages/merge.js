/** The merge view: the server's line and the late work side by side, and a choice for every mask that differs. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { bitmapOf } from "../masks/bitmap.js";
import { canKeepBoth } from "../work/merging.js";
import { makePair } from "./pair.js";

/**
 * @typedef {import("../masks/fold.js").TaskMask} TaskMask
 * @typedef {import("../work/merging.js").Choice} Choice
 * @typedef {import("../work/merging.js").Difference} Difference
 */

/**
 * Show both lines and have the author choose; the choices are set in `differences`.
 * @param {HTMLElement} root
 * @param {{branch: {masks: TaskMask[]}, main: {masks: TaskMask[]}}} lines
 * @param {Difference[]} differences
 * @param {{picture: import("../canvas/picture.js").Picture, reason: string}} about
 * @returns {Promise<void>}
 */
export function showMerge(root, lines, differences, { picture, reason }) {
  const pair = makePair(lines, differences, picture, text.merge);
  return new Promise((resolve) => {
    const keep = h("button.primary", { type: "button", onclick: () => resolve() }, text.merge.keep);
    const all = (/** @type {Choice} */ choice, /** @type {string} */ label) =>
      h("button", { type: "button", onclick: () => chooseAll(list, choice) }, label);
    const list = h("div.differences");
    root.replaceChildren(
      h(
        "div.sheet.merge",
        {},
        h("h1", {}, text.merge.title),
        h("p.quiet", {}, text.merge.reason(reason)),
        pair.element,
        list,
        h("div.buttons", {}, all("main", text.merge.allMain), all("branch", text.merge.allBranch), keep),
      ),
    );
    const point = pair.show();
    list.append(...differences.map((each, at) => choiceOf(each, at, point)));
    keep.focus({ preventScroll: true });
  });
}

/**
 * One mask's choice; the pictures show the mask while it is pointed at.
 * @param {Difference} difference
 * @param {number} at
 * @param {(difference: Difference | null) => void} point
 */
function choiceOf(difference, at, point) {
  const options = /** @type {Choice[]} */ (["main", "branch", ...(canKeepBoth(difference) ? ["both"] : [])]);
  const radio = (/** @type {Choice} */ choice) => {
    const isChosen = difference.choice === choice;
    const input = h("input", { type: "radio", name: `difference-${at}`, value: choice, checked: isChosen, onchange: () => (difference.choice = choice) });
    return h("label", {}, input, labelOf(difference, choice));
  };
  const row = h("fieldset", {}, h("legend", {}, text.masks.name(at + 1)), ...options.map(radio));
  for (const name of ["pointerenter", "focusin"]) row.addEventListener(name, () => point(difference));
  for (const name of ["pointerleave", "focusout"]) row.addEventListener(name, () => point(null));
  return row;
}

/** @param {Difference} difference @param {Choice} choice */
function labelOf(difference, choice) {
  if (choice === "both") return text.merge.both;
  const mask = difference[choice];
  return text.merge.choice(text.merge[choice], mask ? text.masks.pixels(bitmapOf(mask.rle).area) : text.merge.none);
}

/** Choose the same line for every mask. @param {HTMLElement} list @param {Choice} choice */
function chooseAll(list, choice) {
  for (const input of list.querySelectorAll(`input[value=${choice}]`)) {
    /** @type {HTMLInputElement} */ (input).checked = true;
    input.dispatchEvent(new Event("change"));
  }
}
