"use strict";
/* The report's behaviour. Text from the traffic enters the page through textContent alone. */

const LEVELS = ["low", "medium", "high", "critical"];
const SEVERITY = { 21: "low", 47: "medium", 73: "high", 99: "critical" };
const ROW = 46;
const HOSTS = 50;
const $ = (id) => document.getElementById(id);
const words = (name) => String(name ?? "unknown").replaceAll("_", " ");
const number = new Intl.NumberFormat("en-GB");
const count = (n, one, many = `${one}s`) => `${number.format(n)} ${n === 1 ? one : many}`;

const state = {
  alerts: [], shown: [], hosts: [], facts: {}, selected: -1, open: null, hostsShown: HOSTS,
  filter: { text: "", levels: new Set(), classes: new Set(), host: null, period: null },
  sort: { by: "severity", down: true },
};

/* ---- small tools ---- */

/** An element; children that are strings become text nodes, never markup. */
function make(tag, properties = {}, ...children) {
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

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (value) => String(value).padStart(2, "0");
/** Moments in UTC, from ms since the epoch: 14:03:59 · 21 Nov 14:03:59 · 21 Nov 2026. */
const known = (write) => (ms) => (Number.isFinite(ms) ? write(new Date(ms)) : "–");
const hour = known((at) => `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`);
const instant = known((at) => `${hour(at.getTime())}.${String(at.getUTCMilliseconds()).padStart(3, "0")}`);
const when = known((at) => `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} ${hour(at.getTime())}`);
const day = known((at) => `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} ${at.getUTCFullYear()}`);

function span(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const split = (unit, part, [large, small]) => {
    const parts = Math.round(seconds / part), rest = parts % (unit / part);
    return `${Math.floor(parts / (unit / part))} ${large}${rest ? ` ${rest} ${small}` : ""}`;
  };
  if (seconds < 3600) return split(60, 1, ["min", "s"]);
  if (seconds < 86400) return split(3600, 60, ["h", "min"]);
  return split(86400, 3600, ["d", "h"]);
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (bytes >= 1000 && step < units.length - 1) { bytes /= 1000; step += 1; }
  return `${step && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[step]}`;
}

function plain(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return number.format(value);
  const magnitude = Math.abs(value);
  if (magnitude >= 1000) return number.format(Math.round(value));
  if (magnitude >= 0.01) return String(Number(value.toPrecision(3)));
  return value.toExponential(1);
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function unpack(script) {
  const packed = bytesOf(script.textContent);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

function toast(message) {
  $("toast").textContent = message;
  $("toast").classList.add("on");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => $("toast").classList.remove("on"), 1600);
}

async function copy(text, what) {
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
  toast(`${what} copied`);
}

/** A host's address; of a long one the middle gives way, for its end tells it apart. */
function address(host) {
  const text = String(host);
  if (text.length <= 17) return make("span", { class: "address mono" }, text);
  return make("span", { class: "address mono", title: text }, make("span", {}, text.slice(0, -10)), make("span", {}, text.slice(-10)));
}

/* ---- data ---- */

/** One entry a fold: its opening and its closing document together. */
function folded(rows) {
  const alerts = new Map();
  for (const row of rows) {
    const key = row.fold ?? row.id;
    const alert = alerts.get(key) ?? {};
    alert[row.state === "closed" ? "closing" : "opening"] = row;
    alerts.set(key, alert);
  }
  return [...alerts.values()].map(entry);
}

function entry({ opening, closing }) {
  const row = opening ?? closing, latest = closing ?? opening;
  const first = Date.parse(row.first);
  const alert = {
    id: row.id, host: row.host ?? "unknown", role: row.role, class: row.class, opening, closing,
    severity: Math.max(row.severity ?? 0, latest.severity ?? 0), risk: Math.max(row.risk ?? 0, latest.risk ?? 0),
    score: Math.max(row.score ?? 0, latest.score ?? 0), count: latest.count ?? 1,
    first, last: Math.max(first, Date.parse(latest.last) || first),
    message: latest.message ?? "", summary: row.summary ?? "",
  };
  alert.level = SEVERITY[alert.severity] ?? LEVELS[Math.min(3, Math.floor(alert.severity / 25))];
  const parts = [alert.host, words(alert.class), alert.class, alert.level, latest.message, row.summary, latest.summary, ...row.words, ...(closing?.words ?? [])];
  alert.text = parts.join("\n").toLowerCase();
  return alert;
}

/** The whole documents of an alert, unpacked from their chunks. */
async function documents(alert) {
  const load = async (row) => {
    if (!row) return null;
    const script = document.querySelectorAll("script.documents")[row.chunk];
    if (documents.chunk !== row.chunk) [documents.chunk, documents.held] = [row.chunk, unpack(script)];
    return (await documents.held)[row.place];
  };
  return { opening: await load(alert.opening), closing: await load(alert.closing) };
}

/** Hosts by risk: 1 − Π(1 − risk) over a host's distinct behaviours, so that several behaviours outrank one. */
function ranked(alerts) {
  const hosts = new Map();
  for (const alert of alerts) {
    const host = hosts.get(alert.host) ?? { name: alert.host, alerts: 0, risks: new Map(), level: 0 };
    const key = `${alert.role ?? ""}\n${alert.class}`;
    host.alerts += 1;
    host.level = Math.max(host.level, LEVELS.indexOf(alert.level));
    host.risks.set(key, Math.max(host.risks.get(key) ?? 0, alert.risk));
    hosts.set(alert.host, host);
  }
  for (const host of hosts.values()) {
    const left = [...host.risks.values()].reduce((product, risk) => product * (1 - Math.min(risk, 99.9) / 100), 1);
    host.risk = 100 * (1 - left);
  }
  return [...hosts.values()].sort((a, b) => b.risk - a.risk || b.alerts - a.alerts || (a.name < b.name ? -1 : 1));
}

/* ---- filters, sorting ---- */

const ORDER = {
  severity: (a, b) => a.severity - b.severity || a.risk - b.risk || b.first - a.first,
  host: (a, b) => compare(a.host, b.host) || a.first - b.first,
  behaviour: (a, b) => compare(words(a.class), words(b.class)) || a.first - b.first,
  flows: (a, b) => a.count - b.count,
  score: (a, b) => a.score - b.score,
  first: (a, b) => a.first - b.first,
};
const collator = new Intl.Collator("en", { numeric: true });
const compare = (a, b) => (a === b ? 0 : collator.compare(a, b));

function apply() {
  const { text, levels, classes, host, period } = state.filter;
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = state.shown[state.selected];
  state.shown = state.alerts.filter((alert) =>
    (!levels.size || levels.has(alert.level)) &&
    (!classes.size || classes.has(alert.class)) &&
    (host === null || alert.host === host) &&
    (period === null || (alert.first <= period[1] && alert.last >= period[0])) &&
    terms.every((term) => alert.text.includes(term)));
  state.selected = kept ? state.shown.indexOf(kept) : -1;
  $("list").scrollTop = 0;
  renderStatus();
  renderList();
  renderPressed();
}

function sortAlerts() {
  const order = ORDER[state.sort.by];
  state.alerts.sort(state.sort.down ? (a, b) => order(b, a) : order);
}

function toggle(set, value) {
  if (!set.delete(value)) set.add(value);
  apply();
}

function clearFilters() {
  Object.assign(state.filter, { text: "", levels: new Set(), classes: new Set(), host: null, period: null });
  $("text").value = "";
  clearBrush();
  apply();
}

const filtering = () => { const f = state.filter; return Boolean(f.text || f.levels.size || f.classes.size || f.host !== null || f.period); };

/* ---- headline ---- */

const sameDay = (a, b) => Math.floor(a / 864e5) === Math.floor(b / 864e5);

function renderHeadline() {
  const { alerts, hosts } = state;
  const { ledger } = state.facts;
  const total = sumLedger(ledger);
  const by = LEVELS.map((level) => [level, alerts.filter((alert) => alert.level === level).length]).reverse().filter(([, n]) => n);
  const flows = total.scored ?? 0;
  $("verdict").textContent = alerts.length
    ? `${count(alerts.length, "alert")} on ${count(hosts.length, "host")}: ${by.map(([level, n]) => `${number.format(n)} ${level}`).join(", ")}`
    : flows ? `Nothing over the threshold in ${count(flows, "flow")}` : "No flow was there to judge";
  const [start, end] = period();
  const balance = balanced(ledger, total);
  const facts = [
    Number.isFinite(start) ? fact(day(start), `${hour(start)} to ${sameDay(start, end) ? "" : `${day(end)} `}${hour(end)} UTC, ${span(end - start)}`) : null,
    fact(number.format(total.read ?? 0), `${(total.read ?? 0) === 1 ? "record" : "records"} read from ${count(sources(ledger).length, "source")}`),
    fact(number.format(flows), "flows scored"),
    total.rejected ? fact(number.format(total.rejected), "rejected", true) : null,
    total.suppressed ? fact(number.format(total.suppressed), "suppressed by the allow-list") : null,
    balance === null ? null : balance ? fact("Ledger balances", "") : fact("Ledger does not balance", "", true),
  ];
  state.oneDay = sameDay(start, end);
  $("alerts-section").style.setProperty("--when", state.oneDay ? "64px" : "112px");
  $("facts-line").replaceChildren(...facts.filter(Boolean));
}

const fact = (bold, rest, bad = false) => make("span", { class: bad && "bad" }, make("b", {}, bold), rest && ` ${rest}`);

function period() {
  const traffic = state.facts.traffic ?? [];
  const starts = traffic.map((bucket) => bucket.t / 1000).concat(state.alerts.map((alert) => alert.first).filter(Number.isFinite));
  const ends = traffic.map((bucket) => bucket.t / 1000 + bucketWidth()).concat(state.alerts.map((alert) => alert.last).filter(Number.isFinite));
  return [least(starts), -least(ends.map((end) => -end))];
}
const least = (values) => values.reduce((low, value) => (value < low ? value : low), Infinity);

function bucketWidth() {
  const traffic = state.facts.traffic ?? [];
  let width = Infinity;
  for (let i = 1; i < traffic.length; i += 1) width = Math.min(width, (traffic[i].t - traffic[i - 1].t) / 1000);
  return Number.isFinite(width) ? width : 60_000;
}

/* ---- ledger ---- */

const COUNTS = ["read", "parsed", "rejected", "duplicate", "replaced", "out_of_scope", "scored", "delayed", "over_threshold", "opened", "folded", "suppressed", "documents", "delivered", "refused", "pending"];
const amount = (value) => (value && typeof value === "object" ? Object.values(value).reduce((sum, part) => sum + amount(part), 0) : value ?? 0);
const sources = (ledger) => ledger?.sources ?? [];

function sumLedger(ledger) {
  if (ledger?.total) return Object.fromEntries(Object.entries(ledger.total).map(([name, value]) => [name, amount(value)]));
  const total = {};
  for (const source of sources(ledger)) for (const name of COUNTS) if (name in source) total[name] = (total[name] ?? 0) + amount(source[name]);
  return total;
}

/** The equations of the ledger that its counts can decide; null where there are no counts. */
function balanced(ledger, total) {
  if (typeof ledger?.balanced === "boolean") return ledger.balanced;
  if (!("read" in total)) return null;
  const of = (name) => total[name] ?? 0;
  return of("read") === of("parsed") + of("rejected") &&
    of("parsed") === of("scored") + of("duplicate") + of("replaced") + of("out_of_scope") &&
    of("over_threshold") === of("opened") + of("folded") + of("suppressed") &&
    of("documents") === of("delivered") + of("refused") + of("pending");
}

/** A note of the ledger in words: "default: rule private; networks 10.0.0.0/8, fc00::/7". */
function phrase(value) {
  if (Array.isArray(value)) return value.map(phrase).join(", ");
  if (value === null || typeof value !== "object") return plain(value);
  return Object.entries(value).map(([name, inner]) => `${words(name)}${inner && typeof inner === "object" && !Array.isArray(inner) ? ":" : ""} ${phrase(inner)}`).join("; ");
}

function renderLedger() {
  const { ledger } = state.facts;
  const total = sumLedger(ledger);
  const used = COUNTS.filter((name) => name in total || sources(ledger).some((source) => name in source));
  const line = (name, row, tag = "td") => make("tr", {}, make(tag, { class: "mono" }, name), ...used.map((column) => make("td", { class: "num" }, number.format(amount(row[column])))));
  const named = (source) => [source.sensor, source.source ?? source.name, source.path].filter(Boolean).join(" · ") || "–";
  const table = make("table", {},
    make("thead", {}, make("tr", {}, make("th", {}, "source"), ...used.map((name) => make("th", { class: "num" }, words(name))))),
    make("tbody", {}, ...sources(ledger).map((source) => line(named(source), source)), line("all", total, "th")));
  const reasons = sources(ledger).flatMap((source) => Object.entries(source)
    .filter(([, value]) => value && typeof value === "object" && !Array.isArray(value))
    .flatMap(([name, value]) => Object.entries(value).map(([reason, n]) => [words(name), reason, amount(n)])))
    .filter(([, , n]) => n);
  const why = reasons.length ? make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "outcome"), make("th", {}, "reason"), make("th", { class: "num" }, "records"))),
    make("tbody", {}, ...reasons.map(([name, reason, n]) => make("tr", {}, make("td", {}, name), make("td", {}, reason), make("td", { class: "num" }, number.format(n)))))) : null;
  const notes = Object.entries(ledger?.notes ?? {}).map(([name, value]) => [words(name), phrase(value)]);
  $("ledger-body").replaceChildren(table, ...part("Reasons", null, why), ...part("Notes", null, notes.length ? definitions(notes) : null));
}

