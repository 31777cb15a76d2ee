/**
 * Drafts that were accepted: undoing the acceptance opens the draft again, with its prompts.
 *
 * @typedef {import("../masks/fold.js").Line} Line
 * @typedef {NonNullable<import("../masks/fold.js").Step["by"]>} Act Operation of a line.
 */

import { Draft } from "./draft.js";

/** The drafts that one task's masks came from. */
export class Accepted {
  /** @type {WeakMap<object, import("./draft.js").KeptDraft>} By what the operation says. */
  #drafts = new WeakMap();

  /** Keep a draft, and return what the operation that accepts it says. @param {Draft} draft */
  keep(draft) {
    const payload = draft.payload();
    this.#drafts.set(payload, { ...draft.keep(), steps: draft.steps.slice(0, draft.at + 1) });
    return payload;
  }

  /**
   * The draft that an operation accepted, as it was then; null for another operation.
   * @param {Act | undefined} act
   * @param {Line} line As it is before the operation.
   */
  draftOf(act, line) {
    if (!act || !Array.isArray(act.payload.prompts)) return null;
    const { payload } = act;
    const kept = this.#drafts.get(payload);
    const draft = kept ? Draft.restore({ ...kept, steps: [...kept.steps] }) : fromPayload(act, line);
    draft.became = payload;
    return draft;
  }
}

/**
 * Make the draft of what an operation says, as after reloading the page: its prompts in one step, its strokes in another.
 * @param {Act} act
 * @param {Line} line
 */
function fromPayload({ kind, payload }, line) {
  const { rle, model_id, predicted_iou, stability_score, strokes } = payload;
  /** @type {any[]} */
  const prompts = payload.prompts;
  const draft = new Draft(kind === "change" ? { refines: payload.mask, rle: line.find(payload.mask)?.rle } : {});
  draft.mask = payload.mask;
  if (prompts.length) {
    const prompt = {
      clicks: prompts.filter((each) => "x" in each),
      box: prompts.findLast((each) => each.box)?.box ?? null,
      scribbles: prompts.filter((each) => each.scribble).map(({ scribble, positive }) => ({ points: scribble, positive })),
    };
    const candidate = { rle, predicted_iou: predicted_iou ?? 0, stability_score: stability_score ?? 0 };
    draft.answered(prompt, { prediction_id: "", model_id, candidates: [candidate] }, payload.clicks);
  }
  if (strokes || !prompts.length) draft.drew(rle, strokes);
  return draft;
}
