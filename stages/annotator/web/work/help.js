/** The list of keys, in which each can be changed. */

import { h, openDialog } from "../app/dom.js";
import { text } from "../app/strings.js";
import { holderOf, keyOf, pretty, resetKeys, setKey, SHORTCUTS, spell } from "./keys.js";

const MODIFIERS = ["Shift", "Control", "Alt", "Meta", "CapsLock", "Tab"];

/** @typedef {import("./keys.js").Shortcut} Shortcut */

/** Show the list until it is closed. @returns {Promise<string>} */
export function showKeys() {
  const words = text.keys;
  const problem = h("p.problem", { role: "alert" });
  const groups = h("div.keys");
  const draw = () =>
    groups.replaceChildren(
      ...Object.entries(words.groups).map(([group, title]) => {
        const rows = SHORTCUTS.filter((each) => each.group === group).map((each) => row(each, problem));
        return h("section", {}, h("h3", {}, title), h("ul", {}, ...rows));
      }),
    );
  draw();
  const reset = () => {
    resetKeys();
    problem.textContent = "";
    draw();
  };
  return openDialog(
    words.title,
    [
      h("p.quiet", {}, words.mouse),
      h("p.quiet", {}, words.touch),
      h("p.quiet", {}, words.change),
      problem,
      groups,
      h("div.buttons", {}, h("button", { type: "button", onclick: reset }, words.reset), h("button.primary", { value: "close", autofocus: true }, words.close)),
    ],
    { wide: true },
  );
}

/** @param {Shortcut} shortcut @param {HTMLElement} problem */
function row(shortcut, problem) {
  const { act, isFixed } = shortcut;
  const does = text.keys.does[act];
  if (isFixed) return h("li", {}, h("kbd", {}, pretty(shortcut.keys[0])), h("span", {}, does));
  const name = h("kbd", {}, pretty(keyOf(act)));
  const button = h("button.key", { type: "button", "aria-label": text.keys.changeOne(does, pretty(keyOf(act))) }, name);
  const show = () => {
    name.textContent = pretty(keyOf(act));
    button.setAttribute("aria-label", text.keys.changeOne(does, name.textContent ?? ""));
    button.classList.remove("waiting");
  };
  button.addEventListener("click", () => {
    button.classList.add("waiting");
    name.textContent = text.keys.press;
  });
  button.addEventListener("blur", show);
  button.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (!button.classList.contains("waiting") || MODIFIERS.includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const key = spell(event);
    const holder = holderOf(key);
    const isTaken = holder !== undefined && holder.act !== act;
    problem.textContent = isTaken ? text.keys.taken(pretty(key), text.keys.does[holder.act]) : "";
    if (!isTaken && key !== "Escape") setKey(act, key);
    show();
  });
  return h("li", {}, button, h("span", {}, does));
}
