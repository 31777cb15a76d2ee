/**
 * What keys and buttons do, by the names of keys.js.
 *
 * @typedef {import("./bench.js").Bench} Bench
 * @typedef {(bench: Bench, detail: string, event?: KeyboardEvent) => unknown} Act
 */

import { settings } from "../app/settings.js";
import { text } from "../app/strings.js";
import { bitmapOf, rleOf, subtract, union } from "../masks/bitmap.js";
import { fillHoles, parts, uncovered } from "../masks/regions.js";
import { originOf } from "../masks/palette.js";
import { uuid7 } from "../safe/uuid.js";
import { showKeys } from "./help.js";
import { sorted } from "./side.js";

const ZOOM = 1.5;
/** Pixels on the screen that the cursor moves with Shift. */
const FAR_PX = 48;
/** Places without a mask that a key shows in turn. */
const MAX_GAPS = 8;

/** @type {Record<string, Act>} */
const ACTS = {
  tool: (bench, tool) => bench.setTool(/** @type {import("./bench.js").Tool} */ (tool)),
  smaller: (bench) => (bench.tool === "wand" ? bench.tools.wand.adjust(false) : resizeBrush(bench, 1 / 1.25)),
  larger: (bench) => (bench.tool === "wand" ? bench.tools.wand.adjust(true) : resizeBrush(bench, 1.25)),
  positive: (bench) => clickAtCursor(bench, true),
  negative: (bench) => clickAtCursor(bench, false),
  nextCandidate: (bench) => choose(bench, (bench.task.draft?.step.chosen ?? 0) + 1),
  candidate: (bench, number) => choose(bench, Number(number)),
  accept,
  drop,
  undo: (bench) => {
    bench.prompter.cancel();
    return bench.task.undo();
  },
  redo: (bench) => bench.task.redo(),
  nextMask: (bench) => step(bench, 1),
  previousMask: (bench) => step(bench, -1),
  alsoNextMask: (bench) => step(bench, 1, true),
  nextUndecided: (bench) => selectUndecided(bench),
  acceptMask: (bench) => decide(bench, "accept"),
  rejectMask: (bench) => decide(bench, "reject"),
  removeMask,
  merge,
  subtract: subtractMasks,
  fillHoles: fillMaskHoles,
  split,
  hideMask,
  cursor: moveCursor,
  zoomIn: (bench) => zoom(bench, ZOOM),
  zoomOut: (bench) => zoom(bench, 1 / ZOOM),
  fit: (bench) => {
    bench.painter.view.fit();
    bench.painter.ask();
  },
  actual: (bench) => zoom(bench, 1 / bench.painter.ratio / bench.painter.view.scale),
  zoomMask: (bench) => {
    const bitmap = bench.present;
    if (bitmap) bench.painter.view.show(bitmap);
    bench.painter.ask();
  },
  nextGap,
  hide: (bench) => {
    bench.painter.showsMasks = !bench.painter.showsMasks;
    bench.refresh();
  },
  solo: (bench) => {
    bench.solo = bench.solo ? "" : (bench.selected[0] ?? "");
    bench.refresh();
  },
  preview: (bench) => {
    bench.style({ preview: !settings.preview });
    bench.parts.say(settings.preview ? text.masks.previewOn : text.masks.previewOff);
  },
  committed: (bench) => bench.committed.toggle(),
  outlines: (bench) => bench.style({ filled: !settings.filled, outlines: true }),
  fainter: (bench) => bench.style({ opacity: Math.max(0.1, settings.opacity - 0.1) }),
  stronger: (bench) => bench.style({ opacity: Math.min(0.9, settings.opacity + 0.1) }),
  submit: (bench) => bench.parts.submit(),
  skip: (bench) => bench.parts.skip(),
  back: (bench) => bench.parts.back?.(),
  help: (bench) => showKeys().then(() => bench.refresh()),
};

/**
 * Do one act: its name, and what follows a colon.
 * @param {Bench} bench
 * @param {string} act
 * @param {KeyboardEvent} [event]
 */
export function runAct(bench, act, event) {
  const [name, detail = ""] = act.split(":");
  return ACTS[name](bench, detail, event);
}

function accept(/** @type {Bench} */ bench) {
  if (bench.painter.overlay.corners.length) return bench.tools.closePolygon();
  if (bench.tools.stroke.isBegun) return bench.tools.stroke.end();
  return bench.prompter.after(() => {
    if (!bench.task.draft) return;
    bench.selected = []; // the next click begins another mask
    return bench.task.accept();
  });
}

