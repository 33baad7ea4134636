"""Captures: what comes through tunnels is measured beside the tunnels, as Zeek's packet
analysers do it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.captures import Record, ethernet, ip, pcap, udp
from tests.unit.flowmeter.test_capture import CLIENT, SERVER, flows, frames, read, session

OUTER = ("192.0.2.1", "192.0.2.2")
OUTER6 = ("2001:db8::1", "2001:db8::2")
SIX = (("2001:0:102:304::1", 40_000), ("2001:db8::80", 80))
Wrap = Callable[[bytes, bool], bytes]


def carried(port: int, header: bytes) -> Wrap:
    """In UDP datagrams between `port` and a client's, behind `header`."""

    def wrap(packet: bytes, back: bool) -> bytes:
        ends = (OUTER[0], 50_000), (OUTER[1], port)
        return udp(*(ends[::-1] if back else ends), header + packet)

    return wrap


def inside(protocol: int, header: bytes = b"", ends: tuple[str, str] = OUTER) -> Wrap:
    """Behind an IP header of `protocol`, and `header`."""

    def wrap(packet: bytes, back: bool) -> bytes:
        return ip(*(ends[::-1] if back else ends), protocol, header + packet)

    return wrap


def bridged(wrap: Wrap) -> Wrap:
    """The same around Ethernet frames."""
    return lambda packet, back: wrap(ethernet(packet), back)


def point_to_point(packet: bytes, back: bool) -> bytes:
    """PPTP: enhanced GRE with sequence numbers around PPP."""
    return inside(47, struct.pack(">HHHHIHH", 0x3001, 0x880B, len(packet) + 4, 1, 5, 0xFF03, 0x21))(
        packet, back
    )


GTP = struct.pack(">BBHI", 0x30, 255, 40, 7)
GTP_EXTENDED = struct.pack(">BBHIHBBBHB", 0x34, 255, 40, 7, 0, 0, 0x85, 1, 0, 0)
AYIYA = bytes([0x42, 0x52, 0x11, 4, 0, 0, 0, 0]) + bytes(16 + 20)
ERSPAN_MORE = b"\x20" + bytes(10) + b"\1" + bytes(8)
TUNNELS: dict[str, tuple[Wrap, str | None]] = {
    "ip in ip": (inside(4), None),
    "ip in ip6": (inside(4, ends=OUTER6), None),
    "gre": (inside(47, struct.pack(">HH", 0, 0x0800)), None),
    "gre with checksum, key, "
    "sequence": (inside(47, struct.pack(">HHIII", 0xB000, 0x0800, 0, 1, 2)), None),
    "gre, bridged": (bridged(inside(47, struct.pack(">HH", 0, 0x6558))), None),
    "erspan 1": (bridged(inside(47, struct.pack(">HH", 0, 0x88BE))), None),
    "erspan 2": (bridged(inside(47, struct.pack(">HHI8s", 0x1000, 0x88BE, 1, b"\x10"))), None),
    "erspan 3": (bridged(inside(47, struct.pack(">HHI12s", 0x1000, 0x22EB, 1, b"\x20"))), None),
    "erspan 3 with "
    "more": (bridged(inside(47, struct.pack(">HHI20s", 0x1000, 0x22EB, 1, ERSPAN_MORE))), None),
    "pptp": (point_to_point, None),
    "vxlan": (bridged(carried(4789, b"\x08\0\0\0\0\0\x7b\0")), "vxlan"),
    "geneve": (bridged(carried(6081, struct.pack(">BBHI", 0, 0, 0x6558, 0))), "geneve"),
    "geneve with "
    "options": (carried(6081, struct.pack(">BBHI4s4s", 2, 0, 0x0800, 0, b"\1\2\3\1", b"abcd")), "geneve"),  # noqa: E501
    "gtp": (carried(2152, GTP), "gtpv1"),
    "gtp with options": (carried(2152, struct.pack(">BBHIHBB", 0x32, 255, 40, 7, 1, 0, 0)), "gtpv1"),  # noqa: E501
    "gtp with extensions": (carried(2152, GTP_EXTENDED), "gtpv1"),
    "ayiya": (carried(5072, AYIYA), "ayiya"),
    "ayiya elsewhere": (carried(9999, AYIYA), "ayiya"),
}  # fmt: skip


def through(
    wrap: Wrap, steps: list[tuple[float, bytes]] | None = None, responder: str = SERVER[0]
) -> bytes:
    """A capture of packets sent through a tunnel, answers in the other direction."""
    answers = source_of(ip(responder, responder, 17, b""))
    packets = steps if steps is not None else session()
    return frames(*((time, wrap(packet, source_of(packet) == answers)) for time, packet in packets))


