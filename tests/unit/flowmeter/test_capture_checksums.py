"""Captures: checksums, when they are to be judged: Zeek without -C."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest

from ids_plugin.flowmeter.packets.checksums import MODULUS, checksum_sums
from ids_plugin.sources import Input, ReadOptions
from ids_plugin.sources.capture import Capture
from tests.support.captures import (
    ACK,
    SYN,
    Record,
    checksum,
    ethernet,
    icmp,
    ip,
    pcap,
    tcp,
    udp,
)
from tests.unit.flowmeter.test_capture import CLIENT, SERVER, flows, frames, rejects, session
from tests.unit.flowmeter.test_capture_fragments import DATAGRAM, fragment
from tests.unit.flowmeter.test_capture_options import read
from tests.unit.flowmeter.test_capture_tunnels import TUNNELS, without

VERIFY = ReadOptions(verify_checksums=True)
PLACE = {6: 16, 17: 6, 1: 2, 58: 2}


def right(packet: bytes) -> bytes:
    """An IP packet with the checksums it should have."""
    four = packet[0] >> 4 == 4
    header = 20 if four else 40
    protocol = packet[9] if four else packet[6]
    body = bytearray(packet[header:])
    ends = packet[12:20] if four else packet[8:40]
    at = PLACE[protocol]
    body[at : at + 2] = b"\0\0"
    before = b"" if protocol == 1 else ends + struct.pack(">IHBB", len(body), 0, 0, protocol)
    body[at : at + 2] = struct.pack(">H", checksum(before + bytes(body)) or 0xFFFF)
    return packet[:header] + bytes(body)


def spoilt(packet: bytes) -> bytes:
    """The same with a byte of the transport's checksum turned."""
    four = packet[0] >> 4 == 4
    at = (20 if four else 40) + PLACE[packet[9] if four else packet[6]]
    return packet[:at] + bytes([packet[at] ^ 0x55]) + packet[at + 1 :]


def pairs(data: list[dict[str, Any]]) -> list[tuple[str, str | None, int, int]]:
    return [(flow["proto"], flow["history"], flow["orig_pkts"], flow["resp_pkts"]) for flow in data]


def good() -> list[tuple[float, bytes]]:
    """Packets of every transport, each in both families where there are two."""
    six = [
        udp(("fd00::1", 5), ("fd00::2", 6), b"odd"),
        icmp("fd00::1", "fd00::2", 128, payload=b"x" * 9),
    ]
    six.append(tcp(("fd00::1", 5), ("fd00::2", 6), SYN, 1))
    four = [
        udp(CLIENT, ("10.0.0.1", 9), b"x" * 33),
        icmp("10.0.0.5", "10.0.0.6", 8, payload=b"p" * 56),
    ]
    return [
        (time, right(packet))
        for time, packet in [*session(), *((2.0 + i, p) for i, p in enumerate(four + six))]
    ]


def test_packets_whose_checksums_fit_are_measured_as_ever() -> None:
    data = frames(*good())
    assert read(data, VERIFY) == read(data, ReadOptions())
    assert len(flows(data)) == 6


def test_sums_of_stretches_wherever_they_begin() -> None:
    random = np.random.default_rng(3)
    data = random.integers(0, 256, 5000, dtype=np.uint8)
    at, length = random.integers(0, 4000, 400), random.integers(0, 900, 400)
    texts = [data[begin : begin + size].tobytes() for begin, size in zip(at, length, strict=True)]
    words = [
        struct.unpack(f">{(len(text) + 1) // 2}H", text + b"\0" * (len(text) % 2)) for text in texts
    ]
    assert (checksum_sums(data, at, length) % MODULUS).tolist() == [
        sum(each) % MODULUS for each in words
    ]


def test_a_tcp_packet_that_does_not_fit_leaves_its_letter_alone() -> None:
    steps = [(time, right(packet)) for time, packet in session()]
    bad = [
        *steps[:3],
        (0.025, spoilt(right(tcp(CLIENT, SERVER, ACK, 1001, 9001, b"evil")))),
        *steps[3:],
    ]
    (found,) = read(frames(*bad), VERIFY)
    (plain,) = flows(frames(*steps))
    assert found["history"] == "ShACDdFf"
    assert without(found, "history", "uid", "origin") == without(plain, "history", "uid", "origin")
    assert rejects(frames(*bad)) == [], "ignored unless asked for"


