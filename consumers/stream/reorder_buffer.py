"""Restores the order in which sensors wrote their records, from batches that arrive in any order.

Numbered records of a run (`ids-seq`) are given in the order of their numbers: a number that hasn't come holds back
those behind it, one that comes again is a duplicate. Records without numbers are given in the order of (time,
partition, offset) once every partition of their topic is read beyond that time. How far that is stands in the marks
between the batches, wall clock included: the same messages give the same flows in the same order, whenever they are
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

from ids_plugin.schema.flow import SCHEMA, with_sensor_flags
from ids_plugin.sources.flow_batches import NOTHING, Batch, Range, Watermarks

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
SPAN = 1 << 24
"""Numbers between the next one and the furthest one seen at most: 16 MB of flags. A sender that leaps further has lost
what lies between."""
RUNS = 64
"""Runs of a sensor remembered after they have ended or fallen silent, to tell repetitions from new records."""
RANGES = 1_000
"""Ranges given up that are remembered, per run."""


@dataclass(frozen=True)
class ReorderLimits:
    """How long what for is waited; times in ms of the marks' clock."""

    buffer: int = 1_000
    """a record is taken to be visible to readers this long after its time"""
    stale: int = 30_000
    """a partition that nobody has told of for so long holds nothing back"""
    gap: int = 300_000
    """a missing number is given up when all partitions are read so far beyond the record behind it; a producer of the
    usual settings has given up after 120 s"""
    held: int = 1_000_000
    """records held back at most per run, and per sensor and topic without numbers"""


class Released(NamedTuple):
    """What follows next of a sensor."""

    sensor: str
    flows: pl.DataFrame
    """schema.flow.SCHEMA; may be empty"""
    duplicates: dict[str, int]
    """numbered records that came again, by the flows' `source`; they aren't among `flows`"""
    ended: bool
    """the sensor's input ends behind these flows"""