def source_of(packet: bytes) -> bytes:
    return packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]


def without(flow: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in flow.items() if name not in names}


@pytest.mark.parametrize("kind", TUNNELS)
def test_what_is_in_a_tunnel_is_measured_as_outside(kind: str) -> None:
    wrap, service = TUNNELS[kind]
    found = flows(through(wrap))
    (plain,) = flows(frames(*session()))
    (inner,) = [flow for flow in found if flow["proto"] == "tcp"]
    assert without(inner, "uid", "tunnel_parents") == without(plain, "uid", "tunnel_parents")
    outer = [flow for flow in found if flow["proto"] != "tcp"]
    assert [flow["service"] for flow in outer] == ([] if service is None else [service])
    if outer:
        assert inner["tunnel_parents"] == outer[0]["uid"]
        assert (outer[0]["orig_pkts"], outer[0]["resp_pkts"]) == (6, 4)
        assert outer[0]["tunnel_parents"] is None
    else:
        assert len(inner["tunnel_parents"]) == 18
        assert inner["tunnel_parents"] != inner["uid"]


def test_uids_of_tunnels_depend_on_the_capture_alone() -> None:
    for wrap in (TUNNELS["gre"][0], TUNNELS["vxlan"][0]):
        data = through(wrap)
        assert flows(data) == flows(data, 300)


def six(packet: bytes) -> bytes:
    """An IPv4 packet's contents between IPv6 ends."""
    ends = (
        (SIX[0][0], SIX[1][0]) if packet[12:16] == bytes([10, 0, 0, 5]) else (SIX[1][0], SIX[0][0])
    )
    return ip(*ends, packet[9], packet[20:])


def test_six_in_four() -> None:
    (found,) = flows(
        through(inside(41), [(time, six(packet)) for time, packet in session()], SIX[1][0])
    )
    assert (found["orig_h"], found["history"], found["ip_proto"]) == (SIX[0][0], "ShADdFf", 6)


AUTHENTICATION = b"\0\1\2\3" + b"id" + b"sig" + bytes(8) + b"\0"
ORIGIN = b"\0\0" + bytes(6)


@pytest.mark.parametrize(
    ("port", "header"),
    [*((3544, header) for header in (b"", ORIGIN, AUTHENTICATION, AUTHENTICATION + ORIGIN)),
     *((41_000, header) for header in (b"", ORIGIN, AUTHENTICATION + ORIGIN))],
)  # fmt: skip
def test_teredo_counts_as_such_once_both_sides_have_spoken_it(port: int, header: bytes) -> None:
    steps = [(time, six(packet)) for time, packet in session()]
    inner, outer = sorted(
        flows(through(carried(port, header), steps, SIX[1][0])), key=lambda flow: flow["proto"]
    )
    assert (inner["history"], inner["tunnel_parents"]) == ("ShADdFf", outer["uid"])
    assert outer["service"] == "teredo"
    one_way = flows(through(carried(port, header), steps[:1], SIX[1][0]))
    assert {flow["service"] for flow in one_way} == {None}
    assert len(one_way) == 2, "the packet is measured all the same"


def test_a_teredo_bubble_is_no_connection() -> None:
    bubble = ip(SIX[0][0], SIX[1][0], 59, b"")
    (outer,) = flows(frames((0, carried(3544, b"")(bubble, False))))
    assert outer["proto"] == "udp"


def test_what_contradicts_a_tunnel_ends_its_unwrapping() -> None:
    wrap, _ = TUNNELS["vxlan"]
    steps = [(time, wrap(packet, False)) for time, packet in session()]
    wrong = (0.015, carried(4789, b"\0\0\0\0\0\0\0\0")(ethernet(session()[0][1]), False))
    found = flows(frames(*steps[:2], wrong, *steps[2:]))
    assert sorted((flow["proto"], flow["history"]) for flow in found) == [
        ("tcp", "Sh"),
        ("udp", "D"),
    ]
    assert [flow["service"] for flow in found if flow["proto"] == "udp"] == ["vxlan"], (
        "it was believed before"
    )
    late = (70.0, wrap(session()[0][1], False))
    again = [flow for flow in flows(frames(*steps[:2], wrong, late)) if flow["proto"] == "tcp"]
    assert [flow["orig_pkts"] for flow in again] == [2], "a new connection is believed again"


