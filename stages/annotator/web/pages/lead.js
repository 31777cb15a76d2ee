/** The lead's page: how each round goes as it goes, and what a lead does about it. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { closeRound } from "./closing.js";
import { openLateWork } from "./late.js";
import { askToExtend, askToOpen } from "./opening.js";
import { progress } from "./rounds.js";

/**
 * @typedef {{mean: number, low: number, high: number, images: number}} Estimate
 * @typedef {object} Figures Numbers of a set of submissions, as stages/rounds/quality.py has them.
 * @property {number} answers
 * @property {number} masks_made
 * @property {number} prefill_accepted
 * @property {number} prefill_edited
 * @property {number | null} seconds_per_mask
 * @property {number | null} masks_per_hour
 * @property {number | null} masks_per_image
 * @property {boolean} simulated
 * @typedef {object} Report
 * @property {string} round_id
 * @property {string} name
 * @property {string} state
 * @property {{slots: number, done: number, leased: number, free: number, skips: number, open_branches: number}} progress
 * @property {Figures} total
 * @property {{annotator: string, figures: Figures, skips: number, agreement: Estimate | null, gold_found: Estimate | null}[]} annotators
 * @property {Estimate | null} agreement
 * @property {Estimate | null} gold_found
 * @property {string | null} ends_at
 */

const EVERY_MS = 5000;
const words = text.lead;

/** @type {(root: HTMLElement, app: import("../app/main.js").App) => Promise<() => unknown>} */
export async function openPage(root, app) {
  if (app.me.role !== "lead") {
    root.replaceChildren(h("section.notice", {}, h("h1", {}, words.needed)));
    return () => undefined;
  }
  const [, view, roundId] = location.hash.split("/");
  if (view === "late" && roundId) return openLateWork(root, app, decodeURIComponent(roundId));
  const lead = new Lead(app);
  root.replaceChildren(
    h("div.sheet", {}, h("div.row", {}, h("h1", {}, words.title), h("p.quiet", {}, words.updated), h("span.fill"), lead.opener), lead.list),
  );
  await lead.update();
  const timer = setInterval(() => document.hidden || void lead.update(), EVERY_MS);
  return () => clearInterval(timer);
}

class Lead {
  #shown = "";

  /** @param {import("../app/main.js").App} app */
  constructor(app) {
    this.app = app;
    this.list = h("div.figures");
    this.opener = h("button.primary", { type: "button", onclick: () => askToOpen(app).then(() => this.update()) }, text.opening.open);
  }

  async update() {
    const { api, say } = this.app;
    try {
      const rounds = (await api.get("/api/rounds")).filter((/** @type {any} */ each) => ["open", "paused", "closing"].includes(each.state));
      const reports = await Promise.all(rounds.reverse().map((/** @type {any} */ each) => api.get(`${pathOf(each.round_id)}/figures`)));
      this.#show(reports);
    } catch (error) {
      say(/** @type {Error} */ (error).message);
    }
  }

