"""Packets taken apart: link, IP and transport headers of a whole chunk at once, as columns; tunnels looked into.

What can't be measured is told apart: `unhandled` counts what is no IP connection (ARP, unknown link types, ...), `bad_headers`
names packets whose headers contradict themselves or are cut. Fragments wait for the rest of their datagram, which then
counts as one packet at the time of the last, as in Zeek.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ids_plugin.flowmeter.connection_table import UDP_SERVERS, mix
from ids_plugin.flowmeter.packets.capture_files import PADDING, Chunk, stretches
from ids_plugin.flowmeter.packets.checksums import pseudo_sums, wrong_sums
from ids_plugin.flowmeter.packets.headers import (
    Bad,
    Bools,
    Bytes,
    Int64s,
    Layer,
    Notes,
    Reader,
    UInt64s,
    column,
)
from ids_plugin.flowmeter.packets.ip_reassembly import LONGEST, Fragment, Fragments
from ids_plugin.flowmeter.packets.link_layer import RAW, network, networks
from ids_plugin.flowmeter.packets.tunnels import (
    CARRIERS,
    GRE,
    GTP,
    IP_IN_IP,
    KIND_OF_PORT,
    MAX_DEPTH,
    NO_LINK,
    NONE,
    PARSERS,
    TEREDO,
    TOO_DEEP,
    VXLAN,
    exact,
    gre,
    looks_like_teredo,
    suspected,
)
from ids_plugin.schema import icmp

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
MAPPED = np.uint64(0x0000FFFF_00000000)
"""Low half of an IPv4 address kept as IPv6 (::ffff:a.b.c.d)."""
HOP_BY_HOP, ROUTING, FRAGMENT, SECURED, ENCRYPTED, NOTHING, OPTIONS, MOBILITY = (
    0,
    43,
    44,
    51,
    50,
    59,
    60,
    135,
)
EXTENSIONS = np.zeros(256, dtype=bool)
EXTENSIONS[[HOP_BY_HOP, ROUTING, FRAGMENT, SECURED, OPTIONS]] = True
MAX_EXTENSIONS = 32
HOME_ADDRESS = 201
"""IPv6 destination option: where a mobile node belongs (RFC 6275), for Zeek its address."""
LIKELY_SERVER = np.zeros(65536, dtype=bool)
LIKELY_SERVER[list(UDP_SERVERS)] = True
MOST_REMEMBERED = 10_000
"""Connections remembered that aren't the tunnels their ports speak of."""
FORGOTTEN = 60_000_000
"""µs of silence behind which Zeek takes UDP for a new connection."""


@dataclass
class Packets:
    """IP packets of one chunk in the capture's order, one in a tunnel behind the one that carries it; arrays of n."""

    number: Int64s
    """number in the capture, from 1"""
    time: Int64s
    """µs since the epoch"""
    source: tuple[UInt64s, UInt64s]
    """address in two halves; IPv4 as ::ffff:a.b.c.d"""
    destination: tuple[UInt64s, UInt64s]
    protocol: Int64s
    """IP protocol number"""
    source_port: Int64s
    """ICMP: the type"""
    destination_port: Int64s
    """ICMP: the type that answers, or the code where none does"""
    is_one_way: Bools
    """ICMP that has no counterpart"""
    ip_bytes: Int64s
    """as the IP header says"""
    payload_bytes: Int64s
    """payload bytes by the headers"""
    flags: Int64s
    """TCP flags byte; this and the next three mean nothing where there is no TCP"""
    sequence: Int64s
    ack_number: Int64s
    window: Int64s
    payload_offset: Int64s
    """where the payload begins in `data`"""
    captured_payload: Int64s
    """captured payload bytes"""
    tunnel_parent: Int64s
    """the tunnel that the packet came out of: index of the packet that carried it, -2 - i for `tunnels[i]`, or -1"""
    tunnel_kind: Int64s
    """kind of tunnel that the packet proves its connection to be, of `_tunnels.NAMES`; 0 for none, TOO_DEEP"""
    has_bad_checksum: Bools
    """the checksum doesn't fit: the packet begins a connection if there is none, and leaves its letter, nothing else"""
    data: Bytes
    arrivals: Int64s
    """µs of every packet of the chunk, also those that aren't IP"""
    first_number: int
    """number of the chunk's first packet"""
    tunnels: UInt64s = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    """seeds of the uids of tunnels that aren't connections: IP in IP, GRE"""
    unhandled: dict[str, int] = field(default_factory=dict)
    bad_headers: list[Bad] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.number)


