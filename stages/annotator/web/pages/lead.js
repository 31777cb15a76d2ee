/** The lead's page: how each round goes, as it goes. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { progress } from "./rounds.js";

const EVERY_MS = 5000;
const MIN_PACE_S = 60;

/** @type {(root: HTMLElement, app: import("../app/main.js").App) => Promise<() => unknown>} */
export async function openPage(root, app) {
  if (app.me.role !== "lead") {
    root.replaceChildren(h("section.notice", {}, h("h1", {}, text.lead.needed)));
    return () => undefined;
  }
  /** @type {Map<string, {at: number, done: number}>} First figures of each round, from which its pace is taken. */
  const first = new Map();
  const list = h("div.figures");
  root.replaceChildren(h("div.sheet", {}, h("div.row", {}, h("h1", {}, text.lead.title), h("p.quiet", {}, text.lead.updated)), list));
  const update = async () => {
    const rounds = (await app.api.get("/api/rounds")).filter((/** @type {any} */ each) => ["open", "paused"].includes(each.state)).reverse();
    const figures = await Promise.all(rounds.map((/** @type {any} */ each) => app.api.get(`/api/rounds/${encodeURIComponent(each.round_id)}/figures`)));
    list.replaceChildren(...figures.map((each) => section(each, first, app, update)));
    if (!figures.length) list.replaceChildren(h("p.quiet", {}, text.rounds.none));
  };
  await update();
  const timer = setInterval(() => document.hidden || void update().catch((error) => app.say(error.message)), EVERY_MS);
  return () => clearInterval(timer);
}

/**
 * @param {any} figures As the server gives them.
 * @param {Map<string, {at: number, done: number}>} first
 * @param {import("../app/main.js").App} app
 * @param {() => Promise<void>} update
 */
function section({ round, masks, people }, first, app, update) {
  const words = text.lead;
  const begun = first.get(round.round_id) ?? { at: Date.now(), done: round.done };
  first.set(round.round_id, begun);
  const act = round.state === "open" ? "pause" : "reopen";
  const change = async () => {
    await app.api.post(`/api/rounds/${encodeURIComponent(round.round_id)}/${act}`);
    await update();
  };
  const numbers = { done: round.done, leased: round.leased, free: round.free, masks, skips: round.skips, branches: round.open_branches };
  return h(
    "section.card",
    {},
    h("div.row", {}, h("h2", {}, round.name || round.round_id), h("button", { type: "button", onclick: change }, act === "pause" ? words.pause : words.reopen)),
    progress(round),
    h("dl.numbers", {}, ...Object.entries(numbers).map(([name, value]) => h("div", {}, h("dd", {}, String(value)), h("dt", {}, words.figures[/** @type {keyof typeof numbers} */ (name)])))),
    h("p.quiet", {}, pace(round, begun)),
    people.length > 0 && table(people),
  );
}

/** @param {any} round @param {{at: number, done: number}} begun */
function pace(round, begun) {
  const seconds = (Date.now() - begun.at) / 1000;
  const done = round.done - begun.done;
  if (seconds < MIN_PACE_S || done <= 0) return text.lead.noPace;
  const end = new Date(Date.now() + ((1000 * seconds) / done) * (round.slots - round.done));
  return text.lead.pace(((3600 * done) / seconds).toFixed(0), end.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }));
}

/** @param {any[]} people */
function table(people) {
  const columns = text.lead.columns;
  return h(
    "table",
    {},
    h("caption", {}, text.lead.people),
    h("thead", {}, h("tr", {}, ...Object.values(columns).map((name) => h("th", { scope: "col" }, name)))),
    h(
      "tbody",
      {},
      ...people.map(({ annotator, submissions, masks, skips }) =>
        h("tr", {}, h("th", { scope: "row" }, annotator), ...[submissions, masks, submissions ? (masks / submissions).toFixed(1) : "–", skips].map((value) => h("td", {}, String(value)))),
      ),
    ),
  );
}
