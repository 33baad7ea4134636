/* The data of the report: rows and documents of alerts, unpacked; alert groups; hosts by risk. */

import { LEVELS } from "./page.js";
import { words } from "./text.js";

const LEVEL_OF_SEVERITY = { 21: "low", 47: "medium", 73: "high", 99: "critical" };
const MAX_RISK = 99.9;

const unpackedChunk = { index: -1, documents: null };

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** The JSON value of a script element that holds compressed JSON (zlib) as base64. */
async function unpack(script) {
  const bytes = bytesOf(script.textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

/** The facts of the run (ledger, traffic, bundle) and all rows of the page, unpacked. */
export async function readPage(page) {
  const facts = JSON.parse(page.getElementById("facts").textContent);
  const chunks = await Promise.all([...page.querySelectorAll("script.rows")].map(unpack));
  const rows = chunks.flat().map((row, index) => ({
    ...row,
    chunk: Math.floor(index / facts.chunk),
    position: index % facts.chunk,
  }));
  return { facts, rows };
}

/** The whole documents of an alert, `{ opening, closing }`; null for one that there isn't. */
export async function documentsOf(alert) {
  const opening = await documentOf(alert.opening);
  const closing = await documentOf(alert.closing);
  return { opening, closing };
}

async function documentOf(row) {
  if (!row) return null;
  if (unpackedChunk.index !== row.chunk) {
    unpackedChunk.index = row.chunk;
    unpackedChunk.documents = unpack(document.querySelectorAll("script.documents")[row.chunk]);
  }
  const documents = await unpackedChunk.documents;
  return documents[row.position];
}

/** One alert for each alert group: the rows of its opening and its closing document together. */
export function alertsOfRows(rows) {
  const groups = new Map();
  for (const row of rows) {
    const key = row.group ?? row.id;
    const group = groups.get(key) ?? {};
    group[row.state === "closed" ? "closing" : "opening"] = row;
    groups.set(key, group);
  }
  return [...groups.values()].map(alertOfGroup);
}

function alertOfGroup({ opening, closing }) {
  const first = opening ?? closing;
  const latest = closing ?? opening;
  const start = Date.parse(first.first);
  const higher = (name) => Math.max(first[name] ?? 0, latest[name] ?? 0);
  const severity = higher("severity");
  const alert = {
    id: first.id,
    host: first.host ?? "unknown",
    role: first.role,
    class: first.class,
    opening,
    closing,
    severity,
    level: LEVEL_OF_SEVERITY[severity] ?? LEVELS[Math.min(3, Math.floor(severity / 25))],
    risk: higher("risk"),
    score: higher("score"),
    count: latest.count ?? 1,
    first: start,
    last: Math.max(start, Date.parse(latest.last) || start),
    message: latest.message ?? "",
    summary: first.summary ?? "",
  };
  return { ...alert, searchText: searchTextOf(alert, first, latest) };
}

/** Everything that the text filter searches, in lower case. */
function searchTextOf(alert, first, latest) {
  const parts = [
    alert.host,
    words(alert.class),
    alert.class,
    alert.level,
    latest.message,
    first.summary,
    latest.summary,
    ...first.words,
    ...latest.words,
  ];
  return parts.join("\n").toLowerCase();
}

/**
 * Hosts by risk: 1 − Π(1 − risk) over the distinct behaviours of a host, so that a host with
 * several behaviours outranks a host with one of them.
 */
export function hostsByRisk(alerts) {
  const hosts = new Map();
  for (const alert of alerts) {
    const host = hosts.get(alert.host) ?? newHost(alert.host);
    const behaviour = `${alert.role ?? ""}\n${alert.class}`;
    host.alerts += 1;
    host.levelRank = Math.max(host.levelRank, LEVELS.indexOf(alert.level));
    host.risks.set(behaviour, Math.max(host.risks.get(behaviour) ?? 0, alert.risk));
    hosts.set(alert.host, host);
  }
  for (const host of hosts.values()) host.risk = combinedRisk([...host.risks.values()]);
  return [...hosts.values()].sort(
    (left, right) =>
      right.risk - left.risk || right.alerts - left.alerts || (left.name < right.name ? -1 : 1),
  );
}

function newHost(name) {
  return { name, alerts: 0, risks: new Map(), levelRank: 0, risk: 0 };
}

function combinedRisk(risks) {
  const none = risks.reduce((product, risk) => product * (1 - Math.min(risk, MAX_RISK) / 100), 1);
  return 100 * (1 - none);
}
