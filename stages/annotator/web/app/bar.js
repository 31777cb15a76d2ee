/** The bar on top: pages, the task's title and actions, and what the server does not have yet. */

import { h, icon } from "./dom.js";
import { switchTheme } from "./settings.js";
import { showRefused } from "./refused.js";
import { text } from "./strings.js";

const RANK = { annotator: 0, reviewer: 1, lead: 2 };
/** @type {[keyof typeof text.pages, keyof typeof RANK][]} */
const LINKS = [
  ["work", "annotator"],
  ["rounds", "annotator"],
  ["review", "reviewer"],
  ["lead", "lead"],
  ["tutorial", "annotator"],
];

/** The bar of one login. */
export class Bar {
  /**
   * @param {HTMLElement} root
   * @param {import("./api.js").Me} me
   * @param {import("../safe/outbox.js").Outbox} outbox
   * @param {import("./api.js").Api} api
   * @param {() => unknown} logIn Called where a login has ended and the annotator wants to log in now.
   */
  constructor(root, me, outbox, api, logIn) {
    this.outbox = outbox;
    this.links = LINKS.filter(([, role]) => RANK[me.role] >= RANK[role]).map(([name]) => h("a", { href: `#${name}` }, text.pages[name]));
    this.title = h("p.title");
    this.saved = h("p.saved", { role: "status", title: text.saved.hint });
    this.refused = h("button.refused", { type: "button", hidden: true, onclick: () => void showRefused(outbox) });
    this.login = h("button", { type: "button", hidden: true, onclick: logIn }, text.login.submit);
    this.actions = h("div.actions");
    const logOut = async () => {
      if (!(await outbox.flush()) && !confirm(text.saved.leave(outbox.unsent))) return;
      await api.post("/api/logout");
      location.reload();
    };
    root.replaceChildren(
      h("a.brand", { href: "#work" }, text.product),
      h("nav", { "aria-label": text.mainMenu }, ...this.links),
      this.title,
      this.saved,
      this.login,
      this.refused,
      this.actions,
      h("button.plain", { type: "button", "aria-label": text.theme, title: text.theme, onclick: switchTheme }, icon("theme")),
      ...(me.mode === "team" ? [h("button.plain", { type: "button", title: me.name, onclick: logOut }, text.logOut)] : []),
    );
    outbox.addEventListener("change", () => this.refresh());
    this.refresh();
  }

  /** Mark the page that is open. @param {string} page */
  show(page) {
    for (const link of this.links) {
      if (link.getAttribute("href") === `#${page}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.title.textContent = "";
    this.actions.replaceChildren();
  }

  refresh() {
    const { state, unsent, refused } = this.outbox;
    const say = text.saved[state];
    const message = typeof say === "function" ? say(unsent) : say;
    if (this.saved.textContent !== message) this.saved.textContent = message;
    this.saved.dataset.state = state;
    this.saved.dataset.unsent = String(unsent);
    this.login.hidden = state !== "login";
    this.refused.hidden = !refused;
    this.refused.textContent = text.saved.refused(refused);
  }
}
