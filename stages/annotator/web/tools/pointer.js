/**
 * Tools of the pointer: what a mouse, a pen or a finger does on the canvas. A pen's pressure changes nothing; its eraser
 * does what the right button does, and so does a finger that is held.
 *
 * @typedef {import("../work/bench.js").Bench} Bench
 * @typedef {import("../masks/drawing.js").Point} Point
 * @typedef {object} Press A pointer that is down.
 * @property {number} id
 * @property {boolean} isOther Whether it takes away: right button, Shift, a pen's eraser, or a finger that was held.
 * @property {number} since
 * @property {Point} start In image pixels.
 * @property {Point} last
 * @property {Point} screen On the canvas, in CSS pixels.
 * @property {boolean} isPan
 * @property {Pad | null} pad What a stroke changes.
 * @property {boolean} moved
 */

import { rleOf } from "../masks/bitmap.js";
import { fillPolygon, Pad } from "../masks/drawing.js";
import { Fingers } from "./fingers.js";
import { Preview } from "./preview.js";
import { Stroke } from "./stroke.js";
import { Wand } from "./wand.js";

/** Pixels on the screen that a pointer may move while a press is still a click; a finger is less steady. */
const CLICK_PX = { mouse: 4, pen: 6, touch: 10 };
const CLOSE_PX = { mouse: 9, pen: 12, touch: 24 };
/** Milliseconds after which a finger that has not moved counts as held. */
const HOLD_MS = 500;
const RIGHT = 2;
const PEN_ERASER = 5;

/** Pointer handling of one bench. */
export class Tools {
  /** @type {Press | null} */
  #press = null;
  /** @type {Point | null} Place of the pointer over the picture, in image pixels. */
  over = null;
  isSpaceDown = false;

