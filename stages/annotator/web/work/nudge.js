/** The paper's advice: a mask that takes more than 30 seconds is not worth it. */

const NUDGE_S = 30;
/** Longest pause between two looks that counts as work, in seconds. */
const PAUSE_S = 5;

/** Watch over the time of the present mask. */
export class Nudge {
  #mask = "";
  #seconds = 0;
  #lastInput = performance.now();

  /** @param {() => void} onDue */
  constructor(onDue) {
    const saw = () => (this.#lastInput = performance.now());
    this.stop = new AbortController();
    for (const name of ["pointermove", "pointerdown", "keydown", "wheel"]) {
      addEventListener(name, saw, { capture: true, passive: true, signal: this.stop.signal });
    }
    this.timer = setInterval(() => this.#tick(onDue), 1000);
  }

  /** Whether the present mask has taken too long. */
  get isDue() {
    return this.#mask !== "" && this.#seconds >= NUDGE_S;
  }

  /** Watch a mask; another one begins at zero. @param {string} mask Empty for none. */
  follow(mask) {
    if (mask !== this.#mask) [this.#mask, this.#seconds] = [mask, 0];
  }

  close() {
    clearInterval(this.timer);
    this.stop.abort();
  }

  #tick(/** @type {() => void} */ onDue) {
    const isWorking = !document.hidden && performance.now() - this.#lastInput < PAUSE_S * 1000;
    if (!this.#mask || !isWorking) return;
    this.#seconds++;
    if (this.#seconds === NUDGE_S) onDue();
  }
}
