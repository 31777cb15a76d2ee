/**
 * The tutorial: ten moves on a picture of its own, on the page's own bench. Nothing of it is stored.
 *
 * @typedef {object} Parts What the tutorial needs of the page around it.
 * @property {import("../app/api.js").Api} api
 * @property {(message: string) => void} say
 * @property {() => unknown} leave Called when somebody has enough.
 * @property {string} leaveLabel
 */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { Picture } from "../canvas/picture.js";
import { bitmapOf } from "../masks/bitmap.js";
import { Bench } from "../work/bench.js";
import { keyOf, pretty } from "../work/keys.js";
import { prefilledMask, taskInMemory } from "../work/memory.js";
import { STEPS } from "./steps.js";
import { noteWelcomed } from "./welcome.js";

const LOOK_MS = 120;
/** Pixels on the screen between a thing and the ring around it. */
const RING_PX = 14;

/** @type {(root: HTMLElement, app: import("../app/main.js").App) => Promise<() => unknown>} */
export async function openPage(root, app) {
  const leave = () => (location.hash = "#work");
  const tutorial = await Tutorial.open(root, { api: app.api, say: app.say, leave, leaveLabel: text.tutorial.leave });
  app.bar.title.textContent = text.tutorial.safe;
  noteWelcomed();
  return () => tutorial.close();
}

/** Guide through the steps of one bench. */
export class Tutorial {
  #at = -1;
  /** Names of the steps that were really done. @type {Set<string>} */
  #done = new Set();
  /** @type {Set<string>} */
  #seen = new Set();
  #began = 0;
  #timer = 0;
  #frame = 0;

  /**
   * @param {HTMLElement} root
   * @param {Parts} parts
   */
  static async open(root, parts) {
    const found = await parts.api.get("/api/tutorial");
    const picture = await Picture.from(await parts.api.blob(`/api/images/${found.image_id}`));
    return new Tutorial(root, parts, found, picture);
  }

  /**
   * @param {HTMLElement} root
   * @param {Parts} parts
   * @param {any} found What the server says about the tutorial.
   * @param {Picture} picture
   */
  constructor(root, parts, found, picture) {
    this.root = root;
    this.parts = parts;
    this.found = found;
    root.classList.add("work");
    this.things = Object.fromEntries(Object.entries(found.things).map(([name, rle]) => [name, bitmapOf(rle)]));
    this.coach = h("section.coach", { "aria-label": text.pages.tutorial });
    this.target = h("div.target", { "aria-hidden": "true", hidden: true });
    this.bench = this.#start(picture);
    this.#next();
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#follow();
  }

  async close() {
    clearInterval(this.#timer);
    cancelAnimationFrame(this.#frame);
    delete document.documentElement.dataset.step;
    await this.bench.close();
  }

  /** Number of steps that were really done. */
  get doneCount() {
    return this.#done.size;
  }

  #start(/** @type {Picture} */ picture) {
    const { found, parts } = this;
    const given = Object.entries(found.given).map(([name, rle]) => prefilledMask(name, { rle, predicted_iou: 0.8, stability_score: 1 }, found.model_id));
    const task = taskInMemory(found, given);
    const bench = new Bench(this.root, task, picture, {
      api: parts.api,
      guidelines: "",
      say: parts.say,
      submit: () => parts.say(text.tutorial.safe),
      skip: () => this.#next(),
    });
    task.addEventListener("change", () => this.#look()); // two changes may come faster than the timer
    bench.side.element.prepend(this.coach);
    bench.painter.canvas.parentElement?.append(this.target);
    return bench;
  }

  /** Go to the next step whose aim is not reached yet. */
  #next() {
    this.#at++;
    this.#seen.clear();
    this.#began = this.bench.task.line.here;
    // Each step begins with the click tool and nothing selected: a brush left over would paint where a click is asked for
    if (!this.bench.task.draft) this.bench.select("");
    if (this.bench.tool !== "click") this.bench.setTool("click");
    document.documentElement.dataset.step = STEPS[this.#at]?.name ?? "finished";
    if (this.#at < STEPS.length) this.#showStep();
    else this.#showEnd();
  }

  /** Look whether the step is done: what counts is what the task holds. */
  #look() {
    const step = STEPS[this.#at];
    const { bench, things } = this;
    if (!step || !step.isDone({ bench, things, seen: this.#seen, began: this.#began })) return;
    this.#done.add(step.name);
    this.#next();
  }

  #showStep() {
    const [title, does] = text.tutorial.steps[STEPS[this.#at].name];
    const skip = h("button", { type: "button", onclick: () => this.#skip() }, text.tutorial.skip);
    this.coach.replaceChildren(
      h("div.row", {}, h("h2", {}, title), h("span.step", {}, text.tutorial.progress(this.#at + 1, STEPS.length))),
      this.#dots(),
      h("p", { role: "status" }, ...withKeys(does)),
      h("div.row", {}, skip, h("button.plain", { type: "button", onclick: this.parts.leave }, text.tutorial.stop)),
    );
  }

  #skip() {
    this.#next();
    this.bench.painter.canvas.focus({ preventScroll: true });
  }

  #showEnd() {
    const leave = h("button.primary", { type: "button", onclick: this.parts.leave }, this.parts.leaveLabel);
    this.coach.classList.add("finished");
    this.coach.replaceChildren(
      h("div.row", {}, h("h2", {}, text.tutorial.done), h("span.step", {}, text.tutorial.stepsDone(this.doneCount, STEPS.length))),
      this.#dots(),
      h("p", { role: "status" }, ...withKeys(text.tutorial.doneHint)),
      h("div.row", {}, leave, h("button", { type: "button", onclick: () => void this.#again() }, text.tutorial.again)),
    );
    leave.focus();
  }

  async #again() {
    const { picture } = this.bench.painter;
    await this.bench.close();
    this.#at = -1;
    this.#done.clear();
    this.coach.classList.remove("finished");
    this.bench = this.#start(picture);
    this.#next();
  }

  #dots() {
    const state = (/** @type {number} */ at) => (this.#done.has(STEPS[at].name) ? "done" : at === this.#at ? "now" : "later");
    return h("ol.dots", { "aria-hidden": "true" }, ...STEPS.map((_, at) => h(`li.${state(at)}`)));
  }

  /** Keep the ring around the thing that the step is about, wherever the view goes. */
  #follow() {
    const thing = this.things[STEPS[this.#at]?.at ?? ""];
    this.target.hidden = !thing;
    if (thing) {
      const { view } = this.bench.painter;
      const [one, other] = [view.toCanvas(thing.x0, thing.y0), view.toCanvas(thing.x1, thing.y1)];
      const { style } = this.target;
      style.translate = `${one.x - RING_PX}px ${one.y - RING_PX}px`;
      style.width = `${other.x - one.x + 2 * RING_PX}px`;
      style.height = `${other.y - one.y + 2 * RING_PX}px`;
    }
    this.#frame = requestAnimationFrame(() => this.#follow());
  }
}

/**
 * Text whose keys are drawn as keys; they are those of this browser.
 * @param {(key: (act: string) => string) => string} does
 * @returns {(string | Node)[]}
 */
function withKeys(does) {
  const parts = does((act) => `\u0000${pretty(keyOf(act))}\u0000`).split("\u0000");
  return parts.map((part, at) => (at % 2 ? h("kbd", {}, part) : part));
}
