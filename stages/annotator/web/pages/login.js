/** Log in: as a page of its own, and in place when a login has ended. */

import { ApiError } from "../app/api.js";
import { h } from "../app/dom.js";
import { text } from "../app/strings.js";

/** How often the page looks whether the login was renewed in another tab, in milliseconds. */
const LOOK_MS = 2000;

/**
 * Ask for name and password until they fit.
 * @param {import("../app/api.js").Api} api
 * @param {HTMLElement} root
 */
export function askLogin(api, root) {
  return new Promise((resolve) => {
    const form = loginForm(api, "", () => resolve(undefined));
    root.className = "login";
    root.replaceChildren(h("section.card", {}, h("h1", {}, text.product), form, h("p.quiet", {}, text.login.laptop)));
    form.querySelector("input")?.focus();
  });
}

/**
 * Ask the same account again over the page, which stays as it is, and tell whether it logged in.
 * @param {import("../app/api.js").Api} api
 * @param {import("../app/api.js").Me} me
 * @returns {Promise<boolean>}
 */
export function askLoginAgain(api, me) {
  return new Promise((resolve) => {
    const close = (/** @type {boolean} */ isDone) => {
      clearInterval(timer);
      dialog.close();
      dialog.remove();
      resolve(isDone);
    };
    const isTeam = me.mode === "team";
    const dialog = h(
      "dialog",
      { "aria-labelledby": "login-again" },
      h("h2", { id: "login-again" }, text.login.again),
      h("p", {}, text.login.kept),
      isTeam ? loginForm(api, me.name, () => close(true)) : h("p", {}, text.login.laptop),
      h("div.buttons", {}, h("button", { type: "button", onclick: () => close(false) }, text.login.later)),
    );
    dialog.addEventListener("cancel", () => close(false));
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("input[type=password]")?.focus();
    // A login in another tab of this browser counts as well: a laptop's link opens one.
    const look = () => api.me().then(() => close(true), () => undefined);
    const timer = setInterval(look, LOOK_MS);
  });
}

/**
 * @param {import("../app/api.js").Api} api
 * @param {string} account The one that has to log in; empty for any.
 * @param {() => void} onDone
 */
function loginForm(api, account, onDone) {
  const name = h("input", { name: "name", autocomplete: "username", required: true, readonly: Boolean(account), value: account });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const problem = h("p.problem", { role: "alert" });
  const logIn = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await api.logIn(name.value, password.value);
      onDone();
    } catch (error) {
      const isOffline = error instanceof ApiError && error.code === "offline";
      problem.textContent = isOffline ? text.login.offline : /** @type {Error} */ (error).message;
      password.focus();
    }
  };
  return h(
    "form.login",
    { onsubmit: logIn },
    h("label", {}, text.login.name, name),
    h("label", {}, text.login.password, password),
    problem,
    h("button.primary", {}, text.login.submit),
  );
}
