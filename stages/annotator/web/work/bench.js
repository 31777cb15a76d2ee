/**
 * The bench: one task's picture, tools, suggestions and panel, kept in step with the task's state.
 *
 * @typedef {import("./task.js").Task} Task
 * @typedef {import("../masks/fold.js").TaskMask} TaskMask
 * @typedef {import("../masks/drawing.js").Point} Point
 * @typedef {"click" | "scribble" | "box" | "wand" | "brush" | "eraser" | "polygon" | "select"} Tool
 */

import { ApiError } from "../app/api.js";
import { h, icon } from "../app/dom.js";
import { saveSettings, settings } from "../app/settings.js";
import { text } from "../app/strings.js";
import { Painter } from "../canvas/painter.js";
import { bitmapOf } from "../masks/bitmap.js";
import { Colours } from "../masks/palette.js";
import { Activity } from "../safe/activity.js";
import { Tools } from "../tools/pointer.js";
import { runAct } from "./acts.js";
import { Choices } from "./choices.js";
import { Committed } from "./committed.js";
import { actOf, keyOf, pretty } from "./keys.js";
import { Nudge } from "./nudge.js";
import { Prompter } from "./prompting.js";
import { Side } from "./side.js";

/** @type {Tool[]} */
const TOOLS = ["click", "scribble", "box", "wand", "brush", "eraser", "polygon", "select"];

/** Bench of one task. */
export class Bench {
  /** @type {Tool} */
  tool = "click";
  /** @type {string[]} Names of selected masks; clicks refine the one, if it is one. */
  selected = [];
  /** @type {Set<string>} */
  hidden = new Set();
  solo = "";
  colours = new Colours();
  /** Place without a mask that is looked at. @type {import("../masks/bitmap.js").Box | null} */
  gap = null;
  /** @type {Set<string>} Names of prefilled masks whose acceptance or rejection is being written. */
  deciding = new Set();
  #stop = new AbortController();

