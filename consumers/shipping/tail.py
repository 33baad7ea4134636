"""Reads one log file as it grows: whole lines, plain or gzipped, also while its name or its content changes."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

BLOCK = 1 << 20
"""bytes read at once"""
HEAD = 1 << 16
"""bytes in which a file's first record must begin; the directives of a Zeek log take 2 KiB"""
KNOWN_BY = 4096
"""bytes of the first record by which a file is recognised"""
LONGEST = 900_000
"""bytes of a line; Kafka takes a megabyte with everything around it"""
KEPT = 1 << 16
"""bytes that are given of a longer line: enough to be refused, with its place, by who reads it"""
LINGER_SECONDS = 5.0
"""how long a file that was rotated away is read on: its writer may not have noticed yet"""
GZIP = b"\x1f\x8b"
FOREIGN = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zX": "xz", b"BZh": "bzip2"}


class Changed(Exception):
    """Another content is where the file was."""


class Unreadable(Exception):
    """What comes next can't be decompressed: damaged, or not there yet."""


@dataclass(frozen=True)
class Place:
    """How far one file was read."""

    number: int
    """in the order in which the files were found"""
    name: str
    """the path it was followed as before it was rotated"""
    first: str
    """digest of its first record"""
    device: int
    inode: int
    offset: int = 0
    """bytes (uncompressed) up to the end of the last line given"""
    whole: bool = False
    """compressed and read to its end, or older than what is followed"""


class Head(NamedTuple):
    """A file's beginning: digest, place and bytes of its first record, and the directives before it."""

    first: str
    at: int
    start: bytes
    header: bytes


class Look(NamedTuple):
    """What is at a path; `head` is None while there is no whole record."""

    path: str
    status: os.stat_result
    packed: bool
    head: Head | None

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.status.st_dev, self.status.st_ino

    @property
    def signature(self) -> tuple[int, int, int, int]:
        """Changes when the content does."""
        return signature(self.status)


def signature(status: os.stat_result) -> tuple[int, int, int, int]:
    """Device, inode, size and time of the last change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def look(path: str) -> Look:
    """What is at a path.

    Raises:
        OSError: it can't be read.
        ValueError: it is compressed, but not by gzip.
        zlib.error: its beginning is damaged.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        start = _data(handle)
        raw = os.pread(handle, HEAD, start)
        for magic, kind in FOREIGN.items():
            if raw.startswith(magic):
                raise ValueError(f"compressed by {kind}; only gzip is understood")
        if raw.startswith(GZIP):
            return Look(path, status, True, head(zlib.decompressobj(31).decompress(raw, HEAD), 0))
        return Look(path, status, False, head(raw, start))
    finally:
        os.close(handle)


def head(raw: bytes, at: int) -> Head | None:
    """The first record of a file whose bytes from `at` are given: the first line that is no directive, if it is whole.

    Zero bytes before it are passed over: a writer that keeps its offset leaves them after copy-truncate.
    """
    begin, header = 0, b""
    while begin < len(raw):
        begin += len(raw[begin:]) - len(raw[begin:].lstrip(b"\0"))
        end = raw.find(b"\n", begin)
        line = raw[begin : end if end >= 0 else len(raw)]
        if line.strip() and not line.startswith(b"#"):
            start = line[:KNOWN_BY]
            known = end >= 0 or len(start) == KNOWN_BY
            return (
                Head(hashlib.sha256(start).hexdigest()[:32], at + begin, start, header)
                if known
                else None
            )
        if end < 0:
            return None
        header += raw[begin : end + 1]
        begin = end + 1
    return None


def _data(handle: int) -> int:
    """Where a file's data begin, after a hole."""
    try:
        return os.lseek(handle, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.EINVAL):
            raise
        return 0