class _Ends(NamedTuple):
    """Addresses of packets in halves."""

    source: tuple[UInt64s, UInt64s]
    target: tuple[UInt64s, UInt64s]

    def keep(self, mask: Bools) -> _Ends:
        if mask.all():
            return self
        return _Ends(*((high[mask], low[mask]) for high, low in self))

    def pair(self) -> UInt64s:
        """A number for the two of them, whichever is the source."""
        return self._one(self.source) + self._one(self.target)

    @staticmethod
    def _one(address: tuple[UInt64s, UInt64s]) -> UInt64s:
        return mix(mix(address[0] + np.uint64(0x632BE59BD9B4E019)) ^ address[1])


def _halves(rows: Bytes, start: int) -> tuple[UInt64s, UInt64s]:
    parts = np.ascontiguousarray(rows[:, start : start + 16]).view(">u8").astype(np.uint64)
    return parts[:, 0], parts[:, 1]


class Decoder:
    """Takes apart the chunks of one capture in turn; remembers fragments and what turned out to be no tunnel.

    Checksums are judged only if `verify`, as Zeek does without its option -C.
    """

    def __init__(self, verify: bool = False) -> None:
        self.verify = verify
        self.fragments = Fragments()
        self.named: set[str] = set()
        """kinds of packets whose first was located"""
        self.no_tunnel: dict[int, int] = {}
        """connections by hash → when a packet of theirs came last"""
        self.responder: dict[int, int] = {}
        """the port that answers, where both could"""

    def decode(self, chunk: Chunk) -> Packets:
        """The IP packets of a chunk in the capture's order."""
        under_way = _Chunk(self, chunk)
        under_way.run()
        packets = _join(under_way)
        packets.tunnels = np.concatenate([np.zeros(0, dtype=np.uint64), *under_way.tunnels])
        packets.unhandled = dict(under_way.notes.unhandled)
        packets.bad_headers = sorted(under_way.notes.bad)
        return packets


class _Work(NamedTuple):
    """Packets at their IP header."""

    layer: Layer
    depth: int
    """tunnels around them"""
    within: int
    """kind of the innermost one"""


