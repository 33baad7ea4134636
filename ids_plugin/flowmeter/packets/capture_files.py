"""Capture files cut into packets: pcap and pcapng framing, without looking into a packet.

Formats: https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/ and draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.errors import InputError

CHUNK_BYTES = 16 << 20
"""Bytes read at a time."""
MAX_CHUNK_PACKETS = 40_000
"""Packets of a chunk: enough to hide the cost of a step over all of them, few enough for the
processor's cache.
"""
PADDING_BYTES = 128
"""Zero bytes behind a chunk's data, so that headers can be read before their length is checked."""
HEAD_BYTES = 64
"""Bytes of every packet that are laid side by side: reading headers there is faster than where
packets lie.
"""
WALK_STRIDE_BYTES = 1 << 16
"""Bytes between places from which records are looked for at once."""
MAX_WALKS = 1 << 16
"""Places at once; more only if a test sets a small STRIDE."""
MIN_WALKS = 16
"""Fewer records at a time are found faster one by one."""
MAX_RECORD_BYTES = 1 << 20
"""Longer records are taken for damage; four times the largest snap length that tools write
(262,144).
"""
MAX_BLOCK_BYTES = 32 << 20
"""Longest pcapng block that is held in memory; longer ones that aren't packets (name tables,
decryption secrets) are read past.
"""
BROKEN_LINK = -1
"""Link type of a record that is no packet; it keeps its number."""

FILE_HEADER_BYTES, RECORD_HEADER_BYTES, MODIFIED_HEADER_BYTES = 24, 16, 24
PCAP_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", 1000, RECORD_HEADER_BYTES),
    b"\xd4\xc3\xb2\xa1": ("<", 1000, RECORD_HEADER_BYTES),
    b"\xa1\xb2\x3c\x4d": (">", 1, RECORD_HEADER_BYTES),
    b"\x4d\x3c\xb2\xa1": ("<", 1, RECORD_HEADER_BYTES),
    b"\xa1\xb2\xcd\x34": (">", 1000, MODIFIED_HEADER_BYTES),
    b"\x34\xcd\xb2\xa1": ("<", 1000, MODIFIED_HEADER_BYTES),
}
"""Byte order, ns of a fraction, bytes before a packet; the last two are of the modified format of
old Linux patches ("Kuznetzov")."""
FCS_PRESENT = 0x04000000
"""Bit of the word with the link type: its upper four bits are the length of the frames' check
sequence in words of two bytes."""
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
SECTION, INTERFACE, OBSOLETE, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
PACKET_BLOCKS = (SIMPLE, OBSOLETE, ENHANCED)
BLOCK_NAMES = {4: "name_resolution", 5: "statistics", 10: "secrets"}
MAX_TIME_S = (1 << 62) // 1_000_000_000
"""Seconds; later times can't be counted in ns."""

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


class Damage(NamedTuple):
    """A stretch of a capture that isn't a packet, or a packet that is cut."""

    packet: int
    """number (from 1) of the packet it is, or before which it stands"""
    reason: str
    detail: str
    data: bytes


@dataclass
class Chunk:
    """Packets of one piece of a capture; the arrays have one element a packet. Valid until the
    next is asked for.
    """

    data: Bytes
    """the bytes the offsets point into, and PADDING zeros"""
    offset: Int64s
    """where the packet's first captured byte is"""
    captured: Int64s
    """captured bytes"""
    length: Int64s
    """bytes of the whole packet, also of those not captured"""
    time: Int64s
    """ns since the epoch"""
    link: Int64s
    """link type, https://www.tcpdump.org/linktypes.html; BROKEN where there is no packet"""
    first: int
    """number of the first packet, from 1"""
    heads: Bytes
    """(n, HEAD) the first bytes of every packet, and what lies behind shorter ones"""
    has_lost_length: Bools
    """the file says that all of the packet was captured, and that this is its snap length"""
    damage: list[Damage] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    """blocks that hold no packet, by kind"""
    remarks: list[Damage] = field(default_factory=list)
    """what is worth knowing and no damage"""