/* ---- timeline ---- */

/** When each class was active, and the highest severity then: runs of at most 240 stretches of time. */
function lanes([start, end]) {
  const width = Math.max((end - start) / 240, 1);
  const cells = new Map();
  for (const alert of state.alerts) {
    if (!Number.isFinite(alert.first)) continue;
    const slots = cells.get(alert.class) ?? new Map();
    for (let slot = Math.floor((alert.first - start) / width); start + slot * width <= alert.last; slot += 1) {
      const cell = slots.get(slot) ?? { alerts: 0, rank: 0 };
      slots.set(slot, { alerts: cell.alerts + 1, rank: Math.max(cell.rank, LEVELS.indexOf(alert.level)) });
    }
    cells.set(alert.class, slots);
  }
  return [...cells].flatMap(([name, slots]) => runs(slots).map(({ from, to, alerts, rank }) => ({
    t: start + from * width, t2: Math.min(start + to * width, end), from: when(start + from * width), to: when(start + to * width), lane: words(name), alerts, level: LEVELS[rank],
  })));
}

/** Neighbouring slots with the same severity and number of alerts as one run. */
function runs(slots) {
  const found = [];
  for (const [slot, { alerts, rank }] of [...slots].sort((a, b) => a[0] - b[0])) {
    const last = found.at(-1);
    if (last && last.to === slot && last.rank === rank && last.alerts === alerts) last.to = slot + 1;
    else found.push({ from: slot, to: slot + 1, alerts, rank });
  }
  return found;
}

