"""What an alert document says, and that it always says the same."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import communityid
import pytest

from ids_plugin.alerts import AlertGrouper, BundleFacts
from ids_plugin.schema.alert import Document
from tests.support.factories import BUNDLE, SENSOR, alerts_of, flow, fold, frame, scores, step


def alert(
    label: str = "scan",
    score: float = 0.9,
    bundle: BundleFacts = BUNDLE,
    sensor: str = SENSOR,
    **columns: Any,
) -> Document:
    """The alert of one flow."""
    return step(
        AlertGrouper(sensor, bundle), frame([flow(0, **columns)]), scores([label], [score])
    )[0][0]


def test_ids_are_the_same_every_time() -> None:
    assert alerts_of("scan") == alerts_of("scan")
    assert alert()["event"]["id"] == alert()["event"]["id"]


def test_ids_tell_bundles_sensors_and_flows_apart() -> None:
    others = [
        alert(bundle=BUNDLE._replace(id="cd" * 32)),
        alert(sensor="branch"),
        alert(uid="Cother"),
        alert(label="brute_force"),
        alert(duration=timedelta(seconds=9)),
    ]
    ids = {one["event"]["id"] for one in (alert(), *others)}
    assert len(ids) == 6
    assert all(len(one) == 40 for one in ids)


def test_the_id_of_a_known_flow_never_changes() -> None:
    assert (
        alert(uid="CtPZjS20MLrsMUOJi2")["event"]["id"] == "013118bdbd2f500a352c73375ce492ab1729e3bf"
    )


@pytest.mark.parametrize(
    ("label", "severity", "risk", "technique", "tactic"),
    [
        ("scan", 47, 44.4, ["T1046"], ["Discovery"]),
        ("brute_force", 73, 70.4, ["T1110"], ["Credential Access"]),
        ("flood", 73, 70.4, ["T1498", "T1499"], ["Impact"]),
        ("command_and_control", 73, 70.4, ["T1071"], ["Command and Control"]),
        ("exfiltration", 99, 96.4, ["T1048", "T1041"], ["Exfiltration"]),
        ("spreading", 99, 96.4, ["T1210", "T1021"], ["Lateral Movement"]),
    ],
)
def test_every_class_has_its_severity_risk_and_technique(
    label: str, severity: int, risk: float, technique: list[str], tactic: list[str]
) -> None:
    found = alert(label)
    assert (found["event"]["severity"], found["event"]["risk_score"]) == (severity, risk)
    assert found["threat"]["technique"]["id"] == technique
    assert (
        found["threat"]["technique"]["reference"][0]
        == f"https://attack.mitre.org/techniques/{technique[0]}/"
    )
    assert found["threat"]["tactic"]["name"] == tactic


def test_a_bundle_may_have_severities_of_its_own() -> None:
    assert alert(bundle=BUNDLE._replace(severities={"scan": "low"}))["event"]["severity"] == 21


def test_the_two_documents_of_a_fold_are_told_apart() -> None:
    opened, closed = alerts_of("exfiltration")
    assert "alert" in opened["tags"]
    assert "alert" not in closed["tags"]
    assert opened["event"]["duration"] == 40_000_000_000
    assert closed["event"]["duration"] == (7 * 120 + 40) * 1_000_000_000
    assert closed["@timestamp"] == closed["event"]["end"] == "2026-03-02T09:14:40.000000Z"


def test_icmp_has_a_type_and_a_code_and_no_ports() -> None:
    found = alert("other", proto="icmp", orig_p=8, resp_p=0, service=None)
    assert found["zeek"]["connection"]["icmp"] == {"type": 8, "code": 0}
    assert "port" not in found["source"]
    assert "port" not in found["destination"]
    assert found["network"]["transport"] == "icmp"
    assert found["ids_plugin"]["fold"]["top_ports"] == []
    assert found["message"] == "10.0.0.5 behaves unusually towards 10.0.0.9"


def test_ipv6() -> None:
    found = alert(orig_h="fe80::1", resp_h="2001:db8::2", proto="icmp", orig_p=128, resp_p=0)
    assert (found["network"]["type"], found["network"]["transport"]) == ("ipv6", "ipv6-icmp")
    assert found["network"]["iana_number"] == "58"


def test_what_a_source_does_not_know_is_left_out() -> None:
    unknown: dict[str, Any] = dict.fromkeys(
        ("uid", "service", "duration", "orig_bytes", "resp_bytes", "conn_state", "history", "orig_p", "resp_p",  # noqa: E501
         "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes")
    )  # fmt: skip
    found = alert(**unknown)
    assert found["source"] == {"address": "10.0.0.5", "ip": "10.0.0.5"}
    assert found.keys().isdisjoint({"zeek"})
    assert found["network"].keys() == {
        "transport",
        "iana_number",
        "type",
        "direction",
        "community_id",
    }
    assert "duration" not in found["event"]


def test_a_model_that_was_not_asked_has_no_score() -> None:
    assert alert(score=0.9)["ids_plugin"]["scores"] == {"anomaly_net": 0.891}


@pytest.mark.parametrize(
    ("service", "expected"),
    [("ssl", "ssl"), ("-ssl,HTTP", "http"), ("ssh,-smtp", "ssh"), (None, None), ("-dns", None)],
)
def test_the_application_protocol_is_the_first_that_held(
    service: str | None, expected: str | None
) -> None:
    assert alert(service=service)["network"].get("protocol") == expected


@pytest.mark.parametrize(
    ("orig_h", "resp_h", "direction"),
    [
        ("10.0.0.1", "10.0.0.2", "internal"),
        ("10.0.0.1", "8.8.8.8", "outbound"),
        ("8.8.8.8", "10.0.0.1", "inbound"),
        ("8.8.8.8", "9.9.9.9", "external"),
    ],
)
def test_direction(orig_h: str, resp_h: str, direction: str) -> None:
    assert alert(orig_h=orig_h, resp_h=resp_h)["network"]["direction"] == direction


def test_community_id_of_the_source_is_kept() -> None:
    assert alert(community_id="1:given")["network"]["community_id"] == "1:given"


def test_community_ids_are_those_of_the_published_implementation() -> None:
    peer = communityid.CommunityID()
    rng = random.Random(7)
    for _ in range(100):
        orig_h, resp_h = _addresses(rng)
        proto, number = rng.choice([("tcp", 6), ("udp", 17), ("sctp", 132)])
        ports = rng.choice([(80, 80), (rng.randrange(65536), rng.randrange(65536))])
        found = alert(orig_h=orig_h, resp_h=resp_h, proto=proto, orig_p=ports[0], resp_p=ports[1])
        expected = peer.calc(communityid.FlowTuple(number, orig_h, resp_h, *ports))
        assert found["network"]["community_id"] == expected


@pytest.mark.parametrize("version", [4, 6])
def test_community_ids_of_icmp(version: int) -> None:
    peer = communityid.CommunityID()
    make = communityid.FlowTuple.make_icmp if version == 4 else communityid.FlowTuple.make_icmp6
    hosts = ("192.0.2.9", "192.0.2.1") if version == 4 else ("2001:db8::9", "2001:db8::1")
    for kind in (*range(0, 20), *range(125, 160)):
        for orig_h, resp_h in (hosts, hosts[::-1], (hosts[0], hosts[0])):
            found = alert(orig_h=orig_h, resp_h=resp_h, proto="icmp", orig_p=kind, resp_p=3)
            assert found["network"]["community_id"] == peer.calc(make(orig_h, resp_h, kind, 3)), (
                kind,
                orig_h,
            )


def test_protocols_without_ports() -> None:
    peer = communityid.CommunityID()
    found = alert(proto="unknown_transport", ip_proto=47, orig_p=None, resp_p=None)
    assert found["network"]["community_id"] == peer.calc(
        communityid.FlowTuple.make_ip("10.0.0.5", "10.0.0.9", 47)
    )
    assert (
        "community_id" not in alert(proto="unknown_transport", orig_p=None, resp_p=None)["network"]
    )


def test_messages_read_well() -> None:
    rows = [flow(s, resp_h=f"10.0.0.{s % 3 + 20}", resp_p=22) for s in range(1234)]
    flows = frame(rows)
    found = fold(flows, scores(["brute_force"] * len(flows), [0.9] * len(flows)))[0]
    assert [one["message"] for one in found] == [
        "10.0.0.5 guesses passwords at 10.0.0.20, port 22",
        "10.0.0.5 guesses passwords at 3 hosts, port 22: 1,234 flows in 21 min",
    ]


def _addresses(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        return tuple(f"{rng.randrange(1, 224)}.0.0.{rng.randrange(3)}" for _ in range(2))  # type: ignore[return-value]
    return f"2001:db8::{rng.randrange(1, 4):x}", f"2001:db8:{rng.randrange(1, 9):x}::1"
