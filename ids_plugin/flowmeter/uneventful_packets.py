"""Packets that only go on: in the middle of a TCP connection, in order, nothing missing on either side.

A run of them moves sequence numbers and counts, and does nothing else. So each run is stood for by at most three
packets, which carry the bytes and the acknowledgements of all; what follows a run finds what it would have found.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import ACK, ESTABLISHED, FIN, RST, SYN, Table
from ids_plugin.flowmeter.packet_order import ConnectionPackets
from ids_plugin.flowmeter.packets.decoder import TCP
from ids_plugin.flowmeter.tcp_stream import SEEN_ACK, SEEN_DATA

Int64s = npt.NDArray[np.int64]
UInt32s = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

MIN_CHUNK_PACKETS = 4_000
"""Packets of a chunk for which looking for runs pays."""
MIN_RUN_PACKETS = 5
"""Packets of a run worth replacing."""
MAX_PAUSE_US = 5_000_000
"""µs behind which a packet may be late for something."""
MINUTE_SHIFT = 26
"""Runs end where µs >> MINUTE changes: what stands for a run is no more than 67 s behind what stood before it."""
PACKET_COLUMNS = (
    "capture_index", "group", "order", "time", "arrival", "side", "protocol", "flags", "sequence", "ack_number", "payload_bytes",
    "window", "has_bad_checksum", "is_first_of_group",
)  # fmt: skip


def without_uneventful_runs(chunk: ConnectionPackets) -> tuple[ConnectionPackets, Int64s]:
    """The chunk with runs replaced, and where its packets stand in the whole one."""
    count = len(chunk.group)
    if count < MIN_CHUNK_PACKETS:
        return chunk, np.arange(count)
    on = _RunFinder(chunk)
    starts, last = _runs(on.quiet)
    edges = np.diff(np.stack([starts, last + 1], axis=1).ravel(), prepend=0, append=count)
    kept = np.repeat(np.arange(len(edges)) % 2 == 0, edges)
    there, more = on.other[last] >= starts, on.own[last] >= starts
    kept[last] = kept[last[there] - 1] = kept[last[more] - 2] = True
    place = np.flatnonzero(kept)
    few = copy.copy(chunk)
    for name in PACKET_COLUMNS:
        setattr(few, name, getattr(chunk, name)[place])
    _write_stand_ins(few, np.cumsum(kept.astype(np.int64)) - 1, on, starts, last, there, more)
    return few, place


def _runs(quiet: Bools) -> tuple[Int64s, Int64s]:
    """First and last packet of every run that is long enough."""
    edges = np.flatnonzero(np.diff(quiet, prepend=False, append=False))
    starts, last = edges[::2], edges[1::2] - 1
    long = last - starts >= MIN_RUN_PACKETS - 1
    return starts[long], last[long]


def _write_stand_ins(
    few: ConnectionPackets,
    place: Int64s,
    on: _RunFinder,
    starts: Int64s,
    last: Int64s,
    there: Bools,
    more: Bools,
) -> None:
    """Puts what stands for each run in its last three places: one side's bytes, the other's, the last packet itself.

    `capture_index` of a packet is that in `few`; `there`: the other side has packets in the run, `more`: the last one's side
    has others.
    """
    chunk, side, theirs = on.chunk, on.chunk.side[last], on.other[last]
    zero, one = on.sum(0, starts, last), on.sum(1, starts, last)
    own_bytes = np.where(side == 0, zero, one) - chunk.payload_bytes[last]
    other_bytes = np.where(side == 0, one, zero)
    begin = (chunk.sequence[theirs] + chunk.payload_bytes[theirs] - other_bytes) & 0xFFFFFFFF
    at = place[last[there] - 1]
    few.side[at] = 1 - side[there]
    few.sequence[at], few.payload_bytes[at] = begin[there], other_bytes[there]
    few.ack_number[at] = chunk.ack_number[theirs[there]]
    few.flags[at] = ACK
    at = place[last[more] - 2]
    few.side[at] = side[more]
    few.sequence[at] = (chunk.sequence[last[more]] - own_bytes[more]) & 0xFFFFFFFF
    few.payload_bytes[at] = own_bytes[more]
    acknowledged = chunk.ack_number[last]
    lead = _signed(acknowledged - begin) > 0
    few.ack_number[at] = np.where(lead & there, begin, acknowledged)[more]
    few.flags[at] = ACK


def _signed(difference: Int64s) -> npt.NDArray[np.int32]:
    return difference.astype(np.uint32).view(np.int32)


class _RunFinder:
    """Which packets are `quiet`, and the packets of the same (`own`) and the other side before each."""

    def __init__(self, chunk: ConnectionPackets) -> None:
        self.chunk = chunk
        self.index = np.arange(len(chunk.group))
        self.heads = np.flatnonzero(chunk.is_first_of_group)
        self.sizes = np.diff(self.heads, append=len(chunk.group))
        self.begin = np.repeat(self.heads, self.sizes)
        self.own, self.other = self._before()
        theirs = np.cumsum(chunk.payload_bytes * chunk.side)
        self.sums = np.cumsum(chunk.payload_bytes) - theirs, theirs
        self.quiet = self._quiet()

    def sum(self, side: int, first: Int64s, last: Int64s) -> Int64s:
        """Payload bytes of a side in first … last; no run begins with the chunk."""
        total: Int64s = self.sums[side][last] - self.sums[side][first - 1]
        return total

    def _before(self) -> tuple[Int64s, Int64s]:
        """The last packet before each, of its own side and of the other; it may be of another connection, or -1."""
        side = self.chunk.side
        turns = np.append(0, np.flatnonzero(side[1:] != side[:-1]) + 1)
        other = np.repeat(turns - 1, np.diff(turns, append=len(side)))
        own = self.index - 1
        own[turns[1:]] = other[turns[1:] - 1]
        return own, other

    def _quiet(self) -> Bools:
        chunk, begin, own, other = self.chunk, self.begin, self.own, self.other
        known = _OpenConnections(chunk.table, chunk.open_row)
        flags = chunk.flags.astype(np.uint8)
        syn, fin, acks = flags & SYN != 0, flags & FIN != 0, flags & ACK != 0
        data = chunk.payload_bytes > 0
        sequence, number = chunk.sequence.astype(np.uint32), chunk.ack_number.astype(np.uint32)
        end = sequence + chunk.payload_bytes.astype(np.uint32) + syn + fin
        has_own, has_other = own >= begin, other >= begin
        goes_on = np.repeat(known.clean, self.sizes)
        flat = chunk.group * 2 + chunk.side
        expected, seen = end[own], end[other]
        for values, there, at in ((expected, has_own, flat), (seen, has_other, flat ^ 1)):
            early = np.flatnonzero(~there)
            values[early] = known.end[at[early]]
        strange = (sequence != expected) & (has_own | goes_on)
        strange |= ((seen - number).view(np.int32) < 0) & (has_other | goes_on) & acks
        strange |= ((number - number[own]).view(np.int32) < 0) & has_own & acks[own]
        strange |= (flags & (FIN | RST) != 0) | syn & (has_own | goes_on) | chunk.has_bad_checksum
        strange[self.heads] |= ~known.clean & (chunk.open_row >= 0)
        quiet = (
            (chunk.protocol == TCP) & ~chunk.is_first_of_group & acks & ~syn & (chunk.window != 0)
        )
        quiet &= self._in_the_middle(
            strange, flat[np.flatnonzero(syn | data)], np.flatnonzero(syn | data), known
        )
        quiet &= self._seen_alike(flat * 2 + data, ~syn & (data | acks), known)
        minute = chunk.arrival >> MINUTE_SHIFT
        quiet[1:] &= (minute[1:] == minute[:-1]) & (chunk.time[1:] >= chunk.time[:-1])
        quiet[1:] &= chunk.arrival[1:] - chunk.time[:-1] < MAX_PAUSE_US
        result: Bools = quiet
        return result

    def _in_the_middle(
        self, strange: Bools, speaker: Int64s, spoken: Int64s, known: _OpenConnections
    ) -> Bools:
        """Both sides have sent data or a SYN before (`speaker` at `spoken`), and nothing strange was there yet."""
        first = _first_positions(speaker, spoken, 2 * len(self.heads))
        opened = np.where(known.clean, -1, np.maximum(first[::2], first[1::2]))
        odd = np.flatnonzero(strange)
        until = _first_positions(self.chunk.group[odd], odd, len(self.heads))
        middle: Bools = self.index > np.repeat(opened, self.sizes)
        middle &= self.index < np.repeat(until, self.sizes)
        return middle

    def _seen_alike(self, kind: Int64s, counts: Bools, known: _OpenConnections) -> Bools:
        """A packet's letter, D or A, is in the history already; `kind` is four a group: of each side, A and D."""
        at = np.flatnonzero(counts)
        first = _first_positions(kind[at], at, 2 * len(known.seen))
        first[::2][known.seen & SEEN_ACK != 0] = -1
        first[1::2][known.seen & SEEN_DATA != 0] = -1
        alike: Bools = first[kind] < self.index
        return alike


