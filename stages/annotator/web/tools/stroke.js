/**
 * The scribble in the making: a stroke along the object, or beside it, that becomes one prompt. A pointer draws it, or the
 * keyboard's cursor between two presses of a key.
 *
 * @typedef {import("../work/bench.js").Bench} Bench
 * @typedef {import("../masks/drawing.js").Point} Point
 */

/** Shortest way between two points of a stroke, in CSS pixels. */
const STEP_PX = 3;
/** Most points that the server takes. */
const MAX_POINTS = 10_000;

/** Scribble of one bench. */
export class Stroke {
  /** @type {Point[]} */
  #points = [];
  #isPositive = true;

  /** @param {Bench} bench */
  constructor(bench) {
    this.bench = bench;
  }

  get isBegun() {
    return this.#points.length > 0;
  }

  /** @param {Point} at In image pixels. @param {boolean} isPositive */
  begin(at, isPositive) {
    this.#points = [at];
    this.#isPositive = isPositive;
    this.#show();
  }

  /** @param {Point} at */
  goOn(at) {
    const last = this.#points[this.#points.length - 1];
    const way = Math.hypot(at.x - last.x, at.y - last.y) * this.bench.painter.view.scale;
    if (way < STEP_PX || this.#points.length >= MAX_POINTS) return;
    this.#points.push(at);
    this.#show();
  }

  /** The stroke takes away after all. */
  turnNegative() {
    this.#isPositive = false;
    if (this.isBegun) this.#show();
  }

  /** Prompt with the part of the stroke that lies on the picture. */
  end() {
    const points = this.#inside();
    const positive = this.#isPositive;
    this.drop();
    if (points.length) this.bench.prompt({ scribble: { points, positive } });
  }

  drop() {
    this.#points = [];
    this.bench.painter.overlay.stroke = null;
    this.bench.painter.ask();
  }

  /** @returns {[number, number][]} To a hundredth of a pixel. */
  #inside() {
    const [height, width] = this.bench.task.size;
    const round = (/** @type {number} */ value) => Math.floor(100 * value) / 100;
    return this.#points.filter(({ x, y }) => x >= 0 && y >= 0 && x < width && y < height).map(({ x, y }) => [round(x), round(y)]);
  }

  #show() {
    const points = this.#points.map(({ x, y }) => /** @type {[number, number]} */ ([x, y]));
    this.bench.painter.overlay.stroke = { points, positive: this.#isPositive };
    this.bench.painter.ask();
  }
}