async function renderTimeline() {
  const covered = period();
  if (!Number.isFinite(covered[0])) return;
  $("timeline-section").hidden = false;
  $("timeline-hint").hidden = !state.alerts.length;
  const width = bucketWidth();
  const traffic = (state.facts.traffic ?? []).map((bucket) => ({ t: bucket.t / 1000, t2: Math.min(bucket.t / 1000 + width, covered[1]), from: when(bucket.t / 1000), flows: bucket.flows, size: size(bucket.bytes) }));
  const names = [...new Set(state.alerts.map((alert) => words(alert.class)))].sort();
  const plotWidth = Math.max(200, $("timeline").clientWidth - 148 - 44);
  const spec = charts.timeline(traffic, lanes(covered), names, covered, plotWidth);
  const view = await charts.draw($("timeline"), spec, "Flows over time, and when each behaviour was active");
  if (!state.alerts.length) return;
  view.addSignalListener("period", (_, value) => {
    const range = Object.values(value ?? {})[0];
    state.filter.period = range ? [Number(range[0]), Number(range[1])] : null;
    clearTimeout(renderTimeline.timer);
    renderTimeline.timer = setTimeout(apply, 40);
  });
}

function clearBrush() {
  if (state.filter.period !== null || $("timeline").view) renderTimeline();
  state.filter.period = null;
}

