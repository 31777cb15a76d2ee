/** The demo: one photo, clicks, boxes and everything; the annotation page's own bench, and nothing that is stored. */

import { Api, ApiError } from "../app/api.js";
import { h, icon } from "../app/dom.js";
import { applyTheme, switchTheme } from "../app/settings.js";
import { text } from "../app/strings.js";
import { Picture } from "../canvas/picture.js";
import { Bench } from "../work/bench.js";
import { prefilledMask, taskInMemory } from "../work/memory.js";

/** @typedef {import("../work/memory.js").Photo} Photo */

const SAID_MS = 8000;

const root = /** @type {HTMLElement} */ (document.getElementById("page"));
const says = /** @type {HTMLElement} */ (document.getElementById("says"));

/** Requests of a demo: a photo that the server has let go of is sent again. */
class DemoApi extends Api {
  /** Send the photo again, and return its new name. @type {(image: string) => Promise<string>} */
  resend = async (image) => image;

  /** @override @param {string} path @param {object} [body] @param {number} [timeoutMs] @returns {Promise<any>} */
  async post(path, body, timeoutMs) {
    try {
      return await super.post(path, body, timeoutMs);
    } catch (error) {
      const [, image] = path.match(/^\/api\/images\/(\d+)\//) ?? [];
      if (!image || !(error instanceof ApiError) || error.code !== "not_found") throw error;
      return super.post(path.replace(image, await this.resend(image)), body, timeoutMs);
    }
  }
}

class Demo {
  /** @type {Bench | null} */
  bench = null;
  /** Masks that the photo began with. @type {import("../work/memory.js").TaskMask[]} */
  given = [];
  api = new DemoApi();
  #stop = new AbortController();
  #maxFileBytes = Infinity;
  #turn = Promise.resolve();
  /** @type {import("../tutorial/tutorial.js").Tutorial | null} */
  #tutorial = null;

  constructor() {
    this.api.resend = () => this.#resend();
    this.file = h("input", { type: "file", accept: "image/jpeg,image/png,image/webp,image/tiff", hidden: true, "aria-label": text.demo.open });
    this.file.addEventListener("change", () => {
      const [file] = this.file.files;
      this.file.value = ""; // the same file can be chosen again
      if (file) void this.show(file);
    });
    this.everything = h("button", { type: "button", title: text.demo.everythingHint, onclick: () => void this.findEverything() }, text.demo.everything);
    this.save = h("button", { type: "button", title: text.demo.saveHint, onclick: () => this.saveMasks() }, text.demo.save);
    const bar = /** @type {HTMLElement} */ (document.getElementById("bar"));
    bar.replaceChildren(
      h("a.brand", { href: "/" }, text.product),
      h("p.title", {}, text.demo.promise),
      h(
        "div.actions",
        {},
        this.file,
        h("button.plain", { type: "button", onclick: () => void this.learn() }, text.pages.tutorial),
        this.save,
        this.everything,
        h("button.primary", { type: "button", onclick: () => this.file.click() }, text.demo.open),
      ),
      h("button.plain", { type: "button", "aria-label": text.theme, title: text.theme, onclick: switchTheme }, icon("theme")),
    );
    this.#listen();
  }

  /** Show the demo's first photo, or ask for one. */
  async start() {
    try {
      const { photo, max_file_bytes } = await this.api.get("/api/demo");
      this.#maxFileBytes = max_file_bytes;
      if (!photo) return this.#ask();
      await this.#open(photo, await this.api.blob(`/api/images/${photo.image_id}`));
    } catch (error) {
      this.#ask(messageOf(error));
    }
  }

  /** Send a photo and show it; one after the other. @param {Blob} file */
  show(file) {
    this.#turn = this.#turn.then(async () => {
      try {
        if (file.size > this.#maxFileBytes) throw new ApiError("too_large", text.demo.tooLarge(this.#maxFileBytes));
        say(text.demo.sending);
        const photo = await this.api.send("/api/photos", file);
        await this.#open(photo, await this.api.blob(`/api/images/${photo.image_id}`));
        says.replaceChildren();
      } catch (error) {
        say(messageOf(error));
      }
    });
    return this.#turn;
  }

  /** Open the tutorial; the next photo ends it. */
  async learn() {
    try {
      const { Tutorial } = await import("../tutorial/tutorial.js");
      const picture = this.bench?.painter.picture;
      const before = this.bench?.task;
      await this.bench?.close();
      this.bench = null;
      for (const button of [this.everything, this.save]) button.disabled = true;
      const leave = () => this.#leave(before, picture);
      this.#tutorial = await Tutorial.open(root, { api: this.api, say, leave, leaveLabel: before ? text.demo.back : text.demo.open });
    } catch (error) {
      say(messageOf(error));
    }
  }