def test_offloaded_checksums_leave_half_a_connection() -> None:
    steps = [
        (time, packet if packet[12:16] == bytes([10, 0, 0, 5]) else right(packet))
        for time, packet in session()
    ]
    attempt, rest = read(frames(*steps), VERIFY)
    assert (attempt["history"], attempt["orig_pkts"], attempt["conn_state"]) == ("C", 0, "OTH")
    assert (rest["history"], rest["orig_pkts"], rest["resp_pkts"]) == ("^hCdf", 0, 4), (
        "a SYN-ACK without a SYN"
    )
    assert flows(frames(*steps))[0]["history"] == "ShADdFf"


@pytest.mark.parametrize("times", [1, 9, 10, 100])
def test_letters_of_refused_packets_are_logarithmic(times: int) -> None:
    packet = spoilt(right(udp(CLIENT, ("10.0.0.1", 9), b"x")))
    (found,) = read(frames(*((index / 100, packet) for index in range(times))), VERIFY)
    assert found["history"] == "C" * (1 + (times >= 10) + (times >= 100))
    assert (found["orig_pkts"], found["conn_state"], found["service"]) == (0, "OTH", None)


def test_icmp_and_ip_headers_that_do_not_fit() -> None:
    echo = right(icmp("10.0.0.5", "10.0.0.6", 8, payload=b"p" * 56))
    header = bytearray(echo)
    header[10] ^= 1
    data = frames((0, spoilt(echo)), (1, bytes(header)), (2, bytes(header)), (3, echo))
    assert pairs(read(data, VERIFY)) == [("icmp", None, 1, 0)]


def test_refused_packets_are_counted_and_the_first_of_each_kind_located() -> None:
    bad = [
        spoilt(right(packet)) for packet in (udp(CLIENT, SERVER, b"x"), tcp(CLIENT, SERVER, SYN, 1))
    ] * 3
    data = frames(*enumerate(bad))
    steps = list(Capture().read(Input("x", io.BytesIO(data), data, "s", VERIFY), 1000))
    assert steps[0].notes == {
        "packets": 6,
        "unhandled_bad_udp_checksum": 3,
        "unhandled_bad_tcp_checksum": 3,
    }
    reasons = [(reject.place, reject.reason) for reject in steps[0].rejects]
    assert reasons == [("packet 1", "bad_udp_checksum"), ("packet 2", "bad_tcp_checksum")]


def test_udp_without_a_checksum_is_believed_over_ipv4_alone() -> None:
    four, six = udp(CLIENT, SERVER, b"x"), udp(("fd00::1", 5), ("fd00::2", 6), b"x")
    assert pairs(read(frames((0, four)), VERIFY)) == [("udp", "D", 1, 0)]
    assert pairs(read(frames((0, six)), VERIFY)) == [("udp", "C", 0, 0)]


def test_what_was_not_captured_as_a_whole_is_believed() -> None:
    packet = ethernet(tcp(CLIENT, SERVER, ACK, 1, 1, b"x" * 100))
    assert pairs(read(pcap([Record(0, packet[:80], len(packet))]), VERIFY)) == [("tcp", "D", 1, 0)]


def test_tunnels_and_datagrams_are_judged_inside() -> None:
    wrap, _ = TUNNELS["vxlan"]
    opening = right(session()[0][1])
    found = read(frames((0, wrap(spoilt(opening), False)), (1, wrap(opening, False))), VERIFY)
    assert sorted(pairs(found)) == [("tcp", "C", 0, 0), ("tcp", "S", 1, 0), ("udp", "D", 2, 0)]
    whole = right(ip("10.0.0.1", "10.0.0.2", 17, DATAGRAM))[20:]
    for body, expected in ((whole, "D"), (whole[:6] + b"\x12\x34" + whole[8:], "C")):
        parts = [fragment(0, 800, data=body), fragment(800, len(body), data=body)]
        fitted = [part[:10] + struct.pack(">H", checksum(part[:20])) + part[12:] for part in parts]
        assert [
            history for _, history, _, _ in pairs(read(frames(*enumerate(fitted)), VERIFY))
        ] == [expected]
