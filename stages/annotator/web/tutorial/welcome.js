/** A hint at the tutorial, for somebody who is here for the first time. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";

const KEY = "gigamask welcomed";

/** Note that somebody knows of the tutorial. */
export function noteWelcomed() {
  localStorage.setItem(KEY, "yes");
}

/** Make the hint; null for somebody who has seen it. @param {() => unknown} onClose Called when it is put away. */
export function welcome(onClose) {
  if (localStorage.getItem(KEY)) return null;
  const close = () => {
    noteWelcomed();
    card.remove();
    onClose();
  };
  /** @type {HTMLElement} */
  const card = h(
    "section.welcome",
    { "aria-label": text.welcome.title },
    h("h2", {}, text.welcome.title),
    h("p", {}, text.welcome.hint),
    h("div.row", {}, h("a.button", { href: "#tutorial" }, text.welcome.begin), h("button.plain", { type: "button", onclick: close }, text.welcome.close)),
  );
  return card;
}
