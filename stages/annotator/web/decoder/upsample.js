/**
 * Low-resolution logits to run lengths at the image's resolution: engine/kernels/upsample_runs_numba.py in JavaScript.
 *
 * Logits are resized bilinearly to the model's input and from there to the window, and cut at 0. Most stretches of a
 * column lie between logits that are all above or all below the thresholds and are counted without evaluation. Every
 * product is rounded to float32 where the server's code rounds it, so equal logits give equal masks.
 *
 * @typedef {import("./frame.js").Frame} Frame
 * @typedef {object} Taps Output p is weight0[p] * input[first[p]] + weight1[p] * input[second[p]].
 * @property {Int32Array} first
 * @property {Int32Array} second
 * @property {Float32Array} weight0
 * @property {Float32Array} weight1
 * @typedef {object} Axis The two resizes along one axis.
 * @property {Taps} inner From logits to model pixels.
 * @property {Taps} outer From model pixels to the window's.
 * @property {number[]} starts First output of each group that reads the same logits, and the number of outputs.
 * @property {number[]} firstLow First logit that each group reads.
 * @property {number[]} lastLow Last logit that each group reads.
 * @typedef {object} UpsampledMask
 * @property {number[]} runs
 * @property {[number, number, number, number]} box Box with inclusive maxima; zeros for an empty mask.
 * @property {number} area
 * @property {number} stability
 */

const BELOW = 0;
const ABOVE = 1;
const MIXED = 2;
const MARGIN = 1e-3; // logits; far above the rounding of a blend of values of one sign
const { fround } = Math;

/**
 * Upsample the logits of one mask.
 * @param {Float32Array} logits Rows of a square.
 * @param {number} side Side of the square.
 * @param {Frame} frame
 * @param {number} offset Distance of the stability thresholds from 0.
 * @returns {UpsampledMask}
 */
export function upsample(logits, side, frame, offset) {
  const rows = makeAxis(side, frame.modelSide, frame.scaledSize[0], frame.cropSize[0]);
  const columns = makeAxis(side, frame.modelSide, frame.scaledSize[1], frame.cropSize[1]);
  const scan = new Scan(logits, side, rows, frame, offset);
  for (let group = 0; group < columns.starts.length - 1; group++) {
    const stretches = scan.stretches(columns.firstLow[group], columns.lastLow[group]);
    if (stretches.length === 1 && stretches[0].kind === BELOW) continue;
    for (let x = columns.starts[group]; x < columns.starts[group + 1]; x++) scan.column(x, columns, stretches);
  }
  return scan.result();
}

/** Walk down the columns of one mask. */
class Scan {
  /** @type {number[]} Positions at which runs of the foreground start and end. */
  edges = [];
  high = 0;
  area = 0;
  low = 0;
  #isInside = false;

  /**
   * @param {Float32Array} logits
   * @param {number} side
   * @param {Axis} rows
   * @param {Frame} frame
   * @param {number} offset
   */
  constructor(logits, side, rows, frame, offset) {
    this.logits = logits;
    this.side = side;
    this.rows = rows;
    this.frame = frame;
    this.offset = offset;
    const count = rows.lastLow[rows.lastLow.length - 1] + 1;
    this.kinds = new Uint8Array(count);
    this.lowValues = [new Float32Array(count), new Float32Array(count)];
    this.modelValues = new Float32Array(rows.inner.first.length);
    this.values = new Float32Array(rows.outer.first.length);
    this.left = Infinity;
    this.top = Infinity;
    this.right = -1;
    this.bottom = -1;
  }

