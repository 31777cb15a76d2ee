/**
 * Colours of masks, told apart with any colour vision: Paul Tol's "bright" and "muted" sets, and cividis for numbers.
 *
 * @typedef {import("./fold.js").TaskMask} TaskMask
 * @typedef {import("./bitmap.js").Box} Box
 * @typedef {[number, number, number]} Colour Red, green, blue.
 */

import { bitmapOf } from "./bitmap.js";

/** @type {Colour[]} */
const MASKS = [
  [102, 204, 238],
  [238, 102, 119],
  [204, 187, 68],
  [68, 119, 170],
  [238, 136, 102],
  [34, 136, 51],
  [170, 68, 153],
  [153, 221, 255],
  [221, 204, 119],
  [0, 153, 136],
  [255, 170, 187],
  [187, 204, 51],
];
/** @type {Record<string, Colour>} */
const ORIGINS = { made: [102, 204, 238], prefill_edited: [204, 187, 68], prefill_accepted: [34, 136, 51], undecided: [238, 119, 51] };
/** @type {Colour[]} From uncertain to certain. */
const CIVIDIS = [
  [0, 45, 110],
  [75, 84, 108],
  [123, 122, 119],
  [175, 163, 112],
  [254, 232, 56],
];
/** @type {Colour} */
const UNKNOWN = [187, 187, 187];
const LOW_IOU = 0.5;
/** Pixels between two masks at which they count half as neighbours. */
const NEAR_PX = 40;
/** Distance of two colours from which they are well told apart. */
const ALIKE = 60;
/** What normal, red-blind and green-blind eyes see of red, green and blue (Machado et al. 2009, severity 1). */
const VISIONS = [
  [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
  [[0.367, 0.861, -0.228], [0.28, 0.673, 0.047], [-0.012, 0.043, 0.969]],
];
const LIKENESS = MASKS.map((one) => MASKS.map((other) => alike(one, other)));

/** Colours of the masks of one picture: a new mask gets the one that differs most from those near it, and keeps it. */
export class Colours {
  /** Place in MASKS, and box, of each mask by its name. @type {Map<string, {place: number, box: Box}>} */
  #given = new Map();

  /**
   * @param {TaskMask} mask
   * @param {"mask" | "origin" | "iou"} by
   * @returns {Colour}
   */
  of(mask, by) {
    if (by === "origin") return ORIGINS[originOf(mask)];
    if (by === "iou") return mask.predicted_iou === null ? UNKNOWN : certainty(mask.predicted_iou);
    const known = this.#given.get(mask.mask);
    if (known) return MASKS[known.place];
    const { x0, y0, x1, y1 } = bitmapOf(mask.rle);
    const box = { x0, y0, x1, y1 };
    const place = this.#choose(box);
    this.#given.set(mask.mask, { place, box });
    return MASKS[place];
  }

  /** The place of the colour that is least like those of the masks nearby. @param {Box} box */
  #choose(box) {
    const likeness = MASKS.map(() => 0);
    for (const other of this.#given.values()) {
      const weight = 1 / (1 + gap(box, other.box) / NEAR_PX);
      LIKENESS[other.place].forEach((like, place) => (likeness[place] += like * weight ** 2));
    }
    return likeness.indexOf(Math.min(...likeness));
  }
}

/** Pixels between two boxes; 0 where they touch. @param {Box} one @param {Box} other */
function gap(one, other) {
  const across = Math.max(0, one.x0 - other.x1, other.x0 - one.x1);
  return Math.max(across, one.y0 - other.y1, other.y0 - one.y1);
}

/** How alike two colours are to those who confuse them most, in [0, 1]. @param {Colour} one @param {Colour} other */
function alike(one, other) {
  const distances = VISIONS.map((vision) => {
    const [a, b] = [one, other].map((colour) => vision.map((row) => row.reduce((sum, part, at) => sum + part * colour[at], 0)));
    return Math.hypot(...a.map((part, at) => part - b[at]));
  });
  return Math.exp(-((Math.min(...distances) / ALIKE) ** 2));
}

/** Origin as it is shown: a prefilled mask is undecided until it is accepted. @param {TaskMask} mask */
export function originOf(mask) {
  return mask.origin === "prefill_accepted" && !mask.decided ? "undecided" : mask.origin;
}

/** @param {Colour} colour */
export function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/** @param {number} iou @returns {Colour} */
function certainty(iou) {
  const at = Math.min(0.9999, Math.max(0, (iou - LOW_IOU) / (1 - LOW_IOU))) * (CIVIDIS.length - 1);
  const [low, high] = [CIVIDIS[Math.floor(at)], CIVIDIS[Math.floor(at) + 1]];
  const mix = (/** @type {number} */ channel) => Math.round(low[channel] + (high[channel] - low[channel]) * (at % 1));
  return [mix(0), mix(1), mix(2)];
}
