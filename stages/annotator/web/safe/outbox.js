/**
 * The way of operations to the server: from the browser's database in batches, in order, until the server has them.
 *
 * @typedef {import("./store.js").KeptOperation} KeptOperation
 * @typedef {"sent" | "sending" | "offline" | "login" | "busy" | "refused"} OutboxState
 */

import { ApiError } from "../app/api.js";

const MAX_BATCH = 50;
const WAIT_MS = [500, 1000, 2000, 5000, 10000];

/** Sender of one account's operations. Events: "change", "branch" and "refused". */
export class Outbox extends EventTarget {
  /** @type {OutboxState} */
  state = "sent";
  unsent = 0;
  /** Message of the server about the operation that it refused. */
  message = "";
  /** @type {Map<number, string>} Current lease of each task; it replaces the one that an operation was made under. */
  tokens = new Map();
  #failures = 0;
  /** @type {Promise<void> | null} */
  #running = null;
  #timer = 0;

  /**
   * @param {import("./store.js").Store} store
   * @param {import("../app/api.js").Api} api
   */
  constructor(store, api) {
    super();
    this.store = store;
    this.api = api;
    addEventListener("online", () => this.send());
  }

  /**
   * Keep an operation, and send it soon. When the promise is fulfilled, the operation is on this machine's disk.
   * @param {number} taskId
   * @param {object} operation
   */
  async add(taskId, operation) {
    const token = this.tokens.get(taskId) ?? "";
    await this.store.addOperation({ task_id: taskId, token, state: "unsent", operation });
    this.unsent++;
    this.#changed();
    void this.send();
  }

  /** Send what is unsent, now; the promise is fulfilled when all was sent or sending has to wait. */
  send() {
    clearTimeout(this.#timer);
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  /** Whether everything arrived, after sending what had not. */
  async flush() {
    await this.send();
    if (this.unsent) await this.send(); // what was added while the last batch was under way
    return this.unsent === 0;
  }

  async #run() {
    for (;;) {
      const waiting = await this.store.unsent();
      this.unsent = waiting.length;
      if (!waiting.length) return this.#become("sent");
      this.#become(this.state === "sent" ? "sending" : this.state);
      const taskId = waiting[0].task_id;
      const batch = waiting.filter((each) => each.task_id === taskId).slice(0, MAX_BATCH);
      try {
        await this.#post(batch);
        this.#failures = 0;
        this.#become("sending");
      } catch (error) {
        if (!(await this.#handle(/** @type {Error} */ (error), batch))) return;
      }
    }
  }

  /** @param {KeptOperation[]} batch All of one task. */
  async #post(batch) {
    const token = this.tokens.get(batch[0].task_id) ?? batch[0].token;
    await this.api.post("/api/operations", { token, operations: batch.map((each) => each.operation) });
    await this.store.setState(batch, "stored");
  }

  /**
   * Deal with an error, and tell whether to go on at once.
   * @param {Error} error
   * @param {KeptOperation[]} batch
   */
  async #handle(error, batch) {
    const code = error instanceof ApiError ? error.code : "";
    const details = error instanceof ApiError ? error.details : {};
    const taskId = batch[0].task_id;
    if (code === "stored_on_branch") {
      await this.store.setState(batch, "on_branch");
      this.dispatchEvent(new CustomEvent("branch", { detail: { task_id: taskId, ...details } }));
      return true;
    }
    if (code === "out_of_order" && (await this.#sendAgain(taskId, details.revision))) return true;
    if (code === "login_required") return this.#stop("login");
    if (["offline", "busy", "workspace_unavailable", "too_many_requests", "internal", "storage"].includes(code)) {
      return this.#wait(code === "offline" ? "offline" : "busy", error);
    }
    await this.store.setState(batch, "refused"); // kept in this browser, for a lead
    this.message = error.message;
    this.#become("refused");
    this.dispatchEvent(new CustomEvent("refused", { detail: { task_id: taskId, message: error.message } }));
    return true;
  }

  /**
   * Mark operations as unsent that a restored server has lost, and tell whether there were any.
   * @param {number} taskId
   * @param {number} revision Newest revision that the server has.
   */
  async #sendAgain(taskId, revision) {
    const lost = (await this.store.operationsOf(taskId)).filter(
      (each) => each.state === "stored" && /** @type {any} */ (each.operation).base_revision >= revision,
    );
    await this.store.setState(lost, "unsent");
    return lost.length > 0;
  }

  #wait(/** @type {OutboxState} */ state, /** @type {Error} */ error) {
    const asked = error instanceof ApiError ? error.retryS * 1000 : 0;
    const wait = Math.max(asked, WAIT_MS[Math.min(this.#failures++, WAIT_MS.length - 1)]);
    this.#timer = setTimeout(() => this.send(), wait);
    return this.#stop(state);
  }

  #stop(/** @type {OutboxState} */ state) {
    this.#become(state);
    return false;
  }

  #become(/** @type {OutboxState} */ state) {
    this.state = state;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