  /** @param {Report[]} reports */
  #show(reports) {
    const found = JSON.stringify(reports);
    if (found === this.#shown) return; // what is being read or pressed stays as it is
    this.#shown = found;
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.press : undefined;
    this.list.replaceChildren(...reports.map((report) => this.#card(report)));
    if (!reports.length) this.list.replaceChildren(h("p.quiet", {}, text.rounds.none));
    if (focused) this.list.querySelector(`[data-press="${CSS.escape(focused)}"]`)?.focus();
  }

  /** @param {Report} report */
  #card(report) {
    /** @type {Record<string, string>} */
    const states = text.rounds.states;
    const { state, total, annotators } = report;
    return h(
      "section.card",
      { "aria-label": report.name || report.round_id },
      h(
        "div.row",
        {},
        h("h2", {}, report.name || report.round_id),
        h(`span.state.${state}`, {}, states[state]),
        h("span.fill"),
        state === "open" && this.#button(report, words.pause, "pause"),
        state === "paused" && this.#button(report, words.reopen, "reopen"),
        report.progress.open_branches > 0 &&
          h("a.button", { href: `#lead/late/${encodeURIComponent(report.round_id)}` }, words.late(report.progress.open_branches)),
        state !== "closing" && h("button", { type: "button", "data-press": `${report.round_id} extend`, onclick: () => this.#extend(report) }, text.opening.extend),
        this.#button(report, words.close, "close"),
      ),
      progress(report.progress),
      h("p.quiet", {}, legend(report)),
      numbers(report),
      total.simulated && h("p.quiet", {}, words.simulated),
      annotators.length > 0 && table(annotators),
    );
  }

  /** @param {Report} report */
  async #extend(report) {
    await askToExtend(this.app, report);
    await this.update();
  }

  /** @param {Report} report @param {string} label @param {"pause" | "reopen" | "close"} act */
  #button(report, label, act) {
    const press = async () => {
      try {
        if (act === "close") await closeRound(this.app, report);
        else await this.app.api.post(`${pathOf(report.round_id)}/${act}`);
      } catch (error) {
        this.app.say(/** @type {Error} */ (error).message);
      }
      await this.update();
    };
    return h("button", { type: "button", "data-press": `${report.round_id} ${act}`, onclick: press }, label);
  }
}

/** @param {string} roundId */
function pathOf(roundId) {
  return `/api/rounds/${encodeURIComponent(roundId)}`;
}

/** @param {Report} report */
function legend({ progress: { done, slots, leased, free }, ends_at }) {
  const counts = [text.rounds.progress(done, slots), text.rounds.leased(leased), text.rounds.free(free)];
  if (ends_at) counts.push(words.forecast(new Date(ends_at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })));
  else if (done < slots) counts.push(words.noForecast);
  return counts.join(" · ");
}

/** @param {Report} report */
function numbers({ progress: { skips, open_branches }, total, agreement, gold_found }) {
  /** @type {[string, string][]} */
  const shown = [
    [String(delivered(total)), words.figures.masks],
    [decimal(total.seconds_per_mask, 1), words.figures.seconds],
    [decimal(total.masks_per_hour, 0), words.figures.pace],
    [decimal(total.masks_per_image, 1), words.figures.perPicture],
    [percent(agreement), words.figures.agreement],
    [percent(gold_found), words.figures.gold],
    [String(skips), words.figures.skips],
    [String(open_branches), words.figures.branches],
  ];
  return h("dl.numbers", {}, ...shown.map(([value, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/**
 * Masks that an answer holds in the end: made, and prefilled ones kept or changed.
 * @param {Figures} figures
 */
function delivered(figures) {
  return figures.masks_made + figures.prefill_accepted + figures.prefill_edited;
}

/** @param {Report["annotators"]} people */
function table(people) {
  const rows = people.map(({ annotator, figures, skips, agreement, gold_found }) => {
    const cells = [
      String(figures.answers),
      String(delivered(figures)),
      decimal(figures.seconds_per_mask, 1),
      decimal(figures.masks_per_image, 1),
      percent(agreement),
      percent(gold_found),
      String(skips),
    ];
    return h("tr", {}, h("th", { scope: "row" }, annotator), ...cells.map((value) => h("td", {}, value)));
  });
  const names = Object.values(words.columns).map((name) => h("th", { scope: "col" }, name));
  return h(
    "div.scroll",
    { tabindex: 0, role: "region", "aria-label": words.people },
    h("table", {}, h("caption", {}, words.people), h("thead", {}, h("tr", {}, ...names)), h("tbody", {}, ...rows)),
  );
}

/** @param {number | null} value @param {number} digits */
function decimal(value, digits) {
  return value === null ? "–" : value.toFixed(digits);
}

/** @param {Estimate | null} estimate */
function percent(estimate) {
  return estimate === null ? "–" : `${Math.round(100 * estimate.mean)} %`;
}
