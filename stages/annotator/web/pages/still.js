/**
 * A picture with masks that is only looked at.
 *
 * @typedef {import("../masks/fold.js").TaskMask} TaskMask
 */

import { h } from "../app/dom.js";
import { settings } from "../app/settings.js";
import { DRAFT, Painter } from "../canvas/painter.js";
import { bitmapOf } from "../masks/bitmap.js";
import { Colours } from "../masks/palette.js";

/**
 * Make a figure of a picture.
 * @param {import("../canvas/picture.js").Picture} picture
 * @param {string} caption
 * @param {{masks?: TaskMask[], selected?: TaskMask[], near?: TaskMask}} shown `near` zooms to a mask.
 * @returns {{figure: HTMLElement, show: () => Painter}} `show` draws, once the figure is on the page.
 */
export function still(picture, caption, { masks = [], selected = [], near }) {
  const canvas = h("canvas.still", { role: "img", "aria-label": caption });
  const show = () => {
    const painter = new Painter(canvas, picture);
    painter.labels.setStyle({ opacity: settings.opacity, outlines: true, filled: true });
    const colours = new Colours();
    painter.labels.setMasks(masks.map((mask) => ({ name: mask.mask, bitmap: bitmapOf(mask.rle), colour: colours.of(mask, "mask") })));
    painter.selectedColour = DRAFT;
    painter.overlay.selected = selected.map((mask) => bitmapOf(mask.rle));
    if (near) painter.view.show(bitmapOf(near.rle));
    painter.draw();
    let from = { x: 0, y: 0 };
    let isMoved = false;
    const center = () => {
      if (!near || isMoved) return;
      painter.view.show(bitmapOf(near.rle));
      painter.ask();
    };
    new ResizeObserver(center).observe(canvas); // after the painter's own, which knows the new size
    canvas.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      isMoved = true;
      const { left, top } = canvas.getBoundingClientRect();
      painter.view.zoomTo(painter.view.scale * Math.exp(-event.deltaY * 0.002), event.clientX - left, event.clientY - top);
      painter.ask();
    });
    canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      canvas.setPointerCapture(event.pointerId);
      from = { x: event.clientX, y: event.clientY };
    });
    canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      isMoved = true;
      painter.view.pan(event.clientX - from.x, event.clientY - from.y);
      from = { x: event.clientX, y: event.clientY };
      painter.ask();
    });
    return painter;
  };
  return { figure: h("figure.still", {}, canvas, h("figcaption", {}, caption)), show };
}
