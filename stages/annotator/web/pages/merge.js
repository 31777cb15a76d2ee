/** The merge view: the server's line and the late work side by side, and one question. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { isSame } from "../masks/rle.js";
import { still } from "./still.js";

/** @typedef {import("../masks/fold.js").TaskMask} TaskMask */

/**
 * Show both and ask which is wanted.
 * @param {HTMLElement} root
 * @param {{branch: {masks: TaskMask[]}, main: {masks: TaskMask[]}}} comparison
 * @param {import("../canvas/picture.js").Picture} picture
 * @param {string} reason
 * @returns {Promise<"both" | "main">}
 */
export function showMerge(root, { branch, main }, picture, reason) {
  const left = still(picture, `${text.merge.main}: ${describe(main.masks, branch.masks)}`, { masks: main.masks, selected: differing(main.masks, branch.masks) });
  const right = still(picture, `${text.merge.branch}: ${describe(branch.masks, main.masks)}`, { masks: branch.masks, selected: differing(branch.masks, main.masks) });
  return new Promise((resolve) => {
    const both = h("button.primary", { type: "button", onclick: () => resolve("both") }, text.merge.both);
    root.replaceChildren(
      h(
        "div.sheet.merge",
        {},
        h("h1", {}, text.merge.title),
        h("p.quiet", {}, text.merge.reason(reason)),
        h("div.pair", {}, left.figure, right.figure),
        h("div.buttons", {}, h("button", { type: "button", onclick: () => resolve("main") }, text.merge.mine), both),
      ),
    );
    left.show();
    right.show();
    both.focus();
  });
}

/** Masks that the other line does not have, or has differently. @param {TaskMask[]} masks @param {TaskMask[]} others */
function differing(masks, others) {
  return masks.filter((mask) => !others.some((other) => other.mask === mask.mask && isSame(other.rle, mask.rle)));
}

/** @param {TaskMask[]} masks @param {TaskMask[]} others */
function describe(masks, others) {
  return `${text.masks.title(masks.length)}, ${differing(masks, others).length} ${text.merge.onlyHere}`;
}