  /**
   * Stretches of output rows that lie above, below or across the thresholds, for some columns of logits.
   * @param {number} first
   * @param {number} last
   */
  stretches(first, last) {
    const { kinds, rows } = this;
    for (let row = 0; row < kinds.length; row++) kinds[row] = this.#kindOf(row, first, last);
    /** @type {{first: number, end: number, kind: number}[]} */
    const found = [];
    for (let group = 0; group < rows.starts.length - 1; group++) {
      let kind = kinds[rows.firstLow[group]];
      for (let row = rows.firstLow[group] + 1; row <= rows.lastLow[group]; row++) if (kinds[row] !== kind) kind = MIXED;
      const end = rows.starts[group + 1];
      const before = found[found.length - 1];
      if (before?.kind === kind) before.end = end;
      else found.push({ first: rows.starts[group], end, kind });
    }
    return found;
  }

  #kindOf(/** @type {number} */ row, /** @type {number} */ first, /** @type {number} */ last) {
    let [isAbove, isBelow] = [true, true];
    for (let at = row * this.side + first; at <= row * this.side + last; at++) {
      isAbove &&= this.logits[at] > this.offset + MARGIN;
      isBelow &&= this.logits[at] < -this.offset - MARGIN;
    }
    if (isAbove) return ABOVE;
    return isBelow ? BELOW : MIXED;
  }

  /**
   * @param {number} x Column of the window.
   * @param {Axis} columns
   * @param {ReturnType<Scan["stretches"]>} stretches
   */
  column(x, columns, stretches) {
    const { crop, size, cropSize } = this.frame;
    const base = (x + crop[0]) * size[0] + crop[1];
    this.#isInside = false;
    for (const { first, end, kind } of stretches) {
      if (kind === MIXED) this.#walk(x, columns, first, end, base);
      else this.#skip(x, first, end, kind === ABOVE, base);
    }
    if (this.#isInside) this.edges.push(base + cropSize[0]); // the image may go on below the window
  }

  #skip(/** @type {number} */ x, /** @type {number} */ first, /** @type {number} */ end, /** @type {boolean} */ isAbove, /** @type {number} */ base) {
    if (isAbove !== this.#isInside) this.#turn(base + first);
    if (!isAbove) return;
    const count = end - first;
    this.high += count;
    this.area += count;
    this.low += count;
    this.#reach(x, first, end - 1);
  }

  #walk(/** @type {number} */ x, /** @type {Axis} */ columns, /** @type {number} */ first, /** @type {number} */ end, /** @type {number} */ base) {
    this.#evaluate(x, columns, first, end);
    for (let y = first; y < end; y++) {
      const value = this.values[y];
      if (value > -this.offset) this.low++;
      if (value > this.offset) this.high++;
      if (value > 0 !== this.#isInside) this.#turn(base + y);
      if (!this.#isInside) continue;
      this.area++;
      this.#reach(x, y, y);
    }
  }

  #turn(/** @type {number} */ at) {
    this.edges.push(at);
    this.#isInside = !this.#isInside;
  }

  #reach(/** @type {number} */ x, /** @type {number} */ top, /** @type {number} */ bottom) {
    if (x < this.left) this.left = x;
    this.right = x;
    if (top < this.top) this.top = top;
    if (bottom > this.bottom) this.bottom = bottom;
  }

  /**
   * Evaluate some rows of a column; columns are blended before rows.
   * @param {number} x
   * @param {Axis} columns
   * @param {number} first
   * @param {number} end
   */
  #evaluate(x, columns, first, end) {
    const { inner, outer } = this.rows;
    const [modelFirst, modelLast] = [outer.first[first], outer.second[end - 1]];
    for (let half = 0; half < 2; half++) {
      const at = half ? columns.outer.second[x] : columns.outer.first[x];
      const [column0, column1] = [columns.inner.first[at], columns.inner.second[at]];
      const [weight0, weight1] = [columns.inner.weight0[at], columns.inner.weight1[at]];
      const values = this.lowValues[half];
      for (let row = inner.first[modelFirst]; row <= inner.second[modelLast]; row++) {
        const start = row * this.side;
        values[row] = blend(weight0, this.logits[start + column0], weight1, this.logits[start + column1]);
      }
    }
    const [left, right] = this.lowValues;
    const [weight0, weight1] = [columns.outer.weight0[x], columns.outer.weight1[x]];
    for (let at = modelFirst; at <= modelLast; at++) {
      const [row0, row1, w0, w1] = [inner.first[at], inner.second[at], inner.weight0[at], inner.weight1[at]];
      this.modelValues[at] = blend(weight0, blend(w0, left[row0], w1, left[row1]), weight1, blend(w0, right[row0], w1, right[row1]));
    }
    for (let y = first; y < end; y++) {
      const [upper, lower] = [this.modelValues[outer.first[y]], this.modelValues[outer.second[y]]];
      this.values[y] = blend(outer.weight0[y], upper, outer.weight1[y], lower);
    }
  }

  /** @returns {UpsampledMask} */
  result() {
    const { crop, size } = this.frame;
    const isEmpty = this.right < 0;
    return {
      runs: toRuns(this.edges, size[0] * size[1]),
      box: isEmpty ? [0, 0, 0, 0] : [this.left + crop[0], this.top + crop[1], this.right + crop[0], this.bottom + crop[1]],
      area: this.area,
      stability: this.low ? fround(this.high / this.low) : 0,
    };
  }
}

