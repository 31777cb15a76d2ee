/** Prompts to the model, one after the other, so that each continues the answer to the one before. */

import { ApiError } from "../app/api.js";
import { decoderOf } from "../decoder/decoder.js";

const TRIES = 4;

/** Prompter of one task. Event: "change". */
export class Prompter extends EventTarget {
  /** What was pointed at and has not been answered yet. @type {import("./draft.js").Added[]} */
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
    void this.decoder.open(task.lease, (body) => this.#predict(body));
  }

  /**
   * Ask the model. The draft is the one that `begin` gives when this prompt's turn comes.
   * @param {import("./draft.js").Added} added
   * @param {() => import("./draft.js").Draft} begin
   */
  ask(added, begin) {
    const began = performance.now();
    return this.inTurn(added, async (isWanted) => {
      const draft = begin();
      const prompt = draft.prompt(added);
      const answer = await this.decoder.predict(this.task.lease, { ...prompt, model: this.task.lease.model_id }, (body) => this.#predict(body));
      if (!isWanted() || this.task.draft !== draft) return; // dropped meanwhile
      draft.answered(prompt, answer);
      this.times.push(performance.now() - began);
      await this.task.saveDraft();
    });
  }

  /**
   * The masks that a click would give, without being one; it waits for nothing, and is asked once.
   * @param {{x: number, y: number}} at
   */
  preview({ x, y }) {
    const prompt = { clicks: [{ x, y, positive: true }], box: null, continued: null, mask: null };
    return this.decoder.preview(this.task.lease, prompt, (body) => this.#post("predict", body));
  }

  /**
   * The flat region around a point.
   * @param {{x: number, y: number, tolerance: number}} about
   * @returns {Promise<import("../masks/rle.js").Rle>}
   */
  async flatRegion(about) {
    const { size, counts } = await this.#patiently(() => this.#post("wand", about));
    return { size, counts };
  }

  /**
   * Do what somebody pointed at, after what was pointed at before, unless it was cancelled; meanwhile it is shown as waiting.
   * @param {import("./draft.js").Added} added
   * @param {(isWanted: () => boolean) => Promise<unknown>} work
   */
  inTurn(added, work) {
    const round = this.#round;
    const isWanted = () => round === this.#round;
    this.waiting.push(added);
    this.dispatchEvent(new Event("change"));
    this.#turn = this.#turn.then(async () => {
      try {
        if (isWanted()) await work(isWanted);
      } catch (error) {
        if (this.task.draft && !this.task.draft.isBegun && !this.task.draft.canRedo) this.task.draft = null;
        this.onError(error instanceof ApiError ? error : new ApiError("page", String(error)));
      } finally {
        this.waiting = this.waiting.filter((each) => each !== added);
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

  #predict(/** @type {object} */ body) {
    return this.#patiently(() => this.#post("predict", body));
  }

  #post(/** @type {"predict" | "wand"} */ route, /** @type {object} */ body) {
    return this.api.post(`/api/images/${this.task.lease.image_id}/${route}`, body);
  }

  /** Ask again while the server is busy. @param {() => Promise<any>} ask */
  async #patiently(ask) {
    for (let tried = 1; ; tried++) {
      try {
        return await ask();
      } catch (error) {
        const isBusy = error instanceof ApiError && ["busy", "too_many_requests"].includes(error.code);
        if (!isBusy || tried === TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, Math.max(300, error.retryS * 1000)));
      }
    }
  }
}
