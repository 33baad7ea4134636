"""Captures: whatever link layer stands around them, the packets are the same; what isn't IP is
counted by kind.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.support.captures import (
    Record,
    block,
    enhanced,
    ethernet,
    interface,
    ip,
    pcap,
    section,
    udp,
)
from tests.unit.flowmeter.test_capture import CLIENT, SERVER, flows, frames, read, rejects, session

MACS = b"\2\0\0\0\0\1\2\0\0\0\0\2"
SNAP = b"\xaa\xaa\3\0\0\0"
RADIOTAP = struct.pack("<BBHI", 0, 0, 12, 0) + bytes(4)


def kind_of(packet: bytes) -> int:
    return 0x86DD if packet[0] >> 4 == 6 else 0x0800


def family_of(packet: bytes) -> int:
    return 30 if packet[0] >> 4 == 6 else 2


def wireless(packet: bytes, control: int = 0x08, flags: int = 0x01, logical: bytes = SNAP) -> bytes:
    """An 802.11 data frame; with `flags` 3 between access points, with `control` 0x88 with
    quality of service.
    """
    head = bytes([control, flags]) + bytes(22)
    head += bytes(6) if flags & 3 == 3 else b""
    head += bytes(2) if control & 0x80 else b""
    return head + logical + struct.pack(">H", kind_of(packet)) + packet


def aggregated(*packets: bytes) -> bytes:
    """An 802.11 frame of several."""
    flow_frame = bytes([0x88, 0x01]) + bytes(22) + b"\x80\0"
    for packet in packets:
        body = SNAP + struct.pack(">H", kind_of(packet)) + packet
        flow_frame += bytes(12) + struct.pack(">H", len(body)) + body
        flow_frame += bytes(len(body) % 4)
    return flow_frame


def tagged(kind: int, middle: bytes, inner: int | None = None) -> Callable[[bytes], bytes]:
    """An Ethernet frame of `kind` with `middle` before the packet, and its Ethernet type unless
    that is given away.
    """
    return lambda packet: (
        MACS
        + struct.pack(">H", kind)
        + middle
        + (struct.pack(">H", kind_of(packet)) if inner is None else b"")
        + packet
    )


def length_first(packet: bytes) -> bytes:
    """802.3 with SNAP."""
    body = SNAP + struct.pack(">H", kind_of(packet)) + packet
    return MACS + struct.pack(">H", len(body)) + body


def nflog(packet: bytes) -> bytes:
    values = struct.pack("<HHB3x", 5, 10, 1) + struct.pack("<HH", 4 + len(packet), 9) + packet
    return struct.pack(">BBH", 10 if packet[0] >> 4 == 6 else 2, 0, 1) + values


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "raw": (101, lambda packet: packet),
    "raw of BSD": (12, lambda packet: packet),
    "raw of OpenBSD": (14, lambda packet: packet),
    "ipv4": (228, lambda packet: packet),
    "ipv6": (229, lambda packet: packet),
    "null": (0, lambda packet: struct.pack("<I", 30 if packet[0] >> 4 == 6 else 2) + packet),
    "null of another machine": (
        0,
        lambda packet: struct.pack(">I", 24 if packet[0] >> 4 == 6 else 2) + packet,
    ),
    "loop": (108, lambda packet: struct.pack(">I", 28 if packet[0] >> 4 == 6 else 2) + packet),
    "sll": (113, lambda packet: struct.pack(">HHH8sH", 0, 1, 6, b"", kind_of(packet)) + packet),
    "sll2": (
        276,
        lambda packet: struct.pack(">HHIHBB8s", kind_of(packet), 0, 1, 1, 0, 6, b"") + packet,
    ),
    "vlan": (1, lambda packet: ethernet(packet, [(0x8100, 7)])),
    "qinq": (1, lambda packet: ethernet(packet, [(0x88A8, 7), (0x8100, 8)])),
    "three tags": (1, lambda packet: ethernet(packet, [(0x9100, 7), (0x8100, 8), (0x8100, 9)])),
    "mpls": (1, tagged(0x8847, struct.pack(">I", 0x140), 0)),
    "mpls of two labels": (1, tagged(0x8848, struct.pack(">II", 0x1000, 0x140), 0)),
    "pppoe": (1, lambda packet: ppp(packet, MACS + struct.pack(">HHHH", 0x8864, 0x1100, 1, 0))),
    "mpls in pppoe": (1, tagged(0x8864, struct.pack(">HHHHI", 0x1100, 1, 0, 0x281, 0x140), 0)),
    "vntag": (1, tagged(0x8926, bytes(4))),
    "provider backbone": (1, tagged(0x88E7, bytes(4) + MACS)),
    "fabric path": (1, lambda packet: MACS + b"\x89\x03\0\0" + ethernet(packet)),
    "802.3": (1, length_first),
    "802.3 in a vlan": (1, lambda packet: MACS + b"\x81\0\0\7" + length_first(packet)[12:]),
    "ppp": (9, lambda packet: ppp(packet)),
    "ppp with framing": (9, lambda packet: ppp(packet, b"\xff\3")),
    "ppp, serial": (50, lambda packet: ppp(packet, b"\xff\3")),
    "fddi": (10, lambda packet: bytes(13) + SNAP + struct.pack(">H", kind_of(packet)) + packet),
    "wireless": (105, wireless),
    "wireless between access points": (105, lambda packet: wireless(packet, flags=3)),
    "wireless with quality of service": (
        105,
        lambda packet: wireless(packet, control=0x88, flags=2),
    ),
    "wireless, aggregated": (105, lambda packet: aggregated(packet)),
    "radiotap": (127, lambda packet: RADIOTAP + wireless(packet)),
    "nflog": (239, nflog),
    "Cisco HDLC": (104, lambda packet: b"\x0f\0" + struct.pack(">H", kind_of(packet)) + packet),
    "pf's log": (117, lambda packet: bytes([61, family_of(packet)]) + bytes(62) + packet),
    "ENC": (109, lambda packet: struct.pack("<I", family_of(packet)) + bytes(8) + packet),
    "PPI": (192, lambda packet: struct.pack("<BBHI", 0, 0, 8, 1) + ethernet(packet)),
    "frame relay": (
        107,
        lambda packet: b"\x18\x41\3" + (b"\x8e" if packet[0] >> 4 == 6 else b"\xcc") + packet,
    ),
    "Prism": (119, lambda packet: struct.pack("<II", 0x44, 144) + bytes(136) + wireless(packet)),
    "AVS": (163, lambda packet: struct.pack(">II", 0x80211001, 64) + bytes(56) + wireless(packet)),
    "QinQ 0x9200": (1, tagged(0x9200, b"\0\x0a\x81\0\0\x0b")),
    "802.1BR": (1, tagged(0x893F, bytes(6))),
    "Ethernet over MPLS": (
        1,
        lambda packet: MACS + b"\x88\x47\0\1\1\x40" + bytes(4) + ethernet(packet),
    ),
}


def ppp(packet: bytes, before: bytes = b"") -> bytes:
    return before + struct.pack(">H", 0x57 if packet[0] >> 4 == 6 else 0x21) + packet


@pytest.mark.parametrize("kind", LINKS)
def test_link_types_give_the_same_flows(kind: str) -> None:
    link, wrap = LINKS[kind]
    short = [(time, packet) for time, packet in session() if len(packet) < 1400]
    both = [*short, (1.0, ip("fd00::1", "fd00::2", 17, struct.pack(">HHHH", 1, 2, 8, 0)))]
    found = flows(pcap((Record(time, wrap(packet)) for time, packet in both), link=link))
    assert found == flows(frames(*both))


def test_several_packets_of_one_frame() -> None:
    steps = [packet for _, packet in session()]
    records = [Record(index, aggregated(*steps[3 * index : 3 * index + 3])) for index in range(4)]
    (found,) = flows(pcap(records, link=105))
    assert (found["history"], found["orig_pkts"], found["resp_pkts"]) == ("ShADdFf", 6, 4)
    cut = aggregated(*steps[:2])[:-10]
    assert rejects(pcap([Record(0, cut)], link=105)) == [("packet 1", "cut_subframe")]


OTHERS = {
    "arp": (1, MACS + b"\x08\x06" + bytes(28)),
    "rarp": (1, MACS + b"\x80\x35" + bytes(28)),
    "lldp": (1, MACS + b"\x88\xcc" + bytes(28)),
    "eapol": (1, MACS + b"\x88\x8e" + bytes(28)),
    "llc": (1, MACS + b"\x00\x26" + b"\x42" * 38),
    "ipx": (1, MACS + b"\x00\x26" + b"\xff" * 38),
    "undefined_ethertype": (1, MACS + b"\x05\xf0" + bytes(28)),
    "ethertype_0x88f7": (1, MACS + b"\x88\xf7" + bytes(28)),
    "pppoe_discovery": (1, MACS + b"\x88\x63" + bytes(28)),
    "ppp_control": (1, MACS + struct.pack(">HHHHH", 0x8864, 0x1100, 1, 0, 0xC021) + bytes(20)),
    "mpls_pseudowire": (1, MACS + struct.pack(">HII", 0x8847, 0x140, 1) + bytes(40)),
    "address_family_7": (0, struct.pack("<I", 7) + bytes(40)),
    "80211_no_data": (105, wireless(session()[0][1], control=0x80)),
    "80211_encrypted": (105, wireless(session()[0][1], flags=0x41)),
    "nflog_version": (239, b"\2\1" + bytes(40)),
    "link_type_147": (147, bytes(40)),
    "link_type_189": (189, bytes(200)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_ip_is_counted_by_kind(kind: str) -> None:
    link, packet = OTHERS[kind]
    data = pcap([Record(0, packet), Record(1, packet)], link=link)
    assert read(data)[0].notes == {"packets": 2, f"unhandled_{kind}": 2}
    assert flows(data) == []


def test_an_unknown_link_type_is_named_once_and_the_rest_is_measured() -> None:
    parts = [section(), interface(147), interface(1)]
    parts += [enhanced(Record(0, b"x" * 60), 0), enhanced(Record(0, b"x" * 60), 0)]
    parts += [enhanced(Record(time, ethernet(packet)), 1) for time, packet in session()]
    data = b"".join(parts)
    assert rejects(data) == [("packet 1", "link_type_147")]
    assert [flow["history"] for flow in flows(data)] == ["ShADdFf"]


def test_interfaces_have_link_types_resolutions_and_offsets_of_their_own() -> None:
    offset = struct.pack("<HHq", 14, 8, 1_000_000_000) + bytes(4)
    shifted = block(1, struct.pack("<HHI", 101, 0, 0) + struct.pack("<HHB3x", 9, 1, 9) + offset)
    parts = [section(), interface(1), shifted, interface(127, 3)]
    late = Record(-1_000_000_000 + 1, session()[1][1])
    parts += [enhanced(Record(0, ethernet(session()[0][1])), 0), enhanced(late, 1, 10**9)]
    parts += [enhanced(Record(2, RADIOTAP + wireless(session()[2][1])), 2, 1000)]
    (found,) = flows(b"".join(parts))
    assert (found["history"], found["duration"].total_seconds()) == ("ShA", 2)


def test_truncated_link_headers_are_located() -> None:
    for link, shortest in (
        (1, 14),
        (0, 4),
        (9, 3),
        (50, 4),
        (10, 21),
        (105, 20),
        (127, 4),
        (113, 16),
        (276, 20),
        (239, 3),
    ):
        assert rejects(pcap([Record(0, bytes(shortest))], link=link)) == [
            ("packet 1", "cut_link_header")
        ], link


def test_extension_headers_that_end_the_road_or_change_the_ends() -> None:
    datagram = struct.pack(">HHHH", 1, 2, 8, 0)
    ends = ("fd00::1", "fd00::2")
    home = bytes([17, 2, 201, 16]) + bytes(15) + b"\x99" + bytes(4)
    route = bytes([17, 2, 0, 1, 0, 0, 0, 0]) + bytes(15) + b"\x77"
    secured = bytes([17, 4, 0, 0]) + bytes(20)
    data = frames(
        (0, ip(*ends, 60, home + datagram)),
        (1, ip(*ends, 43, route + datagram)),
        (2, ip(*ends, 51, secured + datagram)),
        (3, ip(*ends, 50, bytes(16))),
        (4, ip(*ends, 135, bytes(16))),
        (5, ip(*ends, 59, b"")),
        (6, ip(*ends, 0, bytes([59, 9]) + bytes(6))),
    )
    found = [(flow["orig_h"], flow["resp_h"], flow["orig_ip_bytes"]) for flow in flows(data)]
    assert found == [("::99", ends[1], 72), (ends[0], "::77", 72), (ends[0], ends[1], 72)]
    notes = read(data)[0].notes
    assert {name: notes[f"unhandled_{name}"] for name in ("esp", "mobility", "ipv6_no_next")} == {
        "esp": 1, "mobility": 1, "ipv6_no_next": 1,
    }  # fmt: skip
    assert rejects(data) == [("packet 7", "cut_ip_header")]


def test_jumbograms_are_refused_and_offloaded_lengths_taken_from_the_capture() -> None:
    jumbo = bytearray(ip("fd00::1", "fd00::2", 0, bytes([17, 0, 194, 4, 0, 1, 0, 0]) + bytes(100)))
    jumbo[4:6] = b"\0\0"
    assert rejects(frames((0, bytes(jumbo)))) == [("packet 1", "jumbogram")]
    offloaded = bytearray(udp(CLIENT, SERVER, b"x" * 100))
    offloaded[2:4] = b"\0\0"
    (found,) = flows(frames((0, bytes(offloaded)), (1, bytes(offloaded))))
    assert (found["orig_bytes"], found["orig_ip_bytes"]) == (200, 256)


def test_ipsec_over_ipv4_is_an_unknown_transport() -> None:
    found = flows(
        frames(
            (0, ip("10.0.0.1", "10.0.0.2", 50, bytes(40))),
            (1, ip("10.0.0.1", "10.0.0.2", 51, bytes(40))),
        )
    )
    assert [(flow["proto"], flow["ip_proto"]) for flow in found] == [
        ("unknown_transport", 50),
        ("unknown_transport", 51),
    ]
