"""Packets taken apart: link, IP and transport headers of a whole chunk at once, as columns; tunnels
looked into.

What can't be measured is told apart: `unhandled` counts what is no IP connection (ARP, unknown link
types, ...), `bad_headers` names packets whose headers contradict themselves or are cut. Fragments
wait for the rest of their datagram, which then counts as one packet at the time of the last, as in
Zeek.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ids_plugin.flowmeter.connection_table import UDP_SERVERS, mix
from ids_plugin.flowmeter.packets.capture_files import Chunk
from ids_plugin.flowmeter.packets.checksums import pseudo_sums, wrong_checksums
from ids_plugin.flowmeter.packets.headers import (
    Bools,
    Bytes,
    DecodingNotes,
    Int64s,
    Layer,
    Reader,
    UInt64s,
    column,
)
from ids_plugin.flowmeter.packets.ip_reassembly import MAX_IP_BYTES, Fragment, Fragments
from ids_plugin.flowmeter.packets.link_headers import add_link_headers
from ids_plugin.flowmeter.packets.link_layer import RAW, ip_layers, ip_layers_of_link
from ids_plugin.flowmeter.packets.packet_columns import (
    ICMP,
    ICMP6,
    MAPPED,
    PACKET_COLUMNS,
    TCP,
    UDP,
    Packets,
    select_packets,
)
from ids_plugin.flowmeter.packets.tunnels import (
    CARRIERS,
    GRE,
    GTP,
    IP_IN_IP,
    KIND_OF_PORT,
    MAX_TUNNEL_DEPTH,
    NO_LINK,
    NONE,
    PARSERS,
    TEREDO,
    TOO_DEEP,
    VXLAN,
    gre,
    holds_exactly_one_ip_packet,
    looks_like_teredo,
    suspected_tunnels,
)
from ids_plugin.schema import icmp

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, ENCRYPTED, NOTHING, OPTIONS, MOBILITY = (
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
EXTENSIONS[[HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS]] = True

MAX_EXTENSIONS = 32
"""IPv6 extension headers of a packet, atomic fragment headers among them."""
MAX_FRAGMENT_DEPTH = 4
"""Datagrams that hold a fragment of another datagram, one in the other."""
HOME_ADDRESS = 201
"""IPv6 destination option: where a mobile node belongs (RFC 6275), for Zeek its address."""

LIKELY_SERVER = np.zeros(65536, dtype=bool)
LIKELY_SERVER[list(UDP_SERVERS)] = True

MAX_REMEMBERED = 10_000
"""Connections remembered that aren't the tunnels their ports speak of."""

FORGET_AFTER_US = 60_000_000
"""µs of silence behind which Zeek takes UDP for a new connection."""


add_link_headers()


class _Addresses(NamedTuple):
    """Addresses of packets in halves."""

    source: tuple[UInt64s, UInt64s]
    target: tuple[UInt64s, UInt64s]

    def keep(self, mask: Bools) -> _Addresses:
        if mask.all():
            return self
        return _Addresses(*((high[mask], low[mask]) for high, low in self))

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
    """Takes apart the chunks of one capture in turn; remembers fragments and what turned out to be
    no tunnel.

    Checksums are judged only if `verify`, as Zeek does without its option -C.
    """

    def __init__(self, verify: bool = False) -> None:
        self.verify = verify
        self.fragments = Fragments()
        self.located_kinds: set[str] = set()
        """kinds of packets whose first was located"""
        self.not_tunnels: dict[int, int] = {}
        """connections by hash → when a packet of theirs came last"""
        self.responder_ports: dict[int, int] = {}
        """the port that answers, where both could"""

    def decode(self, chunk: Chunk) -> Packets:
        """The IP packets of a chunk in the capture's order."""
        under_way = _ChunkDecoder(self, chunk)
        under_way.run()
        packets = _join_parts(under_way)
        packets.tunnels = np.concatenate([np.zeros(0, dtype=np.uint64), *under_way.tunnels])
        packets.unhandled = dict(under_way.notes.unhandled)
        packets.remarks = dict(under_way.notes.remarks)
        packets.bad_headers = sorted(under_way.notes.bad_headers)
        return packets


class _IpPackets(NamedTuple):
    """Packets at their IP header."""

    layer: Layer
    tunnel_depth: int
    """tunnels around them"""
    tunnel_kind: int
    """kind of the innermost one"""
    fragment_depth: int = 0
    """reassembled datagrams around them"""


