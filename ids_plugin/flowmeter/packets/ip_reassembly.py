"""IP fragments put together, as Zeek's reassembler does: what came first stays, oddities are named.

A datagram is complete when its bytes are there without a hole up to the end that its last fragment
names. Fragments of one datagram share the addresses and the identification (RFC 791, RFC 8200).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import NamedTuple

MIN_GROWTH_ROWS, MAX_DATAGRAM_BYTES = 64, 64_000
"""Bytes of a fragment that is not the last, and of a datagram, beyond which Zeek finds them odd."""
MAX_HELD_BYTES = 16 << 20
MAX_DATAGRAMS = 1 << 14
"""What incomplete datagrams may hold together; beyond it the oldest is given up."""
MAX_IP_BYTES = 65_535
AUTHENTICATION = 51
"""IPv6's authentication header, whose length counts in words of four bytes."""

Key = tuple[bytes, int]
"""Both addresses and the identification."""


class Fragment(NamedTuple):
    """One fragment and what its headers say."""

    key: Key
    header: bytes
    """the headers that every fragment has"""
    protocol: int
    """what the datagram carries"""
    offset: int
    more: bool
    payload: bytes
    total: int
    """IP bytes of the fragment"""


@dataclass
class _Incomplete:
    header: bytes
    protocol: int
    total_bytes: int = 0
    """payload bytes of the whole; 0 while no last fragment came"""
    blocks: list[tuple[int, bytes]] = field(default_factory=list)
    """(offset, bytes) in order, none overlapping"""
    held_bytes: int = 0
    """bytes of them"""


class Fragments:
    """Incomplete datagrams of a capture."""

    def __init__(
        self, most_bytes: int = MAX_HELD_BYTES, most_datagrams: int = MAX_DATAGRAMS
    ) -> None:
        self.most_bytes, self.most_datagrams = most_bytes, most_datagrams
        self.incomplete: dict[Key, _Incomplete] = {}
        self.held_bytes = 0
        self.given_up = 0
        """fragmented datagrams dropped for want of room"""

    def add(self, fragment: Fragment) -> tuple[bytes | None, list[str]]:
        """The datagram that this fragment completes, under the headers of the one that came
        first; what is odd.
        """
        oddities: list[str] = []
        datagram = self.incomplete.get(fragment.key)
        if datagram is None:
            datagram = self.incomplete[fragment.key] = _Incomplete(
                fragment.header, fragment.protocol
            )
        elif fragment.protocol != datagram.protocol or len(fragment.header) != len(datagram.header):
            oddities.append("fragment_protocol_inconsistency")
        if fragment.offset == 0:
            datagram.protocol = fragment.protocol
        self.held_bytes -= datagram.held_bytes
        oddities += _note_size(datagram, fragment)
        oddities += _insert_payload(datagram, fragment.offset, fragment.payload)
        payload = _all_columns(datagram, oddities)
        if payload is not None:
            del self.incomplete[fragment.key]
            return _build_datagram(datagram, payload), oddities
        self.held_bytes += datagram.held_bytes
        self._make_room()
        return None, oddities

    def _make_room(self) -> None:
        while self.held_bytes > self.most_bytes or len(self.incomplete) > self.most_datagrams:
            oldest = next(iter(self.incomplete))
            self.held_bytes -= self.incomplete.pop(oldest).held_bytes
            self.given_up += 1


def _note_size(datagram: _Incomplete, fragment: Fragment) -> list[str]:
    """Takes the size that a fragment implies into account."""
    oddities = []
    upper = fragment.offset + len(fragment.payload)
    if not fragment.more and datagram.total_bytes == 0:
        datagram.total_bytes = upper
    elif fragment.more and fragment.total < MIN_GROWTH_ROWS:
        oddities.append("excessively_small_fragment")
    if upper > MAX_DATAGRAM_BYTES:
        oddities.append("excessively_large_fragment")
    if datagram.total_bytes and (
        upper > datagram.total_bytes or (not fragment.more and upper < datagram.total_bytes)
    ):
        oddities.append("fragment_size_inconsistency")
        datagram.total_bytes = max(datagram.total_bytes, upper)
    return oddities


def _insert_payload(datagram: _Incomplete, offset: int, data: bytes) -> list[str]:
    """Puts in those bytes of `data` that aren't there yet."""
    oddities: set[str] = set()
    pieces: list[tuple[int, bytes]] = []
    first = max(bisect_left(datagram.blocks, (offset,)) - 1, 0)
    for block_begin, held_bytes in datagram.blocks[first:]:
        end, upper = block_begin + len(held_bytes), offset + len(data)
        if block_begin >= upper or not data:
            break
        if end <= offset:
            continue
        low, high = max(block_begin, offset), min(end, upper)
        same = (
            held_bytes[low - block_begin : high - block_begin] == data[low - offset : high - offset]
        )
        oddities.add("fragment_overlap" if same else "fragment_inconsistency")
        if offset < block_begin:
            pieces.append((offset, data[: block_begin - offset]))
        data, offset = data[end - offset :], end
    for piece in (*pieces, (offset, data)):
        if piece[1]:
            insort(datagram.blocks, piece)
            datagram.held_bytes += len(piece[1])
    return sorted(oddities)


def _all_columns(datagram: _Incomplete, oddities: list[str]) -> bytes | None:
    """The payload, if nothing is missing; what lies beyond a hole behind the end is left out."""
    if (
        not datagram.total_bytes
        or datagram.held_bytes < datagram.total_bytes
        or datagram.blocks[0][0] > 0
    ):
        return None
    upper, used = 0, 0
    for begin, data in datagram.blocks:
        if begin > upper:
            break
        upper, used = begin + len(data), used + 1
    if upper < datagram.total_bytes:
        return None
    if upper > datagram.total_bytes and "fragment_size_inconsistency" not in oddities:
        oddities.append("fragment_size_inconsistency")
    return b"".join(data for _, data in datagram.blocks[:used])


def _build_datagram(datagram: _Incomplete, payload: bytes) -> bytes:
    """The packet that was fragmented, longer than its header can say where the fragments made it
    so.
    """
    header = bytearray(datagram.header)
    total = len(header) + len(payload)
    if header[0] >> 4 == 4:
        header[2:4], header[6:8], header[10:12] = (
            (total & MAX_IP_BYTES).to_bytes(2, "big"),
            b"\0\0",
            b"\0\0",
        )
        words = sum(
            int.from_bytes(header[offset : offset + 2], "big")
            for offset in range(0, len(header), 2)
        )
        header[10:12] = (MAX_IP_BYTES - words % MAX_IP_BYTES).to_bytes(2, "big")
        return bytes(header) + payload
    header[4:6] = (total - 40 & MAX_IP_BYTES).to_bytes(2, "big")
    next_header_offset, following, offset = 6, header[6], 40
    while offset < len(header):
        next_header_offset, size = offset, header[offset + 1]
        offset += size * 4 + 8 if following == AUTHENTICATION else size * 8 + 8
        following = header[next_header_offset]
    header[next_header_offset] = datagram.protocol
    return bytes(header) + payload
