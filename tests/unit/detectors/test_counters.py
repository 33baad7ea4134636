"""Rules of counters speak at their thresholds, and ordinary traffic that looks alike stays
silent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import orjson
import pytest

from ids_plugin.bundle import Bundle, seal
from ids_plugin.detectors.counters import PLUGIN, rule_key, score_of
from ids_plugin.detectors.counting.rules import DETECTORS
from ids_plugin.errors import BundleError
from tests.support import shipped
from tests.support.detecting import Judged, judge
from tests.support.factories import Row, flow, unanswered

HOST, VICTIM, OUTSIDE = "10.0.0.66", "10.0.0.2", "203.0.113.9"
LOGIN: dict[str, Any] = {"orig_bytes": 1900, "resp_bytes": 2400, "orig_pkts": 15, "resp_pkts": 14}
REFUSED: dict[str, Any] = {
    "conn_state": "REJ",
    "history": "Sr",
    "duration": None,
    "orig_bytes": 0,
    "resp_bytes": 0,
    "orig_pkts": 1,
    "orig_ip_bytes": 60,
    "resp_pkts": 1,
    "resp_ip_bytes": 40,
}


def port_scan() -> list[Row]:
    """Refused by port after port of one host."""
    return [flow(s * 0.1, HOST, VICTIM, resp_p=1000 + s, **REFUSED) for s in range(40)]


def sweep() -> list[Row]:
    """One port of many hosts, none of which answers."""
    return [unanswered(s * 0.2, HOST, f"10.0.1.{s + 1}", 6379) for s in range(40)]


def slow_port_scan() -> list[Row]:
    """A port an hour and a half."""
    return [flow(s * 2400, HOST, VICTIM, resp_p=1000 + s, **REFUSED) for s in range(40)]


def ping_sweep() -> list[Row]:
    """Pings to many hosts that aren't there."""
    ping: dict[str, Any] = {"proto": "icmp", "orig_p": 8, "conn_state": "OTH", "history": None}
    return [unanswered(s * 0.2, HOST, f"10.0.1.{s + 1}", 0, **ping) for s in range(40)]


def password_guesses() -> list[Row]:
    """Short SSH sessions, one every four seconds."""
    return [flow(s * 4, HOST, VICTIM, resp_p=22, service="ssh", **LOGIN) for s in range(40)]


def password_spray() -> list[Row]:
    """The same login tried at many hosts."""
    return [flow(s * 20, HOST, f"10.0.1.{s}", resp_p=22, service="ssh", **LOGIN) for s in range(20)]


def syn_flood() -> list[Row]:
    """One source, one service, hundreds of connections that nobody completes."""
    return [unanswered(s * 0.01, HOST, VICTIM, 80) for s in range(400)]


def forged_sources() -> list[Row]:
    """Every connection from another address."""
    return [unanswered(s * 0.02, f"198.51.{s % 100}.{s % 251}", VICTIM, 80) for s in range(400)]


def one_large_flow() -> list[Row]:
    """Datagrams as fast as can be, in one flow that nobody answers."""
    sent: dict[str, Any] = {"proto": "udp", "conn_state": "S0", "history": "D", "resp_pkts": 0}
    sent |= {"orig_pkts": 90_000, "orig_ip_bytes": 6_000_000, "orig_bytes": 3_480_000}
    return [flow(0, HOST, VICTIM, resp_p=8000, duration=timedelta(seconds=20), **sent)]


def worm() -> list[Row]:
    """One entrance of many hosts, and every eighth lets it in."""
    rows = []
    for s in range(60):
        peer = f"10.0.1.{s + 1}"
        entered = s % 8 == 7
        rows.append(
            flow(s, HOST, peer, resp_p=23, orig_bytes=200, resp_bytes=900)
            if entered
            else unanswered(s, HOST, peer, 23)
        )
    return rows


def inbound_noise() -> list[Row]:
    """Outside hosts knock at one local host."""
    return [
        unanswered(s * 30, f"192.0.2.{s % 200}", "10.0.0.80", (22, 23, 8080)[s % 3])
        for s in range(60)
    ]


