/** Fetch what a decoder needs, and check that it belongs to the model and image it is used for. */

import { findKept, keep } from "./kept.js";

/** The server did not answer. */
export class NoAnswer extends Error {}

/**
 * Fetch bytes, and check the headers and the SHA-256 that they come with.
 * @param {string} path
 * @param {Record<string, string>} expected Headers and their values.
 * @param {string} [sha256] Expected hash; without it the header X-Sha256 names it.
 * @returns {Promise<{bytes: Uint8Array<ArrayBuffer>, headers: Headers}>}
 */
export async function checkedBytes(path, expected, sha256) {
  const { headers, body } = await read(path, async (response) => ({ headers: response.headers, body: await response.arrayBuffer() }));
  for (const [name, value] of Object.entries(expected)) {
    if (headers.get(name) !== value) throw new Error(`${path}: got ${name} ${headers.get(name)}, expected ${value}; reload the page`);
  }
  const bytes = new Uint8Array(body);
  const wanted = sha256 ?? headers.get("X-Sha256");
  // Browsers hash on secure origins alone; elsewhere the headers have to do
  if (crypto.subtle && (await hashOf(bytes)) !== wanted) throw new Error(`${path}: the bytes do not have the SHA-256 ${wanted}; reload the page`);
  return { bytes, headers };
}

/**
 * Fetch bytes once for each hash; later they come from this browser.
 * @param {string} path
 * @param {Record<string, string>} expected Headers and their values.
 * @param {string} sha256
 * @returns {Promise<Uint8Array>}
 */
export async function bytesByHash(path, expected, sha256) {
  const place = `${new URL(path, location.origin).pathname}?sha256=${sha256}`;
  const kept = await findKept(place);
  const bytes = kept && new Uint8Array(await kept.arrayBuffer());
  if (bytes && (await hashOf(bytes)) === sha256) return bytes;
  const fetched = (await checkedBytes(path, expected, sha256)).bytes;
  await keep(place, new Response(fetched.slice()));
  return fetched;
}

/**
 * Ask the server; where it does not answer, the answer before counts.
 * @param {string} path
 * @returns {Promise<any>}
 */
export async function readJson(path) {
  try {
    return await read(path, async (response) => {
      await keep(path, response.clone());
      return response.json();
    });
  } catch (error) {
    const kept = error instanceof NoAnswer ? await findKept(path) : undefined;
    if (kept) return kept.json();
    throw error;
  }
}

/**
 * @template T
 * @param {string} path
 * @param {(response: Response) => Promise<T>} take
 */
async function read(path, take) {
  const response = await fetch(path).catch((error) => {
    throw new NoAnswer(`${path}: ${error.message}`);
  });
  if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
  return take(response);
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function hashOf(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (each) => each.toString(16).padStart(2, "0")).join("");
}
