"""Tunnels that Zeek 8 looks into: where the packet inside begins, and what must hold before Zeek
believes in it.

GRE (RFC 2784, PPTP's RFC 2637, ERSPAN), Teredo (RFC 4380), VXLAN (RFC 7348), Geneve (RFC 8926),
AYIYA (draft-massar-v6ops-ayiya), GTP version 1 (3GPP TS 29.060). Beyond Zeek: VXLAN on Linux's old
port 8472, MikroTik's TZSP, L2TP version 2 (RFC 2661).
https://docs.zeek.org/en/v8.0.8/frameworks/tunnels.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ids_plugin.flowmeter.packets.headers import Bools, Int64s, Layer, Reader
from ids_plugin.flowmeter.packets.link_layer import (
    AVS,
    ETHERNET,
    IPV4,
    IPV6,
    PPP,
    PRISM,
    RAW,
    WIRELESS,
)

MAX_TUNNEL_DEPTH = 4
"""Zeek's Tunnel::max_depth since 7.1: deeper tunnels aren't looked into."""
NONE, TEREDO, AYIYA, VXLAN, GENEVE, GTP, TOO_DEEP, TZSP, L2TP = range(9)
NAMES = ("", "teredo", "ayiya", "vxlan", "geneve", "gtpv1")
"""The services by which Zeek calls the connections that carry tunnels; it has none for the rest."""
KIND_OF_PORT = np.zeros(65536, dtype=np.int64)
KIND_OF_PORT[[3544, 5072, 4789, 6081, 2152, 2123]] = (TEREDO, AYIYA, VXLAN, GENEVE, GTP, GTP)
KIND_OF_PORT[[8472, 37008, 1701]] = (VXLAN, TZSP, L2TP)
TZSP_LINKS = {1: ETHERNET, 18: WIRELESS, 119: PRISM, 127: AVS}
"""Link types by TZSP's numbers for what it encapsulates."""
MAX_TZSP_TAGS = 64
TZSP_PADDING, TZSP_END = 0, 1
NO_LINK = -1
IP_IN_IP, IP6_IN_IP, GRE = 4, 41, 47
CARRIERS = np.zeros(256, dtype=bool)
CARRIERS[[IP_IN_IP, IP6_IN_IP, GRE]] = True
BRIDGED, ERSPAN, ERSPAN3, PPTP, ARUBA = 0x6558, 0x88BE, 0x22EB, 0x880B, 0x9000
MAX_EXTENSION_HEADERS = 16
USER_DATA = 255
"""GTP's message type of packets in the tunnel."""


class TunnelContent(NamedTuple):
    """What stands in n possible tunnel packets."""

    layer: Layer
    """at the packet inside; means nothing where `link_type` is NO_LINK"""
    link_type: Int64s
    """its link type, NO_LINK where there is nothing to look into"""
    is_confirmed: Bools
    """the packet proves that its connection is such a tunnel"""
    contradicts: Bools
    """the packet proves that it is none"""


def holds_exactly_one_ip_packet(read: Reader, layer: Layer) -> Bools:
    """Whether just one IP packet stands there, neither shorter nor longer than its header says."""
    version = read.u8(layer.offset) >> 4
    total = np.where(version == 4, read.u16(layer.offset + 2), read.u16(layer.offset + 4) + 40)
    least = np.where(version == 4, 20, 40)
    is_exact: Bools = (
        ((version == 4) | (version == 6)) & (layer.captured >= least) & (layer.captured == total)
    )
    return is_exact


def suspected_tunnels(port: Int64s, head: Int64s, length: Int64s) -> Int64s:
    """Kind of tunnel that n UDP packets may be.

    By the responder's port, on others by the first bytes as Zeek guesses Teredo and AYIYA; `head`
    holds the first four of the payload, `length` its bytes.
    """
    kind = KIND_OF_PORT[port]
    second, third = head >> 16 & 0xFF, head >> 8 & 0xFF
    ayiya = (second == 0x52) & (third == 0x11) & (length >= 3)
    indication = (head >> 24 == 0) & (second <= 1)
    teredo = ((head >> 28 == 6) | indication) & (length >= 40)
    return np.where(kind != NONE, kind, np.select([ayiya, teredo], [AYIYA, TEREDO], NONE))


