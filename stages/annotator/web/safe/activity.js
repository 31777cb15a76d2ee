/**
 * When the annotator did something, and when the page was hidden: the server adds the gaps up.
 * Pointer moves count as well, twice a second at most.
 */

const MOVE_MS = 500;
/** A page that is reloaded or killed loses no more than this of the times. */
const SEND_MS = 5_000;

/** Recorder of one task's inputs. */
export class Activity {
  /** @type {[number, string | null][]} */
  #inputs = [];
  /** @type {[number, number][]} */
  #hidden = [];
  #hiddenSince = document.hidden ? now() : 0;
  #lastMove = 0;
  #stop = new AbortController();

  /**
   * @param {() => string | null} mask Name of the mask that an input is made on, or null.
   * @param {(payload: {inputs: [number, string | null][], hidden: [number, number][]}) => unknown} send
   */
  constructor(mask, send) {
    this.mask = mask;
    this.send = send;
    const options = { capture: true, passive: true, signal: this.#stop.signal };
    for (const name of ["pointerdown", "pointerup", "keydown", "wheel"]) addEventListener(name, () => this.input(), options);
    addEventListener("pointermove", () => this.#moved(), options);
    document.addEventListener("visibilitychange", () => this.#visibility(), options);
    this.timer = setInterval(() => this.flush(), SEND_MS);
  }

  /** Record an input. */
  input() {
    this.#inputs.push([now(), this.mask()]);
  }

  /** Hand over what was recorded. */
  async flush() {
    if (!this.#inputs.length && !this.#hidden.length) return;
    const payload = { inputs: this.#inputs, hidden: this.#hidden };
    [this.#inputs, this.#hidden] = [[], []];
    await this.send(payload);
  }

  close() {
    clearInterval(this.timer);
    this.#stop.abort();
  }

  #moved() {
    if (performance.now() - this.#lastMove < MOVE_MS) return;
    this.#lastMove = performance.now();
    this.input();
  }

  #visibility() {
    if (document.hidden) this.#hiddenSince = now();
    else if (this.#hiddenSince) this.#hidden.push([this.#hiddenSince, now()]);
    if (document.hidden) void this.flush();
  }
}

/** Seconds by this machine's clock, to a millisecond. */
function now() {
  return Math.round(performance.timeOrigin + performance.now()) / 1000;
}