def dns_tunnel() -> list[Row]:
    """Long questions to the resolver, hundreds of bytes each."""
    return [
        flow(
            s * 2,
            HOST,
            "10.0.0.1",
            resp_p=53,
            proto="udp",
            service="dns",
            orig_bytes=180,
            resp_bytes=220,
            orig_pkts=1,
            resp_pkts=1,
        )
        for s in range(120)
    ]


def uploads() -> list[Row]:
    """A dozen uploads to a host that nobody talked to before."""
    return [
        flow(
            s * 20,
            HOST,
            OUTSIDE,
            duration=timedelta(seconds=10),
            orig_bytes=2_000_000,
            resp_bytes=3_000,
            orig_pkts=1_500,
            resp_pkts=700,
        )
        for s in range(16)
    ]


ATTACKS: dict[Callable[[], list[Row]], tuple[str, bool]] = {
    port_scan: ("scan", False),
    sweep: ("scan", False),
    slow_port_scan: ("scan", False),
    ping_sweep: ("scan", False),
    password_guesses: ("brute_force", False),
    password_spray: ("brute_force", False),
    syn_flood: ("flood", True),
    forged_sources: ("flood", True),
    one_large_flow: ("flood", True),
    worm: ("spreading", False),
    inbound_noise: ("inbound_noise", True),
    dns_tunnel: ("exfiltration", False),
    uploads: ("exfiltration", False),
}
"""flows → class, and whether the responder is the subject"""


def domain_logons() -> list[Row]:
    """Workstations log on: Kerberos, LDAP and SMB to the domain controller."""
    rows = []
    for s in range(120):
        for port, sent in ((88, 1600), (389, 900), (445, 30_000)):
            host = f"10.0.0.{10 + s % 40}"
            rows.append(flow(s * 5 + port / 1000, host, "10.0.0.2", resp_p=port, orig_bytes=sent))
    return rows


def browsing_bursts() -> list[Row]:
    """Pages with dozens of servers each; now and then one doesn't answer."""
    rows = []
    for page in range(20):
        for s in range(30):
            server = f"93.184.{page % 8}.{s}"
            late = page * 45 + s * 0.05
            rows.append(
                unanswered(late, "10.0.0.5", server, 443)
                if s % 29 == 28
                else flow(late, "10.0.0.5", server, resp_p=443, resp_bytes=40_000)
            )
    return rows


def discovery() -> list[Row]:
    """SSDP and mDNS to their groups, NetBIOS to the broadcast address."""
    return [
        unanswered(s * 3, f"10.0.0.{5 + s % 20}", group, port, proto="udp", orig_pkts=4)
        for s in range(200)
        for group, port in (("239.255.255.250", 1900), ("224.0.0.251", 5353), ("10.0.0.255", 137))
    ]


def outage() -> list[Row]:
    """The way out is down: the servers of a cloud don't answer, and are tried again and again."""
    return [
        unanswered(round_ * 60 + s, "10.0.0.5", f"52.0.0.{s}", 443)
        for round_ in range(10)
        for s in range(20)
    ]


def one_user_logs_in() -> list[Row]:
    """A few SSH sessions, a large one among them."""
    sizes = (1900, 60_000, 2100, 900_000, 2000)
    return [
        flow(s * 300, "10.0.0.5", VICTIM, resp_p=22, service="ssh", orig_bytes=size)
        for s, size in enumerate(sizes)
    ]


def name_lookups() -> list[Row]:
    """A busy resolver: short questions, short answers."""
    return [
        flow(
            s * 0.2,
            f"10.0.0.{5 + s % 4}",
            "10.0.0.1",
            resp_p=53,
            proto="udp",
            service="dns",
            orig_bytes=38,
            resp_bytes=120,
            orig_pkts=1,
            resp_pkts=1,
        )
        for s in range(1500)
    ]


def backup() -> list[Row]:
    """A backup that uploads all day to the same service."""
    return [
        flow(s * 300, "10.0.0.5", OUTSIDE, orig_bytes=3_000_000, resp_bytes=9_000)
        for s in range(288)
    ]


ORDINARY = (
    domain_logons,
    browsing_bursts,
    discovery,
    outage,
    one_user_logs_in,
    name_lookups,
    backup,
)


