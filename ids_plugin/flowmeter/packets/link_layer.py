"""Link layers down to the IP header: Ethernet with all that stands between, loopback, PPP, Linux's
own, wireless.

Link types: https://www.tcpdump.org/linktypes.html. What is measured is what Zeek 8 measures (its
packet analysers, https://docs.zeek.org/en/v8.0.8/frameworks/packet-analysis.html) and, beyond it,
those of `link_headers` and Ethernet over MPLS (RFC 4448).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ids_plugin.flowmeter.packets.capture_files import BROKEN_LINK
from ids_plugin.flowmeter.packets.headers import Bools, DecodingNotes, Int64s, Layer, column

ETHERNET, PPP, WIRELESS, RAW, PRISM, AVS = 1, 9, 105, 101, 119, 163
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
VLAN_TYPES = (0x8100, 0x88A8, 0x9100, 0x9200)
E_TAG = 0x893F
"""802.1BR: which port of a bridge's extension a frame came in by."""
MPLS_TYPES = (MPLS, 0x8848)
LLC, IPX, PPP_CONTROL, PSEUDOWIRE, UNDEFINED = range(0x10000, 0x10005)
"""Beyond the Ethernet types: what else a frame may carry."""
NAMES = {
    0x0806: "arp",
    0x8035: "rarp",
    0x88CC: "lldp",
    0x888E: "eapol",
    0x8863: "pppoe_discovery",
    LLC: "llc",
    IPX: "ipx",
    PPP_CONTROL: "ppp_control",
    PSEUDOWIRE: "mpls_pseudowire",
    UNDEFINED: "undefined_ethertype",
    0x88E5: "macsec",
}
MAX_TAGS = 16
TAG_TYPES = (*VLAN_TYPES, *MPLS_TYPES, VN_TAG, E_TAG, PPPOE, PBB, FABRIC_PATH)
IN_PSEUDOWIRE = (IPV4, IPV6, 0x0806, *VLAN_TYPES)
"""Ethernet types by which a frame in MPLS is told from other pseudowires."""
FAMILIES = (2, 10, 24, 28, 30)
"""Address families of IPv4 and of IPv6 on Linux, NetBSD, FreeBSD and macOS."""
MAX_TLVS = 64
MAX_SUBFRAMES = 64
NFLOG_PAYLOAD = 9


def ip_layers(notes: DecodingNotes) -> list[Layer]:
    """The chunk's packets at their IP header."""
    chunk = notes.chunk
    no_tunnel = np.full(len(chunk.offset), -1, dtype=np.int64)
    everything = Layer(notes.all_rows, chunk.offset, chunk.captured, chunk.length, no_tunnel)
    layers: list[Layer] = []
    is_one_link_type = len(chunk.link) and (chunk.link == chunk.link[0]).all()
    for kind in [int(chunk.link[0])] if is_one_link_type else np.unique(chunk.link).tolist():
        if kind != BROKEN_LINK:
            layers += ip_layers_of_link(
                notes, kind, everything if is_one_link_type else everything.keep(chunk.link == kind)
            )
    return layers


def ip_layers_of_link(notes: DecodingNotes, kind: int, layer: Layer) -> list[Layer]:
    """Packets of one link type at their IP header; of a foreign one the first packet is named,
    all are counted.
    """
    step = LINKS.get(kind)
    if step is not None:
        return step(notes, layer)
    notes.drop(layer, np.ones(len(layer.row), dtype=bool), f"link_type_{kind}", locate=True)
    return []


