"""The clock of a capture, told from the times of its packets: a lone wrong time doesn't move it,
and a step that stays begins a new epoch.

Zeek's clock is the latest time so far and never goes back. One packet an hour ahead then ends every
connection that is open, and a clock that was set back stands still for as long. Here a packet whose
time is far from that of the packets around it (`OUTLIER_NS`) takes the time of the packet before
it. Where the times go back and stay there, or jump ahead by more than any timeout, connections
under way are measured to the step, and what follows begins anew.

A time that is far ahead may be an outlier, or the first packet behind a pause: what comes next
tells. So up to `LASTING_PACKETS` packets at the end of a chunk wait for the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ids_plugin.flowmeter.packets.capture_files import (
    BROKEN_LINK,
    HEAD_BYTES,
    PADDING_BYTES,
    Bools,
    Chunk,
    Int64s,
    byte_rows,
    part,
)

SECOND_NS = 1_000_000_000
OUTLIER_NS = 5 * SECOND_NS
"""How far from its neighbours a time is an outlier: queues and buffers of network cards are out of
step by less, and Zeek's shortest timeout is as long."""
STEP_AHEAD_NS = 3600 * SECOND_NS
"""A jump ahead that is called a step: Zeek's longest timeout ends all that was open before it."""
LASTING_PACKETS = 16
"""Packets from which on it is judged whether a time is an outlier's or the clock's: most decide."""
MAX_STEPS = 64
"""Steps of one capture; then its clock never goes back, as Zeek's."""


class ClockStep(NamedTuple):
    """Where the clock was set."""

    packet: int
    """number of the first packet of the new epoch"""
    shift_ns: int
    """how far ahead (back where negative) its time is of that before it"""


@dataclass(frozen=True)
class TimedChunk:
    """Packets of one epoch."""

    chunk: Chunk
    """with the times that count"""
    written: Int64s
    """(n) ns, the times that the capture has"""
    step: ClockStep | None = None
    """the step that its first packet is behind"""
    outliers: list[int] = field(default_factory=list)
    """indices of packets that got another time"""


def timed_chunks(pieces: Iterator[Chunk]) -> Iterator[TimedChunk]:
    """The chunks of a capture with the times that count, cut where an epoch begins."""
    clock = _CaptureClock()
    waiting: Chunk | None = None
    for piece in pieces:
        if waiting is not None and len(piece.time) >= LASTING_PACKETS:
            yield from clock.judge(waiting, _written_times(piece))
            waiting = None
        elif waiting is not None:
            piece, waiting = _joined(waiting, _detached(piece)), None
        count = clock.decidable(piece)
        if count or not len(piece.time):
            yield from clock.judge(part(piece, 0, count), _written_times(piece)[count:])
        if count < len(piece.time):
            waiting = _detached(part(piece, count, len(piece.time)))
    if waiting is not None:
        yield from clock.judge(waiting, [])


def _written_times(chunk: Chunk) -> list[int]:
    """Times of the packets that have one: as many as tell whether a step lasts."""
    times: list[int] = chunk.time[: 4 * LASTING_PACKETS].tolist()
    return times


