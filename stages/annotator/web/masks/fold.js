/**
 * The masks of a task, computed from its operations: the same fold as storage/workspace/fold.py.
 *
 * @typedef {import("./rle.js").Rle} Rle
 * @typedef {"made" | "prefill_accepted" | "prefill_edited"} Origin
 * @typedef {object} TaskMask
 * @property {string} mask Name of the mask, unique within the task.
 * @property {Rle} rle
 * @property {Origin} origin
 * @property {boolean} decided Whether the annotator accepted, made or edited it.
 * @property {string} model_id
 * @property {number | null} predicted_iou
 * @property {number | null} stability_score
 * @property {number} clicks
 * @property {number} strokes
 * @property {number} edits
 * @property {string} source
 * @typedef {{op_id: string, kind: string, payload: any}} FoldedOperation
 * @typedef {{masks: Map<string, TaskMask>, rejected: Map<string, TaskMask>, by?: {kind: string, payload: any}}} Step `by` is
 *   the operation that led to it; none did to the first.
 */

const PASSIVE = new Set(["activity", "note"]);

/** State of an annotator's line on a task. */
export class Line {
  /**
   * @param {TaskMask[]} given Prefilled masks.
   * @param {FoldedOperation[]} operations
   */
  constructor(given, operations = []) {
    /** @type {Step[]} */
    this.steps = [{ masks: new Map(given.map((each) => [each.mask, each])), rejected: new Map() }];
    this.here = 0;
    /** Number of operations on the line; passive ones do not count. */
    this.revision = 0;
    this.ignored = 0;
    for (const operation of operations) this.push(operation);
  }

  /** Masks in the order in which they appeared. */
  get masks() {
    return [...this.steps[this.here].masks.values()];
  }

  get rejected() {
    return [...this.steps[this.here].rejected.values()];
  }

  get canUndo() {
    return this.here > 0;
  }

  get canRedo() {
    return this.here < this.steps.length - 1;
  }

  /** The operation that undoing takes back; undefined for none. */
  get last() {
    return this.steps[this.here].by;
  }

  /** The operation that redoing brings back; undefined for none. */
  get next() {
    return this.steps[this.here + 1]?.by;
  }

  /** @param {string} name */
  find(name) {
    return this.steps[this.here].masks.get(name);
  }

  /**
   * Apply an operation, and tell whether it fits the state; one that does not changes nothing.
   * @param {FoldedOperation} operation
   */
  push({ kind, payload }) {
    if (PASSIVE.has(kind)) return true;
    this.revision++;
    if (kind === "fix") return this.#fix(payload);
    const fits = kind === "undo" || kind === "redo" ? this.#move(kind === "redo" ? 1 : -1) : this.#apply(kind, payload);
    this.ignored += fits ? 0 : 1;
    return fits;
  }

  /** Begin to fix a submission: its masks are what undo goes back to. @param {{masks: TaskMask[], rejected: TaskMask[]}} payload */
  #fix({ masks, rejected }) {
    const byName = (/** @type {TaskMask[]} */ some) => new Map(some.map((each) => [each.mask, each]));
    this.steps = [{ masks: byName(masks), rejected: byName(rejected) }];
    this.here = 0;
    return true;
  }

  #move(/** @type {number} */ by) {
    const there = this.here + by;
    if (there < 0 || there >= this.steps.length) return false;
    this.here = there;
    return true;
  }

  #apply(/** @type {string} */ kind, /** @type {any} */ payload) {
    const step = APPLY[kind](this.steps[this.here], payload);
    if (!step) return false;
    this.steps.splice(this.here + 1, Infinity, { ...step, by: { kind, payload } });
    this.here++;
    return true;
  }
}

/** @type {Record<string, (step: Step, payload: any) => Step | null>} */
const APPLY = { add, change, remove, accept, reject, merge, split };

/** @type {(step: Step, payload: any) => Step | null} */
function add(step, payload) {
  if (step.masks.has(payload.mask) || step.rejected.has(payload.mask)) return null;
  return { ...step, masks: new Map(step.masks).set(payload.mask, made(payload.mask, payload, payload.origin ?? "made")) };
}

