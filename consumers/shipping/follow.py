"""Follows log files through rotation: by rename, by compression (gzip), by copy and truncation.

A file is known by its first record (the first line that is no `#` directive), whatever it is called and however it is
packed: `eve.json`, later `eve.json.1`, later `eve.json.1.gz` are one file, and so is the copy that copy-truncate makes
of it. So the place where reading goes on is right after any change of names, also one that nobody watched. Two files
that begin with the same line are taken for one; lines of Zeek and Suricata, with their microseconds and ids, never do.
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
    Changed,
    File,
    Look,
    Place,
    Unreadable,
    last_line_end,
    look,
    signature,
)

SCAN_SECONDS = 0.5
"""between two looks at what files there are; a rotation in between loses nothing, the old file is still open"""
REMEMBERED = 10_000
"""files that are no longer there whose places are kept, in case they come back compressed from elsewhere"""


class Lines(NamedTuple):
    """Whole lines of one file, in its order."""

    name: str
    """the path it is followed as"""
    header: bytes
    """its `#` directives up to the first record"""
    lines: list[bytes]
    """without newlines, none of them blank; directives among them"""


class _Path(NamedTuple):
    """A path that concerns us, the name whose lines it has, since when that is followed, whether it is written to."""

    path: str
    name: str
    since: float
    live: bool


class Follower:
    """Whole lines of files as they grow, each once.

    Args:
        live: globs of files that are written to, each with the time (seconds since 1970) since when it is followed.
            Rotated files are looked for beside them: names that go on with a number or date.
        rotated: globs of rotated files elsewhere, each with that time. Rotated files older than it are passed over.
        places: as an earlier Follower gave them.
        from_end: live files older than their time are followed from their end on, not from their beginning.
        complain: told once about each file that can't be followed, and why.
        clock: seconds of any origin, never going back.
    """

    def __init__(
        self,
        live: Mapping[str, float],
        rotated: Mapping[str, float] | None = None,
        places: Iterable[Place] = (),
        *,
        from_end: bool = False,
        complain: Callable[[str], None] = lambda message: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live, self._rotated, self._from_end = dict(live), dict(rotated or {}), from_end
        self._complain, self._clock = complain, clock
        self._files: dict[int, File] = {}
        self._firsts: dict[str, File] = {}
        self._inodes: dict[tuple[int, int], File] = {}
        for place in sorted(places, key=lambda place: place.number):
            self._add(place)
        self._reported = {number: file.place for number, file in self._files.items()}
        self._names = {file.place.name for file in self._files.values()}
        self._looks: dict[str, Look] = {}
        self._next_scan = self._clock()
        self._turn = 0
        self._complained: set[str] = set()

    def read(self, limit: int = 1 << 20) -> list[Lines]:
        """Lines that are there now, little more than `limit` bytes of them; empty when there is nothing new."""
        if self._clock() >= self._next_scan:
            self._scan()
        names = sorted({file.place.name for file in self._files.values() if file.present})
        self._turn += 1
        found: list[Lines] = []
        for at in range(len(names)):
            for lines in self._of(names[(self._turn + at) % len(names)]):
                found.append(lines)
                limit -= sum(map(len, lines.lines))
            if limit <= 0:
                break
        return found

    def changes(self) -> dict[int, Place | None]:
        """Places that differ from what the last call said; None: forgotten."""
        now = {number: file.place for number, file in self._files.items()}
        changed: dict[int, Place | None] = {
            number: place for number, place in now.items() if self._reported.get(number) != place
        }
        changed |= {number: None for number in self._reported if number not in now}
        self._reported = now
        return changed

    @property
    def behind(self) -> int:
        """Bytes that are there and were not given yet, as they lie on the disk."""
        return sum(file.behind for file in self._files.values())

    @property
    def cut(self) -> int:
        """Lines so far that were too long and were given by their beginning."""
        return sum(file.cut for file in self._files.values())

    def close(self) -> None:
        """Closes all files."""
        for file in self._files.values():
            file.close()

    def _of(self, name: str) -> Iterator[Lines]:
        """A block of the oldest file of a name that has one, and of the next one when that was its last."""
        for file in [
            file for file in self._files.values() if file.place.name == name and file.present
        ]:
            try:
                lines = file.read()
            except Changed:
                self._lose(file)
                self._next_scan = self._clock()
                return
            except FileNotFoundError:
                self._next_scan = self._clock()
                return
            except (Unreadable, OSError) as error:
                self._tell(f"{file.path}: {error}")
                continue
            if lines:
                yield Lines(name, file.header, lines)
            if not file.at_end:
                return

    def _scan(self) -> None:
        """Finds out what is at each path: a known file, one that was moved or packed, a copy, a new one."""
        self._next_scan = self._clock() + SCAN_SECONDS
        unknown: list[tuple[_Path, Look]] = []
        present: dict[int, File] = {}
        for path, seen in list(self._looking()):
            file = self._inodes.get(seen.identity)
            if file is not None and (seen.head is None or seen.head.first != file.place.first):
                self._lose(file)
                file = None
            if file is None:
                unknown.append((path, seen))
            elif file.place.number not in present:
                file.see(seen, path.live)
                present[file.place.number] = file
        for path, seen in sorted(
            unknown, key=lambda pair: (pair[1].status.st_mtime_ns, pair[0].path)
        ):
            self._meet(path, seen, present)
        for number, file in self._files.items():
            if number not in present:
                file.see(None, False)
        self._forget(present)

    def _meet(self, path: _Path, seen: Look, present: dict[int, File]) -> None:
        """An inode nobody knows: a known file that was moved or packed, a copy of one that is there, or a new file."""
        if seen.head is None:
            return
        file = self._firsts.get(seen.head.first) or self._new(path, seen, seen.head.first)
        if file.place.number in present or file.busy:
            return
        self._lose(file)
        file.move(*seen.identity)
        self._inodes[seen.identity] = file
        file.see(seen, path.live)
        present[file.place.number] = file

    def _new(self, path: _Path, seen: Look, first: str) -> File:
        old = seen.status.st_mtime < path.since and (self._from_end or not path.live)
        offset = last_line_end(seen.path) if old and not seen.packed else 0
        number = max(self._files, default=0) + 1
        return self._add(
            Place(number, path.name, first, *seen.identity, offset, old and not path.live)
        )

    def _add(self, place: Place) -> File:
        file = self._files[place.number] = File(place, self._clock)
        self._firsts[place.first] = self._inodes[place.device, place.inode] = file
        return file

    def _lose(self, file: File) -> None:
        """The file is not where it was."""
        file.close()
        if self._inodes.get((file.place.device, file.place.inode)) is file:
            del self._inodes[file.place.device, file.place.inode]

    def _forget(self, present: Mapping[int, File]) -> None:
        absent = [
            file
            for number, file in self._files.items()
            if number not in present and not file.present
        ]
        for file in absent[: max(0, len(absent) - REMEMBERED)]:
            self._lose(file)
            del self._files[file.place.number]
            self._firsts.pop(file.place.first, None)

    def _looking(self) -> Iterator[tuple[_Path, Look]]:
        """What is at each path that concerns us; what can't be read is left out and complained about."""
        before, self._looks = self._looks, {}
        for path in self._paths():
            if path.path in self._looks:
                continue
            try:
                status = os.stat(path.path)
                if not stat.S_ISREG(status.st_mode):
                    continue
                seen = before.get(path.path)
                if seen is None or seen.signature != signature(status):
                    seen = look(path.path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, zlib.error) as error:
                self._tell(f"{path.path}: {error}")
                continue
            self._looks[path.path] = seen
            yield path, seen

    def _paths(self) -> Iterator[_Path]:
        """Paths that concern us, those that are written to first."""
        live = {path: since for pattern, since in self._live.items() for path in glob.glob(pattern)}
        yield from (_Path(path, path, since, True) for path, since in live.items())
        self._names |= live.keys() | {
            pattern for pattern in self._live if not glob.has_magic(pattern)
        }
        listed: dict[str, list[str]] = {}
        for name in sorted(self._names):
            since = [
                since
                for pattern, since in self._live.items()
                if pattern == name or fnmatch.fnmatch(name, pattern)
            ]
            for path in _beside(name, listed) if since else ():
                yield _Path(path, name, since[0], False)
        for pattern, time_since in self._rotated.items():
            yield from (_Path(path, path, time_since, False) for path in glob.glob(pattern))

    def _tell(self, message: str) -> None:
        if message not in self._complained:
            self._complained.add(message)
            self._complain(message)


def _beside(name: str, listed: dict[str, list[str]]) -> Iterator[str]:
    """Rotated files of a path in its folder: `eve.json.1.gz`, `eve.json-20261121`, `conn.2026-11-21-10-00-00.log`."""
    folder, base = os.path.split(name)
    stem, suffix = os.path.splitext(base)
    if folder not in listed:
        try:
            listed[folder] = os.listdir(folder or ".")
        except OSError:
            listed[folder] = []
    patterns = {
        f"{glob.escape(base)}[-.][0-9]*",
        f"{glob.escape(stem)}[-.][0-9]*{glob.escape(suffix)}*",
    }
    for pattern in patterns:
        yield from (
            os.path.join(folder, found) for found in fnmatch.filter(listed[folder], pattern)
        )
