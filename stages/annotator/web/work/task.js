/**
 * One task at work: its lease, its line of operations, the draft, and the way of every act into safety.
 *
 * @typedef {import("../masks/fold.js").TaskMask} TaskMask
 * @typedef {import("../masks/rle.js").Rle} Rle
 * @typedef {object} Lease As the server gives it.
 * @property {string} token
 * @property {number} task_id
 * @property {string} round_id
 * @property {string} image_id
 * @property {number} height
 * @property {number} width
 * @property {string} image_url
 * @property {string} model_id
 * @property {string} expires_at
 * @property {boolean} is_reopened Whether it was submitted before, which counts until the next time.
 * @property {number | null} fixes Submission that a reviewer fixes; null for an annotator's own work.
 * @typedef {{given: TaskMask[], operations: import("../masks/fold.js").FoldedOperation[]}} ServerLine
 * @typedef {Pick<import("../safe/store.js").Store, "saveDraft" | "draftOf" | "operationsOf">} Store
 * @typedef {EventTarget & Pick<import("../safe/outbox.js").Outbox, "add" | "setToken">} Outbox
 */

import { Line } from "../masks/fold.js";
import { uuid7 } from "../safe/uuid.js";
import { Accepted } from "./accepted.js";
import { Draft } from "./draft.js";

/** State of the task in this tab. Event: "change". */
export class Task extends EventTarget {
  /** @type {Draft | null} */
  draft = null;
  accepted = new Accepted();
  /** Name under which the server keeps this page's operations together. */
  session = `page-${uuid7()}`;
  #sequence = 0;
  #stop = new AbortController();
  /** @type {Promise<unknown>} */
  #acts = Promise.resolve();

  /**
   * @param {Lease} lease
   * @param {ServerLine} found What the task began with, and all operations of its line.
   * @param {{store: Store, outbox: Outbox}} safe
   */
  constructor(lease, { given, operations }, { store, outbox }) {
    super();
    this.lease = lease;
    this.given = given;
    this.operations = operations;
    this.line = new Line(given, operations);
    this.store = store;
    this.outbox = outbox;
    outbox.addEventListener("refused", (event) => this.#refused(/** @type {CustomEvent} */ (event).detail), { signal: this.#stop.signal });
  }

  /**
   * Open a task: what the server has, then what only this browser has.
   * @param {Lease} lease
   * @param {ServerLine} found
   * @param {{store: Store, outbox: Outbox}} safe
   */
  static async open(lease, found, safe) {
    await safe.outbox.setToken(lease.task_id, lease.token);
    const known = new Set(found.operations.map((each) => each.op_id));
    const kept = await safe.store.operationsOf(lease.task_id);
    const own = kept.filter((each) => each.state === "unsent" || each.state === "stored").map((each) => each.operation);
    const given = found.given.map((each) => ({ ...each, rle: plain(each.rle) }));
    const task = new Task(lease, { given, operations: [...found.operations, ...own.filter((each) => !known.has(each.op_id))] }, safe);
    const last = kept.filter((each) => each.state === "unsent").at(-1)?.operation;
    // What is unsent and what follows stay together, should the server store them on a branch.
    if (last) [task.session, task.#sequence] = [last.session, last.sequence + 1];
    const draft = await safe.store.draftOf(lease.task_id);
    // A draft that was accepted just before the page went away is a mask already.
    if (draft && Boolean(draft.refines) === Boolean(task.line.find(draft.mask))) task.draft = Draft.restore(draft);
    return task;
  }

  /** @returns {[number, number]} Height and width of the image. */
  get size() {
    return [this.lease.height, this.lease.width];
  }

  get masks() {
    return this.line.masks;
  }

  /**
   * Do something: it is on this machine's disk before it is shown.
   * @param {string} kind
   * @param {object} payload
   * @returns {Promise<void>}
   */
  act(kind, payload = {}) {
    return this.#inTurn(() => this.#act(kind, payload));
  }

  /** Run after all acts before it, so that it meets the state that they leave. @param {() => Promise<void>} run @returns {Promise<void>} */
  #inTurn(run) {
    const done = this.#acts.then(run);
    this.#acts = done.catch(() => undefined);
    return done;
  }

  /** @param {string} kind @param {object} payload */
  async #act(kind, payload = {}) {
    const operation = {
      op_id: uuid7(),
      session: this.session,
      sequence: this.#sequence++,
      base_revision: this.line.revision,
      kind,
      payload,
      client_time: new Date().toISOString(),
    };
    await this.outbox.add(this.lease, operation);
    this.operations.push(operation);
    this.line.push(operation);
    this.#changed();
  }