class _ExtensionHeaders(NamedTuple):
    """What stands between IPv6 headers and their transports; arrays of n."""

    header_bytes: Int64s
    """length of all headers"""
    protocol: Int64s
    """what stands behind them"""
    is_fragment: Bools
    is_cut: Bools
    is_too_deep: Bools
    """more headers than are looked at"""
    atomic_bytes: Int64s
    """length of atomic fragment headers (RFC 6946): Zeek takes them out"""

    def keep(self, mask: Bools) -> _ExtensionHeaders:
        columns: dict[str, Any] = {name: values[mask] for name, values in self._asdict().items()}
        return _ExtensionHeaders(**columns)


class _ChunkDecoder:
    """Walks down the layers of one chunk; every step narrows the packets still under way."""

    def __init__(self, decoder: Decoder, chunk: Chunk) -> None:
        self.decoder = decoder
        self.chunk = chunk
        self.notes = DecodingNotes(chunk, decoder.located_kinds)
        self.parts: list[Packets] = []
        self.packet_count = 0
        self.tunnels: list[UInt64s] = []
        self.tunnel_count = 0
        self.arrivals = chunk.time // 1000
        self.queue: deque[_IpPackets] = deque()

    @property
    def reader(self) -> Reader:
        return self.notes.reader

    def run(self) -> None:
        """Decodes all packets of the chunk, those inside tunnels and complete datagrams too."""
        self.queue.extend(_IpPackets(layer, 0, NONE) for layer in ip_layers(self.notes))
        while self.queue:
            work = self.queue.popleft()
            if len(work.layer.row):
                self._split_ip_versions(work)

    def _split_ip_versions(self, work: _IpPackets) -> None:
        """Decodes IPv4 and IPv6 and hands on to the transports."""
        layer = self.notes.reject(work.layer, work.layer.captured < 1, "cut_ip_header")
        version = self.notes.header_rows(layer, 1)[:, 0] >> 4
        four, six = version == 4, version == 6
        self.notes.reject(layer, ~(four | six), "bad_ip_version")
        if four.any():
            self._decode_ipv4(work._replace(layer=layer.keep(four)))
        if six.any():
            self._decode_ipv6(work._replace(layer=layer.keep(six)))

    def _decode_ipv4(self, work: _IpPackets) -> None:
        layer = self.notes.reject(work.layer, work.layer.captured < 20, "cut_ip_header")
        rows = self.notes.header_rows(layer, 20)
        header_bytes = (rows[:, 0] & 15).astype(np.int64) * 4
        claimed_bytes = column(rows, 2, ">u2")
        total_bytes = np.where(claimed_bytes == 0, layer.length, claimed_bytes)
        layer = self._believe_headers(layer, total_bytes)
        has_wrong_length = (header_bytes < 20) | (total_bytes < header_bytes)
        is_incomplete = ~has_wrong_length & (total_bytes > layer.length)
        is_cut = ~has_wrong_length & ~is_incomplete & (header_bytes > layer.captured)
        has_wrong_checksum = ~(has_wrong_length | is_incomplete | is_cut) & (
            has_wrong_length
            if not self.decoder.verify
            else self._has_wrong_ip_checksum(layer, header_bytes)
        )
        fragment = column(rows, 6, ">u2") & 0x3FFF
        is_usable = ~(has_wrong_length | is_incomplete | is_cut | has_wrong_checksum)
        is_good = is_usable & (fragment == 0)
        if not is_good.all():
            for mask, reason in (
                (has_wrong_length, "bad_ip_length"),
                (is_incomplete, "shorter_than_claimed"),
                (is_cut, "cut_ip_header"),
            ):
                self.notes.reject(layer, mask, reason)
            self.notes.drop(layer, has_wrong_checksum, "bad_ip_checksum", locate=True)
            is_fragment = is_usable & (fragment > 0)
            if is_fragment.any():
                is_good |= self._ipv4_fragments(work, layer, is_fragment, header_bytes, total_bytes)
            layer, rows, header_bytes, total_bytes = (
                layer.keep(is_good),
                rows[is_good],
                header_bytes[is_good],
                total_bytes[is_good],
            )
        low = column(rows, 12, ">u4").astype(np.uint64), column(rows, 16, ">u4").astype(np.uint64)
        high = np.zeros(len(total_bytes), dtype=np.uint64)
        addresses = _Addresses((high, low[0] | MAPPED), (high, low[1] | MAPPED))
        self._decode_transport(
            work._replace(layer=layer),
            header_bytes,
            total_bytes,
            rows[:, 9].astype(np.int64),
            addresses,
            total_bytes,
        )

    def _believe_headers(self, layer: Layer, total_bytes: Int64s) -> Layer:
        """Packets whose original length the file has lost get the one that their headers name."""
        is_lost = self.chunk.has_lost_length[layer.row] & (total_bytes > layer.length)
        if not is_lost.any():
            return layer
        self.notes.remarks["original_length_lost"] += int(is_lost.sum())
        return layer._replace(length=np.where(is_lost, total_bytes, layer.length))

    def _has_wrong_ip_checksum(self, layer: Layer, header_bytes: Int64s) -> Bools:
        """Whether the checksums of IPv4 headers don't fit."""
        size = np.clip(np.minimum(header_bytes, layer.captured), 0, None)
        return wrong_checksums(
            self.reader.data, layer.offset, size, np.zeros(len(size), dtype=np.int64)
        )

    def _ipv4_fragments(
        self,
        work: _IpPackets,
        layer: Layer,
        is_fragment: Bools,
        header_bytes: Int64s,
        total_bytes: Int64s,
    ) -> Bools:
        """Hands fragments to the reassembler; which are to be taken as they are."""
        fragments: list[tuple[int, Fragment]] = []
        for index in np.flatnonzero(is_fragment).tolist():
            header_offset, size = int(layer.offset[index]), int(header_bytes[index])
            head = self.reader.bytes(header_offset, size)
            flags_and_offset = int.from_bytes(head[6:8], "big")
            key = head[12:20], int.from_bytes(head[4:6], "big")
            payload = self.reader.bytes(header_offset + size, int(total_bytes[index]) - size)
            offset, more = (flags_and_offset & 0x1FFF) * 8, flags_and_offset & 0x2000 != 0
            fragments.append(
                (
                    index,
                    Fragment(key, head, head[9], offset, more, payload, int(total_bytes[index])),
                )
            )
        return self._reassemble(work, layer, fragments)

    def _ipv6_fragments(
        self,
        work: _IpPackets,
        layer: Layer,
        is_fragment: Bools,
        header_bytes: Int64s,
        total_bytes: Int64s,
        protocol: Int64s,
    ) -> Bools:
        """The same for IPv6; `header_bytes` is the length up to behind the fragment header."""
        fragments: list[tuple[int, Fragment]] = []
        for index in np.flatnonzero(is_fragment).tolist():
            header_offset, size = int(layer.offset[index]), int(header_bytes[index])
            head = self.reader.bytes(header_offset, size)
            flags_and_offset = int.from_bytes(head[-6:-4], "big")
            key = head[8:40], int.from_bytes(head[-4:], "big")
            payload = self.reader.bytes(header_offset + size, int(total_bytes[index]) - size)
            piece = Fragment(
                key,
                head[:-8],
                int(protocol[index]),
                flags_and_offset & 0xFFF8,
                flags_and_offset & 1 != 0,
                payload,
                int(total_bytes[index]),
            )
            fragments.append((index, piece))
        return self._reassemble(work, layer, fragments)

    def _reassemble(
        self, work: _IpPackets, layer: Layer, fragments: list[tuple[int, Fragment]]
    ) -> Bools:
        """Takes fragments; the datagrams they complete are walked down like packets.

        Which packets are to be taken as they are: first fragments, where not all was captured.
        """
        is_taken_alone = np.zeros(len(layer.row), dtype=bool)
        if work.fragment_depth >= MAX_FRAGMENT_DEPTH:
            self.notes.unhandled["fragments_too_deep"] += len(fragments)
            return is_taken_alone
        places: list[tuple[int, int, int]] = []
        end, datagrams = self.reader.end, bytearray()
        for index, piece in fragments:
            row = int(layer.row[index])
            if layer.captured[index] < piece.total:
                is_taken_alone[index] = piece.offset == 0
                if piece.offset:
                    self.notes.note_bad(row, "cut_fragment")
                continue
            datagram, oddities = self.decoder.fragments.add(piece)
            for reason in oddities:
                self.notes.note_bad(row, reason)
            if datagram is None:
                self.notes.unhandled["fragments"] += 1
            elif len(datagram) > MAX_IP_BYTES:
                self.notes.note_bad(row, "datagram_too_long")
            else:
                places.append((index, end + len(datagrams), len(datagram)))
                datagrams += datagram
        if places:
            self.reader.append(datagrams)
            index, offset, size = np.array(places, dtype=np.int64).T
            self.queue.append(
                work._replace(
                    layer=Layer(layer.row[index], offset, size, size, layer.tunnel_parent[index]),
                    fragment_depth=work.fragment_depth + 1,
                )
            )
        return is_taken_alone

    def _decode_ipv6(self, work: _IpPackets) -> None:
        layer = self.notes.reject(work.layer, work.layer.captured < 40, "cut_ip_header")
        rows = self.notes.header_rows(layer, 40)
        claimed_bytes = column(rows, 4, ">u2")
        addresses = _Addresses(_halves(rows, 8), _halves(rows, 24))
        headers = self._walk_extension_headers(layer, rows[:, 6].astype(np.int64), addresses)
        is_offloaded = (claimed_bytes == 0) & (headers.header_bytes == 40)
        total_bytes = np.where(is_offloaded, layer.length, claimed_bytes + 40)
        layer = self._believe_headers(layer, total_bytes)
        is_usable = self._usable_ipv6(layer, claimed_bytes, total_bytes, headers)
        is_good = is_usable & ~headers.is_fragment
        is_good &= ~self._drop_without_transport(layer, is_good, headers.protocol)
        if not is_good.all():
            is_good |= self._ipv6_fragments(
                work,
                layer,
                is_usable & headers.is_fragment,
                headers.header_bytes,
                total_bytes,
                headers.protocol,
            )
            layer, addresses = layer.keep(is_good), addresses.keep(is_good)
            headers = headers.keep(is_good)
            total_bytes = total_bytes[is_good]
        self._decode_transport(
            work._replace(layer=layer),
            headers.header_bytes,
            total_bytes,
            headers.protocol,
            addresses,
            total_bytes - headers.atomic_bytes,
        )

    def _usable_ipv6(
        self, layer: Layer, claimed_bytes: Int64s, total_bytes: Int64s, headers: _ExtensionHeaders
    ) -> Bools:
        """Which packets' headers can be believed; the others are noted."""
        is_incomplete = total_bytes > layer.length
        is_cut = headers.is_cut & ~is_incomplete
        is_usable = ~(is_incomplete | is_cut)
        is_jumbogram = is_usable & (claimed_bytes == 0) & (headers.header_bytes > 40)
        is_usable &= ~is_jumbogram
        has_wrong_length = is_usable & (headers.header_bytes > total_bytes)
        is_usable &= ~has_wrong_length
        if is_usable.all() and not headers.is_too_deep.any():
            return is_usable
        for mask, reason in (
            (is_incomplete, "shorter_than_claimed"),
            (is_cut, "cut_ip_header"),
            (is_jumbogram, "jumbogram"),
            (has_wrong_length, "bad_ip_length"),
        ):
            self.notes.reject(layer, mask, reason)
        is_too_deep = is_usable & headers.is_too_deep
        self.notes.drop(layer, is_too_deep, "ipv6_headers_too_deep", locate=True)
        return is_usable & ~is_too_deep

    def _drop_without_transport(self, layer: Layer, is_good: Bools, protocol: Int64s) -> Bools:
        """Counts packets that carry no transport; which they are."""
        has_no_transport = is_good & np.isin(protocol, (ENCRYPTED, MOBILITY, NOTHING))
        for number, kind in ((ENCRYPTED, "esp"), (MOBILITY, "mobility"), (NOTHING, "ipv6_no_next")):
            self.notes.drop(layer, has_no_transport & (protocol == number), kind)
        return has_no_transport

    def _walk_extension_headers(
        self, layer: Layer, protocol: Int64s, addresses: _Addresses
    ) -> _ExtensionHeaders:
        """Steps over extension headers; addresses in them replace those in `addresses`.

        A fragment header ends the walk unless it is atomic: all of its datagram.
        """
        count = len(protocol)
        header_bytes, atomic_bytes = np.full(count, 40), np.zeros(count, dtype=np.int64)
        is_fragment, is_cut = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        is_extension = EXTENSIONS[protocol]
        routed: set[int] = set()
        for _ in range(MAX_EXTENSIONS):
            if not is_extension.any():
                break
            extension_offset = layer.offset + header_bytes
            size = self.reader.u8(extension_offset + 1)
            step = np.select(
                [protocol == FRAGMENT, protocol == AUTHENTICATION], [8, size * 4 + 8], size * 8 + 8
            )
            is_cut |= is_extension & (header_bytes + step > layer.captured)
            is_extension &= ~is_cut
            for index in np.flatnonzero(
                is_extension & ((protocol == ROUTING) | (protocol == OPTIONS))
            ).tolist():
                text = self.reader.bytes(int(extension_offset[index]), int(step[index]))
                _apply_extension_address(addresses, index, text, protocol[index] == ROUTING, routed)
            has_fragment_header = is_extension & (protocol == FRAGMENT)
            is_atomic = has_fragment_header & (self.reader.u16(extension_offset + 2) & 0xFFF9 == 0)
            atomic_bytes += np.where(is_atomic, 8, 0)
            is_fragment |= has_fragment_header & ~is_atomic
            protocol = np.where(is_extension, self.reader.u8(extension_offset), protocol)
            header_bytes = header_bytes + np.where(is_extension, step, 0)
            is_extension = EXTENSIONS[protocol] & ~is_fragment & ~is_cut
        return _ExtensionHeaders(
            header_bytes, protocol, is_fragment, is_cut, is_extension, atomic_bytes
        )

    def _decode_transport(
        self,
        work: _IpPackets,
        header_bytes: Int64s,
        ip_end: Int64s,
        protocol: Int64s,
        addresses: _Addresses,
        counted: Int64s,
    ) -> None:
        """What stands behind IP headers of `header_bytes` bytes in packets of `ip_end`, of which
        `counted` count.
        """
        outer = work.layer
        captured = np.minimum(outer.captured, ip_end) - header_bytes
        layer = Layer(
            outer.row,
            outer.offset + header_bytes,
            captured,
            ip_end - header_bytes,
            outer.tunnel_parent,
        )
        is_nested = CARRIERS[protocol]
        if is_nested.any():
            whole_capture = outer.skip(header_bytes).keep(is_nested)
            self._unwrap_ip_tunnels(
                work, whole_capture, protocol[is_nested], addresses.keep(is_nested)
            )
        is_tcp = protocol == TCP
        minimum = _MIN_TRANSPORT_BYTES[protocol]
        is_cut = ~is_nested & ((layer.length < minimum) | (layer.captured < minimum))
        rows = self.notes.header_rows(layer, 20)
        size = np.where(is_tcp, (rows[:, 12] >> 4).astype(np.int64) * 4, minimum)
        has_wrong_length = (
            is_tcp & ~is_cut & ((size < 20) | (size > layer.length) | (size > layer.captured))
        )
        is_good = ~(is_nested | is_cut | has_wrong_length)
        if not is_good.all():
            self.notes.reject(layer, is_cut, "cut_transport_header")
            self.notes.reject(layer, has_wrong_length, "bad_tcp_header_length")
            layer, addresses, rows, size = (
                layer.keep(is_good),
                addresses.keep(is_good),
                rows[is_good],
                size[is_good],
            )
            protocol, counted = protocol[is_good], counted[is_good]
        part = self._packet_columns(layer, protocol, addresses, counted, rows, size)
        if self.decoder.verify:
            self._mark_bad_checksums(part, layer, addresses)
        claimed_bytes = column(rows, 4, ">u2")
        for index in np.flatnonzero(
            (protocol == UDP) & (claimed_bytes > 0) & (claimed_bytes != layer.length)
        ).tolist():
            self.notes.note_bad(int(layer.row[index]), "udp_length_mismatch")
        self.parts.append(part)
        self._find_udp_tunnels(work, part, layer, rows)
        self.packet_count += len(part)

    def _packet_columns(
        self,
        layer: Layer,
        protocol: Int64s,
        addresses: _Addresses,
        counted: Int64s,
        rows: Bytes,
        header_bytes: Int64s,
    ) -> Packets:
        """The columns of packets at their transport header, whose first 20 bytes `header_rows`
        are.
        """
        has_ports, is_udp = _HAS_PORTS[protocol], protocol == UDP
        source_port, destination_port = (
            np.where(has_ports, column(rows, 0, ">u2"), 0),
            np.where(has_ports, column(rows, 2, ">u2"), 0),
        )
        claimed_bytes = column(rows, 4, ">u2")
        payload = np.where(
            is_udp & (claimed_bytes > 0),
            np.maximum(claimed_bytes - 8, 0),
            layer.length - header_bytes,
        )
        one_way = np.zeros(len(protocol), dtype=bool)
        is_icmp = (protocol == ICMP) | (protocol == ICMP6)
        if is_icmp.any():
            source_port, destination_port, one_way = _icmp_ports(
                rows, protocol, is_icmp, source_port, destination_port
            )
        return Packets(
            number=layer.row + self.chunk.first,
            time=self.arrivals[layer.row],
            source=addresses.source,
            destination=addresses.target,
            protocol=protocol,
            source_port=source_port,
            destination_port=destination_port,
            is_one_way=one_way,
            ip_bytes=counted,
            payload_bytes=payload,
            flags=rows[:, 13].astype(np.int64),
            sequence=column(rows, 4, ">u4"),
            ack_number=column(rows, 8, ">u4"),
            window=column(rows, 14, ">u2"),
            payload_offset=layer.offset + header_bytes,
            captured_payload=np.clip(np.minimum(layer.captured - header_bytes, payload), 0, None),
            tunnel_parent=layer.tunnel_parent,
            tunnel_kind=np.zeros(len(protocol), dtype=np.int64),
            has_bad_checksum=np.zeros(len(protocol), dtype=bool),
            data=self.reader.data,
            arrivals=self.arrivals,
            first_number=self.chunk.first,
        )

    def _mark_bad_checksums(self, part: Packets, layer: Layer, addresses: _Addresses) -> None:
        """Marks packets whose TCP, UDP or ICMP checksum doesn't fit; those not captured as a
        whole are believed.
        """
        protocol, length = part.protocol, layer.length
        is_checked = (_MIN_TRANSPORT_BYTES[protocol] > 0) & (layer.captured >= length)
        has_no_checksum = (protocol == UDP) & (self.reader.u16(layer.offset + 6) == 0)
        is_checked &= ~has_no_checksum | (
            (addresses.source[0] != 0) & (KIND_OF_PORT[part.destination_port] != VXLAN)
        )
        extra = np.where(protocol == ICMP, 0, pseudo_sums(*addresses, protocol, length))
        is_wrong = is_checked & wrong_checksums(
            self.reader.data, layer.offset, np.where(is_checked, length, 0), extra
        )
        for number, kind in ((TCP, "tcp"), (UDP, "udp"), (ICMP, "icmp"), (ICMP6, "icmp")):
            self.notes.drop(
                layer, is_wrong & (protocol == number), f"bad_{kind}_checksum", locate=True
            )
        part.has_bad_checksum |= is_wrong

    def _unwrap_ip_tunnels(
        self, work: _IpPackets, layer: Layer, protocol: Int64s, addresses: _Addresses
    ) -> None:
        """IP in IP and GRE: the packets inside; these tunnels are no connections."""
        if work.tunnel_depth >= MAX_TUNNEL_DEPTH:
            self.notes.drop(layer, np.ones(len(protocol), dtype=bool), "tunnel_too_deep")
            return
        uid_seeds = mix(addresses.pair())
        tunnel_parent = -2 - self.tunnel_count - np.arange(len(uid_seeds))
        self.tunnels.append(uid_seeds)
        self.tunnel_count += len(uid_seeds)
        layer = layer._replace(tunnel_parent=tunnel_parent)
        is_gre = protocol == GRE
        version = self.reader.u8(layer.offset) >> 4
        is_plain = (
            ~is_gre
            & holds_exactly_one_ip_packet(self.reader, layer)
            & ((version == 4) == (protocol == IP_IN_IP))
        )
        self.notes.reject(layer, ~is_gre & ~is_plain, "bad_inner_ip")
        self.queue.append(_IpPackets(layer.keep(is_plain), work.tunnel_depth + 1, IP_IN_IP))
        if is_gre.any():
            inside, link = gre(self.reader, layer.keep(is_gre))
            self.notes.drop(inside, link == NO_LINK, "gre")
            self._queue_inner_packets(inside, link, work.tunnel_depth + 1, GRE)

    def _queue_inner_packets(
        self, inside: Layer, link_type: Int64s, tunnel_depth: int, tunnel_kind: int
    ) -> None:
        """Goes on with packets inside tunnels from their link layer."""
        for kind in np.unique(link_type[link_type != NO_LINK]).tolist():
            layers = (
                ip_layers_of_link(self.notes, kind, inside.keep(link_type == kind))
                if kind != RAW
                else [inside.keep(link_type == RAW)]
            )
            self.queue.extend(_IpPackets(layer, tunnel_depth, tunnel_kind) for layer in layers)

    def _find_udp_tunnels(self, work: _IpPackets, part: Packets, layer: Layer, rows: Bytes) -> None:
        """UDP packets that may be tunnels: those inside, and what the packets prove about their
        connections.
        """
        is_candidate = (part.protocol == UDP) & ~part.has_bad_checksum
        if not is_candidate.any():
            return
        candidates = np.flatnonzero(is_candidate)
        port = self._responder_ports(part, candidates)
        kind = suspected_tunnels(
            port, column(rows[candidates], 8, ">u4"), layer.captured[candidates] - 8
        )
        is_suspect = kind != NONE
        if not is_suspect.any():
            return
        candidates, port, kind = candidates[is_suspect], port[is_suspect], kind[is_suspect]
        data = Layer(*(values[candidates] for values in layer)).skip(8)
        is_guessed = (KIND_OF_PORT[port] == NONE) & (kind == TEREDO)
        kind[is_guessed & ~looks_like_teredo(self.reader, data)] = NONE
        for tunnel_kind in [
            each for each in np.flatnonzero(np.bincount(kind)).tolist() if each != NONE
        ]:
            is_kind = kind == tunnel_kind
            self._unwrap_udp_tunnel(
                work,
                part,
                tunnel_kind,
                candidates[is_kind],
                data.keep(is_kind)._replace(tunnel_parent=self.packet_count + candidates[is_kind]),
            )

    def _responder_ports(self, part: Packets, candidates: Int64s) -> Int64s:
        """The responder's port as Zeek sees it; of two servers that is whom the first packet
        went to.
        """
        source, destination = part.source_port[candidates], part.destination_port[candidates]
        serves = LIKELY_SERVER[source]
        port = np.where(serves & ~LIKELY_SERVER[destination], source, destination)
        between_servers = (
            serves
            & LIKELY_SERVER[destination]
            & (KIND_OF_PORT[source] != KIND_OF_PORT[destination])
        )
        for index in np.flatnonzero(between_servers).tolist():
            known = self.decoder.responder_ports
            if len(known) > MAX_REMEMBERED:
                known.clear()
            key = _connection_key(part, int(candidates[index]))
            port[index] = known.setdefault(key, int(destination[index]))
        return port

    def _unwrap_udp_tunnel(
        self, work: _IpPackets, part: Packets, kind: int, candidates: Int64s, data: Layer
    ) -> None:
        """Packets of one kind of tunnel, at their UDP payload."""
        if work.tunnel_depth >= MAX_TUNNEL_DEPTH:
            self.notes.unhandled["tunnel_too_deep"] += len(candidates)
            part.tunnel_kind[candidates] = TOO_DEEP if kind != GTP else NONE
            return
        inside = PARSERS[kind](self.reader, data)
        is_confirmed, contradicts, link_type = (
            inside.is_confirmed,
            inside.contradicts,
            inside.link_type,
        )
        if kind == GTP and work.tunnel_kind == GTP:
            contradicts, link_type = (
                np.ones(len(candidates), dtype=bool),
                np.full(len(candidates), NO_LINK),
            )
            is_confirmed = ~contradicts
        if contradicts.any() or self.decoder.not_tunnels:
            is_trusted = self._is_trusted(part, candidates, contradicts)
            is_confirmed = is_confirmed & is_trusted
            if kind != GTP:
                link_type = np.where(is_trusted, link_type, NO_LINK)
        part.tunnel_kind[candidates[is_confirmed]] = kind
        self._queue_inner_packets(inside.layer, link_type, work.tunnel_depth + 1, kind)

    def _is_trusted(self, part: Packets, candidates: Int64s, contradicts: Bools) -> Bools:
        """Which packets belong to connections none of whose packets so far contradicted the
        tunnel.
        """
        not_tunnels, is_trusted = self.decoder.not_tunnels, ~contradicts
        for index, packet in enumerate(candidates.tolist()):
            key, now = _connection_key(part, packet), int(part.time[packet])
            if now - not_tunnels.get(key, now) >= FORGET_AFTER_US:
                del not_tunnels[key]
            if key in not_tunnels or contradicts[index]:
                not_tunnels[key] = now
                is_trusted[index] = False
        while len(not_tunnels) > MAX_REMEMBERED:
            del not_tunnels[next(iter(not_tunnels))]
        return is_trusted