  /** Leave the tutorial, and go on with the photo before it, if any. @param {import("../work/task.js").Task} [task] @param {Picture} [picture] */
  async #leave(task, picture) {
    await this.#tutorial?.close();
    this.#tutorial = null;
    if (!task || !picture) return this.#ask();
    this.#bench(task, picture);
    this.#setBusy(false);
  }

  /** Find all masks of the photo; those made by hand stay. */
  async findEverything() {
    const bench = this.bench;
    if (!bench || this.everything.disabled) return;
    this.#setBusy(true);
    try {
      const { lease } = bench.task;
      const found = await this.api.post(`/api/images/${lease.image_id}/everything`, {}, 600_000);
      if (this.bench !== bench) return; // another photo was opened meanwhile
      const { draft } = bench.task;
      // The list shows the newest first, so the most certain comes last
      this.given = found.toReversed().map((/** @type {import("../work/draft.js").Candidate} */ each, /** @type {number} */ at) => prefilledMask(`e-${at}`, each, lease.model_id));
      await bench.close();
      const task = taskInMemory(lease, this.given, bench.task.operations);
      task.draft = draft;
      this.#bench(task, bench.painter.picture);
      say(text.demo.found(found.length));
    } catch (error) {
      say(messageOf(error));
    } finally {
      this.#setBusy(false);
    }
  }

  /** Save the masks as a file on this machine, in COCO's form. */
  saveMasks() {
    const task = this.bench?.task;
    if (!task) return;
    if (task.draft?.isBegun) return say(text.task.draftOpen);
    const [height, width] = task.size;
    const annotations = task.masks.map(({ rle, predicted_iou }) => ({ segmentation: rle, predicted_iou }));
    const file = new Blob([JSON.stringify({ image: { width, height }, annotations })], { type: "application/json" });
    const link = h("a", { href: URL.createObjectURL(file), download: "masks.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), SAID_MS);
  }

  /** @param {Photo} photo @param {Blob} blob */
  async #open(photo, blob) {
    const picture = await Picture.from(blob);
    await this.bench?.close();
    await this.#tutorial?.close();
    this.#tutorial = null;
    this.given = [];
    this.#bench(taskInMemory(photo), picture);
    document.documentElement.dataset.photo = photo.image_id;
    this.#setBusy(false);
  }

  /** @param {import("../work/task.js").Task} task @param {Picture} picture */
  #bench(task, picture) {
    root.className = "work";
    this.bench = new Bench(root, task, picture, {
      api: this.api,
      guidelines: text.demo.guide,
      say,
      submit: () => this.saveMasks(),
      skip: () => this.file.click(),
    });
    performance.mark("photo shown");
  }

  async #resend() {
    const bench = this.bench;
    if (!bench) throw new ApiError("not_found", text.demo.gone);
    const photo = await this.api.send("/api/photos", bench.painter.picture.blob);
    bench.task.lease.image_id = photo.image_id;
    return photo.image_id;
  }

  #ask(message = "") {
    this.#setBusy(false);
    for (const button of [this.everything, this.save]) button.disabled = true;
    const button = h("button.primary", { type: "button", onclick: () => this.file.click() }, text.demo.open);
    const learn = h("button", { type: "button", onclick: () => void this.learn() }, text.pages.tutorial);
    root.replaceChildren(h("section.notice", {}, h("h1", {}, text.demo.title), h("p", {}, message || text.demo.ask), h("div.row", {}, button, learn)));
    button.focus();
  }

  #setBusy(/** @type {boolean} */ isBusy) {
    this.everything.disabled = isBusy;
    this.everything.setAttribute("aria-busy", String(isBusy));
    this.everything.textContent = isBusy ? text.demo.finding : text.demo.everything;
    this.save.disabled = false;
  }

  #listen() {
    const { signal } = this.#stop;
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      root.classList.add("dropping");
    }, { signal });
    document.addEventListener("dragleave", (event) => event.relatedTarget === null && root.classList.remove("dropping"), { signal });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      root.classList.remove("dropping");
      const file = event.dataTransfer?.files[0];
      if (file) void this.show(file);
    }, { signal });
    document.addEventListener("paste", (event) => {
      const file = event.clipboardData?.files[0];
      if (file) void this.show(file);
    }, { signal });
  }
}

/** @param {unknown} error */
function messageOf(error) {
  if (!(error instanceof ApiError)) return text.error.unexpected(String(/** @type {Error} */ (error)?.message ?? error));
  return error.code === "offline" ? text.demo.offline : error.message;
}

/** @param {string} message */
function say(message) {
  const line = h("p", {}, message);
  says.replaceChildren(line);
  setTimeout(() => line.remove(), SAID_MS);
}

addEventListener("error", (event) => event.error && say(text.error.unexpected(event.message)));
addEventListener("unhandledrejection", (event) => say(messageOf(event.reason)));
applyTheme();
await new Demo().start();
