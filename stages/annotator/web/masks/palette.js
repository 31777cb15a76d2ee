/**
 * Colours of masks, told apart with any colour vision: Paul Tol's "bright" and "muted" sets, and cividis for numbers.
 *
 * @typedef {import("./fold.js").TaskMask} TaskMask
 * @typedef {[number, number, number]} Colour Red, green, blue.
 */

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

/**
 * @param {TaskMask} mask
 * @param {"mask" | "origin" | "iou"} by
 * @returns {Colour}
 */
export function colourOf(mask, by) {
  if (by === "origin") return ORIGINS[originOf(mask)];
  if (by === "iou") return mask.predicted_iou === null ? UNKNOWN : certainty(mask.predicted_iou);
  let hash = 0;
  for (let index = 0; index < mask.mask.length; index++) hash = (hash * 31 + mask.mask.charCodeAt(index)) >>> 0;
  return MASKS[hash % MASKS.length];
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
