/**
 * The task page: from a claimed task to its submission, and what happens when that goes another way.
 *
 * @typedef {import("../app/main.js").App} App
 * @typedef {import("./queue.js").Ready} Ready
 */

import { ApiError, isTemporary } from "../app/api.js";
import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { originOf } from "../masks/palette.js";
import { askReason, keepsUndecided } from "../pages/asking.js";
import { showFinished } from "../pages/finished.js";
import { holdTask } from "../safe/owner.js";
import { welcome } from "../tutorial/welcome.js";
import { Bench } from "./bench.js";
import { actsFor, compare } from "./merging.js";
import { Queue } from "./queue.js";
import { Task } from "./task.js";

const HEARTBEAT_MS = 60_000;
const RETRY_MS = 3000;

/** @type {(root: HTMLElement, app: App) => Promise<() => unknown>} */
export async function openPage(root, app) {
  const work = new Work(root, app);
  const [, taskId, again] = location.hash.split("/");
  if (again) await work.reopen(Number(taskId));
  else await work.next(Number(taskId));
  return () => work.close();
}

class Work {
  /** @type {Bench | null} */
  bench = null;
  #release = () => {};
  #timer = 0;
  /** @type {any} Round of the task at work, as it was when it was read last. */
  #round = null;
  /** @type {Set<number>} Tasks that were submitted here, and of which the server has not said that it has them. */
  #submitted = new Set();
  #stop = new AbortController();