  /**
   * @param {HTMLElement} root
   * @param {Task} task
   * @param {import("../canvas/picture.js").Picture} picture
   * @param {{api: import("../app/api.js").Api, guidelines: string, say: (message: string) => void, submit: () => void, skip: () => void, back?: () => void, isOfDataset?: boolean}} parts
   */
  constructor(root, task, picture, parts) {
    this.task = task;
    this.parts = parts;
    const canvas = h("canvas.picture", { tabindex: 0, role: "application", "aria-label": text.task.canvas });
    this.status = h("p.status", { role: "status", "aria-live": "polite" });
    this.choices = new Choices(this);
    this.committed = new Committed(this);
    this.side = new Side(this, this.choices.element, parts.guidelines);
    this.toolbar = this.#makeToolbar();
    this.answer = this.#makeAnswer();
    const foot = h("div.foot", {}, this.status, this.answer);
    root.replaceChildren(h("div.stage", {}, h("h1.unseen", {}, text.pages.work), canvas, this.toolbar, foot), this.side.element);
    this.painter = new Painter(canvas, picture);
    this.painter.view.measureCover = () => this.#measureCover();
    this.painter.view.fit();
    this.painter.labels.setStyle(settings);
    this.prompter = new Prompter(task, parts.api, (error) => this.#promptFailed(error));
    this.side.element.append(this.prompter.decoder.element);
    this.tools = new Tools(this);
    this.nudge = new Nudge(() => this.showStatus());
    this.activity = new Activity(
      () => this.task.draft?.mask ?? (this.selected.length === 1 ? this.selected[0] : null),
      (payload) => this.task.act("activity", payload),
    );
    this.#listen();
    this.refresh();
    void this.committed.begin();
    canvas.focus({ preventScroll: true });
  }

  /** End; what was done is sent. */
  async close() {
    this.#stop.abort();
    this.prompter.cancel();
    this.tools.preview.close();
    this.nudge.close();
    await this.activity.flush();
    this.activity.close();
    this.painter.close();
  }

  /** The one selected mask, which the next click or stroke refines. @returns {TaskMask | undefined} */
  get refined() {
    return this.selected.length === 1 ? this.task.line.find(this.selected[0]) : undefined;
  }

  /** Mask to draw on: the draft's, or that of the refined mask. */
  get present() {
    if (this.task.draft) return this.task.draft.bitmap;
    return this.refined ? bitmapOf(this.refined.rle) : null;
  }

  /** Diameter of the brush, in image pixels. */
  get diameter() {
    return settings.brush;
  }

  /** Show the state as it is now. */
  refresh() {
    this.selected = this.selected.filter((name) => this.task.line.find(name));
    const inDraft = this.task.draft?.refines;
    const masks = this.task.masks.filter(({ mask }) => mask !== inDraft && !this.hidden.has(mask) && (!this.solo || mask === this.solo));
    this.painter.labels.setMasks(
      masks.map((mask) => ({ name: mask.mask, bitmap: bitmapOf(mask.rle), colour: this.colours.of(mask, settings.colourBy) })),
    );
    const { overlay } = this.painter;
    const draft = this.task.draft;
    overlay.draft = draft?.bitmap ?? null;
    const { waiting } = this.prompter;
    overlay.clicks = [...(draft?.step.clicks ?? []), ...waiting.flatMap(({ click }) => click ?? [])];
    overlay.scribbles = [...(draft?.step.scribbles ?? []), ...waiting.flatMap(({ scribble }) => scribble ?? [])];
    const box = draft?.step.box;
    overlay.box = box ? { x0: box[0], y0: box[1], x1: box[2], y1: box[3] } : null;
    overlay.selected = draft ? [] : this.selected.map((name) => bitmapOf(/** @type {TaskMask} */ (this.task.line.find(name)).rle));
    this.choices.refresh();
    this.answer.hidden = !draft;
    this.side.refresh();
    this.tools?.preview.refresh();
    this.#showTool();
    this.showStatus();
    this.painter.ask();
  }

  /** Tell what a click does now, or what to do next. */
  showStatus() {
    const { draft } = this.task;
    /** @type {[string, string]} */
    const sizes = [pretty(keyOf("smaller")), pretty(keyOf("larger"))];
    let message = text.hint.begin;
    if (this.prompter.waiting.length) message = text.hint.asking;
    else if (this.nudge.isDue) message = text.hint.nudge;
    else if (draft && this.tool === "wand") message = text.hint.acceptWand(pretty(keyOf("accept")), settings.tolerance, ...sizes);
    else if (draft) message = text.hint.accept(pretty(keyOf("accept")), draft.hasChoice ? pretty(keyOf("nextCandidate")) : "");
    else if (this.selected.length > 1) message = text.hint.selected(this.selected.length);
    else if (this.refined && ["click", "scribble", "box", "wand"].includes(this.tool)) message = text.hint.refine(this.side.nameOf(this.refined.mask));
    else if (this.tool === "polygon" || this.tool === "box" || this.tool === "scribble") message = text.hint[this.tool];
    else if (this.tool === "brush" || this.tool === "eraser") message = text.hint[this.tool](...sizes);
    else if (this.tool === "wand") message = text.hint.wand(settings.tolerance, ...sizes);
    if (this.status.textContent !== message) this.status.textContent = message;
    this.status.classList.toggle("nudge", this.nudge.isDue);
  }

  /** Ask the model. @param {Parameters<Prompter["ask"]>[0]} added */
  prompt(added) {
    void this.prompter.ask(added, () => this.task.begin(this.refined));
  }

  /**
   * Do what a key or button asks for.
   * @param {string} act
   * @param {KeyboardEvent} [event]
   */
  run(act, event) {
    return runAct(this, act, event);
  }

  /** @param {Tool} tool */
  setTool(tool) {
    this.tool = tool;
    this.painter.overlay.corners = [];
    this.tools.stroke.drop();
    this.tools.preview.look();
    this.tools.showTip();
    this.refresh();
  }

  /**
   * Select a mask.
   * @param {string} mask Empty for none.
   * @param {boolean} more Keep the others selected; a selected mask is let go.
   */
  select(mask, more = false) {
    if (this.task.draft) return this.parts.say(text.hint.first);
    const others = more ? this.selected.filter((each) => each !== mask) : [];
    const isLetGo = more && this.selected.includes(mask);
    this.selected = mask && !isLetGo ? [...others, mask] : others;
    this.refresh();
    if (mask) this.side.reveal(mask);
  }

  /** Select the mask at a point; again at the same point, the one below it. @param {Point} at @param {boolean} more */
  pick(at, more) {
    const found = this.painter.labels.at(Math.floor(at.x), Math.floor(at.y));
    const next = more ? found[0] : found[(found.indexOf(this.selected[0]) + 1) % Math.max(1, found.length)];
    if (next || !more) this.select(next ?? "", more);
  }

  /** Show which mask is under the pointer. @param {Point | null} at */
  hover(at) {
    const isPicking = at && this.tool === "select";
    const name = isPicking ? this.painter.labels.at(Math.floor(at.x), Math.floor(at.y))[0] : undefined;
    const mask = name ? this.task.line.find(name) : undefined;
    this.painter.overlay.hovered = mask ? bitmapOf(mask.rle) : null;
  }

  /** Set how masks look. @param {Partial<import("../app/settings.js").Settings>} change */
  style(change) {
    saveSettings(change);
    this.painter.labels.setStyle({ opacity: settings.opacity, outlines: settings.outlines, filled: settings.filled });
    this.side.follow();
    this.tools.preview.look();
    this.painter.ask();
  }

  #listen() {
    const { signal } = this.#stop;
    this.task.addEventListener("change", () => this.#changed(), { signal });
    this.prompter.addEventListener("change", () => this.refresh(), { signal });
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    document.addEventListener("keyup", (event) => event.key === " " && (this.tools.isSpaceDown = false), { signal });
    addEventListener("blur", () => (this.tools.isSpaceDown = false), { signal });
    for (const part of [this.toolbar, this.choices.element, this.answer]) {
      part.addEventListener("click", (/** @type {MouseEvent} */ event) => this.#pressed(event), { signal });
    }
  }

  #changed() {
    this.nudge.follow(this.task.draft?.mask ?? "");
    this.refresh();
  }

  #key(/** @type {KeyboardEvent} */ event) {
    if (event.key === " " && event.target === this.painter.canvas) {
      this.tools.isSpaceDown = true;
      event.preventDefault();
      return;
    }
    const act = actOf(event);
    if (!act || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    void this.run(act, event);
  }

  /** A button that was pressed by pointer lets the keys go on working on the picture; Enter would press it again. */
  #pressed(/** @type {MouseEvent} */ event) {
    const isByPointer = event.detail > 0;
    if (isByPointer && !document.querySelector("dialog[open]")) this.painter.canvas.focus({ preventScroll: true });
  }

