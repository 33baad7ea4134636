"""Named counters: exact sums and distinct counts over sliding windows of event time, per group of
flows.

A counter says which flows count (`where`), for which group (`key`), whether each thing counts once
(`thing`) or a value is summed (`value`), and over which horizons. Read at a flow, it gives what the
flow's group amounts to, the flow itself included. Flows come in known order (ts + duration), one
`RollingCounters` a sensor.

Exact in whatever batches: an event counts while `clock - its clock < horizon` and fewer than
`visible` events of the same counter came since; of a distinct thing only the latest occurrence
counts, and of the records of a growing connection only the latest one. Memory is bounded by
`visible` events a counter (about 28 B each) and the groups and things these belong to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.windows.slots import SlotTable, mix

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

SECOND_US = 1_000_000
MINUTE_S, TEN_MINUTES_S, HOUR_S, DAY_S = 60, 600, 3_600, 86_400
NEVER = np.iinfo(np.int64).max


class CounterFacts(NamedTuple):
    """What counters read of a batch of n flows (or other events), in known order."""

    clock: Ints
    """(n) µs since the epoch, never falling"""
    keys: dict[str, Keys]
    """name → (n) 64-bit hash of an address, port, service, ...; `connection`, where masks have
    `growing`"""
    masks: dict[str, Bools]
    """name → (n) whether the flow is of that kind. `growing`: it is one of several records of its
    `connection`, of which the latest counts; `replaces`: it is not the first of them. Both may be
    left out"""
    values: dict[str, Ints]
    """name → (n) numbers to be summed; unknown is 0"""


@dataclass(frozen=True)
class Counter:
    """One number per group and horizon."""

    name: str
    key: tuple[str, ...]
    where: str
    horizons: tuple[int, ...]
    """seconds"""
    thing: tuple[str, ...] = ()
    """what is counted once; empty: every flow counts"""
    value: str = ""
    """what is summed; empty: 1"""
    text: str = ""
    """for sentences: `{n} <text> in <horizon>`"""
    needs: str = "conn"
    """the log it reads: conn, dns or http"""
    read: tuple[str, ...] = ()
    """whose number a flow is told, where that isn't the group it counts for; same length as
    `key`"""

    def column(self, horizon: int) -> str:
        """Name of the number over `horizon` seconds."""
        return f"{self.name}_{horizon}s"


class Events(NamedTuple):
    """What may still count for one counter, oldest first."""

    clock: Ints
    group: Ints
    value: Ints
    successor: Ints
    """number of the event that takes its place, NEVER if none has"""


class Track:
    """The state of one counter."""

    def __init__(self, counter: Counter, visible: int) -> None:
        self.counter, self.visible = counter, visible
        self.first = 0
        """number of the oldest event in `events`"""
        self.left_early = 0
        """events that left because of `visible`, for the shortest reach"""
        empty = np.zeros(0, np.int64)
        self.events = Events(empty, empty, empty, empty)
        self._groups, self._things = SlotTable(), SlotTable()
        self._last = np.full(1024, -1, np.int64)
        """thing → number of its latest event"""
        self._totals = np.zeros((len(counter.horizons), 1024), np.int64)
        self._low = [0] * len(counter.horizons)

    @property
    def end(self) -> int:
        """Number of the next event."""
        return self.first + len(self.events.clock)

    def step(self, facts: CounterFacts) -> Iterator[Ints]:
        """(n) per horizon: what each flow's group amounts to, the flow included; 0 for groups
        without events."""
        counter = self.counter
        keys = _joined(facts.keys, counter.key)
        rows, things = self._occurrences(facts, keys)
        group = self._groups.slots(keys[rows]) if len(rows) else np.zeros(0, np.int64)
        self._reserve()
        values = facts.values[counter.value] if counter.value else np.ones(len(keys), np.int64)
        values = np.where(facts.masks[counter.where], values, 0)[rows]
        start = self.end
        before = self._append(facts.clock[rows], group, values, things)
        reads = _Reads.of(
            self._known(_joined(facts.keys, counter.read) if counter.read else keys),
            len(facts.clock),
        )
        for index, horizon in enumerate(counter.horizons):
            added = _Changes(group, rows, values)
            replaced = self._replaced(group, rows, before, start, horizon * SECOND_US)
            expired = self._expired(index, horizon * SECOND_US, facts.clock, rows, start)
            yield self._read(index, reads, added, (replaced, expired))
        self._forget()

    def _reserve(self) -> None:
        """Makes room for the totals of new groups."""
        missing = self._groups.count - self._totals.shape[1]
        if missing > 0:
            self._totals = np.pad(self._totals, ((0, 0), (0, missing + self._groups.count // 2)))

    def _known(self, keys: Keys) -> Ints:
        """(n) slot of each key's group, -1 for groups without events."""
        slot = np.full(len(keys), -1, np.int64)
        if self._groups.count:
            known = np.flatnonzero(self._groups.contains(keys))
            slot[known] = self._groups.slots(keys[known])
        return slot

    def _occurrences(self, facts: CounterFacts, keys: Keys) -> tuple[Ints, Keys]:
        """(e) rows that are events; (e) what each is an occurrence of, 0 where it is the only one.

        Where every flow counts, a later record of a growing connection is an event whether it
        counts or not: it takes the place of the one before.
        """
        counter, where = self.counter, facts.masks[self.counter.where]
        if counter.thing:
            rows = np.flatnonzero(where)
            return rows, mix(keys[rows], _joined(facts.keys, counter.thing)[rows])
        replaces = facts.masks.get("replaces")
        if replaces is None:
            rows = np.flatnonzero(where)
            return rows, np.zeros(len(rows), np.uint64)
        rows = np.flatnonzero(where | replaces)
        connections = mix(keys[rows], facts.keys["connection"][rows])
        return rows, np.where(facts.masks["growing"][rows], connections, 0)

    def _append(self, clock: Ints, group: Ints, values: Ints, things: Keys) -> Ints:
        """Adds the events of a batch; (e) number of the event each takes the place of, -1 for
        none."""
        start, count = self.end, len(clock)
        before = np.full(count, -1, np.int64)
        successor = np.concatenate([self.events.successor, np.full(count, NEVER, np.int64)])
        linked = np.flatnonzero(things)
        if len(linked):
            numbers = start + linked
            previous = self._previous(self._things.slots(things[linked]), numbers)
            known = previous >= self.first
            successor[previous[known] - self.first] = numbers[known]
            before[linked[known]] = previous[known]
        self.events = Events(
            np.concatenate([self.events.clock, clock]),
            np.concatenate([self.events.group, group]),
            np.concatenate([self.events.value, values]),
            successor,
        )
        self._count_early(start)
        return before

    def _count_early(self, start: int) -> None:
        """Counts what leaves because of `visible`, at the event that pushes it out."""
        clock, first = self.events.clock, max(self.first, start - self.visible)
        pushed = np.arange(first, max(first, self.end - self.visible)) - self.first
        gap = clock[pushed + self.visible] - clock[pushed]
        self.left_early += int((gap < self.counter.horizons[0] * SECOND_US).sum())

    def _previous(self, thing: Ints, numbers: Ints) -> Ints:
        """(e) number of the previous event of the same thing, -1 for none; `numbers`: of these."""
        if self._things.count > len(self._last):
            self._last = np.pad(
                self._last, (0, 2 * self._things.count - len(self._last)), constant_values=-1
            )
        order = np.argsort(thing, kind="stable")
        same = np.r_[False, thing[order][1:] == thing[order][:-1]]
        before = np.empty(len(thing), np.int64)
        before[order] = np.where(same, np.r_[0, numbers[order[:-1]]], self._last[thing[order]])
        self._last[thing] = numbers
        return before

    def _alive(self, earlier: Ints, later: Ints, horizon: int) -> Bools:
        """Whether each earlier event still counted when the later one came."""
        clock = self.events.clock
        gap = clock[later - self.first] - clock[earlier - self.first]
        return np.asarray((gap < horizon) & (later - earlier < self.visible))

    def _replaced(
        self, group: Ints, rows: Ints, before: Ints, start: int, horizon: int
    ) -> _Changes:
        """What leaves because its thing occurs again."""
        known = np.flatnonzero(before >= 0)
        known = known[self._alive(before[known], start + known, horizon)]
        return _Changes(group[known], rows[known], self.events.value[before[known] - self.first])

    def _expired(self, index: int, horizon: int, clock: Ints, rows: Ints, start: int) -> _Changes:
        """What leaves because time passes, or because `visible` events came since; row n is after
        the batch."""
        low = max(self._low[index], self.first)
        by_time = self.first + int(np.searchsorted(self.events.clock, clock[-1] - horizon, "right"))
        high = min(max(low, by_time, self.end - self.visible), self.end)
        self._low[index] = high
        leaving = np.arange(low, high)
        successor = self.events.successor[low - self.first : high - self.first]
        replaced = successor != NEVER
        replaced[replaced] = self._alive(leaving[replaced], successor[replaced], horizon)
        leaving = leaving[~replaced]
        places = leaving - self.first
        row = np.searchsorted(clock, self.events.clock[places] + horizon, "left")
        by_count = leaving + self.visible - start
        counted = by_count < len(rows)
        row[counted] = np.minimum(row[counted], rows[np.maximum(by_count[counted], 0)])
        return _Changes(self.events.group[places], row, self.events.value[places])

    def _read(self, index: int, reads: _Reads, added: _Changes, gone: tuple[_Changes, ...]) -> Ints:
        """(n) the sums at every row. A change counts from the first read of its group at or after
        its row."""
        total = self._totals[index]
        delta = np.zeros(len(reads.order) + 1, np.int64)
        rest = [
            reads.apply(delta, added, 1),
            *(reads.apply(delta, changes, -1) for changes in gone),
        ]
        result = np.zeros(reads.rows, np.int64)
        if len(reads.order):
            running = np.cumsum(delta[:-1])
            base = np.repeat(running[reads.starts] - delta[reads.starts], reads.lengths)
            sums = total[reads.group] + running - base
            last = reads.starts + reads.lengths - 1
            total[reads.group[last]] = sums[last]
            result[reads.order] = sums
        for changes in rest:
            np.add.at(total, changes.group, changes.value)
        return result

    def _forget(self) -> None:
        """Drops what no horizon can reach, now and then. Its moment changes no number."""
        if min(self._low) - self.first >= max(4096, len(self.events.clock) // 2):
            self._compact()

    def _compact(self) -> None:
        """Drops what no horizon can reach; groups and things are numbered anew, by their keys."""
        low = max(min(self._low), self.first)
        events = Events(*(column[low - self.first :].copy() for column in self.events))
        self.first = low
        renamed = self._groups.keep(_by_key(self._groups, np.unique(events.group)))
        used = np.flatnonzero(renamed >= 0)
        totals = np.zeros((len(self._totals), max(1024, 2 * len(used))), np.int64)
        totals[:, renamed[used]] = self._totals[:, used]
        self._totals, self.events = totals, events._replace(group=renamed[events.group])
        if not self._things.count:
            return
        alive = np.flatnonzero(self._last[: self._things.count] >= low)
        moved = self._things.keep(_by_key(self._things, alive))
        last = np.full(max(1024, 2 * len(alive)), -1, np.int64)
        last[moved[alive]] = self._last[alive]
        self._last = last

    def state(self) -> dict[str, Any]:
        """A tree of arrays and numbers: the same after the same flows, wherever batches ended."""
        self._compact()
        return {
            "first": self.first,
            "left_early": self.left_early,
            "low": list(self._low),
            "events": dict(self.events._asdict()),
            "groups": self._groups.keys(),
            "things": self._things.keys(),
            "last": self._last[: self._things.count].copy(),
            "totals": self._totals[:, : self._groups.count].copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        self.first, self.left_early, self._low = (
            state["first"],
            state["left_early"],
            list(state["low"]),
        )
        self.events = Events(**state["events"])
        self._groups, self._things = SlotTable.of(state["groups"]), SlotTable.of(state["things"])
        last, totals = state["last"], state["totals"]
        self._last = np.concatenate([last, np.full(1024, -1, np.int64)])
        self._totals = np.pad(totals, ((0, 0), (0, 1024)))


def _by_key(table: SlotTable, slots: Ints) -> Ints:
    """The slots in the order of their keys."""
    return slots[np.argsort(table.keys()[slots])]


class _Changes(NamedTuple):
    """What is added to sums, or taken off: (c) group, row of the batch from which on, value."""

    group: Ints
    row: Ints
    value: Ints


class _Reads(NamedTuple):
    """Where the sums of a batch are read: by group, then by row."""

    rows: int
    order: Ints
    """(r) rows whose group has events"""
    group: Ints
    """(r) their group"""
    places: Ints
    """(r) group and row as one number, ascending"""
    starts: Ints
    lengths: Ints
    """first place and number of places of each group"""

    @classmethod
    def of(cls, slot: Ints, rows: int) -> _Reads:
        """From the slot of each row's group, -1 for none."""
        known = np.flatnonzero(slot >= 0)
        order = known[np.argsort(slot[known], kind="stable")]
        group = slot[order]
        starts = (
            np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
            if len(group)
            else np.zeros(0, np.int64)
        )
        lengths = np.diff(np.r_[starts, len(group)])
        return cls(rows, order, group, group * (rows + 1) + order, starts, lengths)

    def apply(self, delta: Ints, changes: _Changes, sign: int) -> _Changes:
        """Enters changes where they are first read; gives back those that no row of the batch
        reads, signed."""
        place = np.searchsorted(self.places, changes.group * (self.rows + 1) + changes.row)
        inside = place < len(self.places)
        inside[inside] = self.group[place[inside]] == changes.group[inside]
        np.add.at(delta, place[inside], sign * changes.value[inside])
        return _Changes(changes.group[~inside], changes.row[~inside], sign * changes.value[~inside])


class RollingCounters:
    """All counters of one sensor."""

    def __init__(self, counters: tuple[Counter, ...], visible: int = 262_144) -> None:
        self._tracks = [Track(counter, visible) for counter in counters]

    def step(self, facts: CounterFacts) -> dict[str, Ints]:
        """Column name → (n) numbers at the flows of the next batch."""
        result: dict[str, Ints] = {}
        if not len(facts.clock):
            return {
                t.counter.column(h): np.zeros(0, np.int64)
                for t in self._tracks
                for h in t.counter.horizons
            }
        for track in self._tracks:
            for horizon, numbers in zip(track.counter.horizons, track.step(facts), strict=True):
                result[track.counter.column(horizon)] = numbers
        return result

    def state(self) -> dict[str, Any]:
        """Counter → state."""
        return {track.counter.name: track.state() for track in self._tracks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state` of the same counters, in place of its own."""
        for track in self._tracks:
            track.restore(state[track.counter.name])

    @property
    def left_early(self) -> dict[str, int]:
        """Counter → events that left before their time because `visible` was reached."""
        return {track.counter.name: track.left_early for track in self._tracks if track.left_early}


def _joined(keys: Mapping[str, Keys], names: tuple[str, ...]) -> Keys:
    """(n) one key of several, in order."""
    joined = keys[names[0]]
    for name in names[1:]:
        joined = mix(joined, keys[name])
    return joined
