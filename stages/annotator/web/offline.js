/**
 * Service worker: the page's own files, kept in the browser, so that the page opens while the server does not answer.
 * The server is asked first, always; what it answers replaces what was kept. Its interface under /api is left alone.
 */

const CACHE = "gigamask page";
const TIMEOUT_MS = 5000;

addEventListener("install", (/** @type {any} */ event) => {
  // Where the browser can, requests to the interface do not even wake this worker.
  event.waitUntil(event.addRoutes?.([{ condition: { urlPattern: "/api/*" }, source: "network" }]).catch(() => undefined));
  /** @type {any} */ (globalThis).skipWaiting();
});

addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(/** @type {any} */ (globalThis).clients.claim()));

addEventListener("fetch", (/** @type {any} */ event) => {
  const { pathname, origin } = new URL(event.request.url);
  const isOurs = event.request.method === "GET" && origin === location.origin && pathname !== "/link" && !pathname.startsWith("/api/");
  if (isOurs) event.respondWith(answer(event.request));
});

/** Answer with the server's file, or where it does not come, with the one that was kept. @param {Request} request */
async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
  try {
    const found = await fetch(request, kept ? { signal: AbortSignal.timeout(TIMEOUT_MS) } : {});
    if (found.ok) await cache.put(request, found.clone());
    return found;
  } catch (error) {
    if (kept) return kept;
    throw error;
  }
}