def looks_like_teredo(read: Reader, layer: Layer) -> Bools:
    """Zeek's guess at Teredo on foreign ports: a Teredo address, or indications before an IPv6
    header.
    """
    prefix = [
        (read.u16(layer.offset + address_offset) == 0x2001)
        & (read.u16(layer.offset + address_offset + 2) == 0)
        for address_offset in (8, 24)
    ]
    is_teredo: Bools = (read.u8(layer.offset) >> 4 == 6) & (prefix[0] | prefix[1])
    authentic = read.u8(layer.offset + 1) == 1
    skipped = np.where(authentic, 13 + read.u8(layer.offset + 2) + read.u8(layer.offset + 3), 0)
    rest = layer.skip(skipped)
    origin = np.where(authentic, read.u16(rest.offset), read.u8(rest.offset + 1)) == 0
    behind = rest.skip(8)
    is_teredo |= origin & (behind.captured >= 40) & (read.u8(behind.offset) >> 4 == 6)
    return is_teredo


def teredo(read: Reader, layer: Layer) -> TunnelContent:
    """IPv6 behind an authentication and an origin indication, either or none."""
    step = 13 + read.u8(layer.offset + 2) + read.u8(layer.offset + 3)
    authentic = (read.u16(layer.offset) == 1) & (step <= layer.captured)
    inner = layer.skip(np.where(authentic, step, 0))
    origin = (read.u16(inner.offset) == 0) & (inner.captured >= 8)
    inner = inner.skip(np.where(origin, 8, 0))
    six = (read.u8(inner.offset) >> 4 == 6) & (inner.captured >= 40)
    size = read.u16(inner.offset + 4)
    bubble = six & (size == 0) & (read.u8(inner.offset + 6) == 59)
    ok = six & ((inner.captured == size + 40) | bubble)
    return TunnelContent(inner, np.where(ok, RAW, NO_LINK), ok, ~ok)


def ayiya(read: Reader, layer: Layer) -> TunnelContent:
    """IP behind an identity and a signature, if the packet is to be forwarded."""
    identity = np.where(read.u8(layer.offset) >> 4 < 8, 1 << (read.u8(layer.offset) >> 4), 0)
    header = 8 + identity + (read.u8(layer.offset + 1) >> 4) * 4
    violates = (layer.captured < 8) | (layer.captured < header)
    forward = ~violates & (read.u8(layer.offset + 2) & 15 == 1)
    inner = layer.skip(header)
    following = read.u8(layer.offset + 3)
    ok = forward & (inner.captured > 0) & ((following == IP_IN_IP) | (following == IP6_IN_IP))
    return TunnelContent(inner, np.where(ok, RAW, NO_LINK), forward, violates)


def vxlan(read: Reader, layer: Layer) -> TunnelContent:
    """Ethernet behind eight bytes that say that they name a network."""
    confirmed = (layer.captured >= 8) & (read.u8(layer.offset) & 8 != 0)
    inner = layer.skip(8)
    return TunnelContent(
        inner, np.where(confirmed & (inner.captured > 0), ETHERNET, NO_LINK), confirmed, ~confirmed
    )


def geneve(read: Reader, layer: Layer) -> TunnelContent:
    """Ethernet or IP behind options."""
    first = read.u8(layer.offset)
    header = 8 + (first & 63) * 4
    version = first >> 6 == 0
    violates = (layer.captured < 8) | (version & (layer.captured < header))
    confirmed = version & ~violates
    inner, following = layer.skip(header), read.u16(layer.offset + 2)
    link = np.select(
        [following == BRIDGED, (following == IPV4) | (following == IPV6)], [ETHERNET, RAW], NO_LINK
    )
    return TunnelContent(
        inner, np.where(confirmed & (inner.captured > 0), link, NO_LINK), confirmed, violates
    )


def gtp(read: Reader, layer: Layer) -> TunnelContent:
    """User data of version 1 behind options and extension headers."""
    flags = read.u8(layer.offset)
    options, extended = flags & 7 != 0, flags & 4 != 0
    header = np.where(options, 12, 8)
    following = np.where(extended, read.u8(layer.offset + 11), 0)
    for _ in range(MAX_EXTENSION_HEADERS):
        if not following.any():
            break
        size = read.u8(layer.offset + header) * 4
        known = (following != 0) & (size > 0) & (header + size <= layer.captured)
        header = header + np.where(known, size, 0)
        following = np.where(known, read.u8(layer.offset + header - 1), 0)
    version = flags >> 5 == 1
    user = version & (flags & 16 != 0) & (read.u8(layer.offset + 1) == USER_DATA)
    inner = layer.skip(header)
    ok = user & holds_exactly_one_ip_packet(read, inner)
    violates = (layer.captured < header) | ~version | (user & ~ok)
    return TunnelContent(inner, np.where(ok & ~violates, RAW, NO_LINK), ok & ~violates, violates)


