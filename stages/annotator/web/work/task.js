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
 * @typedef {{given: TaskMask[], operations: import("../masks/fold.js").FoldedOperation[]}} ServerLine
 * @typedef {import("../safe/store.js").Store} Store
 * @typedef {import("../safe/outbox.js").Outbox} Outbox
 */

import { Line } from "../masks/fold.js";
import { uuid7 } from "../safe/uuid.js";
import { Draft } from "./draft.js";

/** State of the task in this tab. Event: "change". */
export class Task extends EventTarget {
  /** @type {Draft | null} */
  draft = null;
  /** Seconds since the work on the present mask began; the nudge reads it. */
  session = `page-${uuid7()}`;
  #sequence = 0;
  /** @type {Promise<unknown>} */
  #acts = Promise.resolve();

  /**
   * @param {Lease} lease
   * @param {Line} line
   * @param {{store: Store, outbox: Outbox}} safe
   */
  constructor(lease, line, { store, outbox }) {
    super();
    this.lease = lease;
    this.line = line;
    this.store = store;
    this.outbox = outbox;
    outbox.tokens.set(lease.task_id, lease.token);
  }

  /**
   * Open a task: what the server has, then what only this browser has.
   * @param {Lease} lease
   * @param {ServerLine} found
   * @param {{store: Store, outbox: Outbox}} safe
   */
  static async open(lease, found, safe) {
    const known = new Set(found.operations.map((each) => each.op_id));
    const kept = (await safe.store.operationsOf(lease.task_id)).filter((each) => each.state === "unsent" || each.state === "stored");
    const own = kept.map((each) => /** @type {any} */ (each.operation)).filter((each) => !known.has(each.op_id));
    const given = found.given.map((each) => ({ ...each, rle: plain(each.rle) }));
    const task = new Task(lease, new Line(given, [...found.operations, ...own]), safe);
    const draft = await safe.store.draftOf(lease.task_id);
    if (draft && (!draft.refines || task.line.find(draft.refines))) task.draft = Draft.restore(draft);
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
    const done = this.#acts.then(async () => {
      const operation = {
        op_id: uuid7(),
        session: this.session,
        sequence: this.#sequence++,
        base_revision: this.line.revision,
        kind,
        payload,
        client_time: new Date().toISOString(),
      };
      await this.outbox.add(this.lease.task_id, operation);
      this.line.push(operation);
      this.#changed();
    });
    this.#acts = done.catch(() => undefined);
    return done;
  }

  /** All acts so far are on disk. */
  settled() {
    return this.#acts;
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

  /** Put the draft among the masks, and return its name; empty where it has no pixel. */
  async accept() {
    const draft = this.draft;
    if (!draft?.rle || !draft.bitmap?.area) return "";
    this.draft = null; // what is drawn from here on is another mask
    try {
      if (draft.isBegun) await this.act(draft.refines ? "change" : "add", draft.payload());
    } catch (error) {
      this.draft ??= draft;
      throw error;
    }
    await this.saveDraft();
    return draft.mask;
  }

  async drop() {
    this.draft = null;
    await this.saveDraft();
  }

  async undo() {
    if (this.draft?.canUndo) {
      this.draft.undo();
      if (!this.draft.isBegun && !this.draft.canRedo) this.draft = null;
      return this.saveDraft();
    }
    if (this.draft) return this.drop();
    if (this.line.canUndo) return this.act("undo");
  }

  async redo() {
    if (this.draft?.canRedo) {
      this.draft.redo();
      return this.saveDraft();
    }
    if (!this.draft && this.line.canRedo) return this.act("redo");
  }

  get canUndo() {
    return Boolean(this.draft) || this.line.canUndo;
  }

  get canRedo() {
    return this.draft ? this.draft.canRedo : this.line.canRedo;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** @param {Rle} rle @returns {Rle} */
function plain({ size, counts }) {
  return { size, counts };
}
