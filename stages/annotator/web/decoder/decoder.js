/**
 * Where prompts are decoded: on the server or in this browser, chosen by measuring both when the first task is opened.
 *
 * The same prompts give the same masks in both places. The choice is shown with its p50 and p95, and a person can pin it.
 * Without the library or the decoder, and after a failure, the server decodes and the page says why. Where the server
 * does not answer, the browser does if it can.
 *
 * @typedef {"server" | "browser"} Place
 * @typedef {import("./predict.js").Prompt} Prompt
 * @typedef {import("../app/api.js").Api} Api
 * @typedef {{task_id: number, image_id: string, model_id: string, height: number, width: number}} Lease
 * @typedef {(body: object) => Promise<any>} AskServer
 */

import { ApiError } from "../app/api.js";
import { h } from "../app/dom.js";
import { settings } from "../app/settings.js";
import { text } from "../app/strings.js";
import { DecodingWorker } from "./client.js";
import { ID_PREFIX } from "./predict.js";

const KEY = "gigamask decoding";
const PROBES = 5;
/** Milliseconds that a new task has for its picture before the embeddings are fetched. */
const DELAY_MS = 300;
/** Answers after which it is known how quick the server is. */
const MIN_TIMES = 3;
/** Latest times that the figures are computed from. */
const MAX_TIMES = 200;

/** @type {WeakMap<Api, Decoder>} */
const decoders = new WeakMap();

/** The decoder of a login, the same for all tasks. @param {Api} api @returns {Decoder} */
export function decoderOf(api) {
  const known = decoders.get(api) ?? new Decoder();
  decoders.set(api, known);
  return known;
}

