/* What the page shows: all alerts, the filters, the order, the selected and the opened alert.
   Views read `state` and subscribe to its events; nothing here touches the page. */

import { words } from "./text.js";

export const HOSTS_A_PAGE = 50;

const NO_FILTER = { text: "", host: null, period: null };

export const state = {
  alerts: [],
  shown: [],
  hosts: [],
  facts: {},
  selected: -1,
  open: null,
  hostsShown: HOSTS_A_PAGE,
  isOneDay: true,
  filter: { ...NO_FILTER, levels: new Set(), classes: new Set() },
  sort: { by: "severity", isDescending: true },
};

const listeners = new Map();

/**
 * Calls `listener` at every event of a name, in the order of subscription:
 *   "shown"     the shown alerts or the filters changed
 *   "sorted"    the order changed
 *   "selected"  another row is selected; the argument says whether an open alert follows it
 *   "unbrushed" the period was cleared other than on the timeline itself
 */
export function subscribe(event, listener) {
  listeners.set(event, [...(listeners.get(event) ?? []), listener]);
}

function publish(event, argument) {
  for (const listener of listeners.get(event) ?? []) listener(argument);
}

const collator = new Intl.Collator("en", { numeric: true });
const compareText = (left, right) => (left === right ? 0 : collator.compare(left, right));

export const ORDERS = {
  severity: (left, right) =>
    left.severity - right.severity || left.risk - right.risk || right.first - left.first,
  host: (left, right) => compareText(left.host, right.host) || left.first - right.first,
  behaviour: (left, right) =>
    compareText(words(left.class), words(right.class)) || left.first - right.first,
  flows: (left, right) => left.count - right.count,
  score: (left, right) => left.score - right.score,
  first: (left, right) => left.first - right.first,
};
const ASCENDING_FIRST = new Set(["host", "behaviour", "first"]);

/** Whether an alert passes a filter. */
export function matches(alert, filter) {
  const terms = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  return (
    (!filter.levels.size || filter.levels.has(alert.level)) &&
    (!filter.classes.size || filter.classes.has(alert.class)) &&
    (filter.host === null || alert.host === filter.host) &&
    (filter.period === null ||
      (alert.first <= filter.period[1] && alert.last >= filter.period[0])) &&
    terms.every((term) => alert.searchText.includes(term))
  );
}

/** Filters the alerts anew; the selected alert stays selected where it is still shown. */
export function applyFilters() {
  const selectedAlert = state.shown[state.selected];
  state.shown = state.alerts.filter((alert) => matches(alert, state.filter));
  state.selected = selectedAlert ? state.shown.indexOf(selectedAlert) : -1;
  publish("shown");
}

/** Changes filters, such as `{ host: "10.0.0.5" }`. */
export function setFilter(changes) {
  Object.assign(state.filter, changes);
  applyFilters();
}

/** Takes a value into a filter's set, or out of it. */
export function toggleFilter(values, value) {
  if (!values.delete(value)) values.add(value);
  applyFilters();
}

/** Removes the period from the filters; the timeline removes its brush. */
export function clearPeriod() {
  state.filter.period = null;
  publish("unbrushed");
  applyFilters();
}

/** Removes all filters. */
export function clearFilters() {
  Object.assign(state.filter, { ...NO_FILTER, levels: new Set(), classes: new Set() });
  publish("unbrushed");
  applyFilters();
}

/** Whether any filter is set. */
export function isFiltering() {
  const { text, levels, classes, host, period } = state.filter;
  return Boolean(text || levels.size || classes.size || host !== null || period);
}

/** Sorts the alerts in place, by the order of `state.sort`. */
export function sortAlerts() {
  const order = ORDERS[state.sort.by];
  state.alerts.sort(state.sort.isDescending ? (left, right) => order(right, left) : order);
}

/** Sorts by a column; by the same column again in the other direction. */
export function sortBy(column) {
  const isDescending =
    state.sort.by === column ? !state.sort.isDescending : !ASCENDING_FIRST.has(column);
  state.sort = { by: column, isDescending };
  sortAlerts();
  publish("sorted");
  applyFilters();
}

/** Sorts by the next column; returns its name. */
export function sortByNextColumn() {
  const columns = Object.keys(ORDERS);
  sortBy(columns[(columns.indexOf(state.sort.by) + 1) % columns.length]);
  return state.sort.by;
}

/** Selects a row of the list, the nearest where the index is out of range. */
export function select(index, { reopen = true } = {}) {
  if (!state.shown.length) return;
  state.selected = Math.max(0, Math.min(state.shown.length - 1, index));
  publish("selected", reopen);
}

/** The period of the traffic and the alerts, [start, end] in ms since the epoch. */
export function coveredPeriod() {
  const traffic = state.facts.traffic ?? [];
  const width = bucketWidth();
  const known = (name) => state.alerts.map((alert) => alert[name]).filter(Number.isFinite);
  const starts = [...traffic.map((bucket) => bucket.t / 1000), ...known("first")];
  const ends = [...traffic.map((bucket) => bucket.t / 1000 + width), ...known("last")];
  const start = starts.reduce((low, value) => Math.min(low, value), Infinity);
  const end = ends.reduce((high, value) => Math.max(high, value), -Infinity);
  return [start, end];
}

/** The width of the traffic's buckets in ms: a minute where a single one doesn't tell. */
export function bucketWidth() {
  const traffic = state.facts.traffic ?? [];
  let width = Infinity;
  for (let index = 1; index < traffic.length; index += 1) {
    width = Math.min(width, (traffic[index].t - traffic[index - 1].t) / 1000);
  }
  return Number.isFinite(width) ? width : 60_000;
}
