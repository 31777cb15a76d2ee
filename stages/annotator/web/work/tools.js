/**
 * Tools of the pointer: what a mouse, a pen or a finger does on the canvas.
 *
 * @typedef {import("./bench.js").Bench} Bench
 * @typedef {import("../masks/drawing.js").Point} Point
 * @typedef {object} Press A pointer that is down.
 * @property {number} id
 * @property {number} button
 * @property {Point} start In image pixels.
 * @property {Point} last
 * @property {Point} screen On the canvas, in CSS pixels.
 * @property {boolean} isPan
 * @property {Pad | null} pad What a stroke changes.
 * @property {boolean} moved
 */

import { rleOf } from "../masks/bitmap.js";
import { fillPolygon, Pad } from "../masks/drawing.js";

/** Pixels on the screen that a pointer may move while a press is still a click. */
const CLICK_PX = 4;
const CLOSE_PX = 9;

/** Pointer handling of one bench. */
export class Tools {
  /** @type {Press | null} */
  #press = null;
  /** @type {Point | null} Place of the pointer over the picture, in image pixels. */
  over = null;
  isSpaceDown = false;
  /** @type {Map<number, Point>} Fingers on the canvas, for pinching. */
  #fingers = new Map();

  /** @param {Bench} bench */
  constructor(bench) {
    this.bench = bench;
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
    if (this.#isInside(at)) this.bench.prompt({ click: { x: at.x, y: at.y, positive } });
  }

  #down(/** @type {PointerEvent} */ event) {
    const { bench } = this;
    const screen = this.#screen(event);
    if (event.pointerType === "touch" && this.#pinches(event, screen)) return;
    bench.painter.canvas.focus({ preventScroll: true });
    bench.painter.canvas.setPointerCapture(event.pointerId);
    bench.painter.overlay.cursor = null;
    const start = bench.painter.view.toImage(screen.x, screen.y);
    const isPan = event.button === 1 || this.isSpaceDown;
    this.#press = { id: event.pointerId, button: event.button, start, last: start, screen, isPan, pad: null, moved: false };
    if (isPan || event.ctrlKey || event.metaKey) return;
    if (bench.tool === "brush" || bench.tool === "eraser") this.#beginStroke(this.#press, event);
  }

  #move(/** @type {PointerEvent} */ event) {
    const { painter, tool } = this.bench;
    const screen = this.#screen(event);
    const before = this.#fingers.get(event.pointerId);
    if (before && this.#fingers.size === 2) return this.#pinch(event.pointerId, before, screen);
    this.over = painter.view.toImage(screen.x, screen.y);
    const press = this.#press;
    if (press && press.id === event.pointerId) {
      press.moved ||= Math.hypot(screen.x - press.screen.x, screen.y - press.screen.y) > CLICK_PX;
      if (press.isPan || (press.moved && tool === "select")) this.#pan(press, screen);
      else if (press.pad) for (const each of coalesced(event)) this.#paint(press, this.#screen(each));
      else if (tool === "box" && press.moved) painter.overlay.box = this.#box(press.start, this.over);
    }
    this.showTip();
    this.bench.hover(press ? null : this.over);
    painter.ask();
  }

  #up(/** @type {PointerEvent} */ event) {
    this.#fingers.delete(event.pointerId);
    const { bench } = this;
    const press = this.#press;
    if (!press || press.id !== event.pointerId) return;
    this.#press = null;
    const screen = this.#screen(event);
    const at = bench.painter.view.toImage(screen.x, screen.y);
    if (press.isPan) return;
    if (press.pad) return this.#give(press.pad.bitmap(), false);
    if (event.ctrlKey || event.metaKey) return bench.pick(press.start, true);
    if (bench.tool === "select") return press.moved ? undefined : bench.pick(press.start, event.shiftKey);
    if (bench.tool === "polygon") return this.#corner(screen);
    if (bench.tool === "box" && press.moved) {
      const { x0, y0, x1, y1 } = this.#box(press.start, at);
      if (x1 - x0 >= 1 && y1 - y0 >= 1) bench.prompt({ box: [x0, y0, x1, y1] });
      return;
    }
    this.click(press.start, !(press.button === 2 || event.shiftKey));
  }

  #cancel(/** @type {PointerEvent} */ event) {
    this.#fingers.delete(event.pointerId);
    this.#press = null;
    this.bench.painter.overlay.box = null;
    this.bench.refresh();
  }

  #left() {
    this.over = null;
    this.bench.painter.overlay.brush = null;
    this.bench.hover(null);
    this.bench.painter.ask();
  }

  #wheel(/** @type {WheelEvent} */ event) {
    event.preventDefault();
    const { view } = this.bench.painter;
    const { x, y } = this.#screen(event);
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (event.shiftKey) view.pan(-(event.deltaX || event.deltaY) * lines, 0);
    else view.zoomTo(view.scale * Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), x, y);
    this.over = view.toImage(x, y);
    this.showTip();
    this.bench.painter.ask();
  }

  /** Show the tip of brush or eraser under the pointer. */
  showTip() {
    const { painter, tool, diameter } = this.bench;
    const isBrush = (tool === "brush" || tool === "eraser") && this.over;
    painter.overlay.brush = isBrush && this.over ? { x: this.over.x, y: this.over.y, diameter } : null;
  }

  #beginStroke(/** @type {Press} */ press, /** @type {PointerEvent} */ event) {
    const { bench } = this;
    press.pad = new Pad(bench.present, bench.task.size);
    this.#paint(press, this.#screen(event));
  }

  #paint(/** @type {Press} */ press, /** @type {Point} */ screen) {
    const { painter, tool, diameter } = this.bench;
    const at = painter.view.toImage(screen.x, screen.y);
    const isErasing = (tool === "eraser") !== (press.button === 2);
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

  #corner(/** @type {Point} */ screen) {
    const { painter } = this.bench;
    const { corners } = painter.overlay;
    if (corners.length >= 3) {
      const first = painter.view.toCanvas(corners[0].x, corners[0].y);
      if (Math.hypot(first.x - screen.x, first.y - screen.y) < CLOSE_PX) return this.closePolygon();
    }
    painter.overlay.corners = [...corners, painter.view.toImage(screen.x, screen.y)];
    painter.ask();
  }

  #pan(/** @type {Press} */ press, /** @type {Point} */ screen) {
    this.bench.painter.view.pan(screen.x - press.screen.x, screen.y - press.screen.y);
    press.screen = screen;
  }

  #pinches(/** @type {PointerEvent} */ event, /** @type {Point} */ screen) {
    this.#fingers.set(event.pointerId, screen);
    if (this.#fingers.size < 2) return false;
    this.#press = null;
    return true;
  }

  #pinch(/** @type {number} */ id, /** @type {Point} */ before, /** @type {Point} */ now) {
    const other = [...this.#fingers].find(([each]) => each !== id)?.[1];
    if (!other) return;
    const { view } = this.bench.painter;
    const grown = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    view.zoomTo(view.scale * grown, (now.x + other.x) / 2, (now.y + other.y) / 2);
    view.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    this.#fingers.set(id, now);
    this.bench.painter.ask();
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
