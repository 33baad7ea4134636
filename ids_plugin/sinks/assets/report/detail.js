/* The panel of one alert: what it says, the flows and features behind it, its totals and ids. */

import { drawChart, featureChart, flowChart, scoreChart } from "./charts.js";
import { documentsOf } from "./data.js";
import {
  button,
  byId,
  copyButton,
  copyText,
  definitions,
  make,
  section,
  severityMark,
  table,
  tableRow,
} from "./page.js";
import { select, state, subscribe } from "./state.js";
import {
  byteSize,
  dateAndTime,
  duration,
  flowEnds,
  integer,
  isSameDay,
  plainValue,
  preciseTimeOfDay,
  timeOfDay,
  words,
} from "./text.js";

const CLOSED_BY = { quiet: "30 min without a flow", day: "24 h", end: "end of the input" };
const TECHNIQUE_ID = /^T\d{4}(\.\d{3})?$/;

/** Opens the panel of an alert. */
export async function openAlert(alert) {
  if (!alert) return;
  state.open = alert;
  const { opening, closing } = await documentsOf(alert);
  if (state.open !== alert) return;
  history.replaceState(null, "", `#${encodeURIComponent(alert.id)}`);
  renderPanel(alert, opening ?? closing, closing);
}

/** Closes the panel; the list gets the focus. */
export function closeAlert() {
  state.open = null;
  byId("evidence").hidden = true;
  byId("evidence").replaceChildren();
  history.replaceState(null, "", "#");
  byId("list").focus({ preventScroll: true });
}

/** Copies the id of the open alert that has a shortcut key: u, c or e. */
export async function copyId(key) {
  const { opening, closing } = await documentsOf(state.open);
  const entry = idsOf(opening ?? closing).find(({ shortcut }) => shortcut === key);
  if (entry) copyText(entry.value, entry.name);
}

/**
 * Shows `shown`, the opening or the closing document of an alert; `closing` has the totals of its
 * group and may be null.
 */
function renderPanel(alert, shown, closing) {
  const panel = byId("evidence");
  const own = shown.ids_plugin ?? {};
  const evidence = own.evidence ?? {};
  const flows = [...(evidence.flows ?? [])].sort((left, right) => right.lag - left.lag);
  const charts = Object.fromEntries(
    ["strip", "bars", "votes", "behaviours"].map((id) => [id, make("div", { class: "chart", id })]),
  );
  const noSentence = "No sentence was kept with this alert.";
  const parts = [
    titleBar(alert),
    make("p", { class: "summary" }, evidence.summary ?? shown.message ?? noSentence),
    documentTabs(alert, shown, closing),
    factList(alert, shown),
    ...evidenceSections(evidence, flows, charts),
    ...totalsSection(closing),
    ...section("Ids", null, idList(shown)),
    wholeDocument(shown),
  ];
  panel.replaceChildren(...parts.filter(Boolean));
  panel.hidden = false;
  panel.scrollTop = 0;
  if (!panel.contains(document.activeElement)) panel.focus({ preventScroll: true });
  drawCharts(charts, own, flows);
}

function evidenceSections(evidence, flows, charts) {
  const hasFeatures = (evidence.features ?? []).length > 0;
  const hasBehaviours = Object.keys(evidence.behaviours ?? {}).length > 0;
  const votesHint = "0 benign, 1 not; the mark is the threshold of the decision";
  return [
    ...section("Flows the decision looked at", flowsHint(flows), flows.length && charts.strip),
    flows.length ? flowTable(flows) : null,
    ...section("What was unusual", methodHint(evidence), hasFeatures && charts.bars),
    ...section("Each model by itself", votesHint, charts.votes),
    ...section("Named behaviours of the acting host", "0–1", hasBehaviours && charts.behaviours),
  ];
}

function wholeDocument(shown) {
  const text = JSON.stringify(shown, null, 2);
  const summary = make("summary", {}, "The whole document");
  return make("details", {}, summary, make("pre", { tabindex: "0" }, text));
}

const hostPair = (flow) => [flow.orig_h, flow.resp_h].sort().join("\n");

function flowsHint(flows) {
  const isOnePair = flows.every((flow) => hostPair(flow) === hostPair(flows.at(-1)));
  return isOnePair
    ? "weight in the decision, oldest left; absent steps had no flow"
    : "the host's flows before this one, as its pair had none; oldest left";
}

function methodHint({ method, faithfulness }) {
  const hints = [method];
  if (faithfulness !== null && faithfulness !== undefined) {
    hints.push(`without it the score falls by ${plainValue(faithfulness)}`);
  }
  return hints.filter(Boolean).join("; ");
}

