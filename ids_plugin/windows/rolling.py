"""Sums over sliding windows of event time, per host or pair: exact, in any batch size, vectorised
over the batch.

A flow (event) j counts at flow i when `clock_i - clock_j < horizon` and fewer than `visible` flows
of the sensor came between them. It stops counting early when another takes its place: a later
record of the same connection, or, in a count of distinct things, the thing's next occurrence. Both
rules are the same for adding and for removing, so a running total per group only ever needs the
differences of one batch; these are summed in the order of groups, not of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
NEVER = np.iinfo(np.int32).max


class Column(NamedTuple):
    """One number per event to be summed; `successor` names what ends it early (a key of
    `EventLog.successors`)."""

    values: npt.NDArray[np.signedinteger]
    successor: str


class EventLog:
    """The events that can still count in any window, oldest first, and what has taken their place
    since."""

    def __init__(self, successors: tuple[str, ...]) -> None:
        self.first = 0
        self.clock: Ints = np.zeros(0, np.int64)
        self.successors: dict[str, Small] = {name: np.zeros(0, np.int32) for name in successors}
        """how many events later; NEVER if not yet"""

    @property
    def end(self) -> int:
        """Sequence number of the next event."""
        return self.first + len(self.clock)

    def append(self, clock: Ints, predecessors: dict[str, Ints]) -> None:
        """Adds a batch; `predecessors[name]` says which earlier event each one takes the place of,
        -1 if none."""
        start = self.end
        self.clock = np.concatenate([self.clock, clock])
        for name, before in predecessors.items():
            after = np.concatenate([self.successors[name], np.full(len(clock), NEVER, np.int32)])
            placed = np.flatnonzero(before >= self.first)
            after[before[placed] - self.first] = start + placed - before[placed]
            self.successors[name] = after

    def counts(
        self, earlier: Ints, later: Ints, horizon: int, visible: int
    ) -> npt.NDArray[np.bool_]:
        """(n) whether each earlier event still counted in a window of `horizon` µs when the later
        one came."""
        gap = self.clock[later - self.first] - self.clock[earlier - self.first]
        return np.asarray((gap < horizon) & (later - earlier < visible))

    def replaced(
        self, name: str, low: int, high: int, horizon: int, visible: int
    ) -> npt.NDArray[np.bool_]:
        """(high - low) which events from `low` on left such a window early, because another took
        their place."""
        after = self.successors[name][low - self.first : high - self.first]
        gone = after != NEVER
        seq = np.flatnonzero(gone) + low
        gone[gone] = self.counts(seq, seq + after[gone], horizon, visible)
        return np.asarray(gone)

    def state(self) -> dict[str, Any]:
        """A tree of arrays and numbers."""
        return {"first": self.first, "clock": self.clock, "successors": dict(self.successors)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        self.first, self.clock, self.successors = (
            state["first"],
            state["clock"],
            dict(state["successors"]),
        )

    def drop(self, before: int) -> None:
        """Forgets the events with sequence numbers below `before`."""
        cut = before - self.first
        if cut > 0:
            self.first = before
            self.clock = self.clock[cut:].copy()
            self.successors = {name: after[cut:].copy() for name, after in self.successors.items()}


@dataclass(frozen=True)
class Expiry:
    """What one horizon does to one batch."""

    low: int
    high: int
    """sequence numbers of the events that leave the window during the batch"""
    row: Ints
    """(high - low) first row of the batch that doesn't count them"""
    replaced: dict[str, npt.NDArray[np.bool_]]
    """(high - low) per kind of successor: had left early already"""
    replacing: dict[str, tuple[Ints, Ints]]
    """per kind of successor: rows of the batch that take the place of an event that still counted,
    and that event"""


def expire(
    log: EventLog, rows: int, low: int, horizon: int, visible: int, predecessors: dict[str, Ints]
) -> Expiry:
    """What leaves a window of `horizon` µs during the last `rows` events of the log; nothing before
    `low` counts."""
    start = log.end - rows
    clock = log.clock[start - log.first :]
    by_time = int(np.searchsorted(log.clock, clock[-1] - horizon, "right")) + log.first
    high = min(max(low, by_time, log.end - visible), log.end)
    seq = np.arange(low, high)
    leaving = log.clock[low - log.first : high - log.first]
    row = np.minimum(np.searchsorted(clock, leaving + horizon, "left"), seq + visible - start)
    replaced, replacing = {}, {}
    for name, before in predecessors.items():
        replaced[name] = log.replaced(name, low, high, horizon, visible)
        still = before >= log.first
        still[still] = log.counts(before[still], start + np.flatnonzero(still), horizon, visible)
        replacing[name] = np.flatnonzero(still), before[still]
    return Expiry(low, high, row, replaced, replacing)


