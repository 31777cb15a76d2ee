/**
 * The ten moves, and how it is known that somebody made each: by what the task holds, never by a button.
 *
 * @typedef {import("../work/bench.js").Bench} Bench
 * @typedef {import("../masks/bitmap.js").Bitmap} Bitmap
 * @typedef {{bench: Bench, things: Record<string, Bitmap>, seen: Set<string>, began: number}} Situation `seen` is what a step
 *   remembers, `began` how far the task's line was when the step began.
 * @typedef {object} Step
 * @property {string} name
 * @property {string} [at] Thing that is pointed at.
 * @property {(situation: Situation) => boolean} isDone
 */

import { bitmapOf } from "../masks/bitmap.js";

/** @type {Step[]} */
export const STEPS = [
  { name: "click", at: "coffee", isDone: (now) => isClicked(now, "coffee") && stepOf(now).candidates.length > 1 },
  { name: "part", at: "cup", isDone: (now) => isDraft(now, "cup", 0.9) },
  { name: "away", at: "cup", isDone: isTakenAway },
  { name: "keep", at: "cup", isDone: ({ bench }) => !bench.task.draft && bench.task.masks.some((each) => each.origin === "made") },
  { name: "box", at: "leaf", isDone: isBoxed },
  { name: "mend", at: "orange", isDone: (now) => isMask(now, "orange", 0.95) && !now.bench.task.draft },
  { name: "decide", at: "pebble", isDone: ({ bench }) => Boolean(bench.task.line.find("pebble")?.decided) && !bench.task.line.find("nothing") },
  { name: "merge", at: "pencil", isDone: (now) => !halves(now).some(Boolean) && isMask(now, "pencil", 0.9) },
  { name: "undo", at: "pencil", isDone: (now) => now.bench.task.line.here < now.began && halves(now).every(Boolean) },
  { name: "find", isDone: (now) => now.bench.gap !== null && isMask(now, "coin", 0.6) && !now.bench.task.draft },
];

/** What the open mask is made of; nothing where none is open. @param {Situation} now */
function stepOf({ bench }) {
  return bench.task.draft?.step ?? { candidates: [], clicks: [] };
}

/** Whether the model has answered a click on a thing. @param {Situation} now @param {string} thing */
function isClicked(now, thing) {
  const { candidates, clicks } = stepOf(now);
  return candidates.length > 0 && clicks.some(({ x, y, positive }) => positive && holds(now.things[thing], Math.floor(x), Math.floor(y)));
}

/** Whether the open mask agrees with a thing. @param {Situation} now @param {string} thing @param {number} iou */
function isDraft({ bench, things }, thing, iou) {
  const bitmap = bench.task.draft?.bitmap;
  return Boolean(bitmap && agreement(bitmap, things[thing]) >= iou);
}

/** Whether a click beside the object has taken the saucer away, and the coffee is left. @param {Situation} now */
function isTakenAway(now) {
  const bitmap = now.bench.task.draft?.bitmap;
  const away = stepOf(now).clicks.filter((each) => !each.positive);
  if (!bitmap || !away.length) return false;
  return bitmap.area < 0.6 * now.things.cup.area && isClicked(now, "coffee") && away.every(({ x, y }) => !holds(bitmap, Math.floor(x), Math.floor(y)));
}

/** Whether the leaf was boxed, or clicked on by keyboard, and its mask is kept. @param {Situation} now */
function isBoxed(now) {
  const { bench, things, seen } = now;
  const box = bench.task.draft?.step.box;
  if (box && overlap({ x0: box[0], y0: box[1], x1: box[2], y1: box[3] }, things.leaf) > 0.5) seen.add("box");
  if (bench.painter.overlay.cursor && isClicked(now, "leaf")) seen.add("box");
  return seen.has("box") && !bench.task.draft && isMask(now, "leaf", 0.8);
}

/** Whether a mask agrees with a thing. @param {Situation} now @param {string} thing @param {number} iou */
function isMask({ bench, things }, thing, iou) {
  return bench.task.masks.some((each) => agreement(bitmapOf(each.rle), things[thing]) >= iou);
}

/** @param {Situation} now */
function halves({ bench }) {
  return ["pencil-1", "pencil-2"].map((name) => bench.task.line.find(name));
}

/** @param {Bitmap} bitmap @param {number} x @param {number} y */
function holds({ x0, y0, x1, y1, bits }, x, y) {
  return x >= x0 && x < x1 && y >= y0 && y < y1 && bits[(y - y0) * (x1 - x0) + x - x0] === 1;
}

/** IoU of two masks. @param {Bitmap} one @param {Bitmap} other */
function agreement(one, other) {
  if (overlap(one, other) === 0) return 0;
  let both = 0;
  for (let y = one.y0; y < one.y1; y++) for (let x = one.x0; x < one.x1; x++) if (holds(one, x, y) && holds(other, x, y)) both++;
  return both / (one.area + other.area - both);
}

/** IoU of two boxes. @param {import("../masks/bitmap.js").Box} one @param {import("../masks/bitmap.js").Box} other */
function overlap(one, other) {
  const width = Math.min(one.x1, other.x1) - Math.max(one.x0, other.x0);
  const height = Math.min(one.y1, other.y1) - Math.max(one.y0, other.y0);
  if (width <= 0 || height <= 0) return 0;
  const area = (/** @type {import("../masks/bitmap.js").Box} */ box) => (box.x1 - box.x0) * (box.y1 - box.y0);
  return (width * height) / (area(one) + area(other) - width * height);
}
