/**
 * The canvas of a picture: draws frames when something changed, and knows its exact size in device pixels.
 *
 * @typedef {import("../masks/bitmap.js").Bitmap} Bitmap
 * @typedef {import("./picture.js").Picture} Picture
 * @typedef {{x: number, y: number, positive: boolean}} Click
 * @typedef {import("../decoder/scribble.js").Scribble} Scribble
 * @typedef {object} Overlay What is drawn above the masks.
 * @property {Bitmap | null} draft Mask in the making.
 * @property {Bitmap[]} selected
 * @property {Bitmap | null} hovered
 * @property {Click[]} clicks
 * @property {Scribble[]} scribbles
 * @property {Scribble | null} stroke Scribble in the making.
 * @property {{bitmap: Bitmap, since: number} | null} preview Mask that a click would give.
 * @property {{x0: number, y0: number, x1: number, y1: number} | null} box
 * @property {{x: number, y: number}[]} corners Corners of a polygon in the making.
 * @property {{x: number, y: number, diameter: number} | null} brush Tip of brush or eraser.
 * @property {{x: number, y: number} | null} cursor Place of the keyboard's cursor.
 */

import { sampled } from "../masks/bitmap.js";
import { outlineOf } from "../masks/drawing.js";
import { Labels } from "./labels.js";
import { View } from "./view.js";

export const DRAFT = "#ffd23f";
const POSITIVE = "#1fbf75";
const NEGATIVE = "#ff4d5e";
/** Device pixels of an image pixel from which the grid of pixels is drawn. */
const GRID_SCALE = 16;
const FADE_MS = 160;

const stillness = matchMedia("(prefers-reduced-motion: reduce)");

/** @typedef {{outline: Path2D, fill: OffscreenCanvas, x0: number, y0: number}} Shape In units of some image pixels. */

/** @type {WeakMap<Bitmap, Map<number, Shape>>} Shapes of masks by the image pixels of a unit. */
const shapes = new WeakMap();

/** Painter of one canvas and one picture. */
export class Painter {
  /** @type {Overlay} */
  overlay = {
    ...{ draft: null, selected: [], hovered: null, preview: null },
    ...{ clicks: [], scribbles: [], stroke: null, box: null, corners: [], brush: null, cursor: null },
  };
  showsMasks = true;
  /** @type {Labels | null} Masks that the dataset has already, where they are shown. */
  committed = null;
  selectedColour = "#fff";
  /** Number of frames drawn, and milliseconds spent on them. */
  frames = 0;
  busyMs = 0;
  #isAsked = false;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Picture} picture
   */
  constructor(canvas, picture) {
    this.canvas = canvas;
    this.picture = picture;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.labels = new Labels(picture);
    this.view = new View(picture);
    this.ratio = 1;
    this.observer = new ResizeObserver((entries) => this.#resized(entries[0]));
    this.observer.observe(canvas, { box: "device-pixel-content-box" });
    const { width, height } = canvas.getBoundingClientRect();
    this.#setSize(width, height, Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio));
    this.view.fit();
  }

  close() {
    this.observer.disconnect();
  }

  /** Have a frame drawn soon. */
  ask() {
    if (this.#isAsked) return;
    this.#isAsked = true;
    requestAnimationFrame(() => {
      this.#isAsked = false;
      this.draw();
    });
  }

  /** Draw a frame now. */
  draw() {
    const began = performance.now();
    const { context, view, ratio } = this;
    const { scale, left, top } = view;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height); // the style's background shows through, in any theme
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * left, ratio * top);
    context.imageSmoothingEnabled = ratio * scale < 2;
    context.drawImage(this.picture.bitmap(ratio * scale, () => this.ask()), 0, 0, this.picture.width, this.picture.height);
    if (this.committed) this.#drawMasks(this.committed, 0.75);
    if (this.showsMasks) this.#drawMasks(this.labels, 1);
    if (ratio * scale >= GRID_SCALE) this.#drawGrid();
    this.#drawOverlay();
    this.frames++;
    this.busyMs += performance.now() - began;
  }

  /**
   * Draw the pixels of a mask as the picture has them, with an outline, no finer than the context shows; for small pictures.
   * @param {CanvasRenderingContext2D} context Its transform takes image pixels.
   * @param {Bitmap} bitmap
   */
  cutOut(context, bitmap) {
    const scale = context.getTransform().a;
    const step = Math.max(1, Math.floor(1 / scale));
    const shape = makeShape(bitmap, step);
    const piece = shape.fill;
    const onPiece = /** @type {OffscreenCanvasRenderingContext2D} */ (piece.getContext("2d"));
    onPiece.globalCompositeOperation = "source-in";
    const { picture } = this;
    const size = [picture.width / step, picture.height / step];
    onPiece.drawImage(picture.bitmap(scale, () => undefined), -shape.x0, -shape.y0, size[0], size[1]);
    context.save();
    context.scale(step, step);
    context.drawImage(piece, shape.x0, shape.y0);
    context.lineWidth = 3 / (scale * step);
    context.strokeStyle = DRAFT;
    context.stroke(shape.outline);
    context.restore();
  }