@pytest.mark.parametrize("traffic", ATTACKS, ids=lambda traffic: traffic.__name__)
def test_an_attack_alerts_as_its_class_and_about_its_subject(
    traffic: Callable[[], list[Row]],
) -> None:
    judged = judge("counters", traffic())
    label, is_target = ATTACKS[traffic]
    assert (label, is_target) in {(name, target) for _, name, target in judged.alerts}
    evidence = judged.evidence(judged.first(label))
    subject = VICTIM if is_target else HOST
    assert evidence.summary.startswith(subject) or traffic is inbound_noise
    assert evidence.features[0].value is not None


@pytest.mark.parametrize("traffic", ORDINARY, ids=lambda traffic: traffic.__name__)
def test_ordinary_traffic_is_silent(traffic: Callable[[], list[Row]]) -> None:
    judged = judge("counters", traffic())
    assert judged.alerts == []


THRESHOLDS: dict[Callable[[], list[Row]], str] = {
    port_scan: "scan/pair_failed_ports_60s",
    sweep: "scan/port_failed_peers_60s",
    password_guesses: "brute_force/logins_60s",
    syn_flood: "flood/service_failed_10s",
}
"""flows → class and counter of the rule that speaks first"""


def shipped_threshold(rule: str) -> float:
    """The lowest threshold of a counter in the shipped bundle."""
    made = shipped.detector_bundle()
    thresholds: dict[str, float] = orjson.loads(made.file("counters.json"))["thresholds"]
    return min(value for key, value in thresholds.items() if key.rpartition("/")[0] == rule)


@pytest.mark.parametrize("traffic", THRESHOLDS, ids=lambda traffic: traffic.__name__)
def test_a_rule_speaks_at_its_threshold_and_not_before(traffic: Callable[[], list[Row]]) -> None:
    judged = judge("counters", traffic())
    label = ATTACKS[traffic][0]
    count = int(np.ceil(shipped_threshold(THRESHOLDS[traffic])))
    assert judged.first(label) == count - 1
    assert judge("counters", traffic()[: count - 1]).alerts == []
    feature = judged.evidence(count - 1).features[0]
    assert (feature.name, feature.value) == (THRESHOLDS[traffic].partition("/")[2], count)


def test_scores_rise_with_the_number() -> None:
    strengths = np.array([0.5, 1.0, 2.0, 10.0, 1000.0])
    assert score_of(strengths).tolist() == [0.5, 0.5, 0.75, 0.95, 0.9995]


def test_a_growing_connection_counts_once() -> None:
    """An SSH session of which the sensor tells every minute is no password guessing."""
    session = [
        flow(0, HOST, VICTIM, resp_p=22, service="ssh", uid="Cone", open=part < 40, **LOGIN)
        | {"duration": timedelta(seconds=part), "orig_bytes": 1900 + part}
        for part in range(1, 41)
    ]
    assert judge("counters", session).alerts == []


def changed(thresholds: dict[str, float]) -> Bundle:
    """The shipped bundle with other thresholds of its counters."""
    made = shipped.detector_bundle()
    content = orjson.loads(made.file("counters.json")) | {"thresholds": thresholds}
    return seal(made.manifest, {**made.files, "counters.json": orjson.dumps(content)})


def test_thresholds_are_those_of_the_bundle_and_complete() -> None:
    names = [
        rule_key(detector, index) for detector in DETECTORS for index in range(len(detector.rules))
    ]
    entry = {"name": "counters", "file": "counters.json"}
    detector = PLUGIN.open(changed(dict.fromkeys(names, 7.0)), entry)
    assert {rule.threshold for part in detector.detectors for rule in part.rules} == {7.0}
    with pytest.raises(BundleError, match=names[0]):
        PLUGIN.open(changed(dict.fromkeys(names[1:], 7.0)), entry)
    with pytest.raises(BundleError, match="scan/nothing/0"):
        PLUGIN.open(changed(dict.fromkeys([*names, "scan/nothing/0"], 7.0)), entry)


def test_a_class_can_have_a_threshold_of_its_own() -> None:
    entry = {"name": "counters", "file": "counters.json", "thresholds": {"scan": 0.9}}
    detector = PLUGIN.open(shipped.detector_bundle(), entry)
    assert (detector.threshold("scan"), detector.threshold("flood")) == (0.9, 0.5)


def test_nothing_comes_of_nothing() -> None:
    judged: Judged = judge("counters", [flow(0)])
    assert judged.alerts == []
    assert len(judged.findings.rows) == 0
