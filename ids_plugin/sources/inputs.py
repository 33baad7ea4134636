"""Finds and opens inputs: files, directories, globs, standard input; decompresses; tells kinds
apart by content."""

from __future__ import annotations

import bz2
import fnmatch
import glob
import io
import lzma
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from ids_plugin import registry
from ids_plugin.config import Elasticsearch
from ids_plugin.elastic.paging import SCHEME
from ids_plugin.errors import InputError
from ids_plugin.schema.flow import DEFAULT_SENSOR, empty
from ids_plugin.schema.packet_kinds import describe_kinds, unmeasured_kinds
from ids_plugin.schema.reject import WHOLE, Reject
from ids_plugin.sources import DEFAULT_OPTIONS, Input, Read, ReadOptions, Source
from ids_plugin.sources.elasticsearch import Index
from ids_plugin.sources.readers.lines import HEAD

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh"
UNREAD_COMPRESSIONS = {
    b"\x04\x22\x4d\x18": "LZ4",
    b"\x1f\x9d": "compress (.Z)",
    b"LZIP": "lzip",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}
"""Compressions that aren't read, by the bytes they begin with."""
BZIP2_BLOCK = b"1AY&SY"
"""How the first block of a bzip2 stream begins, behind four bytes."""
XZ_MEMORY_BYTES = 128 << 20
"""What an xz stream may ask for: its largest preset takes 65 MiB."""
FIRST_LIKELY_TIME = datetime(1990, 1, 1, tzinfo=UTC)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SHOWN = 16


class Damage(NamedTuple):
    """Why a compressed input ends early."""

    reason: str
    place: str
    detail: str


