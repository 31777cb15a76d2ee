/**
 * Two lines of work on one picture, mask by mask: what differs, and the acts that bring a choice onto the main line.
 *
 * @typedef {import("../masks/fold.js").TaskMask} TaskMask
 * @typedef {"main" | "branch" | "both"} Choice
 * @typedef {object} Difference
 * @property {TaskMask | undefined} main Mask on the server's line, if it is there.
 * @property {TaskMask | undefined} branch The same mask on the branch.
 * @property {TaskMask | undefined} common The same mask where the lines part.
 * @property {Choice} choice What to keep; at first what loses nothing.
 */

import { isSame } from "../masks/rle.js";
import { uuid7 } from "../safe/uuid.js";

/**
 * Compare a branch with the main line, by what both began with.
 * @param {{branch: {masks: TaskMask[]}, main: {masks: TaskMask[]}, common: {masks: TaskMask[]}}} lines
 * @returns {Difference[]} Masks that only the main line has changed are left out: nobody has to decide about them.
 */
export function compare({ branch, main, common }) {
  const names = new Set([...main.masks, ...branch.masks].map((each) => each.mask));
  return [...names].flatMap((name) => {
    const find = (/** @type {{masks: TaskMask[]}} */ line) => line.masks.find((each) => each.mask === name);
    const [ours, theirs, base] = [find(main), find(branch), find(common)];
    if (isEqual(ours, theirs) || isEqual(theirs, base)) return [];
    return [{ main: ours, branch: theirs, common: base, choice: preferred(ours, theirs, base) }];
  });
}

/** Whether both lines have a mask, and it is not the same. @param {Difference} difference */
export function canKeepBoth({ main, branch }) {
  return Boolean(main && branch && !isSame(main.rle, branch.rle));
}

/**
 * Acts that bring the choices onto the main line.
 * @param {Difference[]} differences
 * @returns {[kind: string, payload: any][]}
 */
export function actsFor(differences) {
  return differences.flatMap(({ main, branch, common, choice }) => {
    if (choice === "main") return [];
    if (!branch) return main ? [["remove", { mask: main.mask }]] : [];
    const made = payloadOf(branch, common);
    if (!main || choice === "both") return [["add", { ...made, mask: freshName(), origin: branch.origin }]];
    if (!isSame(main.rle, branch.rle)) return [["change", made]];
    return [["accept", { mask: main.mask }]];
  });
}

/** @returns {Choice} */
function preferred(/** @type {TaskMask | undefined} */ main, /** @type {TaskMask | undefined} */ branch, /** @type {TaskMask | undefined} */ common) {
  if (isEqual(main, common)) return "branch"; // only the branch has changed it
  if (!main) return "branch"; // removed here, changed there
  if (!branch) return "main";
  return isSame(main.rle, branch.rle) ? "branch" : "both";
}

/** @param {TaskMask | undefined} one @param {TaskMask | undefined} other */
function isEqual(one, other) {
  if (!one || !other) return one === other;
  return isSame(one.rle, other.rle) && one.decided === other.decided;
}

/** What an operation says about a branch's mask, with the work that was done on the branch. @param {TaskMask} branch @param {TaskMask | undefined} common */
function payloadOf({ mask, rle, model_id, predicted_iou, stability_score, clicks, strokes }, common) {
  return {
    mask,
    rle: { size: rle.size, counts: rle.counts },
    ...{ model_id, predicted_iou, stability_score },
    clicks: Math.max(0, clicks - (common?.clicks ?? 0)),
    strokes: Math.max(0, strokes - (common?.strokes ?? 0)),
  };
}

function freshName() {
  return `m-${uuid7().slice(0, 23)}`;
}
