/**
 * The way of operations to the server: from the browser's database in batches, in order, until the server has them.
 * All tabs of an account share the database; one of them sends at a time, and all hear what became of it.
 *
 * @typedef {import("./store.js").KeptOperation} KeptOperation
 * @typedef {import("./store.js").KeptTask} KeptTask
 * @typedef {import("./store.js").Leaving} Leaving
 * @typedef {"sent" | "sending" | "offline" | "login" | "busy" | "held"} OutboxState
 */

import { ApiError, isTemporary } from "../app/api.js";

const MAX_BATCH = 50;
const MAX_BATCH_CHARACTERS = 4_000_000;
const WAIT_MS = [500, 1000, 2000, 5000, 10000];
const HOLD_MS = 30_000;

/** Codes of errors about a lease: its operations wait, those of other tasks go on. */
const LEASE_ERRORS = new Set(["not_found", "not_yours", "forbidden", "lease_ended", "internal"]);

/**
 * Sender of one account's operations.
 * Events: "change"; "branch", "refused", "returned" and "left", which come to all tabs.
 */
export class Outbox extends EventTarget {
  /** @type {OutboxState} */
  state = "sent";
  /** Operations and ends of tasks that only this browser has. */
  unsent = 0;
  /** Operations that the server refused; they are kept here. */
  refused = 0;
  /** @type {Map<number, {token: string, until: number}>} Tasks that wait for a lease, or for a while. */
  #held = new Map();
  /** Operations on their way into the browser's database. */
  #adding = 0;
  #limit = MAX_BATCH;
  #failures = 0;
  /** @type {Promise<void> | null} */
  #running = null;
  #isAskedAgain = false;
  #timer = 0;

  /**
   * @param {import("./store.js").Store} store
   * @param {import("../app/api.js").Api} api
   */
  constructor(store, api) {
    super();
    this.store = store;
    this.api = api;
    this.channel = new BroadcastChannel(`gigamask ${store.account}`);
    this.channel.onmessage = ({ data }) => void this.#heard(data);
    addEventListener("online", () => void this.send());
    document.addEventListener("visibilitychange", () => void this.send());
    addEventListener("pagehide", () => void this.send());
  }

  /**
   * Keep an operation, and send it soon. When the promise is fulfilled, the operation is on this machine's disk.
   * @param {{task_id: number, token: string}} lease
   * @param {import("./store.js").Operation} operation
   */
  async add({ task_id, token }, operation) {
    this.#adding++;
    this.unsent++;
    this.#changed();
    try {
      await this.store.addOperation({ task_id, token, state: "unsent", operation });
    } finally {
      this.#adding--;
      void this.#count();
    }
    this.channel.postMessage({ name: "count" });
    void this.send();
  }

  /**
   * Keep how a task ends, and send that after its operations.
   * @param {{task_id: number, token: string}} lease
   * @param {Leaving} leaving
   */
  async leave(lease, leaving) {
    await this.store.setLeaving(lease, leaving);
    await this.#count();
    void this.send();
  }

  /** Note the present lease of a task; operations made under an earlier one are sent under it. @param {number} taskId @param {string} token */
  async setToken(taskId, token) {
    if ((await this.store.tokenOf(taskId)) === token) return;
    await this.store.saveToken(taskId, token);
    this.#held.delete(taskId);
  }

