"""Cuts a byte stream into chunks of whole lines, in bounded memory however long a line is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

LONGEST_LINE = 1 << 20
"""Bytes; a longer line is no log record. The longest conn records seen are below 4 KiB."""
KEPT = 200
"""Bytes kept of a line that is too long: what a reject may show."""


class Chunk(NamedTuple):
    """Whole lines; the last line of a stream may lack its newline."""

    data: bytes
    first: int
    """number of the first line, counted from 1"""


class TooLong(NamedTuple):
    """A line longer than LONGEST_LINE; the rest of it is gone."""

    start: bytes
    line: int
    size: int


def chunks(stream: BinaryIO, size: int) -> Iterator[Chunk | TooLong]:
    """Lines of `stream` in chunks of about `size` bytes; holds little more than `size` + LONGEST_LINE bytes."""
    rest, line = b"", 1
    while block := stream.read(size):
        rest += block
        while True:
            cut = rest.rfind(b"\n") + 1
            for piece in _pieces(rest[:cut], line):
                yield piece
                line += 1 if isinstance(piece, TooLong) else piece.data.count(b"\n")
            rest = rest[cut:]
            if len(rest) <= LONGEST_LINE:
                break
            start = rest[:KEPT]
            length, rest = _skip(stream, len(rest))
            yield TooLong(start, line, length)
            line += 1
    yield from _pieces(rest, line)


def _skip(stream: BinaryIO, seen: int) -> tuple[int, bytes]:
    """Reads on to the end of a line of which `seen` bytes are known: its size, and what follows it."""
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
    if all(data.find(b"\n", at, at + step) >= 0 for at in range(0, len(data) - step, step)):
        yield Chunk(data, line)
        return
    start = at = 0
    first = line
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        if end - at > LONGEST_LINE:
            if at > start:
                yield Chunk(data[start:at], first)
            yield TooLong(data[at : at + KEPT], line, end - at - 1)
            start, first = end, line + 1
        at, line = end, line + 1
    if at > start:
        yield Chunk(data[start:at], first)
