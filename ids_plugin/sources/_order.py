"""Orders flows by the time they were known, in bounded memory, the same whatever order files and lines came in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.ipc as ipc

from ids_plugin.errors import InputError
from ids_plugin.schema.flow import SCHEMA, empty, known
from ids_plugin.sources import Read
from ids_plugin.sources._local import Locality

BUFFER = 1 << 16
"""Flows held before a sorted run goes to disk: about 30 MB, twice that while they are sorted."""
STEP_ROWS = 2048
"""Rows of a run in memory at a time while merging."""
FAN_IN = 24
"""Runs merged at once: FAN_IN × STEP_ROWS × about 400 bytes stay below the buffer's size."""
KNOWN = "_known"
TIES = ("uid", *(name for name in SCHEMA if name not in ("uid", "origin")), "origin")
Key = tuple[int, str]


def ordered(
    reads: Iterable[Read], *, batch_rows: int, spill_dir: Path | None = None, locality: Locality | None = None
) -> Iterator[pl.DataFrame]:
    """All flows of `reads` by (known time, uid, content), in frames of `batch_rows`; local flags filled.

    Takes all reads before it gives the first frame. Memory: about twice BUFFER, whatever the number of flows.

    Args:
        reads: as the sources give them.
        batch_rows: rows of every frame but the last.
        spill_dir: where the temporary folder of sorted runs is made; the system's own place if None.
        locality: watches all flows, then fills their local flags.

    Raises:
        InputError: the disk with the temporary folder is full or can't be written.
    """
    locality = locality or Locality()
    with tempfile.TemporaryDirectory(prefix="ids-plugin-", dir=spill_dir) as folder:
        sorter = _Sorter(Path(folder))
        for step in reads:
            if step.flows.height:
                locality.see(step.flows)
                sorter.add(step.flows)
        for frame in _rebatched(sorter.merged(), batch_rows):
            yield locality.fill(frame)


def in_order(flows: pl.DataFrame) -> pl.DataFrame:
    """Flows by (known time, uid, content) with the column `_known` (Int64 µs); a stable total order."""
    keyed = flows.with_columns(known().dt.epoch("us").alias(KNOWN)).sort(KNOWN, maintain_order=True)
    same = keyed[KNOWN].diff().eq_missing(0).fill_null(False)
    tied = same | same.shift(-1, fill_value=False)
    if not tied.any():
        return keyed
    at = pl.int_range(keyed.height, eager=True).filter(tied)
    ties = keyed.filter(tied).sort(KNOWN, *TIES)
    order = pl.concat(
        [
            keyed.with_row_index("_at").filter(~tied),
            ties.with_columns(at.cast(pl.UInt32).alias("_at")).select("_at", *keyed.columns),
        ]
    )
    return order.sort("_at").drop("_at")


@dataclass
class _Run:
    """A sorted run on disk."""

    path: Path
    first: Key
    last: Key


@dataclass
class _Sorter:
    """Sorted runs on disk and the flows not yet sorted."""

    folder: Path
    runs: list[_Run] = field(default_factory=list)
    held: list[pl.DataFrame] = field(default_factory=list)
    size: int = 0
    made: int = 0

    def add(self, flows: pl.DataFrame) -> None:
        self.held.append(flows)
        self.size += flows.height
        if self.size >= BUFFER:
            self._spill()

    def _spill(self) -> None:
        frame = in_order(pl.concat(self.held))
        self.held, self.size = [], 0
        self.runs.append(self._write(_slices(frame, STEP_ROWS)))

    def _write(self, frames: Iterator[pl.DataFrame]) -> _Run:
        path = self.folder / f"{self.made}.arrow"
        self.made += 1
        try:
            first, last = _write_run(path, frames)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            hint = "sorting a log larger than memory needs about its own size there; TMPDIR chooses another place"
            raise InputError(f"can't keep sorted flows: {why}", location=str(self.folder), hint=hint) from error
        return _Run(path, first, last)

    def merged(self) -> Iterator[pl.DataFrame]:
        """All flows in order, in frames of any size."""
        if not self.runs:
            if self.held:
                frame = in_order(pl.concat(self.held)).drop(KNOWN)
                self.held = []
                yield frame
            return
        if self.held:
            self._spill()
        while _overlap(self.runs) > FAN_IN:
            runs = sorted(self.runs, key=lambda run: run.first)
            self.runs = [self._write(_merge(runs[:FAN_IN])), *runs[FAN_IN:]]
            for run in runs[:FAN_IN]:
                run.path.unlink()
        for frame in _merge(self.runs):
            yield frame.drop(KNOWN)