function drop(/** @type {Bench} */ bench) {
  bench.prompter.cancel();
  if (bench.painter.overlay.corners.length) {
    bench.painter.overlay.corners = [];
    return bench.painter.ask();
  }
  if (bench.tools.stroke.isBegun) return bench.tools.stroke.drop();
  if (bench.task.draft) return bench.task.drop();
  bench.solo = "";
  return bench.select("");
}

function choose(/** @type {Bench} */ bench, /** @type {number} */ number) {
  const { draft } = bench.task;
  if (!draft || number > draft.step.candidates.length) return;
  draft.choose(number);
  return bench.task.saveDraft();
}

function step(/** @type {Bench} */ bench, /** @type {number} */ by, isMore = false) {
  const masks = sorted(bench.task.masks);
  if (!masks.length) return;
  const here = masks.findIndex((each) => each.mask === bench.selected.at(-1));
  const there = here < 0 ? (by > 0 ? 0 : masks.length - 1) : (here + by + masks.length) % masks.length;
  if (isMore && bench.selected.length) bench.select(masks[there].mask, !bench.selected.includes(masks[there].mask));
  else selectAndShow(bench, masks[there].mask);
}

function selectUndecided(/** @type {Bench} */ bench) {
  const masks = sorted(bench.task.masks);
  const here = masks.findIndex((each) => each.mask === bench.selected.at(-1));
  const after = [...masks.slice(here + 1), ...masks.slice(0, here + 1)];
  const next = after.find((each) => originOf(each) === "undecided");
  if (next) selectAndShow(bench, next.mask);
  else bench.select("");
}

function selectAndShow(/** @type {Bench} */ bench, /** @type {string} */ mask) {
  bench.select(mask);
  const bitmap = bench.present;
  if (bitmap && !bench.painter.view.sees(bitmap)) bench.painter.view.show(bitmap);
  bench.painter.ask();
}

async function decide(/** @type {Bench} */ bench, /** @type {"accept" | "reject"} */ kind) {
  const mask = bench.refined;
  if (!mask) return selectUndecided(bench);
  if (mask.origin === "made" || (kind === "accept" && originOf(mask) !== "undecided")) return;
  const masks = sorted(bench.task.masks);
  const at = masks.findIndex((each) => each.mask === mask.mask);
  bench.deciding.add(mask.mask);
  const isOpen = (/** @type {import("./bench.js").TaskMask} */ each) => originOf(each) === "undecided" && !bench.deciding.has(each.mask);
  const after = [...masks.slice(at + 1), ...masks.slice(0, at)].find(isOpen);
  // The selection goes on at once: the next press of the key is about the next mask
  if (after) selectAndShow(bench, after.mask);
  else bench.select("");
  await bench.task.act(kind, { mask: mask.mask });
  bench.deciding.delete(mask.mask);
}

async function removeMask(/** @type {Bench} */ bench) {
  const names = [...bench.selected];
  for (const mask of names) await bench.task.act("remove", { mask });
}

async function merge(/** @type {Bench} */ bench) {
  const masks = selectedMasks(bench);
  if (masks.length < 2) return;
  const bitmap = union(masks.map((each) => bitmapOf(each.rle)));
  const mask = `m-${uuid7().slice(0, 23)}`;
  await bench.task.act("merge", { masks: masks.map((each) => each.mask), mask, rle: rleOf(bitmap, bench.task.size) });
  bench.select(mask);
}

async function subtractMasks(/** @type {Bench} */ bench) {
  const [first, ...others] = selectedMasks(bench);
  if (!others.length) return;
  const bitmap = subtract(bitmapOf(first.rle), others.map((each) => bitmapOf(each.rle)));
  if (!bitmap.area) return bench.parts.say(text.masks.emptied);
  await bench.task.act("change", { mask: first.mask, rle: rleOf(bitmap, bench.task.size) });
}

/** Fill the holes of the draft, or of the one selected mask. @param {Bench} bench */
async function fillMaskHoles(bench) {
  const before = bench.present;
  if (!before?.area) return;
  const filled = fillHoles(before);
  if (filled === before) return bench.parts.say(text.masks.noHoles);
  const rle = rleOf(filled, bench.task.size);
  if (!bench.task.draft) return bench.task.act("change", { mask: bench.selected[0], rle });
  bench.task.draft.drew(rle);
  return bench.task.saveDraft();
}