/** One rounding for the first product and one for the sum, as a fused multiply-add has. */
function blend(/** @type {number} */ weight0, /** @type {number} */ value0, /** @type {number} */ weight1, /** @type {number} */ value1) {
  return fround(weight1 * value1 + fround(weight0 * value0));
}

/**
 * @param {number[]} edges Start, end, start, end, ...; runs that touch are joined.
 * @param {number} pixels
 */
function toRuns(edges, pixels) {
  const runs = [];
  let last = 0;
  for (let at = 0; at < edges.length; at++) {
    if (at % 2 === 0 && runs.length && edges[at] === last) {
      last -= /** @type {number} */ (runs.pop()); // back to where the run began
      continue;
    }
    runs.push(edges[at] - last);
    last = edges[at];
  }
  if (last < pixels) runs.push(pixels - last);
  return runs;
}

/**
 * The resizes from logits to model pixels, and from the first `scaled` of them to `size` pixels.
 * @param {number} low
 * @param {number} model
 * @param {number} scaled
 * @param {number} size
 * @returns {Axis}
 */
function makeAxis(low, model, scaled, size) {
  const [inner, outer] = [linearTaps(low, model), linearTaps(scaled, size)];
  /** @type {Axis} */
  const axis = { inner, outer, starts: [], firstLow: [], lastLow: [] };
  for (let at = 0; at < size; at++) {
    const [first, last] = [inner.first[outer.first[at]], inner.second[outer.second[at]]];
    const group = axis.starts.length - 1;
    if (first === axis.firstLow[group] && last === axis.lastLow[group]) continue;
    axis.starts.push(at);
    axis.firstLow.push(first);
    axis.lastLow.push(last);
  }
  axis.starts.push(size);
  return axis;
}

/**
 * Inputs and weights of a bilinear resize along one axis, with the roundings of torch's `interpolate`.
 * @param {number} inputs
 * @param {number} outputs
 * @returns {Taps}
 */
export function linearTaps(inputs, outputs) {
  const [first, second] = [new Int32Array(outputs), new Int32Array(outputs)];
  const [weight0, weight1] = [new Float32Array(outputs), new Float32Array(outputs)];
  const scale = fround(inputs / outputs);
  for (let at = 0; at < outputs; at++) {
    const source = Math.max(fround(scale * fround(at + 0.5) - 0.5), 0);
    first[at] = Math.min(Math.floor(source), inputs - 1);
    second[at] = first[at] + (first[at] < inputs - 1 ? 1 : 0);
    weight1[at] = Math.min(1, Math.max(0, source - first[at]));
    weight0[at] = 1 - weight1[at];
  }
  return { first, second, weight0, weight1 };
}
