/* Hosts by risk; a click filters by host. */

import { LEVELS, addressElement, button, byId, make, severityMark } from "./page.js";
import { HOSTS_A_PAGE, setFilter, state } from "./state.js";
import { count, integer, words } from "./text.js";

/** Shows the first hosts, and a button for more. */
export function renderHosts() {
  const items = state.hosts.slice(0, state.hostsShown).map((host) => make("li", {}, hostRow(host)));
  byId("hosts").replaceChildren(...items);
  const more = state.hosts.length - state.hostsShown;
  byId("hosts-more").hidden = more <= 0;
  byId("hosts-more").textContent = `Show ${Math.min(more, HOSTS_A_PAGE)} more of ${integer(more)}`;
}

/** Shows more hosts. */
export function showMoreHosts() {
  state.hostsShown += HOSTS_A_PAGE;
  renderHosts();
}

function hostRow(host) {
  const level = LEVELS[host.levelRank];
  const behaviours = count(host.risks.size, "behaviour");
  return button(
    {
      class: "host",
      "data-host": host.name,
      "aria-pressed": "false",
      title: `risk ${host.risk.toFixed(1)} of 100 over ${behaviours}`,
      onclick: () => setFilter({ host: state.filter.host === host.name ? null : host.name }),
    },
    make("span", { class: "risk" }, host.risk > 99.5 ? "99+" : String(Math.round(host.risk))),
    addressElement(host.name),
    make("span", { class: `total ${level}` }, severityMark(level, integer(host.alerts))),
    make("span", { class: "doing" }, behaviourText(host)),
  );
}

function behaviourText(host) {
  const byRisk = [...host.risks].sort((left, right) => right[1] - left[1]);
  const names = byRisk.map(([key]) => {
    const [role, name] = key.split("\n");
    return role === "target" ? `${words(name)} (target)` : words(name);
  });
  return names.join(", ");
}