/** @type {(step: Step, payload: any) => Step | null} */
function change(step, payload) {
  const old = step.masks.get(payload.mask);
  if (!old) return null;
  const found = made(old.mask, payload, old.origin === "made" ? "made" : "prefill_edited");
  const changed = {
    ...found,
    clicks: old.clicks + found.clicks,
    strokes: old.strokes + found.strokes,
    edits: old.edits + 1,
    source: old.source,
    model_id: found.model_id || old.model_id,
  };
  return { ...step, masks: new Map(step.masks).set(old.mask, changed) };
}

/** @type {(step: Step, payload: any) => Step | null} */
function remove(step, payload) {
  return without(step, payload.mask);
}

/** @type {(step: Step, payload: any) => Step | null} */
function accept(step, payload) {
  const old = step.masks.get(payload.mask);
  if (old?.origin !== "prefill_accepted") return null;
  return { ...step, masks: new Map(step.masks).set(old.mask, { ...old, decided: true }) };
}

/** @type {(step: Step, payload: any) => Step | null} */
function reject(step, payload) {
  const old = step.masks.get(payload.mask);
  return !old || old.origin === "made" ? null : without(step, old.mask);
}

/** @type {(step: Step, payload: any) => Step | null} */
function merge(step, payload) {
  const olds = payload.masks.map((/** @type {string} */ name) => step.masks.get(name)).filter(Boolean);
  if (olds.length < payload.masks.length || isTaken(step, payload.mask, payload.masks)) return null;
  const isMade = olds.every((/** @type {TaskMask} */ old) => old.origin === "made");
  const sum = (/** @type {"clicks" | "strokes" | "edits"} */ field) =>
    olds.reduce((/** @type {number} */ total, /** @type {TaskMask} */ old) => total + old[field], 0);
  const joined = made(payload.mask, payload, isMade ? "made" : "prefill_edited");
  joined.clicks += sum("clicks");
  joined.strokes += sum("strokes");
  joined.edits = 1 + sum("edits");
  joined.source = olds.find((/** @type {TaskMask} */ old) => old.source)?.source ?? "";
  const masks = new Map([...step.masks].filter(([name]) => !payload.masks.includes(name)));
  return { ...step, masks: masks.set(joined.mask, joined) };
}

/** @type {(step: Step, payload: any) => Step | null} */
function split(step, payload) {
  const old = step.masks.get(payload.mask);
  if (!old || payload.into.some((/** @type {any} */ part) => isTaken(step, part.mask, [old.mask]))) return null;
  const origin = old.origin === "made" ? "made" : "prefill_edited";
  const masks = new Map([...step.masks].filter(([name]) => name !== old.mask));
  payload.into.forEach((/** @type {any} */ part, /** @type {number} */ number) => {
    const found = { ...made(part.mask, part, origin), model_id: old.model_id, edits: old.edits + 1 };
    // The first part inherits the work, so that the sum over masks stays the sum over operations.
    masks.set(part.mask, number === 0 ? { ...found, clicks: old.clicks, strokes: old.strokes } : found);
  });
  return { ...step, masks };
}

/**
 * @param {string} name
 * @param {any} payload
 * @param {Origin} origin
 * @returns {TaskMask}
 */
function made(name, payload, origin) {
  return {
    mask: name,
    rle: payload.rle,
    origin,
    decided: true,
    model_id: payload.model_id ?? "",
    predicted_iou: payload.predicted_iou ?? null,
    stability_score: payload.stability_score ?? null,
    clicks: payload.clicks ?? 0,
    strokes: payload.strokes ?? 0,
    edits: 0,
    source: "",
  };
}

/**
 * @param {Step} step
 * @param {string} name
 * @returns {Step | null}
 */
function without(step, name) {
  const gone = step.masks.get(name);
  if (!gone) return null;
  const masks = new Map(step.masks);
  masks.delete(name);
  const rejected = gone.origin === "made" ? step.rejected : new Map(step.rejected).set(name, gone);
  return { masks, rejected };
}

/**
 * @param {Step} step
 * @param {string} name
 * @param {string[]} besides
 */
function isTaken(step, name, besides) {
  return (step.masks.has(name) || step.rejected.has(name)) && !besides.includes(name);
}