class _Chunk:
    """Walks down the layers of one chunk; every step narrows the packets still under way."""

    def __init__(self, decoder: Decoder, chunk: Chunk) -> None:
        self.decoder = decoder
        self.chunk = chunk
        self.notes = Notes(chunk, decoder.named)
        self.parts: list[Packets] = []
        self.count = 0
        self.tunnels: list[UInt64s] = []
        self.tunnel_count = 0
        self.arrivals = chunk.time // 1000
        self.work: deque[_Work] = deque()

    @property
    def read(self) -> Reader:
        return self.notes.read

    def run(self) -> None:
        """Decodes all packets of the chunk, those inside tunnels and complete datagrams too."""
        self.work.extend(_Work(layer, 0, NONE) for layer in networks(self.notes))
        while self.work:
            work = self.work.popleft()
            if len(work.layer.row):
                self._network(work)

    def _network(self, work: _Work) -> None:
        """Decodes IPv4 and IPv6 and hands on to the transports."""
        layer = self.notes.reject(work.layer, work.layer.captured < 1, "cut_ip_header")
        version = self.notes.rows(layer, 1)[:, 0] >> 4
        four, six = version == 4, version == 6
        self.notes.reject(layer, ~(four | six), "bad_ip_version")
        if four.any():
            self._ipv4(work._replace(layer=layer.keep(four)))
        if six.any():
            self._ipv6(work._replace(layer=layer.keep(six)))

    def _ipv4(self, work: _Work) -> None:
        layer = self.notes.reject(work.layer, work.layer.captured < 20, "cut_ip_header")
        rows = self.notes.rows(layer, 20)
        header = (rows[:, 0] & 15).astype(np.int64) * 4
        said = column(rows, 2, ">u2")
        total = np.where(said == 0, layer.captured, said)
        wrong = (header < 20) | (total < header)
        missing = ~wrong & (total > layer.length)
        cut = ~wrong & ~missing & (header > layer.captured)
        unfit = ~(wrong | missing | cut) & (
            wrong if not self.decoder.verify else self._unfit(layer, header)
        )
        fragment = column(rows, 6, ">u2") & 0x3FFF
        usable = ~(wrong | missing | cut | unfit)
        good = usable & (fragment == 0)
        if not good.all():
            for mask, reason in (
                (wrong, "bad_ip_length"),
                (missing, "shorter_than_claimed"),
                (cut, "cut_ip_header"),
            ):
                self.notes.reject(layer, mask, reason)
            self.notes.drop(layer, unfit, "bad_ip_checksum", locate=True)
            pieces = usable & (fragment > 0)
            if pieces.any():
                good |= self._fragments4(work, layer, pieces, header, total)
            layer, rows, header, said, total = (
                layer.keep(good),
                rows[good],
                header[good],
                said[good],
                total[good],
            )
        low = column(rows, 12, ">u4").astype(np.uint64), column(rows, 16, ">u4").astype(np.uint64)
        high = np.zeros(len(total), dtype=np.uint64)
        ends = _Ends((high, low[0] | MAPPED), (high, low[1] | MAPPED))
        self._transport(
            work._replace(layer=layer), header, total, rows[:, 9].astype(np.int64), ends, said
        )

    def _unfit(self, layer: Layer, header: Int64s) -> Bools:
        """Whether the checksums of IPv4 headers don't fit."""
        size = np.clip(np.minimum(header, layer.captured), 0, None)
        return wrong_sums(self.read.data, layer.at, size, np.zeros(len(size), dtype=np.int64))

    def _fragments4(
        self, work: _Work, layer: Layer, pieces: Bools, header: Int64s, total: Int64s
    ) -> Bools:
        """Hands fragments to the reassembler; which are to be taken as they are."""
        found: list[tuple[int, Fragment]] = []
        for index in np.flatnonzero(pieces).tolist():
            at, size = int(layer.at[index]), int(header[index])
            head = self.read.bytes(at, size)
            place = int.from_bytes(head[6:8], "big")
            key = head[12:20], int.from_bytes(head[4:6], "big")
            payload = self.read.bytes(at + size, int(total[index]) - size)
            offset, more = (place & 0x1FFF) * 8, place & 0x2000 != 0
            found.append(
                (index, Fragment(key, head, head[9], offset, more, payload, int(total[index])))
            )
        return self._reassemble(work, layer, found)

    def _fragments6(
        self,
        work: _Work,
        layer: Layer,
        pieces: Bools,
        header: Int64s,
        total: Int64s,
        protocol: Int64s,
    ) -> Bools:
        """The same for IPv6; `header` is the length up to behind the fragment header."""
        found: list[tuple[int, Fragment]] = []
        for index in np.flatnonzero(pieces).tolist():
            at, size = int(layer.at[index]), int(header[index])
            head = self.read.bytes(at, size)
            place = int.from_bytes(head[-6:-4], "big")
            key = head[8:40], int.from_bytes(head[-4:], "big")
            payload = self.read.bytes(at + size, int(total[index]) - size)
            piece = Fragment(
                key,
                head[:-8],
                int(protocol[index]),
                place & 0xFFF8,
                place & 1 != 0,
                payload,
                int(total[index]),
            )
            found.append((index, piece))
        return self._reassemble(work, layer, found)

    def _reassemble(self, work: _Work, layer: Layer, found: list[tuple[int, Fragment]]) -> Bools:
        """Takes fragments; the datagrams they complete are walked down like packets.

        Which packets are to be taken as they are: first fragments, where not all was captured.
        """
        alone = np.zeros(len(layer.row), dtype=bool)
        places: list[tuple[int, int, int]] = []
        end, whole = len(self.read.data) - PADDING, bytearray()
        for index, piece in found:
            row = int(layer.row[index])
            if layer.captured[index] < piece.total:
                alone[index] = piece.offset == 0
                if piece.offset:
                    self.notes.blame(row, "cut_fragment")
                continue
            datagram, odd = self.decoder.fragments.add(piece)
            for reason in odd:
                self.notes.blame(row, reason)
            if datagram is None:
                self.notes.unhandled["fragments"] += 1
            elif len(datagram) > LONGEST:
                self.notes.blame(row, "datagram_too_long")
            else:
                places.append((index, end + len(whole), len(datagram)))
                whole += datagram
        if places:
            self.notes.read = Reader(
                np.concatenate(
                    [self.read.data[:end], np.frombuffer(whole + bytes(PADDING), np.uint8)]
                )
            )
            index, at, size = np.array(places, dtype=np.int64).T
            self.work.append(
                work._replace(layer=Layer(layer.row[index], at, size, size, layer.parent[index]))
            )
        return alone

    def _ipv6(self, work: _Work) -> None:
        layer = self.notes.reject(work.layer, work.layer.captured < 40, "cut_ip_header")
        rows = self.notes.rows(layer, 40)
        said = column(rows, 4, ">u2")
        ends = _Ends(_halves(rows, 8), _halves(rows, 24))
        header, protocol, fragment, cut = self._extensions(layer, rows[:, 6].astype(np.int64), ends)
        total = said + 40
        missing = total > layer.length
        cut &= ~missing
        jumbo = ~missing & ~cut & (said == 0) & (header > 40)
        wrong = ~missing & ~cut & ~jumbo & (header > total)
        good = ~(missing | cut | jumbo | wrong)
        silent = good & ~fragment & np.isin(protocol, (ENCRYPTED, MOBILITY, NOTHING))
        good &= ~silent & ~fragment
        if not good.all():
            reasons = ("shorter_than_claimed", "cut_ip_header", "jumbogram", "bad_ip_length")
            for mask, reason in zip((missing, cut, jumbo, wrong), reasons, strict=True):
                self.notes.reject(layer, mask, reason)
            for number, kind in (
                (ENCRYPTED, "esp"),
                (MOBILITY, "mobility"),
                (NOTHING, "ipv6_no_next"),
            ):
                self.notes.drop(layer, silent & (protocol == number), kind)
            pieces = fragment & ~(missing | cut | jumbo | wrong)
            good |= self._fragments6(work, layer, pieces, header, total, protocol)
            layer, ends = layer.keep(good), ends.keep(good)
            header, protocol, said, total = header[good], protocol[good], said[good], total[good]
        whole = np.where(said == 0, layer.captured, total)
        self._transport(work._replace(layer=layer), header, whole, protocol, ends, total)

    def _extensions(
        self, layer: Layer, protocol: Int64s, ends: _Ends
    ) -> tuple[Int64s, Int64s, Bools, Bools]:
        """Length of the headers, protocol behind them, which are fragments, which are cut; addresses in extension
        headers replace those in `history_ends`.
        """
        header = np.full(len(protocol), 40, dtype=np.int64)
        fragment, cut = np.zeros(len(protocol), dtype=bool), np.zeros(len(protocol), dtype=bool)
        routed: set[int] = set()
        for _ in range(MAX_EXTENSIONS):
            known = EXTENSIONS[protocol] & ~fragment & ~cut
            if not known.any():
                break
            at = layer.at + header
            size = self.read.u8(at + 1)
            step = np.select(
                [protocol == FRAGMENT, protocol == SECURED], [8, size * 4 + 8], size * 8 + 8
            )
            cut |= known & (header + step > layer.captured)
            known &= ~cut
            for index in np.flatnonzero(
                known & ((protocol == ROUTING) | (protocol == OPTIONS))
            ).tolist():
                text = self.read.bytes(int(at[index]), int(step[index]))
                _readdress(ends, index, text, protocol[index] == ROUTING, routed)
            fragment |= known & (protocol == FRAGMENT)
            protocol = np.where(known, self.read.u8(at), protocol)
            header = header + np.where(known, step, 0)
        return header, protocol, fragment, cut

    def _transport(
        self,
        work: _Work,
        header: Int64s,
        whole: Int64s,
        protocol: Int64s,
        ends: _Ends,
        counted: Int64s,
    ) -> None:
        """What stands behind IP headers of `header` bytes in packets of `whole`, of which `counted` count."""
        outer = work.layer
        captured = np.minimum(outer.captured, whole) - header
        layer = Layer(outer.row, outer.at + header, captured, whole - header, outer.parent)
        nested = CARRIERS[protocol]
        if nested.any():
            whole_capture = outer.skip(header).keep(nested)
            self._tunnel(work, whole_capture, protocol[nested], ends.keep(nested))
        is_tcp = protocol == TCP
        minimum = _HEADER[protocol]
        short = ~nested & ((layer.length < minimum) | (layer.captured < minimum))
        rows = self.notes.rows(layer, 20)
        size = np.where(is_tcp, (rows[:, 12] >> 4).astype(np.int64) * 4, minimum)
        wrong = is_tcp & ~short & ((size < 20) | (size > layer.length) | (size > layer.captured))
        good = ~(nested | short | wrong)
        if not good.all():
            self.notes.reject(layer, short, "cut_transport_header")
            self.notes.reject(layer, wrong, "bad_tcp_header_length")
            layer, ends, rows, size = layer.keep(good), ends.keep(good), rows[good], size[good]
            protocol, counted = protocol[good], counted[good]
        part = self._part(layer, protocol, ends, counted, rows, size)
        if self.decoder.verify:
            self._refuse(part, layer, ends)
        said = column(rows, 4, ">u2")
        for index in np.flatnonzero(
            (protocol == UDP) & (said > 0) & (said != layer.length)
        ).tolist():
            self.notes.blame(int(layer.row[index]), "udp_length_mismatch")
        self.parts.append(part)
        self._udp(work, part, layer, rows)
        self.count += len(part)

    def _part(
        self,
        layer: Layer,
        protocol: Int64s,
        ends: _Ends,
        counted: Int64s,
        rows: Bytes,
        header: Int64s,
    ) -> Packets:
        """The columns of packets at their transport header, whose first 20 bytes `rows` are."""
        ports, is_udp = _HAS_PORTS[protocol], protocol == UDP
        first, second = (
            np.where(ports, column(rows, 0, ">u2"), 0),
            np.where(ports, column(rows, 2, ">u2"), 0),
        )
        said = column(rows, 4, ">u2")
        payload = np.where(is_udp & (said > 0), np.maximum(said - 8, 0), layer.length - header)
        one_way = np.zeros(len(protocol), dtype=bool)
        is_icmp = (protocol == ICMP) | (protocol == ICMP6)
        if is_icmp.any():
            first, second, one_way = _icmp_ports(rows, protocol, is_icmp, first, second)
        return Packets(
            number=layer.row + self.chunk.first,
            time=self.arrivals[layer.row],
            source=ends.source,
            destination=ends.target,
            protocol=protocol,
            source_port=first,
            destination_port=second,
            is_one_way=one_way,
            ip_bytes=counted,
            payload_bytes=payload,
            flags=rows[:, 13].astype(np.int64),
            sequence=column(rows, 4, ">u4"),
            ack_number=column(rows, 8, ">u4"),
            window=column(rows, 14, ">u2"),
            payload_offset=layer.at + header,
            captured_payload=np.clip(np.minimum(layer.captured - header, payload), 0, None),
            tunnel_parent=layer.parent,
            tunnel_kind=np.zeros(len(protocol), dtype=np.int64),
            has_bad_checksum=np.zeros(len(protocol), dtype=bool),
            data=self.read.data,
            arrivals=self.arrivals,
            first_number=self.chunk.first,
        )

    def _refuse(self, part: Packets, layer: Layer, ends: _Ends) -> None:
        """Marks packets whose TCP, UDP or ICMP checksum doesn't fit; those not captured as a whole are believed."""
        protocol, length = part.protocol, layer.length
        checked = (_HEADER[protocol] > 0) & (layer.captured >= length)
        none = (protocol == UDP) & (self.read.u16(layer.at + 6) == 0)
        checked &= ~none | ((ends.source[0] != 0) & (KIND_OF_PORT[part.destination_port] != VXLAN))
        extra = np.where(protocol == ICMP, 0, pseudo_sums(*ends, protocol, length))
        unfit = checked & wrong_sums(self.read.data, layer.at, np.where(checked, length, 0), extra)
        for number, kind in ((TCP, "tcp"), (UDP, "udp"), (ICMP, "icmp"), (ICMP6, "icmp")):
            self.notes.drop(
                layer, unfit & (protocol == number), f"bad_{kind}_checksum", locate=True
            )
        part.has_bad_checksum |= unfit

    def _tunnel(self, work: _Work, layer: Layer, protocol: Int64s, ends: _Ends) -> None:
        """IP in IP and GRE: the packets inside; these tunnels are no connections."""
        if work.depth >= MAX_DEPTH:
            self.notes.drop(layer, np.ones(len(protocol), dtype=bool), "tunnel_too_deep")
            return
        uid_seeds = mix(ends.pair())
        parent = -2 - self.tunnel_count - np.arange(len(uid_seeds))
        self.tunnels.append(uid_seeds)
        self.tunnel_count += len(uid_seeds)
        layer = layer._replace(parent=parent)
        is_gre = protocol == GRE
        version = self.read.u8(layer.at) >> 4
        plain = ~is_gre & exact(self.read, layer) & ((version == 4) == (protocol == IP_IN_IP))
        self.notes.reject(layer, ~is_gre & ~plain, "bad_inner_ip")
        self.work.append(_Work(layer.keep(plain), work.depth + 1, IP_IN_IP))
        if is_gre.any():
            inside, link = gre(self.read, layer.keep(is_gre))
            self.notes.drop(inside, link == NO_LINK, "gre")
            self._enter(inside, link, work.depth + 1, GRE)

    def _enter(self, inside: Layer, link: Int64s, depth: int, within: int) -> None:
        """Goes on with packets inside tunnels from their link layer."""
        for kind in np.unique(link[link != NO_LINK]).tolist():
            layers = (
                network(self.notes, kind, inside.keep(link == kind))
                if kind != RAW
                else [inside.keep(link == RAW)]
            )
            self.work.extend(_Work(layer, depth, within) for layer in layers)

    def _udp(self, work: _Work, part: Packets, layer: Layer, rows: Bytes) -> None:
        """UDP packets that may be tunnels: those inside, and what the packets prove about their connections."""
        candidate = (part.protocol == UDP) & ~part.has_bad_checksum
        if not candidate.any():
            return
        at = np.flatnonzero(candidate)
        port = self._responder(part, at)
        kind = suspected(port, column(rows[at], 8, ">u4"), layer.captured[at] - 8)
        found = kind != NONE
        if not found.any():
            return
        at, port, kind = at[found], port[found], kind[found]
        data = Layer(*(values[at] for values in layer)).skip(8)
        guessed = (KIND_OF_PORT[port] == NONE) & (kind == TEREDO)
        kind[guessed & ~looks_like_teredo(self.read, data)] = NONE
        for name in [each for each in np.flatnonzero(np.bincount(kind)).tolist() if each != NONE]:
            these = kind == name
            self._carried(
                work,
                part,
                name,
                at[these],
                data.keep(these)._replace(parent=self.count + at[these]),
            )

    def _responder(self, part: Packets, at: Int64s) -> Int64s:
        """The responder's port as Zeek sees it; of two servers that is whom the first packet went to."""
        source, target = part.source_port[at], part.destination_port[at]
        serves = LIKELY_SERVER[source]
        port = np.where(serves & ~LIKELY_SERVER[target], source, target)
        both = serves & LIKELY_SERVER[target] & (KIND_OF_PORT[source] != KIND_OF_PORT[target])
        for index in np.flatnonzero(both).tolist():
            known = self.decoder.responder
            if len(known) > MOST_REMEMBERED:
                known.clear()
            key = _connection(part, int(at[index]))
            port[index] = known.setdefault(key, int(target[index]))
        return port

    def _carried(self, work: _Work, part: Packets, kind: int, at: Int64s, data: Layer) -> None:
        """Packets of one kind of tunnel, at their UDP payload."""
        if work.depth >= MAX_DEPTH:
            self.notes.unhandled["tunnel_too_deep"] += len(at)
            part.tunnel_kind[at] = TOO_DEEP if kind != GTP else NONE
            return
        inside = PARSERS[kind](self.read, data)
        confirmed, violates, link = inside.confirmed, inside.violates, inside.link
        if kind == GTP and work.within == GTP:
            violates, link = np.ones(len(at), dtype=bool), np.full(len(at), NO_LINK)
            confirmed = ~violates
        if violates.any() or self.decoder.no_tunnel:
            trusted = self._trusted(part, at, violates)
            confirmed = confirmed & trusted
            if kind != GTP:
                link = np.where(trusted, link, NO_LINK)
        part.tunnel_kind[at[confirmed]] = kind
        self._enter(inside.layer, link, work.depth + 1, kind)

    def _trusted(self, part: Packets, at: Int64s, violates: Bools) -> Bools:
        """Which packets belong to connections none of whose packets so far contradicted the tunnel."""
        known, trusted = self.decoder.no_tunnel, ~violates
        for index, packet in enumerate(at.tolist()):
            key, now = _connection(part, packet), int(part.time[packet])
            if now - known.get(key, now) >= FORGOTTEN:
                del known[key]
            if key in known or violates[index]:
                known[key] = now
                trusted[index] = False
        while len(known) > MOST_REMEMBERED:
            del known[next(iter(known))]
        return trusted


