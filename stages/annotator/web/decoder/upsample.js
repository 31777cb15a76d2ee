/**
 * Low-resolution logits to run lengths at the image's resolution: engine/kernels/upsample_runs_numba.py in JavaScript.
 *
 * Logits are resized bilinearly to the model's input and from there to the window, and cut at 0. Most stretches of a
 * column lie between logits that are all above or all below the thresholds and are counted without evaluation. In what is
 * left, so are those blocks between four values of the model's input that lie in one interval of the thresholds. Every
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
 * @property {number[]} blockStarts First output of each block that reads the same two model pixels, and the number of outputs.
 * @property {Int32Array} blockOf Block of each output; every block lies in one group.
 * @typedef {{first: number, end: number, kind: number}} Stretch Output rows of one kind.
 * @typedef {object} UpsampledMask
 * @property {number[]} runs
 * @property {[number, number, number, number]} box Box with inclusive maxima; zeros for an empty mask.
 * @property {number} area
 * @property {number} stability
 */

/** Kinds of rows and blocks: below -offset, from there to 0, from 0 to +offset, above +offset, or none of these for all. */
const [BELOW, NEGATIVE, POSITIVE, ABOVE, MIXED] = [0, 1, 2, 3, 4];
/** Mean number of output rows of a block from which blocks are looked at; smaller ones are evaluated as quickly. */
const MIN_BLOCK_PX = 2;
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
  const scan = new Scan(logits, side, rows, columns, frame, offset);
  for (let group = 0; group < columns.starts.length - 1; group++) scan.group(group);
  return scan.result();
}

