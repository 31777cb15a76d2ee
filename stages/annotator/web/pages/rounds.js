/** The rounds: what is open, and how far it is. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { listSubmitted } from "./submitted.js";

/** @type {(root: HTMLElement, app: import("../app/main.js").App) => Promise<() => unknown>} */
export async function openPage(root, app) {
  const [rounds, submitted] = await Promise.all([app.api.get("/api/rounds"), listSubmitted(app.api)]);
  rounds.reverse();
  root.replaceChildren(
    h(
      "div.sheet",
      {},
      h("h1", {}, text.rounds.title),
      rounds.length ? h("ul.rounds", {}, ...rounds.map(card)) : h("p.quiet", {}, text.rounds.none),
      submitted,
    ),
  );
  return () => undefined;
}

/** @param {any} round As the server gives it. */
export function card(round) {
  const words = text.rounds;
  /** @type {Record<string, string>} */
  const stages = words.stages;
  /** @type {Record<string, string>} */
  const states = words.states;
  return h(
    "li.card.round",
    {},
    h("div.row", {}, h("h2", {}, round.name || round.round_id), h(`span.state.${round.state}`, {}, states[round.state])),
    h("p.quiet", {}, stages[round.stage] ?? round.stage),
    progress(round),
    h("p.quiet", {}, [words.progress(round.done, round.slots), words.leased(round.leased), words.free(round.free), words.skips(round.skips)].join(" · ")),
    round.state === "open" && h("a.button", { href: "#work" }, words.work),
  );
}

/** How far a round is, as a bar. @param {{done: number, leased: number, slots: number}} round */
export function progress({ done, leased, slots }) {
  const bar = h("div.progress", { role: "progressbar", "aria-valuemin": 0, "aria-valuemax": slots, "aria-valuenow": done, "aria-label": text.rounds.progress(done, slots) });
  for (const [name, count] of /** @type {[string, number][]} */ ([["done", done], ["leased", leased]])) {
    const part = h(`span.${name}`);
    part.style.width = `${(100 * count) / Math.max(1, slots)}%`;
    bar.append(part);
  }
  return bar;
}