/* ---- hosts ---- */

function renderHosts() {
  const acts = (host) => [...host.risks].sort((a, b) => b[1] - a[1]).map(([key]) => {
    const [role, name] = key.split("\n");
    return role === "target" ? `${words(name)} (target)` : words(name);
  }).join(", ");
  const items = state.hosts.slice(0, state.hostsShown).map((host) => make("li", {},
    make("button", { type: "button", class: "host", "data-host": host.name, "aria-pressed": "false", title: `risk ${host.risk.toFixed(1)} of 100 over ${count(host.risks.size, "behaviour")}`,
      onclick: () => { state.filter.host = state.filter.host === host.name ? null : host.name; apply(); } },
      make("span", { class: "risk" }, host.risk > 99.5 ? "99+" : String(Math.round(host.risk))),
      address(host.name),
      make("span", { class: `total ${LEVELS[host.level]}` }, severityMark(LEVELS[host.level], number.format(host.alerts))),
      make("span", { class: "doing" }, acts(host)))));
  $("hosts").replaceChildren(...items);
  const more = state.hosts.length - state.hostsShown;
  $("hosts-more").hidden = more <= 0;
  $("hosts-more").textContent = `Show ${Math.min(more, HOSTS)} more of ${number.format(more)}`;
}

const severityMark = (level, text) => {
  const steps = LEVELS.map((_, step) => make("b", { class: step <= LEVELS.indexOf(level) && "on" }));
  return make("span", { class: `sev ${level}` }, make("i", { "aria-hidden": "true" }, ...steps), text);
};

/* ---- filter bar ---- */

function chip(text, n, className, data, onclick) {
  return make("button", { type: "button", class: `chip ${className}`, "aria-pressed": "false", ...data, onclick }, text, make("span", { class: "n" }, number.format(n)));
}

function renderFilters() {
  const tally = (key) => state.alerts.reduce((all, alert) => all.set(alert[key], (all.get(alert[key]) ?? 0) + 1), new Map());
  const levels = tally("level"), classes = [...tally("class")].sort((a, b) => b[1] - a[1]);
  $("severities").replaceChildren(...[...LEVELS].reverse().filter((level) => levels.has(level)).map((level) =>
    chip(level, levels.get(level), level, { "data-level": level }, () => toggle(state.filter.levels, level))));
  $("classes").replaceChildren(...classes.map(([name, n]) =>
    chip(words(name), n, "", { "data-class": name }, () => toggle(state.filter.classes, name))));
}

function renderPressed() {
  const { levels, classes, host } = state.filter;
  for (const button of $("severities").children) button.setAttribute("aria-pressed", levels.has(button.dataset.level));
  for (const button of $("classes").children) button.setAttribute("aria-pressed", classes.has(button.dataset.class));
  for (const button of document.querySelectorAll(".host")) button.setAttribute("aria-pressed", button.dataset.host === host);
}

function renderStatus() {
  const { shown, alerts, filter } = state;
  $("count").textContent = filtering() ? `${number.format(shown.length)} of ${count(alerts.length, "alert")}` : count(alerts.length, "alert");
  const chips = [];
  if (filter.host !== null) chips.push(make("button", { type: "button", class: "chip", "aria-pressed": "true", onclick: () => { filter.host = null; apply(); } }, make("span", { class: "mono" }, filter.host), " ×"));
  if (filter.period) chips.push(make("button", { type: "button", class: "chip", "aria-pressed": "true", onclick: () => { clearBrush(); apply(); } }, `${when(filter.period[0])} – ${when(filter.period[1])} ×`));
  if (filtering()) chips.push(make("button", { type: "button", class: "link", id: "clear", onclick: clearFilters }, "clear all"));
  $("active").replaceChildren(...chips);
}

/* ---- list ---- */

const COLUMNS = [["severity", "Severity"], ["host", "Host"], ["behaviour", "Behaviour"], [null, "What happened"], ["flows", "Flows", "num"], ["score", "Score", "num"], ["first", "First seen", "num"]];