function drawCharts(charts, own, flows) {
  const width = charts.votes.clientWidth;
  if (flows.length) {
    drawChart(charts.strip, flowChart(flows.map(flowStep)), "Weight of the earlier flows");
  }
  const features = [...(own.evidence?.features ?? [])]
    .sort((left, right) => Math.abs(right.contribution) - Math.abs(left.contribution))
    .map(featureRow);
  if (features.length) {
    const label = "Contribution of each feature, seen beside expected";
    drawChart(charts.bars, featureChart(features, width), label);
  }
  const behaviours = scoreRows(own.evidence?.behaviours).sort(
    (left, right) => right.score - left.score,
  );
  if (behaviours.length) {
    drawChart(charts.behaviours, scoreChart(behaviours, null, width), "Named behaviours");
  }
  const decision = { model: "decision", score: own.score ?? 0, decides: true };
  const scores = scoreChart([decision, ...scoreRows(own.scores)], own.threshold ?? null, width);
  drawChart(charts.votes, scores, "Score of each model beside the threshold");
}

function flowStep(flow) {
  const name = flow.lag ? `−${flow.lag}` : "this flow";
  return {
    weight: flow.weight,
    title: `${flowEnds(flow)} ${flow.conn_state ?? ""}`,
    step: `${name}|${flow.conn_state ?? flow.proto ?? ""}`,
  };
}

/** A row of the chart of features; documents of older versions have no texts of their numbers. */
export function featureRow(feature) {
  const text = feature.text ?? words(feature.name);
  return {
    name: feature.name,
    label: feature.label ?? text,
    contribution: feature.contribution,
    seen: feature.value_text ?? plainValue(feature.value),
    expected: feature.expected_text ?? plainValue(feature.expected),
    text,
  };
}

function scoreRows(scores) {
  return Object.entries(scores ?? {})
    .filter(([, score]) => score !== null)
    .map(([model, score]) => ({ model: words(model), score, decides: false }));
}

function titleBar(alert) {
  const position = `${integer(state.selected + 1)} of ${integer(state.shown.length)}`;
  const step = (rows, text, label) =>
    button(
      { "aria-label": label, onclick: () => select(Math.max(0, state.selected) + rows) },
      text,
    );
  return make(
    "div",
    { class: "bar" },
    severityMark(alert.level, alert.level),
    make(
      "h3",
      { id: "evidence-title" },
      `${words(alert.class)} · `,
      make("span", { class: "mono" }, alert.host),
    ),
    make("span", { class: "grow" }),
    make("span", { class: "muted" }, state.selected >= 0 ? position : ""),
    step(-1, "↑", "Previous alert"),
    step(1, "↓", "Next alert"),
    button({ id: "evidence-close", "aria-label": "Close", onclick: closeAlert }, "Close"),
  );
}

/** Tabs for the flow that opened the group and the strongest one, where there are both. */
function documentTabs(alert, shown, closing) {
  if (!closing || !alert.opening || !closing.ids_plugin?.evidence) return null;
  const isClosing = shown.ids_plugin?.fold?.state === "closed";
  const tab = (text, name, isPressed) => {
    const onclick = async () => {
      const documents = await documentsOf(alert);
      renderPanel(alert, documents[name], documents.closing);
    };
    return button({ class: "chip", "aria-pressed": String(isPressed), onclick }, text);
  };
  return make(
    "div",
    { class: "chips", role: "group", "aria-label": "Which flow" },
    tab("the flow that opened it", "opening", !isClosing),
    tab("the strongest flow", "closing", isClosing),
  );
}

function periodText({ first, last }) {
  if (!(last > first)) return dateAndTime(first);
  const end = isSameDay(first, last) ? timeOfDay(last) : dateAndTime(last);
  return `${dateAndTime(first)} – ${end} (${duration(last - first)})`;
}

function factList(alert, shown) {
  const own = shown.ids_plugin ?? {};
  const techniques = techniqueLinks(shown.threat);
  const flows = integer(alert.count) + (alert.closing ? "" : " at opening; no closing totals");
  const score = `${plainValue(own.score)} (threshold ${plainValue(own.threshold)})`;
  const model = [own.bundle?.family, own.bundle?.version].filter(Boolean).join(" ");
  const facts = [
    ["Time (UTC)", periodText(alert)],
    ["Flows over the threshold", flows],
    ["The host", alert.role === "target" ? "is acted upon" : "acts"],
    ["Score", `${score}, risk ${plainValue(alert.risk)}`],
    techniques.length > 0 && ["ATT&CK", techniques],
    ["Model", model || "–"],
    shown.observer?.name && ["Sensor", shown.observer.name],
  ];
  return definitions(facts.filter(Boolean));
}

