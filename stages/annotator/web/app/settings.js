/**
 * Settings of this browser: theme, look of masks and keys.
 *
 * @typedef {object} Settings
 * @property {"" | "dark" | "light"} theme Empty follows the system.
 * @property {number} opacity
 * @property {boolean} outlines
 * @property {boolean} filled
 * @property {"mask" | "origin" | "iou"} colourBy
 * @property {"made" | "area" | "iou"} sortBy
 * @property {number} brush Diameter in image pixels.
 * @property {number} tolerance Of the wand, in grey levels.
 * @property {boolean} preview Whether the mask that a click would give is outlined under a resting pointer.
 * @property {boolean} committed Whether the masks are outlined that the dataset has already.
 * @property {number} quickMs Time of a click up to which previews are asked for, in milliseconds.
 * @property {Record<string, string>} keys Keys that were changed, by their act.
 */

const KEY = "gigamask settings";

/** @type {Settings} */
const DEFAULTS = {
  ...{ theme: "", opacity: 0.45, outlines: true, filled: true, colourBy: "mask", sortBy: "made" },
  ...{ brush: 16, tolerance: 12, preview: true, committed: false, quickMs: 200, keys: {} },
};

/** @returns {Settings} */
function load() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

export const settings = load();

/** @param {Partial<Settings>} change */
export function saveSettings(change) {
  Object.assign(settings, change);
  localStorage.setItem(KEY, JSON.stringify(settings));
  applyTheme();
}

/** Set the page's theme. */
export function applyTheme() {
  if (settings.theme) document.documentElement.dataset.theme = settings.theme;
  else delete document.documentElement.dataset.theme;
}

/** Change from dark to light or back. */
export function switchTheme() {
  const system = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  saveSettings({ theme: (settings.theme || system) === "dark" ? "light" : "dark" });
}
