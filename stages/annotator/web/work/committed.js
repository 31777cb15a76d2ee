/**
 * The masks that the dataset has of this picture already, outlined with dashes under those of the task. They are looked at only:
 * nothing selects, counts or changes them.
 *
 * @typedef {import("./bench.js").Bench} Bench
 */

import { ApiError } from "../app/api.js";
import { h } from "../app/dom.js";
import { saveSettings, settings } from "../app/settings.js";
import { text } from "../app/strings.js";
import { Labels } from "../canvas/labels.js";
import { bitmapOf } from "../masks/bitmap.js";

/** @type {[number, number, number]} */
const COLOUR = [255, 255, 255];

/** Committed masks of one bench. */
export class Committed {
  /** @type {Promise<import("../masks/rle.js").Rle[]> | null} */
  #found = null;

  /** @param {Bench} bench */
  constructor(bench) {
    this.bench = bench;
    this.check = h("input", { type: "checkbox", onchange: () => void this.toggle() });
    this.element = bench.parts.isOfDataset && h("label.check", { title: text.masks.committedHint }, this.check, text.masks.committed);
  }

  /** Show them where the annotator had them shown on the picture before. */
  async begin() {
    if (this.bench.parts.isOfDataset && settings.committed) await this.#show();
  }

  /** Show or hide them. */
  async toggle() {
    const { painter, parts } = this.bench;
    if (!parts.isOfDataset) return parts.say(text.masks.committedNone);
    const count = painter.committed ? this.#hide() : await this.#show();
    if (count !== null) parts.say(painter.committed ? text.masks.committedCount(count) : text.masks.committedOff);
    saveSettings({ committed: Boolean(painter.committed) });
  }

  #hide() {
    this.#set(null);
    return 0;
  }

  /** Show them, and return their number; null where they cannot be read, which the page says. */
  async #show() {
    const { painter, parts, task } = this.bench;
    try {
      this.#found ??= parts.api.get(`/api/tasks/${task.lease.task_id}/committed`);
      const masks = await this.#found;
      const labels = new Labels(painter.picture);
      labels.setStyle({ filled: false, dashed: true });
      labels.setMasks(masks.map(({ size, counts }, at) => ({ name: String(at), bitmap: bitmapOf({ size, counts }), colour: COLOUR })));
      this.#set(labels);
      return masks.length;
    } catch (error) {
      this.#found = null;
      this.#set(null);
      if (error instanceof ApiError && error.code === "not_shown") saveSettings({ committed: false }); // it is told once
      parts.say(/** @type {Error} */ (error).message);
      return null;
    }
  }

  #set(/** @type {Labels | null} */ labels) {
    this.bench.painter.committed = labels;
    this.check.checked = labels !== null;
    this.bench.painter.ask();
  }
}
