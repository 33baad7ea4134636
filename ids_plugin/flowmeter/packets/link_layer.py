"""Link layers down to the IP header: Ethernet with all that stands between, loopback, PPP, Linux's own, wireless.

Link types: https://www.tcpdump.org/linktypes.html. What is measured is what Zeek 8 measures (its packet analysers,
https://docs.zeek.org/en/v8.0.8/frameworks/packet-analysis.html) and the loopback type 108.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ids_plugin.flowmeter.packets.capture_files import BROKEN
from ids_plugin.flowmeter.packets.headers import Int64s, Layer, Notes, column

ETHERNET, WIRELESS, RAW = 1, 105, 101
IPV4, IPV6, VN_TAG, FABRIC_PATH, MPLS, PPPOE, PBB = (
    0x0800,
    0x86DD,
    0x8926,
    0x8903,
    0x8847,
    0x8864,
    0x88E7,
)
IS_IP = np.zeros(1 << 17, dtype=bool)
IS_IP[[IPV4, IPV6]] = True
VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
MPLS_TYPES = (MPLS, 0x8848)
LLC, IPX, PPP_CONTROL, PSEUDOWIRE, UNDEFINED = range(0x10000, 0x10005)
"""Beyond the Ethernet types: what else a frame may carry."""
NAMES = {
    0x0806: "arp", 0x8035: "rarp", 0x88CC: "lldp", 0x888E: "eapol", 0x8863: "pppoe_discovery", LLC: "llc", IPX: "ipx",
    PPP_CONTROL: "ppp_control", PSEUDOWIRE: "mpls_pseudowire", UNDEFINED: "undefined_ethertype",
}  # fmt: skip
MOST_TAGS = 16
FAMILIES = (2, 10, 24, 28, 30)
"""Address families of IPv4 and of IPv6 on Linux, NetBSD, FreeBSD and macOS."""
MOST_TLVS = 64
MOST_SUBFRAMES = 64
NFLOG_PAYLOAD = 9


def networks(notes: Notes) -> list[Layer]:
    """The chunk's packets at their IP header."""
    chunk = notes.chunk
    nowhere = np.full(len(chunk.offset), -1, dtype=np.int64)
    everything = Layer(notes.all, chunk.offset, chunk.captured, chunk.length, nowhere)
    found: list[Layer] = []
    alike = len(chunk.link) and (chunk.link == chunk.link[0]).all()
    for kind in [int(chunk.link[0])] if alike else np.unique(chunk.link).tolist():
        if kind != BROKEN:
            found += network(
                notes, kind, everything if alike else everything.keep(chunk.link == kind)
            )
    return found


def network(notes: Notes, kind: int, layer: Layer) -> list[Layer]:
    """Packets of one link type at their IP header; of a foreign one the first packet is named, all are counted."""
    step = LINKS.get(kind)
    if step is not None:
        return step(notes, layer)
    notes.drop(layer, np.ones(len(layer.row), dtype=bool), f"link_type_{kind}", locate=True)
    return []


def ethernet(notes: Notes, layer: Layer) -> list[Layer]:
    """Frames of Ethernet II, and of 802.3 with SNAP."""
    layer = notes.reject(layer, layer.captured <= 16, "cut_link_header")
    return [ethertypes(notes, layer.skip(14), column(notes.rows(layer, 14), 12, ">u2"))]


def ethertypes(notes: Notes, layer: Layer, kind: Int64s) -> Layer:
    """Packets behind an Ethernet type: steps over whatever stands before IP, counts what carries none."""
    known = IS_IP[kind]
    if known.all():
        return layer
    place = np.flatnonzero(~known)
    rest, kind = layer.keep(~known), kind[place]
    for _ in range(MOST_TAGS):
        step, kind = _tag(notes, rest, kind)
        if not step.any():
            break
        rest = rest.skip(step)
    reached = IS_IP[kind]
    for other, count in zip(*np.unique(kind[~reached], return_counts=True), strict=True):
        notes.unhandled[NAMES.get(int(other), f"ethertype_{int(other):#06x}")] += int(count)
    place, rest = place[reached], rest.keep(reached)
    at, captured, length = layer.at.copy(), layer.captured.copy(), layer.length.copy()
    at[place], captured[place], length[place] = rest.at, rest.captured, rest.length
    known[place] = True
    return Layer(layer.row, at, captured, length, layer.parent).keep(known)


