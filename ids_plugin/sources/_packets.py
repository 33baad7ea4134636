"""Packets taken apart: link, IP and transport headers of a whole chunk at once, as columns.

What can't be measured is told apart: `unhandled` counts what is no IP connection (ARP, unknown link types, ...), `bad`
names packets whose headers contradict themselves or are cut.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.sources._pcap import BROKEN, PADDING, Chunk

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
MAPPED = np.uint64(0x0000FFFF_00000000)
"""Low half of an IPv4 address kept as IPv6 (::ffff:a.b.c.d)."""
VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
MPLS_TYPES = (0x8847, 0x8848)
ETHERTYPE_NAMES = {0x0806: "arp", 0x88CC: "lldp", 0x888E: "eapol", 0x8863: "pppoe_discovery", 0x8035: "rarp"}
EXTENSIONS = (0, 43, 60, 135)
"""IPv6 extension headers with the common layout; fragment (44) and authentication (51) differ."""
MAX_EXTENSIONS = 16

ICMP4_PAIRS = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17}
ICMP6_PAIRS = {128: 129, 129: 128, 133: 134, 134: 133, 135: 136, 136: 135, 130: 131, 131: 130}
ICMP6_PAIRS |= {139: 140, 140: 139, 144: 145, 145: 144}


@dataclass
class Packets:
    """IP packets of one chunk in the capture's order; arrays of n."""

    number: Int64s
    """number in the capture, from 1"""
    time: Int64s
    """µs since the epoch"""
    source: tuple[UInt64s, UInt64s]
    """address in two halves; IPv4 as ::ffff:a.b.c.d"""
    target: tuple[UInt64s, UInt64s]
    protocol: Int64s
    """IP protocol number"""
    source_port: Int64s
    """ICMP: the type"""
    target_port: Int64s
    """ICMP: the type that answers, or the code where none does"""
    one_way: Bools
    """ICMP that has no counterpart"""
    ip_bytes: Int64s
    payload: Int64s
    """payload bytes by the headers"""
    flags: Int64s
    """TCP flags byte; this and the next three mean nothing where there is no TCP"""
    sequence: Int64s
    acknowledged: Int64s
    window: Int64s
    content: Int64s
    """where the payload begins in `data`"""
    captured: Int64s
    """captured payload bytes"""
    data: Bytes
    arrivals: Int64s
    """µs of every packet of the chunk, also those that aren't IP"""
    first: int
    """number of the chunk's first packet"""
    unhandled: dict[str, int] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.number)


class Bad(NamedTuple):
    """A packet whose headers can't be believed."""

    number: int
    reason: str
    data: bytes


class _Layer(NamedTuple):
    """Packets under way: index in the chunk, where their header begins, what is left of them."""

    row: Int64s
    at: Int64s
    captured: Int64s
    length: Int64s

    def keep(self, mask: Bools) -> _Layer:
        if mask.all():
            return self
        return _Layer(*(column[mask] for column in self))

    def skip(self, count: Int64s | int) -> _Layer:
        return _Layer(self.row, self.at + count, self.captured - count, self.length - count)


class _Reader:
    """Big-endian fields at many offsets of one byte array."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.limit = len(data) - PADDING

    def rows(self, at: Int64s, width: int) -> Bytes:
        """(n, width) bytes from each offset."""
        view = np.lib.stride_tricks.sliding_window_view(self.data, width)
        rows: Bytes = view[np.minimum(at, self.limit)]
        return rows

    def u8(self, at: Int64s) -> Int64s:
        return self.data[np.clip(at, 0, self.limit)].astype(np.int64)

    def u16(self, at: Int64s) -> Int64s:
        at = np.clip(at, 0, self.limit)
        return self.data[at].astype(np.int64) << 8 | self.data[at + 1]


def _field(rows: Bytes, start: int, kind: str) -> Int64s:
    """Column of big-endian integers from fixed header bytes."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    column = np.ndarray(len(rows), dtype=kind, buffer=np.ascontiguousarray(rows), offset=start, strides=rows.shape[1:])
    return column.astype(np.int64)


def _halves(rows: Bytes, start: int) -> tuple[UInt64s, UInt64s]:
    parts = np.ascontiguousarray(rows[:, start : start + 16]).view(">u8").astype(np.uint64)
    return parts[:, 0], parts[:, 1]


