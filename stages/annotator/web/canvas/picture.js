/** The picture of a task at several sizes, so that a frame never shrinks more pixels than it shows. */

const SIZES = [1, 0.5, 0.25];

/** Sizes of one picture. */
export class Picture {
  /**
   * @param {ImageBitmap} bitmap
   * @param {Blob} blob File that the picture came from.
   */
  constructor(bitmap, blob) {
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.blob = blob;
    /** @type {Map<number, ImageBitmap>} */
    this.sizes = new Map([[1, bitmap]]);
  }

  /** @param {Blob} blob */
  static async from(blob) {
    return new Picture(await createImageBitmap(blob, { imageOrientation: "none" }), blob);
  }

  /**
   * The smallest size that has a pixel for every device pixel; a missing one is made for a later frame.
   * @param {number} deviceScale Device pixels for one image pixel.
   * @param {() => void} onMade
   */
  bitmap(deviceScale, onMade) {
    const size = SIZES.findLast((each) => each >= Math.min(1, deviceScale)) ?? 1;
    const found = this.sizes.get(size);
    if (found) return found;
    const full = /** @type {ImageBitmap} */ (this.sizes.get(1));
    this.sizes.set(size, full); // asked for once
    const [resizeWidth, resizeHeight] = [Math.ceil(this.width * size), Math.ceil(this.height * size)];
    createImageBitmap(full, { resizeWidth, resizeHeight, resizeQuality: "high" }).then((made) => {
      this.sizes.set(size, made);
      onMade();
    });
    return full;
  }

  close() {
    for (const bitmap of this.sizes.values()) bitmap.close();
  }
}
