/**
 * The tasks of this annotator: claimed, fetched ahead, and finished once the server has all of their work.
 *
 * @typedef {import("./task.js").Lease} Lease
 * @typedef {{lease: Lease, line: import("./task.js").ServerLine, picture: import("../canvas/picture.js").Picture, branches: any[]}} Ready
 */

import { ApiError } from "../app/api.js";
import { Picture } from "../canvas/picture.js";

/** Tasks held at a time: the one at work and two ahead. */
const HELD = 3;

/** Queue of one login. */
export class Queue {
  /** @type {Map<number, Promise<Ready>>} */
  #ready = new Map();
  /** @type {Lease[]} */
  leases = [];

  /** @param {import("../app/main.js").App} app */
  constructor({ api, store, outbox }) {
    this.api = api;
    this.store = store;
    this.outbox = outbox;
    outbox.addEventListener("change", () => outbox.state === "sent" && void this.finish());
  }

  /**
   * Find the next task; null where nothing is left.
   * @returns {Promise<Ready | null>}
   */
  async next() {
    try {
      await this.finish();
      await this.#claim();
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "offline") throw error;
      return this.#fromBrowser();
    }
    const [lease] = this.leases;
    if (!lease) return null;
    for (const each of this.leases) void this.#prepare(each).catch(() => this.#ready.delete(each.task_id));
    return this.#prepare(lease);
  }

  /** Read the lease and line of a task again; null where somebody else has it now. @param {number} taskId @returns {Promise<Ready | null>} */
  async again(taskId) {
    this.#ready.delete(taskId);
    await this.#claim();
    const lease = this.leases.find((each) => each.task_id === taskId);
    return lease ? this.#prepare(lease) : null;
  }

  /**
   * Note that a task is to be submitted, and go on; the server hears of it as soon as it has all operations.
   * @param {Lease} lease
   * @param {number} revision
   */
  async submit(lease, revision) {
    const kept = (await this.store.tasks()).find((each) => each.task_id === lease.task_id);
    await this.store.saveTask({ ...kept, task_id: lease.task_id, lease, submit: revision });
    this.#leave(lease);
    await this.outbox.flush();
    return this.finish();
  }

  /** @param {Lease} lease @param {string} reason */
  async skip(lease, reason) {
    await this.outbox.flush();
    await this.api.post("/api/tasks/skip", { token: lease.token, reason });
    await this.store.forget(lease.task_id);
    this.#leave(lease);
  }

  /** Submit what waits for it, and return the last submission. @returns {Promise<any>} */
  async finish() {
    if (this.outbox.unsent) return null;
    let done = null;
    for (const { task_id, lease, submit } of await this.store.tasks()) {
      if (submit === undefined) continue;
      const token = this.outbox.tokens.get(task_id) ?? lease.token;
      try {
        done = await this.api.post("/api/tasks/submit", { token, revision: submit });
        await this.store.forget(task_id);
      } catch (error) {
        if (!(error instanceof ApiError) || !["stale_revision", "lease_ended", "not_found", "invalid"].includes(error.code)) return null;
        const { submit: _, ...kept } = (await this.store.tasks()).find((each) => each.task_id === task_id);
        await this.store.saveTask(kept); // it comes back as a task, with what became of it
        throw error;
      }
    }
    return done;
  }

  /** Let a task go without telling the server. @param {Lease} lease */
  #leave(lease) {
    this.leases = this.leases.filter((each) => each.task_id !== lease.task_id);
    this.#ready.delete(lease.task_id);
  }

  async #claim() {
    const leaving = new Set((await this.store.tasks()).filter((each) => each.submit !== undefined).map((each) => each.task_id));
    const open = (/** @type {Lease[]} */ leases) => leases.filter((each) => !leaving.has(each.task_id));
    const held = await this.api.get("/api/tasks/held");
    const count = HELD - held.length;
    const claimed = count > 0 ? await this.api.post("/api/tasks/claim", { count }) : [];
    const places = new Map(this.leases.map((each, at) => [each.task_id, at]));
    this.leases = open([...held, ...claimed]).sort((a, b) => (places.get(a.task_id) ?? 99) - (places.get(b.task_id) ?? 99));
    for (const { task_id, token } of this.leases) this.outbox.tokens.set(task_id, token);
  }

  /** @param {Lease} lease @returns {Promise<Ready>} */
  #prepare(lease) {
    const known = this.#ready.get(lease.task_id);
    if (known) return known.then((ready) => ({ ...ready, lease }));
    const ready = this.#fetch(lease);
    this.#ready.set(lease.task_id, ready);
    return ready;
  }

  /** @param {Lease} lease @returns {Promise<Ready>} */
  async #fetch(lease) {
    const [line, blob, branches] = await Promise.all([
      this.api.get(`/api/tasks/${lease.task_id}/line`),
      this.api.blob(lease.image_url),
      this.api.get(`/api/tasks/${lease.task_id}/branches`),
    ]);
    await this.store.saveTask({ task_id: lease.task_id, ...{ lease, line, blob } });
    return { lease, line, branches, picture: await Picture.from(blob) };
  }

  /** @returns {Promise<Ready | null>} A task that this browser keeps. */
  async #fromBrowser() {
    const kept = (await this.store.tasks()).filter((each) => each.submit === undefined && each.blob);
    if (!kept.length) throw new ApiError("offline", "");
    const { lease, line, blob } = kept[0];
    this.outbox.tokens.set(lease.task_id, lease.token);
    return { lease, line, branches: [], picture: await Picture.from(blob) };
  }
}