  /** @param {Bench} bench */
  constructor(bench) {
    this.bench = bench;
    this.wand = new Wand(bench);
    this.stroke = new Stroke(bench);
    this.preview = new Preview(bench);
    this.fingers = new Fingers(bench.painter.view);
    const { canvas } = bench.painter;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#cancel(event));
    canvas.addEventListener("pointerleave", () => this.#left());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.bench.tool === "polygon" && this.closePolygon());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** Close the polygon in the making, and give it to the draft. */
  closePolygon() {
    const { bench } = this;
    const { corners } = bench.painter.overlay;
    bench.painter.overlay.corners = [];
    if (corners.length >= 3) this.#give(fillPolygon(corners, bench.task.size), true);
    bench.painter.ask();
  }

  /**
   * Click on a pixel of the image.
   * @param {Point} at
   * @param {boolean} positive
   */
  click(at, positive) {
    if (!this.#isInside(at)) return;
    if (this.bench.tool === "wand") this.wand.click(at, positive);
    else this.bench.prompt({ click: { x: at.x, y: at.y, positive } });
  }

  #down(/** @type {PointerEvent} */ event) {
    const { bench } = this;
    if (this.fingers.isPalm(event)) return;
    const screen = this.#screen(event);
    if (this.fingers.add(event, screen)) return this.#takeBack();
    bench.painter.canvas.focus({ preventScroll: true });
    bench.painter.canvas.setPointerCapture(event.pointerId);
    bench.painter.overlay.cursor = null;
    const start = bench.painter.view.toImage(screen.x, screen.y);
    const isPan = event.button === 1 || this.isSpaceDown;
    const isOther = event.button === RIGHT || event.button === PEN_ERASER || event.shiftKey;
    this.#press = { id: event.pointerId, isOther, since: event.timeStamp, start, last: start, screen, isPan, pad: null, moved: false };
    this.preview.follow(null);
    if (isPan || event.ctrlKey || event.metaKey) return;
    if (bench.tool === "brush" || bench.tool === "eraser") this.#beginPainting(this.#press, event);
    if (bench.tool === "scribble") this.stroke.begin(start, !isOther);
  }

  #move(/** @type {PointerEvent} */ event) {
    const { painter } = this.bench;
    if (this.fingers.isPalm(event)) return;
    const screen = this.#screen(event);
    if (this.fingers.pinch(event.pointerId, screen)) return painter.ask();
    this.over = painter.view.toImage(screen.x, screen.y);
    const press = this.#press;
    if (press && press.id === event.pointerId) this.#drag(press, event, screen);
    this.showTip();
    this.bench.hover(press ? null : this.over);
    this.preview.follow(press || event.pointerType === "touch" || !this.#isInside(this.over) ? null : this.over);
    painter.ask();
  }

  /** Follow a pointer that is down. */
  #drag(/** @type {Press} */ press, /** @type {PointerEvent} */ event, /** @type {Point} */ screen) {
    const { painter, tool } = this.bench;
    const wasMoved = press.moved;
    press.moved ||= Math.hypot(screen.x - press.screen.x, screen.y - press.screen.y) > limitOf(CLICK_PX, event);
    if (press.moved && !wasMoved) this.#noteHold(press, event);
    if (press.isPan || (press.moved && tool === "select")) this.#pan(press, screen);
    else if (press.pad) for (const each of coalesced(event)) this.#paint(press, this.#screen(each));
    else if (this.stroke.isBegun) for (const each of coalesced(event)) this.stroke.goOn(this.#imagePoint(each));
    else if (tool === "box" && press.moved) painter.overlay.box = this.#box(press.start, painter.view.toImage(screen.x, screen.y));
  }

  #up(/** @type {PointerEvent} */ event) {
    this.fingers.remove(event.pointerId);
    const { bench } = this;
    const press = this.#press;
    if (!press || press.id !== event.pointerId) return;
    this.#press = null;
    if (!press.moved) this.#noteHold(press, event);
    const screen = this.#screen(event);
    const at = bench.painter.view.toImage(screen.x, screen.y);
    if (press.isPan) return;
    if (press.pad) return this.#give(press.pad.bitmap(), false);
    if (event.ctrlKey || event.metaKey) return bench.pick(press.start, true);
    if (this.stroke.isBegun) return this.stroke.end();
    if (bench.tool === "select") return press.moved ? undefined : bench.pick(press.start, event.shiftKey);
    if (bench.tool === "polygon") return this.#corner(screen, limitOf(CLOSE_PX, event));
    if (bench.tool === "box" && press.moved) {
      const { x0, y0, x1, y1 } = this.#box(press.start, at);
      if (x1 - x0 >= 1 && y1 - y0 >= 1) bench.prompt({ box: [x0, y0, x1, y1] });
      return;
    }
    this.click(press.start, !(press.isOther || event.shiftKey));
  }

  /** A finger that was held takes away. */
  #noteHold(/** @type {Press} */ press, /** @type {PointerEvent} */ event) {
    if (event.pointerType !== "touch" || event.timeStamp - press.since < HOLD_MS) return;
    press.isOther = true;
    this.stroke.turnNegative();
  }

