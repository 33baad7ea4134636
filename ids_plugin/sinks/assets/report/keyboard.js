/* Everything by keyboard; the dialog "Keys" of the page lists the keys. */

import { closeAlert, copyId, openAlert } from "./detail.js";
import { LEVELS, byId, toast } from "./page.js";
import {
  clearFilters,
  isFiltering,
  select,
  sortByNextColumn,
  state,
  toggleFilter,
} from "./state.js";
import { rowsAPage } from "./table.js";
import { setNextTheme } from "./theme.js";

const ID_KEYS = new Set(["u", "c", "e"]);

/** Handles a keydown event of the page. */
export function onKey(event) {
  const hasModifier = event.ctrlKey || event.metaKey || event.altKey;
  if (hasModifier || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") onEscape();
  else if (event.target.matches?.("input, textarea, select")) onKeyInInput(event);
  else onKeyInPage(event);
}

function onEscape() {
  if (state.open) {
    closeAlert();
    return;
  }
  if (isFiltering()) clearFilters();
  byId("list").focus({ preventScroll: true });
}

function onKeyInInput(event) {
  if (event.key !== "Enter" && event.key !== "ArrowDown") return;
  event.preventDefault();
  byId("list").focus();
  select(Math.max(0, state.selected));
}

function onKeyInPage(event) {
  const { key, target } = event;
  const isInList = target === byId("list");
  const isInPage = isInList || target === document.body;
  const row = rowOfKey(key, isInList);
  if (row !== undefined && (isInPage || byId("evidence").contains(target))) {
    event.preventDefault();
    select(row);
  } else if (key === "Enter" && isInPage) {
    event.preventDefault();
    openAlert(state.shown[Math.max(0, state.selected)]);
  } else if (state.open && ID_KEYS.has(key)) {
    copyId(key);
  } else {
    onCommandKey(event);
  }
}

/** The row that a key moves to; undefined where it moves to none. */
function rowOfKey(key, isInList) {
  const { selected } = state;
  const previous = Math.max(0, selected - 1);
  if (key === "j") return selected + 1;
  if (key === "k") return previous;
  if (!isInList) return undefined;
  const rows = {
    ArrowDown: selected + 1,
    ArrowUp: previous,
    PageDown: selected + rowsAPage(),
    PageUp: selected - rowsAPage(),
    Home: 0,
    End: Infinity,
  };
  return rows[key];
}

function onCommandKey(event) {
  const { key } = event;
  if (key === "/") {
    event.preventDefault();
    byId("text").focus();
    byId("text").select();
  } else if (key === "?") {
    byId("keys").showModal();
  } else if (key === "t") {
    setNextTheme();
  } else if (key === "s") {
    toast(`sorted by ${sortByNextColumn()}`);
  } else if ("1234".includes(key) && state.alerts.length) {
    toggleFilter(state.filter.levels, LEVELS[Number(key) - 1]);
  }
}
