/**
 * What hands draw: strokes of brush and eraser, and polygons, as pixels of the image.
 *
 * @typedef {import("./bitmap.js").Bitmap} Bitmap
 * @typedef {import("./bitmap.js").Box} Box
 * @typedef {{x: number, y: number}} Point In image pixels; the middle of the pixel in column c is c + 0.5.
 */

import { trim } from "./bitmap.js";

/** Pixels of a whole image, while a stroke changes them. */
export class Pad {
  /**
   * @param {Bitmap | null} bitmap Mask to begin with.
   * @param {[number, number]} size Height and width of the image.
   */
  constructor(bitmap, size) {
    const [height, width] = size;
    this.height = height;
    this.width = width;
    this.bits = new Uint8Array(height * width);
    if (!bitmap) return;
    const stride = bitmap.x1 - bitmap.x0;
    for (let y = bitmap.y0, from = 0; y < bitmap.y1; y++, from += stride) {
      this.bits.set(bitmap.bits.subarray(from, from + stride), y * width + bitmap.x0);
    }
  }

  /**
   * Draw a line with a round tip, and return the box that it may have changed.
   * @param {Point} from
   * @param {Point} to
   * @param {number} diameter In image pixels; 1 sets single pixels.
   * @param {0 | 1} value
   * @returns {Box}
   */
  stroke(from, to, diameter, value) {
    const radius = Math.max(diameter, 1) / 2;
    const box = {
      x0: Math.max(0, Math.floor(Math.min(from.x, to.x) - radius)),
      y0: Math.max(0, Math.floor(Math.min(from.y, to.y) - radius)),
      x1: Math.min(this.width, Math.floor(Math.max(from.x, to.x) + radius) + 1),
      y1: Math.min(this.height, Math.floor(Math.max(from.y, to.y) + radius) + 1),
    };
    if (diameter > 1) this.#sweep(from, to, radius, value, box);
    this.#walk(from, to, value);
    return box;
  }

  /** @returns {Bitmap} The mask as it is now. */
  bitmap() {
    return trim({ x0: 0, y0: 0, x1: this.width, y1: this.height, bits: this.bits, area: 0 });
  }

  /** Set the pixels whose middle is at most `radius` from the line. */
  #sweep(/** @type {Point} */ from, /** @type {Point} */ to, /** @type {number} */ radius, /** @type {number} */ value, /** @type {Box} */ box) {
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length2 = dx * dx + dy * dy;
    for (let y = box.y0; y < box.y1; y++) {
      for (let x = box.x0; x < box.x1; x++) {
        const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
        const along = length2 ? Math.max(0, Math.min(1, (px * dx + py * dy) / length2)) : 0;
        const [ex, ey] = [px - along * dx, py - along * dy];
        if (ex * ex + ey * ey <= radius * radius) this.bits[y * this.width + x] = value;
      }
    }
  }

  /** Set every pixel that the line passes, without a gap. */
  #walk(/** @type {Point} */ from, /** @type {Point} */ to, /** @type {number} */ value) {
    const steps = Math.max(1, Math.ceil(2 * Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y))));
    for (let step = 0; step <= steps; step++) {
      const x = Math.floor(from.x + ((to.x - from.x) * step) / steps);
      const y = Math.floor(from.y + ((to.y - from.y) * step) / steps);
      if (x >= 0 && y >= 0 && x < this.width && y < this.height) this.bits[y * this.width + x] = value;
    }
  }
}

/**
 * Fill a polygon: a pixel belongs to it if its middle is inside.
 * @param {Point[]} corners
 * @param {[number, number]} size Height and width of the image.
 * @returns {Bitmap}
 */
export function fillPolygon(corners, [height, width]) {
  const bits = new Uint8Array(height * width);
  for (let y = 0; y < height; y++) {
    const middle = y + 0.5;
    const crossings = [];
    for (let index = 0; index < corners.length; index++) {
      const [one, other] = [corners[index], corners[(index + 1) % corners.length]];
      if (one.y <= middle === other.y <= middle) continue;
      crossings.push(one.x + ((middle - one.y) * (other.x - one.x)) / (other.y - one.y));
    }
    crossings.sort((a, b) => a - b);
    for (let index = 0; index + 1 < crossings.length; index += 2) {
      const first = Math.max(0, Math.ceil(crossings[index] - 0.5));
      const end = Math.min(width, Math.ceil(crossings[index + 1] - 0.5));
      if (end > first) bits.fill(1, y * width + first, y * width + end);
    }
  }
  return trim({ x0: 0, y0: 0, x1: width, y1: height, bits, area: 0 });
}

/**
 * The border of a mask along the edges of its pixels, as a path in image pixels.
 * @param {Bitmap} bitmap
 * @returns {Path2D}
 */
export function outlineOf({ x0, y0, x1, y1, bits }) {
  const path = new Path2D();
  const [width, height] = [x1 - x0, y1 - y0];
  const none = new Uint8Array(width);
  const open = new Int32Array(width + 1).fill(-1); // row in which the vertical edge at each column began
  /** @type {Uint8Array} */
  let above = none;
  for (let y = 0; y <= height; y++) {
    const row = y < height ? bits.subarray(y * width, (y + 1) * width) : none;
    for (let x = 0; x < width; x++) {
      if (row[x] === above[x]) continue;
      const start = x;
      while (x + 1 < width && row[x + 1] !== above[x + 1]) x++;
      path.moveTo(x0 + start, y0 + y);
      path.lineTo(x0 + x + 1, y0 + y);
    }
    for (let x = 0, before = 0; x <= width; x++) {
      const here = x < width ? row[x] : 0;
      const isEdge = here !== before;
      before = here;
      if (isEdge === open[x] >= 0) continue;
      if (isEdge) open[x] = y;
      else {
        path.moveTo(x0 + x, y0 + open[x]);
        path.lineTo(x0 + x, y0 + y);
        open[x] = -1;
      }
    }
    above = row;
  }
  return path;
}