def _connection(part: Packets, packet: int) -> int:
    """A number for the two ends of a UDP packet, whichever sent it."""
    ends = [
        (int(high[packet]), int(low[packet]), int(port[packet]))
        for (high, low), port in (
            (part.source, part.source_port),
            (part.destination, part.destination_port),
        )
    ]
    return hash((min(ends), max(ends)))


_HEADER = np.zeros(256, dtype=np.int64)
_HEADER[[TCP, UDP, ICMP, ICMP6]] = 20, 8, 8, 8
_HAS_PORTS = np.zeros(256, dtype=bool)
_HAS_PORTS[[TCP, UDP]] = True


def _readdress(ends: _Ends, index: int, header: bytes, routing: bool, routed: set[int]) -> None:
    """Takes the final target from a routing header (types 0 and 2), the home address from destination options."""
    if routing:
        kind, left, size = header[2], header[3], header[1]
        known = (kind == 0 and size >= 2 and size % 2 == 0) or (kind == 2 and size == 2)
        if left and known and index not in routed:
            routed.add(index)
            _put(ends.target, index, header[-16:])
        return
    at = 2
    while at < len(header):
        if header[at] == 0:
            at += 1
            continue
        if at + 2 > len(header) or at + 2 + header[at + 1] > len(header):
            return
        if header[at] == HOME_ADDRESS and header[at + 1] == 16:
            _put(ends.source, index, header[at + 2 : at + 18])
            return
        at += 2 + header[at + 1]


