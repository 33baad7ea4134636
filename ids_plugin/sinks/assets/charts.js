"use strict";
/* Vega-Lite specifications, from data to a drawn chart. Colours are CSS variables, so theme and print need no redraw.
   Expressions run in Vega's interpreter: the page's policy allows no eval. */

const charts = (() => {
  const FONT = 'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
  const ink = (name) => `var(--${name})`;
  const CONFIG = {
    background: null,
    font: FONT,
    view: { stroke: null },
    axis: {
      labelColor: ink("muted"), titleColor: ink("muted"), gridColor: ink("soft"), domainColor: ink("line"), tickColor: ink("line"),
      labelFontSize: 11, titleFontSize: 11, titleFontWeight: 400, labelFontWeight: 400, tickSize: 4,
    },
    axisY: { domain: false, ticks: false, labelPadding: 8 },
    text: { color: ink("text"), fontSize: 11 },
    concat: { spacing: 6 },
  };
  const refuse = () => Promise.reject(new Error("this report loads nothing"));

  /** Draw `spec` into `element`, replacing what is there; gives the Vega view. */
  async function draw(element, spec, label) {
    const compiled = vegaLite.compile({ ...spec, config: CONFIG }).spec;
    const view = new vega.View(vega.parse(compiled, null, { ast: true }), {
      expr: vegaInterpreter.expressionInterpreter,
      loader: { load: refuse, sanitize: refuse, http: refuse, file: refuse },
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

  const MARGIN = 148;
  const LEVELS = ["low", "medium", "high", "critical"];
  const levelColour = { field: "level", type: "nominal", scale: { domain: LEVELS, range: LEVELS.map(ink) }, legend: null };

  /** Traffic over time, and under it a lane for every class: when it was active, coloured by the highest severity,
      stronger where more alerts were active at once.
      traffic: [{t, t2, flows, bytes}], lanes: [{t, t2, lane, level, alerts}], times in ms. */
  function timeline(traffic, lanes, names, period, width) {
    const extent = { minExtent: MARGIN, maxExtent: MARGIN };
    const x = { field: "t", type: "temporal", scale: { type: "utc", domain: { signal: `[${period.map(Number)}]` }, nice: false } };
    const x2 = { field: "t2", type: "temporal" };
    const format = period[1] - period[0] > 36 * 3600e3 ? "%-d %b %H:%M" : period[1] - period[0] < 30 * 60e3 ? "%H:%M:%S" : "%H:%M";
    const axis = { title: null, grid: false, labelOverlap: true, labelSeparation: 16, labelFlush: false, labelExpr: `utcFormat(datum.value, '${format}')` };
    const moment = (field, title) => ({ field, type: "nominal", title });
    const flows = {
      name: "flows", width, height: 52, data: { values: traffic },
      mark: { type: "rect", color: ink("traffic"), stroke: ink("traffic"), strokeWidth: 0.4 },
      encoding: {
        x: { ...x, axis: names.length ? null : axis }, x2,
        y: { field: "flows", type: "quantitative", title: null, axis: { ...extent, tickCount: 2, format: "~s", labelExpr: "datum.value > 0 ? datum.label + ' flows' : ''" } },
        y2: { datum: 0 },
        tooltip: [moment("from", "from"), { field: "flows", type: "quantitative", format: "," }, { field: "size", type: "nominal", title: "bytes" }],
      },
    };
    const active = {
      name: "active", width, height: { step: 17 }, data: { values: lanes },
      mark: { type: "rect", cornerRadius: 1 },
      encoding: {
        x: { ...x, axis }, x2,
        y: { field: "lane", type: "nominal", title: null, sort: names, scale: { domain: names, paddingInner: 0.35, paddingOuter: 0.15 }, axis: { ...extent, grid: false, labelLimit: MARGIN - 12, labelColor: ink("text") } },
        color: levelColour,
        opacity: { field: "alerts", type: "quantitative", scale: { type: "sqrt", domain: [0, Math.max(1, ...lanes.map((lane) => lane.alerts))], range: [0.25, 1] }, legend: null },
        tooltip: [moment("from", "from"), moment("to", "to"), moment("lane", "behaviour"), moment("alerts", "alerts at once"), moment("level", "highest severity")],
      },
    };
    const brush = { name: "period", select: { type: "interval", encodings: ["x"], mark: { fill: ink("accent"), fillOpacity: 0.16, stroke: ink("accent") } } };
    const parts = [traffic.length ? flows : null, names.length ? active : null].filter(Boolean);
    brush.views = parts.map((part) => part.name);
    return { vconcat: parts, params: names.length ? [brush] : [], spacing: 4, padding: { left: 0, right: 30, top: 2, bottom: 2 } };
  }

  /** The earlier flows a decision looked at, oldest left: height and colour are their weight; absent steps have no bar.
      flows: [{weight, step, title}], step is "label|second line" */
  function strip(flows) {
    const x = { field: "step", type: "ordinal", sort: flows.map((flow) => flow.step), title: null };
    const most = Math.max(...flows.map((flow) => flow.weight), 0.25);
    const y = { field: "weight", type: "quantitative", axis: null, scale: { domain: [0, most * 1.18] } };
    return {
      width: { step: 66 }, height: 92, data: { values: flows }, padding: { left: 0, right: 0, top: 2, bottom: 0 },
      encoding: { x: { ...x, axis: { labelAngle: 0, ticks: false, domainColor: ink("line"), labelPadding: 6, labelColor: ink("muted"), labelExpr: "split(datum.label, '|')", labelLineHeight: 14 }, scale: { paddingInner: 0.18, paddingOuter: 0.1 } }, y },
      layer: [
        {
          mark: { type: "bar", color: ink("weight"), cornerRadiusTopLeft: 2, cornerRadiusTopRight: 2 },
          encoding: {
            opacity: { field: "weight", type: "quantitative", scale: { domain: [0, most], range: [0.28, 1] }, legend: null },
            tooltip: [{ field: "title", title: "flow" }, { field: "weight", title: "weight", format: ".3f" }],
          },
        },
        { mark: { type: "text", dy: -7, fontSize: 11 }, encoding: { text: { field: "weight", type: "quantitative", format: ".0%" } } },
      ],
    };
  }

  /** What was unusual: contribution of every named feature, seen beside expected.
      features: [{name, label, contribution, seen, expected, text}] ordered by size */
  function features(features, width) {
    const names = features.map((feature) => feature.name);
    const y = { field: "name", type: "nominal", sort: names, title: null };
    const longest = Math.max(...features.map((feature) => feature.label.length));
    const label = Math.min(Math.round(width * 0.48), Math.round(longest * 6.4) + 12), number = 72;
    const bars = Math.max(120, width - label - 2 * number - 48);
    const column = (field, title, colour) => ({
      width: number, height: { step: 22 },
      title: { text: title, anchor: "end", fontSize: 11, fontWeight: 400, color: ink("muted"), offset: 4 },
      mark: { type: "text", align: "right", color: ink(colour), limit: number },
      encoding: { y: { ...y, axis: null }, x: { value: number }, text: { field } },
    });
    const chart = {
      width: bars, height: { step: 22 },
      title: { text: "contribution (log-odds)", anchor: "start", fontSize: 11, fontWeight: 400, color: ink("muted"), offset: 4 },
      encoding: {
        y: { ...y, axis: null },
        x: { field: "contribution", type: "quantitative", axis: null, scale: domainOf(features) },
        tooltip: [{ field: "text", title: "reason" }, { field: "contribution", format: "+.3f" }, { field: "seen" }, { field: "expected" }],
      },
      layer: [
        { mark: { type: "bar", height: 12, cornerRadius: 1 }, encoding: { color: { condition: { test: "datum.contribution >= 0", value: ink("for") }, value: ink("against") } } },
        { mark: { type: "text", align: { expr: "datum.contribution >= 0 ? 'left' : 'right'" }, dx: { expr: "datum.contribution >= 0 ? 4 : -4" }, color: ink("muted") }, encoding: { text: { field: "contribution", format: "+.2f" } } },
        { mark: { type: "rule", color: ink("line") }, encoding: { x: { datum: 0 }, y: null } },
      ],
    };
    const labels = {
      width: label, height: { step: 22 },
      mark: { type: "text", align: "left", limit: label - 8 },
      encoding: { y: { ...y, axis: null }, x: { value: 0 }, text: { field: "label" }, tooltip: { field: "text" } },
    };
    return { data: { values: features }, hconcat: [labels, column("seen", "seen", "text"), column("expected", "expected", "muted"), chart], spacing: 14, padding: 0, bounds: "flush", resolve: { scale: { y: "shared" } } };
  }

  function domainOf(features) {
    const values = features.map((feature) => feature.contribution);
    const low = Math.min(0, ...values), high = Math.max(0, ...values), room = (high - low || 1) * 0.22;
    return { domain: [low < 0 ? low - room : 0, high > 0 ? high + room : 0], nice: false };
  }

  /** What each model says of the flow, 0–1, beside the threshold. scores: [{model, score, decides}] */
  function scores(scores, threshold, width) {
    const y = { field: "model", type: "nominal", sort: scores.map((score) => score.model), title: null, axis: { labelColor: ink("text"), labelLimit: 150, minExtent: 150, grid: false } };
    const x = { type: "quantitative", scale: { domain: [0, 1] } };
    const layer = [
      { mark: { type: "bar", height: 8, color: ink("soft"), cornerRadius: 2 }, encoding: { y, x: { ...x, datum: 0, title: null, axis: null }, x2: { datum: 1 } } },
      { mark: { type: "bar", height: 8, cornerRadius: 2, color: ink("weight") }, encoding: { y, x: { ...x, field: "score" }, opacity: { condition: { test: "datum.decides", value: 1 }, value: 0.6 } } },
      { mark: { type: "text", align: "left", dx: 8, fontSize: 11 }, encoding: { y, x: { ...x, datum: 1 }, text: { field: "score", format: ".3f" } } },
    ];
    if (threshold !== null) {
      layer.push({ mark: { type: "tick", thickness: 2, height: 14, color: ink("text"), tooltip: "threshold" }, encoding: { y, x: { ...x, datum: threshold } } });
    }
    return { width: width - 150 - 84, height: { step: 20 }, data: { values: scores }, layer, padding: { left: 0, right: 10, top: 0, bottom: 0 } };
  }

  return { draw, timeline, strip, features, scores };
})();