async function split(/** @type {Bench} */ bench) {
  const mask = bench.refined;
  if (!mask || bench.task.draft) return;
  const found = parts(bitmapOf(mask.rle));
  if (found.length < 2) return bench.parts.say(text.masks.onePart);
  const into = found.map((bitmap) => ({ mask: `m-${uuid7().slice(0, 23)}`, rle: rleOf(bitmap, bench.task.size) }));
  await bench.task.act("split", { mask: mask.mask, into });
  bench.select(into[0].mask);
}

function selectedMasks(/** @type {Bench} */ bench) {
  return bench.selected.map((name) => bench.task.line.find(name)).filter((each) => each !== undefined);
}

/** Look at the next of the largest places without a mask. @param {Bench} bench */
function nextGap(bench) {
  const { painter, task } = bench;
  const gaps = uncovered(painter.labels.map, task.size, MAX_GAPS);
  if (!gaps.length) return bench.parts.say(text.task.noGap);
  const last = gaps.findIndex(({ x0, y0 }) => x0 === bench.gap?.x0 && y0 === bench.gap.y0);
  bench.gap = gaps[(last + 1) % gaps.length];
  painter.view.show(bench.gap);
  painter.overlay.cursor = { x: Math.floor((bench.gap.x0 + bench.gap.x1) / 2) + 0.5, y: Math.floor((bench.gap.y0 + bench.gap.y1) / 2) + 0.5 };
  painter.ask();
}

function hideMask(/** @type {Bench} */ bench) {
  const isHidden = bench.selected.every((name) => bench.hidden.has(name));
  for (const name of bench.selected) bench.hidden[isHidden ? "delete" : "add"](name);
  bench.refresh();
}

function resizeBrush(/** @type {Bench} */ bench, /** @type {number} */ factor) {
  const wanted = factor > 1 ? Math.ceil(settings.brush * factor) : Math.floor(settings.brush * factor);
  bench.style({ brush: Math.min(400, Math.max(1, wanted)) });
  bench.tools.showTip();
}

function clickAtCursor(/** @type {Bench} */ bench, /** @type {boolean} */ positive) {
  const at = bench.painter.overlay.cursor ?? bench.tools.over;
  if (!at) return;
  if (bench.tool !== "scribble") return bench.tools.click(at, positive);
  const { stroke } = bench.tools;
  if (stroke.isBegun) stroke.end();
  else stroke.begin(at, positive);
}

/**
 * @param {Bench} bench
 * @param {string} _
 * @param {KeyboardEvent} [event]
 */
function moveCursor(bench, _, event) {
  if (!event) return;
  const { painter, task } = bench;
  const { view, overlay } = painter;
  const begin = overlay.cursor ?? bench.tools.over ?? view.toImage(view.middle.x, view.middle.y);
  const by = event.shiftKey ? Math.max(1, Math.round(FAR_PX / view.scale)) : 1;
  const along = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] }[event.key] ?? [0, 0];
  const [height, width] = task.size;
  const x = Math.min(width - 1, Math.max(0, Math.floor(begin.x) + along[0])) + 0.5;
  const y = Math.min(height - 1, Math.max(0, Math.floor(begin.y) + along[1])) + 0.5;
  overlay.cursor = { x, y };
  if (bench.tools.stroke.isBegun) bench.tools.stroke.goOn(overlay.cursor);
  bench.tools.preview.follow(overlay.cursor);
  const seen = view.toCanvas(x, y);
  view.pan(panNeeded(seen.x, view.width), panNeeded(seen.y, view.height));
  painter.ask();
}

/** How far to pan so that a place is not at the border. @param {number} place @param {number} size */
function panNeeded(place, size) {
  const margin = Math.min(40, size / 4);
  if (place < margin) return margin - place;
  return place > size - margin ? size - margin - place : 0;
}

function zoom(/** @type {Bench} */ bench, /** @type {number} */ factor) {
  const { view, overlay } = bench.painter;
  const at = overlay.cursor ?? bench.tools.over;
  const { x, y } = at ? view.toCanvas(at.x, at.y) : view.middle;
  view.zoomTo(view.scale * factor, x, y);
  bench.tools.showTip();
  bench.painter.ask();
}
