"""One detector a class: rules over named counters, each with a threshold of its own, and what tells
the classes apart.

A rule is a guard (which flows may show it) and a counter with its threshold. Its strength at a flow
is counter / threshold; from 1 on it speaks. A detector is as strong as its strongest rule. Every
threshold of a count is also the smallest number of flows (ports, hosts, sessions) an alert stands
on: only `one flow` rules alert on a single flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.detectors.counting.facts import SERVICES, SPREADING_PORTS

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Table = Mapping[str, npt.NDArray[Any]]
"""column → (n): counters (`counters.Counter.column`), facts (`is_…`) and the flow's own numbers"""
ACTOR, TARGET = 0, 1


class Ratio(NamedTuple):
    """One counter over another, as a reason."""

    of: str
    to: str
    text: str
    """what it is, in words"""
    unit: str


class Rule(NamedTuple):
    """One way to show a class."""

    name: str
    column: str
    """counter that is compared, for explanations too"""
    threshold: float
    guard: Callable[[Table], Bools]
    subject: int = ACTOR
    """whose behaviour it is: the originator's (ACTOR) or the responder's (TARGET)"""
    ratio: Ratio | None = None
    """what is unusual where the number alone isn't"""
    doubt: int = 0
    """steps by which an alert stays below the severity of its class"""

    @property
    def horizon_s(self) -> int:
        """Seconds that its counter looks back; 0 for a number of the flow itself."""
        _, separator, seconds = self.column.rpartition("_")
        is_horizon = bool(separator) and seconds.endswith("s") and seconds[:-1].isdigit()
        return int(seconds[:-1]) if is_horizon else 0


@dataclass(frozen=True)
class Detector:
    """The rules of one class."""

    label: str
    rules: tuple[Rule, ...]

    def strengths(self, table: Table) -> tuple[Doubles, npt.NDArray[np.int8]]:
        """(n) strength of the strongest rule, 1 is the threshold; (n) index of that rule."""
        rows = len(table["clock"])
        best, which = np.zeros(rows), np.zeros(rows, np.int8)
        for index, rule in enumerate(self.rules):
            strength = table[rule.column] / rule.threshold
            strong = np.flatnonzero((strength >= 1) & (strength > best))
            if len(strong):
                part = {name: column[strong] for name, column in table.items()}
                strong = strong[rule.guard(part)]
            best[strong], which[strong] = strength[strong], index
        return best, which


def _all(*names: str) -> Callable[[Table], Bools]:
    def guard(table: Table) -> Bools:
        is_shown = np.ones(len(table["clock"]), np.bool_)
        for name in names:
            is_shown &= ~table[name[1:]] if name.startswith("!") else table[name]
        return is_shown

    return guard


def _both(*guards: Callable[[Table], Bools]) -> Callable[[Table], Bools]:
    def guard(table: Table) -> Bools:
        is_shown = guards[0](table)
        for other in guards[1:]:
            is_shown = is_shown & other(table)
        return np.asarray(is_shown)

    return guard


def _ratio(more: str, less: str, factor: float) -> Callable[[Table], Bools]:
    """`more` is at least `factor` times `less`."""
    return lambda table: np.asarray(table[more] >= factor * table[less])


def _least(column: str, count: float) -> Callable[[Table], Bools]:
    return lambda table: np.asarray(table[column] >= count)


def _most(column: str, count: float) -> Callable[[Table], Bools]:
    return lambda table: np.asarray(table[column] <= count)


def _service(*names: str) -> Callable[[Table], Bools]:
    codes = [SERVICES.index(name) + 1 for name in names]
    return lambda table: np.isin(table["login_code"], codes)


# -------------------------------------------------------------------------------------- scan


WEB_PORTS = (80, 443, 8080, 8443)


OUTAGE_FACTOR, PEER_TO_PEER_FACTOR = 5, 10


