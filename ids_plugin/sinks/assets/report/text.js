/* Numbers, times, amounts and addresses as text. Nothing here touches the page. */

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_MS = 86_400_000;
const UNKNOWN = "–";
const integerFormat = new Intl.NumberFormat("en-GB");

/** A snake_case name as words: `brute_force` → "brute force". */
export function words(name) {
  return String(name ?? "unknown").replaceAll("_", " ");
}

/** An integer with thousands separators: "12,345". */
export function integer(value) {
  return integerFormat.format(value);
}

/** A number with its noun: "1 alert", "2,390 alerts". */
export function count(value, singular, plural = `${singular}s`) {
  return `${integer(value)} ${value === 1 ? singular : plural}`;
}

const twoDigits = (value) => String(value).padStart(2, "0");

/** A formatter of ms since the epoch, which writes "–" for a time that isn't known. */
function timeFormat(write) {
  return (ms) => (Number.isFinite(ms) ? write(new Date(ms)) : UNKNOWN);
}

/** "14:03:59" (UTC), from ms since the epoch. */
export const timeOfDay = timeFormat((date) =>
  [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()].map(twoDigits).join(":"),
);

/** "14:03:59.123" */
export const preciseTimeOfDay = timeFormat((date) => {
  const milliseconds = String(date.getUTCMilliseconds()).padStart(3, "0");
  return `${timeOfDay(date.getTime())}.${milliseconds}`;
});

/** "21 Nov 14:03:59" */
export const dateAndTime = timeFormat(
  (date) => `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${timeOfDay(date.getTime())}`,
);

/** "21 Nov 2026" */
export const dateWithYear = timeFormat(
  (date) => `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`,
);

/** Whether two times (ms) are on one day (UTC). */
export function isSameDay(left, right) {
  return Math.floor(left / DAY_MS) === Math.floor(right / DAY_MS);
}

/** A length of time in ms as text: "850 µs", "4.2 s", "3 min 5 s", "2 d 4 h". */
export function duration(ms) {
  if (!Number.isFinite(ms)) return UNKNOWN;
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return inTwoUnits(seconds, { size: 60, name: "min" }, { size: 1, name: "s" });
  if (seconds < 86_400) {
    return inTwoUnits(seconds, { size: 3600, name: "h" }, { size: 60, name: "min" });
  }
  return inTwoUnits(seconds, { size: 86_400, name: "d" }, { size: 3600, name: "h" });
}

function inTwoUnits(seconds, large, small) {
  const smallUnits = Math.round(seconds / small.size);
  const perLarge = large.size / small.size;
  const rest = smallUnits % perLarge;
  const whole = `${Math.floor(smallUnits / perLarge)} ${large.name}`;
  return rest ? `${whole} ${rest} ${small.name}` : whole;
}

/** A number of bytes: "512 B", "1.2 MB". */
export function byteSize(bytes) {
  if (bytes === null || bytes === undefined) return UNKNOWN;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  let value = bytes;
  while (value >= 1000 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${step && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}

/** Any value as text; numbers with three significant digits. */
export function plainValue(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return integer(value);
  const magnitude = Math.abs(value);
  if (magnitude >= 1000) return integer(Math.round(value));
  if (magnitude >= 0.01) return String(Number(value.toPrecision(3)));
  return value.toExponential(1);
}

/** A host with its port, IPv6 addresses in brackets; the host alone where there is no port. */
export function endpoint(host, port) {
  if (port === null || port === undefined) return host;
  return String(host).includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Both ends of a flow of the evidence; of ICMP its type and code. */
export function flowEnds(flow) {
  if (flow.proto === "icmp") {
    const message = `type ${plainValue(flow.orig_p)} code ${plainValue(flow.resp_p)}`;
    return `${flow.orig_h} → ${flow.resp_h} ${message}`;
  }
  return `${endpoint(flow.orig_h, flow.orig_p)} → ${endpoint(flow.resp_h, flow.resp_p)}`;
}

/** A sentence without the host it starts with, which has a column of its own. */
export function withoutHost(sentence, host) {
  return sentence.startsWith(`${host} `) ? sentence.slice(host.length + 1) : sentence;
}

/** A nested value in words: "default: rule private; networks 10.0.0.0/8, fc00::/7". */
export function nestedValue(value) {
  if (Array.isArray(value)) return value.map(nestedValue).join(", ");
  if (value === null || typeof value !== "object") return plainValue(value);
  const phrases = Object.entries(value).map(([name, inner]) => {
    const isObject = inner && typeof inner === "object" && !Array.isArray(inner);
    return `${words(name)}${isObject ? ":" : ""} ${nestedValue(inner)}`;
  });
  return phrases.join("; ");
}
