"""Reads a log file as it grows: whole lines, plain or gzipped, also while the file is renamed."""

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

BLOCK_BYTES = 1 << 20
"""Bytes read at once."""
HEAD_BYTES = 1 << 16
"""Bytes in which a file's first record must begin; the directives of a Zeek log take 2 KiB."""
MAX_IDENTITY_BYTES = 4096
"""Bytes of the first record by which a file is recognised."""
MAX_LINE_BYTES = 900_000
"""Kafka accepts records of 1 MiB, with headers and framing."""
KEPT_LINE_BYTES = 1 << 16
"""Bytes that are sent of a longer line: enough for the reader to reject it with its place."""
ROTATED_LINGER_S = 5.0
"""How long a rotated file is read on: its writer may not have reopened the log yet."""
GZIP_MAGIC = b"\x1f\x8b"
OTHER_MAGICS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zX": "xz", b"BZh": "bzip2"}
"""Compressions that aren't supported, by the first bytes of a file."""


class ContentReplaced(Exception):
    """Another content is where the file was."""


class CorruptGzip(Exception):
    """What comes next can't be decompressed: it is damaged, or not written yet."""


@dataclass(frozen=True)
class FileOffset:
    """How far one file was read. Its fields are those of the records on the topic of offsets."""

    number: int
    """files are numbered in the order in which they were discovered"""
    name: str
    """the path under which the file was followed before it was rotated"""
    first: str
    """digest of its first record"""
    device: int
    inode: int
    offset: int = 0
    """bytes (uncompressed) up to the end of the last line returned"""
    whole: bool = False
    """compressed and read to its end, or older than what is followed"""


class FirstRecord(NamedTuple):
    """The first record of a file, by which the file is recognised, and the directives before it."""

    digest: str
    position: int
    """bytes from the beginning of the file"""
    start: bytes
    """its first MAX_IDENTITY_BYTES"""
    directives: bytes


class FileStatus(NamedTuple):
    """What is at a path; `first_record` is None while there is no whole record."""

    path: str
    stat: os.stat_result
    is_gzip: bool
    first_record: FirstRecord | None

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.stat.st_dev, self.stat.st_ino

    @property
    def change_key(self) -> tuple[int, int, int, int]:
        """Changes when the content does."""
        return change_key(self.stat)


def change_key(stat: os.stat_result) -> tuple[int, int, int, int]:
    """Device, inode, size and time of the last change."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def inspect(path: str) -> FileStatus:
    """What is at a path.

    Raises:
        OSError: it can't be read.
        ValueError: it is compressed, but not by gzip.
        zlib.error: its beginning is damaged.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        stat = os.fstat(handle)
        start = _data_start(handle)
        raw = os.pread(handle, HEAD_BYTES, start)
        for magic, kind in OTHER_MAGICS.items():
            if raw.startswith(magic):
                raise ValueError(f"compressed by {kind}; only gzip is understood")
        if raw.startswith(GZIP_MAGIC):
            unpacked = zlib.decompressobj(31).decompress(raw, HEAD_BYTES)
            return FileStatus(path, stat, True, first_record(unpacked, 0))
        return FileStatus(path, stat, False, first_record(raw, start))
    finally:
        os.close(handle)


def first_record(raw: bytes, position: int) -> FirstRecord | None:
    """The first line that is no `#` directive, where it is whole; `raw` begins at `position`.

    Zero bytes before it are skipped: a writer that keeps its offset leaves them after a log was
    copied and truncated.
    """
    begin, directives = 0, b""
    while begin < len(raw):
        begin += len(raw[begin:]) - len(raw[begin:].lstrip(b"\0"))
        end = raw.find(b"\n", begin)
        line = raw[begin : end if end >= 0 else len(raw)]
        if line.strip() and not line.startswith(b"#"):
            start = line[:MAX_IDENTITY_BYTES]
            if end < 0 and len(start) < MAX_IDENTITY_BYTES:
                return None
            digest = hashlib.sha256(start).hexdigest()[:32]
            return FirstRecord(digest, position + begin, start, directives)
        if end < 0:
            return None
        directives += raw[begin : end + 1]
        begin = end + 1
    return None


