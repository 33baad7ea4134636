"""Capture files cut into packets: pcap and pcapng framing, without looking into a packet.

Formats: https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/ and draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.errors import InputError

CHUNK = 8 << 20
"""Bytes read at a time: small enough that everything derived from a chunk stays in tens of megabytes."""
MAX_PACKET = 1 << 20
"""Longer records are taken for damage; four times the largest snapshot length tools write (262,144)."""
MAX_BLOCK = 32 << 20
"""Longest pcapng block that isn't a packet (name tables, decryption secrets) worth skipping over."""

PCAP_MAGICS = {b"\xa1\xb2\xc3\xd4": (">", 1000), b"\xd4\xc3\xb2\xa1": ("<", 1000)}
PCAP_MAGICS |= {b"\xa1\xb2\x3c\x4d": (">", 1), b"\x4d\x3c\xb2\xa1": ("<", 1)}
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class Damage(NamedTuple):
    """A stretch of a capture that isn't a packet, or a packet that is cut."""

    packet: int
    """number (from 1) of the packet it is, or before which it stands"""
    reason: str
    detail: str
    data: bytes


@dataclass
class Chunk:
    """Packets of one piece of a capture; the arrays have one element a packet."""

    data: Bytes
    """the bytes the offsets point into"""
    offset: Int64s
    """where the packet's first captured byte is"""
    captured: Int64s
    """captured bytes"""
    length: Int64s
    """bytes the packet had on the wire"""
    time: Int64s
    """ns since the epoch"""
    link: Int64s
    """link type, https://www.tcpdump.org/linktypes.html"""
    first: int
    """number of the first packet, from 1"""
    damage: list[Damage] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    """blocks that hold no packet, by kind"""


def chunks(stream: BinaryIO, chunk_bytes: int = CHUNK) -> Iterator[Chunk]:
    """The packets of a capture, in pieces of about `chunk_bytes`; damage is reported and stepped over where possible.

    Raises:
        InputError: the stream doesn't begin as a capture does.
    """
    head = _read(stream, 24)
    if head[:4] in PCAP_MAGICS and len(head) == 24:
        return _pcap_chunks(stream, head, chunk_bytes)
    if head[:4] == PCAPNG_MAGIC and len(head) >= 12:
        return _pcapng_chunks(stream, head, chunk_bytes)
    raise InputError("not a capture" if head else "empty", hint="pcap and pcapng begin with a magic number")


def _read(stream: BinaryIO, count: int) -> bytes:
    """Up to `count` bytes; fewer only at the end of the stream."""
    parts = []
    while count > 0:
        part = stream.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _pcap_chunks(stream: BinaryIO, head: bytes, chunk_bytes: int) -> Iterator[Chunk]:
    order, nanoseconds = PCAP_MAGICS[head[:4]]
    link = struct.unpack(order + "I", head[20:24])[0] & 0x0FFFFFFF
    number, rest = 1, b""
    while True:
        new = _read(stream, chunk_bytes)
        buffer = rest + new
        ended = len(new) < chunk_bytes
        starts, position, broken = _walk_pcap(buffer, order)
        chunk = _pcap_chunk(buffer, starts, order, nanoseconds, link, number)
        number += len(starts)
        rest = buffer[position:]
        if broken:
            chunk.damage.append(Damage(number, "bad_length", "record length can't be; the rest is unreadable", rest[:64]))
            yield chunk
            return
        if ended and rest:
            cut = _cut_record(rest, order, nanoseconds, link, number)
            chunk.damage.append(Damage(number, "cut_off", f"the file ends {len(rest)} bytes into a record", rest[:64]))
            yield chunk
            if cut is not None:
                yield cut
            return
        if starts or ended:
            yield chunk
        if ended:
            return


def _walk_pcap(buffer: bytes, order: str) -> tuple[list[int], int, bool]:
    """Offsets of the complete records, where the first incomplete one begins, and whether its length can't be."""
    unpack = struct.Struct(order + "I").unpack_from
    starts: list[int] = []
    add = starts.append
    position, last = 0, len(buffer) - 16
    while position <= last:
        captured = unpack(buffer, position + 8)[0]
        if captured > MAX_PACKET:
            return starts, position, True
        following = position + 16 + captured
        if following > last + 16:
            break
        add(position)
        position = following
    return starts, position, False


