/**
 * A task that lives in this tab alone: nothing is kept on disk and nothing is sent but prompts.
 *
 * @typedef {import("../masks/fold.js").TaskMask} TaskMask
 * @typedef {{image_id: string, width: number, height: number, model_id: string}} Photo
 */

import { Task } from "./task.js";

/** What a task keeps its work in, without keeping it. */
class Memory extends EventTarget {
  async saveDraft() {}
  async draftOf() {
    return null;
  }
  async operationsOf() {
    return [];
  }
  async setToken() {}
  async add() {}
}

/**
 * Make a task of a photo.
 * @param {Photo} photo
 * @param {TaskMask[]} given Masks that it begins with.
 * @param {import("../masks/fold.js").FoldedOperation[]} operations What was done before.
 */
export function taskInMemory({ image_id, width, height, model_id }, given = [], operations = []) {
  const memory = new Memory();
  const lease = { token: "", task_id: 0, round_id: "", image_id, height, width, image_url: `/api/images/${image_id}`, model_id, expires_at: "", fixes: null, is_reopened: false };
  return new Task(lease, { given, operations: [...operations] }, { store: memory, outbox: memory });
}

/**
 * Make a mask that a task begins with; it is undecided until it is accepted.
 * @param {string} mask Its name.
 * @param {import("./draft.js").Candidate} found
 * @param {string} model_id
 * @returns {TaskMask}
 */
export function prefilledMask(mask, { rle, predicted_iou, stability_score }, model_id) {
  return {
    mask,
    rle: { size: rle.size, counts: rle.counts },
    origin: "prefill_accepted",
    decided: false,
    model_id,
    predicted_iou,
    stability_score,
    clicks: 0,
    strokes: 0,
    edits: 0,
    source: "",
  };
}
