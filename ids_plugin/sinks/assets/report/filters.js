/* The filter bar: severities, classes, the active filters and how many alerts pass. */

import { LEVELS, button, byId, make } from "./page.js";
import {
  clearFilters,
  clearPeriod,
  isFiltering,
  setFilter,
  state,
  subscribe,
  toggleFilter,
} from "./state.js";
import { count, dateAndTime, integer, words } from "./text.js";

/** Shows a chip for every severity and class of the alerts. */
export function renderFilters() {
  const levels = tally("level");
  const presentLevels = [...LEVELS].reverse().filter((level) => levels.has(level));
  const levelChips = presentLevels.map((level) =>
    chip(level, levels.get(level), level, { "data-level": level }, () =>
      toggleFilter(state.filter.levels, level),
    ),
  );
  const classes = [...tally("class")].sort((left, right) => right[1] - left[1]);
  const classChips = classes.map(([name, alerts]) =>
    chip(words(name), alerts, "", { "data-class": name }, () =>
      toggleFilter(state.filter.classes, name),
    ),
  );
  byId("severities").replaceChildren(...levelChips);
  byId("classes").replaceChildren(...classChips);
}

function tally(key) {
  const counts = new Map();
  for (const alert of state.alerts) counts.set(alert[key], (counts.get(alert[key]) ?? 0) + 1);
  return counts;
}

function chip(text, alerts, className, data, onclick) {
  return button(
    { class: `chip ${className}`, "aria-pressed": "false", ...data, onclick },
    text,
    make("span", { class: "n" }, integer(alerts)),
  );
}

/** Marks the chips and hosts that are active filters. */
export function renderPressed() {
  const { levels, classes, host } = state.filter;
  const press = (element, isPressed) => element.setAttribute("aria-pressed", isPressed);
  for (const element of byId("severities").children) {
    press(element, levels.has(element.dataset.level));
  }
  for (const element of byId("classes").children) {
    press(element, classes.has(element.dataset.class));
  }
  for (const element of document.querySelectorAll(".host")) {
    press(element, element.dataset.host === host);
  }
}

function renderStatus() {
  const { shown, alerts } = state;
  const all = count(alerts.length, "alert");
  byId("count").textContent = isFiltering() ? `${integer(shown.length)} of ${all}` : all;
  byId("active").replaceChildren(...activeChips());
}

function activeChips() {
  const { host, period } = state.filter;
  const chips = [];
  if (host !== null) {
    const name = make("span", { class: "mono" }, host);
    chips.push(activeChip(() => setFilter({ host: null }), name, " ×"));
  }
  if (period) {
    chips.push(activeChip(clearPeriod, `${period.map(dateAndTime).join(" – ")} ×`));
  }
  if (isFiltering()) {
    chips.push(button({ class: "link", id: "clear", onclick: clearFilters }, "clear all"));
  }
  return chips;
}

function activeChip(onclick, ...children) {
  return button({ class: "chip", "aria-pressed": "true", onclick }, ...children);
}

subscribe("shown", () => {
  if (byId("text").value !== state.filter.text) byId("text").value = state.filter.text;
  renderStatus();
  renderPressed();
});