  /** All acts so far are on disk. */
  settled() {
    return this.#acts;
  }

  /** End; acts that are under way still come onto the disk. */
  close() {
    this.#stop.abort();
    return this.#acts;
  }

  /** Take an operation out of the line that the server refused. @param {{op_id: string}} refused */
  #refused({ op_id }) {
    const left = this.operations.filter((each) => each.op_id !== op_id);
    if (left.length === this.operations.length) return;
    this.operations = left;
    this.line = new Line(this.given, left);
    this.#changed();
  }

  /**
   * Begin a draft, or go on with the one there is.
   * @param {TaskMask | undefined} refined Mask to refine.
   */
  begin(refined) {
    this.draft ??= new Draft(refined ? { refines: refined.mask, rle: refined.rle } : {});
    return this.draft;
  }

  /** Keep the draft, then show it. */
  async saveDraft() {
    await this.store.saveDraft(this.lease.task_id, this.draft?.keep() ?? null);
    this.#changed();
  }

  /**
   * Put the draft among the masks, and return its name; empty where it has no pixel.
   * The draft is let go at once, so that what comes next, while this is on its way to the disk, is not drawn on it.
   */
  async accept() {
    const draft = this.draft;
    if (!draft?.rle || !draft.bitmap?.area) return "";
    this.draft = null;
    try {
      if (draft.isBegun) await this.act(draft.refines ? "change" : "add", this.accepted.keep(draft));
    } catch (error) {
      this.draft ??= draft; // the disk is full, say
      throw error;
    }
    await this.saveDraft();
    return draft.mask;
  }

  async drop() {
    this.draft = null;
    await this.saveDraft();
  }

  /** Take back the last step: a prompt or stroke of the open mask, its acceptance, or another act. */
  undo() {
    return this.#inTurn(async () => {
      if (this.draft?.canUndo) {
        this.draft.undo();
        const isEmpty = !this.draft.isBegun && (!this.draft.canRedo || this.#canBecome(this.draft));
        if (isEmpty) this.draft = null;
      } else if (this.line.canUndo) {
        const { last } = this.line;
        this.draft = null;
        await this.#act("undo");
        this.draft ??= this.accepted.draftOf(last, this.line); // a click may have begun one meanwhile
      }
      await this.saveDraft();
    });
  }

  /** Do again what was taken back last, in the same steps. */
  redo() {
    return this.#inTurn(async () => {
      const { draft } = this;
      const { next } = this.line;
      if (draft?.canRedo) {
        draft.redo();
      } else if (draft ? this.#canBecome(draft) : next) {
        const again = draft ? null : this.accepted.draftOf(next, this.line);
        again?.rewind();
        this.draft = again;
        if (!again) await this.#act("redo");
      }
      await this.saveDraft();
    });
  }

  get canUndo() {
    return Boolean(this.draft?.canUndo) || this.line.canUndo;
  }

  get canRedo() {
    return this.draft ? this.draft.canRedo || this.#canBecome(this.draft) : this.line.canRedo;
  }

  /** Whether redoing accepts a draft, as it was accepted before. @param {Draft} draft */
  #canBecome({ became }) {
    return became !== null && became === this.line.next?.payload;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** @param {Rle} rle @returns {Rle} */
function plain({ size, counts }) {
  return { size, counts };
}
