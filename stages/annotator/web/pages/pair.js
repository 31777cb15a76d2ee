/** Two lines of work on one picture, side by side; masks that differ are outlined. */

import { h } from "../app/dom.js";
import { text } from "../app/strings.js";
import { bitmapOf } from "../masks/bitmap.js";
import { still } from "./still.js";

/**
 * @typedef {import("../masks/fold.js").TaskMask} TaskMask
 * @typedef {import("../work/merging.js").Difference} Difference
 */

/**
 * Make the figures of both lines.
 * @param {{branch: {masks: TaskMask[]}, main: {masks: TaskMask[]}}} lines
 * @param {Difference[]} differences
 * @param {import("../canvas/picture.js").Picture} picture
 * @param {{main: string, branch: string}} names
 * @returns {{element: HTMLElement, show: () => (difference: Difference | null) => void}} `show` draws, once the element is
 *   on the page, and returns what points at one difference, or at all for null.
 */
export function makePair(lines, differences, picture, names) {
  const sides = (/** @type {const} */ (["main", "branch"])).map((name) => {
    const selected = differences.map((each) => each[name]).filter((each) => each !== undefined);
    const { masks } = lines[name];
    const caption = `${names[name]}: ${text.masks.title(masks.length)}, ${text.merge.differ(selected.length)}`;
    return { name, selected, shown: still(picture, caption, { masks, selected }) };
  });
  const show = () => {
    const painters = sides.map(({ name, selected, shown }) => ({ name, selected, painter: shown.show() }));
    return (/** @type {Difference | null} */ difference) => {
      for (const { name, selected, painter } of painters) {
        const pointed = difference ? [difference[name]].filter((each) => each !== undefined) : selected;
        painter.overlay.selected = pointed.map((mask) => bitmapOf(mask.rle));
        painter.ask();
      }
    };
  };
  return { element: h("div.pair", {}, ...sides.map((each) => each.shown.figure)), show };
}
