/** Prompts to the model, one after the other, so that each continues the answer to the one before. */

import { ApiError } from "../app/api.js";
import { decoderOf } from "../decoder/decoder.js";

const TRIES = 4;

/** Prompter of one task. Event: "change". */
export class Prompter extends EventTarget {
  /** @type {{x: number, y: number, positive: boolean}[]} Clicks whose answer has not come yet. */
  waiting = [];
  /** Milliseconds from click to answer, of this session. @type {number[]} */
  times = [];
  #turn = Promise.resolve();
  #round = 0;

  /**
   * @param {import("./task.js").Task} task
   * @param {import("../app/api.js").Api} api
   * @param {(error: ApiError) => void} onError
   */
  constructor(task, api, onError) {
    super();
    this.task = task;
    this.api = api;
    this.onError = onError;
    this.decoder = decoderOf(api);
    void this.decoder.open(task.lease, (body) => this.#post(body));
  }

  /**
   * Ask the model. The draft is the one that `begin` gives when this prompt's turn comes.
   * @param {{click?: {x: number, y: number, positive: boolean}, box?: [number, number, number, number]}} added
   * @param {() => import("./draft.js").Draft} begin
   */
  ask(added, begin) {
    const round = this.#round;
    const began = performance.now();
    if (added.click) this.waiting.push(added.click);
    this.dispatchEvent(new Event("change"));
    this.#turn = this.#turn.then(async () => {
      try {
        if (round !== this.#round) return;
        const draft = begin();
        const prompt = draft.prompt(added);
        const answer = await this.decoder.predict(this.task.lease, { ...prompt, model: this.task.lease.model_id }, (body) => this.#post(body));
        if (round !== this.#round || this.task.draft !== draft) return; // dropped meanwhile
        draft.answered(prompt, answer);
        this.times.push(performance.now() - began);
        await this.task.saveDraft();
      } catch (error) {
        if (this.task.draft && !this.task.draft.isBegun && !this.task.draft.canRedo) this.task.draft = null;
        this.onError(error instanceof ApiError ? error : new ApiError("page", String(error)));
      } finally {
        this.waiting = this.waiting.filter((each) => each !== added.click);
        this.dispatchEvent(new Event("change"));
      }
    });
    return this.#turn;
  }

  /**
   * Do something after the answers to all prompts so far, and before prompts that come later.
   * @param {() => unknown} act
   */
  after(act) {
    this.#turn = this.#turn.then(async () => void (await act()));
    return this.#turn;
  }

  /** Forget the prompts whose answer has not come. */
  cancel() {
    this.#round++;
    this.waiting = [];
  }

  /** @param {object} body */
  async #post(body) {
    for (let tried = 1; ; tried++) {
      try {
        return await this.api.post(`/api/images/${this.task.lease.image_id}/predict`, body);
      } catch (error) {
        const isBusy = error instanceof ApiError && ["busy", "too_many_requests"].includes(error.code);
        if (!isBusy || tried === TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, Math.max(300, error.retryS * 1000)));
      }
    }
  }
}