def _connection_key(part: Packets, packet: int) -> int:
    """A number for the two ends of a UDP packet, whichever sent it."""
    ends = [
        (int(high[packet]), int(low[packet]), int(port[packet]))
        for (high, low), port in (
            (part.source, part.source_port),
            (part.destination, part.destination_port),
        )
    ]
    return hash((min(ends), max(ends)))


_MIN_TRANSPORT_BYTES = np.zeros(256, dtype=np.int64)
_MIN_TRANSPORT_BYTES[[TCP, UDP, ICMP, ICMP6]] = 20, 8, 8, 8

_HAS_PORTS = np.zeros(256, dtype=bool)
_HAS_PORTS[[TCP, UDP]] = True


def _apply_extension_address(
    addresses: _Addresses, index: int, header: bytes, routing: bool, routed: set[int]
) -> None:
    """Takes the final target from a routing header (types 0 and 2), the home address from
    destination options.
    """
    if routing:
        kind, left, size = header[2], header[3], header[1]
        is_known = (kind == 0 and size >= 2 and size % 2 == 0) or (kind == 2 and size == 2)
        if left and is_known and index not in routed:
            routed.add(index)
            _replace_address(addresses.target, index, header[-16:])
        return
    offset = 2
    while offset < len(header):
        if header[offset] == 0:
            offset += 1
            continue
        if offset + 2 > len(header) or offset + 2 + header[offset + 1] > len(header):
            return
        if header[offset] == HOME_ADDRESS and header[offset + 1] == 16:
            _replace_address(addresses.source, index, header[offset + 2 : offset + 18])
            return
        offset += 2 + header[offset + 1]


