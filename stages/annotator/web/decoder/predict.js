/**
 * Prompts to masks, as the server does it: engine/interactive/batched.py and stages/annotator/sessions.py.
 *
 * A lone click is decoded on the whole image and on windows of it, and the three best masks are offered. Any other prompt
 * is decoded on one window. Logits of a prediction are kept for the next click.
 *
 * @typedef {import("./frame.js").Crop} Crop
 * @typedef {import("./frame.js").CropWindow} CropWindow
 * @typedef {import("./frame.js").Size} Size
 * @typedef {import("./mask_prompt.js").Click} Click
 * @typedef {import("../masks/rle.js").Rle} Rle
 * @typedef {import("./upsample.js").UpsampledMask & {logits: Float32Array, predicted_iou: number, crop: Crop}} Predicted
 * @typedef {{logits: Float32Array, kept: Float32Array, iou: Float32Array}} Decoded All four masks, one after the other.
 * @typedef {object} Constants What `GET /api/decoder` tells.
 * @property {string} model_id
 * @property {string} sha256
 * @property {string} runtime
 * @property {string} reason
 * @property {number} input_side
 * @property {number} logits_side
 * @property {number} window_handicap
 * @property {number} small_fraction
 * @property {number} outside_logit
 * @property {number} mask_logit
 * @property {number} stability_offset
 * @typedef {object} OpenedImage
 * @property {Size} size
 * @property {string} sha256
 * @property {CropWindow[]} windows
 * @property {(crop: Crop) => void} prepare Begins to fetch what `decode` needs of a window.
 * @property {(crop: Crop, tokens: Token[], mask: Float32Array | null) => Promise<Decoded>} decode
 * @typedef {{x: number, y: number, label: number}} Token Point in model pixels.
 * @typedef {object} Prompt What the page asks the server, too.
 * @property {Click[]} clicks
 * @property {Crop | null} box
 * @property {import("./scribble.js").Scribble[]} [scribbles]
 * @property {{prediction_id: string, candidate: number} | null} continued
 * @property {Rle | null} mask
 * @typedef {{clicks: Click[], box: Crop | null, logits: Float32Array | null, crop: Crop | null}} PlacedPrompt
 * @typedef {{logits: Float32Array, crop: Crop}[]} Kept
 * @typedef {object} Answer As the server gives it.
 * @property {string} prediction_id
 * @property {string} model_id
 * @property {string} image_sha256
 * @property {{rle: Rle, predicted_iou: number, stability_score: number}[]} candidates
 * @property {"none" | "logits" | "mask"} basis
 */

import { bitmapOf, rleOf } from "../masks/bitmap.js";
import { writeRuns } from "../masks/rle.js";
import { NoAnswer } from "./fetching.js";
import { Frame, holds, isSameCrop, nearest, windowAround } from "./frame.js";
import { changeAroundClicks, maskLogits, toWhole } from "./mask_prompt.js";
import { alongScribble } from "./scribble.js";
import { upsample } from "./upsample.js";

/** Labels of tokens, from engine/model/onnx_decoder.py. */
const LABEL = { padding: -1, background: 0, foreground: 1, firstCorner: 2, secondCorner: 3 };
const LAYERS = [1, 2];
const MAX_KEPT = 64;
/** Largest number of clicks of one prompt, those of its scribbles included. */
const MAX_CLICKS = 64;
/** Begins the ids of predictions that were made in a browser. */
export const ID_PREFIX = "browser-";

/** A prompt that no decoder can use. */
export class WrongPrompt extends Error {}

/** Predictions of one model on any images. */
export class Predictor {
  /** @type {Map<string, Kept>} */
  #kept = new Map();
  #count = 0;

