/* Vega-Lite specifications, from data to a drawn chart. Colours are CSS variables, so that theme
   and print need no new drawing. Expressions run in Vega's interpreter, as the page's policy allows
   no eval. Vega is loaded before this module, as the globals vega, vegaLite, vegaInterpreter. */

import { LEVELS } from "./page.js";

const FONT =
  'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
const LANE_NAME_PX = 148;
const MODEL_NAME_PX = 150;
const SCORE_PX = 84;
const NUMBER_PX = 72;
const CHARACTER_PX = 6.4;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

const colour = (name) => `var(--${name})`;

const CONFIG = {
  background: null,
  font: FONT,
  view: { stroke: null },
  axis: {
    labelColor: colour("muted"),
    titleColor: colour("muted"),
    gridColor: colour("soft"),
    domainColor: colour("line"),
    tickColor: colour("line"),
    labelFontSize: 11,
    titleFontSize: 11,
    titleFontWeight: 400,
    labelFontWeight: 400,
    tickSize: 4,
  },
  axisY: { domain: false, ticks: false, labelPadding: 8 },
  text: { color: colour("text"), fontSize: 11 },
  concat: { spacing: 6 },
};

const refuse = () => Promise.reject(new Error("this report loads nothing"));
const LOADER = { load: refuse, sanitize: refuse, http: refuse, file: refuse };