def _put(address: tuple[UInt64s, UInt64s], index: int, value: bytes) -> None:
    address[0][index], address[1][index] = (
        int.from_bytes(value[:8], "big"),
        int.from_bytes(value[8:], "big"),
    )


def _icmp_ports(
    rows: Bytes, protocol: Int64s, is_icmp: Bools, first: Int64s, second: Int64s
) -> tuple[Int64s, Int64s, Bools]:
    """Type and counterpart as ports, code where there is no counterpart; the third says where."""
    at = np.flatnonzero(is_icmp)
    kind, code = rows[at, 0], rows[at, 1]
    answer = _ANSWERS[(protocol[at] == ICMP6).astype(np.int64), kind]
    one_way = np.zeros(len(protocol), dtype=bool)
    one_way[at] = answer < 0
    first[at], second[at] = kind, np.where(answer < 0, code, answer)
    return first, second, one_way


_ANSWERS = icmp.answer_table()


def select(packets: Packets, which: Bools | Int64s) -> Packets:
    """The packets `which` names, by mask or index."""
    columns: dict[str, Any] = {name: getattr(packets, name)[which] for name in _COLUMNS}
    for name in ("source", "destination"):
        high, low = getattr(packets, name)
        columns[name] = high[which], low[which]
    return replace(packets, **columns)