/** Walk over the columns of one mask: over groups, in a group over blocks, in a block over columns. */
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
   * @param {Axis} columns
   * @param {Frame} frame
   * @param {number} offset
   */
  constructor(logits, side, rows, columns, frame, offset) {
    this.logits = logits;
    this.side = side;
    this.rows = rows;
    this.columns = columns;
    this.frame = frame;
    this.offset = offset;
    const count = rows.lastLow[rows.lastLow.length - 1] + 1;
    this.kinds = new Uint8Array(count);
    this.lowValues = new Float32Array(count);
    /** Values of the model's input at the two columns of it between which a block lies. */
    this.before = new Float32Array(rows.inner.first.length);
    this.after = new Float32Array(rows.inner.first.length);
    this.values = new Float32Array(rows.outer.first.length);
    this.looksAtBlocks = rows.outer.first.length >= MIN_BLOCK_PX * (rows.blockStarts.length - 1);
    this.left = Infinity;
    this.top = Infinity;
    this.right = -1;
    this.bottom = -1;
  }

  /** Walk over the columns that read the same logits. @param {number} group */
  group(group) {
    const { columns } = this;
    const segments = this.#segments(columns.firstLow[group], columns.lastLow[group]);
    if (segments.length === 1 && segments[0].kind === BELOW) return;
    let known = -1; // model column that `after` holds
    const lastBlock = columns.blockOf[columns.starts[group + 1] - 1];
    for (let block = columns.blockOf[columns.starts[group]]; block <= lastBlock; block++) {
      const x = columns.blockStarts[block];
      if (columns.outer.first[x] === known) [this.before, this.after] = [this.after, this.before];
      else this.#fill(this.before, columns.outer.first[x], segments);
      known = columns.outer.second[x];
      this.#fill(this.after, known, segments);
      const stretches = this.looksAtBlocks ? this.#stretches(segments) : segments;
      if (stretches.length === 1 && stretches[0].kind === BELOW) continue;
      for (let at = x; at < columns.blockStarts[block + 1]; at++) this.#column(at, stretches);
    }
  }

  /**
   * Stretches of output rows that lie above, below or across the thresholds, for some columns of logits.
   * @param {number} first
   * @param {number} last
   */
  #segments(first, last) {
    const { kinds, rows } = this;
    for (let row = 0; row < kinds.length; row++) kinds[row] = this.#kindOf(row, first, last);
    /** @type {Stretch[]} */
    const found = [];
    for (let group = 0; group < rows.starts.length - 1; group++) {
      let kind = kinds[rows.firstLow[group]];
      for (let row = rows.firstLow[group] + 1; row <= rows.lastLow[group]; row++) if (kinds[row] !== kind) kind = MIXED;
      append(found, rows.starts[group], rows.starts[group + 1], kind);
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
   * Blend the logits to a column of the model's input, at the rows that mixed segments read; columns come before rows.
   * @param {Float32Array} values
   * @param {number} column
   * @param {Stretch[]} segments
   */
  #fill(values, column, segments) {
    const { logits, side, lowValues } = this;
    const { inner, outer } = this.rows;
    const across = this.columns.inner;
    const [column0, column1] = [across.first[column], across.second[column]];
    const [weight0, weight1] = [across.weight0[column], across.weight1[column]];
    for (const { first, end, kind } of segments) {
      if (kind !== MIXED) continue;
      const [from, to] = [outer.first[first], outer.second[end - 1]];
      for (let row = inner.first[from]; row <= inner.second[to]; row++) {
        lowValues[row] = blend(weight0, logits[row * side + column0], weight1, logits[row * side + column1]);
      }
      for (let at = from; at <= to; at++) {
        values[at] = blend(inner.weight0[at], lowValues[inner.first[at]], inner.weight1[at], lowValues[inner.second[at]]);
      }
    }
  }

  /** Divide mixed segments by the corners of their blocks. @param {Stretch[]} segments */
  #stretches(segments) {
    const { blockOf, blockStarts, outer } = this.rows;
    /** @type {Stretch[]} */
    const found = [];
    for (const { first, end, kind } of segments) {
      if (kind !== MIXED) {
        append(found, first, end, kind);
        continue;
      }
      for (let block = blockOf[first]; block <= blockOf[end - 1]; block++) {
        const y = blockStarts[block];
        append(found, y, blockStarts[block + 1], this.#kindOfBlock(outer.first[y], outer.second[y]));
      }
    }
    return found;
  }

  /** Kind of the block between two rows of the model's input; corners that are infinite or NaN make it mixed. */
  #kindOfBlock(/** @type {number} */ upper, /** @type {number} */ lower) {
    const { before, after, offset } = this;
    const [a, b, c, d] = [before[upper], after[upper], before[lower], after[lower]];
    const [least, most] = [Math.min(a, b, c, d), Math.max(a, b, c, d)];
    if (!Number.isFinite(least) || !Number.isFinite(most)) return MIXED;
    if (least > offset + MARGIN) return ABOVE;
    if (most < -offset - MARGIN) return BELOW;
    if (least > MARGIN && most < offset - MARGIN) return POSITIVE;
    if (most < -MARGIN && least > -offset + MARGIN) return NEGATIVE;
    return MIXED;
  }

  #column(/** @type {number} */ x, /** @type {Stretch[]} */ stretches) {
    const { crop, size, cropSize } = this.frame;
    const base = (x + crop[0]) * size[0] + crop[1];
    const { edges } = this;
    const begun = edges.length;
    this.#isInside = false;
    for (const { first, end, kind } of stretches) {
      if (kind === MIXED) this.#walk(x, first, end, base);
      else this.#skip(first, end, kind, base);
    }
    if (this.#isInside) edges.push(base + cropSize[0]); // the image may go on below the window
    if (edges.length === begun) return;
    for (let at = begun; at < edges.length; at += 2) this.area += edges[at + 1] - edges[at];
    this.left = Math.min(this.left, x);
    this.right = x;
    this.top = Math.min(this.top, edges[begun] - base);
    this.bottom = Math.max(this.bottom, edges[edges.length - 1] - base - 1);
  }

  #skip(/** @type {number} */ first, /** @type {number} */ end, /** @type {number} */ kind, /** @type {number} */ base) {
    if (kind >= POSITIVE !== this.#isInside) this.#turn(base + first);
    if (kind === ABOVE) this.high += end - first;
    if (kind !== BELOW) this.low += end - first;
  }

  #walk(/** @type {number} */ x, /** @type {number} */ first, /** @type {number} */ end, /** @type {number} */ base) {
    const { values, offset } = this;
    this.#evaluate(x, first, end);
    for (let y = first; y < end; y++) {
      const value = values[y];
      if (value > -offset) this.low++;
      if (value > offset) this.high++;
      if (value > 0 !== this.#isInside) this.#turn(base + y);
    }
  }

  #turn(/** @type {number} */ at) {
    this.edges.push(at);
    this.#isInside = !this.#isInside;
  }

  /** Evaluate some rows of a column. */
  #evaluate(/** @type {number} */ x, /** @type {number} */ first, /** @type {number} */ end) {
    const { before, after, values } = this;
    const { blockOf, blockStarts, outer } = this.rows;
    const [weight0, weight1] = [this.columns.outer.weight0[x], this.columns.outer.weight1[x]];
    for (let block = blockOf[first]; block <= blockOf[end - 1]; block++) {
      const [upper, lower] = [outer.first[blockStarts[block]], outer.second[blockStarts[block]]];
      const above = blend(weight0, before[upper], weight1, after[upper]);
      const below = blend(weight0, before[lower], weight1, after[lower]);
      for (let y = blockStarts[block]; y < blockStarts[block + 1]; y++) {
        values[y] = blend(outer.weight0[y], above, outer.weight1[y], below);
      }
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

/** Add rows to stretches; those of the same kind are joined. */
function append(/** @type {Stretch[]} */ stretches, /** @type {number} */ first, /** @type {number} */ end, /** @type {number} */ kind) {
  const before = stretches[stretches.length - 1];
  if (before?.kind === kind) before.end = end;
  else stretches.push({ first, end, kind });
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

const MAX_AXES = 32;
/** @type {Map<string, Axis>} */
const axes = new Map();

/**
 * The resizes from logits to model pixels, and from the first `scaled` of them to `size` pixels; kept for the next mask.
 * @param {number} low
 * @param {number} model
 * @param {number} scaled
 * @param {number} size
 * @returns {Axis}
 */
function makeAxis(low, model, scaled, size) {
  const key = [low, model, scaled, size].join();
  const known = axes.get(key);
  if (known) return known;
  const [inner, outer] = [linearTaps(low, model), linearTaps(scaled, size)];
  /** @type {Axis} */
  const axis = { inner, outer, starts: [], firstLow: [], lastLow: [], blockStarts: [], blockOf: new Int32Array(size) };
  for (let at = 0; at < size; at++) {
    const isNewBlock = !at || outer.first[at] !== outer.first[at - 1] || outer.second[at] !== outer.second[at - 1];
    if (isNewBlock) axis.blockStarts.push(at);
    axis.blockOf[at] = axis.blockStarts.length - 1;
    const [first, last] = [inner.first[outer.first[at]], inner.second[outer.second[at]]];
    const group = axis.starts.length - 1;
    if (first === axis.firstLow[group] && last === axis.lastLow[group]) continue;
    axis.starts.push(at);
    axis.firstLow.push(first);
    axis.lastLow.push(last);
  }
  axis.starts.push(size);
  axis.blockStarts.push(size);
  if (axes.size >= MAX_AXES) axes.clear();
  axes.set(key, axis);
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
