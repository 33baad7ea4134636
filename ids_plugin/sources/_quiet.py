"""Packets that only go on: in the middle of a TCP connection, in order, nothing missing on either side.

A run of them moves sequence numbers and counts, and does nothing else. So each run is stood for by at most three
packets, which carry the bytes and the acknowledgements of all; what follows a run finds what it would have found.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from ids_plugin.sources._grouped import Ordered
from ids_plugin.sources._packets import TCP
from ids_plugin.sources._streams import SEEN_ACK, SEEN_DATA
from ids_plugin.sources._table import ACK, ESTABLISHED, FIN, RST, SYN, Table

Int64s = npt.NDArray[np.int64]
UInt32s = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

LEAST = 4_000
"""Packets of a chunk for which looking for runs pays."""
SHORTEST = 5
"""Packets of a run worth replacing."""
PAUSE = 5_000_000
"""µs behind which a packet may be late for something."""
MINUTE = 26
"""Runs end where µs >> MINUTE changes: what stands for a run is no more than 67 s behind what stood before it."""
COLUMNS = (
    "place", "group", "order", "time", "now", "side", "protocol", "flags", "sequence", "acknowledged", "payload",
    "window", "refused", "first",
)  # fmt: skip


def without_runs(chunk: Ordered) -> tuple[Ordered, Int64s]:
    """The chunk with runs replaced, and where its packets stand in the whole one."""
    count = len(chunk.group)
    if count < LEAST:
        return chunk, np.arange(count)
    on = _GoingOn(chunk)
    starts, last = _runs(on.quiet)
    kept = np.ones(count, dtype=bool)
    edges = np.zeros(count + 1, dtype=np.int8)
    edges[starts], edges[last + 1] = 1, -1
    kept[np.cumsum(edges[:-1], dtype=np.int8) != 0] = False
    there, more = on.other[last] >= starts, on.own[last] >= starts
    kept[last] = kept[last[there] - 1] = kept[last[more] - 2] = True
    place = np.flatnonzero(kept)
    few = copy.copy(chunk)
    for name in COLUMNS:
        setattr(few, name, getattr(chunk, name)[place])
    _stand_in(few, np.cumsum(kept) - 1, on, starts, last, there, more)
    return few, place


def _runs(quiet: Bools) -> tuple[Int64s, Int64s]:
    """First and last packet of every run that is long enough."""
    edges = np.flatnonzero(np.diff(quiet, prepend=False, append=False))
    starts, last = edges[::2], edges[1::2] - 1
    long = last - starts >= SHORTEST - 1
    return starts[long], last[long]


def _stand_in(
    few: Ordered, place: Int64s, on: _GoingOn, starts: Int64s, last: Int64s, there: Bools, more: Bools
) -> None:
    """Puts what stands for each run in its last three places: one side's bytes, the other's, the last packet itself.

    `place` of a packet is that in `few`; `there`: the other side has packets in the run, `more`: the last one's side
    has others.
    """
    chunk, side, theirs = on.chunk, on.chunk.side[last], on.other[last]
    zero, one = on.sum(0, starts, last), on.sum(1, starts, last)
    own_bytes = np.where(side == 0, zero, one) - chunk.payload[last]
    other_bytes = np.where(side == 0, one, zero)
    begin = (chunk.sequence[theirs] + chunk.payload[theirs] - other_bytes) & 0xFFFFFFFF
    at = place[last[there] - 1]
    few.side[at] = 1 - side[there]
    few.sequence[at], few.payload[at] = begin[there], other_bytes[there]
    few.acknowledged[at] = chunk.acknowledged[theirs[there]]
    few.flags[at] = ACK
    at = place[last[more] - 2]
    few.side[at] = side[more]
    few.sequence[at] = (chunk.sequence[last[more]] - own_bytes[more]) & 0xFFFFFFFF
    few.payload[at] = own_bytes[more]
    acknowledged = chunk.acknowledged[last]
    lead = _signed(acknowledged - begin) > 0
    few.acknowledged[at] = np.where(lead & there, begin, acknowledged)[more]
    few.flags[at] = ACK


def _signed(difference: Int64s) -> npt.NDArray[np.int32]:
    return difference.astype(np.uint32).view(np.int32)


class _GoingOn:
    """Which packets are `quiet`, and the packets of the same (`own`) and the other side before each."""

    def __init__(self, chunk: Ordered) -> None:
        self.chunk = chunk
        count = len(chunk.group)
        self.index = np.arange(count)
        self.begin = np.maximum.accumulate(np.where(chunk.first, self.index, 0))
        self.is_second = chunk.side == 1
        self.own, self.other = self._before(np.ones(count, dtype=bool))
        self.sums = [np.cumsum(np.where(self.is_second == side, chunk.payload, 0)) for side in (False, True)]
        self.quiet = self._quiet()

    def sum(self, side: int, first: Int64s, last: Int64s) -> Int64s:
        """Payload bytes of a side in first … last; no run begins with the chunk."""
        total: Int64s = self.sums[side][last] - self.sums[side][first - 1]
        return total

    def _before(self, mask: Bools) -> tuple[Int64s, Int64s]:
        """The last packet of `mask` before each, of its own side and of the other; it may be of another connection."""
        found = []
        for side in (False, True):
            latest = np.empty(len(mask), dtype=np.int64)
            latest[0] = -1
            np.maximum.accumulate(np.where(mask & (self.is_second == side), self.index, -1)[:-1], out=latest[1:])
            found.append(latest)
        return np.where(self.is_second, *found[::-1]), np.where(self.is_second, *found)

    def _quiet(self) -> Bools:
        chunk, begin, own, other = self.chunk, self.begin, self.own, self.other
        known = _Known(chunk.table, chunk.carried)
        flags = chunk.flags
        syn, acks = flags & SYN != 0, flags & ACK != 0
        sequence, number = chunk.sequence.astype(np.uint32), chunk.acknowledged.astype(np.uint32)
        end = sequence + (chunk.payload + syn + (flags & FIN != 0)).astype(np.uint32)
        has_own, has_other = own >= begin, other >= begin
        goes_on = known.clean[chunk.group]
        flat = chunk.group * 2 + chunk.side
        expected = np.where(has_own, end[own], known.end[flat])
        seen = np.where(has_other, end[other], known.end[flat ^ 1])
        strange = (sequence != expected) & (has_own | goes_on)
        strange |= ((seen - number).view(np.int32) < 0) & (has_other | goes_on) & acks
        strange |= ((number - number[own]).view(np.int32) < 0) & has_own & acks[own]
        strange |= (flags & (FIN | RST) != 0) | syn & (has_own | goes_on) | chunk.refused
        strange |= chunk.refused
        strange |= chunk.first & ~goes_on & (chunk.carried >= 0)[chunk.group]
        clean = np.maximum.accumulate(np.where(strange, self.index, -1)) < begin
        data = chunk.payload > 0
        quiet = clean & (chunk.protocol == TCP) & ~chunk.first & acks & ~syn & (chunk.window != 0)
        quiet &= ((has_own & has_other) | goes_on) & self._established(syn | data, goes_on)
        quiet &= self._seen_alike(data & ~syn, acks & ~syn & ~data, data, known.seen[flat])
        pause = np.full(len(quiet), PAUSE)
        pause[1:] = chunk.now[1:] - chunk.time[:-1]
        quiet[1:] &= (chunk.now[1:] >> MINUTE == chunk.now[:-1] >> MINUTE) & (chunk.time[1:] >= chunk.time[:-1])
        result: Bools = quiet & (pause < PAUSE)
        return result

    def _established(self, speaks: Bools, goes_on: Bools) -> Bools:
        """Both sides have sent data or a SYN before."""
        own, other = self._before(speaks)
        spoken: Bools = goes_on | (own >= self.begin) & (other >= self.begin)
        return spoken

    def _seen_alike(self, data: Bools, bare: Bools, has_data: Bools, seen: Int64s) -> Bools:
        """A packet's letter, D or A, is in the history already."""
        with_data, without = self._before(data)[0] >= self.begin, self._before(bare)[0] >= self.begin
        alike: Bools = np.where(has_data, with_data | (seen & SEEN_DATA != 0), without | (seen & SEEN_ACK != 0))
        return alike


class _Known:
    """What is known of connections open before the chunk, by group; `end` and `seen` are flat: two elements a group."""

    def __init__(self, table: Table, carried: Int64s) -> None:
        there = carried >= 0
        row = carried[there]
        self.clean = np.zeros(len(carried), dtype=bool)
        self.end = np.zeros(2 * len(carried), dtype=np.uint32)
        self.seen = np.zeros(2 * len(carried), dtype=np.int64)
        fine = (table["state"][row] == ESTABLISHED) & (table["given_up"][row] == 0) & (table["closing"][row] == 0)
        fine &= (table["closed"][row] == 0) & (
            np.maximum(table["delivered"][row], 1) == np.maximum(table["top"][row], 1)
        )
        self.clean[there] = fine.all(axis=1) & (table["protocol"][row] == TCP)
        flat = (np.flatnonzero(there)[:, None] * 2 + np.arange(2)).ravel()
        self.end[flat] = (table["start"][row] + np.maximum(table["top"][row], 1)).ravel().astype(np.uint32)
        self.seen[flat] = table["seen"][row].ravel()
