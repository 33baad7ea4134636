/* The headline: how many alerts, of what was read, and which model judged it. */

import { isBalanced, sourcesOf, totalOf } from "./ledger.js";
import { LEVELS, byId, make } from "./page.js";
import { coveredPeriod, state } from "./state.js";
import { count, dateWithYear, duration, integer, isSameDay, timeOfDay } from "./text.js";

const NAMED_SETS = 3;
const BUNDLE_ID_CHARACTERS = 16;

/** Shows the verdict and the facts of the run. */
export function renderHeadline() {
  const total = totalOf(state.facts.ledger);
  const [start, end] = coveredPeriod();
  state.isOneDay = isSameDay(start, end);
  byId("verdict").textContent = verdictText(total.scored ?? 0);
  byId("alerts-section").style.setProperty("--when", state.isOneDay ? "64px" : "112px");
  const facts = [
    Number.isFinite(start) ? fact(dateWithYear(start), periodText(start, end)) : null,
    ...countFacts(total),
    balanceFact(state.facts.ledger, total),
  ];
  byId("facts-line").replaceChildren(...facts.filter(Boolean));
}

function verdictText(flows) {
  const { alerts, hosts } = state;
  if (!alerts.length) {
    return flows
      ? `Nothing over the threshold in ${count(flows, "flow")}`
      : "No flow was there to judge";
  }
  const levels = [...LEVELS].reverse().map((level) => ({
    level,
    alerts: alerts.filter((alert) => alert.level === level).length,
  }));
  const parts = levels
    .filter((entry) => entry.alerts)
    .map((entry) => `${integer(entry.alerts)} ${entry.level}`);
  return `${count(alerts.length, "alert")} on ${count(hosts.length, "host")}: ${parts.join(", ")}`;
}

function periodText(start, end) {
  const endDay = isSameDay(start, end) ? "" : `${dateWithYear(end)} `;
  return `${timeOfDay(start)} to ${endDay}${timeOfDay(end)} UTC, ${duration(end - start)}`;
}

function countFacts(total) {
  const read = total.read ?? 0;
  const sources = count(sourcesOf(state.facts.ledger).length, "source");
  return [
    fact(integer(read), `${read === 1 ? "record" : "records"} read from ${sources}`),
    fact(integer(total.scored ?? 0), "flows scored"),
    total.rejected ? fact(integer(total.rejected), "rejected", true) : null,
    total.suppressed ? fact(integer(total.suppressed), "suppressed by the allow-list") : null,
  ];
}

function balanceFact(ledger, total) {
  const balance = isBalanced(ledger, total);
  if (balance === null) return null;
  return balance ? fact("Ledger balances", "") : fact("Ledger does not balance", "", true);
}

function fact(bold, rest, isBad = false) {
  return make("span", { class: isBad && "bad" }, make("b", {}, bold), rest && ` ${rest}`);
}

/** Shows the bundle and what it was trained on. */
export function renderBundle() {
  const { bundle } = state.facts;
  if (!bundle) return;
  const sets = [].concat(bundle.trained_on ?? []);
  const isShort = sets.length <= NAMED_SETS;
  const id = String(bundle.id ?? "").slice(0, BUNDLE_ID_CHARACTERS);
  const judged = make(
    "p",
    {},
    `Judged by ${bundle.family ?? "a bundle"} `,
    make("span", { class: "mono" }, id),
    sets.length && isShort ? `, trained on ${sets.join(", ")}` : "",
  );
  const summary = make("summary", {}, `trained on ${integer(sets.length)} sets of traffic`);
  const list = isShort ? null : make("details", {}, summary, sets.join(", "));
  byId("bundle").replaceChildren(...[judged, list].filter(Boolean));
}