_COLUMNS = frozenset(Packets.__dataclass_fields__) - {
    "source",
    "destination",
    "data",
    "arrivals",
    "first_number",
    "tunnels",
    "unhandled",
    "bad_headers",
}


def _join(chunk: _Chunk) -> Packets:
    """The parts in the capture's order, whatever a packet carried behind it."""
    parts = [part for part in chunk.parts if len(part)]
    if len(parts) == 1:
        return replace(parts[0], data=chunk.read.data)
    none, halves = (
        np.zeros(0, dtype=np.int64),
        (np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)),
    )
    columns: dict[str, Any] = dict.fromkeys(_COLUMNS, none)
    columns |= dict.fromkeys(("is_one_way", "has_bad_checksum"), np.zeros(0, dtype=bool))
    columns |= {"source": halves, "destination": halves}
    if parts:
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS
        }
        for name in ("source", "destination"):
            columns[name] = tuple(
                np.concatenate([getattr(part, name)[half] for part in parts]) for half in (0, 1)
            )
    whole = Packets(
        **columns, data=chunk.read.data, arrivals=chunk.arrivals, first_number=chunk.chunk.first
    )
    order = np.argsort(whole.number, kind="stable")
    whole = select(whole, order)
    inside = np.flatnonzero(whole.tunnel_parent >= 0)
    if len(inside):
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        whole.tunnel_parent[inside] = place[whole.tunnel_parent[inside]]
    return whole


def beginnings(data: Bytes, at: Int64s, length: Int64s, width: int) -> Bytes:
    """(n, width) first bytes of payloads of `length` bytes at `at` in a chunk's data, zeros behind their end."""
    padded = data if len(data) >= width else np.concatenate([data, np.zeros(width, dtype=np.uint8)])
    start = np.clip(at, 0, len(padded) - width)
    rows = stretches(padded, start, width)
    rows *= np.arange(width) < length[:, None]
    return rows
