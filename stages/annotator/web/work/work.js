/**
 * The task page: from a claimed task to its submission, and what happens when that goes another way.
 *
 * @typedef {import("../app/main.js").App} App
 * @typedef {import("./queue.js").Ready} Ready
 */

import { ApiError } from "../app/api.js";
import { h, openDialog } from "../app/dom.js";
import { text } from "../app/strings.js";
import { originOf } from "../masks/palette.js";
import { holdTask } from "../safe/owner.js";
import { Bench } from "./bench.js";
import { Queue } from "./queue.js";
import { Task } from "./task.js";

const HEARTBEAT_MS = 60_000;
const RETRY_MS = 3000;

/** @type {(root: HTMLElement, app: App) => Promise<() => unknown>} */
export async function openPage(root, app) {
  const work = new Work(root, app);
  await work.next();
  return () => work.close();
}

class Work {
  /** @type {Bench | null} */
  bench = null;
  #release = () => {};
  #timer = 0;
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
    document.addEventListener("visibilitychange", () => !document.hidden && void this.#heartbeat(), { signal });
    this.heart = setInterval(() => void this.#heartbeat(), HEARTBEAT_MS);
  }

  async close() {
    this.#stop.abort();
    clearInterval(this.heart);
    await this.#leave();
  }

  /** Open the next task. */
  async next() {
    await this.#leave();
    const loading = setTimeout(() => this.#notice(text.task.loading, ""), 300); // sooner would only flicker
    try {
      const ready = await this.queue.next();
      if (ready) await this.#open(ready);
      else this.#notice(text.task.none, text.task.noneHint, [text.task.tryAgain, () => this.next()]);
    } catch (error) {
      this.#failed(/** @type {Error} */ (error));
    } finally {
      clearTimeout(loading);
    }
  }

  /**
   * Open a task, unless another tab has it or late work waits for a decision.
   * @param {Ready} ready
   * @param {boolean} takeOver
   */
  async #open(ready, takeOver = false) {
    const { app } = this;
    const { task_id, round_id } = ready.lease;
    const release = await holdTask(app.me.name, task_id, { takeOver, onLost: () => this.#lost() });
    if (!release) return this.#elsewhere(ready);
    this.#release = release;
    if (ready.branches.length) return this.#merge(ready, ready.branches[0].branch);
    const round = await app.api.get(`/api/rounds/${encodeURIComponent(round_id)}`).catch(() => null);
    const task = await Task.open(ready.lease, ready.line, app);
    this.bench = new Bench(this.root, task, ready.picture, {
      api: app.api,
      guidelines: round?.guidelines ?? "",
      say: app.say,
      submit: () => void this.#submit(),
      skip: () => void this.#skip(),
    });
    app.bar.title.textContent = round ? text.task.round(round.name || round.stage, round.done, round.slots) : "";
    this.#showActions();
    document.documentElement.dataset.task = String(task_id);
    performance.mark("task shown");
  }

  #showActions() {
    const button = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string} */ key, /** @type {string} */ hint) =>
      h(name, { type: "button", title: hint, onclick: () => this.bench?.run(key) }, label);
    this.app.bar.actions.replaceChildren(
      button("button", text.task.skip, "skip", `${text.task.skipTitle} (Ctrl Shift S)`),
      button("button.primary", text.task.submit, "submit", `${text.task.submitHint} (Ctrl Enter)`),
    );
  }

