/** Opening a round, and adding images to one: forms that stay until the server has taken them. */

import { h, openDialog } from "../app/dom.js";
import { text } from "../app/strings.js";
import { uuid7 } from "../safe/uuid.js";

/** Longest time to choose and prefill images, in milliseconds. */
const OPEN_MS = 600_000;
const words = text.opening;

/** Ask for a round, and open it. @param {import("../app/main.js").App} app */
export function askToOpen(app) {
  const stage = h("select", { name: "stage" }, ...Object.entries(text.rounds.stages).map(([value, name]) => h("option", { value }, name)));
  const name = h("input", { name: "name", type: "text", maxlength: 200, autofocus: true });
  const overlap = h("input", { name: "overlap", type: "number", min: 1, max: 20, value: 1, required: true });
  const guidelines = h("textarea", { name: "guidelines", rows: 3, placeholder: words.ownGuidelines });
  return ask(app, [words.title, words.openNow], "/api/rounds", (images, query) => ({
    fields: [label(words.name, name), label(words.stage, stage), ...images, query, label(words.overlap, overlap), label(words.guidelines, guidelines)],
    body: () => ({ stage: stage.value, name: name.value, overlap: Number(overlap.value), guidelines: guidelines.value }),
  }));
}

/** Ask how many images to add to a round, and add them. @param {import("../app/main.js").App} app @param {{round_id: string, name: string}} round */
export function askToExtend(app, { round_id, name }) {
  return ask(app, [words.extendTitle(name || round_id), words.extendNow], `/api/rounds/${encodeURIComponent(round_id)}/extend`, (images, query) => ({
    fields: [...images, query],
    body: () => ({}),
  }));
}

/**
 * Show a form until the server has taken it or it is given up; what the server refuses is said in the form.
 * @param {import("../app/main.js").App} app
 * @param {[title: string, send: string]} names
 * @param {string} path
 * @param {(images: HTMLElement[], query: HTMLElement) => {fields: HTMLElement[], body: () => object}} make
 */
async function ask({ api, say }, [title, sendName], path, make) {
  const images = h("input", { name: "images", type: "number", min: 1, max: 100_000, value: 20, required: true });
  const query = h("textarea", { name: "query", rows: 2, placeholder: "SELECT image_id FROM images WHERE ..." });
  const { fields, body } = make([label(words.images, images)], label(words.query, query));
  const problem = h("p.problem", { role: "alert" });
  const send = h("button.primary", { value: "send" }, sendName);
  // The same id until the form is closed: a reply that was lost opens nothing twice
  let request_id = uuid7();
  send.addEventListener("click", async (/** @type {Event} */ event) => {
    const form = send.closest("form");
    event.preventDefault();
    if (!form?.reportValidity()) return;
    send.disabled = true;
    try {
      const round = await api.post(path, { ...body(), images: Number(images.value), query: query.value.trim(), request_id }, OPEN_MS);
      say(words.done(round.name || round.round_id, round.tasks));
      /** @type {HTMLDialogElement} */ (form.closest("dialog")).close("send");
    } catch (error) {
      problem.textContent = /** @type {Error} */ (error).message;
    }
    send.disabled = false;
  });
  for (const each of fields) each.addEventListener("input", () => (request_id = uuid7())); // another content is another request
  const close = h("button", { type: "button", onclick: () => send.closest("dialog")?.close("") }, words.keep);
  await openDialog(title, [h("div.fields", {}, ...fields), problem, h("div.buttons", {}, close, send)]);
}

/** @param {string} name @param {HTMLElement} field */
function label(name, field) {
  return h("label.reason", {}, name, field);
}
