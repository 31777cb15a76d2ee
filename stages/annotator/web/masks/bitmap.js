/**
 * Masks as pixels within their box: what is drawn, hit, brushed and combined. Conversions from and to run lengths.
 *
 * @typedef {import("./rle.js").Rle} Rle
 * @typedef {{x0: number, y0: number, x1: number, y1: number}} Box Half-open, in image pixels.
 * @typedef {Box & {bits: Uint8Array, area: number}} Bitmap Rows of the box; 1 is foreground.
 */

import { readRuns, writeRuns } from "./rle.js";

/** @type {WeakMap<Rle, Bitmap>} */
const decoded = new WeakMap();

/**
 * Decode a mask; the result is kept with it.
 * @param {Rle} rle
 * @returns {Bitmap}
 */
export function bitmapOf(rle) {
  const known = decoded.get(rle);
  if (known) return known;
  const bitmap = decode(rle);
  decoded.set(rle, bitmap);
  return bitmap;
}

/**
 * @param {Rle} rle
 * @returns {Bitmap}
 */
function decode({ size, counts }) {
  const height = size[0];
  const runs = readRuns(counts);
  const box = { x0: Infinity, y0: height, x1: 0, y1: 0 };
  let at = 0;
  for (let index = 0; index < runs.length; at += runs[index++]) {
    if (index % 2 === 0 || runs[index] === 0) continue;
    const last = at + runs[index] - 1;
    const firstColumn = Math.floor(at / height);
    const lastColumn = Math.floor(last / height);
    const spans = firstColumn !== lastColumn;
    box.x0 = Math.min(box.x0, firstColumn);
    box.x1 = Math.max(box.x1, lastColumn + 1);
    box.y0 = Math.min(box.y0, spans ? 0 : at % height);
    box.y1 = Math.max(box.y1, spans ? height : (last % height) + 1);
  }
  if (!box.x1) return { x0: 0, y0: 0, x1: 0, y1: 0, bits: new Uint8Array(0), area: 0 };
  const width = box.x1 - box.x0;
  const bits = new Uint8Array(width * (box.y1 - box.y0));
  let area = 0;
  at = 0;
  for (let index = 0; index < runs.length; at += runs[index++]) {
    if (index % 2 === 0) continue;
    area += runs[index];
    let column = Math.floor(at / height);
    let row = at % height;
    for (let left = runs[index]; left > 0; column++, row = 0) {
      const length = Math.min(left, height - row);
      let place = (row - box.y0) * width + column - box.x0;
      for (let count = 0; count < length; count++, place += width) bits[place] = 1;
      left -= length;
    }
  }
  return { ...box, bits, area };
}

/**
 * Encode a bitmap of an image.
 * @param {Bitmap} bitmap
 * @param {[number, number]} size Height and width of the image.
 * @returns {Rle}
 */
export function rleOf(bitmap, size) {
  const height = size[0];
  const width = bitmap.x1 - bitmap.x0;
  const runs = [];
  let value = 0;
  let start = 0;
  for (let x = bitmap.x0; x < bitmap.x1; x++) {
    let at = x * height;
    if (value) {
      if (bitmap.y0 > 0) change(at); // a run ended at the foot of the last column
    }
    at += bitmap.y0;
    for (let y = bitmap.y0, place = x - bitmap.x0; y < bitmap.y1; y++, place += width, at++) {
      if (bitmap.bits[place] !== value) change(at);
    }
    if (value && bitmap.y1 < height) change(at);
  }
  if (value) change(bitmap.x1 * height); // the last column is filled to its foot
  runs.push(size[0] * size[1] - start);
  if (runs.length > 1 && runs[runs.length - 1] === 0) runs.pop();
  const rle = { size, counts: writeRuns(runs) };
  decoded.set(rle, bitmap);
  return rle;

  /** @param {number} at */
  function change(at) {
    runs.push(at - start);
    start = at;
    value = 1 - value;
  }
}

/**
 * Whether a pixel belongs to a mask.
 * @param {Bitmap} bitmap
 * @param {number} x
 * @param {number} y
 */
export function has({ x0, y0, x1, y1, bits }, x, y) {
  return x >= x0 && x < x1 && y >= y0 && y < y1 && bits[(y - y0) * (x1 - x0) + x - x0] === 1;
}

/**
 * Whether two boxes share a pixel.
 * @param {Box} one
 * @param {Box} other
 */