  /**
   * @param {HTMLElement} root
   * @param {App} app
   */
  constructor(root, app) {
    this.root = root;
    this.app = app;
    this.queue = new Queue(app);
    const { signal } = this.#stop;
    app.outbox.addEventListener("branch", (event) => void this.#branched(/** @type {CustomEvent} */ (event).detail), { signal });
    app.outbox.addEventListener("left", (event) => void this.#left(/** @type {CustomEvent} */ (event).detail), { signal });
    app.outbox.addEventListener("returned", (event) => this.#returned(/** @type {CustomEvent} */ (event).detail), { signal });
    document.addEventListener("visibilitychange", () => !document.hidden && void this.#heartbeat(), { signal });
    this.heart = setInterval(() => void this.#heartbeat(), HEARTBEAT_MS);
  }

  async close() {
    this.#stop.abort();
    clearInterval(this.heart);
    await this.#leave();
  }

  /**
   * Open the next task.
   * @param {number} [taskId] Task to open before any other, if this annotator holds it.
   */
  async next(taskId) {
    await this.#leave();
    // The task that the address named is done
    if (!taskId && location.hash.startsWith("#work/")) history.replaceState(null, "", "#work");
    const loading = setTimeout(() => this.#notice(text.task.loading, ""), 300); // sooner would only flicker
    try {
      const ready = (taskId && (await this.queue.again(taskId))) || (await this.queue.next());
      if (ready) return await this.#open(ready);
      clearTimeout(loading);
      this.app.bar.title.textContent = "";
      const notice = this.#notice(text.task.none, text.task.noneHint, [text.task.tryAgain, () => this.next()]);
      await showFinished(notice, this.app, () => this.next());
    } catch (error) {
      this.#failed(/** @type {Error} */ (error));
    } finally {
      clearTimeout(loading);
    }
  }

  /** Open a task again that was submitted; where that cannot be, the next one. @param {number} taskId */
  async reopen(taskId) {
    await this.#leave();
    try {
      const ready = await this.queue.reopen(taskId);
      if (ready) return await this.#open(ready);
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
    }
    await this.next();
  }

  /** Go back to the picture that was submitted before the one at work. */
  async #back() {
    const { outbox, api, say } = this.app;
    const here = this.bench?.task.lease.task_id;
    try {
      await outbox.flush();
      const tasks = await api.get("/api/tasks/submitted");
      const at = tasks.findIndex((/** @type {{task_id: number}} */ each) => each.task_id === here);
      if (tasks[at + 1]) location.hash = `#work/${tasks[at + 1].task_id}/again`;
      else say(text.task.noBack);
    } catch (error) {
      say(/** @type {Error} */ (error).message);
    }
  }

  /**
   * Open a task, unless another tab has it or late work waits for a decision.
   * @param {Ready} ready
   * @param {boolean} takeOver
   */
  async #open(ready, takeOver = false) {
    const { app } = this;
    const { task_id } = ready.lease;
    const release = await holdTask(app.me.name, task_id, { takeOver, onAsked: () => this.#lost(ready) });
    if (!release) return this.#elsewhere(ready);
    this.#release = release;
    if (ready.branches.length) return this.#merge(ready, ready.branches[0]);
    const { round } = ready;
    const task = await Task.open(ready.lease, ready.line, app);
    this.bench = new Bench(this.root, task, ready.picture, {
      api: app.api,
      guidelines: round?.guidelines ?? "",
      say: app.say,
      submit: () => void this.#submit(),
      skip: () => void this.#skip(),
      back: () => void this.#back(),
      isOfDataset: true,
    });
    const hint = welcome(() => this.bench?.painter.canvas.focus({ preventScroll: true }));
    if (hint) this.bench.side.element.prepend(hint);
    if (task.lease.is_reopened) app.say(text.task.reopened);
    void this.#showProgress(round);
    this.#showActions();
    document.documentElement.dataset.task = String(task_id);
    performance.mark("task shown");
  }

  /** Show how far the round is: as it was when the task was fetched, then as it is now. */
  async #showProgress(/** @type {any} */ round) {
    const { app, bench } = this;
    const show = (/** @type {any} */ found) => {
      this.#round = found;
      app.bar.title.textContent = found ? text.task.round(found.name || found.stage, found.done, found.slots) : "";
    };
    show(round);
    if (!round) return;
    const now = await app.api.get(`/api/rounds/${encodeURIComponent(round.round_id)}`).catch(() => null); // not while offline
    if (now && this.bench === bench) show(now);
  }

  #showActions() {
    const button = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string} */ key, /** @type {string} */ hint) =>
      h(name, { type: "button", title: hint, onclick: () => this.bench?.run(key) }, label);
    const { is_reopened, fixes } = /** @type {Bench} */ (this.bench).task.lease;
    this.app.bar.actions.replaceChildren(
      is_reopened || fixes !== null
        ? button("button", is_reopened ? text.task.leave : text.task.leaveFix, "skip", `${text.task.leaveHint} (Ctrl Shift S)`)
        : button("button", text.task.skip, "skip", `${text.task.skipTitle} (Ctrl Shift S)`),
      button("button.primary", text.task.submit, "submit", `${text.task.submitHint} (Ctrl Enter)`),
    );
  }

  async #submit() {
    const bench = this.bench;
    if (!bench) return;
    if (bench.task.draft?.isBegun) return this.app.say(text.task.draftOpen);
    const { task } = bench;
    // In a fix, what the annotator left as it was counts as accepted already
    const undecided = task.lease.fixes === null ? task.masks.filter((each) => originOf(each) === "undecided").length : 0;
    if (undecided && !(await keepsUndecided(undecided))) {
      bench.painter.canvas.focus();
      return void bench.run("nextUndecided");
    }
    if (this.bench !== bench) return; // it was lost meanwhile
    this.bench = null; // a second press does nothing
    await bench.close();
    await task.close();
    this.#submitted.add(task.lease.task_id);
    await this.queue.leave(task.lease, { submit: task.line.revision });
    if (["offline", "busy", "login"].includes(this.app.outbox.state)) this.app.say(text.task.unsentSubmit);
    await this.next();
  }

  /** The server knows that a task is done: another one can be fetched ahead. @param {{task_id: number, submission: {masks: number} | null}} found */
  async #left({ task_id, submission }) {
    if (this.#submitted.delete(task_id) && submission) this.app.say(text.task.submitted(submission.masks));
    const bench = this.bench;
    if (bench) void this.#showProgress(this.#round);
    await this.queue.fetchAhead().catch(() => undefined); // when the next task is opened, it is tried again
    const { lease } = bench?.task ?? {};
    if (lease && this.bench === bench && this.queue.hasLost(lease)) await this.#reopen(lease.task_id);
  }

  async #skip() {
    const bench = this.bench;
    if (!bench) return;
    const { lease } = bench.task;
    const isSubmitted = lease.is_reopened || lease.fixes !== null; // and stays as it was
    const reason = isSubmitted ? "" : await askReason();
    if (!isSubmitted && !reason) return bench.painter.canvas.focus();
    await this.#leave();
    await this.queue.leave(lease, isSubmitted ? { handBack: true } : { skip: reason });
    await this.next();
  }