def _replace_address(address: tuple[UInt64s, UInt64s], index: int, value: bytes) -> None:
    address[0][index], address[1][index] = (
        int.from_bytes(value[:8], "big"),
        int.from_bytes(value[8:], "big"),
    )


def _icmp_ports(
    rows: Bytes, protocol: Int64s, is_icmp: Bools, source_port: Int64s, destination_port: Int64s
) -> tuple[Int64s, Int64s, Bools]:
    """Type and counterpart as ports, code where there is no counterpart; the third says where."""
    icmp = np.flatnonzero(is_icmp)
    kind, code = rows[icmp, 0], rows[icmp, 1]
    answer = _ANSWERS[(protocol[icmp] == ICMP6).astype(np.int64), kind]
    one_way = np.zeros(len(protocol), dtype=bool)
    one_way[icmp] = answer < 0
    source_port[icmp], destination_port[icmp] = kind, np.where(answer < 0, code, answer)
    return source_port, destination_port, one_way


_ANSWERS = icmp.answer_table()


def _join_parts(chunk: _ChunkDecoder) -> Packets:
    """The parts in the capture's order, whatever a packet carried behind it."""
    parts = [part for part in chunk.parts if len(part)]
    if len(parts) == 1:
        return replace(parts[0], data=chunk.reader.data)
    none, halves = (
        np.zeros(0, dtype=np.int64),
        (np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)),
    )
    columns: dict[str, Any] = dict.fromkeys(PACKET_COLUMNS, none)
    columns |= dict.fromkeys(("is_one_way", "has_bad_checksum"), np.zeros(0, dtype=bool))
    columns |= {"source": halves, "destination": halves}
    if parts:
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in PACKET_COLUMNS
        }
        for name in ("source", "destination"):
            columns[name] = tuple(
                np.concatenate([getattr(part, name)[half] for part in parts]) for half in (0, 1)
            )
    whole = Packets(
        **columns, data=chunk.reader.data, arrivals=chunk.arrivals, first_number=chunk.chunk.first
    )
    order = np.argsort(whole.number, kind="stable")
    whole = select_packets(whole, order)
    inside = np.flatnonzero(whole.tunnel_parent >= 0)
    if len(inside):
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        whole.tunnel_parent[inside] = place[whole.tunnel_parent[inside]]
    return whole