def _first_positions(kind: Int64s, place: Int64s, count: int) -> Int64s:
    """The first of the ascending places of each of `count` kinds; beyond any where there is none."""
    first = np.full(count, np.iinfo(np.int64).max)
    first[kind[::-1]] = place[::-1]
    return first


class _OpenConnections:
    """What is known of connections open before the chunk, by group; `attempt_end` and `seen_letters` are flat: two elements a group."""

    def __init__(self, table: Table, carried: Int64s) -> None:
        there = np.flatnonzero(carried >= 0)
        row = carried[there]
        self.clean = np.zeros(len(carried), dtype=bool)
        self.end = np.zeros(2 * len(carried), dtype=np.uint32)
        self.seen = np.zeros(2 * len(carried), dtype=np.int64)
        fine = table["protocol"][row] == TCP
        for side in (0, 1):
            state, given_up, closing, closed, delivered, top, start, seen = (
                table.of(name, side)[row]
                for name in (
                    "state",
                    "is_given_up",
                    "is_closing",
                    "is_closed",
                    "delivered_end",
                    "highest_sequence",
                    "initial_sequence",
                    "seen_letters",
                )
            )
            fine &= (state == ESTABLISHED) & (given_up | closing | closed == 0)
            fine &= np.maximum(delivered, 1) == np.maximum(top, 1)
            self.end[2 * there + side] = (start + np.maximum(top, 1)).astype(np.uint32)
            self.seen[2 * there + side] = seen
        self.clean[there] = fine
