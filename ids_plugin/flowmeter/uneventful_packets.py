"""Uneventful packets: in the middle of a TCP connection, in order, with nothing missing on either
side.

A run of them moves sequence numbers and counts, and does nothing else. So at most three packets
stand for a whole run. They carry the bytes and the acknowledgements of all its packets, and the
packets that follow meet the same state as after the run itself.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import ACK, ESTABLISHED, FIN, RST, SYN, Table
from ids_plugin.flowmeter.packet_order import ConnectionPackets
from ids_plugin.flowmeter.packets.packet_columns import TCP
from ids_plugin.flowmeter.tcp_stream import SEEN_ACK, SEEN_DATA

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_CHUNK_PACKETS = 4_000
"""Packets of a chunk for which looking for runs pays."""
MIN_RUN_PACKETS = 5
"""Packets of a run worth replacing."""
MAX_PAUSE_US = 5_000_000
"""µs behind which a packet may be late for something."""
MINUTE_SHIFT = 26
"""Runs end where µs >> MINUTE changes: what stands for a run is no more than 67 s behind what
stood before it.
"""
PACKET_COLUMNS = (
    "capture_index", "group", "order", "time", "arrival", "side", "protocol", "flags", "sequence",
    "ack_number", "payload_bytes", "window", "has_bad_checksum", "is_first_of_group",
)  # fmt: skip


def without_uneventful_runs(chunk: ConnectionPackets) -> tuple[ConnectionPackets, Int64s]:
    """The chunk with runs replaced, and where its packets stand in the whole one."""
    count = len(chunk.group)
    if count < MIN_CHUNK_PACKETS:
        return chunk, np.arange(count)
    finder = _RunFinder(chunk)
    starts, last = _runs(finder.is_uneventful)
    edges = np.diff(np.stack([starts, last + 1], axis=1).ravel(), prepend=0, append=count)
    is_kept = np.repeat(np.arange(len(edges)) % 2 == 0, edges)
    has_other, has_more = finder.previous_other[last] >= starts, finder.previous_own[last] >= starts
    is_kept[last] = is_kept[last[has_other] - 1] = is_kept[last[has_more] - 2] = True
    positions = np.flatnonzero(is_kept)
    reduced = copy.copy(chunk)
    for name in PACKET_COLUMNS:
        setattr(reduced, name, getattr(chunk, name)[positions])
    _write_stand_ins(
        reduced, np.cumsum(is_kept.astype(np.int64)) - 1, finder, starts, last, has_other, has_more
    )
    return reduced, positions


def _runs(is_uneventful: Bools) -> tuple[Int64s, Int64s]:
    """First and last packet of every run that is long enough."""
    edges = np.flatnonzero(np.diff(is_uneventful, prepend=False, append=False))
    starts, last = edges[::2], edges[1::2] - 1
    is_long = last - starts >= MIN_RUN_PACKETS - 1
    return starts[is_long], last[is_long]


def _write_stand_ins(
    reduced: ConnectionPackets,
    positions: Int64s,
    finder: _RunFinder,
    starts: Int64s,
    last: Int64s,
    has_other: Bools,
    has_more: Bools,
) -> None:
    """Puts what stands for each run in its last three places: one side's bytes, the other's, the
    last packet itself.

    `capture_index` of a packet is that in `reduced`; `groups`: the other side has packets in the
    run, `has_more`: the last one's side has others.
    """
    chunk, side, last_other = finder.chunk, finder.chunk.side[last], finder.previous_other[last]
    low_bytes, high_bytes = (
        finder.payload_between(0, starts, last),
        finder.payload_between(1, starts, last),
    )
    own_bytes = np.where(side == 0, low_bytes, high_bytes) - chunk.payload_bytes[last]
    other_bytes = np.where(side == 0, high_bytes, low_bytes)
    begin = (
        chunk.sequence[last_other] + chunk.payload_bytes[last_other] - other_bytes
    ) & 0xFFFFFFFF
    position = positions[last[has_other] - 1]
    reduced.side[position] = 1 - side[has_other]
    reduced.sequence[position], reduced.payload_bytes[position] = (
        begin[has_other],
        other_bytes[has_other],
    )
    reduced.ack_number[position] = chunk.ack_number[last_other[has_other]]
    reduced.flags[position] = ACK
    position = positions[last[has_more] - 2]
    reduced.side[position] = side[has_more]
    reduced.sequence[position] = (chunk.sequence[last[has_more]] - own_bytes[has_more]) & 0xFFFFFFFF
    reduced.payload_bytes[position] = own_bytes[has_more]
    acknowledged = chunk.ack_number[last]
    lead = _signed(acknowledged - begin) > 0
    reduced.ack_number[position] = np.where(lead & has_other, begin, acknowledged)[has_more]
    reduced.flags[position] = ACK


def _signed(difference: Int64s) -> npt.NDArray[np.int32]:
    return difference.astype(np.uint32).view(np.int32)


class _RunFinder:
    """Which packets are `is_uneventful`, and the packets of the same (`previous_own`) and the
    other side before each.
    """

    def __init__(self, chunk: ConnectionPackets) -> None:
        self.chunk = chunk
        self.index = np.arange(len(chunk.group))
        self.group_heads = np.flatnonzero(chunk.is_first_of_group)
        self.group_sizes = np.diff(self.group_heads, append=len(chunk.group))
        self.group_begin = np.repeat(self.group_heads, self.group_sizes)
        self.previous_own, self.previous_other = self._previous_packets()
        high_sums = np.cumsum(chunk.payload_bytes * chunk.side)
        self.payload_sums = np.cumsum(chunk.payload_bytes) - high_sums, high_sums
        self.is_uneventful = self._find_uneventful()

    def payload_between(self, side: int, first: Int64s, last: Int64s) -> Int64s:
        """Payload bytes of a side in first … last; no run begins with the chunk."""
        total: Int64s = self.payload_sums[side][last] - self.payload_sums[side][first - 1]
        return total

    def _previous_packets(self) -> tuple[Int64s, Int64s]:
        """The last packet before each, of its own side and of the other; it may be of another
        connection, or -1.
        """
        side = self.chunk.side
        turns = np.append(0, np.flatnonzero(side[1:] != side[:-1]) + 1)
        other = np.repeat(turns - 1, np.diff(turns, append=len(side)))
        own = self.index - 1
        own[turns[1:]] = other[turns[1:] - 1]
        return own, other

    def _find_uneventful(self) -> Bools:
        chunk, begin, own, other = (
            self.chunk,
            self.group_begin,
            self.previous_own,
            self.previous_other,
        )
        known = _OpenConnections(chunk.table, chunk.open_row)
        flags = chunk.flags.astype(np.uint8)
        is_syn, is_fin, is_ack = flags & SYN != 0, flags & FIN != 0, flags & ACK != 0
        has_data = chunk.payload_bytes > 0
        sequence, ack_number = chunk.sequence.astype(np.uint32), chunk.ack_number.astype(np.uint32)
        end = sequence + chunk.payload_bytes.astype(np.uint32) + is_syn + is_fin
        has_own, has_other = own >= begin, other >= begin
        continues = np.repeat(known.is_clean, self.group_sizes)
        side_of_group = chunk.group * 2 + chunk.side
        own_end, other_end = end[own], end[other]
        for values, has_previous, side_index in (
            (own_end, has_own, side_of_group),
            (other_end, has_other, side_of_group ^ 1),
        ):
            early = np.flatnonzero(~has_previous)
            values[early] = known.expected_sequence[side_index[early]]
        is_unusual = (sequence != own_end) & (has_own | continues)
        is_unusual |= (
            ((other_end - ack_number).view(np.int32) < 0) & (has_other | continues) & is_ack
        )
        is_unusual |= ((ack_number - ack_number[own]).view(np.int32) < 0) & has_own & is_ack[own]
        is_unusual |= (
            (flags & (FIN | RST) != 0) | is_syn & (has_own | continues) | chunk.has_bad_checksum
        )
        is_unusual[self.group_heads] |= ~known.is_clean & (chunk.open_row >= 0)
        is_uneventful = (
            (chunk.protocol == TCP)
            & ~chunk.is_first_of_group
            & is_ack
            & ~is_syn
            & (chunk.window != 0)
        )
        is_uneventful &= self._is_in_the_middle(
            is_unusual,
            side_of_group[np.flatnonzero(is_syn | has_data)],
            np.flatnonzero(is_syn | has_data),
            known,
        )
        is_uneventful &= self._letter_is_known(
            side_of_group * 2 + has_data, ~is_syn & (has_data | is_ack), known
        )
        minute = chunk.arrival >> MINUTE_SHIFT
        is_uneventful[1:] &= (minute[1:] == minute[:-1]) & (chunk.time[1:] >= chunk.time[:-1])
        is_uneventful[1:] &= chunk.arrival[1:] - chunk.time[:-1] < MAX_PAUSE_US
        result: Bools = is_uneventful
        return result

    def _is_in_the_middle(
        self, is_unusual: Bools, speaker: Int64s, spoken: Int64s, known: _OpenConnections
    ) -> Bools:
        """Both sides have sent data or a SYN before (`speaker` at `spoken`), and nothing strange
        was there yet.
        """
        first = _first_positions(speaker, spoken, 2 * len(self.group_heads))
        opened = np.where(known.is_clean, -1, np.maximum(first[::2], first[1::2]))
        unusual = np.flatnonzero(is_unusual)
        until = _first_positions(self.chunk.group[unusual], unusual, len(self.group_heads))
        is_in_the_middle: Bools = self.index > np.repeat(opened, self.group_sizes)
        is_in_the_middle &= self.index < np.repeat(until, self.group_sizes)
        return is_in_the_middle

    def _letter_is_known(self, kind: Int64s, counts: Bools, known: _OpenConnections) -> Bools:
        """A packet's letter, D or A, is in the history already; `kind` is four a group: of each
        side, A and D.
        """
        positions = np.flatnonzero(counts)
        first = _first_positions(kind[positions], positions, 2 * len(known.seen_letters))
        first[::2][known.seen_letters & SEEN_ACK != 0] = -1
        first[1::2][known.seen_letters & SEEN_DATA != 0] = -1
        is_known: Bools = first[kind] < self.index
        return is_known


def _first_positions(kind: Int64s, positions: Int64s, count: int) -> Int64s:
    """The first of the ascending places of each of `count` kinds; beyond any where there is
    none.
    """
    first = np.full(count, np.iinfo(np.int64).max)
    first[kind[::-1]] = positions[::-1]
    return first


class _OpenConnections:
    """What is known of connections open before the chunk, by group; `attempt_end` and
    `seen_letters` are flat: two elements a group.
    """

    def __init__(self, table: Table, carried: Int64s) -> None:
        groups = np.flatnonzero(carried >= 0)
        row = carried[groups]
        self.is_clean = np.zeros(len(carried), dtype=bool)
        self.expected_sequence = np.zeros(2 * len(carried), dtype=np.uint32)
        self.seen_letters = np.zeros(2 * len(carried), dtype=np.int64)
        is_clean = table["protocol"][row] == TCP
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
            is_clean &= (state == ESTABLISHED) & (given_up | closing | closed == 0)
            is_clean &= np.maximum(delivered, 1) == np.maximum(top, 1)
            self.expected_sequence[2 * groups + side] = (start + np.maximum(top, 1)).astype(
                np.uint32
            )
            self.seen_letters[2 * groups + side] = seen
        self.is_clean[groups] = is_clean
