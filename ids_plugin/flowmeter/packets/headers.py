"""Packets under way through their headers: where each is, what is left of it, and what becomes
of those left out.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.packets.capture_files import HEAD_BYTES, PADDING_BYTES, Chunk, byte_rows

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

ENDED_BLOCKS = 64
"""Bytes of a rejected packet that are kept for a person to look at."""


class Layer(NamedTuple):
    """Packets at one of their headers; arrays of n."""

    row: Int64s
    """index in the chunk"""
    offset: Int64s
    """where the header begins in the data"""
    captured: Int64s
    """captured bytes from there on"""
    length: Int64s
    """bytes of the whole packet from there on, also of those not captured"""
    tunnel_parent: Int64s
    """the tunnel they came out of, as `Packets.parent`"""

    def keep(self, mask: Bools) -> Layer:
        """The packets of the mask."""
        if mask.all():
            return self
        return Layer(*(column[mask] for column in self))

    def skip(self, count: Int64s | int) -> Layer:
        """The packets `packet_count` bytes further on."""
        return Layer(
            self.row,
            self.offset + count,
            self.captured - count,
            self.length - count,
            self.tunnel_parent,
        )


class Reader:
    """Big-endian fields at many offsets of one byte array; offsets outside give bytes of no
    meaning.
    """

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.last_offset = len(data) - PADDING_BYTES
        self._room = data
        """what `data` is a part of"""

    @property
    def end(self) -> int:
        """Where the bytes end and padding begins."""
        return self.last_offset

    def append(self, data: bytes | bytearray) -> None:
        """Puts bytes behind the others; what is there is copied only where room runs out."""
        begin, end = self.end, self.end + len(data)
        if self._room is self.data or end + PADDING_BYTES > len(self._room):
            room = np.zeros(begin + 2 * (len(data) + begin // 8) + PADDING_BYTES, dtype=np.uint8)
            room[:begin] = self.data[:begin]
            self._room = room
        self._room[begin:end] = np.frombuffer(data, dtype=np.uint8)
        self._room[end : end + PADDING_BYTES] = 0
        self.data, self.last_offset = self._room[: end + PADDING_BYTES], end

    def rows(self, offsets: Int64s, width: int) -> Bytes:
        """(n, width) bytes from each offset, at most PADDING."""
        return byte_rows(self.data, np.minimum(offsets, self.last_offset), width)

    def u8(self, offsets: Int64s) -> Int64s:
        """Bytes at each offset."""
        return self.data[np.clip(offsets, 0, self.last_offset)].astype(np.int64)

    def u16(self, offsets: Int64s) -> Int64s:
        """16-bit integers at each offset."""
        pairs = byte_rows(self.data, np.clip(offsets, 0, self.last_offset), 2)
        return pairs.view(">u2").ravel().astype(np.int64)

    def bytes(self, offset: int, count: int) -> bytes:
        """Bytes of one packet."""
        return self.data[offset : offset + count].tobytes()


def column(rows: Bytes, start: int, kind: str) -> Int64s:
    """Big-endian integers of type `kind` at the same place of every row."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    values: Int64s = (
        rows[:, start : start + np.dtype(kind).itemsize].view(kind)[:, 0].astype(np.int64)
    )
    return values


class BadHeader(NamedTuple):
    """A packet whose headers can't be believed, or that can't be used as a whole."""

    number: int
    reason: str
    data: bytes


class DecodingNotes:
    """One chunk on its way through the layers: its bytes, and who was left out where."""

    def __init__(self, chunk: Chunk, named: set[str]) -> None:
        self.chunk = chunk
        self.located_kinds = named
        """kinds of packets whose first was located before"""
        self.reader = Reader(chunk.data)
        self.unhandled: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        """packets that are measured, and what is odd about them"""
        self.bad_headers: list[BadHeader] = []
        self.all_rows = np.arange(len(chunk.offset))

    def header_rows(self, layer: Layer, width: int) -> Bytes:
        """(n, width) bytes from each packet's header on, at most PADDING; to be read only."""
        header_offsets, packet_offsets = layer.offset, self.chunk.offset
        if layer.row is not self.all_rows:
            packet_offsets = packet_offsets[layer.row]
        depth = int(header_offsets[0] - packet_offsets[0]) if len(header_offsets) else HEAD_BYTES
        if 0 <= depth <= HEAD_BYTES - width and (header_offsets - packet_offsets == depth).all():
            heads = self.chunk.heads if layer.row is self.all_rows else self.chunk.heads[layer.row]
            return heads[:, depth : depth + width]
        return self.reader.rows(header_offsets, width)

    def note_bad(self, row: int, reason: str) -> None:
        """Notes one packet, by index in the chunk, as bad."""
        start = int(self.chunk.offset[row])
        head = self.reader.bytes(start, min(ENDED_BLOCKS, int(self.chunk.captured[row])))
        self.bad_headers.append(BadHeader(self.chunk.first + row, reason, head))

    def reject(self, layer: Layer, mask: Bools, reason: str) -> Layer:
        """Notes the packets of `mask` as bad; the others."""
        if not mask.any():
            return layer
        for row in layer.row[mask].tolist():
            self.note_bad(row, reason)
        return layer.keep(~mask)

    def drop(self, layer: Layer, mask: Bools, kind: str, *, locate: bool = False) -> Layer:
        """Counts the packets of `mask` as nothing we measure, the capture's first located if
        asked for; the others.
        """
        if not mask.any():
            return layer
        if locate and kind not in self.located_kinds:
            self.located_kinds.add(kind)
            self.note_bad(int(layer.row[np.argmax(mask)]), kind)
        self.unhandled[kind] += int(mask.sum())
        return layer.keep(~mask)
