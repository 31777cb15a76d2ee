/**
 * Late work of a round, as its lead sees it: each line that came too late beside the main line, to be looked at, and to be
 * dismissed. Its author is asked to merge it when the picture is opened again.
 *
 * @typedef {{branch: string, task_id: number, annotator: string, reason: string, created_at: string}} Branch
 * @typedef {{branch: Branch, image_id: string}} LateLine
 */

import { h, openDialog } from "../app/dom.js";
import { text } from "../app/strings.js";
import { Picture } from "../canvas/picture.js";
import { compare } from "../work/merging.js";
import { makePair } from "./pair.js";

const words = text.late;

/**
 * @param {HTMLElement} root
 * @param {import("../app/main.js").App} app
 * @param {string} roundId
 */
export async function openLateWork(root, app, roundId) {
  const late = new LateWork(app, roundId);
  root.replaceChildren(
    h(
      "div.sheet.late",
      {},
      h("div.row", {}, h("h1", {}, words.title), h("span.fill"), h("a.button", { href: "#lead" }, words.back)),
      h("p.quiet", {}, words.hint),
      late.list,
      late.view,
    ),
  );
  await late.update();
  return () => late.close();
}

class LateWork {
  /** @type {Picture | null} */
  #picture = null;
  #turn = 0;
  list = h("ul.lines");
  view = h("div.view", { "aria-live": "polite" });

  /** @param {import("../app/main.js").App} app @param {string} roundId */
  constructor(app, roundId) {
    this.app = app;
    this.roundId = roundId;
  }

  close() {
    this.#turn++;
    this.#picture?.close();
    this.#picture = null;
  }

  /** Read the lines that are open, and look at the first. */
  async update() {
    try {
      /** @type {LateLine[]} */
      const lines = await this.app.api.get(`/api/rounds/${encodeURIComponent(this.roundId)}/branches`);
      this.list.replaceChildren(...lines.map((each) => this.#row(each)));
      this.view.replaceChildren();
      if (lines.length) await this.#look(lines[0]);
      else this.view.replaceChildren(h("p", {}, words.none));
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
    }
  }

  /** @param {LateLine} line */
  #row(line) {
    const { branch, annotator, task_id, created_at } = line.branch;
    const when = new Date(created_at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
    return h("li", {}, h("button", { type: "button", "data-branch": branch, onclick: () => this.#look(line) }, words.line(annotator, task_id, when)));
  }

  /** Show a line beside the main line. @param {LateLine} line */
  async #look({ branch, image_id }) {
    this.close();
    const turn = this.#turn;
    const { api, say } = this.app;
    try {
      const [lines, blob] = await Promise.all([
        api.get(`/api/branches/${branch.branch}?task_id=${branch.task_id}`),
        api.blob(`/api/images/${image_id}`),
      ]);
      const picture = await Picture.from(blob);
      if (turn !== this.#turn) return picture.close(); // another one was chosen meanwhile
      this.#picture = picture;
      const pair = makePair(lines, compare(lines), picture, words);
      const dismiss = h("button", { type: "button", onclick: () => this.#dismiss(branch) }, words.dismiss);
      this.view.replaceChildren(h("p", {}, words.reason(branch.reason)), pair.element, h("div.buttons", {}, dismiss));
      pair.show();
      for (const button of this.list.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(button.dataset.branch === branch.branch));
      }
    } catch (error) {
      say(/** @type {Error} */ (error).message);
    }
  }

  /** @param {Branch} branch */
  async #dismiss({ branch, task_id, annotator }) {
    const answer = await openDialog(words.sure(annotator), [
      h("p", {}, words.sureHint),
      h("div.buttons", {}, h("button", { value: "" }, words.keep), h("button.primary", { value: "dismiss" }, words.dismissNow)),
    ]);
    if (answer !== "dismiss") return;
    try {
      await this.app.api.post(`/api/branches/${branch}/dismiss?task_id=${task_id}`);
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
    }
    await this.update();
  }
}
