/**
 * The mask that a click would give, outlined faintly under a pointer that rests. It is no prompt: nothing of it is stored or
 * counted. One request is under way at most, and none waits; where answers are slow, nothing is asked.
 *
 * @typedef {import("../work/bench.js").Bench} Bench
 * @typedef {import("../masks/drawing.js").Point} Point
 */

import { settings } from "../app/settings.js";
import { bitmapOf } from "../masks/bitmap.js";

/** Milliseconds that a pointer rests before it is looked at. */
const REST_MS = 120;
/** An answer that takes so many times as long as a quick click is too slow; then, or after an error, nothing is asked for a while. */
const SLOW = 3;
const PAUSE_MS = 10_000;

/** Preview of one bench. */
export class Preview {
  /** @type {Point | null} Where the pointer is. */
  #at = null;
  #isAsking = false;
  #timer = 0;
  #pausedUntil = 0;

  /** @param {Bench} bench */
  constructor(bench) {
    this.bench = bench;
  }

  /** Follow the pointer. @param {Point | null} at Place in image pixels; null where there is none that could click. */
  follow(at) {
    if (at && this.#at && at.x === this.#at.x && at.y === this.#at.y) return;
    this.#at = at;
    this.look();
  }

  /** Show nothing, and look again once the pointer has rested. */
  look() {
    this.#hide();
    if (this.#at && this.#isWanted && !this.#isPaused) this.#timer = setTimeout(() => void this.#ask(), REST_MS);
  }

  /** Show nothing where the next click no longer begins a mask. */
  refresh() {
    if (!this.#isWanted) this.#hide();
  }

  close() {
    clearTimeout(this.#timer);
    this.#at = null;
  }

  #hide() {
    clearTimeout(this.#timer);
    const { painter } = this.bench;
    if (painter.overlay.preview) painter.ask();
    painter.overlay.preview = null;
  }

  /** Whether the next click begins a mask, where masks come quickly. */
  get #isWanted() {
    const { bench } = this;
    const isFree = bench.tool === "click" && !bench.task.draft && !bench.selected.length && !bench.prompter.waiting.length;
    return settings.preview && isFree && bench.prompter.decoder.isQuick;
  }

  get #isPaused() {
    return performance.now() <= this.#pausedUntil;
  }

  async #ask() {
    const at = this.#at;
    if (!at || !this.#isWanted || this.#isPaused || this.#isAsking || document.hidden || document.querySelector("dialog[open]")) return;
    this.#isAsking = true;
    const began = performance.now();
    try {
      const { candidates } = await this.bench.prompter.preview(at);
      if (performance.now() - began > SLOW * settings.quickMs) this.#pausedUntil = performance.now() + PAUSE_MS;
      if (this.#at === at && this.#isWanted) this.#show(candidates[0].rle);
    } catch {
      this.#pausedUntil = performance.now() + PAUSE_MS; // a click says what is wrong
    } finally {
      this.#isAsking = false;
      if (this.#at !== at) this.look(); // it rests elsewhere by now
    }
  }

  #show(/** @type {import("../masks/rle.js").Rle} */ { size, counts }) {
    const { painter } = this.bench;
    painter.overlay.preview = { bitmap: bitmapOf({ size, counts }), since: performance.now() };
    painter.ask();
  }
}
