/** Closing a round: what will happen, said before it does. */

import { ApiError } from "../app/api.js";
import { h, openDialog } from "../app/dom.js";
import { text } from "../app/strings.js";

/** Longest time to close a round, in milliseconds. */
const CLOSE_MS = 600_000;
const words = text.lead;

/** @typedef {{round_id: string, name: string, progress: {slots: number, done: number, leased: number}}} Closable */

/**
 * Ask whether a round is to be closed, close it, and tell what came of it.
 * @param {import("../app/main.js").App} app
 * @param {Closable} round
 * @returns {Promise<boolean>} Whether it is closed.
 */
export async function closeRound({ api, say }, round) {
  if (!(await isSure(round))) return false;
  const close = (/** @type {object} */ body) => api.post(`/api/rounds/${encodeURIComponent(round.round_id)}/close`, body, CLOSE_MS);
  try {
    const done = await close({}).catch(async (error) => {
      if (!(error instanceof ApiError && error.code === "round_unfinished")) throw error;
      return (await discards(error.details)) ? close({ discard_unfinished: true }) : null;
    });
    if (done) say(words.closed(done.masks, done.images));
    return Boolean(done);
  } catch (error) {
    say(/** @type {Error} */ (error).message);
    return false;
  }
}

/** Ask whether work that people are at is to be left out. @param {{held: number, drafted_masks: number}} unfinished */
async function discards({ held, drafted_masks }) {
  const answer = await openDialog(words.unfinished, [
    h("p", {}, words.unfinishedHint(held, drafted_masks)),
    h("div.buttons", {}, h("button.primary", { value: "", autofocus: true }, words.closeKeep), h("button", { value: "close" }, words.closeWithout)),
  ]);
  return answer === "close";
}

/** @param {Closable} round */
async function isSure({ name, round_id, progress: { slots, done, leased } }) {
  const answer = await openDialog(words.closeTitle(name || round_id), [
    h("p", {}, words.closeHint),
    ...(done < slots ? [h("p", {}, words.closeEarly(slots - done, leased))] : []),
    h("div.buttons", {}, h("button", { value: "" }, words.closeKeep), h("button.primary", { value: "close" }, words.close)),
  ]);
  return answer === "close";
}