def _tag(notes: Notes, layer: Layer, kind: Int64s) -> tuple[Int64s, Int64s]:
    """Bytes of what each Ethernet type announces, 0 where it isn't to be stepped over, and the type behind it."""
    read, at = notes.read, layer.at
    tagged, labelled = np.isin(kind, VLAN_TYPES), np.isin(kind, MPLS_TYPES)
    step = np.select(
        [tagged | labelled, kind == VN_TAG, kind == PPPOE, kind == PBB, kind == FABRIC_PATH],
        [4, 6, 8, 18, 16],
        0,
    )
    inner = np.where(step > 0, read.u16(at + np.maximum(step - 2, 0)), kind)
    bottom = labelled & (read.u8(at + 2) & 1 == 1)
    version = read.u8(at + 4) >> 4
    inner = np.where(
        labelled,
        np.select([~bottom, version == 4, version == 6], [kind, IPV4, IPV6], PSEUDOWIRE),
        inner,
    )
    inner = np.where(kind == PPPOE, _of_ppp(inner), inner)
    short = kind <= 1500
    if short.any():
        start, control = read.u16(at), read.u8(at + 2)
        header = np.where(control & 3 == 3, 3, 4)
        snap = short & (start == 0xAAAA)
        ours = snap & (read.u8(at + header) == 0) & (read.u16(at + header + 1) == 0)
        step = np.where(ours, header + 5, step)
        other = np.where(start == 0xFFFF, IPX, LLC)
        inner = np.where(short, np.where(ours, read.u16(at + header + 3), other), inner)
    return step, np.where((inner > 1500) & (inner < 1536), UNDEFINED, inner)


def _of_ppp(protocol: Int64s) -> Int64s:
    """The Ethernet type that stands for a PPP protocol."""
    return np.select(
        [protocol == 0x21, protocol == 0x57, protocol == 0x281], [IPV4, IPV6, MPLS], PPP_CONTROL
    )


def _ppp(notes: Notes, layer: Layer) -> list[Layer]:
    """PPP, with HDLC-like framing or without."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    framed = np.where(notes.read.u16(layer.at) == 0xFF03, 2, 0)
    return [ethertypes(notes, layer.skip(framed + 2), _of_ppp(notes.read.u16(layer.at + framed)))]


def _serial(notes: Notes, layer: Layer) -> list[Layer]:
    """PPP with HDLC framing, always."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    return [ethertypes(notes, layer.skip(4), _of_ppp(notes.read.u16(layer.at + 2)))]


def _cooked(header: int, kind_at: int) -> Callable[[Notes, Layer], list[Layer]]:
    def step(notes: Notes, layer: Layer) -> list[Layer]:
        layer = notes.reject(layer, layer.captured <= header, "cut_link_header")
        return [
            ethertypes(notes, layer.skip(header), column(notes.rows(layer, header), kind_at, ">u2"))
        ]

    return step


def _loopback(notes: Notes, layer: Layer) -> list[Layer]:
    """An address family in the order of whoever captured."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    high, low = notes.read.u16(layer.at), notes.read.u16(layer.at + 2)
    little = (high & 0xFF) << 8 | high >> 8
    return [_family(notes, layer.skip(4), np.where(low == 0, little, low))]


def _family(notes: Notes, layer: Layer, family: Int64s) -> Layer:
    """Counts packets that aren't of IP."""
    foreign = ~np.isin(family, FAMILIES)
    for kind, count in zip(*np.unique(family[foreign], return_counts=True), strict=True):
        notes.unhandled[f"address_family_{int(kind)}"] += int(count)
    return layer.keep(~foreign)


def _fddi(notes: Notes, layer: Layer) -> list[Layer]:
    return [notes.reject(layer, layer.captured <= 21, "cut_link_header").skip(21)]


def _raw(notes: Notes, layer: Layer) -> list[Layer]:
    return [layer]


