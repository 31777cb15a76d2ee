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

/** @typedef {{name: string, role: "annotator" | "reviewer" | "lead", mode: "laptop" | "team", csrf_token: string}} Me */

/** Requests of one login. */
export class Api {
  #csrfToken = "";
  #headers = () => ({ "X-CSRF-Token": this.#csrfToken });

  /** @returns {Promise<Me>} Who is logged in. */
  async me() {
    return this.#loggedIn(await this.get("/api/me"));
  }

  /**
   * @param {string} name
   * @param {string} password
   * @returns {Promise<Me>}
   */
  async logIn(name, password) {
    return this.#loggedIn(await this.post("/api/login", { name, password }));
  }

  /**
   * @param {string} path
   * @returns {Promise<any>}
   */
  async get(path) {
    return (await this.#ask(path, {})).json();
  }

  /**
   * @param {string} path
   * @returns {Promise<Blob>}
   */
  async blob(path) {
    return (await this.#ask(path, {})).blob();
  }

  /**
   * @param {string} path
   * @param {object} body
   * @param {{signal?: AbortSignal, keepalive?: boolean}} more
   * @returns {Promise<any>}
   */
  async post(path, body = {}, more = {}) {
    const ask = () =>
      this.#ask(path, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { "Content-Type": "application/json", ...this.#headers() },
        ...more,
      });
    try {
      return await (await ask()).json();
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "csrf") throw error;
      await this.me(); // another login of this browser changed the token
      return (await ask()).json();
    }
  }

  #loggedIn(/** @type {Me} */ me) {
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
      response = await fetch(path, options);
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new ApiError("offline", String(error));
    }
    if (response.ok) return response;
    const found = await response.json().catch(() => ({}));
    const retryS = Number(response.headers.get("Retry-After") ?? 0);
    throw new ApiError(found.error ?? `http_${response.status}`, found.message ?? response.statusText, found.details, retryS);
  }
}