def _aimed(window: str, least: int) -> Callable[[Table], Bools]:
    """Not an outage and not peer-to-peer.

    Outside hosts' web ports all fail at once when the way out is down, and peer-to-peer programs
    try many outside hosts on a port of their own: far more must have failed there. Who scans tries
    each host once or twice (three times with a transport's own repetitions); who retries each of
    them wants that host. Over a day, a device whose cloud is blocked, or a node of a peer-to-peer
    net, fails with any number of outside hosts: there, such ports say nothing."""

    def guard(table: Table) -> Bools:
        peers, tries, port = (
            table[f"port_failed_peers_{window}"],
            table[f"port_failed_{window}"],
            table["resp_p"],
        )
        outside = ~table["local_resp"]
        web = outside & np.isin(port, WEB_PORTS)
        own_port = outside & (port > 1024) & ~np.isin(port, SPREADING_PORTS)
        few = (web & (peers < OUTAGE_FACTOR * least)) | (
            own_port & (peers < PEER_TO_PEER_FACTOR * least)
        )
        weak = (web | own_port) if window == "86400s" else few
        return np.asarray(~weak & (tries <= 4 * peers))

    return guard


def scan() -> Detector:
    """Ports of one host, one port of many hosts, many local services, pings: tried, and hardly ever
    answered."""
    rules: list[Rule] = []
    for window, least in (("60s", 8), ("3600s", 12), ("86400s", 20)):
        rules.append(
            Rule("ports of one host", f"pair_failed_ports_{window}", least, _all("is_probe"))
        )
    for window, least in (("60s", 8), ("3600s", 20), ("86400s", 40)):
        failed, answered = f"port_failed_peers_{window}", f"port_answered_peers_{window}"
        sweep = _both(_all("is_tcp_probe"), _ratio(failed, answered, 2), _aimed(window, least))
        rules.append(Rule("one port of many hosts", failed, least, sweep))
    for window, least in (("10s", 10), ("3600s", 40), ("86400s", 80)):
        probed, reached = f"local_probed_{window}", f"local_reached_{window}"
        rules.append(
            Rule(
                "local services",
                probed,
                least,
                _both(_all("is_local_probe"), _ratio(probed, reached, 1)),
            )
        )
    rules.append(
        Rule("datagrams to many hosts", "port_udp_peers_60s", 60, _all("is_udp_unanswered"))
    )
    rules.append(Rule("pings", "silent_ping_peers_60s", 10, _all("is_silent_ping")))
    rules.append(Rule("pings", "ping_peers_60s", 40, _all("is_ping")))
    return Detector("scan", tuple(rules))


# ------------------------------------------------------------------------------- brute force


GUESSES = {"10s": 6, "60s": 10, "600s": 20, "3600s": 60}
"""short sessions with one login service of one host"""
CHATTY_GUESSES = {"60s": 15, "600s": 60, "3600s": 240}
"""the same where software itself comes back often: SMB, RPC, databases, MQTT, mail"""


def brute_force() -> Detector:
    """Short sessions with one login service, again and again."""
    people = _both(_all("is_login"), _service("ssh", "ftp", "telnet", "rdp", "vnc"))
    software = _both(_all("is_login"), _service("smb", "rpc", "database", "mqtt", "mail"))
    rules = [Rule("guesses", f"logins_{w}", n, people) for w, n in GUESSES.items()]
    rules += [Rule("guesses", f"logins_{w}", n, software) for w, n in CHATTY_GUESSES.items()]
    rules.append(Rule("one password for many hosts", "login_peers_600s", 10, people))
    return Detector("brute_force", tuple(rules))


# ------------------------------------------------------------------------------------- flood


def _mostly_unanswered(table: Table) -> Bools:
    """No busy server: at least half of the victim's connections brought nothing."""
    return np.asarray(table["victim_answered_10s"] <= 0.5 * table["victim_flows_10s"])


