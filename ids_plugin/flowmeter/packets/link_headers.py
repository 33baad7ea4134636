"""Headers that stand before link layers, or in their place, which Zeek doesn't read: PPI, pf's log,
IPsec's ENC, Prism and AVS, frame relay, Cisco's HDLC.

https://www.tcpdump.org/linktypes.html
"""

from __future__ import annotations

import numpy as np

from ids_plugin.flowmeter.packets.headers import DecodingNotes, Int64s, Layer
from ids_plugin.flowmeter.packets.link_layer import (
    AVS,
    IPV4,
    IPV6,
    LINKS,
    LLC,
    PRISM,
    behind_ethertype,
    ethertypes,
    ip_layers_of_link,
    keep_ip_families,
    little_endian,
    wireless,
)

PPI, PFLOG, ENC, FRAME_RELAY, C_HDLC = 192, 117, 109, 107, 104
AVS_MAGIC = 0x8021
"""First half of an AVS header's version."""
MAX_ADDRESS_BYTES = 4
UNNUMBERED = 3
"""Frame relay's control byte of frames with an NLPID (RFC 2427)."""
NLPID_SNAP, NLPID_IPV4, NLPID_IPV6 = 0x80, 0xCC, 0x8E


def ppi(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """Per-packet information: a header that names the link type of the frame behind it."""
    layer = notes.reject(layer, layer.captured <= 8, "cut_link_header")
    size = little_endian(notes, layer.offset + 2)
    is_cut = (size < 8) | (size >= layer.captured)
    notes.reject(layer, is_cut, "cut_link_header")
    layer, size = layer.keep(~is_cut), size[~is_cut]
    link = little_endian(notes, layer.offset + 4)
    frames = layer.skip(size)
    is_nested = link == PPI
    notes.drop(frames, is_nested, "ppi_too_deep")
    frames, link = frames.keep(~is_nested), link[~is_nested]
    layers: list[Layer] = []
    for kind in np.unique(link).tolist():
        layers += ip_layers_of_link(notes, kind, frames.keep(link == kind))
    return layers


def pflog(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """The log of BSD's pf: its length, rounded up to four bytes, and an address family."""
    layer = notes.reject(layer, layer.captured <= 4, "cut_link_header")
    size = (notes.reader.u8(layer.offset) + 3) // 4 * 4
    is_cut = (size < 4) | (size >= layer.captured)
    notes.reject(layer, is_cut, "cut_link_header")
    layer, size = layer.keep(~is_cut), size[~is_cut]
    return [keep_ip_families(notes, layer.skip(size), notes.reader.u8(layer.offset + 1))]


def enc(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """What BSD's IPsec let through: address family (in the order of the host), SPI, flags."""
    layer = notes.reject(layer, layer.captured <= 12, "cut_link_header")
    high, low = notes.reader.u16(layer.offset), notes.reader.u16(layer.offset + 2)
    swapped = (high & 0xFF) << 8 | high >> 8
    return [keep_ip_families(notes, layer.skip(12), np.where(low == 0, swapped, low))]


def prism(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """802.11 behind a Prism header, or behind an AVS header under the same number."""
    layer = notes.reject(layer, layer.captured <= 8, "cut_link_header")
    is_avs = notes.reader.u16(layer.offset) == AVS_MAGIC
    little, big = little_endian(notes, layer.offset + 4), notes.reader.u16(layer.offset + 6)
    size = np.where(notes.reader.u16(layer.offset + 6) == 0, little, big)
    return _wireless_behind(notes, layer, np.where(is_avs, big, size))


def avs(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """802.11 behind an AVS header."""
    layer = notes.reject(layer, layer.captured <= 8, "cut_link_header")
    return _wireless_behind(notes, layer, notes.reader.u16(layer.offset + 6))


def _wireless_behind(notes: DecodingNotes, layer: Layer, size: Int64s) -> list[Layer]:
    is_cut = (size < 8) | (size >= layer.captured)
    notes.reject(layer, is_cut, "cut_link_header")
    return wireless(notes, layer.keep(~is_cut).skip(size[~is_cut]))


def frame_relay(notes: DecodingNotes, layer: Layer) -> list[Layer]:
    """An address of two to four bytes, then an NLPID, or an Ethernet type as Cisco writes it."""
    layer = notes.reject(layer, layer.captured <= 8, "cut_link_header")
    read = notes.reader
    address = np.full(len(layer.row), MAX_ADDRESS_BYTES, dtype=np.int64)
    for size in range(MAX_ADDRESS_BYTES, 1, -1):
        is_last = read.u8(layer.offset + size - 1) & 1 == 1
        address = np.where(is_last, size, address)
    behind = layer.skip(address)
    has_nlpid = read.u8(behind.offset) == UNNUMBERED
    padding = np.where(has_nlpid & (read.u8(behind.offset + 1) == 0), 1, 0)
    nlpid = read.u8(behind.offset + 1 + padding)
    is_snap = has_nlpid & (nlpid == NLPID_SNAP)
    header = np.where(has_nlpid, np.where(is_snap, 7, 2) + padding, 2)
    of_nlpid = np.select([nlpid == NLPID_IPV4, nlpid == NLPID_IPV6], [IPV4, IPV6], LLC)
    kind = np.where(has_nlpid & ~is_snap, of_nlpid, read.u16(behind.offset + header - 2))
    return [ethertypes(notes, behind.skip(header), kind)]


def add_link_headers() -> None:
    """Puts the link types of this module among those that are read."""
    LINKS.update(
        {
            PPI: ppi,
            PFLOG: pflog,
            ENC: enc,
            PRISM: prism,
            AVS: avs,
            FRAME_RELAY: frame_relay,
            C_HDLC: behind_ethertype(4, 2),
        }
    )
