/**
 * The wand: a click takes the flat region around it into the mask, or takes it away. Until something else is done, a wider
 * or narrower tolerance takes the place of the one before.
 *
 * @typedef {import("../work/bench.js").Bench} Bench
 * @typedef {import("../masks/bitmap.js").Bitmap} Bitmap
 * @typedef {{x: number, y: number, positive: boolean, before: Bitmap | null}} Pick A click, and the mask before it.
 */

import { settings } from "../app/settings.js";
import { text } from "../app/strings.js";
import { bitmapOf, rleOf, subtract, union } from "../masks/bitmap.js";

/** Largest tolerance that the server takes, in grey levels. */
const MAX_TOLERANCE = 128;

/** Wand of one bench. */
export class Wand {
  /** The last click, and the step of the draft that it made. @type {{pick: Pick, draft: import("../work/draft.js").Draft, at: number} | null} */
  #last = null;

  /** @param {Bench} bench */
  constructor(bench) {
    this.bench = bench;
  }

  /**
   * Take the flat region around a point, or take it away.
   * @param {import("../masks/drawing.js").Point} point
   * @param {boolean} positive
   */
  click({ x, y }, positive) {
    const { bench } = this;
    void bench.prompter.inTurn({ click: { x, y, positive } }, async (isWanted) => {
      const pick = { x, y, positive, before: bench.present };
      if (!positive && !pick.before?.area) return bench.parts.say(text.wand.nothing);
      const bitmap = await this.#changed(pick);
      if (!isWanted()) return;
      if (!bitmap.area) return bench.parts.say(text.masks.emptied);
      const draft = bench.task.begin(bench.refined);
      draft.drew(rleOf(bitmap, bench.task.size));
      this.#last = { pick, draft, at: draft.at };
      await bench.task.saveDraft();
    });
  }

  /** Make the tolerance larger or smaller, and take the last region anew. @param {boolean} isWider */
  adjust(isWider) {
    const { bench } = this;
    const now = settings.tolerance;
    const tolerance = isWider ? Math.min(MAX_TOLERANCE, Math.ceil(now * 1.25) + 1) : Math.max(0, Math.floor(now / 1.25) - 1);
    bench.style({ tolerance });
    bench.showStatus();
    const last = this.#last;
    if (!last || !this.#isNewest(last)) return;
    const { x, y, positive } = last.pick;
    void bench.prompter.inTurn({ click: { x, y, positive } }, async (isWanted) => {
      if (settings.tolerance !== tolerance || !this.#isNewest(last)) return; // changed again meanwhile
      const bitmap = await this.#changed(last.pick);
      if (!isWanted() || !this.#isNewest(last)) return;
      if (!bitmap.area) return bench.parts.say(text.masks.emptied);
      last.draft.drewAgain(rleOf(bitmap, bench.task.size));
      await bench.task.saveDraft();
    });
  }

  /** The mask after a click. @param {Pick} pick @returns {Promise<Bitmap>} */
  async #changed({ x, y, positive, before }) {
    const region = bitmapOf(await this.bench.prompter.flatRegion({ x, y, tolerance: settings.tolerance }));
    if (!before?.area) return region;
    return positive ? union([before, region]) : subtract(before, [region]);
  }

  /** Whether nothing was done since. @param {{draft: import("../work/draft.js").Draft, at: number}} last */
  #isNewest({ draft, at }) {
    return this.bench.task.draft === draft && draft.at === at;
  }
}