  /** A task that was done here is not done for the server. @param {{task_id: number, message: string}} found */
  #returned({ task_id, message }) {
    this.queue.forget(task_id);
    this.app.say(message);
    if (this.root.querySelector(":scope > .notice")) void this.next(); // nothing is at work
  }

  /** Late work is on a branch: show both. @param {{task_id: number}} found */
  async #branched({ task_id }) {
    this.queue.forget(task_id);
    if (this.bench?.task.lease.task_id !== task_id) return; // shown when the task is opened
    await this.#reopen(task_id);
  }

  /** Leave a task, send all of its work, and open it again as the server has it now. @param {number} taskId */
  async #reopen(taskId) {
    await this.#leave();
    try {
      await this.app.outbox.flush();
      const ready = await this.queue.again(taskId);
      if (ready) await this.#open(ready);
      else this.#notice(text.merge.title, text.merge.gone, [text.merge.next, () => this.next()]);
    } catch (error) {
      this.#failed(/** @type {Error} */ (error));
    }
  }

  /**
   * Show a branch beside the main line, and bring what the author chooses onto the main line, as acts like all others.
   * @param {Ready} ready
   * @param {{branch: string, reason: string}} branch
   */
  async #merge(ready, { branch, reason }) {
    const { app } = this;
    const { task_id } = ready.lease;
    try {
      const lines = await app.api.get(`/api/branches/${branch}?task_id=${task_id}`);
      const line = await app.api.get(`/api/tasks/${task_id}/line`); // what was fetched ahead may be old
      const differences = compare(lines);
      if (differences.length) {
        const { showMerge } = await import("../pages/merge.js");
        await showMerge(this.root, lines, differences, { picture: ready.picture, reason });
      }
      const task = await Task.open(ready.lease, line, app);
      for (const [kind, payload] of actsFor(differences)) await task.act(kind, payload);
      await task.close();
      const isSent = await app.outbox.flush(task_id);
      if (isSent) await app.api.post(`/api/branches/${branch}/settle?task_id=${task_id}`);
      app.say(isSent ? text.merge.merged : text.merge.unsent);
    } catch (error) {
      return this.#failed(/** @type {Error} */ (error)); // the branch is open still, and asked about again
    }
    await this.#reopen(task_id);
  }

  /** @param {Ready} ready */
  #elsewhere(ready) {
    this.#notice(text.task.elsewhere, text.task.elsewhereHint, [
      text.task.takeOver,
      async () => {
        const again = await this.queue.again(ready.lease.task_id).catch(() => ready);
        await this.#open(again ?? ready, true);
      },
    ]);
  }

  /** Another tab takes the task. @param {Ready} ready */
  async #lost(ready) {
    const { task_id } = ready.lease;
    await this.#leave();
    this.#notice(text.task.lost, text.task.elsewhereHint, [
      text.task.takeOver,
      async () => {
        const again = await this.queue.again(task_id).catch(() => ready);
        if (again) await this.#open(again, true);
        else await this.next();
      },
    ]);
  }

  /** Keep the leases of the task at work and of those fetched ahead. */
  async #heartbeat() {
    if (!this.bench || document.hidden) return;
    const { lease } = this.bench.task;
    const others = this.queue.leases.filter((each) => each.task_id !== lease.task_id);
    const isOver = !(await this.#extend(lease));
    for (const each of others) {
      if (await this.#extend(each)) continue;
      this.queue.drop(each);
      await this.queue.fetchAhead().catch(() => undefined); // another one in its place
    }
    if (isOver && this.bench?.task.lease === lease) await this.#reopen(lease.task_id);
  }

  /** Extend a lease; false where it has ended. @param {import("./task.js").Lease} lease */
  async #extend({ token }) {
    try {
      await this.app.api.post("/api/tasks/heartbeat", { token });
    } catch (error) {
      return !(error instanceof ApiError && ["lease_ended", "not_found"].includes(error.code));
    }
    return true;
  }

  async #leave() {
    clearTimeout(this.#timer);
    delete document.documentElement.dataset.task;
    const bench = this.bench;
    this.bench = null;
    await bench?.close();
    await bench?.task.close();
    this.#release();
    this.#release = () => {};
    this.app.bar.actions.replaceChildren();
  }

  #failed(/** @type {Error} */ error) {
    const isOffline = error instanceof ApiError && error.code === "offline";
    if (isOffline) this.#notice(text.saved.offline(this.app.outbox.unsent), text.task.offlineNone);
    else this.#notice(text.error.title, error.message, [text.task.tryAgain, () => this.next()]);
    if (isTemporary(error)) this.#timer = setTimeout(() => void this.next(), RETRY_MS);
  }

  /**
   * Say something in place of a picture.
   * @param {string} title
   * @param {string} hint
   * @param {[string, () => unknown]} [action]
   */
  #notice(title, hint, action) {
    const button = action && h("button.primary", { type: "button", onclick: action[1] }, action[0]);
    const notice = h("section.notice", {}, h("h1", {}, title), h("p", {}, hint), button);
    this.root.replaceChildren(notice);
    button?.focus();
    return notice;
  }
}
