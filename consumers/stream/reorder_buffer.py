"""Restores the order in which sensors wrote their records, from batches that arrive in any order.

Numbered records of a run (`ids-seq`) are released in the order of their numbers: a missing number
holds back those behind it, and a number that comes again is a duplicate. Records without numbers
are released in the order of (time, partition, offset), once every partition of their topic has been
read beyond that time. The watermarks between the batches say how far that is. They carry the wall
clock of their writer, so the same messages give the same flows in the same order whenever they are
read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.schema.flow import CONN_SCHEMA, with_facts, with_sensor_flags
from ids_plugin.sources.flow_batches import NOTHING, Batch, Range, Watermarks

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
MAX_LEAP_NUMBERS = 1 << 24
"""Distance between the next number and the furthest one seen: 16 MB of flags. A sender that leaps
further has lost what lies between."""
REMEMBERED_RUNS = 64
"""Runs of a sensor that are remembered after they ended or fell silent, to recognise duplicates."""
REMEMBERED_LOST_RANGES = 1_000
"""Ranges of numbers given up that are remembered for each run: late records are told from
duplicates by them."""
TIME_ORDER = ("at", "partition", "offset")
"""Columns that order records without numbers."""


@dataclass(frozen=True)
class ReorderLimits:
    """How long records wait for records before them; times in ms of the watermarks' clock."""

    visibility_ms: int = 1_000
    """a record is taken to be visible to readers this long after its time"""
    idle_partition_ms: int = 30_000
    """a partition without a watermark for so long holds nothing back"""
    gap_timeout_ms: int = 300_000
    """a missing number is given up when all partitions are read so far beyond the record behind it;
    a producer of the usual settings has given up after 120 s"""
    max_held_records: int = 1_000_000
    """records held back at most, for each run, and for each sensor and topic without numbers"""


class Released(NamedTuple):
    """What follows next of a sensor."""

    sensor: str
    flows: pl.DataFrame
    """schema.flow.SCHEMA, without facts; may be empty"""
    duplicates: dict[str, int]
    """numbered records that came again, by the flows' `source`; they aren't among `flows`"""
    is_end: bool
    """the sensor's input ends behind these flows"""