  async #submit() {
    const bench = this.bench;
    if (!bench) return;
    if (bench.task.draft?.isBegun) return this.app.say(text.task.draftOpen);
    this.bench = null; // a second press does nothing
    const { task } = bench;
    const undecided = task.masks.filter((each) => originOf(each) === "undecided").length;
    await bench.close();
    await task.settled();
    try {
      const done = await this.queue.submit(task.lease, task.line.revision);
      this.app.say(done ? text.task.submitted(done.masks) : text.task.unsentSubmit);
      if (done && undecided) this.app.say(`${text.task.submitted(done.masks)} ${text.task.undecided(undecided)}`);
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
    }
    await this.next();
  }

  async #skip() {
    const bench = this.bench;
    if (!bench) return;
    const reason = await askReason();
    if (!reason) return bench.painter.canvas.focus();
    try {
      await this.queue.skip(bench.task.lease, reason);
      await this.next();
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
    }
  }

  /** Late work is on a branch: show both. @param {{task_id: number, branch: string}} found */
  async #branched({ task_id, branch }) {
    if (this.bench?.task.lease.task_id !== task_id) return; // shown when the task is opened
    await this.#leave();
    try {
      const ready = await this.queue.again(task_id);
      if (ready) await this.#open({ ...ready, branches: [{ branch }] });
      else this.#notice(text.merge.title, text.merge.gone, [text.merge.next, () => this.next()]);
    } catch (error) {
      this.#failed(/** @type {Error} */ (error));
    }
  }

  /** @param {Ready} ready @param {string} branch */
  async #merge(ready, branch) {
    const { showMerge } = await import("../pages/merge.js");
    const { task_id, token } = ready.lease;
    const path = `/api/branches/${branch}`;
    const comparison = await this.app.api.get(`${path}?task_id=${task_id}`);
    const info = (await this.app.api.get(`/api/tasks/${task_id}/branches`)).find((/** @type {any} */ each) => each.branch === branch);
    const choice = await showMerge(this.root, comparison, ready.picture, info?.reason ?? "");
    if (choice === "both") await this.app.api.post(`${path}/merge?task_id=${task_id}`, { token });
    else await this.app.api.post(`${path}/dismiss?task_id=${task_id}`);
    this.app.say(choice === "both" ? text.merge.merged : text.merge.dismissed);
    this.#release();
    const merged = await this.queue.again(task_id);
    if (merged) await this.#open(merged);
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

  async #lost() {
    const taskId = this.bench?.task.lease.task_id;
    this.#release = () => {};
    await this.#leave();
    this.#notice(text.task.lost, text.task.elsewhereHint, [
      text.task.takeOver,
      async () => {
        const ready = taskId === undefined ? null : await this.queue.again(taskId);
        if (ready) await this.#open(ready, true);
        else await this.next();
      },
    ]);
  }

  async #heartbeat() {
    const lease = this.bench?.task.lease;
    if (!lease || document.hidden) return;
    try {
      await this.app.api.post("/api/tasks/heartbeat", { token: lease.token });
    } catch (error) {
      if (error instanceof ApiError && error.code === "lease_ended" && this.bench?.task.lease === lease) await this.#leaseEnded();
    }
  }

  /** Go on under a new lease, if nobody else has the task. */
  async #leaseEnded() {
    const task = this.bench?.task;
    if (!task) return;
    await task.settled();
    await this.app.outbox.flush();
    if (this.bench?.task !== task) return; // late work took over
    const ready = await this.queue.again(task.lease.task_id);
    await this.#leave();
    if (ready) await this.#open(ready);
    else this.#notice(text.merge.title, text.merge.gone, [text.merge.next, () => this.next()]);
  }

  async #leave() {
    clearTimeout(this.#timer);
    delete document.documentElement.dataset.task;
    const bench = this.bench;
    this.bench = null;
    await bench?.close();
    await bench?.task.settled();
    this.#release();
    this.#release = () => {};
    this.app.bar.actions.replaceChildren();
  }

  #failed(/** @type {Error} */ error) {
    const code = error instanceof ApiError ? error.code : "";
    if (code === "offline") {
      this.#notice(text.saved.offline(this.app.outbox.unsent), text.task.offlineNone);
      this.#timer = setTimeout(() => void this.next(), RETRY_MS);
    } else if (code === "login_required") {
      location.reload();
    } else {
      this.#notice(text.error.title, error.message, [text.task.tryAgain, () => this.next()]);
    }
  }

  /**
   * Say something in place of a picture.
   * @param {string} title
   * @param {string} hint
   * @param {[string, () => unknown]} [action]
   */
  #notice(title, hint, action) {
    const button = action && h("button.primary", { type: "button", onclick: action[1] }, action[0]);
    this.root.replaceChildren(h("section.notice", {}, h("h1", {}, title), h("p", {}, hint), button));
    button?.focus();
  }
}

/** Ask why a task is skipped. @returns {Promise<string>} Empty for not at all. */
async function askReason() {
  const other = h("input", { type: "text", maxlength: 500, "aria-label": text.task.skipOther, placeholder: text.task.skipOther });
  const skip = h("button", { value: "other" }, text.task.skip);
  const reasons = text.task.skipReasons.map((reason) => h("button", { value: reason }, reason));
  other.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault(); // Enter would press the first button of the form
    skip.click();
  });
  const chosen = await openDialog(text.task.skipTitle, [
    h("div.reasons", {}, ...reasons),
    h("div.row", {}, other, skip),
    h("div.buttons", {}, h("button", { value: "" }, text.task.skipKeep)),
  ]);
  return chosen === "other" ? other.value.trim() || text.task.skipOther : chosen;
}