class _Unpacked(io.RawIOBase):
    """Decompressed bytes of a gzip, zstd, xz or bzip2 stream; damage ends it and is kept, what came
    before is given."""

    def __init__(self, raw: BinaryIO, start: bytes, make: Callable[[], Any], feed: int) -> None:
        self._raw, self._pending, self._make, self._feed = raw, start, make, feed
        self._unit = make()
        self._begun = False
        self._out = b""
        self._read = len(start)
        self.damage: Damage | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        while not self._out and self.damage is None and self._step():
            pass
        count = min(len(view), len(self._out))
        view[:count] = self._out[:count]
        self._out = self._out[count:]
        return count

    def _step(self) -> bool:
        """Unpacks one more piece; False at the end."""
        if not self._pending:
            self._pending = self._raw.read(HEAD)
            self._read += len(self._pending)
        if not self._pending:
            if self._begun:
                self.damage = Damage(
                    "cut_off", f"byte {self._read}", "the compressed data ends before its end mark"
                )
            return False
        piece, self._pending = self._pending[: self._feed], self._pending[self._feed :]
        if not self._begun and not piece.strip(b"\0"):
            return True
        self._begun = True
        try:
            self._out = self._unit.decompress(piece)
        except (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, ValueError) as error:
            self.damage = Damage(
                "bad_compression", f"byte {self._read - len(self._pending)}", str(error)
            )
            return False
        if self._unit.eof:
            self._pending = self._unit.unused_data + self._pending
            self._unit, self._begun = self._make(), False
        return True

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Joined(io.RawIOBase):
    """The bytes read ahead, then the rest of the stream."""

    def __init__(self, head: bytes, rest: io.RawIOBase | BinaryIO, keep_open: bool) -> None:
        self._head, self._rest, self._keep_open = head, rest, keep_open

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        if self._head:
            count = min(len(view), len(self._head))
            view[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        block = self._rest.read(len(view)) or b""
        view[: len(block)] = block
        return len(block)

    @property
    def damage(self) -> Damage | None:
        """What is wrong with the compressed data, once read to there."""
        return getattr(self._rest, "damage", None)

    def close(self) -> None:
        if not self.closed and not self._keep_open:
            self._rest.close()
        super().close()


class Opened(NamedTuple):
    """An input and who reads it; None: it is of no known kind, or can't be opened, which `error`
    says."""

    input: Input
    source: Source | None
    error: InputError | None = None

    @property
    def kind(self) -> str:
        """Name of the plugin that reads it."""
        return self.source.name if self.source else "unknown"


def read_inputs(
    specs: Sequence[str],
    *,
    batch_rows: int,
    stdin: BinaryIO,
    sensors: Sequence[tuple[str, str]] = (),
    options: ReadOptions = DEFAULT_OPTIONS,
    elasticsearch: Callable[[], Elasticsearch] = Elasticsearch,
) -> Iterator[Read]:
    """All that the inputs hold, one input after the other; one that can't be read beside others
    that can is a reject.

    Args:
        specs: files, directories, globs, `-`, `elasticsearch:URL/INDEX`.
        batch_rows: records a step.
        stdin: what `-` reads.
        sensors: (name, glob of file names): the first that matches names the input's sensor.
        options: how every input is read.
        elasticsearch: gives the settings of indices' servers, but for the URL.

    Raises:
        InputError: none of them could be read; the first one's reason. UsageError, ConfigError,
            MissingExtraError, ServiceError: an index can't be read as things are.
    """
    failed: list[InputError] = []
    records = 0
    for opened in open_inputs(
        specs, stdin=stdin, sensors=sensors, options=options, elasticsearch=elasticsearch
    ):
        tally = _Tally()
        with opened.input.stream:
            try:
                for step in _steps(opened, batch_rows):
                    records += step.read
                    tally.add(step)
                    yield replace(
                        step,
                        warnings=(*step.warnings, *tally.early_times(step, opened.input.name)),
                        source=step.source or opened.kind,
                        sensor=opened.input.sensor,
                    )
            except (InputError, OSError) as error:
                why = (
                    error
                    if isinstance(error, InputError)
                    else _cannot(opened.input.name, error, "read")
                )
                failed.append(why)
                reason = "refused" if why is error and not opened.error else "unreadable"
                reject = Reject(opened.input.name, WHOLE, reason, why.message, "")
                yield Read(empty(), 1, (reject,), source=opened.kind, sensor=opened.input.sensor)
                continue
        why_nothing = tally.why_nothing(opened, is_named=opened.input.name in specs)
        if why_nothing:
            warning = Reject(opened.input.name, WHOLE, "gave_nothing", why_nothing, "")
            yield Read(
                empty(), 0, warnings=(warning,), source=opened.kind, sensor=opened.input.sensor
            )
    if failed and not records:
        raise failed[0]


@dataclass
class _Tally:
    """What one input gave."""

    flows: int = 0
    rejected: int = 0
    first_reject: Reject | None = None
    out_of_scope: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    has_early_times: bool = False

    def early_times(self, step: Read, name: str) -> tuple[Reject, ...]:
        """The warning that times lie before 1990, once."""
        first = step.flows["ts"].min() if len(step.flows) else None
        if self.has_early_times or not isinstance(first, datetime) or first >= FIRST_LIKELY_TIME:
            return ()
        self.has_early_times = True
        detail = f"times before 1990, such as {first:%Y-%m-%d %H:%M:%S}: a clock that wasn't set?"
        return (Reject(name, "times", "early_times", detail, ""),)

    def add(self, step: Read) -> None:
        self.flows += len(step.flows)
        self.rejected += len(step.rejects)
        self.first_reject = self.first_reject or next(iter(step.rejects), None)
        self.out_of_scope.update(step.out_of_scope)
        self.notes.update(step.notes)

    def why_nothing(self, opened: Opened, *, is_named: bool) -> str:
        """Why the input gave no flow, for a person; empty where it did, or had none to give."""
        if self.flows:
            return ""
        packets = self.notes["packets"]
        if packets:
            kinds = unmeasured_kinds(self.notes)
            kinds |= {"rejected": self.rejected} if self.rejected and not kinds else {}
            return f"{packets:,} packets, 0 measured: {describe_kinds(kinds)}"
        beside = self.out_of_scope.total()
        if self.first_reject and not beside:
            first = self.first_reject
            return (
                f"all of its {self.rejected:,} records were rejected; "
                f"the first, {first.place}: {first.reason}: {first.detail}"
            )
        if beside and is_named:
            what = "flow events" if opened.kind == "suricata" else "connections"
            return f"0 flows judged: it has no {what} ({describe_kinds(self.out_of_scope)})"
        return ""


def _steps(opened: Opened, batch_rows: int) -> Iterator[Read]:
    source = opened.input
    records = 0
    if opened.error:
        raise opened.error
    if opened.source is None:
        yield Read(empty(), 0, notes={"empty_inputs" if not source.head else "unknown_inputs": 1})
    else:
        for step in opened.source.read(source, batch_rows):
            records += step.read
            yield step
    damage: Damage | None = getattr(getattr(source.stream, "raw", None), "damage", None)
    if damage and not records:
        raise InputError(f"can't be decompressed: {damage.detail}", location=source.name)
    if damage:
        yield Read(
            empty(), 1, (Reject(source.name, damage.place, damage.reason, damage.detail, ""),)
        )


def open_inputs(
    specs: Sequence[str],
    *,
    stdin: BinaryIO,
    sensors: Sequence[tuple[str, str]] = (),
    options: ReadOptions = DEFAULT_OPTIONS,
    elasticsearch: Callable[[], Elasticsearch] = Elasticsearch,
) -> Iterator[Opened]:
    """Opens inputs one by one; the caller closes `input.stream`. Members of a directory come sorted
    by path.

    An `error` have: what isn't there or may not be read, a file named on its own (not found in a
    directory or by a glob) that is of no known kind, and a directory or glob in which nothing is of
    a known kind.
    """
    plugins: tuple[Source, ...] = registry.load_all("sources")
    for spec in specs:
        if spec.startswith(SCHEME):
            source = Input(spec, io.BytesIO(), b"", _sensor(spec, sensors), options)
            yield Opened(source, Index(elasticsearch()))
            continue
        known = 0
        named, paths, missing = _paths(spec)
        for path in paths:
            opened = _opened(path, plugins, sensors, options, stdin, named)
            known += bool(opened.source or opened.error or not opened.input.head)
            yield opened
        if paths and not known:
            missing = [_nothing(spec, f"nothing of a known kind among {len(paths)} files", plugins)]
        for error in missing:
            yield _closed(error.location or spec, error, sensors)


def _nothing(spec: str, what: str, plugins: Sequence[Source]) -> InputError:
    return InputError(
        what, location=spec, hint=f"known kinds: {', '.join(plugin.name for plugin in plugins)}"
    )


def _closed(path: str, error: InputError, sensors: Sequence[tuple[str, str]]) -> Opened:
    """What couldn't be opened."""
    name = shown_name(path)
    return Opened(Input(name, io.BytesIO(), b"", _sensor(path, sensors)), None, error)


def _paths(spec: str) -> tuple[bool, list[str], list[InputError]]:
    """Whether the spec names one input, the paths it stands for, and why there are none or not all
    of them."""
    if spec != "-" and os.path.isdir(spec):
        return False, *_members(spec)
    if spec != "-" and not os.path.lexists(spec) and glob.has_magic(spec):
        files = sorted(path for path in glob.glob(spec, recursive=True) if not os.path.isdir(path))
        return False, files, [] if files else [InputError("no file matches", location=spec)]
    return True, [spec], []


def _members(folder: str) -> tuple[list[str], list[InputError]]:
    """Regular files below a folder, hidden ones left out, sorted; and the folders that can't be
    read."""
    closed: list[InputError] = []
    members: list[str] = []
    walked = {os.path.realpath(folder)}
    for path, folders, files in os.walk(
        folder,
        onerror=lambda error: closed.append(_cannot(error.filename, error)),
        followlinks=True,
    ):
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if _is_new_folder(os.path.join(path, name), walked)]
        for name in sorted(files):
            member = os.path.join(path, name)
            if not name.startswith(".") and os.path.isfile(member):
                members.append(member)
    if not members and not closed:
        closed = [InputError("an empty directory", location=folder)]
    return sorted(members), closed