class ReorderBuffer:
    """Takes the messages of one partition of `ids.flows` in their order and gives flows in their sensors' order."""

    def __init__(self, patience: ReorderLimits | None = None) -> None:
        self._patience = patience or ReorderLimits()
        self._clock = _Clock()
        self._runs: dict[tuple[str, str], _Run] = {}
        self._loose: dict[tuple[str, str], _Held] = {}
        self.counts: Counter[str] = Counter()
        """`duplicate`; `given_up`: missing numbers no longer waited for; `late`: came after that, or after records
        without numbers that are younger"""

    def take(self, message: Batch | Watermarks) -> list[Released]:
        """What can be given now that this message has come."""
        if isinstance(message, Batch):
            found = self._numbered(message) if message.run else self._unnumbered(message)
            return [found] if found else []
        self._clock.take(message)
        waiting = sorted(
            (run for run in self._runs.values() if run.waits), key=lambda run: run.since
        )
        runs = [self._flush(run, self._level(run.topic)) for run in waiting]
        pools = [self._ripe(*key) for key, pool in self._loose.items() if pool.rows]
        return [found for found in (*runs, *pools) if found]

    @property
    def held(self) -> int:
        """Records held back."""
        return sum(run.held.rows for run in self._runs.values()) + sum(
            pool.rows for pool in self._loose.values()
        )

    def state(self) -> dict[str, Any]:
        """Everything remembered: plain values, numpy arrays and frames, for `restore`."""
        return {
            "clock": {
                name: dict(one) if isinstance(one, dict) else one
                for name, one in vars(self._clock).items()
            },
            "runs": [run.state() for run in self._runs.values()],
            "loose": [[*key, pool.given, pool.joined()] for key, pool in self._loose.items()],
            "counts": dict(self.counts),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self._clock = _Clock(**state["clock"])
        self._runs = {(run["sensor"], run["run"]): _Run.restored(run) for run in state["runs"]}
        self._loose = {
            (sensor, topic): _Held(LOOSE, rows, given)
            for sensor, topic, given, rows in state["loose"]
        }
        self.counts = Counter(state["counts"])

    def _level(self, topic: str) -> int | None:
        return self._clock.level(topic, self._patience)

    def _numbered(self, batch: Batch) -> Released | None:
        run = self._runs.get((batch.sensor, batch.run)) or self._new_run(batch)
        run.since = min(run.since, batch.since)
        duplicates, late, early = run.add(batch)
        self.counts["duplicate"] += duplicates.len()
        self.counts["late"] += late.height
        by_source = Counter(duplicates.fill_null("").to_list())
        return self._flush(run, self._level(run.topic), [*early, late], by_source)

    def _new_run(self, batch: Batch) -> _Run:
        silent = [
            key for key, run in self._runs.items() if key[0] == batch.sensor and not run.waits
        ]
        for key in silent[: max(0, len(silent) - RUNS + 1)]:
            del self._runs[key]
        run = self._runs[batch.sensor, batch.run] = _Run(
            batch.sensor, batch.topic, batch.run, batch.since
        )
        return run

    def _flush(
        self,
        run: _Run,
        level: int | None,
        before: list[pl.DataFrame] | None = None,
        duplicates: dict[str, int] | None = None,
    ) -> Released | None:
        """What of a run can be given, behind `before`."""
        given_up = run.given_up
        frames = [*(before or []), *run.flush(level, self._patience)]
        self.counts["given_up"] += run.given_up - given_up
        return _released(run.sensor, frames, duplicates or {}, run.just_ended())

    def _unnumbered(self, batch: Batch) -> Released | None:
        key = (batch.sensor, batch.topic)
        pool = self._loose.setdefault(key, _Held(LOOSE))
        self.counts["late"] += int((batch.rows["at"] <= pool.given).sum())
        pool.add(batch.rows)
        return self._ripe(*key)

    def _ripe(self, sensor: str, topic: str) -> Released | None:
        """Records without numbers whose time has come."""
        pool, level = self._loose[sensor, topic], self._level(topic)
        full = pool.middle() if pool.rows > self._patience.held else -1
        pool.given = max(pool.given, full, -1 if level is None else level)
        return _released(sensor, [pool.take(pool.given + 1)], {}, False)


def _released(
    sensor: str, frames: list[pl.DataFrame], duplicates: dict[str, int], ended: bool
) -> Released | None:
    found = [frame for frame in frames if frame.height]
    if not (found or duplicates or ended):
        return None
    rows = found[0] if len(found) == 1 else pl.concat([NOTHING, *found])
    return Released(sensor, rows[list(SCHEMA)], duplicates, ended)


@dataclass
class _Clock:
    """What the marks say. Times in ms; partitions as `topic/partition`."""

    now: int = 0
    topics: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    """when a topic was first told of"""
    marks: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    """when a partition was last told of"""

    def take(self, marks: Watermarks) -> None:
        """Notes what one process says."""
        self.now = max(self.now, marks.now)
        for topic, partitions in marks.topics.items():
            self.topics[topic] = max(partitions, self.topics.get(topic, 0))
            self.first.setdefault(topic, marks.now)
        for partition, mark in marks.read_up_to.items():
            self.marks[partition] = max(mark, self.marks.get(partition, mark))
            self.told[partition] = max(marks.now, self.told.get(partition, marks.now))

    def level(self, topic: str, patience: ReorderLimits) -> int | None:
        """All records of a topic up to this time were read; None while some partition hasn't been told of."""
        if topic not in self.topics:
            return None
        least = self.now
        for number in range(self.topics[topic]):
            name = f"{topic}/{number}"
            if self.told.get(name, self.first[topic]) < self.now - patience.stale:
                continue
            if name not in self.marks:
                return None
            least = min(least, self.marks[name])
        return least - patience.buffer


LOOSE = ("at", "partition", "offset")


class _Held:
    """Rows held back: chunks of WIRE, each in the order of `order`, whose first column is the key."""

    def __init__(
        self, order: tuple[str, ...], rows: pl.DataFrame | None = None, given: int = -1
    ) -> None:
        self._order = order
        self._chunks: list[tuple[Int64s, pl.DataFrame]] = []
        self.rows = 0
        self.given = given
        """the key up to which rows were given; kept by who takes them"""
        if rows is not None:
            self.add(with_sensor_flags(rows))

    def add(self, rows: pl.DataFrame) -> None:
        """Takes rows in."""
        if not rows.height:
            return
        keys = rows[self._order[0]].to_numpy()
        if len(self._order) > 1 or (np.diff(keys) < 0).any():
            rows = rows.sort(self._order)
            keys = rows[self._order[0]].to_numpy()
        self._chunks.append((keys, rows))
        self.rows += rows.height

    def take(self, limit: int) -> pl.DataFrame:
        """Removes the rows whose key is below `limit`, and gives them in order."""
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
        """All rows in order; they stay."""
        return pl.concat([NOTHING, *(rows for _, rows in self._chunks)]).sort(self._order)

    def middle(self) -> int:
        """The key in the middle of those held."""
        return int(np.median(np.concatenate([keys for keys, _ in self._chunks])))

    def upto(self, at: int) -> int | None:
        """The greatest key of a row whose time is not after `at`."""
        found = [keys[(rows["at"] <= at).to_numpy()] for keys, rows in self._chunks]
        return max((int(keys[-1]) for keys in found if len(keys)), default=None)


@dataclass
class _Run:
    """The numbered records of one run of a sender, from number 0."""

    sensor: str
    topic: str
    run: str
    since: int
    """ms: the earliest record known"""
    begun: bool = False
    next: int = 0
    """all numbers before it were given, or given up"""
    end: int | None = None
    end_at: int = 0
    """ms: when the end mark was sent, or earlier"""
    ended: bool = False
    given_up: int = 0
    missing: Bools = field(default_factory=lambda: np.ones(0, np.bool_))
    """which numbers from `next` on haven't come; those behind its length haven't either"""
    lost: list[Range] = field(default_factory=list)
    """ranges in which numbers were given up"""
    held: _Held = field(default_factory=lambda: _Held(("seq",)))
    told_end: bool = False

    @property
    def waits(self) -> bool:
        """Something of it is held back."""
        return bool(self.held.rows) or (self.end is not None and not self.ended)

    def state(self) -> dict[str, Any]:
        """For `restored`."""
        seen = np.flatnonzero(~self.missing)
        missing = self.missing[: seen[-1] + 1 if len(seen) else 0].copy()
        lost = [list(one) for one in self.lost]
        return {**vars(self), "missing": missing, "held": self.held.joined(), "lost": lost}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> _Run:
        """The run of which `state` was taken."""
        held = _Held(("seq",), state["held"])
        lost = [(first, last) for first, last in state["lost"]]
        return cls(
            **{**state, "missing": np.array(state["missing"], np.bool_), "held": held, "lost": lost}
        )

    def add(self, batch: Batch) -> tuple[pl.Series, pl.DataFrame, list[pl.DataFrame]]:
        """Takes a batch in.

        Returns:
            `source` of the rows that came before, rows that come too late to be in order, and those that have to be
            given first because the sender leapt.
        """
        rows = batch.rows if batch.rows["seq"].is_sorted() else batch.rows.sort("seq")
        seq = rows["seq"].to_numpy()
        early = []
        while leap := [number for number in _numbers(seq, batch) if number >= self.next + SPAN]:
            early.append(self._jump(min(leap)))
        old = seq < self.next
        late = old & self._is_lost(seq)
        self._reserve(max(_numbers(seq, batch), default=-1))
        ahead = seq[~old] - self.next
        fresh = np.zeros(len(seq), np.bool_)
        fresh[~old] = self.missing[ahead]
        fresh[1:] &= seq[1:] != seq[:-1]
        self.missing[ahead] = False
        for first, last in batch.holes:
            self.missing[max(0, first - self.next) : max(0, last + 1 - self.next)] = False
        if batch.end is not None and batch.end >= self.next:
            self.end, self.end_at = batch.end, batch.since
            self.missing[batch.end - self.next] = False
        if fresh.all():
            self.held.add(rows)
            return pl.Series(dtype=pl.String), NOTHING, early
        self.held.add(rows.filter(fresh))
        return rows["source"].filter(~fresh & ~late), rows.filter(late), early

    def flush(self, level: int | None, patience: ReorderLimits) -> Iterator[pl.DataFrame]:
        """Rows that follow without a gap; those behind a gap that is given up. Nothing before all that was sent before
        the run began has been seen: it may end the run before it."""
        self.begun = (
            self.begun
            or self.held.rows > patience.held
            or (level is not None and level >= self.since)
        )
        if not self.begun:
            return
        yield self._contiguous()
        target = self._hopeless(level, patience)
        while target is not None and target >= self.next:
            yield self._jump(target)
            yield self._contiguous()
            target = self._hopeless(level, patience)
        self.ended = self.ended or (self.end is not None and self.next > self.end)

    def just_ended(self) -> bool:
        """Whether it has ended; True only once."""
        first, self.told_end = self.ended and not self.told_end, self.ended
        return first

    def _contiguous(self) -> pl.DataFrame:
        gap = int(np.argmax(self.missing)) if len(self.missing) else 0
        stop = gap if len(self.missing) and self.missing[gap] else len(self.missing)
        return self._advance(self.next + stop)

    def _hopeless(self, level: int | None, patience: ReorderLimits) -> int | None:
        """The number before which no gap is waited for any longer."""
        if self.held.rows > patience.held:
            return self.held.middle()
        if level is None:
            return None
        if self.held.rows:
            return self.held.upto(level - patience.gap)
        waits = (
            self.end is not None and self.next <= self.end and self.end_at <= level - patience.gap
        )
        return self.end if waits else None

    def _jump(self, to: int) -> pl.DataFrame:
        """Gives up what is missing before number `to`."""
        self.given_up += to - self.next - int(np.count_nonzero(~self.missing[: to - self.next]))
        self.lost = [*self.lost, (self.next, to - 1)][-RANGES:]
        return self._advance(to)

    def _advance(self, to: int) -> pl.DataFrame:
        self.missing, self.next = self.missing[to - self.next :], to
        return self.held.take(to)

    def _reserve(self, highest: int) -> None:
        short = highest + 1 - self.next - len(self.missing)
        if short > 0:
            self.missing = np.concatenate(
                [self.missing, np.ones(max(short, len(self.missing)), np.bool_)]
            )

    def _is_lost(self, seq: Int64s) -> Bools:
        found = np.zeros(len(seq), np.bool_)
        for first, last in self.lost if len(seq) and seq[0] < self.next else []:
            found |= (seq >= first) & (seq <= last)
        return found


def _numbers(seq: Int64s, batch: Batch) -> list[int]:
    """The outermost numbers a batch names."""
    ends = [int(seq[0]), int(seq[-1])] if len(seq) else []
    return [
        *ends,
        *(number for one in batch.holes for number in one),
        *([] if batch.end is None else [batch.end]),
    ]
