/** Questions at the end of a task. */

import { h, openDialog } from "../app/dom.js";
import { text } from "../app/strings.js";

/** Ask whether prefilled masks that nobody decided on are to be submitted. @param {number} count */
export async function keepsUndecided(count) {
  const answer = await openDialog(text.task.undecided(count), [
    h("p", {}, text.task.undecidedHint),
    h(
      "div.buttons",
      {},
      h("button", { value: "" }, text.task.lookAtThem(count)),
      h("button.primary", { value: "keep", autofocus: true }, text.task.keepThem(count)),
    ),
  ]);
  return answer === "keep";
}

/** Ask why a task is skipped. @returns {Promise<string>} Empty for not at all. */
export async function askReason() {
  const other = h("input", { type: "text", maxlength: 500, "aria-label": text.task.skipOther, placeholder: text.task.skipOther });
  const skip = h("button", { value: "other" }, text.task.skip);
  const reasons = text.task.skipReasons.map((reason) => h("button", { value: reason }, reason));
  other.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault(); // Enter would press the first button of the form
    skip.click();
  });
  const chosen = await openDialog(text.task.skipTitle, [
    h("div.reasons", {}, ...reasons),
    h("div.row", {}, other, skip),
    h("div.buttons", {}, h("button", { value: "" }, text.task.skipKeep)),
  ]);
  return chosen === "other" ? other.value.trim() || text.task.skipOther : chosen;
}