  #cancel(/** @type {PointerEvent} */ event) {
    this.fingers.remove(event.pointerId);
    this.#takeBack();
  }

  /** Forget what a pointer that is down has begun. */
  #takeBack() {
    this.#press = null;
    this.stroke.drop();
    this.bench.painter.overlay.box = null;
    this.bench.refresh();
  }

  #left() {
    this.over = null;
    this.bench.painter.overlay.brush = null;
    this.bench.hover(null);
    this.preview.follow(null);
    this.bench.painter.ask();
  }

  #wheel(/** @type {WheelEvent} */ event) {
    event.preventDefault();
    const { view } = this.bench.painter;
    const { x, y } = this.#screen(event);
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (event.altKey) return void this.bench.run(event.deltaY < 0 ? "larger" : "smaller");
    if (event.shiftKey) view.pan(-(event.deltaX || event.deltaY) * lines, 0);
    else view.zoomTo(view.scale * Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), x, y);
    this.over = view.toImage(x, y);
    this.preview.follow(this.#press || !this.#isInside(this.over) ? null : this.over);
    this.showTip();
    this.bench.painter.ask();
  }

  /** Show the tip of brush or eraser under the pointer. */
  showTip() {
    const { painter, tool, diameter } = this.bench;
    const isBrush = (tool === "brush" || tool === "eraser") && this.over;
    painter.overlay.brush = isBrush && this.over ? { x: this.over.x, y: this.over.y, diameter } : null;
  }

  #beginPainting(/** @type {Press} */ press, /** @type {PointerEvent} */ event) {
    const { bench } = this;
    press.pad = new Pad(bench.present, bench.task.size);
    this.#paint(press, this.#screen(event));
  }

  #paint(/** @type {Press} */ press, /** @type {Point} */ screen) {
    const { painter, tool, diameter } = this.bench;
    const at = painter.view.toImage(screen.x, screen.y);
    const isErasing = (tool === "eraser") !== press.isOther;
    press.pad?.stroke(press.last, at, diameter, isErasing ? 0 : 1);
    press.last = at;
    painter.overlay.draft = press.pad?.bitmap() ?? null;
    painter.ask();
  }

  /** Give what was drawn to the draft. */
  #give(/** @type {import("../masks/bitmap.js").Bitmap} */ bitmap, /** @type {boolean} */ isNew) {
    const { bench } = this;
    if (!bitmap.area && !bench.task.draft && !bench.refined) return bench.refresh();
    const draft = bench.task.begin(isNew ? undefined : bench.refined);
    draft.drew(rleOf(bitmap, bench.task.size));
    void bench.task.saveDraft();
  }

  #corner(/** @type {Point} */ screen, /** @type {number} */ closePx) {
    const { painter } = this.bench;
    const { corners } = painter.overlay;
    if (corners.length >= 3) {
      const first = painter.view.toCanvas(corners[0].x, corners[0].y);
      if (Math.hypot(first.x - screen.x, first.y - screen.y) < closePx) return this.closePolygon();
    }
    painter.overlay.corners = [...corners, painter.view.toImage(screen.x, screen.y)];
    painter.ask();
  }

  #pan(/** @type {Press} */ press, /** @type {Point} */ screen) {
    this.bench.painter.view.pan(screen.x - press.screen.x, screen.y - press.screen.y);
    press.screen = screen;
  }

  #box(/** @type {Point} */ one, /** @type {Point} */ other) {
    const [height, width] = this.bench.task.size;
    const clampX = (/** @type {number} */ x) => Math.min(width, Math.max(0, x));
    const clampY = (/** @type {number} */ y) => Math.min(height, Math.max(0, y));
    return {
      x0: clampX(Math.min(one.x, other.x)),
      y0: clampY(Math.min(one.y, other.y)),
      x1: clampX(Math.max(one.x, other.x)),
      y1: clampY(Math.max(one.y, other.y)),
    };
  }

  #isInside(/** @type {Point} */ { x, y }) {
    const [height, width] = this.bench.task.size;
    return x >= 0 && y >= 0 && x < width && y < height;
  }

  #imagePoint(/** @type {PointerEvent} */ event) {
    const { x, y } = this.#screen(event);
    return this.bench.painter.view.toImage(x, y);
  }

  /**
   * Place of an event on the canvas, in CSS pixels. A mouse points at a whole pixel of the screen, and its event names
   * that pixel's corner; the middle is meant, else a click on the border of an image pixel could hit its neighbour.
   */
  #screen(/** @type {MouseEvent} */ event) {
    const { canvas, ratio } = this.bench.painter;
    const { left, top } = canvas.getBoundingClientRect();
    const isMouse = !(event instanceof PointerEvent) || event.pointerType === "mouse";
    const middle = isMouse ? 0.5 / ratio : 0;
    return { x: event.clientX - left + middle, y: event.clientY - top + middle };
  }
}

/** @param {PointerEvent} event @returns {PointerEvent[]} */
function coalesced(event) {
  const all = event.getCoalescedEvents?.() ?? [];
  return all.length ? all : [event];
}

/** @param {Record<string, number>} limits By kind of pointer. @param {PointerEvent} event */
function limitOf(limits, { pointerType }) {
  return limits[pointerType] ?? limits.mouse;
}