  #promptFailed(/** @type {ApiError} */ error) {
    this.parts.say(error.code === "offline" ? text.hint.offline : error.message);
    this.refresh();
  }

  #makeToolbar() {
    const button = (/** @type {string} */ label, /** @type {string} */ shape, /** @type {string} */ act) =>
      h("button.tool", { type: "button", "aria-label": label, "data-act": act, onclick: () => this.run(act) }, icon(shape));
    return h(
      "div.toolbar",
      { role: "toolbar", "aria-label": text.toolbar, "aria-orientation": "vertical" },
      ...TOOLS.map((tool) => button(text.tools[tool], tool, `tool:${tool}`)),
      h("hr"),
      button(text.buttons.undo, "undo", "undo"),
      button(text.buttons.redo, "redo", "redo"),
      h("hr"),
      button(text.buttons.fit, "fit", "fit"),
      button(text.buttons.hide, "eye", "hide"),
      button(text.buttons.help, "help", "help"),
    );
  }

  /** How far the tools and the status line reach over the picture. */
  #measureCover() {
    const { toolbar, status } = this;
    const stage = /** @type {HTMLElement} */ (toolbar.parentElement).getBoundingClientRect();
    return { left: toolbar.getBoundingClientRect().right - stage.left, bottom: stage.bottom - status.getBoundingClientRect().top };
  }

  /** Buttons for an open mask, for those without a keyboard at hand. */
  #makeAnswer() {
    return h(
      "div.answer",
      { role: "group", "aria-label": text.masks.answer, hidden: true },
      h("button.primary", { type: "button", title: text.keys.does.accept, onclick: () => this.run("accept") }, text.masks.accept),
      h("button", { type: "button", title: text.keys.does.drop, onclick: () => this.run("drop") }, text.masks.drop),
    );
  }

  #showTool() {
    for (const button of this.toolbar.querySelectorAll("button")) {
      const act = button.dataset.act ?? "";
      const key = pretty(keyOf(act));
      button.title = `${button.getAttribute("aria-label")} (${key})`;
      button.dataset.key = key.replace("Ctrl Shift ", "^⇧").replace("Ctrl ", "^");
      if (act.startsWith("tool:")) button.setAttribute("aria-pressed", String(act === `tool:${this.tool}`));
      if (act === "undo") button.disabled = !this.task.canUndo;
      if (act === "redo") button.disabled = !this.task.canRedo;
      if (act === "hide") button.setAttribute("aria-pressed", String(!this.painter.showsMasks));
    }
    this.painter.canvas.dataset.tool = this.tool;
  }
}