def tzsp(read: Reader, layer: Layer) -> TunnelContent:
    """A frame that a device sniffed, behind tags."""
    kind, protocol = read.u8(layer.offset + 1), read.u16(layer.offset + 2)
    is_frame = (layer.captured > 5) & (read.u8(layer.offset) == 1) & (kind <= 1)
    header = np.full(len(kind), 4, dtype=np.int64)
    is_done = ~is_frame
    for _ in range(MAX_TZSP_TAGS):
        tag = read.u8(layer.offset + header)
        size = np.where(tag <= TZSP_END, 1, 2 + read.u8(layer.offset + header + 1))
        header = np.where(is_done, header, header + size)
        is_done |= (tag == TZSP_END) | (header >= layer.captured)
        if is_done.all():
            break
    inner = layer.skip(header)
    link = np.select(
        [protocol == number for number in TZSP_LINKS], list(TZSP_LINKS.values()), NO_LINK
    )
    is_frame &= is_done & (inner.captured > 0)
    return _without_service(inner, np.where(is_frame, link, NO_LINK))


def l2tp(read: Reader, layer: Layer) -> TunnelContent:
    """PPP behind the header of a data message of version 2."""
    flags = read.u16(layer.offset)
    is_data = (layer.captured > 6) & (flags & 0x800F == 2)
    has_length, is_sequenced, has_offset = (flags & bit != 0 for bit in (0x4000, 0x0800, 0x0200))
    header = 6 + np.where(has_length, 2, 0) + np.where(is_sequenced, 4, 0)
    header = header + np.where(has_offset, 2 + read.u16(layer.offset + header), 0)
    inner = layer.skip(header)
    return _without_service(inner, np.where(is_data & (inner.captured > 0), PPP, NO_LINK))


def _without_service(inner: Layer, link: Int64s) -> TunnelContent:
    """What stands in tunnels that Zeek doesn't know: their connections keep Zeek's service."""
    nothing = np.zeros(len(link), dtype=bool)
    return TunnelContent(inner, link, nothing, nothing)


PARSERS: dict[int, Callable[[Reader, Layer], TunnelContent]] = {
    TEREDO: teredo,
    AYIYA: ayiya,
    VXLAN: vxlan,
    GENEVE: geneve,
    GTP: gtp,
    TZSP: tzsp,
    L2TP: l2tp,
}


def gre(read: Reader, layer: Layer) -> tuple[Layer, Int64s]:
    """Behind GRE headers: the packets inside and their link types, NO_LINK where Zeek finds
    none.
    """
    flags, kind = read.u16(layer.offset), read.u16(layer.offset + 2)
    version = flags & 7
    present = sum((flags & bit != 0).astype(np.int64) for bit in (0x8000, 0x2000, 0x1000, 0x0080))
    header = 4 + 4 * present
    good = (layer.captured >= 4) & (version <= 1) & (flags & 0x4078 == 0)
    bridged, spanned, spanned3 = (
        (version == 0) & (kind == value) for value in (BRIDGED, ERSPAN, ERSPAN3)
    )
    extra = np.where(spanned & (flags & 0x1000 != 0), 8, np.where(spanned3, 12, 0))
    extra = extra + np.where(spanned3 & (read.u8(layer.offset + header + 11) & 1 == 1), 8, 0)
    ethernet = bridged | spanned | spanned3
    good &= ~ethernet | (layer.captured > header + extra + 14)
    pptp = version == 1
    carried = read.u16(layer.offset + header + 2)
    good &= ~pptp | ((kind == PPTP) & ((carried == 0x21) | (carried == 0x57)))
    inner = layer.skip(header + extra + np.where(pptp, 4, 0))
    good &= inner.captured > 0
    good &= ~pptp | holds_exactly_one_ip_packet(read, inner)
    aruba = (
        (kind & 0x820F == 0x8200) | ((kind & 0x830F == 0x8300) & (kind <= 0x8370)) | (kind == ARUBA)
    )
    link = np.select([ethernet, (version == 0) & aruba], [ETHERNET, WIRELESS], RAW)
    good &= (link != RAW) | np.isin(read.u8(inner.offset) >> 4, (4, 6))
    return inner, np.where(good, link, NO_LINK)