  /** @param {Constants} constants */
  constructor(constants) {
    this.constants = constants;
    this.name = `${ID_PREFIX}${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  }

  /**
   * Predict masks for a prompt.
   * @param {OpenedImage} image
   * @param {Prompt} asked
   * @returns {Promise<Answer>}
   */
  async predict(image, asked) {
    const clicks = [...asked.clicks, ...(asked.scribbles ?? []).flatMap(alongScribble)];
    checkPrompt({ clicks, box: asked.box }, image.size);
    const continued = asked.continued && this.#kept.get(asked.continued.prediction_id)?.[asked.continued.candidate];
    /** @type {PlacedPrompt} */
    let prompt = { clicks, box: asked.box, logits: null, crop: null };
    /** @type {Answer["basis"]} */
    let basis = "none";
    if (continued) {
      prompt = { ...prompt, logits: continued.logits, crop: continued.crop };
      basis = "logits";
    } else if (asked.mask) {
      prompt = this.#withMask(image, prompt, asked.mask);
      basis = "mask";
    }
    const isLone = prompt.clicks.length === 1 && !prompt.box && !prompt.logits;
    const masks = isLone ? await this.#predictLone(image, prompt) : await this.#predictInOneView(image, prompt);
    return this.#answer(image, prompt, masks, basis, asked.mask);
  }

  /**
   * @param {OpenedImage} image
   * @param {PlacedPrompt} prompt
   * @param {Predicted[]} masks
   * @param {Answer["basis"]} basis
   * @param {Rle | null} refined
   * @returns {Answer}
   */
  #answer({ size, sha256 }, prompt, masks, basis, refined) {
    const candidates = masks.map((mask) => ({
      rle: { size, counts: writeRuns(mask.runs) },
      predicted_iou: mask.predicted_iou,
      stability_score: mask.stability,
    }));
    if (basis === "mask" && refined && prompt.clicks.length) {
      const changed = changeAroundClicks(bitmapOf(refined), bitmapOf(candidates[0].rle), prompt.clicks, size);
      candidates.unshift({ ...candidates[0], rle: rleOf(changed, size) });
      masks = [masks[0], ...masks];
    }
    const id = `${this.name}-${this.#count++}`;
    this.#kept.set(id, masks.map(({ logits, crop }) => ({ logits, crop })));
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MAX_KEPT) break;
      this.#kept.delete(oldest);
    }
    return { prediction_id: id, model_id: this.constants.model_id, image_sha256: sha256, candidates, basis };
  }

  /**
   * The prompt with a mask as its previous prediction, and with the box around the mask and the positive clicks.
   * @param {OpenedImage} image
   * @param {PlacedPrompt} prompt
   * @param {Rle} mask
   * @returns {PlacedPrompt}
   */
  #withMask(image, prompt, mask) {
    const bitmap = bitmapOf(mask);
    if (!bitmap.area) throw new WrongPrompt("got an empty mask to refine, expected at least one pixel; begin with a click instead");
    const positive = prompt.clicks.filter((each) => each.positive);
    const xs = [bitmap.x0, bitmap.x1, ...positive.map(({ x }) => x)];
    const ys = [bitmap.y0, bitmap.y1, ...positive.map(({ y }) => y)];
    const box = prompt.box ?? [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    let crop = windowAround(image.windows, image.size, box);
    if (!prompt.clicks.every(({ x, y }) => holds(crop, x, y))) crop = image.windows[0].xyxy;
    const { constants } = this;
    const logits = maskLogits(bitmap, this.#frame(image, crop), constants.logits_side, constants);
    return { ...prompt, box, logits, crop };
  }

  /**
   * Decode a lone click on the whole image, then on the nearest window of each layer; keep the three best. Windows of the
   * second layer are fetched later than the others; one that is not there when the server does not answer is left out.
   * @param {OpenedImage} image
   * @param {PlacedPrompt} prompt
   */
  async #predictLone(image, prompt) {
    const crops = LAYERS.map((layer) => image.windows.filter((each) => each.layer === layer)).map((windows) =>
      windows.length ? nearest(windows, prompt.clicks[0]).xyxy : null,
    );
    for (const crop of crops) if (crop) image.prepare(crop); // a window that is not here yet comes while others are decoded
    let best = (await this.#decode(image, image.windows[0].xyxy, prompt, true, -Infinity)).sort(byIou);
    for (const [at, layer] of LAYERS.entries()) {
      const crop = crops[at];
      if (!crop || (layer > 1 && !this.#isSmall(best, image.size))) continue;
      const handicap = this.constants.window_handicap;
      const found = await this.#decode(image, crop, prompt, true, best[best.length - 1].predicted_iou + handicap).catch((error) => {
        if (layer > 1 && error instanceof NoAnswer) return [];
        throw error;
      });
      const fine = found
        .filter((mask) => !isCut(mask, image.size))
        .map((mask) => ({ ...mask, predicted_iou: mask.predicted_iou - handicap }));
      best = [...best, ...fine].sort(byIou).slice(0, best.length);
    }
    return best;
  }

  /**
   * Decode a prompt that is no lone click on the window of its previous mask or around its box.
   * @param {OpenedImage} image
   * @param {PlacedPrompt} prompt
   */
  async #predictInOneView(image, prompt) {
    const whole = image.windows[0].xyxy;
    let { logits, crop } = prompt;
    if (!logits && prompt.box) crop = windowAround(image.windows, image.size, prompt.box);
    if (!crop || !prompt.clicks.every(({ x, y }) => holds(/** @type {Crop} */ (crop), x, y))) {
      if (logits && crop && !isSameCrop(crop, whole)) {
        const { logits_side, outside_logit } = this.constants;
        logits = toWhole(logits, logits_side, this.#frame(image, crop), this.#frame(image, whole), outside_logit);
      }
      crop = whole;
    }
    return this.#decode(image, crop, { ...prompt, logits }, false, -Infinity);
  }

  /**
   * @param {OpenedImage} image
   * @param {Crop} crop
   * @param {PlacedPrompt} prompt
   * @param {boolean} isLone
   * @param {number} minIou Predicted IoU up to which masks are left out, before they are upsampled.
   * @returns {Promise<Predicted[]>}
   */
  async #decode(image, crop, prompt, isLone, minIou) {
    const frame = this.#frame(image, crop);
    const decoded = await image.decode(crop, tokensOf(prompt, frame), prompt.logits);
    const { logits_side: side, stability_offset } = this.constants;
    /** @type {Predicted[]} */
    const found = [];
    for (const index of isLone ? [1, 2, 3] : [0]) {
      const iou = decoded.iou[index];
      if (!(iou > Math.fround(minIou))) continue;
      const [from, to] = [index * side * side, (index + 1) * side * side];
      const mask = upsample(decoded.logits.subarray(from, to), side, frame, stability_offset);
      found.push({ ...mask, logits: decoded.kept.slice(from, to), predicted_iou: iou, crop });
    }
    return found;
  }

  #isSmall(/** @type {Predicted[]} */ masks, /** @type {Size} */ [height, width]) {
    return Math.min(...masks.map(({ area }) => area)) <= this.constants.small_fraction * height * width;
  }

  #frame(/** @type {OpenedImage} */ image, /** @type {Crop} */ crop) {
    return new Frame(crop, image.size, this.constants.input_side);
  }
}