def _data_start(handle: int) -> int:
    """Where a file's data begin, after a hole."""
    try:
        return os.lseek(handle, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.EINVAL):
            raise
        return 0


def last_line_end(path: str) -> int:
    """Where the last whole line of a file ends; in the middle of a line that is longer than a
    block and still being written."""
    with open(path, "rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - BLOCK_BYTES)
        file.seek(start)
        block = file.read(BLOCK_BYTES)
        return start + (block.rfind(b"\n") + 1 or (len(block) if start else 0))


class _PlainReader:
    """Blocks of a file that may grow, as long as its first record stays the same."""

    def __init__(self, status: FileStatus, first: FirstRecord, offset: int) -> None:
        self._file = open(status.path, "rb", buffering=0)  # noqa: SIM115 - open while followed
        self._first = first
        self._position = max(offset, _data_start(self._file.fileno()))
        _require_same_file(self._file, status)

    def read(self) -> bytes:
        handle, first = self._file.fileno(), self._first
        block = os.pread(handle, BLOCK_BYTES, self._position)
        if os.pread(handle, len(first.start), first.position) != first.start:
            raise ContentReplaced
        self._position += len(block)
        return block

    def close(self) -> None:
        self._file.close()


class _GzipReader:
    """Blocks of a gzipped file."""

    def __init__(self, status: FileStatus, offset: int) -> None:
        self._stream = gzip.GzipFile(status.path)
        self._skip = offset
        _require_same_file(self._stream, status)

    def read(self) -> bytes:
        try:
            while self._skip:
                skipped = len(self._stream.read1(min(BLOCK_BYTES, self._skip)))
                self._skip = self._skip - skipped if skipped else 0
            return self._stream.read1(BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorruptGzip(str(error)) from error

    def close(self) -> None:
        self._stream.close()


def _require_same_file(file: io.RawIOBase | gzip.GzipFile, status: FileStatus) -> None:
    """Closes a file that is not the one that was inspected under its name.

    Raises:
        ContentReplaced: it is another one.
    """
    stat = os.fstat(file.fileno())
    if (stat.st_dev, stat.st_ino) != status.identity:
        file.close()
        raise ContentReplaced


class _LineSplitter:
    """Splits blocks into lines; of a line that is too long only the beginning is kept."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        """where the last line returned ends"""
        self._line = b""
        self._length = 0

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that end in this block."""
        first, *others = block.split(b"\n")
        self._extend_line(first)
        if not others:
            return []
        *others, last = others
        lines = [self._line, *others]
        self.offset += self._length + sum(map(len, others)) + len(lines)
        self._line, self._length = b"", 0
        self._extend_line(last)
        return lines

    def take_rest(self) -> list[bytes]:
        """The line that has no newline yet."""
        line, self.offset = self._line, self.offset + self._length
        self._line, self._length = b"", 0
        return [line]

    def _extend_line(self, piece: bytes) -> None:
        self._line += piece[: max(0, MAX_LINE_BYTES + 1 - len(self._line))]
        self._length += len(piece)


class FollowedFile:
    """One file: where it is, how far it was read, its open handle.

    `clock` returns seconds that never go back.
    """

    def __init__(self, offset: FileOffset, clock: Callable[[], float]) -> None:
        self.offset = offset
        self.is_at_end = True
        """the last read returned everything there was"""
        self.cut_lines = 0
        """lines longer than MAX_LINE_BYTES so far"""
        self._clock = clock
        self._status: FileStatus | None = None
        self._is_live = False
        """it is under the name that its writer writes to"""
        self._reader: _PlainReader | _GzipReader | None = None
        self._splitter = _LineSplitter(offset.offset)
        self._quiet_since = 0.0
        self._failed_key: tuple[int, ...] = ()
        """state in which the file couldn't be decompressed"""
        self._directives = b""

    @property
    def path(self) -> str:
        """Where it was last seen."""
        return self._status.path if self._status else self.offset.name

    @property
    def directives(self) -> bytes:
        """Its `#` directives up to the first record."""
        return self._directives

    @property
    def is_present(self) -> bool:
        """It is at some path, or still open."""
        return self._status is not None or self._reader is not None

    @property
    def is_busy(self) -> bool:
        """It is open and was not read to its end."""
        return self._reader is not None and not self.is_at_end

    @property
    def behind_bytes(self) -> int:
        """Bytes on the disk that were not returned yet; of a compressed file all of them, or
        none."""
        if self._status is None or self.offset.whole:
            return 0
        done = 0 if self._status.is_gzip else self.offset.offset
        return max(0, self._status.stat.st_size - done)

    def locate(self, status: FileStatus | None, is_live: bool) -> None:
        """Sets where the file is now, and whether its writer writes to that name; None: nowhere."""
        if self._is_live and not is_live:
            self._quiet_since = self._clock()
        self._status, self._is_live = status, is_live
        if status is not None and status.first_record is not None:
            self._directives = status.first_record.directives

    def move(self, device: int, inode: int) -> None:
        """Its content is under another inode from now on."""
        self.offset = replace(self.offset, device=device, inode=inode)

    def close(self) -> None:
        """Closes its handle; the beginning of an unfinished line is read again."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._splitter = _LineSplitter(self.offset.offset)

    def read(self) -> list[bytes]:
        """The lines of the next block, without newlines; blank lines are left out.

        Raises:
            ContentReplaced: another content is there now; nothing of it was returned.
            CorruptGzip: what comes next can't be decompressed.
            OSError: it can't be opened or read.
        """
        self.is_at_end = True
        if self._reader is None:
            self._reader = self._open()
        if self._reader is None:
            return []
        try:
            block = self._reader.read()
        except CorruptGzip:
            self._failed_key = self._status.change_key if self._status else ()
            self.close()
            raise
        if isinstance(self._reader, _PlainReader):
            self.is_at_end = len(block) < BLOCK_BYTES
        else:
            self.is_at_end = not block
        return self._clean(self._splitter.feed(block) if block else self._last_lines())

    def _open(self) -> _PlainReader | _GzipReader | None:
        """A reader, where there is more to read than before."""
        status, offset = self._status, self.offset.offset
        if status is None or status.first_record is None or self.offset.whole:
            return None
        if self._failed_key == status.change_key:
            return None
        if not status.is_gzip and status.stat.st_size <= offset:
            return None
        self._quiet_since = self._clock()
        if status.is_gzip:
            return _GzipReader(status, offset)
        return _PlainReader(status, status.first_record, offset)

    def _last_lines(self) -> list[bytes]:
        """At the end of a file that nobody writes to any more: its last line, newline or not."""
        is_gzip = isinstance(self._reader, _GzipReader)
        is_lingering = self._clock() < self._quiet_since + ROTATED_LINGER_S
        if not is_gzip and (self._is_live or is_lingering):
            return []
        lines = self._splitter.take_rest()
        self.offset = replace(self.offset, offset=self._splitter.offset, whole=is_gzip)
        self.close()
        return lines

    def _clean(self, lines: list[bytes]) -> list[bytes]:
        """The lines without blank ones, cut to the size that Kafka takes; the offset advances."""
        if self.offset.offset != self._splitter.offset:
            self._quiet_since = self._clock()
            self.offset = replace(self.offset, offset=self._splitter.offset)
        self.cut_lines += sum(len(line) > MAX_LINE_BYTES for line in lines)
        stripped = (line.lstrip(b"\0").rstrip(b"\r") for line in lines)
        return [
            line[:KEPT_LINE_BYTES] if len(line) > MAX_LINE_BYTES else line
            for line in stripped
            if line.strip()
        ]