def _pcap_chunk(buffer: bytes, starts: list[int], order: str, nanoseconds: int, link: int, number: int) -> Chunk:
    data = np.frombuffer(buffer, dtype=np.uint8)
    at = np.array(starts, dtype=np.int64)
    heads = data[at[:, None] + np.arange(16)].view(order + "u4").astype(np.int64) if len(at) else np.zeros((0, 4), np.int64)
    time = heads[:, 0] * 1_000_000_000 + heads[:, 1] * nanoseconds
    links = np.full(len(at), link, dtype=np.int64)
    return Chunk(data, at + 16, heads[:, 2], heads[:, 3], time, links, number)


def _cut_record(rest: bytes, order: str, nanoseconds: int, link: int, number: int) -> Chunk | None:
    """Nothing: a packet the file's end cuts isn't measured, as in Zeek and tcpdump."""
    return None


def _pcapng_chunks(stream: BinaryIO, head: bytes, chunk_bytes: int) -> Iterator[Chunk]:
    walker = _PcapNg()
    rest, ended = head, False
    while not ended:
        new = _read(stream, chunk_bytes)
        ended = len(new) < chunk_bytes
        buffer = rest + new
        chunk, position = walker.walk(buffer, ended)
        rest = buffer[position:]
        yield chunk
        if walker.lost:
            return


class _Interface(NamedTuple):
    link: int
    snaplen: int
    multiplier: int
    divisor: int
    """ns = ticks * multiplier // divisor + offset"""
    offset: int


