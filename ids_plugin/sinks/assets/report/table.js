/* The list of alerts. Only rows in sight are in the page, however many alerts there are. */

import { addressElement, button, byId, make, severityMark } from "./page.js";
import { clearFilters, select, sortBy, state, subscribe } from "./state.js";
import { dateAndTime, integer, timeOfDay, withoutHost, words } from "./text.js";

export const ROW_PX = 46;
const ROWS_BEYOND_SIGHT = 8;
const ROWS_ON_PAPER = 300;
const COLUMNS = [
  { title: "Severity", by: "severity" },
  { title: "Host", by: "host" },
  { title: "Behaviour", by: "behaviour" },
  { title: "What happened" },
  { title: "Flows", by: "flows", class: "num" },
  { title: "Score", by: "score", class: "num" },
  { title: "First seen", by: "first", class: "num" },
];

/** Shows the column heads; those of columns that can be sorted by are buttons. */
export function renderHead() {
  const cells = COLUMNS.map((column) =>
    make("span", { class: column.class ?? "" }, column.by ? sortButton(column) : column.title),
  );
  byId("head").replaceChildren(...cells);
}

function sortButton({ title, by }) {
  const arrow = state.sort.isDescending ? "↓" : "↑";
  return button(
    {
      tabindex: "-1",
      "data-sorted": state.sort.by === by ? arrow : null,
      onclick: () => sortBy(by),
    },
    title,
  );
}

/** How many whole rows are in sight, less one. */
export function rowsAPage() {
  return Math.max(1, Math.floor(byId("list").clientHeight / ROW_PX) - 1);
}

/** Draws the rows in sight; on paper all of them, up to ROWS_ON_PAPER. */
export function renderList(isOnPaper = false) {
  const { shown } = state;
  const list = byId("list");
  list.style.height = shown.length ? `min(62vh, ${shown.length * ROW_PX + 1}px)` : "auto";
  list.style.minHeight = shown.length ? `${Math.min(shown.length, 4) * ROW_PX + 1}px` : "0";
  byId("rows").style.height = shown.length ? `${shown.length * ROW_PX}px` : "auto";
  if (!shown.length) {
    renderNoMatch(list);
    return;
  }
  const above = Math.floor(list.scrollTop / ROW_PX) - ROWS_BEYOND_SIGHT;
  const below = Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + ROWS_BEYOND_SIGHT;
  const from = isOnPaper ? 0 : Math.max(0, above);
  const to = isOnPaper ? ROWS_ON_PAPER : below;
  const rows = shown.slice(from, to).map((alert, offset) => alertRow(alert, from + offset));
  byId("rows").replaceChildren(...rows);
  byId("head").style.paddingRight = `${list.offsetWidth - list.clientWidth + 16}px`;
  const isSelectedDrawn = state.selected >= from && state.selected < to;
  if (isSelectedDrawn) list.setAttribute("aria-activedescendant", `row-${state.selected}`);
  else list.removeAttribute("aria-activedescendant");
}

function renderNoMatch(list) {
  const nothing = make(
    "div",
    { class: "nothing" },
    make("strong", {}, "No alert matches"),
    button({ class: "link", onclick: clearFilters }, "Clear the filters"),
  );
  byId("rows").replaceChildren(nothing);
  list.removeAttribute("aria-activedescendant");
}

function alertRow(alert, index) {
  const row = make(
    "div",
    {
      class: "row",
      role: "option",
      id: `row-${index}`,
      "data-index": index,
      "aria-selected": String(index === state.selected),
      "aria-posinset": index + 1,
      "aria-setsize": state.shown.length,
    },
    severityMark(alert.level, alert.level),
    addressElement(alert.host),
    make("span", {}, words(alert.class)),
    make(
      "span",
      { class: "what" },
      make("b", {}, withoutHost(alert.message, alert.host)),
      withoutHost(alert.summary, alert.host),
    ),
    make("span", { class: "num" }, integer(alert.count)),
    make("span", { class: "num" }, alert.score.toFixed(3)),
    make("span", { class: "muted num" }, firstSeen(alert)),
  );
  row.style.top = `${index * ROW_PX}px`;
  return row;
}

function firstSeen(alert) {
  return state.isOneDay ? timeOfDay(alert.first) : dateAndTime(alert.first);
}

function scrollToSelected() {
  const list = byId("list");
  const top = state.selected * ROW_PX;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW_PX > list.scrollTop + list.clientHeight) {
    list.scrollTop = top + ROW_PX - list.clientHeight;
  }
}

/** Draws rows as the list is scrolled; a click selects and opens (`onOpen`). */
export function listenToList(onOpen) {
  byId("list").addEventListener("scroll", () => requestAnimationFrame(() => renderList()), {
    passive: true,
  });
  byId("rows").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    select(Number(row.dataset.index), { reopen: false });
    onOpen(state.shown[state.selected]);
  });
}

subscribe("sorted", renderHead);
subscribe("shown", () => {
  byId("list").scrollTop = 0;
  renderList();
});
subscribe("selected", () => {
  scrollToSelected();
  renderList();
});
