/**
 * Connected regions of a mask: its holes and its parts. As in engine/interactive/edits.py, foreground is connected
 * over corners as well, and background over edges alone.
 *
 * @typedef {import("./bitmap.js").Bitmap} Bitmap
 */

import { trim } from "./bitmap.js";

/**
 * Fill what a mask encloses; the mask itself where it encloses nothing.
 * @param {Bitmap} bitmap
 * @returns {Bitmap}
 */
export function fillHoles(bitmap) {
  const [width, height] = [bitmap.x1 - bitmap.x0, bitmap.y1 - bitmap.y0];
  const { labels, count } = label(bitmap, 0);
  const isOutside = new Uint8Array(count + 1);
  for (let x = 0; x < width; x++) isOutside[labels[x]] = isOutside[labels[(height - 1) * width + x]] = 1;
  for (let y = 0; y < height; y++) isOutside[labels[y * width]] = isOutside[labels[y * width + width - 1]] = 1;
  const bits = bitmap.bits.slice();
  let filled = 0;
  for (let at = 0; at < bits.length; at++) {
    if (!labels[at] || isOutside[labels[at]]) continue;
    bits[at] = 1;
    filled++;
  }
  return filled ? { ...bitmap, bits, area: bitmap.area + filled } : bitmap;
}

/**
 * Split a mask into its connected parts, the largest first.
 * @param {Bitmap} bitmap
 * @returns {Bitmap[]}
 */
export function parts(bitmap) {
  const { labels, count } = label(bitmap, 1);
  const found = [];
  for (let part = 1; part <= count; part++) {
    const bits = new Uint8Array(labels.length);
    for (let at = 0; at < labels.length; at++) if (labels[at] === part) bits[at] = 1;
    found.push(trim({ ...bitmap, bits }));
  }
  return found.sort((one, other) => other.area - one.area);
}

/**
 * Find the largest squares of an image in which no mask lies, the largest first.
 * @param {Uint16Array} map Topmost mask of each pixel; 0 for none.
 * @param {[number, number]} size Height and width of the image.
 * @param {number} count
 * @returns {import("./bitmap.js").Box[]} They do not overlap.
 */
export function uncovered(map, [height, width], count) {
  // On a grid of cells, the side of the largest free square that ends in each cell
  const cell = Math.max(1, Math.ceil(Math.max(height, width) / 256));
  const [rows, columns] = [Math.floor(height / cell), Math.floor(width / cell)];
  const isFree = new Uint8Array(rows * columns).fill(1);
  for (let y = 0; y < rows * cell; y++) {
    for (let x = 0; x < columns * cell; x++) if (map[y * width + x]) isFree[Math.floor(y / cell) * columns + Math.floor(x / cell)] = 0;
  }
  const found = [];
  while (found.length < count) {
    const { side, row, column } = largestSquare(isFree, rows, columns);
    if (side * 16 < Math.min(rows, columns)) break;
    for (let y = row - side + 1; y <= row; y++) isFree.fill(0, y * columns + column - side + 1, y * columns + column + 1);
    found.push({ x0: (column - side + 1) * cell, y0: (row - side + 1) * cell, x1: (column + 1) * cell, y1: (row + 1) * cell });
  }
  return found;
}

/** @param {Uint8Array} isFree @param {number} rows @param {number} columns */
function largestSquare(isFree, rows, columns) {
  const sides = new Uint16Array(isFree.length);
  let best = { side: 0, row: 0, column: 0 };
  for (let at = 0; at < isFree.length; at++) {
    if (!isFree[at]) continue;
    const [row, column] = [Math.floor(at / columns), at % columns];
    sides[at] = row && column ? 1 + Math.min(sides[at - 1], sides[at - columns], sides[at - columns - 1]) : 1;
    if (sides[at] > best.side) best = { side: sides[at], row, column };
  }
  return best;
}

/**
 * Number the connected regions of foreground (1) or background (0) from 1.
 * @param {Bitmap} bitmap
 * @param {0 | 1} value
 */
function label({ x0, y0, x1, y1, bits }, value) {
  const [width, height] = [x1 - x0, y1 - y0];
  const labels = new Uint32Array(bits.length);
  /** @type {number[]} */
  const open = [];
  let count = 0;
  for (let begin = 0; begin < bits.length; begin++) {
    if (bits[begin] !== value || labels[begin]) continue;
    labels[begin] = ++count;
    open.push(begin);
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      const [x, y] = [at % width, Math.floor(at / width)];
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          if (value === 0 && dx && dy) continue;
          const next = at + dy * width + dx;
          if (x + dx < 0 || x + dx >= width || y + dy < 0 || y + dy >= height) continue;
          if (bits[next] !== value || labels[next]) continue;
          labels[next] = count;
          open.push(next);
        }
      }
    }
  }
  return { labels, count };
}
