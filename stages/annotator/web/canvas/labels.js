/**
 * All masks of an image as one texture: a map from each pixel to the topmost mask, and coloured layers of it.
 * Drawing a frame copies one layer, whatever the number of masks. Smaller masks lie on top.
 *
 * @typedef {import("../masks/bitmap.js").Bitmap} Bitmap
 * @typedef {import("../masks/bitmap.js").Box} Box
 * @typedef {object} Shown
 * @property {string} name
 * @property {Bitmap} bitmap
 * @property {[number, number, number]} colour Red, green, blue.
 * @typedef {{canvas: OffscreenCanvas, step: number, dirty: Box | null}} Layer One pixel stands for `step` image pixels.
 */

import { around, overlaps } from "../masks/bitmap.js";

const STEPS = [1, 2, 4, 8];
const BLACK = 0xff000000;

/** The label map and its layers. */
export class Labels {
  /** @type {Shown[]} By area, the largest first; the label of a mask is its place here plus one. */
  shown = [];
  opacity = 0.45;
  outlines = true;
  filled = true;
  /** Whether outlines are dashed black, so that they are seen on anything and are not taken for others. */
  dashed = false;
  /** @type {Map<string, Layer>} */
  #layers = new Map();
  #fill = new Uint32Array(1);
  #edge = new Uint32Array(1);

  /** @param {{width: number, height: number}} image */
  constructor({ width, height }) {
    this.width = width;
    this.height = height;
    this.map = new Uint16Array(width * height);
  }

  /**
   * Set the masks that are shown; what did not change is not drawn again.
   * @param {Shown[]} wanted
   */
  setMasks(wanted) {
    const sorted = [...wanted].sort((a, b) => b.bitmap.area - a.bitmap.area);
    const before = new Map(this.shown.map((each) => [each.name, each]));
    /** @type {Box} */
    let dirty = { x0: 0, y0: 0, x1: 0, y1: 0 };
    for (const each of sorted) {
      const old = before.get(each.name);
      before.delete(each.name);
      if (old && old.bitmap === each.bitmap && String(old.colour) === String(each.colour)) continue;
      dirty = around(dirty, each.bitmap);
      if (old) dirty = around(dirty, old.bitmap);
    }
    for (const gone of before.values()) dirty = around(dirty, gone.bitmap);
    if (dirty.x1 <= dirty.x0) return;
    const isSamePlaces = sorted.length === this.shown.length && sorted.every((each, at) => each.name === this.shown[at].name);
    this.shown = sorted;
    this.#setColours();
    if (isSamePlaces) this.#paint(dirty);
    else this.#paint({ x0: 0, y0: 0, x1: this.width, y1: this.height }, dirty);
  }

  /** Set how masks look; undefined leaves a property as it is. @param {{opacity?: number, outlines?: boolean, filled?: boolean, dashed?: boolean}} style */
  setStyle(style) {
    Object.assign(this, style);
    this.#setColours();
    this.#soil({ x0: 0, y0: 0, x1: this.width, y1: this.height });
  }

  /**
   * Names of the masks at a pixel, the topmost first.
   * @param {number} x
   * @param {number} y
   */
  at(x, y) {
    const found = [];
    for (const { name, bitmap } of this.shown) {
      if (x < bitmap.x0 || x >= bitmap.x1 || y < bitmap.y0 || y >= bitmap.y1) continue;
      if (bitmap.bits[(y - bitmap.y0) * (bitmap.x1 - bitmap.x0) + x - bitmap.x0]) found.unshift(name);
    }
    return found;
  }

  /**
   * The layer for a zoom: its pixels are about as large as those of the screen.
   * @param {number} deviceScale Device pixels for one image pixel.
   * @returns {Layer}
   */
  layer(deviceScale) {
    const step = STEPS.findLast((each) => each * deviceScale <= 1.1) ?? 1;
    const outlined = deviceScale < 3;
    const key = `${step} ${outlined}`;
    let layer = this.#layers.get(key);
    if (!layer) {
      const canvas = new OffscreenCanvas(Math.ceil(this.width / step), Math.ceil(this.height / step));
      layer = { canvas, step, dirty: { x0: 0, y0: 0, x1: this.width, y1: this.height } };
      this.#layers.set(key, layer);
    }
    if (layer.dirty) this.#draw(layer, outlined && this.outlines);
    return layer;
  }

