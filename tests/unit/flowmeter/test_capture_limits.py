"""Captures: what a packet holds doesn't decide what it costs; headers as libpcap reads them."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from tests.support.captures import Record, block, enhanced, ethernet, interface, pcap, section, udp
from tests.unit.flowmeter.test_capture import CLIENT, SERVER, flows, frames, read, session

ENDS6 = b"".join(ipaddress.ip_address(end).packed for end in ("2001:db8::1", "2001:db8::2"))
DATAGRAM = struct.pack(">HHHH", 5000, 6000, 12, 0) + b"data"


def chained(kind: int, count: int) -> bytes:
    """IPv6 with so many empty extension headers (44: atomic fragments) before UDP."""
    headers = b"".join(
        bytes([kind if index + 1 < count else 17, 0, 0, 0, 0, 0, 0, 0]) for index in range(count)
    )
    size = len(headers) + len(DATAGRAM)
    return struct.pack(">IHBB", 6 << 28, size, kind, 64) + ENDS6 + headers + DATAGRAM


def records() -> list[Record]:
    return [Record(time, ethernet(packet)) for time, packet in session()]


@pytest.mark.parametrize("kind", [44, 60])
def test_some_extension_headers_are_read_and_many_counted(kind: int) -> None:
    (flow,) = flows(frames((0, chained(kind, 8))))
    assert (flow["proto"], flow["resp_p"]) == ("udp", 6000)
    (step, *_) = read(frames((0, chained(kind, 180)), (1, udp(CLIENT, SERVER, b"x"))))
    assert step.notes["unhandled_ipv6_headers_too_deep"] == 1
    assert len(flows(frames((0, chained(kind, 180)), (1, udp(CLIENT, SERVER, b"x"))))) == 1


def test_atomic_fragment_headers_count_as_zeek_counts_them() -> None:
    (flow,) = flows(frames((0, chained(44, 1))))
    assert flow["orig_ip_bytes"] == 40 + len(DATAGRAM)


def test_the_word_of_the_link_type_may_say_how_long_check_sequences_are() -> None:
    data = bytearray(pcap(Record(r.time, r.data + b"\1\2\3\4") for r in records()))
    data[20:24] = struct.pack("<I", 0x24000001)
    (flow,) = flows(bytes(data))
    assert (flow["conn_state"], flow["orig_bytes"]) == ("SF", 100)


def test_the_modified_format_is_read() -> None:
    header = struct.pack("<IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    body = b"".join(
        struct.pack("<IIIIIHBx", 1_700_000_000, i, len(r.data), len(r.data), 2, 8, 0) + r.data
        for i, r in enumerate(records())
    )
    (flow,) = flows(header + body)
    assert flow["conn_state"] == "SF"


def test_joined_captures_are_both_read_and_the_second_is_named() -> None:
    first, second = pcap(records()), pcap(records(), order=">", nanoseconds=True)
    steps = read(first + second)
    (warning,) = [warning for step in steps for warning in step.warnings]
    assert warning.place == f"packet {len(records()) + 1}"
    assert f"{len(first):,}" in warning.detail
    assert sum(step.notes.get("packets", 0) for step in steps) == 2 * len(records())


def test_a_long_block_is_read_past() -> None:
    packets = [enhanced(r) for r in records()]
    data = section() + interface() + packets[0] + block(0xBAD, bytes(33 << 20))
    (flow,) = flows(data + b"".join(packets[1:]))
    assert flow["conn_state"] == "SF"


def test_lengths_that_the_file_lost_are_those_of_the_headers() -> None:
    data = bytearray(pcap(Record(r.time, r.data[:96]) for r in records()))
    data[16:20] = struct.pack("<I", 96)
    (flow,) = flows(bytes(data))
    assert (flow["conn_state"], flow["orig_bytes"], flow["resp_bytes"]) == ("SF", 100, 3000)
    assert [w.reason for step in read(bytes(data)) for w in step.warnings] == [
        "original_length_lost"
    ]
