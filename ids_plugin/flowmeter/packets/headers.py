"""Packets under way through their headers: where each is, what is left of it, and what becomes of those left out."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.packets.capture_files import HEAD, PADDING, Chunk, stretches

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
    at: Int64s
    """where the header begins in the data"""
    captured: Int64s
    """captured bytes from there on"""
    length: Int64s
    """bytes from there on that were on the wire"""
    parent: Int64s
    """the tunnel they came out of, as `Packets.parent`"""

    def keep(self, mask: Bools) -> Layer:
        """The packets of the mask."""
        if mask.all():
            return self
        return Layer(*(column[mask] for column in self))

    def skip(self, count: Int64s | int) -> Layer:
        """The packets `count` bytes further on."""
        return Layer(
            self.row, self.at + count, self.captured - count, self.length - count, self.parent
        )


class Reader:
    """Big-endian fields at many offsets of one byte array; offsets outside give bytes of no meaning."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.limit = len(data) - PADDING

    def rows(self, at: Int64s, width: int) -> Bytes:
        """(n, width) bytes from each offset, at most PADDING."""
        return stretches(self.data, np.minimum(at, self.limit), width)

    def u8(self, at: Int64s) -> Int64s:
        """Bytes at each offset."""
        return self.data[np.clip(at, 0, self.limit)].astype(np.int64)

    def u16(self, at: Int64s) -> Int64s:
        """16-bit integers at each offset."""
        pairs = stretches(self.data, np.clip(at, 0, self.limit), 2)
        return pairs.view(">u2").ravel().astype(np.int64)

    def bytes(self, at: int, count: int) -> bytes:
        """Bytes of one packet."""
        return self.data[at : at + count].tobytes()


def column(rows: Bytes, start: int, kind: str) -> Int64s:
    """Big-endian integers of type `kind` at the same place of every row."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    found: Int64s = (
        rows[:, start : start + np.dtype(kind).itemsize].view(kind)[:, 0].astype(np.int64)
    )
    return found


class Bad(NamedTuple):
    """A packet whose headers can't be believed, or that can't be used as a whole."""

    number: int
    reason: str
    data: bytes


class Notes:
    """One chunk on its way through the layers: its bytes, and who was left out where."""

    def __init__(self, chunk: Chunk, named: set[str]) -> None:
        self.chunk = chunk
        self.named = named
        """kinds of packets whose first was located before"""
        self.read = Reader(chunk.data)
        self.unhandled: Counter[str] = Counter()
        self.bad: list[Bad] = []
        self.all = np.arange(len(chunk.offset))

    def rows(self, layer: Layer, width: int) -> Bytes:
        """(n, width) bytes from each packet's header on, at most PADDING; to be read only."""
        at, offset = layer.at, self.chunk.offset
        if layer.row is not self.all:
            offset = offset[layer.row]
        depth = int(at[0] - offset[0]) if len(at) else HEAD
        if 0 <= depth <= HEAD - width and (at - offset == depth).all():
            heads = self.chunk.heads if layer.row is self.all else self.chunk.heads[layer.row]
            return heads[:, depth : depth + width]
        return self.read.rows(at, width)

    def blame(self, row: int, reason: str) -> None:
        """Notes one packet, by index in the chunk, as bad."""
        start = int(self.chunk.offset[row])
        head = self.read.bytes(start, min(ENDED_BLOCKS, int(self.chunk.captured[row])))
        self.bad.append(Bad(self.chunk.first + row, reason, head))

    def reject(self, layer: Layer, mask: Bools, reason: str) -> Layer:
        """Notes the packets of `mask` as bad; the others."""
        if not mask.any():
            return layer
        for row in layer.row[mask].tolist():
            self.blame(row, reason)
        return layer.keep(~mask)

    def drop(self, layer: Layer, mask: Bools, kind: str, *, locate: bool = False) -> Layer:
        """Counts the packets of `mask` as nothing we measure, the capture's first located if asked for; the others."""
        if not mask.any():
            return layer
        if locate and kind not in self.named:
            self.named.add(kind)
            self.blame(int(layer.row[np.argmax(mask)]), kind)
        self.unhandled[kind] += int(mask.sum())
        return layer.keep(~mask)
