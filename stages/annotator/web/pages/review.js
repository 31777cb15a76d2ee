/** Review: one question at a time, one key each. */

import { ApiError } from "../app/api.js";
import { h, openDialog } from "../app/dom.js";
import { text } from "../app/strings.js";
import { Picture } from "../canvas/picture.js";
import { still } from "./still.js";

/** @typedef {"mask_good" | "nothing_missing"} Question */
/** @type {Record<string, "yes" | "no" | "unsure">} */
const KEYS = { y: "yes", n: "no", u: "unsure" };
const AHEAD = 10;

/** @type {(root: HTMLElement, app: import("../app/main.js").App) => Promise<() => unknown>} */
export async function openPage(root, app) {
  const review = new Review(root, app);
  await review.ask("mask_good");
  return () => review.close();
}

class Review {
  /** @type {any[]} */
  items = [];
  /** @type {Question} */
  question = "mask_good";
  /** Items answered so far, the newest last: one answered by mistake is asked again on a key. @type {any[]} */
  past = [];
  /** @type {Map<string, Promise<Picture>>} */
  #pictures = new Map();
  #stop = new AbortController();

  /**
   * @param {HTMLElement} root
   * @param {import("../app/main.js").App} app
   */
  constructor(root, app) {
    this.root = root;
    this.app = app;
    document.addEventListener("keydown", (event) => this.#key(event), { signal: this.#stop.signal });
  }

  close() {
    this.#stop.abort();
  }

  /** @param {Question} question */
  async ask(question) {
    this.question = question;
    this.items = await this.app.api.get(`/api/reviews/${question}?count=${AHEAD}`);
    await this.show();
  }

  async show() {
    const [item] = this.items;
    const tabs = /** @type {Question[]} */ (["mask_good", "nothing_missing"]).map((question) =>
      h("button", { type: "button", "aria-pressed": String(question === this.question), onclick: () => this.ask(question) }, text.review.short[question]),
    );
    const head = h(
      "div.row",
      {},
      h("div.tabs", { role: "group", "aria-label": text.review.title }, ...tabs),
      h("span.fill"),
      h("p.quiet", {}, text.review.answered(this.past.length)),
      h("button", { type: "button", disabled: !this.past.length, onclick: () => this.back() }, text.review.back, h("kbd", {}, "B")),
    );
    if (!item) {
      this.root.replaceChildren(h("div.sheet.review", {}, head, h("section.notice", {}, h("h1", {}, text.review.done), h("p", {}, text.review.doneHint))));
      return;
    }
    const picture = await this.#picture(item.image_id);
    for (const next of this.items.slice(1, 3)) void this.#picture(next.image_id);
    const masks = item.mask ? [item.mask] : item.masks;
    const wide = still(picture, item.mask ? text.review.wide : text.review.whole, { masks, selected: item.mask ? [item.mask] : [] });
    const near = item.mask && still(picture, text.review.close, { selected: [item.mask], near: item.mask });
    this.root.replaceChildren(
      h(
        "div.sheet.review",
        {},
        head,
        h(
          "div.row",
          {},
          h("h1", {}, text.review.questions[this.question]),
          h("span.fill"),
          h("p.quiet", {}, text.review.by(item.submission.annotator)),
          h("button", { type: "button", onclick: () => this.fix() }, text.review.fix),
          h("button", { type: "button", onclick: () => this.sendBack() }, text.review.sendBack),
        ),
        h("div.pair", {}, wide.figure, near?.figure),
        h("div.answers", {}, ...Object.entries(KEYS).map(([key, answer]) => this.#button(key, answer))),
      ),
    );
    wide.show();
    near?.show();
  }

  #button(/** @type {string} */ key, /** @type {"yes" | "no" | "unsure"} */ answer) {
    return h("button", { type: "button", onclick: () => this.answer(answer) }, text.review[answer], h("kbd", {}, key.toUpperCase()));
  }

  /** @param {"yes" | "no" | "unsure"} answer */
  async answer(answer) {
    const item = this.items.shift();
    if (!item) return;
    const body = { submission_id: item.submission.submission_id, question: this.question, answer, mask: item.mask?.mask ?? "" };
    try {
      await this.app.api.post("/api/reviews/verdicts", body);
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
      // Its annotator has opened the picture again: it comes back when that is submitted
      if (error instanceof ApiError && error.code === "conflict") return this.ask(this.question);
      this.items.unshift(item);
      return;
    }
    this.past.push({ ...item, question: this.question });
    await this.#go();
  }

  /** Ask the last question again; the newest answer counts. */
  async back() {
    const item = this.past.pop();
    if (!item) return;
    if (item.question !== this.question) await this.ask(item.question);
    this.items = [item, ...this.items.filter((each) => each.submission.submission_id !== item.submission.submission_id || each.mask?.mask !== item.mask?.mask)];
    await this.show();
  }

  /** Go on with the picture as its annotator would. */
  async fix() {
    const [item] = this.items;
    const lease = item && (await this.#did(`/api/submissions/${item.submission.submission_id}/fix`));
    if (lease) location.hash = `#work/${lease.task_id}`; // the reviewer may hold older tasks
  }

  /** Have the annotator go on with the picture, with a reason. */
  async sendBack() {
    const [item] = this.items;
    if (!item) return;
    const reason = h("input", { type: "text", required: true, maxlength: 2000, autofocus: true });
    const chosen = await openDialog(text.review.sendBackTitle(item.submission.annotator), [
      h("label.reason", {}, text.review.reason, reason),
      h("div.buttons", {}, h("button", { value: "", type: "button", onclick: (/** @type {Event} */ event) => closeDialog(event) }, text.review.keep), h("button.primary", { value: "send" }, text.review.sendBackNow)),
    ]);
    if (chosen !== "send" || !(await this.#did(`/api/submissions/${item.submission.submission_id}/send-back`, { reason: reason.value }))) return;
    this.items = this.items.filter((each) => each.submission.submission_id !== item.submission.submission_id);
    this.app.say(text.review.sentBack);
    await this.#go();
  }

  async #go() {
    if (this.items.length) await this.show();
    else await this.ask(this.question);
  }

  /** Post and return the answer, or null after telling what went wrong. @param {string} path @param {object} [body] */
  async #did(path, body = {}) {
    try {
      return await this.app.api.post(path, body);
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
      return null;
    }
  }

  #picture(/** @type {string} */ imageId) {
    const known = this.#pictures.get(imageId);
    if (known) return known;
    const picture = this.app.api.blob(`/api/images/${imageId}`).then((blob) => Picture.from(blob));
    this.#pictures.set(imageId, picture);
    return picture;
  }

  #key(/** @type {KeyboardEvent} */ event) {
    if (event.ctrlKey || event.metaKey || event.repeat || document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase();
    if (KEYS[key]) void this.answer(KEYS[key]);
    else if (key === "b") void this.back();
  }
}

/** Close the dialog of a button without a value; a form that is not filled in does not hinder it. @param {Event} event */
function closeDialog(event) {
  /** @type {HTMLElement} */ (event.target).closest("dialog")?.close("");
}
