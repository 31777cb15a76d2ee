/** What the server refused: shown, saved as a file for a lead, or deleted by the annotator. */

import { h, openDialog } from "./dom.js";
import { text } from "./strings.js";

/**
 * Show the operations that the server refused.
 * @param {import("../safe/outbox.js").Outbox} outbox
 */
export async function showRefused(outbox) {
  const kept = await outbox.store.operations("refused");
  const lines = kept.map((each) => {
    const drop = async () => {
      await outbox.drop(each);
      line.remove();
    };
    const { kind, client_time } = each.operation;
    const line = h(
      "li",
      {},
      h("p", {}, text.refused.line(kind, each.task_id, new Date(client_time).toLocaleString())),
      h("p.problem", {}, each.message),
      h("button", { type: "button", onclick: drop }, text.refused.drop),
    );
    return line;
  });
  await openDialog(
    text.refused.title,
    [
      h("p", {}, text.refused.hint),
      h("ul.refused", {}, ...lines),
      h("div.buttons", {}, h("button", { type: "button", onclick: () => saveFile(kept) }, text.refused.save), h("button.primary", {}, text.refused.close)),
    ],
    { wide: true },
  );
}

/** @param {import("../safe/store.js").KeptOperation[]} kept */
function saveFile(kept) {
  const address = URL.createObjectURL(new Blob([JSON.stringify(kept, null, 2)], { type: "application/json" }));
  h("a", { href: address, download: "gigamask-refused.json" }).click();
  URL.revokeObjectURL(address);
}
