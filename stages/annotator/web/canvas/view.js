/** Where the image lies on the canvas: zoom and pan, in CSS pixels, exact at any device pixel ratio. */

const MAX_SCALE = 64;
const MARGIN = 12;

/** Transform between image pixels and the canvas. */
export class View {
  /** CSS pixels for one image pixel. */
  scale = 1;
  /** Place of the image's top left corner, in CSS pixels. */
  left = 0;
  top = 0;
  width = 1;
  height = 1;
  /** Device pixels for one CSS pixel; the image begins at a whole device pixel, so that 1 : 1 is sharp. */
  ratio = 1;
  /** Whether the whole image was asked for, and nothing else since. */
  #isFit = true;
  /** Measures what lies over the canvas: the whole image is shown beside it. */
  measureCover = () => ({ left: 0, bottom: 0 });

  /** @param {{width: number, height: number}} image */
  constructor(image) {
    this.image = image;
  }

  /** Scale at which the whole image is seen. */
  get fitScale() {
    const { width, height } = this.#free();
    return Math.min(width / this.image.width, height / this.image.height);
  }

  /** Middle of what is not covered, in CSS pixels. */
  get middle() {
    const { left, top, width, height } = this.#free();
    return { x: left + width / 2, y: top + height / 2 };
  }

  /** The part of the canvas on which the whole image is shown: without what lies over it and a margin. */
  #free() {
    const { left, bottom } = this.measureCover();
    const [across, along] = [this.width - left, this.height - bottom];
    const margin = Math.min(MARGIN, across / 8, along / 8);
    return { left: left + margin, top: margin, width: across - 2 * margin, height: along - 2 * margin };
  }

  /**
   * Set the size of the canvas; the middle of the view stays, or the whole image in sight.
   * @param {number} width In CSS pixels.
   * @param {number} height
   */
  resize(width, height) {
    this.left += (width - this.width) / 2;
    this.top += (height - this.height) / 2;
    [this.width, this.height] = [width, height];
    if (this.#isFit) this.fit();
  }

  fit() {
    this.#isFit = true;
    const { left, top, width, height } = this.#free();
    this.scale = this.fitScale;
    this.left = left + (width - this.image.width * this.scale) / 2;
    this.top = top + (height - this.image.height * this.scale) / 2;
    this.#snap();
  }

  /**
   * Zoom so that the image stays where it is under a point.
   * @param {number} scale
   * @param {number} x Point on the canvas, in CSS pixels.
   * @param {number} y
   */
  zoomTo(scale, x, y) {
    this.#isFit = false;
    const wanted = Math.min(MAX_SCALE, Math.max(Math.min(this.fitScale, 1) / 2, scale));
    this.left = x - ((x - this.left) / this.scale) * wanted;
    this.top = y - ((y - this.top) / this.scale) * wanted;
    this.scale = wanted;
    this.#keepInSight();
  }

  /**
   * @param {number} dx In CSS pixels.
   * @param {number} dy
   */
  pan(dx, dy) {
    if (!dx && !dy) return;
    this.#isFit = false;
    this.left += dx;
    this.top += dy;
    this.#keepInSight();
  }

  /**
   * Show a box in the middle, as large as sensible.
   * @param {import("../masks/bitmap.js").Box} box
   */
  show({ x0, y0, x1, y1 }) {
    this.#isFit = false;
    const { width, height } = this.#free();
    const { x, y } = this.middle;
    const fitting = 0.5 * Math.min(width / Math.max(1, x1 - x0), height / Math.max(1, y1 - y0));
    this.scale = Math.min(MAX_SCALE, Math.max(this.fitScale, Math.min(fitting, 8)));
    this.left = x - ((x0 + x1) / 2) * this.scale;
    this.top = y - ((y0 + y1) / 2) * this.scale;
    this.#snap();
  }

  /** Whether a box lies within the canvas. @param {import("../masks/bitmap.js").Box} box */
  sees({ x0, y0, x1, y1 }) {
    const [one, other] = [this.toCanvas(x0, y0), this.toCanvas(x1, y1)];
    return one.x >= 0 && one.y >= 0 && other.x <= this.width && other.y <= this.height;
  }

  /**
   * @param {number} x On the canvas, in CSS pixels.
   * @param {number} y
   */
  toImage(x, y) {
    return { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale };
  }

  /**
   * @param {number} x In image pixels.
   * @param {number} y
   */
  toCanvas(x, y) {
    return { x: x * this.scale + this.left, y: y * this.scale + this.top };
  }

  /** The part of the image on the canvas, in whole image pixels. @returns {import("../masks/bitmap.js").Box} */
  visible() {
    const [one, other] = [this.toImage(0, 0), this.toImage(this.width, this.height)];
    return {
      x0: Math.max(0, Math.floor(one.x)),
      y0: Math.max(0, Math.floor(one.y)),
      x1: Math.min(this.image.width, Math.ceil(other.x)),
      y1: Math.min(this.image.height, Math.ceil(other.y)),
    };
  }

  #snap() {
    this.left = Math.round(this.left * this.ratio) / this.ratio;
    this.top = Math.round(this.top * this.ratio) / this.ratio;
  }

  #keepInSight() {
    const [width, height] = [this.image.width * this.scale, this.image.height * this.scale];
    const room = Math.min(80, this.width / 3);
    this.left = Math.min(this.width - room, Math.max(room - width, this.left));
    this.top = Math.min(this.height - room, Math.max(room - height, this.top));
    this.#snap();
  }
}
