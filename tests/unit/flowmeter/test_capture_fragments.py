"""Captures: fragments count as the datagram they are of, once it is complete; oddities are
named.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from itertools import pairwise

import pytest

from ids_plugin.flowmeter.packets.ip_reassembly import Fragment, Fragments
from tests.support.captures import Record, ethernet, pcap
from tests.unit.flowmeter.test_capture import flows, frames, read, rejects

ENDS = ("10.0.0.1", "10.0.0.2")
ENDS6 = ("2001:db8::1", "2001:db8::2")
DATAGRAM = struct.pack(">HHHH", 1000, 2000, 2008, 0) + bytes(range(250)) * 8
CUTS = (0, 800, 1600, len(DATAGRAM))


def fragment(
    begin: int, end: int, more: bool | None = None, ident: int = 7, data: bytes = DATAGRAM
) -> bytes:
    """IPv4 bytes `begin` … `end` of a UDP datagram."""
    field = begin // 8 | (0x2000 if (end < len(data) if more is None else more) else 0)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + end - begin, ident, field, 64, 17, 0)
    return head + b"".join(ipaddress.ip_address(end).packed for end in ENDS) + data[begin:end]


def fragment6(
    begin: int, end: int, before: bytes = b"", protocol: int = 17, data: bytes = DATAGRAM
) -> bytes:
    """The same over IPv6; `before` is a hop-by-hop header that names a fragment header."""
    head = struct.pack(">BBHI", protocol, 0, begin | (end < len(data)), 7)
    size = len(before) + 8 + end - begin
    fixed = struct.pack(">IHBB", 6 << 28, size, 0 if before else 44, 64)
    return (
        fixed
        + b"".join(ipaddress.ip_address(end).packed for end in ENDS6)
        + before
        + head
        + data[begin:end]
    )


def pieces(cuts: Sequence[int] = CUTS) -> list[tuple[int, int]]:
    return list(pairwise(cuts))


def notes(data: bytes) -> dict[str, int]:
    return {
        name: count
        for step in read(data)
        for name, count in step.notes.items()
        if name != "packets"
    }


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("chunk", [1 << 16, 900])
def test_a_datagram_counts_once_when_its_last_piece_is_there(
    order: tuple[int, ...], chunk: int
) -> None:
    parts = [fragment(*pieces()[index]) for index in order]
    data = frames(*((index * 0.5, part) for index, part in enumerate(parts)))
    (found,) = flows(data, chunk)
    assert (found["orig_p"], found["resp_p"], found["orig_pkts"]) == (1000, 2000, 1)
    assert (found["orig_ip_bytes"], found["history"]) == (20 + len(DATAGRAM), "D")
    assert found["ts"].microsecond == 0, "the time of the piece that completed it"
    assert found["origin"].endswith("#packet 3")
    assert rejects(data) == []
    assert notes(data) == {"unhandled_fragments": 2}


def test_the_same_over_ipv6() -> None:
    data = frames(*enumerate(fragment6(*piece) for piece in pieces()))
    (found,) = flows(data)
    assert (found["orig_h"], found["orig_ip_bytes"], found["orig_pkts"]) == (
        ENDS6[0],
        40 + len(DATAGRAM),
        1,
    )
    hop = bytes([44, 0, 1, 4, 0, 0, 0, 0])
    (found,) = flows(frames(*enumerate(fragment6(*piece, before=hop) for piece in pieces())))
    assert (found["proto"], found["orig_ip_bytes"]) == ("udp", 48 + len(DATAGRAM))
    (found,) = flows(frames((0, fragment6(0, len(DATAGRAM)))))
    assert found["orig_ip_bytes"] == 40 + len(DATAGRAM), (
        "an only fragment counts without its header"
    )


def test_two_datagrams_under_way_dont_mix() -> None:
    other = DATAGRAM[:100]
    parts = [fragment(0, 800), fragment(0, 48, ident=8, data=other), fragment(800, 2008)]
    (found,) = flows(frames(*enumerate([*parts, fragment(48, 100, ident=8, data=other)])))
    assert (found["orig_pkts"], found["orig_ip_bytes"]) == (2, 40 + 2008 + 100)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (fragment(400, 1200), "fragment_overlap"),
        (fragment(400, 1200, data=bytes(len(DATAGRAM))), "fragment_inconsistency"),
        (fragment(800, 832, more=True), "excessively_small_fragment"),
        (fragment(400, 640, more=False), "fragment_size_inconsistency"),
    ],
)
def test_odd_fragments_are_named_and_the_rest_is_measured(extra: bytes, reason: str) -> None:
    data = frames(*enumerate([fragment(0, 800), fragment(1600, 2008), extra, fragment(800, 1600)]))
    assert ("packet 3", reason) in rejects(data)
    (found,) = flows(data)
    assert found["orig_ip_bytes"] == 20 + len(DATAGRAM)


def test_teardrop() -> None:
    """The second piece lies within the first."""
    data = frames(
        (0, fragment(0, 800)), (1, fragment(400, 640, more=False)), (2, fragment(800, 2008))
    )
    assert ("packet 2", "fragment_overlap") in rejects(data)
    assert [flow["orig_ip_bytes"] for flow in flows(data)] == [820], (
        "complete by what the second says"
    )


def test_incomplete_datagrams_are_no_flows_and_bounded() -> None:
    assert flows(frames((0, fragment(0, 800)), (1, fragment(1600, 2008)))) == []
    waiting = Fragments(most_bytes=10_000, most_datagrams=5)
    for number in range(100):
        key = number.to_bytes(8, "big"), 1
        assert waiting.add(Fragment(key, bytes(20), 17, 0, True, bytes(800), 820)) == (None, [])
    assert len(waiting.incomplete) == 5
    assert (waiting.given_up, waiting.held_bytes) == (95, 4000)


def test_a_cut_first_fragment_is_taken_as_it_is() -> None:
    """As Zeek does for captures of headers."""
    packets = [ethernet(fragment(*piece)) for piece in pieces()]
    data = pcap(Record(index, packet[:100], len(packet)) for index, packet in enumerate(packets))
    (found,) = flows(data)
    assert (found["orig_p"], found["orig_ip_bytes"]) == (1000, 820)
    reasons = ["udp_length_mismatch", "cut_fragment", "cut_fragment"]
    assert rejects(data) == [
        (f"packet {number}", reason) for number, reason in enumerate(reasons, 1)
    ]


def test_a_datagram_longer_than_possible_is_refused() -> None:
    """Ping of death: the last piece ends beyond 65,535."""
    last = (
        struct.pack(">BBHHHBBH", 0x45, 0, 20 + 1000, 7, 65_528 // 8, 64, 17, 0)
        + fragment(0, 8)[12:20]
        + bytes(1000)
    )
    parts = [
        fragment(begin, begin + 1496, more=True, data=bytes(1 << 17))
        for begin in range(0, 65_528, 1496)
    ]
    data = frames(*enumerate([*parts, last]))
    assert (f"packet {len(parts) + 1}", "datagram_too_long") in rejects(data)
    assert flows(data) == []


def test_a_thousand_tiny_fragments_are_quickly_done() -> None:
    parts = [fragment(begin, begin + 8) for begin in range(0, len(DATAGRAM), 8)]
    (found,) = flows(frames(*enumerate(reversed(parts))))
    assert found["orig_ip_bytes"] == 20 + len(DATAGRAM)