def test_tunnels_in_tunnels_to_the_depth_that_zeek_goes() -> None:
    gre, vxlan = TUNNELS["gre"][0], TUNNELS["vxlan"][0]
    packet = session()[0][1]
    twice = flows(frames((0, vxlan(gre(packet, False), False))))
    assert sorted(flow["proto"] for flow in twice) == ["tcp", "udp"]
    outer, inner = sorted(twice, key=lambda flow: flow["proto"], reverse=True)
    assert inner["tunnel_parents"] not in (None, outer["uid"]), "the innermost"
    five = packet
    for _ in range(5):
        five = gre(five, False)
    assert flows(frames((0, five))) == []
    assert read(frames((0, five)))[0].notes["unhandled_tunnel_too_deep"] == 1


def test_a_tunnel_too_deep_has_its_letter_once() -> None:
    """Zeek's X: limits exceeded."""
    gre, vxlan = TUNNELS["gre"][0], TUNNELS["vxlan"][0]
    deep = vxlan(session()[0][1], False)
    for _ in range(4):
        deep = gre(deep, False)
    (found,) = flows(frames((0, deep), (1, deep)))
    assert (found["history"], found["service"], found["orig_pkts"]) == ("DX", None, 2)


def test_gtp_is_never_in_gtp() -> None:
    wrap, _ = TUNNELS["gtp"]
    second = udp(("10.9.9.1", 2152), ("10.9.9.2", 2152), GTP + session()[0][1])
    found = flows(frames((0, wrap(second, False))))
    assert sorted((flow["proto"], flow["service"] or "") for flow in found) == [
        ("udp", ""),
        ("udp", "gtpv1"),
    ]


def test_a_connection_that_changes_tunnels_names_them_all() -> None:
    steps = session()
    via, other = TUNNELS["vxlan"][0], TUNNELS["gtp"][0]
    packets = [
        (time, (via if index < 4 else other)(packet, False))
        for index, (time, packet) in enumerate(steps)
    ]
    found = {flow["proto"] + (flow["service"] or ""): flow for flow in flows(frames(*packets))}
    assert (
        found["tcphttp"]["tunnel_parents"]
        == f"{found['udpvxlan']['uid']},{found['udpgtpv1']['uid']}"
    )


def test_inner_packets_that_dont_fill_the_tunnel_are_refused() -> None:
    packet = session()[0][1]
    mpls = inside(47, struct.pack(">HHI", 0, 0x8847, 0x140))(packet, False)
    version = inside(47, struct.pack(">HH", 2, 0x800))(packet, False)
    data = frames((0, inside(4)(packet + b"xx", False)), (1, version), (2, mpls))
    assert flows(data) == []
    (step,) = [step for step in read(data) if step.rejects or step.notes]
    assert [(reject.place, reject.reason) for reject in step.rejects] == [
        ("packet 1", "bad_inner_ip")
    ]
    assert step.notes["unhandled_gre"] == 2


def test_dns_from_a_tunnels_port_is_no_tunnel() -> None:
    query = bytes([8, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 0, 0, 1, 0, 1])
    asked = [
        udp(("10.0.0.5", 4789), ("10.0.0.1", 53), query),
        udp(("10.0.0.1", 53), ("10.0.0.5", 4789), query),
    ]
    (found,) = flows(frames(*enumerate(asked)))
    assert (found["orig_p"], found["service"]) == (4789, "dns")


def test_a_cut_packet_keeps_its_lengths_inside_the_tunnel() -> None:
    wrap, _ = TUNNELS["vxlan"]
    packets = [
        (time, ethernet(wrap(packet, packet[12:16] == bytes([93, 184, 216, 34]))))
        for time, packet in session()
    ]
    found = flows(pcap(Record(time, packet[:120], len(packet)) for time, packet in packets))
    (inner,) = [flow for flow in found if flow["proto"] == "tcp"]
    assert (inner["orig_bytes"], inner["resp_bytes"], inner["orig_h"]) == (100, 3000, CLIENT[0])


@pytest.mark.parametrize(
    ("port", "header", "name"),
    [
        (8472, b"\x08" + bytes(7), "VXLAN on Linux's old port"),
        (37008, b"\1\0\0\1\x0a\1\xff\0\1", "TZSP with a tag and padding"),
        (1701, b"\0\2\0\1\0\1\xff\3\0\x21", "L2TP"),
        (1701, b"\x40\2\0\0\0\1\0\1\0\x21", "L2TP with its length"),
    ],
)
def test_tunnels_that_zeek_does_not_know_are_looked_into(
    port: int, header: bytes, name: str
) -> None:
    wrap = (lambda packet: packet) if port == 1701 else ethernet
    packets = [
        (time, udp(("192.0.2.1", 50000), ("192.0.2.2", port), header + wrap(packet)))
        for time, packet in session()
    ]
    inner = [flow for flow in flows(frames(*packets)) if flow["proto"] == "tcp"]
    assert [(flow["conn_state"], flow["orig_bytes"]) for flow in inner] == [("SF", 100)], name