  /** Send what is unsent, now; the promise is fulfilled when all was sent or sending has to wait. */
  send() {
    this.#isAskedAgain = this.#running !== null;
    this.#running ??= this.#runAlone().finally(() => {
      this.#running = null;
      if (this.#isAskedAgain && (this.state === "sent" || this.state === "held")) void this.send();
    });
    return this.#running;
  }

  /**
   * Whether everything arrived, after sending what had not.
   * @param {number} [taskId] Ask about the operations of this task alone.
   */
  async flush(taskId) {
    await this.send();
    if (this.unsent) await this.send(); // what was added while the last batch was under way
    if (taskId === undefined) return this.unsent === 0;
    return !(await this.store.operationsOf(taskId)).some((each) => each.state === "unsent");
  }

  /** Delete an operation that was refused. @param {KeptOperation} kept */
  async drop(kept) {
    await this.store.deleteOperation(kept);
    await this.#count();
  }

  async #runAlone() {
    await navigator.locks.request(`gigamask ${this.store.account} sender`, () => this.#run());
  }

  async #run() {
    clearTimeout(this.#timer);
    for (;;) {
      await this.#count();
      const next = (await this.#nextBatch()) ?? (await this.#nextLeaving());
      if (!next) return this.#rest();
      this.#become(this.state === "sent" ? "sending" : this.state);
      try {
        await next.post();
        this.#failures = 0;
        this.#limit = MAX_BATCH;
        this.#become("sending");
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (!(await this.#handle(error, next))) return;
      }
    }
  }

  /** Oldest operations of one task, as many as one request takes. */
  async #nextBatch() {
    const waiting = (await this.store.operations("unsent")).filter((each) => !this.#isHeld(each.task_id));
    if (!waiting.length) return null;
    const taskId = waiting[0].task_id;
    const batch = fitting(waiting.filter((each) => each.task_id === taskId).slice(0, this.#limit));
    const token = (await this.store.tokenOf(taskId)) || batch[0].token;
    const post = async () => {
      await this.api.post("/api/operations", { token, operations: batch.map((each) => each.operation) });
      await this.store.setState(batch, "stored");
    };
    return { taskId, token, batch, post };
  }

  /** A task that is done here and whose operations have all arrived. */
  async #nextLeaving() {
    const waiting = new Set((await this.store.operations("unsent")).map((each) => each.task_id));
    const kept = (await this.store.leaving()).find((each) => !waiting.has(each.task_id) && !this.#isHeld(each.task_id));
    if (!kept?.leaving) return null;
    const { task_id: taskId, lease, leaving } = kept;
    const token = (await this.store.tokenOf(taskId)) || lease.token;
    const post = async () => {
      if ("skip" in leaving) await this.api.post("/api/tasks/skip", { token, reason: leaving.skip });
      if ("handBack" in leaving) await this.api.post("/api/tasks/hand-back", { token });
      const done = "submit" in leaving ? await this.api.post("/api/tasks/submit", { token, revision: leaving.submit }) : null;
      await this.store.forget(taskId);
      this.#tell("left", { task_id: taskId, submission: done });
    };
    return { taskId, token, batch: /** @type {KeptOperation[]} */ ([]), lease, post };
  }

  /**
   * Deal with an error, and tell whether to go on at once.
   * @param {ApiError} error
   * @param {{taskId: number, token: string, batch: KeptOperation[], lease?: any}} failed With a lease: the end of a task.
   */
  async #handle(error, { taskId, token, batch, lease }) {
    const { code, details } = error;
    if (code === "login_required" || code === "other_account") return this.#stop("login");
    if (isTemporary(error) && code !== "internal") return this.#wait(code === "offline" ? "offline" : "busy", error);
    if (lease && code !== "internal") {
      await this.store.setLeaving(lease, undefined); // it comes back as a task
      this.#tell("returned", { task_id: taskId, code, message: error.message });
      return true;
    }
    if (code === "stored_on_branch") {
      await this.store.setState(batch, "on_branch");
      this.#tell("branch", { task_id: taskId, ...details });
      return true;
    }
    if (code === "out_of_order" && (await this.#sendAgain(taskId, details.revision))) return true;
    if (code === "out_of_order" && (await this.store.renumber(taskId, details.revision))) return true;
    if (LEASE_ERRORS.has(code) || code === "out_of_order") return this.#hold(taskId, token);
    return this.#isolate(error, batch);
  }

  /**
   * Set aside the operation that the server refused; where it did not say which, send fewer at a time until it is alone.
   * @param {ApiError} error
   * @param {KeptOperation[]} batch
   */
  async #isolate({ details, message }, batch) {
    const place = Number(/^body\.operations\.(\d+)/.exec(details?.where ?? "")?.[1] ?? -1);
    const named = batch.find((each) => each.operation.op_id === details?.op_id) ?? batch[place];
    const refused = named ?? (batch.length === 1 ? batch[0] : undefined);
    if (!refused) {
      this.#limit = Math.ceil(batch.length / 2);
      return true;
    }
    await this.store.refuse(refused, message);
    this.#tell("refused", { task_id: refused.task_id, op_id: refused.operation.op_id, message });
    return true;
  }

  /**
   * Mark operations as unsent that a restored server has lost, and tell whether there were any.
   * @param {number} taskId
   * @param {number} revision Newest revision that the server has.
   */
  async #sendAgain(taskId, revision) {
    const lost = (await this.store.operationsOf(taskId)).filter((each) => each.state === "stored" && each.operation.base_revision >= revision);
    await this.store.setState(lost, "unsent");
    return lost.length > 0;
  }

  #hold(/** @type {number} */ taskId, /** @type {string} */ token) {
    this.#held.set(taskId, { token, until: Date.now() + HOLD_MS });
    return true;
  }

  #isHeld(/** @type {number} */ taskId) {
    return (this.#held.get(taskId)?.until ?? 0) > Date.now();
  }

  /** All is sent but what is held. */
  #rest() {
    const isHeld = this.unsent > this.#adding;
    if (isHeld) this.#timer = setTimeout(() => void this.send(), HOLD_MS);
    this.#become(isHeld ? "held" : "sent");
  }

  #wait(/** @type {OutboxState} */ state, /** @type {ApiError} */ { retryS }) {
    const wait = Math.max(retryS * 1000, WAIT_MS[Math.min(this.#failures++, WAIT_MS.length - 1)]);
    this.#timer = setTimeout(() => void this.send(), wait);
    return this.#stop(state);
  }

  #stop(/** @type {OutboxState} */ state) {
    this.#become(state);
    return false;
  }

  #become(/** @type {OutboxState} */ state) {
    this.state = state;
    this.#changed();
    this.channel.postMessage({ name: "count" });
  }

  async #count() {
    const [unsent, refused] = await Promise.all([this.store.countUnsent(), this.store.countRefused()]);
    [this.unsent, this.refused] = [unsent + this.#adding, refused];
    this.#changed();
  }

  /** Tell this tab and the others what became of operations. @param {string} name @param {object} detail */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
    this.channel.postMessage({ name, detail });
  }

  async #heard(/** @type {{name: string, detail?: object}} */ { name, detail }) {
    if (name !== "count") this.dispatchEvent(new CustomEvent(name, { detail }));
    await this.#count();
    if (this.#running) return;
    if (!this.unsent) this.state = "sent";
    else if (this.state === "sent") this.state = "sending";
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** First operations of a batch that are small enough for one request, at least one. @param {KeptOperation[]} batch */
function fitting(batch) {
  let characters = 0;
  const end = batch.findIndex((each) => (characters += JSON.stringify(each.operation).length) > MAX_BATCH_CHARACTERS);
  return end < 0 ? batch : batch.slice(0, Math.max(1, end));
}
