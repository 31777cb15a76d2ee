/**
 * The tasks of this annotator: claimed, fetched ahead, and kept in this browser for work without the server.
 *
 * @typedef {import("./task.js").Lease} Lease
 * @typedef {object} Ready
 * @property {Lease} lease
 * @property {import("./task.js").ServerLine} line
 * @property {any} round Name, guidelines and progress of the task's round.
 * @property {import("../canvas/picture.js").Picture} picture
 * @property {any[]} branches
 */

import { isTemporary } from "../app/api.js";
import { Picture } from "../canvas/picture.js";
import { decoderOf } from "../decoder/decoder.js";

/** Tasks held at a time: the one at work and two ahead. */
const HELD = 3;
/** Queue of one login. */
export class Queue {
  /** @type {Map<number, Promise<Ready>>} */
  #ready = new Map();
  /** @type {Lease[]} */
  leases = [];
  /** Whether the leases are as the server said last. */
  #isKnown = false;

  /** @param {import("../app/main.js").App} app */
  constructor({ api, store, outbox }) {
    this.api = api;
    this.store = store;
    this.outbox = outbox;
  }

  /**
   * Find the next task; null where nothing is left. One that was fetched ahead is there at once.
   * @returns {Promise<Ready | null>}
   */
  async next() {
    try {
      const ahead = this.leases.find((each) => this.#ready.has(each.task_id));
      if (ahead) return await this.#prepare(ahead);
      await this.fetchAhead();
      const [lease] = this.leases;
      return lease ? await this.#prepare(lease) : null;
    } catch (error) {
      const kept = isTemporary(error) ? await this.#fromBrowser() : null;
      if (kept) return kept;
      throw error;
    }
  }

  /**
   * Read the lease and line of a task again, or what this browser has of it; null where somebody else has it now.
   * @param {number} taskId
   * @returns {Promise<Ready | null>}
   */
  async again(taskId) {
    this.forget(taskId);
    try {
      await this.#claim();
      const lease = this.leases.find((each) => each.task_id === taskId);
      return lease ? await this.#prepare(lease) : null;
    } catch (error) {
      const kept = isTemporary(error) ? await this.#fromBrowser(taskId) : null;
      if (kept) return kept;
      throw error;
    }
  }

  /**
   * Open a task again that this annotator submitted.
   * @param {number} taskId
   * @returns {Promise<Ready | null>}
   */
  async reopen(taskId) {
    await this.outbox.flush(); // it may be submitted here alone
    await this.api.post(`/api/tasks/${taskId}/reopen`);
    return this.again(taskId);
  }

  /** Claim as many tasks as may be held, and fetch them. */
  async fetchAhead() {
    await this.#claim();
    void this.#prepareAll(this.leases);
    decoderOf(this.api).lookAhead(this.leases);
  }

  /** Fetch tasks one after the other: the first is wanted soonest. @param {Lease[]} leases */
  async #prepareAll(leases) {
    for (const each of leases) await this.#prepare(each).catch(() => this.#ready.delete(each.task_id));
  }

  /** Whether somebody else has a task now, as far as the server said. @param {Lease} lease */
  hasLost(lease) {
    return this.#isKnown && !this.leases.some((each) => each.task_id === lease.task_id);
  }

  /** Forget what was fetched ahead of a task that has changed since. @param {number} taskId */
  forget(taskId) {
    this.#ready.delete(taskId);
  }

  /** Let go of a task whose lease has ended; what is held again later is claimed then. @param {Lease} lease */
  drop({ task_id, token }) {
    this.leases = this.leases.filter((each) => each.token !== token);
    this.forget(task_id);
  }

  /**
   * End a task and go on. The server hears of it as soon as it has all operations.
   * @param {Lease} lease
   * @param {import("../safe/store.js").Leaving} leaving
   */
  async leave(lease, leaving) {
    this.leases = this.leases.filter((each) => each.task_id !== lease.task_id);
    this.forget(lease.task_id);
    await this.outbox.leave(lease, leaving);
  }

  async #claim() {
    const leaving = new Set((await this.store.leaving()).map((each) => each.task_id));
    this.#isKnown = false;
    const held = await this.api.get("/api/tasks/held");
    const count = HELD - held.length;
    const claimed = count > 0 ? await this.api.post("/api/tasks/claim", { count }) : [];
    const places = new Map(this.leases.map((each, at) => [each.task_id, at]));
    const place = (/** @type {Lease} */ lease) => places.get(lease.task_id) ?? HELD;
    this.leases = [...held, ...claimed].filter((each) => !leaving.has(each.task_id)).sort((a, b) => place(a) - place(b));
    this.#isKnown = true;
    for (const { task_id, token } of this.leases) await this.outbox.setToken(task_id, token);
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
    const [line, blob, branches, round] = await Promise.all([
      this.api.get(`/api/tasks/${lease.task_id}/line`),
      this.api.blob(lease.image_url),
      this.api.get(`/api/tasks/${lease.task_id}/branches`),
      this.api.get(`/api/rounds/${encodeURIComponent(lease.round_id)}`),
    ]);
    await this.store.saveTask({ task_id: lease.task_id, lease, line, round, blob });
    return { lease, line, round, branches, picture: await Picture.from(blob) };
  }

  /**
   * Find a task that this browser keeps.
   * @param {number} [taskId] The one that is wanted; the first that is not done if left out.
   * @returns {Promise<Ready | null>}
   */
  async #fromBrowser(taskId) {
    const open = (await this.store.tasks()).filter((each) => !each.leaving && each.blob && (taskId ?? each.task_id) === each.task_id);
    if (!open.length) return null;
    const { lease, line, round, blob } = open[0];
    return { lease, line, round, branches: [], picture: await Picture.from(/** @type {Blob} */ (blob)) };
  }
}
