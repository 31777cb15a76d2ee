/**
 * COCO run lengths: pixels are counted down the columns, runs alternate background, foreground, ...
 * The compressed text is byte for byte that of pycocotools and of storage/rle.py.
 *
 * @typedef {{size: [number, number], counts: string}} Rle Height and width, and the runs as compressed text.
 */

/**
 * Read the runs of a compressed text.
 * @param {string} text
 * @returns {number[]}
 */
export function readRuns(text) {
  /** @type {number[]} */
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16 && shift < 32) value |= -1 << shift;
    const count = runs.length;
    runs.push(count > 2 ? value + runs[count - 2] : value);
  }
  return runs;
}

/**
 * Write runs as compressed text.
 * @param {number[]} runs
 * @returns {string}
 */
export function writeRuns(runs) {
  const codes = [];
  for (let index = 0; index < runs.length; index++) {
    let value = index > 2 ? runs[index] - runs[index - 2] : runs[index];
    for (let more = true; more; ) {
      let code = value & 31;
      value >>= 5;
      more = code & 16 ? value !== -1 : value !== 0;
      if (more) code |= 32;
      codes.push(code + 48);
    }
  }
  let text = "";
  for (let at = 0; at < codes.length; at += 8192) text += String.fromCharCode(...codes.slice(at, at + 8192));
  return text;
}

/**
 * Whether two masks have the same pixels.
 * @param {Rle} one
 * @param {Rle} other
 */
export function isSame(one, other) {
  return one.counts === other.counts && one.size[0] === other.size[0] && one.size[1] === other.size[1];
}
