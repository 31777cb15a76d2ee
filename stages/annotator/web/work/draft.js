/**
 * The mask in the making: clicks, box, candidates and strokes, each step of which can be undone.
 *
 * @typedef {import("../masks/rle.js").Rle} Rle
 * @typedef {import("../masks/bitmap.js").Bitmap} Bitmap
 * @typedef {{x: number, y: number, positive: boolean}} Click
 * @typedef {import("../decoder/scribble.js").Scribble} Scribble
 * @typedef {{rle: Rle, predicted_iou: number, stability_score: number}} Candidate
 * @typedef {object} Step State after one act; plain values, so that the browser can keep it.
 * @property {Click[]} clicks Clicks since the mask was last drawn by hand.
 * @property {[number, number, number, number] | null} box
 * @property {Scribble[]} scribbles Scribbles since then.
 * @property {string} prediction_id
 * @property {string} model_id
 * @property {Candidate[]} candidates
 * @property {number} chosen
 * @property {Rle | null} drawn Mask as drawn by hand; null where a candidate is the mask.
 * @property {number} clickCount Clicks, boxes and scribbles so far.
 * @property {number} strokeCount
 * @typedef {Click | {box: [number, number, number, number]} | {scribble: [number, number][], positive: boolean}} Asked One
 *   prompt, as it is stored with the mask.
 * @typedef {{click?: Click, box?: [number, number, number, number], scribble?: Scribble}} Added What an annotator adds.
 * @typedef {{mask: string, refines: string, steps: Step[], at: number}} KeptDraft
 */

import { bitmapOf } from "../masks/bitmap.js";
import { uuid7 } from "../safe/uuid.js";

/** One mask in the making. */
export class Draft {
  /** @type {Step[]} */
  steps = [];
  at = 0;
  /** What the operation says that accepted this draft, once it was undone; null after a change. @type {object | null} */
  became = null;

  /**
   * @param {{refines?: string, rle?: Rle | null}} begin Mask that is refined, if any.
   */
  constructor({ refines = "", rle = null } = {}) {
    /** Name that the mask has or will have. */
    this.mask = refines || `m-${uuid7().slice(0, 23)}`;
    this.refines = refines;
    this.steps = [
      { clicks: [], box: null, scribbles: [], prediction_id: "", model_id: "", candidates: [], chosen: 0, drawn: rle, clickCount: 0, strokeCount: 0 },
    ];
  }

  /** @param {KeptDraft} kept */
  static restore({ mask, refines, steps, at }) {
    const complete = steps.map((each) => ({ ...each, scribbles: each.scribbles ?? [] })); // kept by an earlier page
    return Object.assign(new Draft({ refines }), { mask, steps: complete, at });
  }

  /** @returns {KeptDraft} */
  keep() {
    return { mask: this.mask, refines: this.refines, steps: this.steps, at: this.at };
  }

  get step() {
    return this.steps[this.at];
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.steps.length - 1;
  }

  /** @returns {Rle | null} The mask as it is now. */
  get rle() {
    return this.step.drawn ?? this.step.candidates[this.step.chosen]?.rle ?? null;
  }

  /** @returns {Bitmap | null} */
  get bitmap() {
    return this.rle && bitmapOf(this.rle);
  }

  /** Whether there is more than one suggestion. */
  get hasChoice() {
    return !this.step.drawn && this.step.candidates.length > 1;
  }

  /** Whether anything was done. */
  get isBegun() {
    return this.at > 0;
  }

  undo() {
    if (this.canUndo) this.at--;
  }

  redo() {
    if (this.canRedo) this.at++;
  }

  /** Go to the first thing that was done. */
  rewind() {
    this.at = Math.min(1, this.steps.length - 1);
  }

  /**
   * Prompt for the model: all prompts since the mask was last drawn, and what to continue.
   * @param {Added} added
   */
  prompt({ click, box, scribble }) {
    const { clicks, box: earlier, scribbles, candidates, chosen, prediction_id, drawn } = this.step;
    const rle = this.rle;
    return {
      clicks: click ? [...clicks, click] : clicks,
      box: box ?? earlier,
      scribbles: scribble ? [...scribbles, scribble] : scribbles,
      continued: !drawn && candidates.length ? { prediction_id, candidate: chosen } : null,
      mask: rle && !box ? { size: rle.size, counts: rle.counts } : null,
    };
  }

  /**
   * Take the model's answer to a prompt.
   * @param {Pick<ReturnType<Draft["prompt"]>, "clicks" | "box" | "scribbles">} prompt
   * @param {{prediction_id: string, model_id: string, candidates: Candidate[]}} answer
   * @param {number} added Number of clicks, boxes and scribbles that are new.
   */
  answered(prompt, { prediction_id, model_id, candidates }, added = 1) {
    this.#push({
      clicks: prompt.clicks,
      box: prompt.box,
      scribbles: prompt.scribbles,
      prediction_id,
      model_id,
      candidates: candidates.map((each) => ({ ...each, rle: { size: each.rle.size, counts: each.rle.counts } })),
      chosen: 0,
      drawn: null,
      clickCount: this.step.clickCount + added,
    });
  }

  /** Choose another candidate. @param {number} chosen */
  choose(chosen) {
    const { candidates } = this.step;
    if (!this.hasChoice) return;
    this.#push({ chosen: (chosen + candidates.length) % candidates.length });
  }

  /** Take a mask that was drawn by hand. @param {Rle} drawn @param {number} strokes */
  drew(drawn, strokes = 1) {
    const nothing = { clicks: [], box: null, scribbles: [], candidates: [], chosen: 0, prediction_id: "" };
    this.#push({ ...nothing, drawn, strokeCount: this.step.strokeCount + strokes });
  }

  /** Take another mask in place of the one that was drawn last. @param {Rle} drawn */
  drewAgain(drawn) {
    this.became = null;
    this.steps.splice(this.at, Infinity, { ...this.step, drawn });
  }

  /** What the operation says about the mask. */
  payload() {
    const { candidates, chosen, model_id, clickCount, strokeCount } = this.step;
    const candidate = this.step.drawn ? null : candidates[chosen];
    return {
      mask: this.mask,
      rle: this.rle,
      model_id,
      predicted_iou: candidate?.predicted_iou ?? null,
      stability_score: candidate?.stability_score ?? null,
      prompts: this.#prompts(),
      clicks: clickCount,
      strokes: strokeCount,
    };
  }

  /** Prompts so far, in their order; steps that asked the model nothing have none. */
  #prompts() {
    return this.steps.slice(1, this.at + 1).flatMap(({ clicks, box, scribbles, clickCount }, before) => {
      const earlier = this.steps[before];
      /** @type {Asked[]} */
      const added = [
        ...(box && box !== earlier.box ? [{ box }] : []),
        ...scribbles.slice(earlier.scribbles.length).map(({ points, positive }) => ({ scribble: points, positive })),
        ...clicks.slice(earlier.clicks.length),
      ];
      return clickCount === earlier.clickCount ? [] : added;
    });
  }

  #push(/** @type {Partial<Step>} */ change) {
    this.became = null;
    this.steps.splice(this.at + 1, Infinity, { ...this.step, ...change });
    this.at++;
  }
}