function renderHead() {
  $("head").replaceChildren(...COLUMNS.map(([by, title, kind = ""]) => by
    ? make("span", { class: kind }, make("button", { type: "button", tabindex: "-1", "data-sorted": state.sort.by === by ? (state.sort.down ? "↓" : "↑") : null, onclick: () => resort(by) }, title))
    : make("span", {}, title)));
}

function resort(by) {
  state.sort = { by, down: state.sort.by === by ? !state.sort.down : by !== "host" && by !== "behaviour" && by !== "first" };
  sortAlerts();
  renderHead();
  apply();
}

function nextSort() {
  const names = Object.keys(ORDER);
  resort(names[(names.indexOf(state.sort.by) + 1) % names.length]);
  toast(`sorted by ${state.sort.by}`);
}

function rowOf(alert, index) {
  const chosen = index === state.selected;
  return make("div", { class: "row", role: "option", id: `row-${index}`, "data-index": index, "aria-selected": String(chosen), "aria-posinset": index + 1, "aria-setsize": state.shown.length },
    severityMark(alert.level, alert.level),
    address(alert.host),
    make("span", {}, words(alert.class)),
    make("span", { class: "what" }, make("b", {}, deed(alert.message, alert.host)), deed(alert.summary, alert.host)),
    make("span", { class: "num" }, number.format(alert.count)),
    make("span", { class: "num" }, alert.score.toFixed(3)),
    make("span", { class: "muted num" }, state.oneDay ? hour(alert.first) : when(alert.first)));
}

/** A sentence without the host it starts with, which stands in a column of its own. */
const deed = (text, host) => (text.startsWith(`${host} `) ? text.slice(host.length + 1) : text);

/** Draws the rows in sight (all of them, up to 300, on paper). */
function renderList(paper = false) {
  const { shown } = state;
  const list = $("list"), rows = $("rows");
  list.style.height = shown.length ? `min(62vh, ${shown.length * ROW + 1}px)` : "auto";
  list.style.minHeight = shown.length ? `${Math.min(shown.length, 4) * ROW + 1}px` : "0";
  rows.style.height = `${shown.length * ROW}px`;
  if (!shown.length) {
    rows.style.height = "auto";
    rows.replaceChildren(make("div", { class: "nothing" }, make("strong", {}, "No alert matches"), make("button", { type: "button", class: "link", onclick: clearFilters }, "Clear the filters")));
    list.removeAttribute("aria-activedescendant");
    return;
  }
  const from = paper ? 0 : Math.max(0, Math.floor(list.scrollTop / ROW) - 8);
  const to = paper ? 300 : Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 8;
  const drawn = shown.slice(from, to).map((alert, place) => {
    const row = rowOf(alert, from + place);
    row.style.top = `${(from + place) * ROW}px`;
    return row;
  });
  rows.replaceChildren(...drawn);
  $("head").style.paddingRight = `${list.offsetWidth - list.clientWidth + 16}px`;
  if (state.selected >= from && state.selected < to) list.setAttribute("aria-activedescendant", `row-${state.selected}`);
  else list.removeAttribute("aria-activedescendant");
}

function select(index, { reopen = true } = {}) {
  if (!state.shown.length) return;
  state.selected = Math.max(0, Math.min(state.shown.length - 1, index));
  const list = $("list"), top = state.selected * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  renderList();
  if (reopen && state.open) openAlert(state.shown[state.selected]);
}

/* ---- evidence ---- */

async function openAlert(alert) {
  if (!alert) return;
  state.open = alert;
  const { opening, closing } = await documents(alert);
  if (state.open !== alert) return;
  history.replaceState(null, "", `#${encodeURIComponent(alert.id)}`);
  renderEvidence(alert, opening ?? closing, closing);
}

function closeAlert() {
  state.open = null;
  $("evidence").hidden = true;
  $("evidence").replaceChildren();
  history.replaceState(null, "", "#");
  $("list").focus({ preventScroll: true });
}

/** The panel of one alert; `told` is the document whose evidence is shown, the opening one or the closing one. */
function renderEvidence(alert, told, closing) {
  const panel = $("evidence");
  const own = told.ids_plugin ?? {}, evidence = own.evidence ?? {};
  const flows = [...(evidence.flows ?? [])].sort((a, b) => b.lag - a.lag);
  const strip = make("div", { class: "chart", id: "strip" }), bars = make("div", { class: "chart", id: "bars" }), votes = make("div", { class: "chart", id: "votes" }), behaviours = make("div", { class: "chart", id: "behaviours" });
  panel.replaceChildren(...[
    evidenceBar(alert),
    make("p", { class: "summary" }, evidence.summary ?? told.message ?? "No sentence was kept with this alert."),
    evidenceTabs(alert, told, closing),
    factsOf(alert, told),
    ...part("Flows the decision looked at", whichFlows(flows), flows.length ? strip : null),
    flows.length ? flowTable(flows) : null,
    ...part("What was unusual", methodOf(evidence), (evidence.features ?? []).length ? bars : null),
    ...part("Each model by itself", "0 benign, 1 not; the mark is the threshold of the decision", votes),
    ...part("Named behaviours of the acting host", "0–1", Object.keys(evidence.behaviours ?? {}).length ? behaviours : null),
    ...totalsOf(closing),
    ...part("Ids", null, idsOf(told)),
    make("details", {}, make("summary", {}, "The whole document"), make("pre", { tabindex: "0" }, JSON.stringify(told, null, 2))),
  ].filter(Boolean));
  panel.hidden = false;
  panel.scrollTop = 0;
  if (!panel.contains(document.activeElement)) panel.focus({ preventScroll: true });
  drawEvidence({ strip, bars, votes, behaviours }, own, flows);
}

