"""IP fragments put together, as Zeek's reassembler does: what came first stays, oddities are named.

A datagram is complete when its bytes are there without a hole up to the end that its last fragment names. Fragments of
one datagram share the addresses and the identification (RFC 791, RFC 8200).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import NamedTuple

MIN_GROWTH_ROWS, LARGEST = 64, 64_000
"""Bytes of a fragment that is not the last, and of a datagram, beyond which Zeek finds them odd."""
MOST_BYTES = 16 << 20
MOST_DATAGRAMS = 1 << 14
"""What incomplete datagrams may hold together; beyond it the oldest is given up."""
LONGEST = 65_535
SECURED = 51
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
    size: int = 0
    """payload bytes of the whole; 0 while no last fragment came"""
    blocks: list[tuple[int, bytes]] = field(default_factory=list)
    """(offset, bytes) in order, none overlapping"""
    held: int = 0
    """bytes of them"""


class Fragments:
    """Incomplete datagrams of a capture."""

    def __init__(self, most_bytes: int = MOST_BYTES, most_datagrams: int = MOST_DATAGRAMS) -> None:
        self.most_bytes, self.most_datagrams = most_bytes, most_datagrams
        self.waiting: dict[Key, _Incomplete] = {}
        self.held = 0
        self.given_up = 0
        """fragmented datagrams dropped for want of room"""

    def add(self, fragment: Fragment) -> tuple[bytes | None, list[str]]:
        """The datagram that this fragment completes, under the headers of the one that came first; what is odd."""
        odd: list[str] = []
        found = self.waiting.get(fragment.key)
        if found is None:
            found = self.waiting[fragment.key] = _Incomplete(fragment.header, fragment.protocol)
        elif fragment.protocol != found.protocol or len(fragment.header) != len(found.header):
            odd.append("fragment_protocol_inconsistency")
        if fragment.offset == 0:
            found.protocol = fragment.protocol
        self.held -= found.held
        odd += _measure(found, fragment)
        odd += _insert(found, fragment.offset, fragment.payload)
        payload = _all_columns(found, odd)
        if payload is not None:
            del self.waiting[fragment.key]
            return _datagram(found, payload), odd
        self.held += found.held
        self._make_room()
        return None, odd

    def _make_room(self) -> None:
        while self.held > self.most_bytes or len(self.waiting) > self.most_datagrams:
            oldest = next(iter(self.waiting))
            self.held -= self.waiting.pop(oldest).held
            self.given_up += 1


def _measure(found: _Incomplete, fragment: Fragment) -> list[str]:
    """Takes the size that a fragment implies into account."""
    odd = []
    upper = fragment.offset + len(fragment.payload)
    if not fragment.more and found.size == 0:
        found.size = upper
    elif fragment.more and fragment.total < MIN_GROWTH_ROWS:
        odd.append("excessively_small_fragment")
    if upper > LARGEST:
        odd.append("excessively_large_fragment")
    if found.size and (upper > found.size or (not fragment.more and upper < found.size)):
        odd.append("fragment_size_inconsistency")
        found.size = max(found.size, upper)
    return odd


def _insert(found: _Incomplete, offset: int, data: bytes) -> list[str]:
    """Puts in those bytes of `data` that aren't there yet."""
    odd: set[str] = set()
    pieces: list[tuple[int, bytes]] = []
    first = max(bisect_left(found.blocks, (offset,)) - 1, 0)
    for begin, held in found.blocks[first:]:
        end, upper = begin + len(held), offset + len(data)
        if begin >= upper or not data:
            break
        if end <= offset:
            continue
        low, high = max(begin, offset), min(end, upper)
        same = held[low - begin : high - begin] == data[low - offset : high - offset]
        odd.add("fragment_overlap" if same else "fragment_inconsistency")
        if offset < begin:
            pieces.append((offset, data[: begin - offset]))
        data, offset = data[end - offset :], end
    for piece in (*pieces, (offset, data)):
        if piece[1]:
            insort(found.blocks, piece)
            found.held += len(piece[1])
    return sorted(odd)


def _all_columns(found: _Incomplete, odd: list[str]) -> bytes | None:
    """The payload, if nothing is missing; what lies beyond a hole behind the end is left out."""
    if not found.size or found.held < found.size or found.blocks[0][0] > 0:
        return None
    upper, used = 0, 0
    for begin, data in found.blocks:
        if begin > upper:
            break
        upper, used = begin + len(data), used + 1
    if upper < found.size:
        return None
    if upper > found.size and "fragment_size_inconsistency" not in odd:
        odd.append("fragment_size_inconsistency")
    return b"".join(data for _, data in found.blocks[:used])


def _datagram(found: _Incomplete, payload: bytes) -> bytes:
    """The packet that was fragmented, longer than its header can say where the fragments made it so."""
    header = bytearray(found.header)
    total = len(header) + len(payload)
    if header[0] >> 4 == 4:
        header[2:4], header[6:8], header[10:12] = (
            (total & LONGEST).to_bytes(2, "big"),
            b"\0\0",
            b"\0\0",
        )
        words = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2))
        header[10:12] = (LONGEST - words % LONGEST).to_bytes(2, "big")
        return bytes(header) + payload
    header[4:6] = (total - 40 & LONGEST).to_bytes(2, "big")
    place, following, at = 6, header[6], 40
    while at < len(header):
        place, size = at, header[at + 1]
        at += size * 4 + 8 if following == SECURED else size * 8 + 8
        following = header[place]
    header[place] = found.protocol
    return bytes(header) + payload