class _Decoder:
    """Walks down the layers of one chunk; every step narrows the packets still under way."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.read = _Reader(chunk.data)
        self.unhandled: Counter[str] = Counter()
        self.bad: list[Bad] = []
        self.parts: list[Packets] = []
        self.arrivals = chunk.time // 1000

    def reject(self, layer: _Layer, mask: Bools, reason: str) -> _Layer:
        """Notes the packets of `mask` as bad; the others."""
        if not mask.any():
            return layer
        for row in layer.row[mask].tolist():
            start = int(self.chunk.offset[row])
            head = self.chunk.data[start : start + min(64, int(self.chunk.captured[row]))].tobytes()
            self.bad.append(Bad(self.chunk.first + row, reason, head))
        return layer.keep(~mask)

    def drop(self, layer: _Layer, mask: Bools, kind: str) -> _Layer:
        """Counts the packets of `mask` as nothing we measure; the others."""
        if not mask.any():
            return layer
        self.unhandled[kind] += int(mask.sum())
        return layer.keep(~mask)

    def link(self) -> list[_Layer]:
        """Packets at their IP header."""
        chunk = self.chunk
        everything = _Layer(np.arange(len(chunk.offset)), chunk.offset, chunk.captured, chunk.length)
        found = []
        for kind in np.unique(chunk.link).tolist():
            if kind != BROKEN:
                layer = everything if (chunk.link == kind).all() else everything.keep(chunk.link == kind)
                found.append(self._network(kind, layer))
        return found

    def _network(self, kind: int, layer: _Layer) -> _Layer:
        if kind == 1:
            layer = self.reject(layer, layer.captured < 14, "cut_link_header")
            return self._ethertypes(layer.skip(14), self.read.u16(layer.at + 12))
        if kind == 113:
            layer = self.reject(layer, layer.captured < 16, "cut_link_header")
            return self._ethertypes(layer.skip(16), self.read.u16(layer.at + 14))
        if kind == 276:
            layer = self.reject(layer, layer.captured < 20, "cut_link_header")
            return self._ethertypes(layer.skip(20), self.read.u16(layer.at))
        if kind in (0, 108):
            return self.reject(layer, layer.captured < 4, "cut_link_header").skip(4)
        if kind in (12, 14, 101, 228, 229):
            return layer
        return self.drop(layer, np.ones(len(layer.row), dtype=bool), f"link_type_{kind}")

    def _ethertypes(self, layer: _Layer, kind: Int64s) -> _Layer:
        """Steps over VLAN tags, MPLS labels and PPPoE; counts what carries no IP."""
        for _ in range(8):
            tagged = np.isin(kind, VLAN_TYPES)
            labelled = np.isin(kind, MPLS_TYPES)
            session = kind == 0x8864
            if not (tagged.any() or labelled.any() or session.any()):
                break
            inner = np.where(tagged, self.read.u16(layer.at + 2), kind)
            bottom = labelled & (self.read.u8(layer.at + 2) & 1 == 1)
            version = self.read.u8(layer.at + 4) >> 4
            inner = np.where(bottom, np.where(version == 6, 0x86DD, 0x0800), inner)
            ppp = self.read.u16(layer.at + 6)
            inner = np.where(session, np.select([ppp == 0x21, ppp == 0x57], [0x0800, 0x86DD], 0x8863), inner)
            layer = layer.skip(np.where(tagged | labelled, 4, np.where(session, 8, 0)))
            kind = inner
        network = (kind == 0x0800) | (kind == 0x86DD)
        for other, count in zip(*np.unique(kind[~network], return_counts=True), strict=True):
            name = "llc" if other < 1536 else ETHERTYPE_NAMES.get(int(other), f"ethertype_{int(other):#06x}")
            self.unhandled[name] += int(count)
        return layer.keep(network)

    def network(self, layer: _Layer) -> None:
        """Decodes IPv4 and IPv6 and hands on to the transports."""
        layer = self.reject(layer, layer.captured < 1, "cut_ip_header")
        version = self.read.u8(layer.at) >> 4
        layer6 = layer.keep(version == 6)
        layer4 = layer.keep(version == 4)
        self.reject(layer, (version != 4) & (version != 6), "bad_ip_version")
        if len(layer4.row):
            self._ipv4(layer4)
        if len(layer6.row):
            self._ipv6(layer6)

    def _ipv4(self, layer: _Layer) -> None:
        layer = self.reject(layer, layer.captured < 20, "cut_ip_header")
        rows = self.read.rows(layer.at, 20)
        header = (rows[:, 0] & 15).astype(np.int64) * 4
        total = _field(rows, 2, ">u2")
        total = np.where(total == 0, layer.length, total)
        wrong = (header < 20) | (total < header)
        missing = total > layer.length
        fragment = _field(rows, 6, ">u2")
        later = (fragment & 0x1FFF) > 0
        good = ~(wrong | missing | later)
        self.reject(layer, wrong, "bad_ip_length")
        self.reject(layer, missing & ~wrong, "shorter_than_claimed")
        self.drop(layer, later & ~wrong & ~missing, "fragments")
        if not good.all():
            layer, rows, header, total = layer.keep(good), rows[good], header[good], total[good]
        low = _field(rows, 12, ">u4").astype(np.uint64), _field(rows, 16, ">u4").astype(np.uint64)
        high = np.zeros(len(total), dtype=np.uint64)
        inside = _Layer(layer.row, layer.at + header, np.minimum(layer.captured, total) - header, total - header)
        ends = (high, low[0] | MAPPED), (high, low[1] | MAPPED)
        self._transport(inside, rows[:, 9].astype(np.int64), ends, total)

    def _ipv6(self, layer: _Layer) -> None:
        layer = self.reject(layer, layer.captured < 40, "cut_ip_header")
        rows = self.read.rows(layer.at, 40)
        inside_length = _field(rows, 4, ">u2")
        total = np.where(inside_length == 0, layer.length, inside_length + 40)
        missing = total > layer.length
        self.reject(layer, missing, "shorter_than_claimed")
        good = ~missing
        layer, rows, total = layer.keep(good), rows[good], total[good]
        ends = _halves(rows, 8), _halves(rows, 24)
        inside = _Layer(layer.row, layer.at + 40, np.minimum(layer.captured, total) - 40, total - 40)
        inside, protocol, later = self._extensions(inside, rows[:, 6].astype(np.int64))
        self.drop(inside, later, "fragments")
        chosen = ~later
        source, target = ((high[chosen], low[chosen]) for high, low in ends)
        self._transport(inside.keep(chosen), protocol[chosen], (source, target), total[chosen])

    def _extensions(self, layer: _Layer, protocol: Int64s) -> tuple[_Layer, Int64s, Bools]:
        """Steps over IPv6 extension headers; also which packets are fragments other than the first."""
        later = np.zeros(len(protocol), dtype=bool)
        for _ in range(MAX_EXTENSIONS):
            plain = np.isin(protocol, EXTENSIONS)
            fragment = protocol == 44
            secured = protocol == 51
            known = (plain | fragment | secured) & ~later & (layer.captured >= 8)
            if not known.any():
                break
            size = self.read.u8(layer.at + 1)
            step = np.select([plain, secured], [size * 8 + 8, size * 4 + 8], 8)
            later |= known & fragment & (self.read.u16(layer.at + 2) >> 3 > 0)
            protocol = np.where(known, self.read.u8(layer.at), protocol)
            layer = layer.skip(np.where(known, step, 0))
        return layer, protocol, later

    def _transport(self, layer: _Layer, protocol: Int64s, ends: _Ends, total: Int64s) -> None:
        minimum = np.select([protocol == TCP, protocol == UDP, np.isin(protocol, (ICMP, ICMP6))], [20, 8, 8], 0)
        short = (layer.length < minimum) | (layer.captured < minimum)
        self.reject(layer, short, "cut_transport_header")
        keep = ~short
        source, target = ends
        if not keep.all():
            layer, protocol, total, minimum = layer.keep(keep), protocol[keep], total[keep], minimum[keep]
            source, target = ((high[keep], low[keep]) for high, low in ends)
        rows = self.read.rows(layer.at, 20)
        is_tcp, is_udp = protocol == TCP, protocol == UDP
        is_icmp = (protocol == ICMP) | (protocol == ICMP6)
        header = np.where(is_tcp, (rows[:, 12] >> 4).astype(np.int64) * 4, minimum)
        wrong = is_tcp & ((header < 20) | (header > layer.length) | (header > layer.captured))
        ports = is_tcp | is_udp
        first, second = np.where(ports, _field(rows, 0, ">u2"), 0), np.where(ports, _field(rows, 2, ">u2"), 0)
        said = _field(rows, 4, ">u2")
        payload = np.where(is_udp & (said > 0), np.maximum(said - 8, 0), layer.length - header)
        one_way = np.zeros(len(protocol), dtype=bool)
        if is_icmp.any():
            first, second, one_way = _icmp_ports(rows, protocol, is_icmp, first, second)
        where = layer.row
        part = Packets(
            number=where + self.chunk.first,
            time=self.chunk.time[where] // 1000,
            source=source,
            target=target,
            protocol=protocol,
            source_port=first,
            target_port=second,
            one_way=one_way,
            ip_bytes=total,
            payload=payload,
            flags=rows[:, 13].astype(np.int64),
            sequence=_field(rows, 4, ">u4"),
            acknowledged=_field(rows, 8, ">u4"),
            window=_field(rows, 14, ">u2"),
            content=layer.at + header,
            captured=np.clip(np.minimum(layer.captured - header, payload), 0, None),
            data=self.read.data,
            arrivals=self.arrivals,
            first=self.chunk.first,
        )
        self.reject(layer, wrong, "bad_tcp_header_length")
        self.parts.append(select(part, ~wrong) if wrong.any() else part)


_Ends = tuple[tuple[UInt64s, UInt64s], tuple[UInt64s, UInt64s]]


def _icmp_ports(
    rows: Bytes, protocol: Int64s, is_icmp: Bools, first: Int64s, second: Int64s
) -> tuple[Int64s, Int64s, Bools]:
    """Type and counterpart as ports, code where there is no counterpart; the third says where."""
    pairs = np.full((2, 256), -1, dtype=np.int64)
    for table, known in enumerate((ICMP4_PAIRS, ICMP6_PAIRS)):
        pairs[table, list(known)] = list(known.values())
    answer = pairs[(protocol == ICMP6).astype(np.int64), rows[:, 0]]
    one_way = is_icmp & (answer < 0)
    first = np.where(is_icmp, rows[:, 0], first)
    second = np.where(is_icmp, np.where(one_way, rows[:, 1], answer), second)
    return first, second, one_way


def select(packets: Packets, which: Bools | Int64s) -> Packets:
    """The packets `which` names, by mask or index."""
    columns: dict[str, Any] = {name: getattr(packets, name)[which] for name in _COLUMNS}
    for name in ("source", "target"):
        high, low = getattr(packets, name)
        columns[name] = high[which], low[which]
    return replace(packets, **columns)


_COLUMNS = frozenset(Packets.__dataclass_fields__) - {
    "source",
    "target",
    "data",
    "arrivals",
    "first",
    "unhandled",
    "bad",
}


def decode(chunk: Chunk) -> Packets:
    """The IP packets of a chunk in the capture's order."""
    decoder = _Decoder(chunk)
    for layer in decoder.link():
        if len(layer.row):
            decoder.network(layer)
    packets = _join(decoder)
    packets.unhandled = dict(decoder.unhandled)
    packets.bad = sorted(decoder.bad)
    return packets