def _is_new_folder(path: str, walked: set[str]) -> bool:
    """Whether a folder is to be walked: links lead outside of what is walked anyway, and once."""
    real = os.path.realpath(path)
    is_inside = any(Path(real).is_relative_to(folder) for folder in walked)
    if os.path.islink(path) and (is_inside or any(Path(f).is_relative_to(real) for f in walked)):
        return False
    if os.path.islink(path):
        walked.add(real)
    return True


def _cannot(path: str, error: OSError, what: str = "opened") -> InputError:
    hints = {
        FileNotFoundError: "check the path",
        PermissionError: "check the permissions of the file and the folders above it",
    }
    why = (error.strerror or str(error)).lower()
    return InputError(f"can't be {what}: {why}", location=path, hint=hints.get(type(error)))


def _opened(
    path: str,
    plugins: Sequence[Source],
    sensors: Sequence[tuple[str, str]],
    options: ReadOptions,
    stdin: BinaryIO,
    named: bool,
) -> Opened:
    try:
        raw = stdin if path == "-" else _file(path)
        head, stream = _stream(raw, keep_open=path == "-")
    except OSError as error:
        return _closed(path, _cannot(path, error), sensors)
    source = Input(shown_name(path), stream, head, _sensor(path, sensors), options)
    sure, plugin = max(
        ((candidate.sniff(head), candidate) for candidate in plugins), key=lambda pair: pair[0]
    )
    if head and sure > 0:
        return Opened(source, plugin)
    compression = _unread_compression(head)
    if compression and named:
        why = InputError(
            f"compressed with {compression}, which isn't read",
            location=path,
            hint="decompress it first; .gz, .zst, .xz and .bz2 are read",
        )
        return Opened(source, None, why)
    if head and named:
        return Opened(
            source, None, _nothing(path, f"of no known kind: it begins with {_seen(head)}", plugins)
        )
    return Opened(source, None)