  /**
   * Borders between the masks of a part of the image, as a path in image pixels.
   * @param {Box} box
   * @returns {Path2D}
   */
  borders({ x0, y0, x1, y1 }) {
    const path = new Path2D();
    for (let y = y0; y < y1; y++) {
      for (let x = x0, at = y * this.width + x0; x < x1; x++, at++) {
        const label = this.map[at];
        if (x > 0 && label !== this.map[at - 1]) {
          path.moveTo(x, y);
          path.lineTo(x, y + 1);
        }
        if (y > 0 && label !== this.map[at - this.width]) {
          path.moveTo(x, y);
          path.lineTo(x + 1, y);
        }
      }
    }
    return path;
  }

  #setColours() {
    const alpha = this.filled ? Math.round(255 * this.opacity) : 0;
    this.#fill = new Uint32Array([0, ...this.shown.map(({ colour: [r, g, b] }) => (alpha << 24) | (b << 16) | (g << 8) | r)]);
    this.#edge = new Uint32Array([0, ...this.shown.map(({ colour: [r, g, b] }) => (255 << 24) | (b << 16) | (g << 8) | r)]);
  }

  /**
   * Paint the label map within a box.
   * @param {Box} box
   * @param {Box} changed Where the picture changes; the numbers alone may change elsewhere.
   */
  #paint(box, changed = box) {
    const { map, width } = this;
    for (let y = box.y0; y < box.y1; y++) map.fill(0, y * width + box.x0, y * width + box.x1);
    this.shown.forEach(({ bitmap }, index) => {
      if (!overlaps(bitmap, box)) return;
      const [left, right] = [Math.max(box.x0, bitmap.x0), Math.min(box.x1, bitmap.x1)];
      const stride = bitmap.x1 - bitmap.x0;
      for (let y = Math.max(box.y0, bitmap.y0); y < Math.min(box.y1, bitmap.y1); y++) {
        let to = y * width + left;
        let from = (y - bitmap.y0) * stride + left - bitmap.x0;
        for (let x = left; x < right; x++, to++, from++) if (bitmap.bits[from]) map[to] = index + 1;
      }
    });
    this.#soil(changed);
  }

  #soil(/** @type {Box} */ box) {
    for (const layer of this.#layers.values()) layer.dirty = layer.dirty ? around(layer.dirty, box) : box;
  }

  #draw(/** @type {Layer} */ layer, /** @type {boolean} */ outlined) {
    const { map, width, height } = this;
    const { step, canvas } = layer;
    const dirty = /** @type {Box} */ (layer.dirty);
    const x0 = Math.max(0, Math.floor(dirty.x0 / step) - 1);
    const y0 = Math.max(0, Math.floor(dirty.y0 / step) - 1);
    const x1 = Math.min(canvas.width, Math.ceil(dirty.x1 / step) + 1);
    const y1 = Math.min(canvas.height, Math.ceil(dirty.y1 / step) + 1);
    const picture = new ImageData(x1 - x0, y1 - y0);
    const pixels = new Uint32Array(picture.data.buffer);
    const [fill, edge] = [this.#fill, this.#edge];
    for (let y = y0, to = 0; y < y1; y++) {
      const row = y * step * width;
      const above = y > 0 ? row - step * width : row;
      const below = (y + 1) * step < height ? row + step * width : row;
      for (let x = x0; x < x1; x++, to++) {
        const column = x * step;
        const label = map[row + column];
        if (!label) continue;
        const isEdge =
          outlined &&
          (label !== map[above + column] ||
            label !== map[below + column] ||
            label !== map[row + (x > 0 ? column - step : column)] ||
            label !== map[row + (column + step < width ? column + step : column)]);
        if (!isEdge) pixels[to] = fill[label];
        else pixels[to] = this.dashed && ((x + y) >> 2) % 2 ? BLACK : edge[label];
      }
    }
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.putImageData(picture, x0, y0);
    layer.dirty = null;
  }
}