const pairOf = (flow) => [flow.orig_h, flow.resp_h].sort().join("\n");

function whichFlows(flows) {
  const ofPair = flows.every((flow) => pairOf(flow) === pairOf(flows.at(-1)));
  return ofPair ? "weight in the decision, oldest left; absent steps had no flow" : "the host's flows before this one, as its pair had none; oldest left";
}

function drawEvidence({ strip, bars, votes, behaviours }, own, flows) {
  const width = votes.clientWidth;
  const steps = flows.map((flow) => ({
    weight: flow.weight, title: `${ends(flow)} ${flow.conn_state ?? ""}`,
    step: `${flow.lag ? `−${flow.lag}` : "this flow"}|${flow.conn_state ?? flow.proto ?? ""}`,
  }));
  if (steps.length) charts.draw(strip, charts.strip(steps), "Weight of the earlier flows");
  const features = [...(own.evidence?.features ?? [])].sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution));
  const rows = features.map(featureRow);
  if (rows.length) charts.draw(bars, charts.features(rows, width), "Contribution of each feature, seen beside expected");
  const scores = [{ model: "decision", score: own.score ?? 0, decides: true },
    ...Object.entries(own.scores ?? {}).filter(([, score]) => score !== null).map(([model, score]) => ({ model: words(model), score, decides: false }))];
  const named = Object.entries(own.evidence?.behaviours ?? {}).map(([model, score]) => ({ model: words(model), score, decides: false })).sort((a, b) => b.score - a.score);
  if (named.length) charts.draw(behaviours, charts.scores(named, null, width), "Named behaviours");
  charts.draw(votes, charts.scores(scores, own.threshold ?? null, width), "Score of each model beside the threshold");
}

/** A row of the chart of features; documents of older versions have no texts beside their numbers. */
const featureRow = ({ name, label, contribution, value, value_text: seen, expected, expected_text: usual, text }) => ({
  name, contribution, label: label ?? text ?? words(name), text: text ?? words(name), seen: seen ?? plain(value), expected: usual ?? plain(expected),
});

const part = (title, hint, body) => (body ? [make("h4", {}, title, hint ? make("span", { class: "hint" }, hint) : null), body] : []);

function evidenceBar(alert) {
  const step = (by, text, label) => make("button", { type: "button", "aria-label": label, onclick: () => select(Math.max(0, state.selected) + by) }, text);
  return make("div", { class: "bar" }, severityMark(alert.level, alert.level),
    make("h3", { id: "evidence-title" }, `${words(alert.class)} · `, make("span", { class: "mono" }, alert.host)),
    make("span", { class: "grow" }),
    make("span", { class: "muted" }, state.selected >= 0 ? `${number.format(state.selected + 1)} of ${number.format(state.shown.length)}` : ""),
    step(-1, "↑", "Previous alert"), step(1, "↓", "Next alert"),
    make("button", { type: "button", id: "evidence-close", "aria-label": "Close", onclick: closeAlert }, "Close"));
}

/** The opening flow's evidence or the strongest one's, where the closing document has another. */
function evidenceTabs(alert, told, closing) {
  if (!closing || !alert.opening || !closing.ids_plugin?.evidence) return null;
  const tab = (text, row, chosen) => make("button", { type: "button", class: "chip", "aria-pressed": String(chosen),
    onclick: async () => { const both = await documents(alert); renderEvidence(alert, both[row], both.closing); } }, text);
  const last = told === closing || told.ids_plugin?.fold?.state === "closed";
  return make("div", { class: "chips", role: "group", "aria-label": "Which flow" }, tab("the flow that opened it", "opening", !last), tab("the strongest flow", "closing", last));
}

function interval({ first, last }) {
  if (!(last > first)) return when(first);
  return `${when(first)} – ${sameDay(first, last) ? hour(last) : when(last)} (${span(last - first)})`;
}

function factsOf(alert, told) {
  const own = told.ids_plugin ?? {};
  const techniques = techniquesOf(told.threat);
  const entries = [
    ["Time (UTC)", interval(alert)],
    ["Flows over the threshold", number.format(alert.count) + (alert.closing ? "" : " at opening; no closing totals")],
    ["The host", alert.role === "target" ? "is acted upon" : "acts"],
    ["Score", `${plain(own.score)} (threshold ${plain(own.threshold)}), risk ${plain(alert.risk)}`],
    techniques.length && ["ATT&CK", techniques],
    ["Model", [own.bundle?.family, own.bundle?.version].filter(Boolean).join(" ") || "–"],
    told.observer?.name && ["Sensor", told.observer.name],
  ].filter(Boolean);
  return definitions(entries);
}

