/**
 * Masks as prompts: logits from a bitmap, logits of a window laid into the whole image, and changes near clicks alone.
 * The functions are those of engine/interactive/refine.py and zoom.py; the resize of a bitmap is OpenCV's INTER_AREA.
 *
 * @typedef {import("./frame.js").Frame} Frame
 * @typedef {import("../masks/bitmap.js").Bitmap} Bitmap
 * @typedef {{x: number, y: number, positive: boolean}} Click
 */

import { around, has, trim } from "../masks/bitmap.js";
import { linearTaps } from "./upsample.js";

const { fround } = Math;

/**
 * Turn a bitmap into logits of a frame's window.
 * @param {Bitmap} bitmap
 * @param {Frame} frame
 * @param {number} side Side of the logits.
 * @param {{mask_logit: number, outside_logit: number}} constants
 * @returns {Float32Array}
 */
export function maskLogits(bitmap, frame, side, { mask_logit, outside_logit }) {
  const [height, width] = frame.cells(side);
  const [left, top, right, bottom] = frame.crop;
  const shrinks = bottom - top >= height && right - left >= width;
  const columns = areaTaps(right - left, width, shrinks);
  const rows = areaTaps(bottom - top, height, shrinks);
  const covered = new Float64Array(height * width);
  for (let row = 0; row < height; row++) {
    for (const [y, weight] of rows[row]) {
      if (y + top < bitmap.y0 || y + top >= bitmap.y1) continue;
      for (let column = 0; column < width; column++) {
        let sum = 0;
        for (const [x, share] of columns[column]) if (has(bitmap, x + left, y + top)) sum += share;
        covered[row * width + column] += weight * sum;
      }
    }
  }
  const logits = new Float32Array(side * side).fill(outside_logit);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      logits[row * side + column] = (2 * fround(covered[row * width + column]) - 1) * mask_logit;
    }
  }
  return logits;
}

/**
 * Inputs and weights of each output of OpenCV's INTER_AREA along one axis.
 * @param {number} inputs
 * @param {number} outputs
 * @param {boolean} shrinks Whether both axes shrink; otherwise neighbours are blended.
 * @returns {[number, number][][]}
 */
function areaTaps(inputs, outputs, shrinks) {
  const scale = inputs / outputs;
  return Array.from({ length: outputs }, (_, at) => {
    if (!shrinks) return blendedTaps(at, inputs, scale);
    const [start, end] = [at * scale, Math.min((at + 1) * scale, inputs)];
    /** @type {[number, number][]} */
    const taps = [];
    for (let from = Math.floor(start); from < end; from++) {
      const part = Math.min(end, from + 1) - Math.max(start, from);
      if (part > 1e-3) taps.push([from, part / (end - start)]);
    }
    return taps;
  });
}

/**
 * @param {number} at
 * @param {number} inputs
 * @param {number} scale
 * @returns {[number, number][]}
 */
function blendedTaps(at, inputs, scale) {
  const from = Math.min(Math.floor(at * scale), inputs - 1);
  const past = at + 1 - (from + 1) / scale;
  const share = past <= 0 || from === inputs - 1 ? 0 : past - Math.floor(past);
  return share ? [[from, 1 - share], [from + 1, share]] : [[from, 1]];
}

/**
 * Resample the logits of a window to the grid of the whole image.
 * @param {Float32Array} logits
 * @param {number} side
 * @param {Frame} window
 * @param {Frame} whole
 * @param {number} outside Logit of cells outside the window.
 */
export function toWhole(logits, side, window, whole, outside) {
  const cell = whole.modelSide / side;
  const [left, top] = whole.toModel(window.crop[0], window.crop[1]).map((edge) => Math.floor(edge / cell + 0.5));
  const [right, bottom] = whole.toModel(window.crop[2], window.crop[3]).map((edge) => Math.floor(edge / cell + 0.5));
  const [height, width] = [Math.max(1, bottom - top), Math.max(1, right - left)];
  const [contentHeight, contentWidth] = window.cells(side);
  const [rows, columns] = [linearTaps(contentHeight, height), linearTaps(contentWidth, width)];
  const laid = new Float32Array(side * side).fill(outside);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const blend = (/** @type {number} */ from) =>
        columns.weight0[column] * logits[from * side + columns.first[column]] +
        columns.weight1[column] * logits[from * side + columns.second[column]];
      laid[(row + top) * side + column + left] = rows.weight0[row] * blend(rows.first[row]) + rows.weight1[row] * blend(rows.second[row]);
    }
  }
  return laid;
}

/**
 * Take over the changes of a predicted mask that are connected to a click; the rest of the mask stays as it was.
 * @param {Bitmap} before
 * @param {Bitmap} predicted
 * @param {Click[]} clicks
 * @param {import("./frame.js").Size} size Size of the image.
 * @returns {Bitmap}
 */
export function changeAroundClicks(before, predicted, clicks, [height, width]) {
  const { x0, y0, x1, y1 } = around(before, predicted);
  const rowLength = x1 - x0;
  const bits = new Uint8Array(rowLength * (y1 - y0));
  const differs = new Uint8Array(bits.length); // 1: only before, 2: only predicted
  for (let y = y0, at = 0; y < y1; y++) {
    for (let x = x0; x < x1; x++, at++) {
      const [was, is] = [has(before, x, y), has(predicted, x, y)];
      bits[at] = was ? 1 : 0;
      differs[at] = was === is ? 0 : was ? 1 : 2;
    }
  }
  for (const click of clicks) {
    const [x, y] = [Math.min(Math.floor(click.x), width - 1), Math.min(Math.floor(click.y), height - 1)];
    if (x < x0 || x >= x1 || y < y0 || y >= y1) continue;
    const wanted = click.positive ? 2 : 1;
    const start = (y - y0) * rowLength + x - x0;
    if (differs[start] === wanted) flood(differs, rowLength, start, (at) => (bits[at] = click.positive ? 1 : 0));
  }
  return trim({ x0, y0, x1, y1, bits, area: 0 });
}

/**
 * Visit the pixels of one value that are connected to a start, diagonals included; they are visited once and for all.
 * @param {Uint8Array} values Visited pixels become 0.
 * @param {number} rowLength
 * @param {number} start
 * @param {(at: number) => void} visit
 */
function flood(values, rowLength, start, visit) {
  const wanted = values[start];
  const stack = [start];
  values[start] = 0;
  while (stack.length) {
    const at = /** @type {number} */ (stack.pop());
    visit(at);
    const column = at % rowLength;
    for (let dx = column ? -1 : 0; dx <= (column < rowLength - 1 ? 1 : 0); dx++) {
      for (const next of [at + dx - rowLength, at + dx, at + dx + rowLength]) {
        if (values[next] !== wanted) continue;
        values[next] = 0;
        stack.push(next);
      }
    }
  }
}