/** Draws a specification into an element, in place of what it has; returns the Vega view. */
export async function drawChart(element, specification, label) {
  const compiled = vegaLite.compile({ ...specification, config: CONFIG }).spec;
  const view = new vega.View(vega.parse(compiled, null, { ast: true }), {
    expr: vegaInterpreter.expressionInterpreter,
    loader: LOADER,
    renderer: "svg",
    logLevel: vega.Warn,
  });
  const holder = document.createElement("div");
  view.initialize(holder);
  await view.runAsync();
  const svg = holder.querySelector("svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  element.view?.finalize();
  element.view = view;
  element.replaceChildren(holder);
  return view;
}

/**
 * Traffic over time, and under it a lane for every class: when it was active, coloured by the
 * highest severity, stronger where more alerts were active at once.
 *
 * traffic: [{ t, t2, from, flows, size }]; lanes: as of timeline.lanesOf; names: of the lanes;
 * period: [start, end]; times in ms, width in pixels.
 */
export function timelineChart(traffic, lanes, names, period, width) {
  const time = timeEncoding(period);
  const parts = [];
  if (traffic.length) parts.push(trafficPart(traffic, time, names.length === 0, width));
  if (names.length) parts.push(lanesPart(lanes, time, names, width));
  const brush = {
    name: "period",
    select: {
      type: "interval",
      encodings: ["x"],
      mark: { fill: colour("accent"), fillOpacity: 0.16, stroke: colour("accent") },
    },
    views: parts.map((part) => part.name),
  };
  return {
    vconcat: parts,
    params: names.length ? [brush] : [],
    spacing: 4,
    padding: { left: 0, right: 30, top: 2, bottom: 2 },
  };
}

function timeEncoding(period) {
  const scale = {
    type: "utc",
    domain: { signal: `[${period.map(Number)}]` },
    nice: false,
  };
  return {
    x: { field: "t", type: "temporal", scale },
    x2: { field: "t2", type: "temporal" },
    axis: {
      title: null,
      grid: false,
      labelOverlap: true,
      labelSeparation: 16,
      labelFlush: false,
      labelExpr: `utcFormat(datum.value, '${timeFormat(period[1] - period[0])}')`,
    },
  };
}

function timeFormat(ms) {
  if (ms > 36 * HOUR_MS) return "%-d %b %H:%M";
  return ms < 30 * MINUTE_MS ? "%H:%M:%S" : "%H:%M";
}

function trafficPart(traffic, time, hasTimeAxis, width) {
  const axis = {
    minExtent: LANE_NAME_PX,
    maxExtent: LANE_NAME_PX,
    tickCount: 2,
    format: "~s",
    labelExpr: "datum.value > 0 ? datum.label + ' flows' : ''",
  };
  return {
    name: "flows",
    width,
    height: 52,
    data: { values: traffic },
    mark: { type: "rect", color: colour("traffic"), stroke: colour("traffic"), strokeWidth: 0.4 },
    encoding: {
      x: { ...time.x, axis: hasTimeAxis ? time.axis : null },
      x2: time.x2,
      y: { field: "flows", type: "quantitative", title: null, axis },
      y2: { datum: 0 },
      tooltip: [
        nominal("from", "from"),
        { field: "flows", type: "quantitative", format: "," },
        nominal("size", "bytes"),
      ],
    },
  };
}

function lanesPart(lanes, time, names, width) {
  const mostAlerts = Math.max(1, ...lanes.map((lane) => lane.alerts));
  const axis = {
    minExtent: LANE_NAME_PX,
    maxExtent: LANE_NAME_PX,
    grid: false,
    labelLimit: LANE_NAME_PX - 12,
    labelColor: colour("text"),
  };
  const lane = {
    field: "lane",
    type: "nominal",
    title: null,
    sort: names,
    scale: { domain: names, paddingInner: 0.35, paddingOuter: 0.15 },
    axis,
  };
  return {
    name: "active",
    width,
    height: { step: 17 },
    data: { values: lanes },
    mark: { type: "rect", cornerRadius: 1 },
    encoding: {
      x: { ...time.x, axis: time.axis },
      x2: time.x2,
      y: lane,
      color: {
        field: "level",
        type: "nominal",
        scale: { domain: LEVELS, range: LEVELS.map(colour) },
        legend: null,
      },
      opacity: {
        field: "alerts",
        type: "quantitative",
        scale: { type: "sqrt", domain: [0, mostAlerts], range: [0.25, 1] },
        legend: null,
      },
      tooltip: [
        nominal("from", "from"),
        nominal("to", "to"),
        nominal("lane", "behaviour"),
        nominal("alerts", "alerts at once"),
        nominal("level", "highest severity"),
      ],
    },
  };
}

function nominal(field, title) {
  return { field, type: "nominal", title };
}

/**
 * The earlier flows a decision looked at, oldest left: height and colour are their weight; absent
 * steps have no bar. flows: [{ weight, step, title }], `step` is "label|second line".
 */
export function flowChart(flows) {
  const largest = Math.max(...flows.map((flow) => flow.weight), 0.25);
  const axis = {
    labelAngle: 0,
    ticks: false,
    domainColor: colour("line"),
    labelPadding: 6,
    labelColor: colour("muted"),
    labelExpr: "split(datum.label, '|')",
    labelLineHeight: 14,
  };
  const step = {
    field: "step",
    type: "ordinal",
    sort: flows.map((flow) => flow.step),
    title: null,
    axis,
    scale: { paddingInner: 0.18, paddingOuter: 0.1 },
  };
  const weight = {
    field: "weight",
    type: "quantitative",
    axis: null,
    scale: { domain: [0, largest * 1.18] },
  };
  return {
    width: { step: 66 },
    height: 92,
    data: { values: flows },
    padding: { left: 0, right: 0, top: 2, bottom: 0 },
    encoding: { x: step, y: weight },
    layer: [flowBars(largest), flowLabels()],
  };
}

function flowBars(largest) {
  return {
    mark: {
      type: "bar",
      color: colour("weight"),
      cornerRadiusTopLeft: 2,
      cornerRadiusTopRight: 2,
    },
    encoding: {
      opacity: {
        field: "weight",
        type: "quantitative",
        scale: { domain: [0, largest], range: [0.28, 1] },
        legend: null,
      },
      tooltip: [
        { field: "title", title: "flow" },
        { field: "weight", title: "weight", format: ".3f" },
      ],
    },
  };
}

function flowLabels() {
  return {
    mark: { type: "text", dy: -7, fontSize: 11 },
    encoding: { text: { field: "weight", type: "quantitative", format: ".0%" } },
  };
}

/**
 * What was unusual: the contribution of every named feature, what was seen beside the baseline.
 * features: [{ name, label, contribution, seen, expected, text }], largest first; width in pixels.
 */
export function featureChart(features, width) {
  const feature = {
    field: "name",
    type: "nominal",
    sort: features.map(({ name }) => name),
    title: null,
    axis: null,
  };
  const longest = Math.max(...features.map(({ label }) => label.length));
  const labelPx = Math.min(Math.round(width * 0.48), Math.round(longest * CHARACTER_PX) + 12);
  const barsPx = Math.max(120, width - labelPx - 2 * NUMBER_PX - 48);
  return {
    data: { values: features },
    hconcat: [
      labelColumn(feature, labelPx),
      numberColumn(feature, "seen", "text"),
      numberColumn(feature, "expected", "muted"),
      contributionBars(feature, features, barsPx),
    ],
    spacing: 14,
    padding: 0,
    bounds: "flush",
    resolve: { scale: { y: "shared" } },
  };
}

function labelColumn(feature, labelPx) {
  return {
    width: labelPx,
    height: { step: 22 },
    mark: { type: "text", align: "left", limit: labelPx - 8 },
    encoding: {
      y: feature,
      x: { value: 0 },
      text: { field: "label" },
      tooltip: { field: "text" },
    },
  };
}

function numberColumn(feature, field, colourName) {
  return {
    width: NUMBER_PX,
    height: { step: 22 },
    title: columnTitle(field, "end"),
    mark: { type: "text", align: "right", color: colour(colourName), limit: NUMBER_PX },
    encoding: { y: feature, x: { value: NUMBER_PX }, text: { field } },
  };
}

function columnTitle(text, anchor) {
  return { text, anchor, fontSize: 11, fontWeight: 400, color: colour("muted"), offset: 4 };
}

function contributionBars(feature, features, barsPx) {
  const bars = {
    mark: { type: "bar", height: 12, cornerRadius: 1 },
    encoding: {
      color: {
        condition: { test: "datum.contribution >= 0", value: colour("for") },
        value: colour("against"),
      },
    },
  };
  const numbers = {
    mark: {
      type: "text",
      align: { expr: "datum.contribution >= 0 ? 'left' : 'right'" },
      dx: { expr: "datum.contribution >= 0 ? 4 : -4" },
      color: colour("muted"),
    },
    encoding: { text: { field: "contribution", format: "+.2f" } },
  };
  const zero = {
    mark: { type: "rule", color: colour("line") },
    encoding: { x: { datum: 0 }, y: null },
  };
  return {
    width: barsPx,
    height: { step: 22 },
    title: columnTitle("contribution (log-odds)", "start"),
    encoding: {
      y: feature,
      x: {
        field: "contribution",
        type: "quantitative",
        axis: null,
        scale: contributionScale(features),
      },
      tooltip: [
        { field: "text", title: "reason" },
        { field: "contribution", format: "+.3f" },
        { field: "seen" },
        { field: "expected" },
      ],
    },
    layer: [bars, numbers, zero],
  };
}

function contributionScale(features) {
  const values = features.map(({ contribution }) => contribution);
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const room = (high - low || 1) * 0.22;
  return { domain: [low < 0 ? low - room : 0, high > 0 ? high + room : 0], nice: false };
}

/**
 * The score of every model, 0–1, beside the threshold (null: none is shown).
 * scores: [{ model, score, decides }]; width in pixels.
 */
export function scoreChart(scores, threshold, width) {
  const y = {
    field: "model",
    type: "nominal",
    sort: scores.map(({ model }) => model),
    title: null,
    axis: {
      labelColor: colour("text"),
      labelLimit: MODEL_NAME_PX,
      minExtent: MODEL_NAME_PX,
      grid: false,
    },
  };
  const x = { type: "quantitative", scale: { domain: [0, 1] } };
  const layer = [scoreBackground(x, y), scoreBars(x, y), scoreNumbers(x, y)];
  if (threshold !== null) layer.push(thresholdMark(x, y, threshold));
  return {
    width: width - MODEL_NAME_PX - SCORE_PX,
    height: { step: 20 },
    data: { values: scores },
    layer,
    padding: { left: 0, right: 10, top: 0, bottom: 0 },
  };
}

function scoreBackground(x, y) {
  return {
    mark: { type: "bar", height: 8, color: colour("soft"), cornerRadius: 2 },
    encoding: { y, x: { ...x, datum: 0, title: null, axis: null }, x2: { datum: 1 } },
  };
}

function scoreBars(x, y) {
  return {
    mark: { type: "bar", height: 8, cornerRadius: 2, color: colour("weight") },
    encoding: {
      y,
      x: { ...x, field: "score" },
      opacity: { condition: { test: "datum.decides", value: 1 }, value: 0.6 },
    },
  };
}

function scoreNumbers(x, y) {
  return {
    mark: { type: "text", align: "left", dx: 8, fontSize: 11 },
    encoding: { y, x: { ...x, datum: 1 }, text: { field: "score", format: ".3f" } },
  };
}

function thresholdMark(x, y, threshold) {
  const mark = {
    type: "tick",
    thickness: 2,
    height: 14,
    color: colour("text"),
    tooltip: "threshold",
  };
  return { mark, encoding: { y, x: { ...x, datum: threshold } } };
}
