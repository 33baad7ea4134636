"""Captures: records of connections still open, and Community IDs, when asked for."""

from __future__ import annotations

import io
from typing import Any

import communityid
import polars as pl
import pytest

from ids_plugin.errors import UsageError
from ids_plugin.sources import Input, ReadOptions
from ids_plugin.sources.capture import Capture
from tests.support.captures import ACK, PSH, SYN, icmp, ip, tcp, udp
from tests.unit.flowmeter.test_capture import CLIENT, SERVER, flows, frames, session
from tests.unit.flowmeter.test_capture_tunnels import TUNNELS


def read(data: bytes, options: ReadOptions, chunk_bytes: int = 1 << 16) -> list[dict[str, Any]]:
    """Flows in the order given out."""
    source = Input("test.pcap", io.BytesIO(data), data[:65536], "sensor", options)
    return pl.concat([step.flows for step in Capture(chunk_bytes).read(source, 1000)]).to_dicts()


def long_session(seconds: int, step: int = 10) -> list[tuple[float, bytes]]:
    """Something every `step` seconds, each way in turn."""
    begun = [tcp(CLIENT, SERVER, SYN, 1000), tcp(SERVER, CLIENT, SYN | ACK, 9000, 1001)]
    packets = [(index * 0.01, packet) for index, packet in enumerate(begun)]
    for index, time in enumerate(range(step, seconds + 1, step)):
        packets.append((float(time), tcp(CLIENT, SERVER, ACK | PSH, 1001 + index, 9001, b"x")))
    return packets


@pytest.mark.parametrize("chunk", [1 << 16, 200])
def test_connections_still_open_are_recorded_as_they_grow(chunk: int) -> None:
    data = frames(*long_session(240))
    found = read(data, ReadOptions(open_every_s=60), chunk)
    assert [flow["open"] for flow in found] == [True, True, True, False]
    assert [flow["duration"].total_seconds() for flow in found] == [110, 170, 230, 240], (
        "before the packet that moves the clock on"
    )
    assert [flow["orig_bytes"] for flow in found] == [11, 17, 23, 24]
    assert {(flow["uid"], flow["conn_state"], flow["history"]) for flow in found} == {
        (found[0]["uid"], "S1", "ShD")
    }
    assert [flow for flow in found if not flow["open"]] == flows(data), (
        "the last record is that of a plain reading"
    )


def test_only_tcp_connections_that_have_lasted_are_recorded() -> None:
    other = [(float(time), udp(CLIENT, ("10.0.0.1", 9999), b"x")) for time in range(0, 200, 10)]
    late = [(190 + time, packet) for time, packet in session(close="")]
    found = read(frames(*sorted([*other, *late])), ReadOptions(open_every_s=60))
    assert [flow["open"] for flow in found] == [False, False]


def test_a_jump_of_years_closes_what_is_open() -> None:
    data = frames(*long_session(100), (10.0**8, udp(CLIENT, SERVER, b"x")))
    found = read(data, ReadOptions(open_every_s=60))
    assert [flow["open"] for flow in found] == [False, False]


@pytest.mark.parametrize("seconds", [-5, 0.5, float("nan"), float("inf")])
def test_a_time_that_can_not_be_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError):
        ReadOptions(open_every_s=seconds)


def test_community_ids_equal_the_reference() -> None:
    pairs = [
        ("10.0.0.5", "10.0.0.6"),
        ("10.0.0.9", "10.0.0.6"),
        ("fd00::1", "fd00::2"),
        ("fd00::9", "fd00::2"),
    ]
    packets: list[bytes] = [packet for _, packet in session()]
    for one, other in pairs:
        packets += [udp((one, 5000), (other, 53), b"x"), udp((one, 53), (one, 5000), b"x")]
        packets += [
            tcp((one, 80), (other, 80), SYN, 1),
            ip(one, other, 47 if ":" in one else 50, bytes(8)),
        ]
        kinds = (128, 129, 1, 133, 143) if ":" in one else (8, 0, 3, 13, 11)
        packets += [icmp(one, other, kind, 1) for kind in kinds] + [
            icmp(one, one, kind, 1) for kind in kinds
        ]
    packets.append(TUNNELS["gtp"][0](packets[0], False))
    packets.append(ip("10.0.0.5", "10.0.0.6", 132, bytes(12)))
    found = read(frames(*enumerate(packets)), ReadOptions(community_id=True))
    assert len(found) > 30
    reference = communityid.CommunityID()
    for flow in found:
        protocol, ports = flow["ip_proto"], (flow["orig_p"], flow["resp_p"])
        if protocol == 132:
            assert flow["community_id"] is None, "its ports aren't known"
            continue
        if protocol not in (1, 6, 17, 58):
            ports = (None, None)
        expected = reference.calc(
            communityid.FlowTuple(protocol, flow["orig_h"], flow["resp_h"], *ports)
        )
        assert flow["community_id"] == expected, flow


def test_no_community_ids_unless_asked_for() -> None:
    assert {flow["community_id"] for flow in flows(frames(*session()))} == {None}
