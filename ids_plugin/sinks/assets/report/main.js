/* Reads the data, draws the page, listens to the analyst. */

import { alertsOfRows, hostsByRisk, readPage } from "./data.js";
import { openAlert } from "./detail.js";
import { renderFilters, renderPressed } from "./filters.js";
import { renderBundle, renderHeadline } from "./headline.js";
import { renderHosts, showMoreHosts } from "./hosts.js";
import { onKey } from "./keyboard.js";
import { renderLedger } from "./ledger.js";
import { byId } from "./page.js";
import { applyFilters, select, setFilter, sortAlerts, state } from "./state.js";
import { listenToList, renderHead, renderList } from "./table.js";
import { setNextTheme, setTheme, theme } from "./theme.js";
import { renderTimeline } from "./timeline.js";

const RESIZE_DELAY_MS = 150;
const TOO_OLD =
  "this browser can't unpack the alerts (it has no DecompressionStream; " +
  "Chrome 103, Firefox 113, Safari 16.4 and later do)";

function listenToControls() {
  document.addEventListener("keydown", onKey);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("text").addEventListener("input", (event) => setFilter({ text: event.target.value }));
  byId("hosts-more").addEventListener("click", () => {
    showMoreHosts();
    renderPressed();
  });
  byId("theme").addEventListener("click", setNextTheme);
  byId("keys-open").addEventListener("click", () => byId("keys").showModal());
  byId("licences-open").addEventListener("click", () => byId("licences").showModal());
  listenToList(openAlert);
}

/** Prints in the light theme, with all rows and the ledger. */
function listenToPrinting() {
  let themeOnScreen = theme();
  addEventListener("beforeprint", () => {
    themeOnScreen = theme();
    setTheme("light");
    renderList(true);
    byId("ledger").open = true;
  });
  addEventListener("afterprint", () => {
    setTheme(themeOnScreen);
    renderList();
  });
}

/** Draws the charts anew when the width of the window has changed. */
function listenToResizing() {
  let width = innerWidth;
  let timer = 0;
  addEventListener("resize", () => {
    if (width === innerWidth) return;
    width = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(() => {
      renderTimeline();
      renderList();
      if (state.open) openAlert(state.open);
    }, RESIZE_DELAY_MS);
  });
}

function renderPage() {
  renderHeadline();
  renderLedger(state.facts.ledger);
  renderBundle();
  if (state.alerts.length) {
    byId("main").hidden = false;
    sortAlerts();
    renderHosts();
    renderFilters();
    renderHead();
    applyFilters();
  } else {
    byId("ledger").open = true;
  }
  renderTimeline();
}

/** Opens the alert whose event id the address names. */
function openFromAddress() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (!id) return;
  const hasId = (row) => row?.id === id;
  const index = state.shown.findIndex((alert) => hasId(alert.opening) || hasId(alert.closing));
  if (index < 0) return;
  select(index, { reopen: false });
  openAlert(state.shown[index]);
}

async function start() {
  setTheme("auto");
  if (typeof DecompressionStream === "undefined") throw new Error(TOO_OLD);
  const { facts, rows } = await readPage(document);
  state.facts = facts;
  state.alerts = alertsOfRows(rows);
  state.hosts = hostsByRisk(state.alerts);
  listenToControls();
  listenToPrinting();
  listenToResizing();
  renderPage();
  openFromAddress();
  document.documentElement.dataset.ready = "true";
  performance.mark("ready");
}

start().catch((error) => {
  byId("verdict").textContent = "This report could not be shown";
  byId("problem").hidden = false;
  byId("problem").textContent =
    `${error.message}. The same alerts are in alerts.ndjson beside this file.`;
});
