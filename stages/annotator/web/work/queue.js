/**
 * The tasks of this annotator: claimed, fetched ahead, and kept in this browser for work without the server.
 *
 * @typedef {import("./task.js").Lease} Lease
 * @typedef {{lease: Lease, line: import("./task.js").ServerLine, picture: import("../canvas/picture.js").Picture, branches: any[]}} Ready
 */

import { isTemporary } from "../app/api.js";
import { Picture } from "../canvas/picture.js";

/** Tasks held at a time: the one at work and two ahead. */
const HELD = 3;
/** Longest wait for the server's word on a task that is done; the next picture does not wait longer. */
const FINISH_MS = 1500;

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
  }

  /**
   * Find the next task; null where nothing is left.
   * @returns {Promise<Ready | null>}
   */
  async next() {
    try {
      await this.#claim();
      const [lease] = this.leases;
      if (!lease) return null;
      for (const each of this.leases) void this.#prepare(each).catch(() => this.#ready.delete(each.task_id));
      return await this.#prepare(lease);
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

  /** Forget what was fetched ahead of a task that has changed since. @param {number} taskId */
  forget(taskId) {
    this.#ready.delete(taskId);
  }

  /**
   * End a task and go on. The server hears of it as soon as it has all operations.
   * @param {Lease} lease
   * @param {import("../safe/store.js").Leaving} leaving
   * @returns {Promise<any>} The submission, or null if the server has not answered yet.
   */
  async leave(lease, leaving) {
    this.leases = this.leases.filter((each) => each.task_id !== lease.task_id);
    this.forget(lease.task_id);
    const left = new Promise((resolve) => {
      const heard = (/** @type {Event} */ event) => {
        const { task_id, submission } = /** @type {CustomEvent} */ (event).detail;
        if (task_id === lease.task_id) resolve(submission);
      };
      for (const name of ["left", "returned"]) this.outbox.addEventListener(name, heard);
      setTimeout(() => {
        for (const name of ["left", "returned"]) this.outbox.removeEventListener(name, heard);
        resolve(null);
      }, FINISH_MS);
    });
    await this.outbox.leave(lease, leaving);
    return left;
  }

  async #claim() {
    const leaving = new Set((await this.store.leaving()).map((each) => each.task_id));
    const held = await this.api.get("/api/tasks/held");
    const count = HELD - held.length;
    const claimed = count > 0 ? await this.api.post("/api/tasks/claim", { count }) : [];
    const places = new Map(this.leases.map((each, at) => [each.task_id, at]));
    const place = (/** @type {Lease} */ lease) => places.get(lease.task_id) ?? HELD;
    this.leases = [...held, ...claimed].filter((each) => !leaving.has(each.task_id)).sort((a, b) => place(a) - place(b));
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
    const [line, blob, branches] = await Promise.all([
      this.api.get(`/api/tasks/${lease.task_id}/line`),
      this.api.blob(lease.image_url),
      this.api.get(`/api/tasks/${lease.task_id}/branches`),
    ]);
    await this.store.saveTask({ task_id: lease.task_id, lease, line, blob });
    return { lease, line, branches, picture: await Picture.from(blob) };
  }

  /**
   * Find a task that this browser keeps.
   * @param {number} [taskId] The one that is wanted; the first that is not done if left out.
   * @returns {Promise<Ready | null>}
   */
  async #fromBrowser(taskId) {
    const open = (await this.store.tasks()).filter((each) => !each.leaving && each.blob && (taskId ?? each.task_id) === each.task_id);
    if (!open.length) return null;
    const { lease, line, blob } = open[0];
    return { lease, line, branches: [], picture: await Picture.from(/** @type {Blob} */ (blob)) };
  }
}