/** @param {PlacedPrompt} prompt @param {Frame} frame @returns {Token[]} */
function tokensOf({ clicks, box }, frame) {
  const token = (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ label) => {
    const [modelX, modelY] = frame.toModel(x, y);
    return { x: modelX, y: modelY, label };
  };
  const tokens = clicks.map(({ x, y, positive }) => token(x, y, positive ? LABEL.foreground : LABEL.background));
  if (!box) return [...tokens, { x: 0, y: 0, label: LABEL.padding }];
  return [...tokens, token(box[0], box[1], LABEL.firstCorner), token(box[2], box[3], LABEL.secondCorner)];
}

/** Sort key: highest predicted IoU first. @param {Predicted} one @param {Predicted} other */
function byIou(one, other) {
  return other.predicted_iou - one.predicted_iou;
}

/** Whether a mask touches a border of its window that is not a border of the image. */
function isCut(/** @type {Predicted} */ { area, box, crop }, /** @type {Size} */ [height, width]) {
  if (!area) return false;
  return (
    (crop[0] > 0 && box[0] === crop[0]) ||
    (crop[1] > 0 && box[1] === crop[1]) ||
    (crop[2] < width && box[2] === crop[2] - 1) ||
    (crop[3] < height && box[3] === crop[3] - 1)
  );
}

/** @param {Pick<Prompt, "clicks" | "box">} prompt @param {Size} size */
function checkPrompt({ clicks, box }, [height, width]) {
  const image = `the ${width}x${height} image`;
  if (clicks.length > MAX_CLICKS) {
    throw new WrongPrompt(`got ${clicks.length} clicks, those of scribbles included, expected at most ${MAX_CLICKS}`);
  }
  if (!clicks.length && !box) throw new WrongPrompt("got a prompt without clicks and without a box, expected at least one of them");
  for (const { x, y } of clicks) {
    if (!holds([0, 0, width, height], x, y)) throw new WrongPrompt(`got a click at x ${x}, y ${y}, expected it inside ${image}`);
  }
  if (!box) return;
  const [x0, y0, x1, y1] = box;
  if (!(x0 >= 0 && x0 < x1 && x1 <= width && y0 >= 0 && y0 < y1 && y1 <= height)) {
    throw new WrongPrompt(`got box ${box}, expected x0 < x1, y0 < y1 inside ${image}`);
  }
}