/** Every ATT&CK technique as a link that is followed only when it is clicked. */
function techniquesOf(threat) {
  const list = (value) => [].concat(value ?? []);
  const ids = list(threat?.technique?.id), names = list(threat?.technique?.name);
  return ids.flatMap((id, place) => {
    const text = `${id} ${names[place] ?? ""}`;
    const link = /^T\d{4}(\.\d{3})?$/.test(id)
      ? make("a", { href: `https://attack.mitre.org/techniques/${id.replace(".", "/")}/`, target: "_blank", rel: "noopener noreferrer" }, text) : text;
    return place ? [make("br"), link] : [link];
  });
}

const endpoint = (host, port) => (port === null || port === undefined ? host : String(host).includes(":") ? `[${host}]:${port}` : `${host}:${port}`);
const ends = (flow) => (flow.proto === "icmp"
  ? `${flow.orig_h} → ${flow.resp_h} type ${plain(flow.orig_p)} code ${plain(flow.resp_p)}`
  : `${endpoint(flow.orig_h, flow.orig_p)} → ${endpoint(flow.resp_h, flow.resp_p)}`);

function flowTable(flows) {
  const head = ["", "start (UTC)", "flow", "proto", "state", "duration", "sent", "received", "weight", "uid"];
  const body = flows.map((flow) => make("tr", { "data-lag": flow.lag },
    make("td", { class: "num" }, flow.lag ? `−${flow.lag}` : "this"),
    make("td", {}, instant(Date.parse(flow.ts))),
    make("td", { class: "mono" }, ends(flow)),
    make("td", {}, [flow.proto, flow.service].filter(Boolean).join(" ")),
    make("td", { class: "mono" }, flow.conn_state ?? "–"),
    make("td", { class: "num" }, flow.duration === null || flow.duration === undefined ? "–" : span(flow.duration * 1000)),
    make("td", { class: "num" }, size(flow.orig_bytes)),
    make("td", { class: "num" }, size(flow.resp_bytes)),
    make("td", { class: "num" }, `${Math.round(flow.weight * 100)} %`),
    make("td", {}, copyable(flow.uid, "uid"))));
  const numeric = new Set([0, 5, 6, 7, 8]);
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Flows" },
    make("table", { id: "flows" }, make("thead", {}, make("tr", {}, ...head.map((name, place) => make("th", { class: numeric.has(place) && "num" }, name)))), make("tbody", {}, ...body)));
}

const copyable = (text, what) => (text ? make("button", { type: "button", class: "bare mono", title: `copy ${what}`, onclick: () => copy(text, what) }, text) : "–");

function methodOf(evidence) {
  const found = [evidence.method];
  if (evidence.faithfulness !== null && evidence.faithfulness !== undefined) found.push(`without it the score falls by ${plain(evidence.faithfulness)}`);
  return found.filter(Boolean).join("; ");
}

/** Totals of the closed fold: how much it was, and its busiest peers and ports. */
function totalsOf(closing) {
  const fold = closing?.ids_plugin?.fold;
  if (!fold) return [];
  const amounts = [
    ["flows over the threshold", number.format(fold.count)],
    fold.peers && ["peers", `${fold.peers_relation === "gte" ? "more than " : ""}${number.format(fold.peers)}`],
    fold.ports && ["ports", number.format(fold.ports)],
    fold.packets && ["packets", number.format(fold.packets)],
    fold.orig_bytes !== undefined && ["sent by originators", size(fold.orig_bytes)],
    fold.resp_bytes !== undefined && ["sent by responders", size(fold.resp_bytes)],
    fold.closed_by && ["ended by", { quiet: "30 min without a flow", day: "24 h", end: "end of the input" }[fold.closed_by] ?? fold.closed_by],
  ].filter(Boolean);
  const top = (title, items, name) => (items?.length ? make("table", {},
    make("thead", {}, make("tr", {}, make("th", {}, title), make("th", { class: "num" }, "flows"))),
    make("tbody", {}, ...items.map((item) => make("tr", {}, make("td", { class: "mono" }, String(item[name])), make("td", { class: "num" }, plain(item.count)))))) : null);
  const tables = [top("busiest peers", fold.top_peers, "ip"), top("busiest ports", fold.top_ports, "port")].filter(Boolean);
  return part("The whole behaviour", null, make("div", {}, definitions(amounts), make("div", { class: "totals" }, ...tables)));
}

const definitions = (entries) => make("dl", { class: "facts" }, ...entries.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));

function idsOf(told) {
  const ids = identifiers(told);
  const line = ([name, value, key]) => [make("dt", {}, name), make("dd", { class: "mono" }, value), make("dd", {}, make("button", { type: "button", "data-copy": name, onclick: () => copy(value, name) }, "Copy ", key ? make("kbd", {}, key) : null))];
  return make("dl", { class: "ids" }, ...ids.flatMap(line));
}

function identifiers(told) {
  const one = (value) => (Array.isArray(value) ? value[0] : value);
  return [["uid", one(told.zeek?.session_id), "u"], ["community id", one(told.network?.community_id), "c"], ["event id", told.event?.id, "e"],
    ["fold id", told.ids_plugin?.fold?.id], ["bundle", told.ids_plugin?.bundle?.id]].filter(([, value]) => value);
}

/* ---- keyboard, theme, start ---- */