def part(chunk: Chunk, start: int, end: int) -> Chunk:
    """Packets `start` … `walk_ends` of a chunk, with the damage among them; what else was there
    goes with the last.
    """
    if start == 0 and end == len(chunk.offset):
        return chunk
    columns = {name: getattr(chunk, name)[start:end] for name in _COLUMNS}
    last, first = end == len(chunk.offset), chunk.first + start
    damage, remarks = (
        [
            place
            for place in places
            if first <= place.packet and (last or place.packet < chunk.first + end)
        ]
        for places in (chunk.damage, chunk.remarks)
    )
    return replace(
        chunk,
        **columns,
        first=first,
        damage=damage,
        remarks=remarks,
        skipped=chunk.skipped if last else {},
    )


_COLUMNS = ("offset", "captured", "length", "time", "link", "heads", "has_lost_length")


def chunks(stream: BinaryIO, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """The packets of a capture, in pieces of about `chunk_bytes`; damage is reported and stepped
    over where possible.

    Raises:
        InputError: the stream doesn't begin as a capture does.
    """
    window = _StreamWindow(stream, max(chunk_bytes, 64))
    window.fill(0)
    magic = bytes(window.view[:4])
    if magic in PCAP_MAGICS and window.filled >= FILE_HEADER_BYTES:
        return _pcap_chunks(window)
    if magic == PCAPNG_MAGIC and window.filled >= 12:
        return _pcapng_chunks(window)
    if magic in PCAP_MAGICS or magic == PCAPNG_MAGIC:
        raise InputError(f"a capture cut off in its header, after {window.filled} bytes")
    raise InputError(
        "not a capture" if window.filled else "empty",
        hint="pcap and pcapng begin with a magic number",
    )


class _StreamWindow:
    """The part of a stream that is in memory: one buffer, used again and again."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.filled = 0
        self.dropped = 0
        """bytes of the stream before the buffer"""
        self.ended = False
        self._allocate(size)

    def _allocate(self, size: int) -> None:
        self.size = size
        self.bytes = bytearray(size + PADDING_BYTES)
        self.data = np.frombuffer(self.bytes, dtype=np.uint8)
        self.view = memoryview(self.bytes)

    def fill(self, used: int) -> None:
        """Drops the first `used` bytes and reads on, until the buffer is full or the stream
        ends.
        """
        rest = self.data[used : self.filled].copy()
        self.dropped += used
        if len(rest) > self.size // 2:
            self._allocate(self.size * 2)
        self.data[: len(rest)] = rest
        self.filled = len(rest)
        while self.filled < self.size and not self.ended:
            count = self._read_into(self.view[self.filled : self.size])
            self.ended = not count
            self.filled += count
        self.data[self.filled : self.filled + PADDING_BYTES] = 0

    def skip(self, count: int) -> bool:
        """Drops the next `count` bytes, most of which aren't in the buffer; whether all were
        there.
        """
        while count > self.filled and self.filled:
            count -= self.filled
            self.fill(self.filled)
        self.fill(min(count, self.filled))
        return self.filled > 0 or count == 0

    def _read_into(self, room: memoryview) -> int:
        """Bytes read into `room`, 0 at the end of the stream."""
        readinto = getattr(self.stream, "readinto", None)
        if readinto is not None:
            return int(readinto(room) or 0)
        part = self.stream.read(len(room))
        room[: len(part)] = part
        return len(part)

    def beginning(self, position: int, end: int | None = None) -> bytes:
        """The first bytes from `position`, for a person to look at."""
        return bytes(self.view[position : min(position + 64, self.filled if end is None else end)])


class _PcapFormat(NamedTuple):
    """What the header of a pcap file says of its records."""

    order: str
    nanoseconds: int
    """of a fraction"""
    header_bytes: int
    """before every packet"""
    snaplen: int
    link: int
    fcs_bytes: int
    """check sequence behind every frame, part of its length"""


def _pcap_format(header: bytes | memoryview) -> _PcapFormat:
    order, nanoseconds, header_bytes = PCAP_MAGICS[bytes(header[:4])]
    snaplen, word = struct.unpack_from(order + "II", header, 16)
    fcs_bytes = 2 * (word >> 28) if word & FCS_PRESENT else 0
    return _PcapFormat(order, nanoseconds, header_bytes, snaplen, word & 0x03FFFFFF, fcs_bytes)


def _pcap_chunks(window: _StreamWindow) -> Iterator[Chunk]:
    form = _pcap_format(window.view[:FILE_HEADER_BYTES])
    number, position = 1, FILE_HEADER_BYTES
    remarks: list[Damage] = []
    while True:
        starts, position, broken = _find_records(window, position, form)
        before_joined = _records_of_this_file(window, starts)
        is_joined = before_joined < len(starts)
        if is_joined:
            starts, position, broken = starts[:before_joined], int(starts[before_joined]), False
        damage = []
        if not is_joined:
            damage = _damaged_record(window, position, number + len(starts), broken)
        parts = np.array_split(starts, max(1, -(-len(starts) // MAX_CHUNK_PACKETS)))
        for part in parts:
            chunk = _pcap_chunk(window, part, form, number)
            chunk.damage = damage if part is parts[-1] else []
            chunk.remarks, remarks = remarks, []
            number += len(part)
            yield chunk
        if broken or (window.ended and not is_joined):
            return
        window.fill(position)
        position = 0
        if is_joined and window.filled >= FILE_HEADER_BYTES:
            form, position = _pcap_format(window.view[:FILE_HEADER_BYTES]), FILE_HEADER_BYTES
            detail = f"another capture begins, at byte {window.dropped:,}: the two were joined"
            remarks = [Damage(number, "joined_captures", detail, window.beginning(0))]


def _damaged_record(
    window: _StreamWindow, position: int, number: int, is_too_long: bool
) -> list[Damage]:
    """What is wrong where the complete records end, if anything is."""
    if is_too_long:
        detail = "a record's length can't be; the rest is unreadable"
        return [Damage(number, "bad_length", detail, window.beginning(position))]
    if window.ended and position < window.filled:
        detail = f"the file ends {window.filled - position} bytes into a record"
        return [Damage(number, "cut_off", detail, window.beginning(position))]
    return []


def _records_of_this_file(window: _StreamWindow, starts: Int64s) -> int:
    """How many records come before one that is the header of another file."""
    if not len(starts):
        return 0
    words = _words(window.data, starts, 4, "<")
    magics = [int.from_bytes(magic, "little") for magic in PCAP_MAGICS]
    is_header = (words[2] == 0) & (words[3] == 0) & np.isin(words[0], magics)
    return int(np.argmax(is_header)) if is_header.any() else len(starts)


def _find_records(
    window: _StreamWindow, position: int, form: _PcapFormat
) -> tuple[Int64s, int, bool]:
    """Offsets of the complete records, where the first incomplete one begins, and whether its
    length can't be.
    """
    record_offsets_found, position = _walk_from_many_places(window, position, form)
    last = window.filled - form.header_bytes + 1
    further_offsets, position = _walk_records(window, position, last, form)
    record_offsets = np.append(record_offsets_found, np.array(further_offsets, dtype=np.int64))
    ends = np.append(record_offsets[1:], position)
    is_too_long = ends - record_offsets > MAX_RECORD_BYTES + form.header_bytes
    stop = (
        int(np.argmax(is_too_long))
        if is_too_long.any()
        else len(record_offsets) - (position > window.filled)
    )
    return (
        record_offsets[:stop],
        int(record_offsets[stop]) if stop < len(record_offsets) else position,
        bool(is_too_long.any()),
    )


def _walk_records(
    window: _StreamWindow, position: int, until: int, form: _PcapFormat
) -> tuple[list[int], int]:
    """Offsets of the records from `position` that begin before `walk_limits`, and where the next
    one would.
    """
    unpack = struct.Struct(form.order + "8xI").unpack_from
    data, header_bytes = window.bytes, form.header_bytes
    starts: list[int] = []
    add = starts.append
    while position < until:
        add(position)
        position += unpack(data, position)[0] + header_bytes
    return starts, position


def _walk_from_many_places(
    window: _StreamWindow, position: int, form: _PcapFormat
) -> tuple[Int64s, int]:
    """Records found by walks from many likely places at once, in order, and where the first one not
    found begins.

    Every walk must end where the next one begins; so they are the records that one walk would find,
    and a place that is none only costs time.
    """
    walk_begins = np.array(
        [position, *_likely_record_offsets(window, position, form)], dtype=np.int64
    )
    last = window.filled - form.header_bytes + 1
    walk_limits, walk_ends = np.append(walk_begins[1:], last), walk_begins.copy()
    if not MIN_WALKS <= len(walk_begins) <= MAX_WALKS:
        return _NONE, position
    captured = np.ndarray(
        (window.filled - 11,), dtype=form.order + "u4", buffer=window.bytes, offset=8, strides=(1,)
    )
    offsets, walk_numbers, limits = (
        walk_begins,
        np.arange(len(walk_begins), dtype=np.uint16),
        walk_limits,
    )
    found_offsets, found_walks = [], []
    while len(walk_numbers) >= MIN_WALKS:
        found_offsets.append(offsets)
        found_walks.append(walk_numbers)
        offsets = offsets + captured[offsets]
        offsets += form.header_bytes
        continues = offsets < limits
        if not continues.all():
            walk_ends[walk_numbers[~continues]] = offsets[~continues]
            offsets, walk_numbers, limits = (
                offsets[continues],
                walk_numbers[continues],
                limits[continues],
            )
    for walk_number, start in zip(walk_numbers.tolist(), offsets.tolist(), strict=True):
        rest, walk_ends[walk_number] = _walk_records(
            window, start, int(walk_limits[walk_number]), form
        )
        found_offsets.append(np.array(rest, dtype=np.int64))
        found_walks.append(np.full(len(rest), walk_number, dtype=np.uint16))
    is_wrong = walk_ends[:-1] != walk_begins[1:]
    last_good = int(np.argmax(is_wrong)) if is_wrong.any() else len(walk_begins) - 1
    records = np.concatenate(found_offsets)[np.argsort(np.concatenate(found_walks), kind="stable")]
    return records[: np.searchsorted(records, walk_limits[last_good])], int(walk_ends[last_good])


def _likely_record_offsets(
    window: _StreamWindow, position: int, form: _PcapFormat
) -> Iterator[int]:
    """Where records seem to begin, at most one a STRIDE: the upper half of the seconds is that
    of the first record.
    """
    head = struct.Struct(form.order + "2I2I")
    half_offset = 2 if form.order == "<" else 0
    seconds_half = window.bytes[position + half_offset : position + half_offset + 2]
    last = window.filled - form.header_bytes
    for stride_begin in range(position + WALK_STRIDE_BYTES, last, WALK_STRIDE_BYTES):
        offset, tries = stride_begin - 1, 0
        while (
            tries < 16
            and 0
            <= (
                offset := window.bytes.find(
                    seconds_half, offset + 1 + half_offset, stride_begin + WALK_STRIDE_BYTES
                )
                - half_offset
            )
            <= last
        ):
            tries += 1
            _, fraction, captured, length = head.unpack_from(window.bytes, offset)
            following = offset + form.header_bytes + captured + half_offset
            is_plausible = (
                captured <= length <= MAX_RECORD_BYTES
                and fraction < 1_000_000_000
                and following <= last
            )
            if is_plausible and window.bytes[following : following + 2] == seconds_half:
                yield offset
                break


def byte_rows(data: Bytes, offsets: Int64s, width: int) -> Bytes:
    """(n, width) bytes from each offset; four times as fast as indexing a view of windows."""
    strings: npt.NDArray[np.bytes_] = np.ndarray(
        len(data) - width + 1, dtype=f"S{width}", buffer=data, strides=(1,)
    )
    return strings[offsets].view(np.uint8).reshape(len(offsets), width)


def _words(data: Bytes, offsets: Int64s, count: int, order: str) -> Int64s:
    """(count, n) 32-bit integers from each offset."""
    words: Int64s = byte_rows(data, offsets, 4 * count).view(order + "u4").astype(np.int64).T
    return words


def _pcap_chunk(window: _StreamWindow, offsets: Int64s, form: _PcapFormat, number: int) -> Chunk:
    header_bytes = form.header_bytes
    rows = byte_rows(window.data, offsets, header_bytes + HEAD_BYTES)
    seconds, fraction, captured, length = rows[:, :16].view(form.order + "u4").T.astype(np.int64)
    time = seconds * 1_000_000_000 + fraction * form.nanoseconds
    links = np.full(len(offsets), form.link, dtype=np.int64)
    has_lost_length = (captured == length) & (captured == form.snaplen)
    length = np.maximum(length, captured)
    if form.fcs_bytes:
        length = np.maximum(length - form.fcs_bytes, 0)
        captured = np.minimum(captured, length)
    return Chunk(
        window.data,
        offsets + header_bytes,
        captured,
        length,
        time,
        links,
        number,
        rows[:, header_bytes:],
        has_lost_length,
    )


class _Interface(NamedTuple):
    link: int
    snaplen: int
    multiplier: int
    divisor: int
    """ns = ticks * multiplier // divisor + offset"""
    offset: int


@dataclass
class _Section:
    """Packet blocks of one section, or of a piece of one, and the interfaces they may name."""

    order: str
    interfaces: list[_Interface]
    described: list[int]
    """position of each interface's block; -1 for those of earlier pieces"""
    packets: list[int] = field(default_factory=list)


def _pcapng_chunks(window: _StreamWindow) -> Iterator[Chunk]:
    walker = _PcapNg(window)
    number = 1
    while True:
        position = walker.walk(number)
        count = sum(len(section.packets) for section in walker.sections)
        is_whole = walker.lost or walker.long_block
        if window.ended and position < window.filled and not is_whole:
            detail = f"the file ends {window.filled - position} bytes into a block"
            walker.damage.append(
                Damage(number + count, "cut_off", detail, window.beginning(position))
            )
        yield walker.chunk(number)
        number += count
        if walker.long_block:
            window.fill(position)
            window.skip(walker.long_block)
        elif window.ended or walker.lost:
            return
        else:
            window.fill(position)


class _PcapNg:
    """Walks the blocks of a pcapng stream; holds the section's byte order and interfaces between
    chunks.
    """

    def __init__(self, window: _StreamWindow) -> None:
        self.window = window
        self.sections = [_Section("<", [], [])]
        self.lost = False
        self.long_block = 0
        """length of a block that is to be skipped, 0 for none"""

    def walk(self, number: int) -> int:
        """Notes the complete blocks in the window; where the first incomplete one begins."""
        last = self.sections[-1]
        self.sections = [_Section(last.order, last.interfaces, [-1] * len(last.interfaces))]
        self.damage: list[Damage] = []
        self.skipped: dict[str, int] = {}
        self.number = number
        self.long_block = 0
        position = 0
        while not self.lost:
            following = self._block(position)
            if following < 0:
                break
            position = following
        return position

    def _block(self, position: int) -> int:
        """Notes the block at `position`; the next block's position, or -1 where it isn't
        complete.
        """
        view, filled = self.window.view, self.window.filled
        if position + 12 > filled:
            return -1
        section = self.sections[-1]
        kind, length = struct.unpack_from(section.order + "II", view, position)
        if kind == SECTION:
            magic = bytes(view[position + 8 : position + 12])
            if magic not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
                return self._give_up(position, "section header without a byte-order magic")
            order = ">" if magic[0] == 0x1A else "<"
            length = struct.unpack_from(order + "I", view, position + 4)[0]
        is_long = length > MAX_BLOCK_BYTES
        if length < 12 or length % 4 or (is_long and kind in PACKET_BLOCKS):
            return self._give_up(position, f"block of {length} bytes; the rest is unreadable")
        if is_long:
            self.long_block = length
            self._count_skipped(kind)
            return -1
        end = int(position + length)
        if end > filled:
            return -1
        if kind == SECTION:
            self.number += len(section.packets)
            self.sections.append(_Section(order, [], []))
        elif struct.unpack_from(section.order + "I", view, end - 4)[0] != length:
            self._damaged(position, "a block's two lengths differ")
        elif kind in PACKET_BLOCKS:
            section.packets.append(position)
        elif kind == INTERFACE:
            self._interface(section, position, end)
        else:
            self._count_skipped(kind)
        return end

    def _count_skipped(self, kind: int) -> None:
        name = BLOCK_NAMES.get(kind, f"block_{kind:#x}")
        self.skipped[name] = self.skipped.get(name, 0) + 1

    def _damaged(self, position: int, detail: str) -> None:
        number = self.number + len(self.sections[-1].packets)
        self.damage.append(Damage(number, "bad_block", detail, self.window.beginning(position)))

    def _give_up(self, position: int, detail: str) -> int:
        self._damaged(position, detail)
        self.lost = True
        return -1

    def _interface(self, section: _Section, position: int, end: int) -> None:
        if end - position < 20:
            self._damaged(position, "interface block too short")
            return
        view, order = self.window.view, section.order
        link, _, snaplen = struct.unpack_from(order + "2HI", view, position + 8)
        resolution, offset = 6, 0
        option_offset = position + 16
        while option_offset + 4 <= end - 4:
            code, size = struct.unpack_from(order + "2H", view, option_offset)
            if code == 0 or option_offset + 4 + size > end - 4:
                break
            if code == 9 and size >= 1:
                resolution = view[option_offset + 4]
            elif code == 14 and size == 8:
                (offset,) = struct.unpack_from(order + "q", view, option_offset + 4)
            option_offset += 4 + (size + 3) // 4 * 4
        offset = min(max(offset, -MAX_TIME_S), MAX_TIME_S) * 1_000_000_000
        section.interfaces.append(_Interface(link, snaplen, *_nanoseconds(resolution), offset))
        section.described.append(position)

    def chunk(self, number: int) -> Chunk:
        """The packets noted by the last walk."""
        parts = [self._packets(section) for section in self.sections if section.packets]
        columns = (
            [np.concatenate(column) for column in zip(*parts, strict=True)]
            if parts
            else [*[_NONE] * 5, np.zeros(0, dtype=bool)]
        )
        offset, captured, length, time, link, has_lost_length = columns
        for row in np.flatnonzero(link == BROKEN_LINK).tolist():
            detail = "a packet block names no interface or is shorter than its packet"
            self.damage.append(
                Damage(number + row, "bad_block", detail, self.window.beginning(int(offset[row])))
            )
        self.damage.sort(key=lambda damage: damage.packet)
        data, notes = self.window.data, (self.damage, self.skipped)
        return Chunk(
            data,
            offset,
            captured,
            length,
            time,
            link,
            number,
            byte_rows(data, offset, HEAD_BYTES),
            has_lost_length,
            *notes,
        )

    def _packets(self, section: _Section) -> tuple[npt.NDArray[Any], ...]:
        """Offset, captured bytes, length, time and link type of a section's packets, and whether
        their length was lost.
        """
        block_offsets = np.array(section.packets, dtype=np.int64)
        kind, size, first, high, low, captured, length = _words(
            self.window.data, block_offsets, 7, section.order
        )
        simple = kind == SIMPLE
        wide = first if section.order == "<" else first >> 16
        interface = np.where(kind == ENHANCED, first, np.where(simple, 0, wide & 0xFFFF))
        known = np.searchsorted(np.array(section.described, dtype=np.int64), block_offsets)
        body = np.where(simple, 12, 28)
        room = size - body - 4
        broken = (interface >= known) | (room < 0)
        table = np.array(
            section.interfaces or [_Interface(BROKEN_LINK, 0, 1, 1, 0)], dtype=np.int64
        )
        chosen = table[np.clip(interface, 0, len(table) - 1)]
        snaplen = np.where(chosen[:, 1] == 0, MAX_BLOCK_BYTES, chosen[:, 1])
        length = np.where(simple, first, length)
        captured = np.where(simple, np.minimum(np.minimum(first, snaplen), room), captured)
        broken |= captured > room
        ticks = np.where(simple, 0, (high & 0x7FFFFFFF) << 32 | low)
        time = np.where(
            simple | broken, 0, _to_nanoseconds(ticks, chosen[:, 2], chosen[:, 3]) + chosen[:, 4]
        )
        link = np.where(broken, BROKEN_LINK, chosen[:, 0])
        return (
            block_offsets + body,
            np.where(broken, 0, captured),
            np.maximum(length, captured),
            time,
            link,
            ~broken & ~simple & (captured == length) & (captured == chosen[:, 1]),
        )


_NONE = np.zeros(0, dtype=np.int64)


def _to_nanoseconds(ticks: Int64s, multiplier: Int64s, divisor: Int64s) -> Int64s:
    """ticks * multiplier // divisor without overflow; times beyond 2^62 ns are kept at that."""
    whole, part = np.divmod(ticks, divisor)
    seconds = np.minimum(whole, MAX_TIME_S * 1_000_000_000 // np.maximum(multiplier, 1))
    holds_exactly_one_ip_packet = (
        part
        * (multiplier // np.gcd(multiplier, divisor))
        // (divisor // np.gcd(multiplier, divisor))
    )
    time: Int64s = seconds * multiplier + np.where(
        part < (1 << 32),
        holds_exactly_one_ip_packet,
        (part / divisor * multiplier).astype(np.int64),
    )
    return time


def _nanoseconds(resolution: int) -> tuple[int, int]:
    """Multiplier and divisor that turn ticks of an if_tsresol into ns."""
    if resolution & 0x80:
        return 1_000_000_000, 1 << min(resolution & 0x7F, 62)
    if resolution <= 9:
        return 10 ** (9 - resolution), 1
    return 1, 10 ** min(resolution - 9, 18)
