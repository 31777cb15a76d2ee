/** Log in: as a page of its own, and in place when a login has ended. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";

/**
 * Ask for name and password until they fit.
 * @param {import("../app/api.js").Api} api
 * @param {HTMLElement} root
 */
export function askLogin(api, root) {
  return new Promise((resolve) => {
    const form = loginForm(api, () => resolve(undefined));
    root.className = "login";
    root.replaceChildren(h("section.card", {}, h("h1", {}, text.product), form, h("p.quiet", {}, text.login.laptop)));
    form.querySelector("input")?.focus();
  });
}

/**
 * Ask again over the page, which stays as it is.
 * @param {import("../app/api.js").Api} api
 */
export function askLoginAgain(api) {
  return new Promise((resolve) => {
    const form = loginForm(api, () => {
      dialog.close();
      dialog.remove();
      resolve(undefined);
    });
    const dialog = h("dialog", { "aria-label": text.login.again }, h("h2", {}, text.login.again), h("p", {}, text.login.kept), form);
    dialog.addEventListener("cancel", (/** @type {Event} */ event) => event.preventDefault());
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * @param {import("../app/api.js").Api} api
 * @param {() => void} onDone
 */
function loginForm(api, onDone) {
  const name = h("input", { name: "name", autocomplete: "username", required: true });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const problem = h("p.problem", { role: "alert" });
  const logIn = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await api.logIn(name.value, password.value);
      onDone();
    } catch (error) {
      problem.textContent = /** @type {Error} */ (error).message;
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
