/** The server's HTTP interface: one function for every request, and one form for every error. */

/** An error that the server answered with, or that it did not answer. */
export class ApiError extends Error {
  /**
   * @param {string} code Code of the server; "offline" where there was no answer.
   * @param {string} message
   * @param {any} details
   * @param {number} retryS Seconds after which to try again.
   */
  constructor(code, message, details = {}, retryS = 0) {
    super(message);
    this.code = code;
    this.details = details;
    this.retryS = retryS;
  }
}

/**
 * Whether the same request may succeed later: the server did not answer, is busy, or something before it answered.
 * @param {unknown} error
 */
export function isTemporary(error) {
  return error instanceof ApiError && (TEMPORARY.has(error.code) || error.code.startsWith("http"));
}

const TEMPORARY = new Set(["offline", "busy", "workspace_unavailable", "too_many_requests", "internal", "storage"]);

/** @typedef {{name: string, role: "annotator" | "reviewer" | "lead", mode: "laptop" | "team", csrf_token: string}} Me */

const TIMEOUT_MS = 60_000;
const MAX_KEEPALIVE_CHARACTERS = 60_000;

/** Requests of one account; a login that has ended is renewed by the same account. */
export class Api {
  #csrfToken = "";
  #headers = () => ({ "X-CSRF-Token": this.#csrfToken });
  /** Account that this tab works for; another one that logs in elsewhere in this browser is refused here. */
  account = "";
  /**
   * Have the login renewed, and tell whether it was.
   * @type {() => Promise<boolean>}
   */
  renewLogin = async () => false;

  /** @returns {Promise<Me>} Who is logged in. */
  async me() {
    return this.#loggedIn(await received((await this.#ask("/api/me", {})).json()));
  }

  /**
   * @param {string} name
   * @param {string} password
   * @returns {Promise<Me>}
   */
  async logIn(name, password) {
    return this.#loggedIn(await received((await this.#ask("/api/login", json({ name, password }))).json()));
  }

  /**
   * @param {string} path
   * @returns {Promise<any>}
   */
  async get(path) {
    return received((await this.#askLoggedIn(path, () => ({}))).json());
  }

  /**
   * @param {string} path
   * @returns {Promise<Blob>}
   */
  async blob(path) {
    return received((await this.#askLoggedIn(path, () => ({}))).blob());
  }

  /**
   * @param {string} path
   * @param {object} body
   * @param {number} timeoutMs Longest wait for the answer; then the server counts as offline.
   * @returns {Promise<any>}
   */
  async post(path, body = {}, timeoutMs = TIMEOUT_MS) {
    const options = () => ({ ...json(body, this.#headers()), signal: AbortSignal.timeout(timeoutMs) });
    return received((await this.#askLoggedIn(path, options)).json());
  }

  /**
   * Send a file.
   * @param {string} path
   * @param {Blob} file
   * @returns {Promise<any>}
   */
  async send(path, file) {
    const headers = { "Content-Type": "application/octet-stream", ...this.#headers() };
    return received((await this.#askLoggedIn(path, () => ({ method: "POST", body: file, headers }))).json());
  }

  /**
   * Ask, and once more after the login was renewed.
   * @param {string} path
   * @param {() => RequestInit} options
   */
  async #askLoggedIn(path, options) {
    try {
      return await this.#ask(path, options());
    } catch (error) {
      const code = error instanceof ApiError ? error.code : "";
      if (code === "csrf") await this.me(); // another login of this browser changed the token
      else if (code !== "login_required" || !(await this.renewLogin())) throw error;
      return this.#ask(path, options());
    }
  }

  #loggedIn(/** @type {Me} */ me) {
    if (this.account && me.name !== this.account) throw new ApiError("other_account", me.name);
    this.#csrfToken = me.csrf_token;
    return me;
  }

  /**
   * @param {string} path
   * @param {RequestInit} options
   * @returns {Promise<Response>}
   */
  async #ask(path, options) {
    let response;
    try {
      response = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS), ...options });
    } catch (error) {
      throw new ApiError("offline", String(error));
    }
    if (response.ok) return response;
    const found = await response.json().catch(() => ({}));
    const retryS = Number(response.headers.get("Retry-After") ?? 0);
    throw new ApiError(found.error ?? `http_${response.status}`, found.message ?? response.statusText, found.details, retryS);
  }
}

/**
 * Wait for the body of an answer; one that stops half-way is no answer.
 * @template T
 * @param {Promise<T>} body
 * @returns {Promise<T>}
 */
async function received(body) {
  try {
    return await body;
  } catch (error) {
    if (error instanceof SyntaxError) throw error; // it is all there, and no JSON
    throw new ApiError("offline", String(error));
  }
}

/**
 * @param {object} body
 * @param {Record<string, string>} headers
 * @returns {RequestInit}
 */
function json(body, headers = {}) {
  const text = JSON.stringify(body);
  // A small request outlives the page that is being closed; browsers allow few of them.
  const keepalive = document.hidden && text.length < MAX_KEEPALIVE_CHARACTERS;
  return { method: "POST", body: text, headers: { "Content-Type": "application/json", ...headers }, keepalive };
}
