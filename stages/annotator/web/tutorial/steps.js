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
  { name: "click", at: "leaf", isDone: (now) => hasClick(now, "leaf", true) },
  { name: "part", isDone: ({ bench }) => (bench.task.draft?.step.chosen ?? 0) > 0 },
  { name: "away", at: "leaf", isDone: ({ bench }) => Boolean(bench.task.draft?.step.clicks.some((each) => !each.positive)) },
  { name: "keep", isDone: ({ bench }) => !bench.task.draft && bench.task.masks.some((each) => each.origin === "made") },
  { name: "box", at: "cup", isDone: isBoxed },
  { name: "mend", at: "orange", isDone: (now) => isMask(now, "orange", 0.95) && !now.bench.task.draft },
  { name: "decide", at: "pebble", isDone: ({ bench }) => Boolean(bench.task.line.find("pebble")?.decided) && !bench.task.line.find("nothing") },
  { name: "merge", at: "pencil", isDone: (now) => !halves(now).some(Boolean) && isMask(now, "pencil", 0.9) },
  { name: "undo", at: "pencil", isDone: ({ bench, began }) => bench.task.line.here < began },
  { name: "find", isDone: (now) => now.bench.gap !== null && isMask(now, "coin", 0.6) && !now.bench.task.draft },
];

/** Whether the model has answered a click on a thing. @param {Situation} now @param {string} thing @param {boolean} positive */
function hasClick({ bench, things }, thing, positive) {
  const step = bench.task.draft?.step;
  if (!step?.candidates.length) return false;
  return step.clicks.some((each) => each.positive === positive && holds(things[thing], Math.floor(each.x), Math.floor(each.y)));
}

/** Whether the cup was boxed, or clicked on by keyboard, and the mask is kept. @param {Situation} now */
function isBoxed(now) {
  const { bench, things, seen } = now;
  const box = bench.task.draft?.step.box;
  if (box && overlap({ x0: box[0], y0: box[1], x1: box[2], y1: box[3] }, things.cup) > 0.5) seen.add("box");
  if (bench.painter.overlay.cursor && hasClick(now, "cup", true)) seen.add("box");
  return seen.has("box") && !bench.task.draft;
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
