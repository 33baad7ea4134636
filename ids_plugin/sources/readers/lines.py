"""Cuts a byte stream into chunks of whole lines, in bounded memory however long a line is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

LONGEST_LINE = 1 << 20
"""Bytes; a longer line is no log record. The longest conn records seen are below 4 KiB."""
HEAD = 1 << 16
"""Bytes of an input looked at before it is read: its kind and its units."""
SHOWN_BYTES = 200
"""Bytes kept of a line that is too long: what a reject may show."""


class Chunk(NamedTuple):
    """Whole lines; the last line of a stream may lack its newline."""

    data: bytes
    first: int
    """number of the first line, counted from 1"""
    lines: int


class TooLong(NamedTuple):
    """A line longer than LONGEST_LINE; the rest of it is gone."""

    start: bytes
    line: int
    size: int


def chunks(stream: BinaryIO, size: int) -> Iterator[Chunk | TooLong]:
    """Lines of `stream` in chunks of about `size` bytes; holds little more than `size` +
    LONGEST_LINE bytes."""
    rest, line = b"", 1
    while block := stream.read(size):
        while True:
            cut = block.rfind(b"\n") + 1
            for piece in _pieces(b"".join((rest, memoryview(block)[:cut])) if cut else b"", line):
                yield piece
                line += 1 if isinstance(piece, TooLong) else piece.lines
            rest = block[cut:] if cut else rest + block
            if len(rest) <= LONGEST_LINE:
                break
            start = rest[:SHOWN_BYTES]
            length, block = _skip(stream, len(rest))
            yield TooLong(start, line, length)
            rest, line = b"", line + 1
    yield from _pieces(rest, line)


def whole_lines(head: bytes) -> Chunk:
    """The whole lines of an input's first HEAD bytes; an input shorter than that is whole."""
    end = len(head) if len(head) < HEAD else head.rfind(b"\n") + 1
    return _chunk(head[:end], 1)


def _skip(stream: BinaryIO, seen: int) -> tuple[int, bytes]:
    """Reads on to the end of a line of which `seen` bytes are known: its size, and what follows
    it."""
    while block := stream.read(LONGEST_LINE):
        end = block.find(b"\n")
        if end >= 0:
            return seen + end, block[end + 1 :]
        seen += len(block)
    return seen, b""


def _pieces(data: bytes, line: int) -> Iterator[Chunk | TooLong]:
    """`data` as one chunk, or cut around the lines in it that are too long."""
    if not data:
        return
    step = LONGEST_LINE // 2
    if all(
        data.find(b"\n", position, position + step) >= 0
        for position in range(0, len(data) - step, step)
    ):
        yield _chunk(data, line)
        return
    start = position = 0
    first = line
    while position < len(data):
        end = data.find(b"\n", position) + 1 or len(data)
        if end - position > LONGEST_LINE:
            if position > start:
                yield _chunk(data[start:position], first)
            yield TooLong(data[position : position + SHOWN_BYTES], line, end - position - 1)
            start, first = end, line + 1
        position, line = end, line + 1
    if position > start:
        yield _chunk(data[start:position], first)


def _chunk(data: bytes, first: int) -> Chunk:
    return Chunk(data, first, count(data, b"\n") + (not data.endswith(b"\n")))


def count(data: bytes, byte: bytes) -> int:
    """How often a byte occurs; three times as fast as bytes.count."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord(byte)))
