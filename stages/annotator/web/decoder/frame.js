/**
 * Windows of an image as the model sees them: the geometry of engine/images.py and engine/interactive/zoom.py.
 *
 * @typedef {[number, number, number, number]} Crop Window or box x0, y0, x1, y1, half-open, in image pixels.
 * @typedef {{xyxy: Crop, layer: number}} CropWindow
 * @typedef {[number, number]} Size Height and width.
 */

/** A window of an image, scaled so that its longer side is the model's, and padded right and below to a square. */
export class Frame {
  /**
   * @param {Crop} crop
   * @param {Size} size Size of the image.
   * @param {number} modelSide Side of the model's input, in pixels.
   */
  constructor(crop, size, modelSide) {
    this.crop = crop;
    this.size = size;
    this.modelSide = modelSide;
    /** @type {Size} Size of the window in image pixels. */
    this.cropSize = [crop[3] - crop[1], crop[2] - crop[0]];
    const scale = modelSide / Math.max(...this.cropSize);
    /** @type {Size} Size of the scaled window in model pixels, without padding. */
    this.scaledSize = [scaled(this.cropSize[0], scale), scaled(this.cropSize[1], scale)];
  }

  /**
   * Map a point from image pixels to model pixels.
   * @param {number} x
   * @param {number} y
   * @returns {[number, number]}
   */
  toModel(x, y) {
    const [height, width] = this.cropSize;
    return [(x - this.crop[0]) * (this.scaledSize[1] / width), (y - this.crop[1]) * (this.scaledSize[0] / height)];
  }

  /**
   * Size of the window in cells of the low-resolution logits.
   * @param {number} side Side of the logits.
   * @returns {Size}
   */
  cells(side) {
    const cell = this.modelSide / side;
    return [Math.max(1, roundHalfEven(this.scaledSize[0] / cell)), Math.max(1, roundHalfEven(this.scaledSize[1] / cell))];
  }
}

/** @param {number} length @param {number} scale */
function scaled(length, scale) {
  return Math.max(1, Math.floor(length * scale + 0.5));
}

/** Round as Python does. @param {number} value */
export function roundHalfEven(value) {
  const down = Math.floor(value);
  if (value - down !== 0.5) return Math.round(value);
  return down % 2 === 0 ? down : down + 1;
}

/**
 * Whether a point lies in a window; its borders belong to it.
 * @param {Crop} crop
 * @param {number} x
 * @param {number} y
 */
export function holds([x0, y0, x1, y1], x, y) {
  return x0 <= x && x <= x1 && y0 <= y && y <= y1;
}

/**
 * The smallest window that holds a box with a quarter of the box's longer side as room around it.
 * @param {CropWindow[]} windows
 * @param {Size} size Size of the image.
 * @param {Crop} box
 * @returns {Crop}
 */
export function windowAround(windows, [height, width], [x0, y0, x1, y1]) {
  const room = 0.25 * Math.max(x1 - x0, y1 - y0);
  const [left, top] = [Math.max(0, x0 - room), Math.max(0, y0 - room)];
  const [right, bottom] = [Math.min(width, x1 + room), Math.min(height, y1 + room)];
  const smallestFirst = windows.toSorted((one, other) => other.layer - one.layer);
  const found = smallestFirst.find(({ xyxy }) => holds(xyxy, left, top) && holds(xyxy, right, bottom));
  return found?.xyxy ?? [0, 0, width, height];
}

/**
 * The window whose centre is nearest to a point.
 * @param {CropWindow[]} windows
 * @param {{x: number, y: number}} point
 * @returns {CropWindow}
 */
export function nearest(windows, { x, y }) {
  const distance = (/** @type {CropWindow} */ { xyxy: [x0, y0, x1, y1] }) => (x - (x0 + x1) / 2) ** 2 + (y - (y0 + y1) / 2) ** 2;
  return windows.reduce((best, each) => (distance(each) < distance(best) ? each : best));
}

/** @param {Crop} one @param {Crop} other */
export function isSameCrop(one, other) {
  return one.every((edge, at) => edge === other[at]);
}