def _few_ports(table: Table) -> Bools:
    """No scan of the victim: at least ten connections to each port. (Forged sources are counted by
    another rule.)"""
    return np.asarray(table["victim_failed_10s"] >= 10 * table["victim_failed_ports_10s"])


def _few_ports_of_all(table: Table) -> Bools:
    """The same over all connections, DNS and other infrastructure included."""
    return np.asarray(table["victim_flows_10s"] >= 10 * table["victim_ports_10s"])


def flood() -> Detector:
    """More than a service can answer, at one victim."""
    idle = _both(_all("is_idle"), _mostly_unanswered)
    rules = (
        Rule("one service", "service_failed_10s", 100, idle, TARGET),
        Rule("unproductive connections", "victim_failed_10s", 100, _both(idle, _few_ports), TARGET),
        Rule("many sources", "victim_failed_sources_10s", 50, idle, TARGET),
        Rule(
            "datagrams full of data",
            "victim_datagrams_10s",
            500,
            _all("is_filled_datagram"),
            TARGET,
        ),
        Rule(
            "connections",
            "victim_flows_10s",
            1_000,
            _both(_all("is_unicast"), _few_ports_of_all, _mostly_unanswered),
            TARGET,
        ),
        Rule("held open", "stalled_60s", 100, _all("is_stalled"), TARGET),
        Rule("answers nobody asked for", "unasked_10s", 100, _all("is_unasked"), ACTOR),
        Rule("amplified answers", "amplified_bytes_10s", 1_000_000, _all("is_amplified"), ACTOR),
        Rule("one flow", "one_way_packets", 5_000, _all("!to_group"), TARGET),
    )
    return Detector("flood", rules)


# --------------------------------------------------------------------------------- spreading


def _entered(table: Table) -> Bools:
    """It got in elsewhere the same way, or somebody got in here the same way before."""
    got_in = (table["login_code"] > 0) & (table["login_peers_3600s"] >= 2)
    return np.asarray(got_in | (table["entered_3600s"] >= 1))


def spreading() -> Detector:
    """A local host tries one entrance of many hosts and gets in at some."""
    worm_port = _both(_all("local_orig"), lambda t: np.isin(t["resp_p"], SPREADING_PORTS))
    tried = _both(worm_port, lambda t: t["is_tcp_probe"] | t["is_login"])
    rules = (
        Rule("one entrance of many hosts", "port_failed_peers_60s", 20, _both(tried, _entered)),
        Rule("one entrance of many hosts", "port_failed_peers_3600s", 40, _both(tried, _entered)),
    )
    return Detector("spreading", rules)


# ----------------------------------------------------------------------------- inbound noise


_UNKNOWN = _both(_all("is_stranger"), _most("pair_outbound_86400s", 0))
"""from an outside host that nobody inside has contacted for a day"""


def inbound_noise() -> Detector:
    """External originators try a local host."""
    many = _both(
        _UNKNOWN,
        lambda table: (table["stranger_minutes_3600s"] >= 3) | (table["stranger_ports_3600s"] >= 5),
    )
    rules = (
        Rule("external originators", "strangers_3600s", 5, many, TARGET),
        Rule("one external originator, many ports", "pair_failed_ports_60s", 5, _UNKNOWN, TARGET),
        Rule(
            "one external originator, again and again", "stranger_tries_3600s", 6, _UNKNOWN, TARGET
        ),
    )
    return Detector("inbound_noise", rules)


def outside_scan() -> Detector:
    """One external originator tries several local hosts, too few times each to be noise at one of
    them."""
    rules = (
        Rule("one external originator, several hosts", "stranger_peers_3600s", 5, _UNKNOWN),
        Rule("one external originator, several hosts", "stranger_peers_86400s", 8, _UNKNOWN),
    )
    return Detector("inbound_noise", rules)


# ------------------------------------------------------------------------------ exfiltration