def _nflog(notes: Notes, layer: Layer) -> list[Layer]:
    """Linux's netfilter log: type-length-values, one of which is the packet."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    layer = notes.drop(layer, notes.read.u8(layer.at + 1) != 0, "nflog_version")
    family = notes.read.u8(layer.at)
    offset = np.full(len(family), 4, dtype=np.int64)
    found = np.zeros(len(family), dtype=bool)
    lost = np.zeros(len(family), dtype=bool)
    for _ in range(MOST_TLVS):
        lost |= ~found & (layer.captured - offset <= 4)
        size, kind = _little(notes, layer.at + offset), _little(notes, layer.at + offset + 2)
        here = ~found & ~lost & (kind == NFLOG_PAYLOAD)
        found |= here
        lost |= ~found & (size < 4)
        if (found | lost).all():
            break
        offset = np.where(found | lost, offset, offset + (size + 3) // 4 * 4)
    inside = layer.skip(offset + 4)
    notes.reject(inside, ~found, "nflog_without_packet")
    return [_family(notes, inside.keep(found), family[found])]


def _little(notes: Notes, at: Int64s) -> Int64s:
    value = notes.read.u16(at)
    return (value & 0xFF) << 8 | value >> 8


def _radiotap(notes: Notes, layer: Layer) -> list[Layer]:
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    size = _little(notes, layer.at + 2)
    short = size >= layer.captured
    notes.reject(layer, short, "cut_link_header")
    return wireless(notes, layer.keep(~short).skip(size[~short]))


def wireless(notes: Notes, layer: Layer) -> list[Layer]:
    """802.11 data frames, aggregated ones (A-MSDU) too; what is encrypted or no data is counted."""
    layer = notes.reject(layer, layer.captured <= 24, "cut_link_header")
    read = notes.read
    control, flags = read.u8(layer.at), read.u8(layer.at + 1)
    data, secret = control & 0x48 == 0x08, flags & 0x40 != 0
    notes.drop(layer, ~data, "80211_no_data")
    notes.drop(layer, data & secret, "80211_encrypted")
    usable = data & ~secret
    layer, control, flags = layer.keep(usable), control[usable], flags[usable]
    header = np.where(flags & 3 == 3, 30, 24)
    quality = control & 0x80 != 0
    several = quality & (read.u8(layer.at + header) & 0x80 != 0)
    header = header + np.where(quality, 2, 0)
    short = layer.captured <= header
    notes.reject(layer, short, "cut_link_header")
    inside = layer.skip(header)
    found = [_logical(notes, inside.keep(~several & ~short))]
    return found + _subframes(notes, inside.keep(several & ~short))


def _logical(notes: Notes, layer: Layer) -> Layer:
    """Behind LLC and SNAP of an 802.11 frame; other LLC is counted."""
    layer = notes.reject(layer, layer.captured < 8, "cut_link_header")
    read = notes.read
    snap = (
        (read.u16(layer.at) == 0xAAAA)
        & (read.u16(layer.at + 2) == 0x0300)
        & (read.u16(layer.at + 4) == 0)
    )
    layer = notes.drop(layer, ~snap, "llc")
    return ethertypes(notes, layer.skip(8), read.u16(layer.at + 6))


def _subframes(notes: Notes, layer: Layer) -> list[Layer]:
    """The frames that aggregated frames consist of, the first of all, then the second, ..."""
    found: list[Layer] = []
    for _ in range(MOST_SUBFRAMES):
        layer = layer.keep(layer.captured > 0)
        if not len(layer.row):
            break
        size = notes.read.u16(layer.at + 12)
        short = (layer.captured < 14) | (layer.captured < size + 14)
        notes.reject(layer, short, "cut_subframe")
        layer, size = layer.keep(~short), size[~short]
        inside = layer.skip(14)
        found.append(_logical(notes, Layer(inside.row, inside.at, size, size, inside.parent)))
        layer = inside.skip(size)
        padding = size % 4
        layer = layer.skip(np.where(layer.captured >= padding, padding, 0))
    return found


LINKS: dict[int, Callable[[Notes, Layer], list[Layer]]] = {
    0: _loopback,
    108: _loopback,
    ETHERNET: ethernet,
    9: _ppp,
    10: _fddi,
    50: _serial,
    WIRELESS: wireless,
    127: _radiotap,
    113: _cooked(16, 14),
    276: _cooked(20, 0),
    239: _nflog,
    **dict.fromkeys((12, 14, RAW, 228, 229), _raw),
}
"""What Zeek reads, by link type."""