export function overlaps(one, other) {
  return one.x0 < other.x1 && other.x0 < one.x1 && one.y0 < other.y1 && other.y0 < one.y1;
}

/**
 * The smallest box around two.
 * @param {Box} one
 * @param {Box} other
 * @returns {Box}
 */
export function around(one, other) {
  if (one.x1 <= one.x0) return other;
  if (other.x1 <= other.x0) return one;
  return {
    x0: Math.min(one.x0, other.x0),
    y0: Math.min(one.y0, other.y0),
    x1: Math.max(one.x1, other.x1),
    y1: Math.max(one.y1, other.y1),
  };
}

/**
 * Sample a mask coarsely: every `step`-th pixel in both directions, as a bitmap in units of `step` pixels.
 * @param {Bitmap} bitmap
 * @param {number} step At least 1.
 * @returns {Bitmap}
 */
export function sampled({ x0, y0, x1, y1, bits }, step) {
  const box = { x0: Math.floor(x0 / step), y0: Math.floor(y0 / step), x1: Math.ceil(x1 / step), y1: Math.ceil(y1 / step) };
  const width = box.x1 - box.x0;
  const few = new Uint8Array(width * (box.y1 - box.y0));
  const middle = step >> 1;
  let area = 0;
  for (let y = box.y0, to = 0; y < box.y1; y++) {
    const from = (Math.min(y1 - 1, Math.max(y0, y * step + middle)) - y0) * (x1 - x0) - x0;
    for (let x = box.x0; x < box.x1; x++, to++) {
      area += few[to] = bits[from + Math.min(x1 - 1, Math.max(x0, x * step + middle))];
    }
  }
  return { ...box, bits: few, area };
}

/**
 * Join masks into one.
 * @param {Bitmap[]} bitmaps
 * @returns {Bitmap}
 */
export function union(bitmaps) {
  const { x0, y0, x1, y1 } = bitmaps.map((each) => /** @type {Box} */ (each)).reduce(around);
  const bits = new Uint8Array((x1 - x0) * (y1 - y0));
  for (const each of bitmaps) combine(bits, { x0, y0, x1, y1 }, each, 1);
  return trim({ x0, y0, x1, y1, bits, area: 0 });
}

/**
 * Take the pixels of some masks from another.
 * @param {Bitmap} bitmap
 * @param {Bitmap[]} others
 * @returns {Bitmap}
 */
export function subtract(bitmap, others) {
  const bits = bitmap.bits.slice();
  for (const each of others) combine(bits, bitmap, each, 0);
  return trim({ ...bitmap, bits });
}

/**
 * @param {Uint8Array} bits Changed in place; rows of `box`.
 * @param {Box} box
 * @param {Bitmap} other
 * @param {number} value
 */
function combine(bits, box, other, value) {
  const [left, right] = [Math.max(box.x0, other.x0), Math.min(box.x1, other.x1)];
  for (let y = Math.max(box.y0, other.y0); y < Math.min(box.y1, other.y1); y++) {
    let to = (y - box.y0) * (box.x1 - box.x0) + left - box.x0;
    let from = (y - other.y0) * (other.x1 - other.x0) + left - other.x0;
    for (let x = left; x < right; x++, to++, from++) if (other.bits[from]) bits[to] = value;
  }
}

/**
 * Shrink a bitmap to its foreground, and count its area.
 * @param {Bitmap} bitmap
 * @returns {Bitmap}
 */
export function trim({ x0, y0, x1, y1, bits }) {
  const width = x1 - x0;
  const box = { x0: x1, y0: y1, x1: x0, y1: y0 };
  let area = 0;
  for (let y = y0, at = 0; y < y1; y++) {
    for (let x = x0; x < x1; x++, at++) {
      if (!bits[at]) continue;
      area++;
      if (x < box.x0) box.x0 = x;
      if (x >= box.x1) box.x1 = x + 1;
      if (y < box.y0) box.y0 = y;
      if (y >= box.y1) box.y1 = y + 1;
    }
  }
  if (!area) return { x0: 0, y0: 0, x1: 0, y1: 0, bits: new Uint8Array(0), area };
  const kept = new Uint8Array((box.x1 - box.x0) * (box.y1 - box.y0));
  for (let y = box.y0, to = 0; y < box.y1; y++, to += box.x1 - box.x0) {
    const from = (y - y0) * width - x0;
    kept.set(bits.subarray(from + box.x0, from + box.x1), to);
  }
  return { ...box, bits: kept, area };
}