/** Every ATT&CK technique as a link; nothing is loaded unless it is clicked. */
function techniqueLinks(threat) {
  const list = (value) => [].concat(value ?? []);
  const names = list(threat?.technique?.name);
  return list(threat?.technique?.id).flatMap((id, index) => {
    const link = techniqueLink(id, `${id} ${names[index] ?? ""}`);
    return index ? [make("br"), link] : [link];
  });
}

function techniqueLink(id, text) {
  if (!TECHNIQUE_ID.test(id)) return text;
  const href = `https://attack.mitre.org/techniques/${id.replace(".", "/")}/`;
  return make("a", { href, target: "_blank", rel: "noopener noreferrer" }, text);
}

function flowTable(flows) {
  const head = [
    ["", "num"],
    ["start (UTC)"],
    ["flow"],
    ["proto"],
    ["state"],
    ["duration", "num"],
    ["sent", "num"],
    ["received", "num"],
    ["weight", "num"],
    ["uid"],
  ];
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Flows" },
    table(head, flows.map(flowRow), { id: "flows" }),
  );
}

function flowRow(flow) {
  const seconds = flow.duration;
  const isDurationKnown = seconds !== null && seconds !== undefined;
  const cells = [
    [flow.lag ? `−${flow.lag}` : "this", "num"],
    [preciseTimeOfDay(Date.parse(flow.ts))],
    [flowEnds(flow), "mono"],
    [[flow.proto, flow.service].filter(Boolean).join(" ")],
    [flow.conn_state ?? "–", "mono"],
    [isDurationKnown ? duration(seconds * 1000) : "–", "num"],
    [byteSize(flow.orig_bytes), "num"],
    [byteSize(flow.resp_bytes), "num"],
    [`${Math.round(flow.weight * 100)} %`, "num"],
    [copyButton(flow.uid, "uid")],
  ];
  return tableRow(cells, { "data-lag": flow.lag });
}

/** The totals of a closed alert group, with its busiest peers and ports. */
function totalsSection(closing) {
  const group = closing?.ids_plugin?.fold;
  if (!group) return [];
  const relation = group.peers_relation === "gte" ? "more than " : "";
  const amounts = [
    ["flows over the threshold", integer(group.count)],
    group.peers && ["peers", `${relation}${integer(group.peers)}`],
    group.ports && ["ports", integer(group.ports)],
    group.packets && ["packets", integer(group.packets)],
    group.orig_bytes !== undefined && ["sent by originators", byteSize(group.orig_bytes)],
    group.resp_bytes !== undefined && ["sent by responders", byteSize(group.resp_bytes)],
    group.closed_by && ["ended by", CLOSED_BY[group.closed_by] ?? group.closed_by],
  ];
  const tables = [
    busiestTable("busiest peers", group.top_peers, "ip"),
    busiestTable("busiest ports", group.top_ports, "port"),
  ];
  const body = make(
    "div",
    {},
    definitions(amounts.filter(Boolean)),
    make("div", { class: "totals" }, ...tables.filter(Boolean)),
  );
  return section("The whole behaviour", null, body);
}

function busiestTable(title, items, name) {
  if (!items?.length) return null;
  const rows = items.map((item) =>
    tableRow([
      [String(item[name]), "mono"],
      [plainValue(item.count), "num"],
    ]),
  );
  return table([[title], ["flows", "num"]], rows);
}

function idList(shown) {
  const lines = idsOf(shown).flatMap(({ name, value, shortcut }) => {
    const copy = () => copyText(value, name);
    const key = shortcut ? make("kbd", {}, shortcut) : null;
    return [
      make("dt", {}, name),
      make("dd", { class: "mono" }, value),
      make("dd", {}, button({ "data-copy": name, onclick: copy }, "Copy ", key)),
    ];
  });
  return make("dl", { class: "ids" }, ...lines);
}

function idsOf(shown) {
  const first = (value) => (Array.isArray(value) ? value[0] : value);
  const ids = [
    { name: "uid", value: first(shown.zeek?.session_id), shortcut: "u" },
    { name: "community id", value: first(shown.network?.community_id), shortcut: "c" },
    { name: "event id", value: shown.event?.id, shortcut: "e" },
    { name: "fold id", value: shown.ids_plugin?.fold?.id },
    { name: "bundle", value: shown.ids_plugin?.bundle?.id },
  ];
  return ids.filter(({ value }) => value);
}

subscribe("selected", (reopen) => {
  if (reopen && state.open) openAlert(state.shown[state.selected]);
});
