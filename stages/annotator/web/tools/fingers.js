/**
 * Two fingers on the canvas pan and zoom the picture; one works like a mouse. While a pen is near, the hand that holds it
 * may rest on the screen.
 *
 * @typedef {import("../masks/drawing.js").Point} Point
 * @typedef {import("../canvas/view.js").View} View
 */

/** Milliseconds after a pen was seen in which fingers do nothing. */
const PEN_MS = 1000;

/** Fingers of one canvas. */
export class Fingers {
  /** @type {Map<number, Point>} */
  #places = new Map();
  #penSeen = -Infinity;

  /** @param {View} view */
  constructor(view) {
    this.view = view;
  }

  /** Whether an event is that of a hand beside a pen. @param {PointerEvent} event */
  isPalm(event) {
    if (event.pointerType === "pen") this.#penSeen = event.timeStamp;
    return event.pointerType === "touch" && event.timeStamp - this.#penSeen < PEN_MS;
  }

  /** Note a finger that came down, and tell whether it is not alone. @param {PointerEvent} event @param {Point} screen */
  add(event, screen) {
    if (event.pointerType !== "touch") return false;
    this.#places.set(event.pointerId, screen);
    return this.#places.size > 1;
  }

  /** @param {number} id */
  remove(id) {
    this.#places.delete(id);
  }

  /** Pan and zoom as two fingers move, and tell whether they did. @param {number} id Finger that moved. @param {Point} now */
  pinch(id, now) {
    const before = this.#places.get(id);
    const other = [...this.#places].find(([each]) => each !== id)?.[1];
    if (!before || !other) return false;
    const grown = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    this.view.zoomTo(this.view.scale * grown, (now.x + other.x) / 2, (now.y + other.y) / 2);
    this.view.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    this.#places.set(id, now);
    return true;
  }
}
