/** The page: who is logged in, the bar on top, and the page that the address names. */

import { Outbox } from "../safe/outbox.js";
import { Store } from "../safe/store.js";
import { Api, ApiError, isTemporary } from "./api.js";
import { Bar } from "./bar.js";
import { h } from "./dom.js";
import { applyTheme } from "./settings.js";
import { text } from "./strings.js";

/**
 * What every page gets.
 * @typedef {object} App
 * @property {Api} api
 * @property {import("./api.js").Me} me
 * @property {Store} store
 * @property {Outbox} outbox
 * @property {Bar} bar
 * @property {(message: string) => void} say Tell something for a few seconds.
 */

/** @type {Record<string, () => Promise<{openPage: (root: HTMLElement, app: App) => Promise<() => unknown>}>>} */
const PAGES = {
  work: () => import("../work/work.js"),
  rounds: () => import("../pages/rounds.js"),
  review: () => import("../pages/review.js"),
  lead: () => import("../pages/lead.js"),
  tutorial: () => import("../tutorial/tutorial.js"),
};
const LAST_ACCOUNT = "gigamask account";
const ASK_AGAIN_MS = 60_000;
const RETRY_MS = 3000;

const root = /** @type {HTMLElement} */ (document.getElementById("page"));

addEventListener("error", (event) => event.error && say(text.error.unexpected(event.message))); // others are the browser's notes
addEventListener("unhandledrejection", (event) => say(text.error.unexpected(String(event.reason?.message ?? event.reason))));
await start();

async function start() {
  applyTheme();
  void pageOf(location.hash)().catch(() => undefined); // its modules come while the server looks who asks
  const api = new Api();
  const me = await findMe(api);
  const store = await Store.open(me.name).catch(() => {
    root.replaceChildren(h("p.notice", {}, text.error.storage));
    throw new Error(text.error.storage);
  });
  const outbox = new Outbox(store, api);
  const bar = new Bar(/** @type {HTMLElement} */ (document.getElementById("bar")), me, outbox, api, () => {
    asksAgainAt = 0;
    void renewLogin(app);
  });
  /** @type {App} */
  const app = { api, me, store, outbox, bar, say };
  api.account = me.name;
  api.renewLogin = () => renewLogin(app);
  outbox.addEventListener("refused", (event) => say(text.error.refused(/** @type {CustomEvent} */ (event).detail.message)));
  void outbox.send();
  await follow(app);
  void keepPage().catch(() => undefined); // without it the page works, but does not open offline
}

/** Keep the page's own files in this browser, so that it opens while the server does not answer. */
async function keepPage() {
  const container = navigator.serviceWorker; // absent on plain HTTP from another machine
  if (!container || container.controller) return;
  await container.register("/offline.js");
  const loaded = performance.getEntriesByType("resource").map((each) => new URL(each.name).pathname);
  const cache = await caches.open("gigamask page");
  await cache.addAll(["/", ...new Set(loaded.filter((path) => !path.startsWith("/api/")))]);
}

/** Open the page of the address, now and whenever it changes. @param {App} app */
async function follow(app) {
  /** @type {() => unknown} */
  let close = () => undefined;
  let turn = Promise.resolve();
  const open = async () => {
    const name = nameOf(location.hash);
    await close();
    close = () => undefined;
    app.bar.show(name);
    root.replaceChildren();
    root.className = name;
    const page = await pageOf(location.hash)();
    close = await page.openPage(root, app);
  };
  addEventListener("hashchange", () => (turn = turn.then(open)));
  await open();
}

function nameOf(/** @type {string} */ hash) {
  return hash.slice(1).split("/")[0] || "work";
}

function pageOf(/** @type {string} */ hash) {
  return PAGES[nameOf(hash)] ?? PAGES.work;
}

/**
 * Find who is logged in; without the server, who was last.
 * @param {Api} api
 * @returns {Promise<import("./api.js").Me>}
 */
async function findMe(api) {
  try {
    const me = await api.me();
    localStorage.setItem(LAST_ACCOUNT, JSON.stringify({ ...me, csrf_token: "" }));
    return me;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const last = localStorage.getItem(LAST_ACCOUNT);
    const isDown = isTemporary(error) && !error.code.startsWith("http_4"); // a proxy that refuses goes on refusing
    if (isDown && last) return JSON.parse(last);
    if (isDown) {
      root.replaceChildren(h("section.notice", {}, h("h1", {}, text.error.noAnswer), h("p", {}, text.error.noAnswerHint(error.code))));
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      return findMe(api);
    }
    const { askLogin } = await import("../pages/login.js");
    await askLogin(api, root);
    return findMe(api);
  }
}

/** @type {Promise<boolean> | null} */
let renewal = null;
/** Time until which the annotator does not want to be asked, in milliseconds. */
let asksAgainAt = 0;

/** Have the login renewed in place, once for all requests that need it, and tell whether it was. @param {App} app */
async function renewLogin({ api, me, outbox }) {
  if (Date.now() < asksAgainAt) return false;
  renewal ??= import("../pages/login.js").then(({ askLoginAgain }) => askLoginAgain(api, me));
  const isDone = await renewal;
  if (!renewal) return isDone; // another request has noted the answer
  renewal = null;
  if (isDone) void outbox.send();
  else asksAgainAt = Date.now() + ASK_AGAIN_MS;
  return isDone;
}

/** @param {string} message */
function say(message) {
  const says = /** @type {HTMLElement} */ (document.getElementById("says"));
  const line = h("p", {}, message);
  says.replaceChildren(line);
  setTimeout(() => line.remove(), 8000);
}