def _unusual(table: Table) -> Bools:
    """Ten times what the host sends outside in its usual hour, known from three hours; four times
    what came."""
    hours = np.maximum(table["active_hours_86400s"] - 1, 1)
    usual = (table["host_upload_86400s"] - table["host_upload_3600s"]) / hours
    enough = table["active_hours_86400s"] >= 4
    return np.asarray(
        enough
        & (table["upload_3600s"] >= 10 * usual)
        & (table["upload_3600s"] >= 4 * table["download_3600s"])
    )


def _new_to_the_day(table: Table) -> Bools:
    """Most of what the peer got today it got now: no camera or backup that does it all day."""
    return np.asarray(table["upload_86400s"] <= 2 * table["upload_600s"])


def exfiltration() -> Detector:
    """Data carried out: by DNS, by FTP, or far more than the host usually sends."""
    tunnel_up = _both(_all("is_dns"), lambda t: t["dns_up_600s"] >= 60 * t["dns_queries_600s"])
    tunnel_down = _both(
        _all("is_dns"),
        lambda t: t["dns_down_600s"] >= 200 * np.maximum(t["dns_answers_600s"], 1),
        _least("dns_queries_600s", 20),
    )
    only_uploads = _both(
        _all("is_upload"),
        _least("upload_600s", 500_000),
        _ratio("uploads_600s", "contacts_600s", 0.9),
        _new_to_the_day,
    )
    rules = (
        Rule(
            "DNS tunnel, questions",
            "dns_up_600s",
            8_000,
            tunnel_up,
            ratio=Ratio("dns_up_600s", "dns_queries_600s", "mean size of the DNS questions", "B"),
        ),
        Rule(
            "DNS tunnel, answers",
            "dns_down_600s",
            100_000,
            tunnel_down,
            ratio=Ratio("dns_down_600s", "dns_answers_600s", "mean size of the DNS answers", "B"),
        ),
        Rule("nothing but uploads", "uploads_600s", 10, only_uploads, doubt=2),
        Rule(
            "uploads nobody answered",
            "silent_uploads_600s",
            3,
            _both(_all("is_silent_upload"), _least("upload_600s", 100_000)),
        ),
        Rule("far more than usual", "upload_3600s", 100_000_000, _unusual),
        Rule("files by FTP", "ftp_controls_3600s", 3, _least("ftp_uploads_3600s", 1), doubt=2),
    )
    return Detector("exfiltration", rules)


DETECTORS: tuple[Detector, ...] = (
    scan(),
    brute_force(),
    flood(),
    spreading(),
    inbound_noise(),
    outside_scan(),
    exfiltration(),
)
SCAN, BRUTE_FORCE, FLOOD, SPREADING, NOISE, OUTSIDE_SCAN, EXFILTRATION = range(7)


class Finding(NamedTuple):
    """Flows that show a class."""

    detector: Detector
    row: npt.NDArray[np.int64]
    target: Bools
    """the responder is the subject"""
    strength: Doubles
    rule: npt.NDArray[np.int8]


def findings(table: Table, detectors: Sequence[Detector] = DETECTORS) -> list[Finding]:
    """What all detectors say, with precedence: external originators make noise; flood and spreading
    come before scan."""
    strengths = [detector.strengths(table) for detector in detectors]
    over = [strength >= 1 for strength, _ in strengths]
    is_outside = ~table["local_orig"] & table["local_resp"]
    over[SCAN] &= ~over[SPREADING] & ~over[FLOOD]
    for index in (SCAN, BRUTE_FORCE, SPREADING):
        over[index] &= ~is_outside
    for index in (NOISE, OUTSIDE_SCAN):
        over[index] &= is_outside & ~over[FLOOD]
    over[OUTSIDE_SCAN] &= ~over[NOISE]
    result = []
    for detector, (strength, rule), chosen in zip(detectors, strengths, over, strict=True):
        target = np.array([r.subject == TARGET for r in detector.rules])[rule]
        row = np.flatnonzero(chosen)
        result.append(Finding(detector, row, target[row], strength[row], rule[row]))
    return result