  #drawMasks(/** @type {Labels} */ labels, /** @type {number} */ alpha) {
    const { context, view } = this;
    const { canvas, step } = labels.layer(this.ratio * view.scale);
    context.globalAlpha = alpha;
    context.drawImage(canvas, 0, 0, canvas.width * step, canvas.height * step);
    if (labels.outlines && this.ratio * view.scale >= 3) {
      const borders = labels.borders(view.visible());
      this.#line(borders, "rgba(0, 0, 0, 0.55)", 3);
      if (labels.dashed) context.setLineDash([0.5]); // half the side of an image pixel
      this.#line(borders, "#fff", 1);
      context.setLineDash([]);
    }
    context.globalAlpha = 1;
  }

  #drawGrid() {
    const { x0, y0, x1, y1 } = this.view.visible();
    const path = new Path2D();
    for (let x = x0; x <= x1; x++) {
      path.moveTo(x, y0);
      path.lineTo(x, y1);
    }
    for (let y = y0; y <= y1; y++) {
      path.moveTo(x0, y);
      path.lineTo(x1, y);
    }
    this.#line(path, "rgba(128, 128, 128, 0.35)", 0.5);
  }

  #drawOverlay() {
    const { draft, selected, hovered, box, corners } = this.overlay;
    this.#drawPreview();
    if (hovered) this.#trace(hovered, ["rgba(255, 255, 255, 0.9)", 1.5]);
    for (const each of selected) this.#outlined(each, this.selectedColour);
    if (draft?.area) {
      this.context.globalAlpha = 0.4;
      this.#inUnits(draft, ({ fill, x0, y0 }) => this.context.drawImage(fill, x0, y0));
      this.context.globalAlpha = 1;
      this.#outlined(draft, DRAFT);
    }
    if (box) {
      const path = new Path2D();
      path.rect(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0);
      this.#line(path, "rgba(0, 0, 0, 0.7)", 3.5);
      this.#line(path, DRAFT, 1.5);
    }
    if (corners.length) {
      const path = new Path2D();
      corners.forEach(({ x, y }, index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
      this.#line(path, "rgba(0, 0, 0, 0.7)", 3.5);
      this.#line(path, DRAFT, 1.5);
      for (const corner of corners) this.#disc(corner, 3.5, DRAFT);
    }
    this.#drawPointers();
  }

  /** Outline the mask that a click would give; it fades in, unless motion is to be reduced. */
  #drawPreview() {
    const { preview } = this.overlay;
    if (!preview?.bitmap.area) return;
    const grown = stillness.matches ? 1 : Math.min(1, (performance.now() - preview.since) / FADE_MS);
    if (grown < 1) this.ask();
    this.context.globalAlpha = 0.75 * grown;
    this.#trace(preview.bitmap, ["rgba(0, 0, 0, 0.6)", 3], ["#fff", 1.25]);
    this.context.globalAlpha = 1;
  }

  #drawScribbles() {
    const { scribbles, stroke } = this.overlay;
    for (const { points, positive } of stroke ? [...scribbles, stroke] : scribbles) {
      const path = new Path2D();
      const [[x, y]] = points;
      path.moveTo(x, y);
      for (const [x, y] of points) path.lineTo(x, y);
      this.#line(path, "rgba(0, 0, 0, 0.75)", 8);
      this.#line(path, "#fff", 6);
      this.#line(path, positive ? POSITIVE : NEGATIVE, 3.5);
    }
  }

  #drawPointers() {
    const { clicks, brush, cursor } = this.overlay;
    this.#drawScribbles();
    for (const click of clicks) {
      this.#disc(click, 6, click.positive ? POSITIVE : NEGATIVE);
      const { x, y } = this.view.toCanvas(click.x, click.y);
      const sign = new Path2D(click.positive ? "M-3 0H3M0 -3V3" : "M-3 0H3");
      this.#inScreen(x, y, () => this.#stroke(sign, "#fff", 1.8));
    }
    if (brush) {
      const path = new Path2D();
      path.arc(brush.x, brush.y, brush.diameter / 2, 0, 7);
      this.#line(path, "rgba(0, 0, 0, 0.8)", 2.5);
      this.#line(path, "#fff", 1);
    }
    if (!cursor) return;
    const { x, y } = this.view.toCanvas(cursor.x, cursor.y);
    const cross = new Path2D("M-14 0H-4M4 0H14M0 -14V-4M0 4V14");
    this.#inScreen(x, y, () => {
      this.#stroke(cross, "#000", 4);
      this.#stroke(cross, "#fff", 2);
    });
  }

  #outlined(/** @type {Bitmap} */ bitmap, /** @type {string} */ colour) {
    this.#trace(bitmap, ["rgba(0, 0, 0, 0.75)", 4], [colour, 2]);
  }

  /** Stroke the outline of a mask in turn with colours and widths in CSS pixels. */
  #trace(/** @type {Bitmap} */ bitmap, /** @type {[string, number][]} */ ...lines) {
    const { context } = this;
    this.#inUnits(bitmap, ({ outline }, step) => {
      context.lineCap = "square"; // fills corners as round ends do, and is drawn in a fraction of the time
      for (const [colour, width] of lines) {
        context.lineWidth = width / (this.view.scale * step);
        context.strokeStyle = colour;
        context.stroke(outline);
      }
    });
  }

  /** Draw the shape of a mask in units as large as the screen allows. */
  #inUnits(/** @type {Bitmap} */ bitmap, /** @type {(shape: Shape, step: number) => void} */ draw) {
    const step = Math.max(1, Math.floor(1 / (this.ratio * this.view.scale)));
    this.context.save();
    this.context.scale(step, step);
    draw(shapeOf(bitmap, step), step);
    this.context.restore();
  }

  /** Stroke a path of image pixels with a width in CSS pixels. */
  #line(/** @type {Path2D} */ path, /** @type {string} */ colour, /** @type {number} */ width) {
    this.#stroke(path, colour, width / this.view.scale);
  }

  #stroke(/** @type {Path2D} */ path, /** @type {string} */ colour, /** @type {number} */ width) {
    this.context.lineWidth = width;
    this.context.lineCap = this.context.lineJoin = "round";
    this.context.strokeStyle = colour;
    this.context.stroke(path);
  }

  #disc(/** @type {{x: number, y: number}} */ at, /** @type {number} */ radius, /** @type {string} */ colour) {
    const { x, y } = this.view.toCanvas(at.x, at.y);
    this.#inScreen(x, y, () => {
      const path = new Path2D();
      path.arc(0, 0, radius, 0, 7);
      this.#stroke(path, "rgba(0, 0, 0, 0.75)", 4);
      this.#stroke(path, "#fff", 2);
      this.context.fillStyle = colour;
      this.context.fill(path);
    });
  }

  #inScreen(/** @type {number} */ x, /** @type {number} */ y, /** @type {() => void} */ act) {
    this.context.save();
    this.context.setTransform(this.ratio, 0, 0, this.ratio, this.ratio * x, this.ratio * y);
    act();
    this.context.restore();
  }

  #resized(/** @type {ResizeObserverEntry} */ { contentRect, devicePixelContentBoxSize: [size] }) {
    const { width, height } = contentRect;
    this.#setSize(width, height, deviceSize(width, size.inlineSize), deviceSize(height, size.blockSize));
    this.draw(); // setting the size has cleared the canvas
  }

  #setSize(/** @type {number} */ width, /** @type {number} */ height, /** @type {number} */ deviceWidth, /** @type {number} */ deviceHeight) {
    if (!width || !height) return;
    [this.canvas.width, this.canvas.height] = [deviceWidth, deviceHeight];
    this.view.ratio = this.ratio = deviceWidth / width;
    this.view.resize(width, height);
  }
}