class Order(NamedTuple):
    """Rows of a batch sorted by group, then by time; several sides may share one order."""

    keys: Ints
    """(r) group * span + row, sorted"""
    span: int
    group: Ints
    """(r) group of each sorted row"""
    base: Ints
    """(r) index of the first sorted row of the same group"""
    last: Ints
    """indices of the last sorted row of every group"""

    @classmethod
    def of(cls, group: Ints, row: Ints, span: int) -> tuple[Order, Ints]:
        """The order, and the sorted index (rank) of every row given."""
        keys = group * span + row
        order = np.argsort(keys)
        ordered = group[order]
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        lengths = np.diff(np.r_[starts, len(ordered)])
        return cls(
            keys[order], span, ordered, np.repeat(starts, lengths), starts + lengths - 1
        ), rank


class Side:
    """Running totals of one grouping (originators, responders, pairs): one per group, horizon and
    column."""

    def __init__(self, horizons: int, columns: int) -> None:
        self.group: Small = np.zeros(0, np.int32)
        self.values: list[npt.NDArray[np.signedinteger]] = [
            np.zeros(0, np.int8) for _ in range(columns)
        ]
        self.totals = np.zeros((horizons, columns, 256), np.int64)

    def append(self, group: Ints, columns: list[Column]) -> None:
        """Adds a batch of events."""
        self.group = np.concatenate([self.group, group.astype(np.int32)])
        self.values = [
            np.concatenate([old, new.values]) for old, new in zip(self.values, columns, strict=True)
        ]

    def drop(self, count: int, renamed: Ints, groups: int) -> None:
        """Forgets the `count` oldest events; groups get their new numbers, `groups` of them."""
        self.group = renamed[self.group[count:]].astype(np.int32)
        self.values = [values[count:].copy() for values in self.values]
        remaining = np.flatnonzero(renamed >= 0)
        totals = np.zeros((*self.totals.shape[:2], groups + max(256, groups // 2)), np.int64)
        totals[:, :, renamed[remaining]] = self.totals[:, :, remaining]
        self.totals = totals

    def reserve(self, groups: int) -> None:
        """Makes room for `groups` groups."""
        missing = groups - self.totals.shape[2]
        if missing > 0:
            self.totals = np.pad(
                self.totals, ((0, 0), (0, 0), (0, max(missing, self.totals.shape[2] // 2)))
            )

    def state(self) -> dict[str, Any]:
        """A tree of arrays; the totals follow from it."""
        return {"group": self.group, "values": list(self.values)}

    def restore(self, state: Mapping[str, Any], groups: int) -> None:
        """Takes up a `state`, in place of its own: `groups` groups, their totals still to be
        counted."""
        self.group, self.values = state["group"], list(state["values"])
        self.totals = np.zeros((*self.totals.shape[:2], max(256, groups)), np.int64)

    def recount(
        self,
        log: EventLog,
        horizon: int,
        low: int,
        counts: Mapping[str, npt.NDArray[np.bool_]],
        successors: Sequence[str],
    ) -> None:
        """Counts the totals of one horizon: events from `low` on that `counts`, by what ends each
        column early."""
        first = low - log.first
        for index, successor in enumerate(successors):
            values = np.where(counts[successor], self.values[index][first:], 0).astype(np.int64)
            np.add.at(self.totals[horizon, index], self.group[first:], values)

    def step(
        self,
        log: EventLog,
        horizon: int,
        expiry: Expiry,
        order: Order,
        rank: Ints,
        columns: list[Column],
        stride: int,
    ) -> Iterator[Ints]:
        """Per column: (r) its sum at every sorted row of `order`, its own event included. Updates
        the totals.

        `rank` is where each event of the batch stands in `order`; rows of the order are `stride` to
        an event.
        """
        leaving = slice(expiry.low - log.first, expiry.high - log.first)
        group = self.group[leaving].astype(np.int64)
        target = _places(order.keys, group * order.span + expiry.row * stride)
        inside = target < len(order.keys)
        inside[inside] = order.group[target[inside]] == group[inside]
        target, outside = target[inside], ~inside
        for index, column in enumerate(columns):
            total = self.totals[horizon, index]
            delta = np.zeros(len(order.keys) + 1, np.int64)
            delta[rank + 1] = column.values
            rows, earlier = expiry.replacing[column.successor]
            delta[rank[rows] + 1] -= self.values[index][earlier - log.first]
            loss = np.where(
                expiry.replaced[column.successor], 0, self.values[index][leaving]
            ).astype(np.int64)
            np.subtract.at(delta, target + 1, loss[inside])
            running = np.cumsum(delta)
            value = total[order.group] + running[1:] - running[order.base]
            total[order.group[order.last]] = value[order.last]
            np.subtract.at(total, group[outside], loss[outside])
            yield value


def _places(ordered: Ints, wanted: Ints) -> Ints:
    """`np.searchsorted`, several times faster on many values because it looks them up in order."""
    order = np.argsort(wanted)
    places = np.empty(len(wanted), np.int64)
    places[order] = np.searchsorted(ordered, wanted[order])
    return places