def last_line_end(path: str) -> int:
    """Where the last whole line of a file ends; where a longer line than LONGEST is being written, in its middle."""
    with open(path, "rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - BLOCK)
        file.seek(start)
        block = file.read(BLOCK)
        return start + (block.rfind(b"\n") + 1 or (len(block) if start else 0))


class _Plain:
    """Blocks of a file that may grow, as long as its beginning stays what it was."""

    def __init__(self, seen: Look, beginning: Head, offset: int) -> None:
        self._file = open(seen.path, "rb", buffering=0)  # noqa: SIM115 - open while the file is followed
        self._beginning = beginning
        self._at = max(offset, _data(self._file.fileno()))
        _same(self._file, seen)

    def read(self) -> bytes:
        handle, beginning = self._file.fileno(), self._beginning
        block = os.pread(handle, BLOCK, self._at)
        if os.pread(handle, len(beginning.start), beginning.at) != beginning.start:
            raise Changed
        self._at += len(block)
        return block

    def close(self) -> None:
        self._file.close()


class _Packed:
    """Blocks of a gzipped file."""

    def __init__(self, seen: Look, offset: int) -> None:
        self._stream = gzip.GzipFile(seen.path)
        self._skip = offset
        _same(self._stream, seen)

    def read(self) -> bytes:
        try:
            while self._skip:
                skipped = len(self._stream.read1(min(BLOCK, self._skip)))
                self._skip = self._skip - skipped if skipped else 0
            return self._stream.read1(BLOCK)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Unreadable(str(error)) from error

    def close(self) -> None:
        self._stream.close()


def _same(file: io.RawIOBase | gzip.GzipFile, seen: Look) -> None:
    """Closes a file that is not the one which was seen under its name."""
    status = os.fstat(file.fileno())
    if (status.st_dev, status.st_ino) != seen.identity:
        file.close()
        raise Changed


class _Cutter:
    """Cuts blocks into lines; of one that is too long only the beginning is kept."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._line = b""
        self._length = 0

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that end in this block; `offset` is where the last one ends."""
        first, *others = block.split(b"\n")
        self._keep(first)
        if not others:
            return []
        *others, last = others
        lines = [self._line, *others]
        self.offset += self._length + sum(map(len, others)) + len(lines)
        self._line, self._length = b"", 0
        self._keep(last)
        return lines

    def rest(self) -> list[bytes]:
        """The line that has no newline yet."""
        line, self.offset = self._line, self.offset + self._length
        self._line, self._length = b"", 0
        return [line]

    def _keep(self, piece: bytes) -> None:
        self._line += piece[: max(0, LONGEST + 1 - len(self._line))]
        self._length += len(piece)


class File:
    """One file: where it is, how far it was read, its open handle. `clock` gives seconds that never go back."""

    def __init__(self, place: Place, clock: Callable[[], float]) -> None:
        self.place = place
        self.at_end = True
        """the last read gave everything there was"""
        self.cut = 0
        """lines longer than LONGEST so far"""
        self._clock = clock
        self._seen: Look | None = None
        self._live = False
        self._reader: _Plain | _Packed | None = None
        self._cutter = _Cutter(place.offset)
        self._quiet_since = 0.0
        self._failed: tuple[int, ...] = ()
        self._header = b""

    @property
    def path(self) -> str:
        """Where it was last seen."""
        return self._seen.path if self._seen else self.place.name

    @property
    def header(self) -> bytes:
        """Its directives up to the first record."""
        return self._header

    @property
    def present(self) -> bool:
        """There is something to read from."""
        return self._seen is not None or self._reader is not None

    @property
    def busy(self) -> bool:
        """It is open and was not read to its end."""
        return self._reader is not None and not self.at_end

    @property
    def behind(self) -> int:
        """Bytes on the disk that were not given yet; of a compressed file all of them, or none."""
        if self._seen is None or self.place.whole:
            return 0
        return max(0, self._seen.status.st_size - (0 if self._seen.packed else self.place.offset))

    def see(self, seen: Look | None, live: bool) -> None:
        """It is here now, under the name it is written to or another; None: nowhere."""
        if self._live and not live:
            self._quiet_since = self._clock()
        self._seen, self._live = seen, live
        if seen is not None and seen.head is not None:
            self._header = seen.head.header

    def move(self, device: int, inode: int) -> None:
        """Its content is under another inode from now on."""
        self.place = replace(self.place, device=device, inode=inode)

    def close(self) -> None:
        """Closes its handle; the beginning of an unfinished line is read again."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._cutter = _Cutter(self.place.offset)

    def read(self) -> list[bytes]:
        """The lines of the next block, without newlines; blank ones are left out.

        Raises:
            Changed: another content is there now; nothing of it was given.
            Unreadable: what comes next can't be decompressed.
            OSError: it can't be opened or read.
        """
        self.at_end = True
        if self._reader is None:
            self._reader = self._opened()
        if self._reader is None:
            return []
        try:
            block = self._reader.read()
        except Unreadable:
            self._failed = self._seen.signature if self._seen else ()
            self.close()
            raise
        self.at_end = len(block) < BLOCK if isinstance(self._reader, _Plain) else not block
        return self._given(self._cutter.feed(block) if block else self._ended())

    def _opened(self) -> _Plain | _Packed | None:
        """A reader, when there is more to read than before."""
        seen = self._seen
        if seen is None or seen.head is None or self.place.whole or self._failed == seen.signature:
            return None
        if not seen.packed and seen.status.st_size <= self.place.offset:
            return None
        self._quiet_since = self._clock()
        offset = self.place.offset
        return _Packed(seen, offset) if seen.packed else _Plain(seen, seen.head, offset)

    def _ended(self) -> list[bytes]:
        """At the end: the last line of a file that nobody writes to any more, newline or not."""
        packed = isinstance(self._reader, _Packed)
        if not packed and (self._live or self._clock() < self._quiet_since + LINGER_SECONDS):
            return []
        lines = self._cutter.rest()
        self.place = replace(self.place, offset=self._cutter.offset, whole=packed)
        self.close()
        return lines

    def _given(self, lines: list[bytes]) -> list[bytes]:
        if self.place.offset != self._cutter.offset:
            self._quiet_since = self._clock()
            self.place = replace(self.place, offset=self._cutter.offset)
        self.cut += sum(len(line) > LONGEST for line in lines)
        clean = (line.lstrip(b"\0").rstrip(b"\r") for line in lines)
        return [line[:KEPT] if len(line) > LONGEST else line for line in clean if line.strip()]
