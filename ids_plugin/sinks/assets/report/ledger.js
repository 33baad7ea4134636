/* The ledger: sums, whether it balances, and its tables. */

import { byId, definitions, make, section, table, tableRow } from "./page.js";
import { integer, nestedValue, words } from "./text.js";

const COUNTS = [
  "read",
  "parsed",
  "rejected",
  "duplicate",
  "replaced",
  "out_of_scope",
  "scored",
  "delayed",
  "over_threshold",
  "opened",
  "folded",
  "suppressed",
  "documents",
  "delivered",
  "refused",
  "pending",
];

/** A count of the ledger; the sum of its parts where it is split by reason. */
export function amount(value) {
  if (!value || typeof value !== "object") return value ?? 0;
  return Object.values(value).reduce((sum, part) => sum + amount(part), 0);
}

/** The entries of the sources. */
export function sourcesOf(ledger) {
  return ledger?.sources ?? [];
}

/** The counts of all sources together. */
export function totalOf(ledger) {
  if (ledger?.total) {
    const counts = Object.entries(ledger.total).map(([name, value]) => [name, amount(value)]);
    return Object.fromEntries(counts);
  }
  const total = {};
  for (const source of sourcesOf(ledger)) {
    for (const name of COUNTS) {
      if (name in source) total[name] = (total[name] ?? 0) + amount(source[name]);
    }
  }
  return total;
}

/** Whether the equations hold that the ledger's counts can decide; null where it has no counts. */
export function isBalanced(ledger, total) {
  if (typeof ledger?.balanced === "boolean") return ledger.balanced;
  if (!("read" in total)) return null;
  const sum = (...names) => names.reduce((all, name) => all + (total[name] ?? 0), 0);
  return (
    sum("read") === sum("parsed", "rejected") &&
    sum("parsed") === sum("scored", "duplicate", "replaced", "out_of_scope") &&
    sum("over_threshold") === sum("opened", "folded", "suppressed") &&
    sum("documents") === sum("delivered", "refused", "pending")
  );
}

/** Shows the ledger: a row for each source, the reasons behind its counts, the notes. */
export function renderLedger(ledger) {
  const notes = Object.entries(ledger?.notes ?? {});
  const noteList = notes.map(([name, value]) => [words(name), nestedValue(value)]);
  byId("ledger-body").replaceChildren(
    countTable(ledger),
    ...section("Reasons", null, reasonTable(ledger)),
    ...section("Notes", null, noteList.length ? definitions(noteList) : null),
  );
}

function countTable(ledger) {
  const total = totalOf(ledger);
  const sources = sourcesOf(ledger);
  const columns = COUNTS.filter(
    (name) => name in total || sources.some((source) => name in source),
  );
  const row = (name, counts, nameTag) => {
    const cells = columns.map((column) =>
      make("td", { class: "num" }, integer(amount(counts[column]))),
    );
    return make("tr", {}, make(nameTag, { class: "mono" }, name), ...cells);
  };
  const head = [["source"], ...columns.map((name) => [words(name), "num"])];
  const rows = sources.map((source) => row(sourceName(source), source, "td"));
  return table(head, [...rows, row("all", total, "th")]);
}

function sourceName(source) {
  const parts = [source.sensor, source.source ?? source.name, source.path].filter(Boolean);
  return parts.join(" · ") || "–";
}

function reasonTable(ledger) {
  const reasons = sourcesOf(ledger).flatMap(reasonsOf);
  if (!reasons.length) return null;
  const rows = reasons.map(([outcome, reason, records]) =>
    tableRow([[outcome], [reason], [integer(records), "num"]]),
  );
  return table([["outcome"], ["reason"], ["records", "num"]], rows);
}

/** [outcome, reason, records] for every count of a source that is split by reason. */
function reasonsOf(source) {
  const split = Object.entries(source).filter(
    ([, value]) => value && typeof value === "object" && !Array.isArray(value),
  );
  const reasons = split.flatMap(([outcome, parts]) =>
    Object.entries(parts).map(([reason, part]) => [words(outcome), reason, amount(part)]),
  );
  return reasons.filter(([, , records]) => records);
}
