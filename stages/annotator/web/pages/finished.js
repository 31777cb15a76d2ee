/** What is shown when nothing is left to annotate: what becomes of the masks, and what can be opened again. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { closeRound } from "./closing.js";
import { progress } from "./rounds.js";
import { listSubmitted } from "./submitted.js";

/**
 * Fill the notice that says so; without the server it stays as it is.
 * @param {HTMLElement} notice
 * @param {import("../app/main.js").App} app
 * @param {() => unknown} lookAgain
 */
export async function showFinished(notice, app, lookAgain) {
  const isLead = app.me.role === "lead";
  /** @type {[any[], HTMLElement | null]} */
  const [rounds, submitted] = await Promise.all([app.api.get("/api/rounds"), listSubmitted(app.api)]);
  const unfinished = rounds.filter((each) => ["open", "paused"].includes(each.state) && each.done > 0);
  if (unfinished.length) notice.append(h("p", {}, isLead ? text.task.noneLead : text.task.noneMasks));
  if (isLead) notice.append(...unfinished.map((round) => row(round, app, lookAgain)));
  // Closing a round that is done is the next thing to do
  if (notice.querySelector(".card .primary")) notice.querySelector(":scope > .primary")?.classList.remove("primary");
  if (submitted) notice.append(submitted);
}

/** A round that a lead can close. @param {any} round @param {import("../app/main.js").App} app @param {() => unknown} lookAgain */
function row(round, app, lookAgain) {
  const close = async () => (await closeRound(app, { ...round, progress: round })) && lookAgain();
  const button = h(round.done < round.slots ? "button" : "button.primary", { type: "button", onclick: close }, text.lead.closeRound);
  return h(
    "section.card.round",
    { "aria-label": round.name || round.round_id },
    h("div.row", {}, h("h2", {}, round.name || round.round_id), h("span.fill"), button),
    progress(round),
    h("p.quiet", {}, text.rounds.progress(round.done, round.slots)),
  );
}