def ethernet(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """Frames of Ethernet II, and of 802.3 with SNAP."""
    layer = notes.reject(layer, layer.captured <= 16, "cut_link_header")
    return [ethertypes(notes, layer.skip(14), column(notes.header_rows(layer, 14), 12, ">u2"))]


def ethertypes(notes: DecodingNotes, layer: Layer, kind: Int64s) -> Layer:
    """Packets behind an Ethernet type: steps over whatever stands before IP, counts what carries
    none.
    """
    is_ip = IS_IP[kind]
    if is_ip.all():
        return layer
    not_ip = np.flatnonzero(~is_ip)
    rest, kind = layer.keep(~is_ip), kind[not_ip]
    for _ in range(MAX_TAGS):
        step, kind = _step_over_tag(notes, rest, kind)
        if not step.any():
            break
        rest = rest.skip(step)
    reached = IS_IP[kind]
    is_too_deep = np.isin(kind, TAG_TYPES)
    rest = notes.drop(rest, is_too_deep, "tags_too_deep")
    kind, not_ip, reached = kind[~is_too_deep], not_ip[~is_too_deep], reached[~is_too_deep]
    for other, count in zip(*np.unique(kind[~reached], return_counts=True), strict=True):
        notes.unhandled[NAMES.get(int(other), f"ethertype_{int(other):#06x}")] += int(count)
    not_ip, rest = not_ip[reached], rest.keep(reached)
    offset, captured, length = layer.offset.copy(), layer.captured.copy(), layer.length.copy()
    offset[not_ip], captured[not_ip], length[not_ip] = rest.offset, rest.captured, rest.length
    is_ip[not_ip] = True
    return Layer(layer.row, offset, captured, length, layer.tunnel_parent).keep(is_ip)


def _step_over_tag(notes: DecodingNotes, layer: Layer, kind: Int64s) -> tuple[Int64s, Int64s]:
    """Bytes of what each Ethernet type announces, 0 where it isn't to be stepped over, and the
    type behind it.
    """
    read, offset = notes.reader, layer.offset
    tagged, labelled = np.isin(kind, VLAN_TYPES), np.isin(kind, MPLS_TYPES)
    step = np.select(
        [
            tagged | labelled,
            kind == VN_TAG,
            (kind == PPPOE) | (kind == E_TAG),
            kind == PBB,
            kind == FABRIC_PATH,
        ],
        [4, 6, 8, 18, 16],
        0,
    )
    inner_kind = np.where(step > 0, read.u16(offset + np.maximum(step - 2, 0)), kind)
    bottom = labelled & (read.u8(offset + 2) & 1 == 1)
    version = read.u8(offset + 4) >> 4
    inner_kind = np.where(
        labelled,
        np.select([~bottom, version == 4, version == 6], [kind, IPV4, IPV6], PSEUDOWIRE),
        inner_kind,
    )
    is_pseudowire = inner_kind == PSEUDOWIRE
    if is_pseudowire.any():
        step, inner_kind = _ethernet_of_pseudowire(notes, layer, is_pseudowire, step, inner_kind)
    inner_kind = np.where(kind == PPPOE, _ethertype_of_ppp(inner_kind), inner_kind)
    is_length = kind <= 1500
    if is_length.any():
        start, control = read.u16(offset), read.u8(offset + 2)
        header = np.where(control & 3 == 3, 3, 4)
        is_snap = is_length & (start == 0xAAAA)
        is_snap_ethertype = (
            is_snap & (read.u8(offset + header) == 0) & (read.u16(offset + header + 1) == 0)
        )
        step = np.where(is_snap_ethertype, header + 5, step)
        other = np.where(start == 0xFFFF, IPX, LLC)
        inner_kind = np.where(
            is_length, np.where(is_snap_ethertype, read.u16(offset + header + 3), other), inner_kind
        )
    return step, np.where((inner_kind > 1500) & (inner_kind < 1536), UNDEFINED, inner_kind)


def _ethernet_of_pseudowire(
    notes: DecodingNotes, layer: Layer, is_pseudowire: Bools, step: Int64s, kind: Int64s
) -> tuple[Int64s, Int64s]:
    """Steps over the Ethernet header behind the last MPLS label, with a control word before it or
    without; `step` and `kind` of what is no Ethernet stay.
    """
    read, frame = notes.reader, layer.offset + 4
    for control_word in (4, 0):
        inner_kind = read.u16(frame + control_word + 12)
        is_frame = is_pseudowire & np.isin(inner_kind, IN_PSEUDOWIRE)
        if control_word:
            is_frame &= read.u8(frame) >> 4 == 0
        is_frame &= layer.captured > 4 + control_word + 14
        step, kind = (
            np.where(is_frame, 18 + control_word, step),
            np.where(is_frame, inner_kind, kind),
        )
        is_pseudowire = is_pseudowire & ~is_frame
    return step, kind


def _ethertype_of_ppp(protocol: Int64s) -> Int64s:
    """The Ethernet type that stands for a PPP protocol."""
    return np.select(
        [protocol == 0x21, protocol == 0x57, protocol == 0x281], [IPV4, IPV6, MPLS], PPP_CONTROL
    )


def _ppp(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """PPP, with HDLC-like framing or without."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    framed = np.where(notes.reader.u16(layer.offset) == 0xFF03, 2, 0)
    return [
        ethertypes(
            notes,
            layer.skip(framed + 2),
            _ethertype_of_ppp(notes.reader.u16(layer.offset + framed)),
        )
    ]


def _serial(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """PPP with HDLC framing, always."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    return [ethertypes(notes, layer.skip(4), _ethertype_of_ppp(notes.reader.u16(layer.offset + 2)))]


def behind_ethertype(header: int, kind_at: int) -> Callable[[DecodingNotes, Layer], list[Layer]]:
    """The step over a header of so many bytes that has an Ethernet type at `kind_at`."""

    def step(notes: DecodingNotes, layer: Layer) -> list[Layer]:
        layer = notes.reject(layer, layer.captured <= header, "cut_link_header")
        return [
            ethertypes(
                notes, layer.skip(header), column(notes.header_rows(layer, header), kind_at, ">u2")
            )
        ]

    return step


def _loopback(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """An address family in the order of whoever captured."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    high, low = notes.reader.u16(layer.offset), notes.reader.u16(layer.offset + 2)
    little = (high & 0xFF) << 8 | high >> 8
    return [keep_ip_families(notes, layer.skip(4), np.where(low == 0, little, low))]


def keep_ip_families(notes: DecodingNotes, layer: Layer, family: Int64s) -> Layer:
    """Counts packets that aren't of IP."""
    foreign = ~np.isin(family, FAMILIES)
    for kind, count in zip(*np.unique(family[foreign], return_counts=True), strict=True):
        notes.unhandled[f"address_family_{int(kind)}"] += int(count)
    return layer.keep(~foreign)


def _fddi(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    return [notes.reject(layer, layer.captured <= 21, "cut_link_header").skip(21)]


def _raw(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    return [layer]


def _nflog(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """Linux's netfilter log: type-length-values, one of which is the packet."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    layer = notes.drop(layer, notes.reader.u8(layer.offset + 1) != 0, "nflog_version")
    family = notes.reader.u8(layer.offset)
    offset = np.full(len(family), 4, dtype=np.int64)
    is_found = np.zeros(len(family), dtype=bool)
    is_lost = np.zeros(len(family), dtype=bool)
    for _ in range(MAX_TLVS):
        is_lost |= ~is_found & (layer.captured - offset <= 4)
        size, kind = (
            little_endian(notes, layer.offset + offset),
            little_endian(notes, layer.offset + offset + 2),
        )
        is_payload = ~is_found & ~is_lost & (kind == NFLOG_PAYLOAD)
        is_found |= is_payload
        is_lost |= ~is_found & (size < 4)
        if (is_found | is_lost).all():
            break
        offset = np.where(is_found | is_lost, offset, offset + (size + 3) // 4 * 4)
    inside = layer.skip(offset + 4)
    notes.reject(inside, ~is_found, "nflog_without_packet")
    return [keep_ip_families(notes, inside.keep(is_found), family[is_found])]


def little_endian(notes: DecodingNotes, offset: Int64s) -> Int64s:
    """(n) 16-bit integers at each offset."""
    value = notes.reader.u16(offset)
    return (value & 0xFF) << 8 | value >> 8


def _radiotap(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    size = little_endian(notes, layer.offset + 2)
    short = size >= layer.captured
    notes.reject(layer, short, "cut_link_header")
    return wireless(notes, layer.keep(~short).skip(size[~short]))


def wireless(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """802.11 data frames, aggregated ones (A-MSDU) too; what is encrypted or no data is counted."""
    layer = notes.reject(layer, layer.captured <= 24, "cut_link_header")
    read = notes.reader
    control, flags = read.u8(layer.offset), read.u8(layer.offset + 1)
    data, secret = control & 0x48 == 0x08, flags & 0x40 != 0
    notes.drop(layer, ~data, "80211_no_data")
    notes.drop(layer, data & secret, "80211_encrypted")
    usable = data & ~secret
    layer, control, flags = layer.keep(usable), control[usable], flags[usable]
    header = np.where(flags & 3 == 3, 30, 24)
    quality = control & 0x80 != 0
    several = quality & (read.u8(layer.offset + header) & 0x80 != 0)
    header = header + np.where(quality, 2, 0)
    short = layer.captured <= header
    notes.reject(layer, short, "cut_link_header")
    inside = layer.skip(header)
    layers = [_llc_snap(notes, inside.keep(~several & ~short))]
    return layers + _subframes(notes, inside.keep(several & ~short))


def _llc_snap(notes: DecodingNotes, layer: Layer) -> Layer:
    """Behind LLC and SNAP of an 802.11 frame; other LLC is counted."""
    layer = notes.reject(layer, layer.captured < 8, "cut_link_header")
    read = notes.reader
    snap = (
        (read.u16(layer.offset) == 0xAAAA)
        & (read.u16(layer.offset + 2) == 0x0300)
        & (read.u16(layer.offset + 4) == 0)
    )
    layer = notes.drop(layer, ~snap, "llc")
    return ethertypes(notes, layer.skip(8), read.u16(layer.offset + 6))


def _subframes(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """The frames that aggregated frames consist of, the first of all, then the second, ..."""
    layers: list[Layer] = []
    for _ in range(MAX_SUBFRAMES):
        layer = layer.keep(layer.captured > 0)
        if not len(layer.row):
            break
        size = notes.reader.u16(layer.offset + 12)
        short = (layer.captured < 14) | (layer.captured < size + 14)
        notes.reject(layer, short, "cut_subframe")
        layer, size = layer.keep(~short), size[~short]
        inside = layer.skip(14)
        layers.append(
            _llc_snap(notes, Layer(inside.row, inside.offset, size, size, inside.tunnel_parent))
        )
        layer = inside.skip(size)
        padding = size % 4
        layer = layer.skip(np.where(layer.captured >= padding, padding, 0))
    return layers


LINKS: dict[int, Callable[[DecodingNotes, Layer], list[Layer]]] = {
    0: _loopback,
    108: _loopback,
    ETHERNET: ethernet,
    PPP: _ppp,
    10: _fddi,
    50: _serial,
    WIRELESS: wireless,
    127: _radiotap,
    113: behind_ethertype(16, 14),
    276: behind_ethertype(20, 0),
    239: _nflog,
    **dict.fromkeys((12, 14, RAW, 228, 229), _raw),
}
"""What Zeek reads, by link type."""
