/* The timeline: traffic over time, and when each behaviour was active.
   A brush filters by period. */

import { drawChart, timelineChart } from "./charts.js";
import { LEVELS, byId } from "./page.js";
import { applyFilters, bucketWidth, coveredPeriod, state, subscribe } from "./state.js";
import { byteSize, dateAndTime, words } from "./text.js";

const SLOTS = 240;
const MARGIN_PX = 148 + 44;
const MIN_PLOT_PX = 200;
const BRUSH_DELAY_MS = 40;

let brushTimer = 0;

/**
 * When each class was active, and the highest severity then: runs of at most SLOTS slots.
 * Returns [{ t, t2, from, to, lane, alerts, level }], times in ms.
 */
export function lanesOf(alerts, [start, end]) {
  const width = Math.max((end - start) / SLOTS, 1);
  const lanes = new Map();
  for (const alert of alerts) {
    if (!Number.isFinite(alert.first)) continue;
    const slots = lanes.get(alert.class) ?? new Map();
    addToSlots(slots, alert, start, width);
    lanes.set(alert.class, slots);
  }
  return [...lanes].flatMap(([name, slots]) =>
    runsOf(slots).map((run) => {
      const [t, t2] = [start + run.from * width, start + run.to * width];
      return {
        t,
        t2: Math.min(t2, end),
        from: dateAndTime(t),
        to: dateAndTime(t2),
        lane: words(name),
        alerts: run.alerts,
        level: LEVELS[run.rank],
      };
    }),
  );
}

function addToSlots(slots, alert, start, width) {
  const rank = LEVELS.indexOf(alert.level);
  let slot = Math.floor((alert.first - start) / width);
  while (start + slot * width <= alert.last) {
    const before = slots.get(slot) ?? { alerts: 0, rank: 0 };
    slots.set(slot, { alerts: before.alerts + 1, rank: Math.max(before.rank, rank) });
    slot += 1;
  }
}

/** Neighbouring slots with the same severity and number of alerts as one run. */
function runsOf(slots) {
  const runs = [];
  for (const [slot, { alerts, rank }] of [...slots].sort((left, right) => left[0] - right[0])) {
    const last = runs.at(-1);
    if (last && last.to === slot && last.rank === rank && last.alerts === alerts) {
      last.to = slot + 1;
    } else {
      runs.push({ from: slot, to: slot + 1, alerts, rank });
    }
  }
  return runs;
}

function trafficBars(end) {
  const width = bucketWidth();
  return (state.facts.traffic ?? []).map((bucket) => ({
    t: bucket.t / 1000,
    t2: Math.min(bucket.t / 1000 + width, end),
    from: dateAndTime(bucket.t / 1000),
    flows: bucket.flows,
    size: byteSize(bucket.bytes),
  }));
}

/** Draws the timeline, without a brush. */
export async function renderTimeline() {
  const period = coveredPeriod();
  if (!Number.isFinite(period[0])) return;
  byId("timeline-section").hidden = false;
  byId("timeline-hint").hidden = !state.alerts.length;
  const holder = byId("timeline");
  const names = [...new Set(state.alerts.map((alert) => words(alert.class)))].sort();
  const chart = timelineChart(
    trafficBars(period[1]),
    lanesOf(state.alerts, period),
    names,
    period,
    Math.max(MIN_PLOT_PX, holder.clientWidth - MARGIN_PX),
  );
  const view = await drawChart(
    holder,
    chart,
    "Flows over time, and when each behaviour was active",
  );
  if (state.alerts.length) view.addSignalListener("period", (_, value) => onBrush(value));
}

function onBrush(value) {
  const range = Object.values(value ?? {})[0];
  state.filter.period = range ? [Number(range[0]), Number(range[1])] : null;
  clearTimeout(brushTimer);
  brushTimer = setTimeout(applyFilters, BRUSH_DELAY_MS);
}

subscribe("unbrushed", () => {
  renderTimeline();
});