/** Decoder of one session. */
export class Decoder {
  /** @type {Record<Place, number[]>} Milliseconds from a prompt to its masks. */
  times = { server: [], browser: [] };
  /** @type {Place} */
  fastest = "server";
  isMeasuring = false;
  isReady = false;
  /** Why the browser cannot decode; empty where it can. */
  problem = "";
  #worker = new DecodingWorker();
  #isMeasured = false;
  /** @type {[Lease, AskServer] | null} */
  #opened = null;
  /** @type {Lease[]} */
  #ahead = [];
  #line = h("p.quiet", { role: "status" });
  #select = h("select", {}, ...Object.entries(text.decoding.places).map(([value, name]) => h("option", { value }, name)));
  /** Line of the panel that tells where masks are decoded, and how fast. */
  element = h("div.decoding", {}, h("label", {}, text.decoding.title, this.#select), this.#line);

  constructor() {
    this.#select.value = this.pinned || "fastest";
    this.#select.addEventListener("change", () => {
      localStorage.setItem(KEY, this.#select.value);
      this.#show();
      if (this.#opened) void this.open(...this.#opened);
    });
    this.#show();
  }

  /** @returns {Place | ""} Where the person wants prompts to be decoded; empty for where it is faster. */
  get pinned() {
    const kept = localStorage.getItem(KEY);
    return kept === "server" || kept === "browser" ? kept : "";
  }

  /** @returns {Place} Where the next prompt is decoded. */
  get place() {
    return this.isReady && (this.pinned || this.fastest) === "browser" ? "browser" : "server";
  }

  /**
   * Get ready for a task: fetch its embeddings, and measure both places once a session, unless the server is pinned.
   * @param {Lease} lease
   * @param {AskServer} askServer
   */
  async open(lease, askServer) {
    this.#opened = [lease, askServer];
    await new Promise((resolve) => setTimeout(resolve, DELAY_MS));
    if (this.problem || this.pinned === "server" || this.#opened[0] !== lease) return;
    try {
      await this.#worker.open(lease.model_id, lease.image_id);
      this.isReady = true;
      if (!this.pinned && !this.#isMeasured) await this.#measure(lease, askServer);
    } catch (error) {
      this.#failed(error);
    }
    this.#show();
    await this.#fetchAhead();
  }

  /** Tell which tasks come next; a browser that decodes fetches their embeddings, too. @param {Lease[]} leases */
  lookAhead(leases) {
    this.#ahead = leases;
    void this.#fetchAhead();
  }

  async #fetchAhead() {
    if (this.place !== "browser") return;
    try {
      for (const { model_id, image_id } of this.#ahead) await this.#worker.open(model_id, image_id);
    } catch {
      // The task itself asks again when it is opened, and tells what is wrong
    }
  }

  /**
   * Answer a prompt where it is decoded faster.
   * @param {Lease} lease
   * @param {Prompt & {model: string}} body What the server would be asked.
   * @param {AskServer} askServer
   * @returns {Promise<any>}
   */
  async predict(lease, body, askServer) {
    const { place } = this;
    if (place === "browser") {
      try {
        return await this.#timed("browser", () => this.#inBrowser(lease, body));
      } catch (error) {
        if (error instanceof ApiError) throw error;
        this.#failed(error);
      }
    }
    try {
      return await this.#timed("server", () => askServer(onlyOf("server", body)));
    } catch (error) {
      const isOffline = error instanceof ApiError && error.code === "offline";
      if (!isOffline || !this.isReady || place === "browser") throw error;
      return this.#timed("browser", () => this.#inBrowser(lease, body)).catch(() => Promise.reject(error));
    }
  }

  /** Whether a mask comes soon enough to be shown before anybody has clicked, as measured in this session. */
  get isQuick() {
    const { place } = this;
    const times = this.times[place];
    return place === "browser" || (times.length >= MIN_TIMES && percentile(times, 0.5) <= settings.quickMs);
  }

  /**
   * Answer a prompt where it is decoded now, for a preview: it counts in no figure, and is asked once.
   * @param {Lease} lease
   * @param {Prompt} prompt
   * @param {AskServer} askServer
   * @returns {Promise<any>}
   */
  preview(lease, prompt, askServer) {
    return this.place === "browser" ? this.#inBrowser(lease, prompt) : askServer({ ...prompt, model: lease.model_id });
  }

  /** @param {Lease} lease @param {Prompt} body */
  #inBrowser(lease, body) {
    const { clicks, box, scribbles, continued, mask } = onlyOf("browser", body);
    return this.#worker.predict(lease.model_id, lease.image_id, { clicks, box, scribbles, continued, mask });
  }

  /** Click into the middle of the picture, in turn here and there, and take the faster place. */
  async #measure(/** @type {Lease} */ lease, /** @type {AskServer} */ askServer) {
    const prompt = { clicks: [{ x: lease.width / 2, y: lease.height / 2, positive: true }], box: null, continued: null, mask: null };
    const body = { ...prompt, model: lease.model_id };
    this.isMeasuring = true;
    this.#show();
    try {
      await askServer(body); // the first of each place loads what later ones find
      await this.#inBrowser(lease, prompt);
      for (let probe = 0; probe < PROBES; probe++) {
        await this.#timed("server", () => askServer(body));
        await this.#timed("browser", () => this.#inBrowser(lease, prompt));
      }
      this.fastest = percentile(this.times.browser, 0.5) < percentile(this.times.server, 0.5) ? "browser" : "server";
      this.#isMeasured = true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // a server that is busy or away is measured with the next task
    } finally {
      this.isMeasuring = false;
    }
  }

  /**
   * @template T
   * @param {Place} place
   * @param {() => Promise<T>} ask
   */
  async #timed(place, ask) {
    const began = performance.now();
    const answer = await ask();
    const times = this.times[place];
    times.push(performance.now() - began);
    if (times.length > MAX_TIMES) times.shift();
    this.#show();
    return answer;
  }

  #failed(/** @type {unknown} */ error) {
    this.isReady = false;
    this.problem = String(/** @type {Error} */ (error)?.message ?? error);
    this.#show();
  }

  #show() {
    const figures = (/** @type {Place} */ place) => {
      const times = this.times[place];
      return times.length ? text.decoding.figures(text.decoding.places[place], percentile(times, 0.5), percentile(times, 0.95)) : "";
    };
    const other = this.place === "browser" ? "server" : "browser";
    let line = [figures(this.place), figures(other)].filter(Boolean).join(" · ");
    if (this.problem) line = text.decoding.serverAlone(this.problem);
    else if (this.isMeasuring) line = text.decoding.measuring;
    if (this.#line.textContent !== line) this.#line.textContent = line;
    this.element.dataset.place = this.place;
    this.element.dataset.state = this.isMeasuring ? "measuring" : this.problem ? "failed" : this.isReady ? "ready" : "waiting";
  }
}

/**
 * The prompt without what another place would have to remember; its mask says where to begin instead.
 * @template {Prompt} T
 * @param {Place} place
 * @param {T} body
 * @returns {T}
 */
function onlyOf(place, body) {
  const madeIn = body.continued?.prediction_id.startsWith(ID_PREFIX) ? "browser" : "server";
  return body.continued && madeIn !== place ? { ...body, continued: null } : body;
}

/** @param {number[]} values @param {number} fraction */
export function percentile(values, fraction) {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(fraction * sorted.length))] ?? NaN;
}