def _write_run(path: Path, frames: Iterator[pl.DataFrame]) -> tuple[Key, Key]:
    keys: list[Key] = []
    writer = None
    with pa.OSFile(str(path), "wb") as sink:
        for frame in frames:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            if writer is None:
                writer = ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(compression="lz4"))
            writer.write_table(table)
            keys[1 if keys else 0 :] = [_key(frame, 0), _key(frame, -1)] if not keys else [_key(frame, -1)]
        if writer is not None:
            writer.close()
    return keys[0], keys[-1]


def _key(frame: pl.DataFrame, row: int) -> Key:
    return int(frame[KNOWN][row]), frame["uid"][row] or ""


def _slices(frame: pl.DataFrame, rows: int) -> Iterator[pl.DataFrame]:
    for at in range(0, frame.height, rows):
        yield frame.slice(at, rows)


def _overlap(runs: list[_Run]) -> int:
    """How many runs are open at once at most while merging."""
    marks = sorted([(run.first, 0) for run in runs] + [(run.last, 1) for run in runs])
    depth = most = 0
    for _, end in marks:
        depth += -1 if end else 1
        most = max(most, depth)
    return most


class _Cursor:
    """A run being read: the rows at hand, and whether more follow."""

    def __init__(self, run: _Run) -> None:
        self._source = pa.OSFile(str(run.path), "rb")
        self._reader = ipc.open_stream(self._source)
        self.rows = empty()
        self.ended = False
        self.more()

    def more(self) -> None:
        """Reads one step further."""
        try:
            batch = self._reader.read_next_batch()
        except StopIteration:
            self.ended = True
            self._source.close()
            return
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
        self.rows = pl.concat([self.rows, frame]) if self.rows.height else frame

    def take(self, cut: Key | None) -> pl.DataFrame:
        """Removes and gives the rows before `cut`, all without one."""
        if cut is None:
            taken, self.rows = self.rows, self.rows.clear()
            return taken
        before = pl.col(KNOWN).lt(cut[0]) | (pl.col(KNOWN).eq(cut[0]) & pl.col("uid").fill_null("").lt(cut[1]))
        count = int(self.rows.select(before.sum()).item())
        taken, self.rows = self.rows.head(count), self.rows.slice(count)
        return taken


def _merge(runs: list[_Run]) -> Iterator[pl.DataFrame]:
    """The runs' rows in order: all before the least key at which a run's rows at hand end, again and again."""
    waiting = sorted(runs, key=lambda run: run.first, reverse=True)
    active: list[_Cursor] = []
    while waiting or active:
        if not active:
            active.append(_Cursor(waiting.pop()))
        cut = _cut(active)
        while waiting and (cut is None or waiting[-1].first <= cut):
            active.append(_Cursor(waiting.pop()))
            cut = _cut(active)
        parts = [part for cursor in active if (part := cursor.take(cut)).height]
        if parts:
            yield parts[0] if len(parts) == 1 else in_order(pl.concat(parts).drop(KNOWN))
        for cursor in active:
            if not cursor.ended and (cursor.rows.height == 0 or (cut is not None and _key(cursor.rows, -1) == cut)):
                cursor.more()
        active = [cursor for cursor in active if cursor.rows.height or not cursor.ended]


def _cut(active: list[_Cursor]) -> Key | None:
    """Up to which key (excluded) all rows are at hand; None: all of them."""
    ends = [_key(cursor.rows, -1) for cursor in active if not cursor.ended]
    return min(ends) if ends else None


def _rebatched(frames: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of exactly `rows`, the last one shorter."""
    held: list[pl.DataFrame] = []
    height = 0
    for frame in frames:
        held.append(frame)
        height += frame.height
        if height < rows:
            continue
        joined = pl.concat(held)
        whole = height - height % rows
        yield from _slices(joined.head(whole), rows)
        held, height = [joined.slice(whole)], height - whole
    if height:
        yield pl.concat(held)
