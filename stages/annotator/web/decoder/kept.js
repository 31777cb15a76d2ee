/**
 * What the decoding worker keeps in this browser, so that it decodes after a reload without the server: the decoder by
 * the hash that the server names, and what the server tells of models and images. Embeddings stay in the browser's own
 * cache, for they never change; the page's files are kept with those of offline.js.
 */

const CACHE = "gigamask decoder";
const PAGE_CACHE = "gigamask page";
/** Most entries kept under one path: decoders of a few models, images of the tasks at hand. */
const MAX_ENTRIES = { "/api/decoder/onnx": 3, "/api/decoder": 3, facts: 12 };

/** Browsers keep nothing on plain HTTP from another machine. */
const canKeep = typeof caches !== "undefined";

/** Find what was kept for a path. @param {string} path @returns {Promise<Response | undefined>} */
export async function findKept(path) {
  return canKeep ? (await caches.open(CACHE)).match(path) : undefined;
}

/**
 * Keep a response for a path, in place of the oldest of its kind.
 * @param {string} path
 * @param {Response} response
 */
export async function keep(path, response) {
  if (!canKeep) return;
  try {
    const cache = await caches.open(CACHE);
    await cache.delete(path); // so that it becomes the newest
    await cache.put(path, response);
    const alike = (await cache.keys()).filter((each) => kindOf(new URL(each.url).pathname) === kindOf(path));
    for (const oldest of alike.slice(0, -MAX_ENTRIES[kindOf(path)])) await cache.delete(oldest);
  } catch {
    // A full disk: the server is asked again after a reload
  }
}

/** @param {string} path @returns {keyof typeof MAX_ENTRIES} */
function kindOf(path) {
  const [name] = path.split("?");
  return name === "/api/decoder" || name === "/api/decoder/onnx" ? name : "facts";
}

/** Keep the files of this worker beside those of the page, where they are not. */
export async function keepOwnFiles() {
  if (!canKeep) return;
  const cache = await caches.open(PAGE_CACHE);
  const loaded = performance.getEntriesByType("resource").map((each) => new URL(each.name).pathname);
  const own = new Set([location.pathname, ...loaded].filter((path) => !path.startsWith("/api/")));
  for (const path of own) if (!(await cache.match(path))) await cache.add(path);
}