def _unread_compression(head: bytes) -> str | None:
    return next(
        (name for start, name in UNREAD_COMPRESSIONS.items() if head.startswith(start)), None
    )


def shown_name(path: str) -> str:
    """A path as text that can be written: bytes that aren't UTF-8 as `\\xfc`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _file(path: str) -> BinaryIO:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a directory")
    return Path(path).open("rb")


def _sensor(path: str, sensors: Sequence[tuple[str, str]]) -> str:
    for name, pattern in sensors:
        if fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(os.path.basename(path), pattern):
            return name
    return DEFAULT_SENSOR


def _stream(raw: BinaryIO, keep_open: bool) -> tuple[bytes, BinaryIO]:
    """The first bytes and the stream from its start on, both decompressed."""
    start = _ahead(raw)
    rest: io.RawIOBase | BinaryIO = raw
    head = start
    if start.startswith(GZIP):
        rest = _Unpacked(raw, start, lambda: zlib.decompressobj(31), 1 << 14)
    elif start.startswith(ZSTD):
        rest = _Unpacked(raw, start, lambda: zstandard.ZstdDecompressor().decompressobj(), 1 << 11)
    elif start.startswith(XZ):
        rest = _Unpacked(raw, start, _xz_decompressor, 1 << 11)
    elif start.startswith(BZIP2) and start[4:10] == BZIP2_BLOCK:
        rest = _Unpacked(raw, start, bz2.BZ2Decompressor, 1 << 9)
    if rest is not raw:
        head = _ahead(rest)
    cleaned = _without_leading_noise(head, rest)
    if rest is raw and cleaned is head and not keep_open and raw.seekable():
        raw.seek(0)
        return head, raw
    head = cleaned
    joined = _Joined(head, rest, keep_open)
    return head, io.BufferedReader(joined, HEAD)


def _without_leading_noise(head: bytes, rest: io.RawIOBase | BinaryIO) -> bytes:
    """The first bytes without NULs (a log cut by copytruncate while it was written) and byte order
    mark; read on until HEAD bytes are there again. An input of nothing else keeps them: it isn't
    empty, it is of no known kind."""
    while True:
        cleaned = head.lstrip(b"\0").removeprefix(BYTE_ORDER_MARK)
        if cleaned is head or len(cleaned) == len(head):
            return head
        following = _ahead(rest, HEAD - len(cleaned))
        if not cleaned and not following:
            return head
        if cleaned:
            return cleaned + following
        head = following


def _xz_decompressor() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)


def _ahead(stream: io.RawIOBase | BinaryIO, wanted: int = HEAD) -> bytes:
    """Up to so many bytes, fewer only at the end."""
    blocks: list[bytes] = []
    while wanted and (block := stream.read(wanted)):
        blocks.append(block)
        wanted -= len(block)
    return b"".join(blocks)


def _seen(head: bytes) -> str:
    """The first bytes for a person."""
    if not head:
        return "nothing"
    start = head[:SHOWN]
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
    return repr(start.decode()) if printable else f"bytes {start.hex(' ')}"
