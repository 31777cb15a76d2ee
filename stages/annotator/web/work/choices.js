/**
 * The suggestions for a click as small pictures, each with its predicted IoU: the part, the object or the group. They lie
 * in the panel, so that a click reaches every place of the picture.
 *
 * @typedef {import("./bench.js").Bench} Bench
 */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { bitmapOf } from "../masks/bitmap.js";
import { keyOf, pretty } from "./keys.js";

const WIDTH = 120;
const HEIGHT = 84;

/** Strip of suggestions of one bench. */
export class Choices {
  /** @param {Bench} bench */
  constructor(bench) {
    this.bench = bench;
    this.element = h("div.choices", { role: "group", "aria-label": text.masks.candidates, hidden: true });
    /** @type {unknown} */
    this.shown = null;
  }

  refresh() {
    const step = this.bench.task.draft?.step;
    const candidates = step && !step.drawn ? step.candidates : [];
    const wasHidden = this.element.hidden;
    this.element.hidden = candidates.length < 2;
    if (this.element.hidden) return;
    if (this.shown !== candidates) this.#draw(candidates);
    if (wasHidden) this.element.scrollIntoView({ block: "nearest" }); // a panel below the picture may be scrolled
    this.shown = candidates;
    [...this.element.children].forEach((button, index) => button.setAttribute("aria-pressed", String(index === step?.chosen)));
  }

  #draw(/** @type {import("./draft.js").Candidate[]} */ candidates) {
    const bitmaps = candidates.map((each) => bitmapOf(each.rle));
    this.element.replaceChildren(
      ...candidates.map((candidate, index) => {
        const iou = candidate.predicted_iou.toFixed(2);
        const canvas = h("canvas", { width: 2 * WIDTH, height: 2 * HEIGHT, "aria-hidden": "true" });
        this.#paint(canvas, bitmaps[index]);
        return h(
          "button.choice",
          { type: "button", onclick: () => this.bench.run(`candidate:${index}`) },
          canvas,
          h(
            "span.label",
            {},
            h("span.unseen", {}, `${text.masks.candidate} `),
            h("kbd", {}, pretty(keyOf(`candidate:${index}`)) || String(index + 1)),
            h("span.unseen", {}, `, ${text.masks.iou} `),
            h("span", {}, iou),
          ),
        );
      }),
    );
  }

  #paint(/** @type {HTMLCanvasElement} */ canvas, /** @type {import("../masks/bitmap.js").Bitmap} */ bitmap) {
    const { picture } = this.bench.painter;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const margin = 0.3 * Math.max(bitmap.x1 - bitmap.x0, bitmap.y1 - bitmap.y0, 8);
    const scale = Math.min(canvas.width / (bitmap.x1 - bitmap.x0 + 2 * margin), canvas.height / (bitmap.y1 - bitmap.y0 + 2 * margin));
    const left = canvas.width / 2 - (scale * (bitmap.x0 + bitmap.x1)) / 2;
    const top = canvas.height / 2 - (scale * (bitmap.y0 + bitmap.y1)) / 2;
    context.setTransform(scale, 0, 0, scale, left, top);
    context.drawImage(picture.bitmap(scale, () => undefined), 0, 0, picture.width, picture.height);
    context.fillStyle = "rgb(0 0 0 / 45%)";
    context.fillRect(0, 0, picture.width, picture.height);
    if (!bitmap.area) return;
    this.bench.painter.cutOut(context, bitmap);
  }
}