class _PcapNg:
    """Walks the blocks of a pcapng stream; holds the section's byte order and interfaces between chunks."""

    def __init__(self) -> None:
        self.order = "<"
        self.interfaces: list[_Interface] = []
        self.number = 1
        self.lost = False
        self.skipping = 0

    def walk(self, buffer: bytes, ended: bool) -> tuple[Chunk, int]:
        """Packets of the complete blocks in `buffer`, and where the first incomplete one begins."""
        self.rows: list[tuple[int, int, int, int, int]] = []
        self.damage: list[Damage] = []
        self.skipped: dict[str, int] = {}
        first, position = self.number, 0
        while not self.lost:
            following = self._block(buffer, position)
            if following < 0:
                break
            position = following
        if ended and position < len(buffer) and not self.lost:
            detail = f"the file ends {len(buffer) - position} bytes into a block"
            self.damage.append(Damage(self.number, "cut_off", detail, buffer[position : position + 64]))
            position = len(buffer)
        rows = np.array(self.rows, dtype=np.int64).reshape(-1, 5)
        data = np.frombuffer(buffer, dtype=np.uint8)
        columns = (np.ascontiguousarray(rows[:, i]) for i in range(5))
        return Chunk(data, *columns, first, self.damage, self.skipped), position

    def _block(self, buffer: bytes, position: int) -> int:
        """Reads the block at `position`; the next block's position, or -1 where it isn't complete."""
        if position + 12 > len(buffer):
            return -1
        kind_bytes = buffer[position : position + 4]
        if kind_bytes == PCAPNG_MAGIC:
            magic = buffer[position + 8 : position + 12]
            if magic not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
                return self._give_up(position, buffer, "section header without a byte-order magic")
            self.order = ">" if magic[0] == 0x1A else "<"
            self.interfaces = []
        kind, length = struct.unpack_from(self.order + "II", buffer, position)
        if length < 12 or length % 4 or length > MAX_BLOCK:
            return self._give_up(position, buffer, f"block of {length} bytes; the rest is unreadable")
        end = position + length
        if end > len(buffer):
            return -1
        if struct.unpack_from(self.order + "I", buffer, end - 4)[0] != length:
            self.damage.append(Damage(self.number, "bad_block", "its two lengths differ", buffer[position : position + 64]))
            return end
        self._contents(kind, buffer, position, end)
        return end

    def _give_up(self, position: int, buffer: bytes, detail: str) -> int:
        self.damage.append(Damage(self.number, "bad_block", detail, buffer[position : position + 64]))
        self.lost = True
        return -1

    def _contents(self, kind: int, buffer: bytes, position: int, end: int) -> None:
        if kind == 6:
            self._enhanced(buffer, position, end)
        elif kind == 1:
            self._interface(buffer, position, end)
        elif kind == 3:
            self._simple(buffer, position, end)
        elif kind == 2:
            self._obsolete(buffer, position, end)
        elif kind != 0x0A0D0D0A:
            name = {4: "name_resolution", 5: "statistics", 10: "secrets"}.get(kind, f"block_{kind:#x}")
            self.skipped[name] = self.skipped.get(name, 0) + 1

    def _packet(self, buffer: bytes, at: int, end: int, interface: int, ticks: int | None, sizes: tuple[int, int]) -> None:
        captured, length = sizes
        if interface >= len(self.interfaces):
            detail = f"interface {interface} of {len(self.interfaces)}"
            self.damage.append(Damage(self.number, "bad_block", detail, buffer[at : at + 64]))
        elif at + captured > end - 4:
            detail = f"{captured} captured bytes in a shorter block"
            self.damage.append(Damage(self.number, "bad_block", detail, buffer[at : at + 64]))
        else:
            has = self.interfaces[interface]
            time = 0 if ticks is None else ticks * has.multiplier // has.divisor + has.offset
            time = time if -(1 << 62) < time < 1 << 62 else 0
            self.rows.append((at, captured, length, time, has.link))
        self.number += 1

    def _enhanced(self, buffer: bytes, position: int, end: int) -> None:
        if end - position < 32:
            self.damage.append(Damage(self.number, "bad_block", "packet block too short", buffer[position:end]))
            self.number += 1
            return
        interface, high, low, captured, length = struct.unpack_from(self.order + "5I", buffer, position + 8)
        self._packet(buffer, position + 28, end, interface, high << 32 | low, (captured, length))

    def _obsolete(self, buffer: bytes, position: int, end: int) -> None:
        if end - position < 32:
            self.damage.append(Damage(self.number, "bad_block", "packet block too short", buffer[position:end]))
            self.number += 1
            return
        interface, _, high, low, captured, length = struct.unpack_from(self.order + "2H4I", buffer, position + 8)
        self._packet(buffer, position + 28, end, interface, high << 32 | low, (captured, length))

    def _simple(self, buffer: bytes, position: int, end: int) -> None:
        if end - position < 16:
            self.damage.append(Damage(self.number, "bad_block", "packet block too short", buffer[position:end]))
            self.number += 1
            return
        length = struct.unpack_from(self.order + "I", buffer, position + 8)[0]
        limit = self.interfaces[0].snaplen if self.interfaces and self.interfaces[0].snaplen else length
        captured = min(length, limit, end - 4 - (position + 12))
        self._packet(buffer, position + 12, end, 0, None, (captured, length))

    def _interface(self, buffer: bytes, position: int, end: int) -> None:
        if end - position < 20:
            self.damage.append(Damage(self.number, "bad_block", "interface block too short", buffer[position:end]))
            return
        link, _, snaplen = struct.unpack_from(self.order + "2HI", buffer, position + 8)
        resolution, offset = 6, 0
        at = position + 16
        while at + 4 <= end - 4:
            code, size = struct.unpack_from(self.order + "2H", buffer, at)
            if code == 0 or at + 4 + size > end - 4:
                break
            if code == 9 and size >= 1:
                resolution = buffer[at + 4]
            elif code == 14 and size == 8:
                offset = struct.unpack_from(self.order + "q", buffer, at + 4)[0]
            at += 4 + (size + 3) // 4 * 4
        self.interfaces.append(_Interface(link, snaplen, *_nanoseconds(resolution), offset * 1_000_000_000))


def _nanoseconds(resolution: int) -> tuple[int, int]:
    """Multiplier and divisor that turn ticks of an if_tsresol into ns."""
    if resolution & 0x80:
        return 1_000_000_000, 1 << min(resolution & 0x7F, 63)
    if resolution <= 9:
        return int(10 ** (9 - resolution)), 1
    return 1, int(10 ** min(resolution - 9, 18))
