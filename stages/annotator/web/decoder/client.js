/**
 * The decoding worker, as seen from the page: every message is answered by one promise.
 *
 * @typedef {import("./predict.js").Prompt} Prompt
 * @typedef {import("./predict.js").Answer} Answer
 */

import { ApiError } from "../app/api.js";

/** Worker that is started when it is first used. */
export class DecodingWorker {
  /** @type {Worker | null} */
  #worker = null;
  #count = 0;
  /** @type {Map<number, PromiseWithResolvers<any>>} */
  #waiting = new Map();

  /**
   * Make a model and an image ready.
   * @param {string} model
   * @param {string} image
   * @returns {Promise<void>}
   */
  open(model, image) {
    return this.#ask({ kind: "open", model, image });
  }

  /**
   * @param {string} model
   * @param {string} image
   * @param {Prompt} prompt
   * @returns {Promise<Answer>}
   */
  predict(model, image, prompt) {
    return this.#ask({ kind: "predict", model, image, prompt });
  }

  /** @param {object} message @returns {Promise<any>} */
  #ask(message) {
    const id = this.#count++;
    const asked = Promise.withResolvers();
    this.#waiting.set(id, asked);
    this.#worker ??= this.#start();
    this.#worker.postMessage({ id, ...message });
    return asked.promise;
  }

  #start() {
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data: { id, result, error, isWrongPrompt } }) => {
      const asked = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) asked?.resolve(result);
      else asked?.reject(isWrongPrompt ? new ApiError("invalid", error) : new Error(error));
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      for (const asked of this.#waiting.values()) asked.reject(new Error(event.message || "the decoding worker did not start"));
      this.#waiting.clear();
      this.#worker = null; // the next message starts another one
    });
    return worker;
  }
}
