/**
 * The panel beside the picture: masks with their origin and certainty, how they look, and the guidelines.
 *
 * @typedef {import("./bench.js").Bench} Bench
 * @typedef {import("../masks/fold.js").TaskMask} TaskMask
 */

import { h } from "../app/dom.js";
import { saveSettings, settings } from "../app/settings.js";
import { text } from "../app/strings.js";
import { bitmapOf } from "../masks/bitmap.js";
import { css, originOf } from "../masks/palette.js";
import { keyOf, pretty } from "./keys.js";

/** Panel of one bench. */
export class Side {
  /** @type {Map<string, {row: HTMLElement, key: string}>} */
  #rows = new Map();
  /** @type {Map<string, number>} Numbers of masks in the order in which they appeared. */
  numbers = new Map();

  /**
   * @param {Bench} bench
   * @param {HTMLElement} choices Suggestions, which lie over the list: while they are shown, no mask can be selected.
   * @param {string} guidelines
   */
  constructor(bench, choices, guidelines) {
    this.bench = bench;
    this.title = h("h2", { id: "masks-title" });
    this.checks = { outlines: this.#check("outlines"), filled: this.#check("filled"), preview: this.#check("preview") };
    this.list = h("ul.masks", { role: "listbox", "aria-labelledby": "masks-title", "aria-multiselectable": "true", tabindex: 0 });
    this.empty = h("p.quiet", {}, text.masks.none);
    this.actions = h("div.actions");
    this.element = h(
      "aside.side",
      { "aria-label": text.masks.list },
      h("div.row", {}, this.title, this.#select(text.masks.sort, "sortBy", text.masks.sorts)),
      h("div.lists", {}, this.empty, this.list, choices),
      this.actions,
      this.#look(),
      guidelines && h("details.guidelines", { open: true }, h("summary", {}, text.task.guidelines), h("p", { tabindex: 0 }, guidelines)),
    );
    this.list.addEventListener("click", (/** @type {MouseEvent} */ event) => this.#clicked(event));
    this.list.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#key(event));
  }

  /** Name of a mask for people. @param {string} mask */
  nameOf(mask) {
    if (!this.numbers.has(mask)) this.numbers.set(mask, this.numbers.size + 1);
    return text.masks.name(/** @type {number} */ (this.numbers.get(mask)));
  }

  refresh() {
    const { task, selected } = this.bench;
    const masks = sorted(task.masks);
    this.title.textContent = text.masks.title(masks.length);
    this.empty.hidden = masks.length > 0;
    this.list.hidden = masks.length === 0;
    const rows = masks.map((mask) => this.#row(mask));
    const shown = this.list.children;
    if (rows.length !== shown.length || rows.some((row, at) => row !== shown[at])) this.list.replaceChildren(...rows);
    const last = selected.at(-1);
    for (const row of rows) row.setAttribute("aria-selected", String(selected.includes(row.dataset.mask ?? "")));
    if (last) this.list.setAttribute("aria-activedescendant", `row-${last}`);
    else this.list.removeAttribute("aria-activedescendant");
    this.#showActions();
  }

  /** Show settings that were changed elsewhere. */
  follow() {
    this.opacity.value = String(settings.opacity);
    for (const [setting, box] of Object.entries(this.checks)) box.checked = settings[/** @type {keyof Side["checks"]} */ (setting)];
  }

  /** Bring a mask's row into sight. @param {string} mask */
  reveal(mask) {
    this.#rows.get(mask)?.row.scrollIntoView({ block: "nearest" });
  }

  #row(/** @type {TaskMask} */ mask) {
    const name = this.nameOf(mask.mask);
    const origin = originOf(mask);
    const colour = css(this.bench.colours.of(mask, settings.colourBy));
    const iou = mask.predicted_iou === null ? "–" : mask.predicted_iou.toFixed(2);
    const isHidden = this.bench.hidden.has(mask.mask);
    const key = [mask.rle.counts.length, origin, iou, colour, isHidden].join(" ");
    const kept = this.#rows.get(mask.mask);
    if (kept?.key === key) return kept.row;
    const swatch = h("span.swatch", { "aria-hidden": "true" });
    swatch.style.background = colour;
    const row = h(
      isHidden ? "li.dimmed" : "li",
      { role: "option", id: `row-${mask.mask}`, "data-mask": mask.mask },
      swatch,
      h("span.name", {}, name),
      h(`span.origin.${origin}`, {}, text.masks.origin[origin]),
      h("span.iou", { title: mask.predicted_iou === null ? text.masks.noIou : text.masks.iou }, iou),
    );
    this.#rows.set(mask.mask, { row, key });
    return row;
  }

  #showActions() {
    const { task, selected } = this.bench;
    const masks = selected.map((name) => task.line.find(name)).filter((each) => each !== undefined);
    const isPrefilled = masks.length === 1 && masks[0].origin !== "made";
    const isHidden = masks.length > 0 && masks.every((each) => this.bench.hidden.has(each.mask));
    /** @type {[string, string][]} Act and label of each button. */
    const wanted = [];
    if (isPrefilled && !masks[0].decided) wanted.push(["acceptMask", text.masks.accept]);
    if (isPrefilled) wanted.push(["rejectMask", text.masks.reject]);
    if (masks.length > 1) wanted.push(["merge", text.masks.merge], ["subtract", text.masks.subtract]);
    if (masks.length === 1) wanted.push(["fillHoles", text.masks.fillHoles], ["split", text.masks.split]);
    if (masks.length) wanted.push(["removeMask", text.masks.remove], ["hideMask", isHidden ? text.masks.show : text.masks.hide]);
    const key = wanted.map(([act, label]) => `${label} ${keyOf(act)}`).join();
    if (this.actions.dataset.key === key) return;
    this.actions.dataset.key = key;
    this.actions.replaceChildren(
      ...wanted.map(([act, label]) =>
        h("button", { type: "button", onclick: () => this.bench.run(act) }, label, keyOf(act) && h("kbd", {}, pretty(keyOf(act)))),
      ),
    );
  }

  #clicked(/** @type {MouseEvent} */ event) {
    const row = /** @type {HTMLElement} */ (event.target).closest("li");
    if (row?.dataset.mask) this.bench.select(row.dataset.mask, event.ctrlKey || event.metaKey || event.shiftKey);
  }

  #key(/** @type {KeyboardEvent} */ event) {
    const act = { ArrowDown: "nextMask", ArrowUp: "previousMask" }[event.key];
    if (!act || event.ctrlKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.bench.run(act);
  }

  #look() {
    const opacity = h("input", { type: "range", min: 0.1, max: 0.9, step: 0.05, value: settings.opacity });
    opacity.addEventListener("input", () => this.bench.style({ opacity: Number(opacity.value) }));
    this.opacity = opacity;
    return h(
      "div.look",
      {},
      this.#select(text.masks.colour, "colourBy", text.masks.colours),
      h("label", {}, text.masks.opacity, opacity),
      h("label.check", {}, this.checks.outlines, text.masks.outlines),
      h("label.check", {}, this.checks.filled, text.masks.fill),
      h("label.check", { title: text.masks.previewHint }, this.checks.preview, text.masks.preview),
      this.bench.committed.element,
    );
  }

  #check(/** @type {"outlines" | "filled" | "preview"} */ setting) {
    /** @type {HTMLInputElement} */
    const box = h("input", { type: "checkbox", checked: settings[setting] });
    box.addEventListener("change", () => this.bench.style({ [setting]: box.checked }));
    return box;
  }

  #select(/** @type {string} */ label, /** @type {"sortBy" | "colourBy"} */ setting, /** @type {Record<string, string>} */ options) {
    const select = h("select", {}, ...Object.entries(options).map(([value, name]) => h("option", { value }, name)));
    select.value = settings[setting];
    select.addEventListener("change", () => {
      saveSettings({ [setting]: select.value });
      this.bench.refresh();
    });
    return h("label", {}, label, select);
  }
}

/** @param {TaskMask[]} masks */
export function sorted(masks) {
  const area = (/** @type {TaskMask} */ mask) => bitmapOf(mask.rle).area;
  if (settings.sortBy === "area") return [...masks].sort((a, b) => area(b) - area(a));
  if (settings.sortBy === "iou") return [...masks].sort((a, b) => (a.predicted_iou ?? 2) - (b.predicted_iou ?? 2));
  return [...masks].reverse();
}