def _join(decoder: _Decoder) -> Packets:
    """The parts in the capture's order."""
    parts = decoder.parts
    if len(parts) == 1:
        return parts[0]
    none, halves = np.zeros(0, dtype=np.int64), (np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64))
    columns: dict[str, Any] = dict.fromkeys(_COLUMNS, none) | {"one_way": np.zeros(0, dtype=bool)}
    columns |= {"source": halves, "target": halves}
    if parts:
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        for name in ("source", "target"):
            columns[name] = tuple(np.concatenate([getattr(part, name)[half] for part in parts]) for half in (0, 1))
    whole = Packets(**columns, data=decoder.read.data, arrivals=decoder.arrivals, first=decoder.chunk.first)
    return select(whole, np.argsort(whole.number, kind="stable"))


def beginnings(data: Bytes, at: Int64s, length: Int64s, width: int) -> Bytes:
    """(n, width) first bytes of payloads of `length` bytes at `at` in a chunk's data, zeros behind their end."""
    padded = data if len(data) >= width else np.concatenate([data, np.zeros(width, dtype=np.uint8)])
    start = np.clip(at, 0, len(padded) - width)
    rows = np.lib.stride_tricks.sliding_window_view(padded, width)[start]
    rows *= np.arange(width) < length[:, None]
    return rows