const typing = (target) => target.matches?.("input, textarea, select");

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { key, target } = event;
  if (key === "Escape") return escape();
  if (typing(target)) {
    if (key === "Enter" || key === "ArrowDown") { event.preventDefault(); $("list").focus(); select(Math.max(0, state.selected)); }
    return;
  }
  const page = Math.max(1, Math.floor($("list").clientHeight / ROW) - 1), inList = target === $("list") || target === document.body || $("evidence").contains(target);
  const at = state.selected;
  const moves = { j: at + 1, k: Math.max(0, at - 1), ...(target === $("list") && { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), PageDown: at + page, PageUp: at - page, Home: 0, End: Infinity }) };
  if (key in moves && inList) { event.preventDefault(); return select(moves[key]); }
  if (key === "Enter" && (target === $("list") || target === document.body)) { event.preventDefault(); return openAlert(state.shown[Math.max(0, at)]); }
  const copies = { u: 0, c: 1, e: 2 };
  if (state.open && key in copies) return copyId(["u", "c", "e"][copies[key]]);
  const others = { "/": () => { event.preventDefault(); $("text").focus(); $("text").select(); }, "?": () => $("keys").showModal(), t: nextTheme, s: nextSort };
  if (key in others) return others[key]();
  if ("1234".includes(key) && state.alerts.length) toggle(state.filter.levels, LEVELS[Number(key) - 1]);
}

async function copyId(key) {
  const { opening, closing } = await documents(state.open);
  const found = identifiers(opening ?? closing).find(([, , shortcut]) => shortcut === key);
  if (found) copy(found[1], found[0]);
}

function escape() {
  if (state.open) return closeAlert();
  if (filtering()) clearFilters();
  $("list").focus({ preventScroll: true });
}

const THEMES = ["auto", "light", "dark"];
function setTheme(theme) {
  const dark = theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  setTheme.now = theme;
  $("theme").textContent = `Theme: ${theme}`;
}
const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(setTheme.now) + 1) % THEMES.length]);

function listen() {
  document.addEventListener("keydown", onKey);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("text").addEventListener("input", (event) => { state.filter.text = event.target.value; apply(); });
  $("list").addEventListener("scroll", () => requestAnimationFrame(() => renderList()), { passive: true });
  $("rows").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    select(Number(row.dataset.index), { reopen: false });
    openAlert(state.shown[state.selected]);
  });
  $("hosts-more").addEventListener("click", () => { state.hostsShown += HOSTS; renderHosts(); renderPressed(); });
  $("theme").addEventListener("click", nextTheme);
  $("keys-open").addEventListener("click", () => $("keys").showModal());
  $("licences-open").addEventListener("click", () => $("licences").showModal());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(setTheme.now));
  let before = "auto";
  addEventListener("beforeprint", () => { before = setTheme.now; setTheme("light"); renderList(true); $("ledger").open = true; });
  addEventListener("afterprint", () => { setTheme(before); renderList(); });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width === innerWidth) return;
    width = innerWidth;
    clearTimeout(listen.timer);
    listen.timer = setTimeout(() => { renderTimeline(); renderList(); if (state.open) openAlert(state.open); }, 150);
  });
}

async function load() {
  state.facts = JSON.parse($("facts").textContent);
  const chunks = await Promise.all([...document.querySelectorAll("script.rows")].map(unpack));
  const size = state.facts.chunk;
  const rows = chunks.flat().map((row, index) => Object.assign(row, { chunk: Math.floor(index / size), place: index % size }));
  state.alerts = folded(rows);
  state.hosts = ranked(state.alerts);
}

function renderBundle() {
  const { bundle } = state.facts;
  if (!bundle) return;
  const trained = [].concat(bundle.trained_on ?? []);
  const judged = make("p", {}, `Judged by ${bundle.family ?? "a bundle"} `, make("span", { class: "mono" }, String(bundle.id ?? "").slice(0, 16)), trained.length && trained.length < 4 ? `, trained on ${trained.join(", ")}` : "");
  const list = trained.length < 4 ? null : make("details", {}, make("summary", {}, `trained on ${number.format(trained.length)} sets of traffic`), trained.join(", "));
  $("bundle").replaceChildren(...[judged, list].filter(Boolean));
}

function renderAll() {
  renderHeadline();
  renderLedger();
  renderBundle();
  if (state.alerts.length) {
    $("main").hidden = false;
    sortAlerts();
    renderHosts();
    renderFilters();
    renderHead();
    apply();
  } else {
    $("ledger").open = true;
  }
  renderTimeline();
}

async function start() {
  setTheme("auto");
  if (typeof DecompressionStream === "undefined") throw new Error("this browser can't unpack the alerts (it has no DecompressionStream; Chrome 103, Firefox 113, Safari 16.4 and later do)");
  await load();
  listen();
  renderAll();
  const asked = decodeURIComponent(location.hash.slice(1));
  const index = asked ? state.shown.findIndex((alert) => alert.opening?.id === asked || alert.closing?.id === asked) : -1;
  if (index >= 0) { select(index, { reopen: false }); openAlert(state.shown[index]); }
  document.documentElement.dataset.ready = "true";
  performance.mark("ready");
}

start().catch((error) => {
  $("verdict").textContent = "This report could not be shown";
  $("problem").hidden = false;
  $("problem").textContent = `${error.message}. The same alerts are in alerts.ndjson beside this file.`;
});
