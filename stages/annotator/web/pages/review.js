/** Review: one question at a time, one key each. */

import { h } from "../app/dom.js";
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
  answered = 0;
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
    const head = h("div.row", {}, h("div.tabs", { role: "group", "aria-label": text.review.title }, ...tabs), h("p.quiet", {}, text.review.answered(this.answered)));
    if (!item) {
      this.root.replaceChildren(h("div.sheet.review", {}, head, h("section.notice", {}, h("h1", {}, text.review.done), h("p", {}, text.review.doneHint))));
      return;
    }
    const picture = await this.#picture(item.image_id);
    for (const next of this.items.slice(1, 3)) void this.#picture(next.image_id);
    const masks = item.mask ? [item.mask] : item.masks;
    const wide = still(picture, text.review.wide, { masks, selected: item.mask ? [item.mask] : [] });
    const near = item.mask && still(picture, text.review.close, { selected: [item.mask], near: item.mask });
    this.root.replaceChildren(
      h(
        "div.sheet.review",
        {},
        head,
        h("div.row", {}, h("h1", {}, text.review.questions[this.question]), h("p.quiet", {}, text.review.by(item.submission.annotator))),
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
      this.items.unshift(item);
      return this.app.say(/** @type {Error} */ (error).message);
    }
    this.answered++;
    if (this.items.length) await this.show();
    else await this.ask(this.question);
  }

  #picture(/** @type {string} */ imageId) {
    const known = this.#pictures.get(imageId);
    if (known) return known;
    const picture = this.app.api.blob(`/api/images/${imageId}`).then((blob) => Picture.from(blob));
    this.#pictures.set(imageId, picture);
    return picture;
  }

  #key(/** @type {KeyboardEvent} */ event) {
    const answer = KEYS[event.key.toLowerCase()];
    if (answer && !event.ctrlKey && !event.metaKey && !event.repeat && !document.querySelector("dialog[open]")) void this.answer(answer);
  }
}
