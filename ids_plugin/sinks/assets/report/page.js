/* Elements of the page. Text from the traffic enters the page as text nodes alone,
   never as markup. */

export const LEVELS = ["low", "medium", "high", "critical"];
const ADDRESS_CHARACTERS = 17;
const ADDRESS_TAIL_CHARACTERS = 10;
const TOAST_MS = 1600;

let toastTimer = 0;

/** The element with an id. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * A new element. Properties that begin with "on" are listeners; those that are null, undefined or
 * false are left out. Children that are strings become text nodes.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A button that isn't a form's. */
export function button(properties, ...children) {
  return make("button", { type: "button", ...properties }, ...children);
}

/** A table row of cells; `cells` are [text or element, class]. */
export function tableRow(cells, properties = {}, tag = "td") {
  const elements = cells.map(([content, className]) => make(tag, { class: className }, content));
  return make("tr", properties, ...elements);
}

/** A table of head cells [text, class] and rows. */
export function table(head, rows, properties = {}) {
  const headRow = tableRow(head, {}, "th");
  return make("table", properties, make("thead", {}, headRow), make("tbody", {}, ...rows));
}

/** Names and values side by side. */
export function definitions(entries) {
  const items = entries.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value)),
  );
  return make("dl", { class: "facts" }, ...items);
}

/** A heading with its body, as a list of elements; empty where there is no body. */
export function section(title, hint, body) {
  if (!body) return [];
  return [make("h4", {}, title, hint ? make("span", { class: "hint" }, hint) : null), body];
}

/** A severity: four bars, of which as many are filled as its rank, and a text. */
export function severityMark(level, text) {
  const rank = LEVELS.indexOf(level);
  const bars = LEVELS.map((_, step) => make("b", { class: step <= rank && "on" }));
  return make(
    "span",
    { class: `sev ${level}` },
    make("i", { "aria-hidden": "true" }, ...bars),
    text,
  );
}

/** A host's address. The middle of a long one is cut, as the end tells hosts apart. */
export function addressElement(host) {
  const text = String(host);
  const className = "address mono";
  if (text.length <= ADDRESS_CHARACTERS) return make("span", { class: className }, text);
  return make(
    "span",
    { class: className, title: text },
    make("span", {}, text.slice(0, -ADDRESS_TAIL_CHARACTERS)),
    make("span", {}, text.slice(-ADDRESS_TAIL_CHARACTERS)),
  );
}

/** Shows a message for a moment. */
export function toast(message) {
  const element = byId("toast");
  element.textContent = message;
  element.classList.add("on");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => element.classList.remove("on"), TOAST_MS);
}

/** Copies a text to the clipboard and says so; `name` says what it is. */
export async function copyText(text, name) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(`${name} copied`);
}

/** A button that shows a text and copies it; a dash where there is none. */
export function copyButton(text, name) {
  if (!text) return "–";
  const copy = () => copyText(text, name);
  return button({ class: "bare mono", title: `copy ${name}`, onclick: copy }, text);
}
