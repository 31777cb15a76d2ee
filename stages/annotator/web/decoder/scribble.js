/**
 * Scribbles as clicks along them: the function of engine/interactive/batched.py.
 *
 * @typedef {import("./mask_prompt.js").Click} Click
 * @typedef {{points: [number, number][], positive: boolean}} Scribble Points along a stroke, in image pixels.
 */

/** Length of scribble for each click, in image pixels. */
const STEP_PX = 20;
const MAX_CLICKS = 6;

/**
 * Place clicks along a scribble, at equal distances from its start to its end.
 * @param {Scribble} scribble
 * @returns {Click[]}
 */
export function alongScribble({ points, positive }) {
  const at = [0];
  for (let index = 1; index < points.length; index++) {
    const [[x0, y0], [x1, y1]] = [points[index - 1], points[index]];
    at.push(at[index - 1] + Math.hypot(x1 - x0, y1 - y0));
  }
  const length = at[at.length - 1];
  const count = Math.min(MAX_CLICKS, Math.floor(length / STEP_PX) + 1);
  const wanted = count > 1 ? Array.from({ length: count }, (_, number) => (length * number) / (count - 1)) : [length / 2];
  return wanted.map((each) => {
    const after = at.findIndex((reached) => reached >= each);
    const next = after < 0 ? at.length - 1 : after;
    if (next === 0) return { x: points[0][0], y: points[0][1], positive };
    const fraction = Math.min(1, (each - at[next - 1]) / (at[next] - at[next - 1]));
    const along = (/** @type {0 | 1} */ axis) => points[next - 1][axis] + fraction * (points[next][axis] - points[next - 1][axis]);
    return { x: along(0), y: along(1), positive };
  });
}
