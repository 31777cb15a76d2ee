/** Elements, made in one line each. */

/**
 * Make an element.
 * @param {string} name Tag name, with classes after points: "button.primary".
 * @param {Record<string, any>} properties Attributes; `on...` are listeners, true and false set and leave out.
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function h(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, String(value));
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

/** Shapes of icons within 24 x 24. @type {Record<string, string>} */
const ICONS = {
  click: "M9 3v4M3 9h4M5 5l2.5 2.5M14 5l-1.5 1.5M5 14l1.5-1.5M10 10l3.5 10 2-4.5L20 13.5z",
  select: "M6 3l12 11h-6.5L8 20z",
  box: "M4 7V4h3M17 4h3v3M20 17v3h-3M7 20H4v-3M11 4h2M11 20h2M4 11v2M20 11v2",
  scribble: "M4 16c2-7 5-10 6.500-8.500S8 14 10 15s4-9 6-8.500-1 8 1 9 2.500-1 3-2",
  wand: "M4 20L14 10M16 8l1.500-1.500M15.500 2.500v3M21.500 8.500h-3M11.500 4.500l1.500 1.500M19.500 12.500L18 11M20 4l-1.500 1.500",
  brush: "M20 4c-4 1-9 6-10.500 9l1.500 1.500C14 13 19 8 20 4zM9 14c-2 0-3.500 1.500-3.500 3.500S4.500 20 3.500 20.500C7 21 11 20 11 16",
  eraser: "M8.500 20h12M4 14.500l9-10 7 6.500-8 9H8.500z M8.500 9.500l7 6.500",
  polygon: "M12 3l8 6-3 10H7L4 9zM12 3h.01M20 9h.01M17 19h.01M7 19h.01M4 9h.01",
  undo: "M8 5L4 9l4 4M4 9h10a5.500 5.500 0 010 11h-4",
  redo: "M16 5l4 4-4 4M20 9H10a5.500 5.500 0 000 11h4",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  eye: "M2 12s3.500-7 10-7 10 7 10 7-3.500 7-10 7S2 12 2 12zM12 9a3 3 0 100 6 3 3 0 000-6z",
  hidden: "M4 4l16 16M9.500 5.400A9 9 0 0112 5c6.500 0 10 7 10 7a17 17 0 01-3 3.900M6 7a17 17 0 00-4 5s3.500 7 10 7a9 9 0 004-1",
  outline: "M12 4a8 8 0 100 16 8 8 0 000-16z",
  help: "M9 9a3 3 0 114 2.800c-.8.400-1 1-1 2.200M12 17.500h.01M12 3a9 9 0 100 18 9 9 0 000-18z",
  theme: "M12 3a9 9 0 100 18zM12 3a9 9 0 010 18",
  menu: "M4 7h16M4 12h16M4 17h16",
};

/**
 * Draw an icon; it says nothing to screen readers, its button does.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * Show a dialog until it is closed, and return its value.
 * @param {string} title
 * @param {Node[]} content Buttons of a form with method dialog close it with their value.
 * @param {{wide?: boolean}} options
 * @returns {Promise<string>}
 */
export function openDialog(title, content, { wide = false } = {}) {
  const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), ...content);
  const dialog = h(wide ? "dialog.wide" : "dialog", { "aria-labelledby": "dialog-title" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
}
