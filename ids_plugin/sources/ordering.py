"""Orders flows by the time they were known, in bounded memory, the same whatever order files and
lines came in.

Flows are held until there are more than HELD; then all go to a temporary file in batches, with the
least and greatest key of each. Reading back starts with the batch that has the least key, and gives
the flows whose key is below that of every batch not yet read. A log that is nearly in order, as
Zeek's are, needs few batches at a time. Where too many would be needed at once, the file is first
rewritten as sorted runs in smaller batches, of which only one per run is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import ipc

from ids_plugin.errors import InputError
from ids_plugin.schema.flow import CONN_SCHEMA, known
from ids_plugin.sources import Read
from ids_plugin.sources.facts import FactStore
from ids_plugin.sources.local_networks import Locality

HELD = 1 << 15
"""Flows in memory at most while reading, and while reading back: about 10 MB."""
BATCH = 1 << 13
"""Flows of one batch of the temporary file: large enough for speed, small against HELD."""
SMALLEST = 1 << 4
"""Flows of a sorted run's batch at least: HELD / SMALLEST runs of HELD flows can be merged at once,
67 million."""
KNOWN = "_known"
TIES = ("uid", *(name for name in CONN_SCHEMA if name not in ("uid", "origin")), "origin")
Key = tuple[int, str]


def ordered(
    reads: Iterable[Read],
    *,
    batch_rows: int,
    spill_dir: Path | None = None,
    locality: Locality | None = None,
    facts: FactStore | None = None,
) -> Iterator[pl.DataFrame]:
    """All flows of `reads` by (known time, uid, content), in frames of `batch_rows`; local flags
    filled.

    Takes all reads before it gives the first frame.

    Args:
        reads: as the sources give them.
        batch_rows: rows of every frame but the last.
        spill_dir: where the temporary folder is made; the system's own place if None.
        locality: watches all flows, then fills their local flags.
        facts: takes in what other logs say of flows, then fills their fact columns.

    Raises:
        InputError: the disk with the temporary folder is full or can't be written.
    """
    locality, facts = locality or Locality(), facts or FactStore()
    with tempfile.TemporaryDirectory(prefix="ids-plugin-", dir=spill_dir) as folder:
        sorter = _Sorter(Path(folder))
        for step in reads:
            facts.add(step.facts)
            if step.flows.height:
                locality.see(step.flows)
                sorter.add(step.flows)
        for frame in _rebatched(sorter.merged(), batch_rows):
            yield facts.fill(locality.fill(frame))


def as_scanned(flows: pl.DataFrame) -> pl.DataFrame:
    """The flows of one sensor, all in memory, in the order and with the local flags of a scan."""
    locality = Locality()
    locality.see(flows)
    return locality.fill(in_order(flows).drop(KNOWN))


def in_order(flows: pl.DataFrame) -> pl.DataFrame:
    """Flows by (known time, uid, content, origin), with the column `_known` (Int64 µs since the
    epoch)."""
    flows = flows.rechunk().with_columns(known().dt.epoch("us").alias(KNOWN))
    keys = flows.select(KNOWN, "uid").with_row_index("row").sort(KNOWN, "uid")
    same = keys.select(
        (pl.struct(KNOWN, "uid") == pl.struct(KNOWN, "uid").shift(1)).fill_null(False)
    ).to_series()
    rows = keys["row"]
    if same.any():
        tied = (same | same.shift(-1, fill_value=False)).arg_true()
        ties = flows[rows[tied]].with_columns(rows[tied].alias("row")).sort(KNOWN, *TIES)
        rows = rows.scatter(tied, ties["row"])
    return flows[rows]


class _Batch(NamedTuple):
    """A batch of the temporary file."""

    first: Key
    last: Key
    rows: int
    number: int


class _File:
    """A temporary file of batches that can be read in any order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[_Batch] = []
        self._writer: ipc.RecordBatchFileWriter | None = None

    def write(self, frame: pl.DataFrame) -> None:
        """Appends a batch."""
        table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        with _disk(self.path):
            if self._writer is None:
                self._sink = pa.OSFile(str(self.path), "wb")
                options = ipc.IpcWriteOptions(compression="lz4")
                self._writer = ipc.new_file(self._sink, table.schema, options=options)
            self._writer.write_table(table)
        keys = frame.select(KNOWN, "uid")
        first, last = keys.bottom_k(1, by=[KNOWN, "uid"]), keys.top_k(1, by=[KNOWN, "uid"])
        self.batches.append(_Batch(_key(first, 0), _key(last, 0), frame.height, len(self.batches)))

    def close(self) -> None:
        """Ends writing; reading may begin."""
        with _disk(self.path):
            if self._writer is not None:
                self._writer.close()
                self._sink.close()

    def frames(self, batches: Sequence[_Batch]) -> Iterator[pl.DataFrame]:
        """The rows of some batches, in the order asked for."""
        with pa.OSFile(str(self.path), "rb") as source:
            reader = ipc.open_file(source)
            for batch in batches:
                table = pa.Table.from_batches([reader.get_batch(batch.number)])
                yield pl.DataFrame(pl.from_arrow(table))

    @property
    def resident(self) -> int:
        """Rows in memory at most when the batches are read back by their first keys."""
        opened = [(batch.first, 0, batch.rows) for batch in self.batches]
        marks = sorted(opened + [(batch.last, 1, -batch.rows) for batch in self.batches])
        most = now = 0
        for _, _, rows in marks:
            now += rows
            most = max(most, now)
        return most


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Says what a full or unwritable disk means."""
    try:
        yield
    except OSError as error:
        why = (os.strerror(error.errno) if error.errno else str(error)).lower()
        hint = (
            "sorting a log larger than memory needs about a third of its size there; "
            "TMPDIR chooses another place"
        )
        raise InputError(
            f"can't keep flows to sort: {why}", location=str(path.parent), hint=hint
        ) from error


def _key(frame: pl.DataFrame, row: int) -> Key:
    return int(frame[KNOWN][row]), frame["uid"][row] or ""


@dataclass
class _Sorter:
    """Flows held, and the temporary file once there are too many."""

    folder: Path
    held: list[pl.DataFrame] = field(default_factory=list)
    height: int = 0
    file: _File | None = None

    def add(self, flows: pl.DataFrame) -> None:
        """Takes in a Flow frame."""
        self.held.append(flows.with_columns(known().dt.epoch("us").alias(KNOWN)))
        self.height += flows.height
        if self.height >= (BATCH if self.file else HELD):
            self._spill()

    def _spill(self) -> None:
        self.file = self.file or _File(self.folder / "flows.arrow")
        frame = pl.concat(self.held)
        self.held, self.height = [], 0
        for part in frame.iter_slices(BATCH):
            self.file.write(part)

    def merged(self) -> Iterator[pl.DataFrame]:
        """All flows in order, in frames of any size, with KNOWN."""
        if self.file is None:
            if self.held:
                yield in_order(pl.concat(self.held))
                self.held = []
            return
        if self.held:
            self._spill()
        self.file.close()
        if self.file.resident > HELD:
            self.file = _in_runs(self.file, self.folder / "runs.arrow")
        yield from _read_back(self.file)


def _in_runs(file: _File, path: Path) -> _File:
    """The same rows as runs of HELD sorted rows, in batches so small that one of every run fits
    into memory."""
    runs = -(-sum(batch.rows for batch in file.batches) // HELD)
    rows = min(BATCH, max(SMALLEST, HELD // runs))
    sorted_file = _File(path)
    held: list[pl.DataFrame] = []
    for number, frame in enumerate(file.frames(file.batches), 1):
        held.append(frame)
        if sum(part.height for part in held) >= HELD or number == len(file.batches):
            for part in in_order(pl.concat(held)).iter_slices(rows):
                sorted_file.write(part)
            held = []
    sorted_file.close()
    file.path.unlink()
    return sorted_file


def _read_back(file: _File) -> Iterator[pl.DataFrame]:
    """Rows in order: those below the first key of every batch not yet read, again and again."""
    batches = sorted(file.batches)
    held: list[pl.DataFrame] = []
    fresh = 0
    for number, frame in enumerate(file.frames(batches), 1):
        held.append(in_order(frame))
        fresh += frame.height
        if number < len(batches) and fresh < BATCH:
            continue
        fresh = 0
        counts = [
            _below(part, batches[number].first) if number < len(batches) else part.height
            for part in held
        ]
        ready = [part.head(count) for part, count in zip(held, counts, strict=True) if count]
        if ready:
            yield in_order(pl.concat(ready))
        held = [
            part.slice(count)
            for part, count in zip(held, counts, strict=True)
            if count < part.height
        ]


def _below(frame: pl.DataFrame, key: Key) -> int:
    """How many rows of a sorted frame come before `key`."""
    times = frame[KNOWN].to_numpy()
    low, high = (int(np.searchsorted(times, key[0], side)) for side in ("left", "right"))
    same = frame["uid"].slice(low, high - low).fill_null("")
    return low + int((same < key[1]).sum())


def _rebatched(frames: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of exactly `rows`, the last one shorter, without KNOWN."""
    held: list[pl.DataFrame] = []
    height = 0
    for frame in frames:
        held.append(frame.drop(KNOWN))
        height += frame.height
        if height < rows:
            continue
        joined = pl.concat(held)
        whole = height - height % rows
        yield from joined.head(whole).iter_slices(rows)
        held, height = [joined.slice(whole)], height - whole
    if height:
        yield pl.concat(held)