class ReorderBuffer:
    """Takes the messages of one partition of `ids.flows` and releases flows in their sensors'
    order."""

    def __init__(self, limits: ReorderLimits | None = None) -> None:
        self._limits = limits or ReorderLimits()
        self._clock = _WatermarkClock()
        self._runs: dict[tuple[str, str], _Run] = {}
        """(sensor, run) → its numbered records"""
        self._unnumbered: dict[tuple[str, str], _HeldRows] = {}
        """(sensor, topic) → its records without numbers"""
        self.counts: Counter[str] = Counter()
        """`duplicate`; `given_up`: missing numbers no longer waited for; `late`: came after that,
        or after records without numbers that are younger"""

    def add(self, message: Batch | Watermarks) -> list[Released]:
        """Takes the next message of the partition; what can be released now."""
        if isinstance(message, Batch):
            released = self._add_numbered(message) if message.run else self._add_unnumbered(message)
            return [released] if released else []
        self._clock.advance(message)
        waiting = sorted(
            (run for run in self._runs.values() if run.is_waiting), key=lambda run: run.since
        )
        from_runs = [self._flush(run) for run in waiting]
        from_pools = [
            self._release_due(*key) for key, pool in self._unnumbered.items() if pool.rows
        ]
        return [released for released in (*from_runs, *from_pools) if released]

    @property
    def held_records(self) -> int:
        """Records held back."""
        numbered = sum(run.held.rows for run in self._runs.values())
        return numbered + sum(pool.rows for pool in self._unnumbered.values())

    def state(self) -> dict[str, Any]:
        """The checkpoint of the buffer: plain values, numpy arrays and frames, for `restore`."""
        return {
            "clock": self._clock.state(),
            "runs": [run.state() for run in self._runs.values()],
            "loose": [
                [*key, pool.released_up_to, pool.joined()] for key, pool in self._unnumbered.items()
            ],
            "counts": dict(self.counts),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues where `state` was taken."""
        self._clock = _WatermarkClock.from_state(state["clock"])
        self._runs = {(run["sensor"], run["run"]): _Run.from_state(run) for run in state["runs"]}
        self._unnumbered = {
            (sensor, topic): _HeldRows(TIME_ORDER, rows, released_up_to)
            for sensor, topic, released_up_to, rows in state["loose"]
        }
        self.counts = Counter(state["counts"])

    def _watermark(self, topic: str) -> int | None:
        return self._clock.watermark(topic, self._limits)

    def _add_numbered(self, batch: Batch) -> Released | None:
        run = self._runs.get((batch.sensor, batch.run)) or self._new_run(batch)
        run.since = min(run.since, batch.since)
        added = run.add(batch)
        self.counts["duplicate"] += added.duplicate_sources.len()
        self.counts["late"] += added.late.height
        by_source = Counter(added.duplicate_sources.fill_null("").to_list())
        return self._flush(run, [*added.before_leap, added.late], by_source)

    def _new_run(self, batch: Batch) -> _Run:
        silent = [
            key for key, run in self._runs.items() if key[0] == batch.sensor and not run.is_waiting
        ]
        for key in silent[: max(0, len(silent) - REMEMBERED_RUNS + 1)]:
            del self._runs[key]
        run = _Run(batch.sensor, batch.topic, batch.run, batch.since)
        self._runs[batch.sensor, batch.run] = run
        return run

    def _flush(
        self,
        run: _Run,
        before: list[pl.DataFrame] | None = None,
        duplicates: dict[str, int] | None = None,
    ) -> Released | None:
        """What of a run can be released, behind the frames `before`."""
        given_up = run.given_up
        frames = [*(before or []), *run.flush(self._watermark(run.topic), self._limits)]
        self.counts["given_up"] += run.given_up - given_up
        return _released(run.sensor, frames, duplicates or {}, run.ends_now())

    def _add_unnumbered(self, batch: Batch) -> Released | None:
        key = (batch.sensor, batch.topic)
        pool = self._unnumbered.setdefault(key, _HeldRows(TIME_ORDER))
        self.counts["late"] += int((batch.rows["at"] <= pool.released_up_to).sum())
        pool.add(batch.rows)
        return self._release_due(*key)

    def _release_due(self, sensor: str, topic: str) -> Released | None:
        """Records without numbers that the watermark has passed."""
        pool, watermark = self._unnumbered[sensor, topic], self._watermark(topic)
        is_full = pool.rows > self._limits.max_held_records
        pool.released_up_to = max(
            pool.released_up_to,
            pool.median_key() if is_full else -1,
            -1 if watermark is None else watermark,
        )
        return _released(sensor, [pool.take(pool.released_up_to + 1)], {}, is_end=False)


def _released(
    sensor: str, frames: list[pl.DataFrame], duplicates: dict[str, int], is_end: bool
) -> Released | None:
    filled = [frame for frame in frames if frame.height]
    if not (filled or duplicates or is_end):
        return None
    rows = filled[0] if len(filled) == 1 else pl.concat([NOTHING, *filled])
    return Released(sensor, with_facts(rows[list(CONN_SCHEMA)]), duplicates, is_end)


@dataclass
class _WatermarkClock:
    """What the watermarks say. Times in ms; partitions as `topic/partition`."""

    now: int = 0
    partition_counts: dict[str, int] = field(default_factory=dict)
    first_seen: dict[str, int] = field(default_factory=dict)
    """when a topic was first named"""
    read_up_to: dict[str, int] = field(default_factory=dict)
    last_seen: dict[str, int] = field(default_factory=dict)
    """when a partition last had a watermark"""

    def advance(self, watermarks: Watermarks) -> None:
        """Takes the watermarks of one process."""
        now = watermarks.now
        self.now = max(self.now, now)
        for topic, partitions in watermarks.topics.items():
            self.partition_counts[topic] = max(partitions, self.partition_counts.get(topic, 0))
            self.first_seen.setdefault(topic, now)
        for partition, time in watermarks.read_up_to.items():
            self.read_up_to[partition] = max(time, self.read_up_to.get(partition, time))
            self.last_seen[partition] = max(now, self.last_seen.get(partition, now))

    def watermark(self, topic: str, limits: ReorderLimits) -> int | None:
        """All records of a topic up to this time were read; None while that is not known of some
        partition."""
        if topic not in self.partition_counts:
            return None
        least = self.now
        for number in range(self.partition_counts[topic]):
            partition = f"{topic}/{number}"
            last_seen = self.last_seen.get(partition, self.first_seen[topic])
            if last_seen < self.now - limits.idle_partition_ms:
                continue
            if partition not in self.read_up_to:
                return None
            least = min(least, self.read_up_to[partition])
        return least - limits.visibility_ms

    def state(self) -> dict[str, Any]:
        """For `from_state`; the keys are part of the checkpoint's format."""
        return {
            "now": self.now,
            "topics": dict(self.partition_counts),
            "first": dict(self.first_seen),
            "marks": dict(self.read_up_to),
            "told": dict(self.last_seen),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> _WatermarkClock:
        """The clock of which `state` was taken."""
        return cls(state["now"], state["topics"], state["first"], state["marks"], state["told"])


class _HeldRows:
    """Rows held back: chunks of WIRE, each sorted by `order`, whose first column is the key."""

    def __init__(
        self, order: tuple[str, ...], rows: pl.DataFrame | None = None, released_up_to: int = -1
    ) -> None:
        self._order = order
        self._chunks: list[tuple[Int64s, pl.DataFrame]] = []
        self.rows = 0
        self.released_up_to = released_up_to
        """the key up to which rows were released; maintained by the owner"""
        if rows is not None:
            self.add(with_sensor_flags(rows))

    def add(self, rows: pl.DataFrame) -> None:
        """Adds rows in any order."""
        if not rows.height:
            return
        keys = rows[self._order[0]].to_numpy()
        if len(self._order) > 1 or (np.diff(keys) < 0).any():
            rows = rows.sort(self._order)
            keys = rows[self._order[0]].to_numpy()
        self._chunks.append((keys, rows))
        self.rows += rows.height

    def take(self, limit: int) -> pl.DataFrame:
        """Removes the rows whose key is below `limit`, and returns them in order."""
        parts: list[pl.DataFrame] = []
        rest: list[tuple[Int64s, pl.DataFrame]] = []
        for keys, rows in self._chunks:
            cut = int(np.searchsorted(keys, limit)) if keys[0] < limit else 0
            if cut:
                parts.append(rows[:cut])
            if cut < len(keys):
                rest.append((keys[cut:], rows[cut:]))
        self._chunks = rest
        self.rows -= sum(part.height for part in parts)
        if not parts:
            return NOTHING
        return parts[0] if len(parts) == 1 else pl.concat(parts).sort(self._order)

    def joined(self) -> pl.DataFrame:
        """All rows in order; they stay in the buffer."""
        return pl.concat([NOTHING, *(rows for _, rows in self._chunks)]).sort(self._order)

    def median_key(self) -> int:
        """The key in the middle of those held."""
        return int(np.median(np.concatenate([keys for keys, _ in self._chunks])))

    def last_key_before(self, time: int) -> int | None:
        """The greatest key of a row whose time is not after `time` (ms); None where there is
        none."""
        greatest: int | None = None
        for keys, rows in self._chunks:
            due = keys[(rows["at"] <= time).to_numpy()]
            if len(due):
                greatest = max(int(due[-1]), -1 if greatest is None else greatest)
        return greatest


class _Added(NamedTuple):
    """What of a batch is not held back."""

    duplicate_sources: pl.Series
    """`source` of the rows that came before"""
    late: pl.DataFrame
    """rows whose numbers were given up: they can't be in order any more"""
    before_leap: list[pl.DataFrame]
    """rows to release first, because the sender leapt far ahead"""


@dataclass
class _Run:
    """The numbered records of one run of a sender, from number 0."""

    sensor: str
    topic: str
    run: str
    since: int
    """ms: the earliest record known"""
    is_begun: bool = False
    next_number: int = 0
    """all numbers before it were released, or given up"""
    end_number: int | None = None
    end_time: int = 0
    """ms: when the end mark was sent, or earlier"""
    is_ended: bool = False
    given_up: int = 0
    missing: Bools = field(default_factory=lambda: np.ones(0, np.bool_))
    """which numbers from `next_number` on haven't come; those behind its length haven't either"""
    lost: list[Range] = field(default_factory=list)
    """ranges in which numbers were given up"""
    held: _HeldRows = field(default_factory=lambda: _HeldRows(("seq",)))
    is_end_reported: bool = False

    @property
    def is_waiting(self) -> bool:
        """Something of the run is held back."""
        return bool(self.held.rows) or (self.end_number is not None and not self.is_ended)

    def state(self) -> dict[str, Any]:
        """For `from_state`; the keys are part of the checkpoint's format."""
        seen = np.flatnonzero(~self.missing)
        return {
            "sensor": self.sensor,
            "topic": self.topic,
            "run": self.run,
            "since": self.since,
            "begun": self.is_begun,
            "next": self.next_number,
            "end": self.end_number,
            "end_at": self.end_time,
            "ended": self.is_ended,
            "given_up": self.given_up,
            "missing": self.missing[: seen[-1] + 1 if len(seen) else 0].copy(),
            "lost": [list(lost_range) for lost_range in self.lost],
            "held": self.held.joined(),
            "told_end": self.is_end_reported,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> _Run:
        """The run of which `state` was taken."""
        return cls(
            sensor=state["sensor"],
            topic=state["topic"],
            run=state["run"],
            since=state["since"],
            is_begun=state["begun"],
            next_number=state["next"],
            end_number=state["end"],
            end_time=state["end_at"],
            is_ended=state["ended"],
            given_up=state["given_up"],
            missing=np.array(state["missing"], np.bool_),
            lost=[(first, last) for first, last in state["lost"]],
            held=_HeldRows(("seq",), state["held"]),
            is_end_reported=state["told_end"],
        )

    def add(self, batch: Batch) -> _Added:
        """Holds the new rows of a batch back; returns the others."""
        rows = batch.rows if batch.rows["seq"].is_sorted() else batch.rows.sort("seq")
        numbers = rows["seq"].to_numpy()
        before_leap = self._skip_leaps(numbers, batch)
        is_old = numbers < self.next_number
        is_late = is_old & self._is_lost(numbers)
        self._reserve(max(_outermost_numbers(numbers, batch), default=-1))
        ahead = numbers[~is_old] - self.next_number
        is_new = np.zeros(len(numbers), np.bool_)
        is_new[~is_old] = self.missing[ahead]
        is_new[1:] &= numbers[1:] != numbers[:-1]
        self.missing[ahead] = False
        self._mark_holes_and_end(batch)
        if is_new.all():
            self.held.add(rows)
            return _Added(pl.Series(dtype=pl.String), NOTHING, before_leap)
        self.held.add(rows.filter(is_new))
        duplicate_sources = rows["source"].filter(~is_new & ~is_late)
        return _Added(duplicate_sources, rows.filter(is_late), before_leap)

    def _skip_leaps(self, numbers: Int64s, batch: Batch) -> list[pl.DataFrame]:
        """Gives up numbers until all of the batch are within MAX_LEAP_NUMBERS."""
        released = []
        outermost = _outermost_numbers(numbers, batch)
        limit = self.next_number + MAX_LEAP_NUMBERS
        while leaps := [number for number in outermost if number >= limit]:
            released.append(self._skip_to(min(leaps)))
            limit = self.next_number + MAX_LEAP_NUMBERS
        return released

    def _mark_holes_and_end(self, batch: Batch) -> None:
        """Numbers that gave no flow, and that of the end mark, are missing no longer."""
        for first, last in batch.holes:
            start, stop = first - self.next_number, last + 1 - self.next_number
            self.missing[max(0, start) : max(0, stop)] = False
        if batch.end is not None and batch.end >= self.next_number:
            self.end_number, self.end_time = batch.end, batch.since
            self.missing[batch.end - self.next_number] = False

    def flush(self, watermark: int | None, limits: ReorderLimits) -> Iterator[pl.DataFrame]:
        """Rows that follow without a gap, and those behind a gap that is given up.

        Nothing is released before everything that was sent before the run began has been seen: an
        end mark of the run before may be among it.
        """
        is_seen = watermark is not None and watermark >= self.since
        is_full = self.held.rows > limits.max_held_records
        self.is_begun = self.is_begun or is_full or is_seen
        if not self.is_begun:
            return
        yield self._take_contiguous()
        target = self._overdue_number(watermark, limits)
        while target is not None and target >= self.next_number:
            yield self._skip_to(target)
            yield self._take_contiguous()
            target = self._overdue_number(watermark, limits)
        is_past_end = self.end_number is not None and self.next_number > self.end_number
        self.is_ended = self.is_ended or is_past_end

    def ends_now(self) -> bool:
        """Whether the run has ended; True only once."""
        is_first = self.is_ended and not self.is_end_reported
        self.is_end_reported = self.is_ended
        return is_first

    def _take_contiguous(self) -> pl.DataFrame:
        gap = int(np.argmax(self.missing)) if len(self.missing) else 0
        stop = gap if len(self.missing) and self.missing[gap] else len(self.missing)
        return self._advance(self.next_number + stop)

    def _overdue_number(self, watermark: int | None, limits: ReorderLimits) -> int | None:
        """The number before which no gap is waited for any longer."""
        if self.held.rows > limits.max_held_records:
            return self.held.median_key()
        if watermark is None:
            return None
        overdue_since = watermark - limits.gap_timeout_ms
        if self.held.rows:
            return self.held.last_key_before(overdue_since)
        is_end_waiting = self.end_number is not None and self.next_number <= self.end_number
        return self.end_number if is_end_waiting and self.end_time <= overdue_since else None

    def _skip_to(self, number: int) -> pl.DataFrame:
        """Gives up what is missing before `number`."""
        skipped = number - self.next_number
        self.given_up += skipped - int(np.count_nonzero(~self.missing[:skipped]))
        self.lost = [*self.lost, (self.next_number, number - 1)][-REMEMBERED_LOST_RANGES:]
        return self._advance(number)

    def _advance(self, number: int) -> pl.DataFrame:
        self.missing = self.missing[number - self.next_number :]
        self.next_number = number
        return self.held.take(number)

    def _reserve(self, highest: int) -> None:
        short = highest + 1 - self.next_number - len(self.missing)
        if short > 0:
            flags = np.ones(max(short, len(self.missing)), np.bool_)
            self.missing = np.concatenate([self.missing, flags])

    def _is_lost(self, numbers: Int64s) -> Bools:
        is_lost = np.zeros(len(numbers), np.bool_)
        if len(numbers) and numbers[0] < self.next_number:
            for first, last in self.lost:
                is_lost |= (numbers >= first) & (numbers <= last)
        return is_lost


def _outermost_numbers(numbers: Int64s, batch: Batch) -> list[int]:
    """The least and greatest numbers that a batch names, of rows, of holes, and of its end."""
    outermost = [int(numbers[0]), int(numbers[-1])] if len(numbers) else []
    for first, last in batch.holes:
        outermost += [first, last]
    if batch.end is not None:
        outermost.append(batch.end)
    return outermost