/**
 * Device pixels of a length. Where a browser emulates another screen, what it measures is not of that screen.
 * @param {number} length In CSS pixels.
 * @param {number} measured
 */
function deviceSize(length, measured) {
  const computed = Math.round(length * devicePixelRatio);
  return Math.abs(measured - computed) <= 1 ? measured : computed;
}

/** @param {Bitmap} bitmap @param {number} step */
function shapeOf(bitmap, step) {
  const known = shapes.get(bitmap) ?? new Map();
  shapes.set(bitmap, known);
  const shape = known.get(step) ?? makeShape(bitmap, step);
  known.set(step, shape);
  return shape;
}

/** @param {Bitmap} bitmap @param {number} step @returns {Shape} */
function makeShape(bitmap, step) {
  const coarse = step > 1 ? sampled(bitmap, step) : bitmap;
  return { outline: outlineOf(coarse), fill: fillOf(coarse), x0: coarse.x0, y0: coarse.y0 };
}

/** The pixels of a mask in one colour. @param {Bitmap} bitmap */
function fillOf(bitmap) {
  const [width, height] = [bitmap.x1 - bitmap.x0, bitmap.y1 - bitmap.y0];
  const fill = new OffscreenCanvas(Math.max(1, width), Math.max(1, height));
  if (bitmap.area) {
    const picture = new ImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    for (let at = 0; at < pixels.length; at++) if (bitmap.bits[at]) pixels[at] = 0xff3fd2ff;
    fill.getContext("2d")?.putImageData(picture, 0, 0);
  }
  return fill;
}
