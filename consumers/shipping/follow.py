"""Follows log files through rotation: by rename, by compression (gzip), by copy and truncation.

A file is recognised by its first record (the first line that is no `#` directive), whatever its
name and its compression: `eve.json`, later `eve.json.1`, later `eve.json.1.gz` are one file, and so
is the copy of a log that is copied and truncated. The offset where reading continues is therefore
right after any change of names, even of one that happened while nobody watched. Two files that
begin with the same line are taken for one; lines of Zeek and Suricata, with their microseconds and
ids, never are the same.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from .tail import (
    ContentReplaced,
    CorruptGzip,
    FileOffset,
    FileStatus,
    FollowedFile,
    change_key,
    inspect,
    last_line_end,
)

SCAN_INTERVAL_S = 0.5
"""Time between two scans of the paths; a rotation in between loses nothing, since the old file is
still open."""
REMEMBERED_FILES = 10_000
"""Absent files whose offsets are kept, in case they come back compressed from another folder."""


class Lines(NamedTuple):
    """Whole lines of one file, in its order."""

    name: str
    """the path it is followed as"""
    header: bytes
    """its `#` directives up to the first record"""
    lines: list[bytes]
    """without newlines, none of them blank; directives are among them"""


class _WatchedPath(NamedTuple):
    """A path to look at."""

    path: str
    name: str
    """the log whose lines it has"""
    since: float
    """when that log began to be followed"""
    is_live: bool
    """its writer writes to it"""


class Follower:
    """Whole lines of files as they grow, each once.

    Args:
        live: globs of files that are written to, each with the time (seconds since 1970) since when
            it is followed. Rotated files are searched beside them: their names continue with a
            number or date.
        rotated: globs of rotated files elsewhere, each with that time. Rotated files older than it
            are skipped.
        offsets: as an earlier Follower returned them.
        is_from_end: live files older than their time are followed from their end on, not from their
            beginning.
        warn: called once for each file that can't be followed, with the reason.
        clock: seconds of any origin, never going back.
    """

    def __init__(
        self,
        live: Mapping[str, float],
        rotated: Mapping[str, float] | None = None,
        offsets: Iterable[FileOffset] = (),
        *,
        is_from_end: bool = False,
        warn: Callable[[str], None] = lambda message: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live, self._rotated = dict(live), dict(rotated or {})
        self._is_from_end, self._warn, self._clock = is_from_end, warn, clock
        self._files: dict[int, FollowedFile] = {}
        self._by_first_record: dict[str, FollowedFile] = {}
        self._by_inode: dict[tuple[int, int], FollowedFile] = {}
        for offset in sorted(offsets, key=lambda offset: offset.number):
            self._add(offset)
        self._reported = {number: file.offset for number, file in self._files.items()}
        self._names = {file.offset.name for file in self._files.values()}
        self._statuses: dict[str, FileStatus] = {}
        """path → what the last scan saw there"""
        self._next_scan = self._clock()
        self._round = 0
        """which name is read first"""
        self._warned: set[str] = set()

    def read(self, limit: int = 1 << 20) -> list[Lines]:
        """Lines that are there now, little more than `limit` bytes of them; empty without news.

        The names take turns, so that a busy log does not keep the others waiting.
        """
        if self._clock() >= self._next_scan:
            self._scan()
        names = sorted({file.offset.name for file in self._files.values() if file.is_present})
        self._round += 1
        blocks: list[Lines] = []
        for index in range(len(names)):
            for block in self._read_name(names[(self._round + index) % len(names)]):
                blocks.append(block)
                limit -= sum(map(len, block.lines))
            if limit <= 0:
                break
        return blocks

    def changes(self) -> dict[int, FileOffset | None]:
        """Offsets that differ from those of the last call; None: the file was forgotten."""
        now = {number: file.offset for number, file in self._files.items()}
        changed: dict[int, FileOffset | None] = {
            number: offset for number, offset in now.items() if self._reported.get(number) != offset
        }
        changed |= {number: None for number in self._reported if number not in now}
        self._reported = now
        return changed

    @property
    def behind_bytes(self) -> int:
        """Bytes on the disk that were not returned yet."""
        return sum(file.behind_bytes for file in self._files.values())

    @property
    def cut_lines(self) -> int:
        """Lines so far that were too long: only their beginning was returned."""
        return sum(file.cut_lines for file in self._files.values())

    def close(self) -> None:
        """Closes all files."""
        for file in self._files.values():
            file.close()

    def _read_name(self, name: str) -> Iterator[Lines]:
        """A block of the oldest file of a name that has one, and of the next file when that was the
        last block."""
        files = [
            file for file in self._files.values() if file.offset.name == name and file.is_present
        ]
        for file in files:
            try:
                lines = file.read()
            except ContentReplaced:
                self._release(file)
                self._next_scan = self._clock()
                return
            except FileNotFoundError:
                self._next_scan = self._clock()
                return
            except (CorruptGzip, OSError) as error:
                self._warn_once(f"{file.path}: {error}")
                continue
            if lines:
                yield Lines(name, file.directives, lines)
            if not file.is_at_end:
                return

    def _scan(self) -> None:
        """Finds out what is at each path: a known file, a moved or compressed one, a copy, or a new
        one."""
        self._next_scan = self._clock() + SCAN_INTERVAL_S
        unknown: list[tuple[_WatchedPath, FileStatus]] = []
        present: dict[int, FollowedFile] = {}
        for path, status in list(self._inspected_paths()):
            file = self._by_inode.get(status.identity)
            if file is not None and not _has_first_record(status, file):
                self._release(file)
                file = None
            if file is None:
                unknown.append((path, status))
            elif file.offset.number not in present:
                file.locate(status, path.is_live)
                present[file.offset.number] = file
        oldest_first = sorted(unknown, key=lambda pair: (pair[1].stat.st_mtime_ns, pair[0].path))
        for path, status in oldest_first:
            self._identify(path, status, present)
        for number, file in self._files.items():
            if number not in present:
                file.locate(None, is_live=False)
        self._forget_absent(present)

    def _identify(
        self, path: _WatchedPath, status: FileStatus, present: dict[int, FollowedFile]
    ) -> None:
        """Handles an unknown inode: a known file that was moved or compressed, a copy of one that
        is present, or a new file."""
        if status.first_record is None:
            return
        digest = status.first_record.digest
        file = self._by_first_record.get(digest) or self._add_new(path, status, digest)
        if file.offset.number in present or file.is_busy:
            return
        self._release(file)
        file.move(*status.identity)
        self._by_inode[status.identity] = file
        file.locate(status, path.is_live)
        present[file.offset.number] = file

    def _add_new(self, path: _WatchedPath, status: FileStatus, digest: str) -> FollowedFile:
        """Adds a file; one that is older than its log has been followed begins at its end."""
        is_old = status.stat.st_mtime < path.since and (self._is_from_end or not path.is_live)
        start = last_line_end(status.path) if is_old and not status.is_gzip else 0
        number = max(self._files, default=0) + 1
        is_whole = is_old and not path.is_live
        return self._add(FileOffset(number, path.name, digest, *status.identity, start, is_whole))

    def _add(self, offset: FileOffset) -> FollowedFile:
        file = self._files[offset.number] = FollowedFile(offset, self._clock)
        self._by_first_record[offset.first] = file
        self._by_inode[offset.device, offset.inode] = file
        return file

    def _release(self, file: FollowedFile) -> None:
        """Closes a file that is not where it was."""
        file.close()
        inode = (file.offset.device, file.offset.inode)
        if self._by_inode.get(inode) is file:
            del self._by_inode[inode]

    def _forget_absent(self, present: Mapping[int, FollowedFile]) -> None:
        """Forgets the oldest absent files beyond REMEMBERED_FILES."""
        absent = [
            file
            for number, file in self._files.items()
            if number not in present and not file.is_present
        ]
        for file in absent[: max(0, len(absent) - REMEMBERED_FILES)]:
            self._release(file)
            del self._files[file.offset.number]
            self._by_first_record.pop(file.offset.first, None)

    def _inspected_paths(self) -> Iterator[tuple[_WatchedPath, FileStatus]]:
        """What is at each watched path; what can't be read is left out with a warning."""
        before, self._statuses = self._statuses, {}
        for path in self._watched_paths():
            if path.path in self._statuses:
                continue
            try:
                path_stat = os.stat(path.path)
                if not stat.S_ISREG(path_stat.st_mode):
                    continue
                status = before.get(path.path)
                if status is None or status.change_key != change_key(path_stat):
                    status = inspect(path.path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, zlib.error) as error:
                self._warn_once(f"{path.path}: {error}")
                continue
            self._statuses[path.path] = status
            yield path, status

    def _watched_paths(self) -> Iterator[_WatchedPath]:
        """Paths to look at, those that are written to first."""
        live = {path: since for pattern, since in self._live.items() for path in glob.glob(pattern)}
        for path, since in live.items():
            yield _WatchedPath(path, path, since, is_live=True)
        literal = {pattern for pattern in self._live if not glob.has_magic(pattern)}
        self._names |= live.keys() | literal
        listings: dict[str, list[str]] = {}
        for name in sorted(self._names):
            first_since = self._followed_since(name)
            if first_since is None:
                continue
            for path in _rotated_beside(name, listings):
                yield _WatchedPath(path, name, first_since, is_live=False)
        for pattern, since in self._rotated.items():
            for path in glob.glob(pattern):
                yield _WatchedPath(path, path, since, is_live=False)

    def _followed_since(self, name: str) -> float | None:
        """Since when a log is followed, by the first glob that it matches."""
        for pattern, since in self._live.items():
            if pattern == name or fnmatch.fnmatch(name, pattern):
                return since
        return None

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            self._warn(message)


def _has_first_record(status: FileStatus, file: FollowedFile) -> bool:
    return status.first_record is not None and status.first_record.digest == file.offset.first


def _rotated_beside(name: str, listings: dict[str, list[str]]) -> Iterator[str]:
    """Rotated files of a log in its folder: `eve.json.1.gz`, `eve.json-20261121`,
    `conn.2026-11-21-10-00-00.log`. `listings` caches the contents of folders."""
    folder, base = os.path.split(name)
    stem, suffix = os.path.splitext(base)
    if folder not in listings:
        try:
            listings[folder] = os.listdir(folder or ".")
        except OSError:
            listings[folder] = []
    patterns = {
        f"{glob.escape(base)}[-.][0-9]*",
        f"{glob.escape(stem)}[-.][0-9]*{glob.escape(suffix)}*",
    }
    for pattern in patterns:
        for match in fnmatch.filter(listings[folder], pattern):
            yield os.path.join(folder, match)
