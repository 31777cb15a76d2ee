/** Pictures that somebody submitted and can open again. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";

const words = text.submitted;

/**
 * Make the list of them; null where there is none.
 * @param {import("../app/api.js").Api} api
 * @returns {Promise<HTMLElement | null>}
 */
export async function listSubmitted(api) {
  /** @type {{task_id: number, image_url: string, masks: number, submitted_at: string}[]} */
  const tasks = await api.get("/api/tasks/submitted");
  if (!tasks.length) return null;
  const items = tasks.map(({ task_id, image_url, masks, submitted_at }) => {
    const time = new Date(submitted_at).toLocaleTimeString("en", { timeStyle: "short" });
    const image = h("img", { src: image_url, alt: "", loading: "lazy", decoding: "async" });
    return h("li", {}, h("a", { href: `#work/${task_id}/again` }, image, h("span", {}, words.open(task_id)), h("span.quiet", {}, words.masks(masks, time))));
  });
  return h("section.submitted", {}, h("h2", {}, words.title), h("p.quiet", {}, words.hint), h("ul", {}, ...items));
}