class _CaptureClock:
    """The time of the last packet that was believed."""

    def __init__(self) -> None:
        self.latest: int | None = None
        """ns, the latest time of this epoch"""
        self.steps = 0

    def decidable(self, chunk: Chunk) -> int:
        """How many packets of a chunk can be judged without those behind it."""
        count = len(chunk.time)
        tail = max(count - LASTING_PACKETS, 0)
        if not count:
            return 0
        before = int(chunk.time[tail - 1]) if tail else self.latest
        times = chunk.time[tail:]
        far = np.abs(np.diff(times, prepend=times[0] if before is None else before)) > OUTLIER_NS
        return tail + int(np.argmax(far)) if far.any() else count

    def judge(self, chunk: Chunk, coming: list[int]) -> Iterator[TimedChunk]:
        """The packets with the times that count; `coming` are times behind them."""
        written = chunk.time
        has_time = (chunk.link != BROKEN_LINK) & (written != 0)
        before, counted = self.latest, written
        outliers: list[int] = []
        steps: list[tuple[int, ClockStep]] = []
        if has_time.any() and not self._is_steady(written[has_time]):
            counted = written.copy()
            outliers, steps = self._judge_each(chunk, counted, has_time, coming)
        if not has_time.all():
            index = np.maximum.accumulate(np.where(has_time, np.arange(len(has_time)), -1))
            earlier = 0 if before is None else before
            counted = np.where(index >= 0, counted[index], np.maximum(written, earlier))
        whole = chunk if counted is written else replace(chunk, time=counted)
        bounds = [0, *(row for row, _ in steps), len(written)]
        for index_of_epoch, (begin, end) in enumerate(pairwise(bounds)):
            if begin < end or not steps:
                step = steps[index_of_epoch - 1][1] if index_of_epoch else None
                inside = [row - begin for row in outliers if begin <= row < end]
                yield TimedChunk(part(whole, begin, end), written[begin:end], step, inside)

    def _is_steady(self, times: Int64s) -> bool:
        """Whether no time is far from the clock; then the clock is brought up to date."""
        latest = int(times[0]) if self.latest is None else self.latest
        running = np.maximum.accumulate(np.maximum(times, latest))
        is_steady = self.steps >= MAX_STEPS or bool(
            (times >= running - OUTLIER_NS).all()
            and (np.diff(running, prepend=latest) <= OUTLIER_NS).all()
        )
        if is_steady:
            self.latest = int(running[-1])
        return is_steady

    def _judge_each(
        self, chunk: Chunk, counted: Int64s, has_time: Bools, coming: list[int]
    ) -> tuple[list[int], list[tuple[int, ClockStep]]]:
        """Outliers, which get another time in `counted`, and steps, by the rows they are at."""
        rows = np.flatnonzero(has_time).tolist()
        times = [*chunk.time[has_time].tolist(), *(time for time in coming if time)]
        latest = times[0] if self.latest is None else self.latest
        outliers: list[int] = []
        steps: list[tuple[int, ClockStep]] = []
        for position, row in enumerate(rows):
            time = times[position]
            shift = time - latest
            if -OUTLIER_NS <= shift <= OUTLIER_NS:
                latest = max(latest, time)
                continue
            if _is_left_again(times[position : position + LASTING_PACKETS], latest):
                counted[row] = latest
                outliers.append(row)
                continue
            if (shift < 0 or shift >= STEP_AHEAD_NS) and self.steps < MAX_STEPS:
                self.steps += 1
                steps.append((row, ClockStep(chunk.first + row, shift)))
            latest = time if self.steps < MAX_STEPS else max(latest, time)
        self.latest = latest
        return outliers, steps


def _is_left_again(times: list[int], latest: int) -> bool:
    """Whether the first of these times, which is far from the clock, is left by most that
    follow."""
    is_ahead = times[0] > latest
    border = (times[0] if is_ahead else latest) - OUTLIER_NS
    ahead = sum(time >= border for time in times[1:])
    back = len(times) - 1 - ahead
    return back > ahead if is_ahead else ahead >= back


def _joined(first: Chunk, second: Chunk) -> Chunk:
    """One chunk of two that have their own bytes."""
    shift = len(first.data) - PADDING_BYTES
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("captured", "length", "time", "link", "heads", "has_lost_length")
    }
    return replace(
        first,
        **columns,
        data=np.concatenate([first.data[:shift], second.data]),
        offset=np.concatenate([first.offset, second.offset + shift]),
        damage=[*first.damage, *second.damage],
        remarks=[*first.remarks, *second.remarks],
        skipped=dict(Counter(first.skipped) + Counter(second.skipped)),
    )


def _detached(chunk: Chunk) -> Chunk:
    """The same packets with their own bytes: they outlive the chunk that they are of."""
    pieces = [
        chunk.data[start : start + size]
        for start, size in zip(chunk.offset.tolist(), chunk.captured.tolist(), strict=True)
    ]
    data = np.concatenate([*pieces, np.zeros(PADDING_BYTES, dtype=np.uint8)])
    offset = np.cumsum(chunk.captured) - chunk.captured
    heads = byte_rows(data, offset, HEAD_BYTES)
    columns = {
        name: getattr(chunk, name).copy()
        for name in ("captured", "length", "time", "link", "has_lost_length")
    }
    return replace(chunk, data=data, offset=offset, heads=heads, **columns)
