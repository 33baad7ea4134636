"""Suricata's flow events read with Zeek's meaning; other events are out of scope by their type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.logs import conn, eve, jsonl, read


def row(**changes: Any) -> dict[str, Any]:
    return read(jsonl([eve(**changes)]), "suricata").row


def test_a_flow_event_has_zeeks_meaning() -> None:
    flow = row(community_id="1:x", host="gateway")
    assert flow["ts"] == datetime(2024, 5, 1, 10, 0, 0, 1, tzinfo=UTC)
    assert flow["duration"] == timedelta(seconds=60.5)
    assert (flow["uid"], flow["proto"], flow["service"]) == ("1000000000000", "tcp", "ssl")
    assert (flow["ip_proto"], flow["community_id"], flow["sensor"]) == (6, "1:x", "gateway")
    assert (flow["orig_pkts"], flow["orig_ip_bytes"]) == (10, 1500 - 14 * 10)
    assert (flow["resp_pkts"], flow["resp_ip_bytes"]) == (12, 9000 - 14 * 12)


def test_what_suricata_cannot_know_is_null() -> None:
    flow = row()
    unknown = (
        "orig_bytes",
        "resp_bytes",
        "history",
        "missed_bytes",
        "local_orig",
        "local_resp",
        "tunnel_parents",
    )
    assert all(flow[name] is None for name in unknown)
    assert row(app_proto="failed")["service"] is None
    assert row(app_proto=None)["service"] is None


@pytest.mark.parametrize(
    "start",
    [
        "2024-05-01T12:00:00.000001+02:00",
        "2024-05-01T10:00:00.000001Z",
        "2024-05-01T10:00:00.000001",
    ],
)
def test_offsets_in_every_form(start: str) -> None:
    assert row(flow={"start": start})["ts"] == datetime(2024, 5, 1, 10, 0, 0, 1, tzinfo=UTC)


def test_one_packet_has_no_duration() -> None:
    single = {"pkts_toserver": 1, "pkts_toclient": 0, "bytes_toserver": 74, "bytes_toclient": 0}
    assert row(flow=single)["duration"] is None


def test_icmp_has_types_where_others_have_ports() -> None:
    ping = {
        "src_port": None,
        "dest_port": None,
        "tcp": None,
        "app_proto": None,
        "icmp_type": 8,
        "icmp_code": 0,
    }
    flow = row(proto="ICMP", **ping)
    assert (
        flow["proto"],
        flow["orig_p"],
        flow["resp_p"],
        flow["ip_proto"],
        flow["conn_state"],
    ) == (
        "icmp",
        8,
        0,
        1,
        "OTH",
    )
    six = row(
        proto="IPv6-ICMP",
        **(ping | {"icmp_type": 128, "src_ip": "2001:0db8:0000::0001", "dest_ip": "ff02::1"}),
    )
    assert (six["proto"], six["orig_p"], six["resp_p"], six["ip_proto"]) == ("icmp", 128, 129, 58)
    assert six["orig_h"] == "2001:db8::1"
    unreachable = row(proto="ICMP", **(ping | {"icmp_type": 3, "icmp_code": 1}))
    assert (unreachable["orig_p"], unreachable["resp_p"]) == (3, 1)
    bare = row(proto="GRE", **(ping | {"icmp_type": None, "icmp_code": None}))
    assert (bare["proto"], bare["orig_p"], bare["ip_proto"]) == ("unknown_transport", None, 47)


@pytest.mark.parametrize(
    ("transport", "request_type", "answer_type"),
    [("IPv6-ICMP", 130, 131), ("IPv6-ICMP", 135, 136), ("ICMP", 8, 0), ("ICMP", 13, 14)],
)
def test_the_responders_port_is_the_type_that_answers(
    transport: str, request_type: int, answer_type: int
) -> None:
    """As Zeek writes it, multicast listener queries and reports among them."""
    ports = {"src_port": None, "dest_port": None, "tcp": None, "app_proto": None, "icmp_code": 0}
    addresses = {"src_ip": "fe80::1", "dest_ip": "ff02::16"} if transport != "ICMP" else {}
    for asked, answered in ((request_type, answer_type), (answer_type, request_type)):
        flow = row(proto=transport, icmp_type=asked, **ports, **addresses)
        assert (flow["orig_p"], flow["resp_p"]) == (asked, answered)


@pytest.mark.parametrize(
    ("ours", "theirs", "answers", "state"),
    [
        ("02", "00", 0, "S0"),
        ("02", "14", 1, "REJ"),
        ("1b", "1b", 9, "SF"),
        ("1a", "1a", 9, "S1"),
        ("1b", "1a", 9, "S2"),
        ("1a", "1b", 9, "S3"),
        ("1e", "1a", 9, "RSTO"),
        ("1a", "1e", 9, "RSTR"),
        ("06", "00", 0, "RSTOS0"),
        ("10", "16", 2, "RSTRH"),
        ("03", "00", 0, "SH"),
        ("10", "13", 2, "SHR"),
        ("18", "10", 5, "OTH"),
    ],
)
def test_connection_states_of_tcp(ours: str, theirs: str, answers: int, state: str) -> None:
    changes: dict[str, Any] = {
        "flow": {"pkts_toclient": answers},
        "tcp": {"tcp_flags_ts": ours, "tcp_flags_tc": theirs},
    }
    assert row(**changes)["conn_state"] == state


@pytest.mark.parametrize(("sent", "answers", "state"), [(2, 1, "SF"), (2, 0, "S0"), (0, 2, "SHR")])
def test_connection_states_of_udp(sent: int, answers: int, state: str) -> None:
    assert (
        row(proto="UDP", tcp=None, flow={"pkts_toserver": sent, "pkts_toclient": answers})[
            "conn_state"
        ]
        == state
    )


def test_tcp_without_flags_has_no_state() -> None:
    assert row(tcp=None)["conn_state"] is None


def test_vlan_tags_are_not_ip_bytes() -> None:
    assert row(vlan=[10, 20])["orig_ip_bytes"] == 1500 - (14 + 8) * 10


def test_frames_that_are_not_ethernets_leave_ip_bytes_unknown() -> None:
    raw = [eve(n, flow={"bytes_toserver": 10 * 40, "bytes_toclient": 12 * 40}) for n in range(30)]
    got = read(jsonl(raw), "suricata")
    assert (
        got.flows["orig_ip_bytes"].null_count() == got.flows.height == got.notes["ip_bytes_unknown"]
    )


def test_other_events_are_out_of_scope_by_type() -> None:
    other = [
        {"timestamp": "2024-05-01T12:05:00.000000+0200", "event_type": kind}
        for kind in ("alert", "dns", "stats", "dns")
    ]
    got = read(jsonl([other[0], eve(1), *other[1:], eve(2)]), "suricata")
    assert got.flows.height == 2
    assert got.out_of_scope == {"eve_alert": 1, "facts_dns": 2, "eve_stats": 1}


@pytest.mark.parametrize("flow_id", [(1 << 64) - 1, -(1 << 63) - 48, (1 << 127) + 1])
def test_long_ids_stay_exact_beside_damaged_lines(flow_id: int) -> None:
    line = jsonl([eve(1, flow_id=flow_id)])
    for data in (line, b"junk\n" + line):
        assert read(data, "suricata").flows["uid"].to_list() == [str(flow_id)]


def test_what_is_no_event_is_a_reject() -> None:
    got = read(jsonl([eve(1), conn(), eve(2)]) + b'{"event_type":"flow","src_ip":"10', "suricata")
    assert got.reasons == ["not_eve", "cut_off"]
    assert got.flows.height == 2
    assert read(
        jsonl([eve(1), eve(2, src_ip="nobody"), eve(3, flow={"start": None})]), "suricata"
    ).reasons == [
        "bad_address",
        "bad_time",
    ]
