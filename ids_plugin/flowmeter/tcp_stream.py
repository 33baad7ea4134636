"""TCP byte streams and histories, for all packets of a chunk at once.

The packets of a connection stand one behind the other. A running maximum of the sequence numbers
over them gives what a side had sent before each packet; one of the acknowledgements and of the ends
of the payload gives what had arrived. One running maximum serves all connections of the chunk,
because each connection's numbers are raised above those of the connection before it
(`_SequenceSpaces.base`).

A maximum can't see a hole. Only where data come early, beyond bytes that are still missing, a
`Reassembler` takes single packets, until nothing is missing any more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import (
    ACK,
    CLOSE_DELAY_US,
    CLOSED,
    ESTABLISHED,
    FIN,
    INACTIVE,
    PARTIAL,
    RESET,
    RST,
    SYN,
    SYN_ACK_SENT,
    SYN_SENT,
)
from ids_plugin.flowmeter.packet_order import ConnectionPackets
from ids_plugin.flowmeter.packets.packet_columns import TCP, UDP
from ids_plugin.flowmeter.packets.tunnels import TOO_DEEP
from ids_plugin.flowmeter.tcp_state import StateTracker

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

MAX_SEQUENCE_JUMP = 1 << 20
"""A SYN or RST that jumps farther in sequence space isn't believed."""
MAX_BYTES_ABOVE_GAP = 16384
"""tcp_max_above_hole_without_any_acks: data so far ahead, nothing acknowledged, and Zeek gives
up on the stream.
"""
MAX_STREAM_BYTES = 1 << 40
"""Bytes of a stream that are told apart; more than any capture holds."""
SEEN_DATA, SEEN_ACK, SEEN_SYN, SEEN_FIN, SEEN_RST, SEEN_INCONSISTENT, SEEN_MULTIPLE, SEEN_LIMIT = (
    1 << bit for bit in range(8)
)
POWERS_OF_TEN = 10 ** np.arange(12)
UNDIRECTED_LETTERS = (ord("^"), ord("X"))
"""letters of the connection, not of a side"""


def signed(difference: Int64s) -> Int64s:
    """Distance in 32-bit sequence space, -2^31 … 2^31 - 1."""
    return (difference + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


class RunningMaximum(NamedTuple):
    """A maximum over the stretch so far: with and without the packet itself."""

    including: Int64s
    before: Int64s


class _SequenceSpaces(NamedTuple):
    """Stretches of one side's sequence numbers."""

    restarts: Bools
    """where the side's sequence numbers start anew"""
    starts: Bools
    """there, and where connections begin"""
    base: Int64s
    """number of the segment, above the bits of any value: running maxima don't cross segments"""

    @classmethod
    def of(cls, connection_starts: Bools, restarts: Bools) -> _SequenceSpaces:
        starts = connection_starts | restarts
        return cls(restarts, starts, np.cumsum(starts.astype(np.int64)) << 41)


class Reassembler:
    """What one side has sent and not all been received in order: Zeek's reassembler for the
    packets around a hole.
    """

    def __init__(self, delivered: int, trimmed: int) -> None:
        self.delivered = delivered
        self.acknowledged = trimmed
        self.is_given_up = False
        self.blocks: list[tuple[int, int]] = []

    def add_payload(self, start: int, end: int) -> None:
        """Takes payload of relative sequence numbers start … end."""
        start = max(start, self.acknowledged)
        if end <= start:
            return
        self.blocks.append((start, end))
        self._deliver_in_order()
        self.is_given_up |= self.acknowledged <= 1 and any(
            end - self.delivered > MAX_BYTES_ABOVE_GAP for _, end in self.blocks
        )

    def acknowledge(self, acknowledged: int) -> list[int]:
        """The peer has everything below `acknowledged`; sizes of the holes that it shows were
        never seen.
        """
        if acknowledged <= self.acknowledged:
            return []
        gaps = []
        if acknowledged > self.delivered:
            for start, end in sorted(self.blocks):
                if start >= acknowledged:
                    break
                if start > self.delivered:
                    gaps.append(start - self.delivered)
                self.delivered = max(self.delivered, end)
            if acknowledged > self.delivered:
                gaps.append(acknowledged - self.delivered)
                self.delivered = acknowledged
        self.acknowledged = acknowledged
        self._deliver_in_order()
        return gaps

    def _deliver_in_order(self) -> None:
        """Moves over blocks that are no longer behind a hole and forgets those acknowledged."""
        rest = []
        for start, end in sorted(self.blocks):
            if start <= self.delivered:
                self.delivered = max(self.delivered, end)
            else:
                rest.append((start, end))
        self.blocks = rest


class TcpStreams:
    """Bytes, gaps, closing and history letters of one chunk's packets; updates the table as it
    goes.
    """

    def __init__(
        self,
        chunk: ConnectionPackets,
        tracker: StateTracker,
        reassemblers: dict[tuple[int, int], Reassembler],
    ) -> None:
        self.chunk = chunk
        self.tracker = tracker
        self.reassemblers = reassemblers
        self.letter_groups: list[tuple[Int64s, int, Int64s, int]] = []
        self.is_tcp = (chunk.protocol == TCP) & ~chunk.has_bad_checksum
        self.connection_starts = chunk.is_first_of_group | tracker.begins_connection
        self.count = len(self.connection_starts)
        self.continued = chunk.connection_start[~chunk.is_new]
        self.continued_rows = chunk.table_row[~chunk.is_new]
        flags = chunk.flags
        self.is_syn, self.is_fin, self.is_rst, self.is_ack = (
            flags & bit != 0 for bit in (SYN, FIN, RST, ACK)
        )
        self._checksum_letters()
        self._datagram_letters()
        self.is_after_close = np.zeros(self.count, dtype=bool)
        if self.is_tcp.any():
            self._follow_tcp()
        self.is_after_close |= chunk.has_bad_checksum
        self._flip_letters()

    def _follow_tcp(self) -> None:
        self.state_before = self._side_state_before(0), self._side_state_before(1)
        is_low = self.chunk.side == 0
        self.sender_state_before = np.where(is_low, *self.state_before)
        self.receiver_state_before = np.where(is_low, *self.state_before[::-1])
        sides = [self._follow_side(is_low) for is_low in (0, 1)]
        self._closed_sides(sides)

    def _side_state_before(self, side: int) -> Int8s:
        """State of a side before each packet."""
        state = np.zeros(self.count, dtype=np.int8)
        state[1:] = self.tracker.state[side][:-1]
        state[self.connection_starts] = INACTIVE
        state[self.continued] = self.chunk.table.of("state", side)[self.continued_rows]
        return state

    def _running_maximum(self, values: Int64s, base: Int64s) -> Int64s:
        """Running maximum within segments; values in 0 … FARTHEST, `base` as `_base` gives it."""
        top = values + base
        np.maximum.accumulate(top, out=top)
        top -= base
        return top

    def _running_with_before(
        self, values: Int64s, base: Int64s, starts: Bools, first: Int64s
    ) -> RunningMaximum:
        """The same, also before each packet: `first_complete` where a segment starts."""
        top = self._running_maximum(values, base)
        before = np.empty_like(top)
        before[1:] = top[:-1]
        return RunningMaximum(top, np.where(starts, first, before))

    def _flip_letters(self) -> None:
        position = np.flatnonzero(self.tracker.is_flipped)
        is_beginning = self.tracker.begins_connection[position]
        self._add_letters(position[is_beginning], -1, "^")
        self._add_letters(position[~is_beginning], 5, "^")
        self._add_letters(np.flatnonzero(self.tracker.is_reversed), 5, "^")

    def _checksum_letters(self) -> None:
        """Packets of TCP and UDP whose checksum doesn't fit."""
        if self.chunk.has_bad_checksum.any():
            counted = self.chunk.has_bad_checksum & np.isin(self.chunk.protocol, (TCP, UDP))
            for side in (0, 1):
                self._letter_at_powers_of_ten(
                    np.flatnonzero(counted & (self.chunk.side == side)),
                    side,
                    0,
                    "bad_checksums",
                    "C",
                )

    def _datagram_letters(self) -> None:
        udp = (self.chunk.protocol == UDP) & ~self.chunk.has_bad_checksum
        if udp.any():
            for side in (0, 1):
                self._letter_once(udp & (self.chunk.side == side), side, SEEN_DATA, "D")
            deep = self.chunk.packets.tunnel_kind == TOO_DEEP
            if deep.any():
                self._letter_once(deep[self.chunk.order], 0, SEEN_LIMIT, "X")

    def _add_letters(
        self, position: Int64s, rank: int, letter: str, side: int | None = None
    ) -> None:
        """Adds `letter` at packets, by rank within a packet. It is the sender's unless `is_low`
        is given.
        """
        if len(position):
            sides = (
                self.chunk.side[position]
                if side is None
                else np.full(len(position), side, dtype=np.int64)
            )
            self.letter_groups.append((position, rank, sides, ord(letter)))

    def _connection_heads(self, position: Int64s) -> tuple[Bools, Int64s]:
        """Which of these packets are the first of their connection among them, and the table's
        rows.
        """
        stretch = self.chunk.connection[position]
        first = np.ones(len(position), dtype=bool)
        first[1:] = stretch[1:] != stretch[:-1]
        return first, self.chunk.table_row[stretch]

    def _letter_once(self, mask: Bools, side: int, bit: int, letter: str) -> None:
        """The letter at the first packet of `is_wanted` in each connection that has not seen it
        yet.
        """
        position = np.flatnonzero(mask)
        if not len(position):
            return
        is_first, row = self._connection_heads(position)
        position, row = position[is_first], row[is_first]
        seen = self.chunk.table["seen_letters"]
        is_unseen = seen[row, side] & bit == 0
        seen[row, side] |= bit
        self._add_letters(position[is_unseen], 0, letter)

    def _changed_numbers(
        self, mask: Bools, side: int, number: Int64s, column: str, bit: int
    ) -> Int64s:
        """The first packet of `is_wanted` in each connection, and those whose number differs
        from the last one's.
        """
        position = np.flatnonzero(mask)
        if not len(position):
            return position
        table = self.chunk.table
        is_first, row = self._connection_heads(position)
        value = number[position]
        previous = np.empty_like(value)
        previous[1:] = value[:-1]
        previous[is_first] = table[column][row[is_first], side]
        is_unseen = is_first & (table.of("seen_letters", side)[row] & bit == 0)
        is_last = np.append(is_first[1:], True)
        table[column][row[is_last], side] = value[is_last]
        table.of("seen_letters", side)[row] |= bit
        chosen: Int64s = position[is_unseen | (value != previous)]
        return chosen

    def _letter_at_powers_of_ten(
        self, position: Int64s, side: int, rank: int, column: str, letter: str
    ) -> None:
        """The letter at the 1st, 10th, 100th, … of these packets of a connection."""
        if not len(position):
            return
        is_first, rows = self._connection_heads(position)
        first_indices = np.flatnonzero(is_first)
        table = self.chunk.table
        count = (
            np.arange(len(position))
            - np.repeat(first_indices, np.diff(np.append(first_indices, len(position))))
            + 1
        )
        count += table.of(column, side)[rows]
        is_last = np.append(is_first[1:], True)
        table[column][rows[is_last], side] = count[is_last]
        is_power = POWERS_OF_TEN[np.searchsorted(POWERS_OF_TEN, count)] == count
        self._add_letters(position[is_power], rank, letter, side)

    def _follow_side(self, side: int) -> _Direction:
        """One direction's letters, bytes and gaps; what its closing depends on."""
        chunk = self.chunk
        is_own = self.is_tcp & (chunk.side == side)
        relative_sequence = signed(chunk.sequence - self.tracker.initial_sequence[side])
        payload_bytes = chunk.payload_bytes
        self._control_letters(side, is_own, relative_sequence, payload_bytes)
        is_zero_window = (
            is_own
            & (chunk.window == 0)
            & ~self.is_rst
            & (self.receiver_state_before != CLOSED)
            & (self.sender_state_before != RESET)
        )
        self._letter_at_powers_of_ten(np.flatnonzero(is_zero_window), side, 1, "zero_windows", "W")
        restarts = self._sequence_restarts(side, is_own)
        segments = _SequenceSpaces.of(self.connection_starts, restarts)
        highest_sequence = self._sent_bytes(side, is_own, relative_sequence, segments)
        return self._received_bytes(side, is_own, relative_sequence, segments, highest_sequence)

    def _control_letters(
        self, side: int, is_own: Bools, relative_sequence: Int64s, payload_bytes: Int64s
    ) -> None:
        """S H F R I Q, D and A."""
        syn, fin, rst = self.is_syn, self.is_fin, self.is_rst
        control_count = syn.astype(np.int8) + fin + rst
        has_several = is_own & (control_count > 1)
        if has_several.any():
            self._letter_once(has_several & fin & rst, side, SEEN_INCONSISTENT, "I")
            self._letter_once(has_several & ~(fin & rst), side, SEEN_MULTIPLE, "Q")
        has_one = is_own & (control_count == 1)
        position = self._changed_numbers(
            has_one & syn, side, relative_sequence, "last_syn", SEEN_SYN
        )
        is_syn_ack = self.is_ack[position]
        self._add_letters(position[is_syn_ack], 0, "H")
        self._add_letters(position[~is_syn_ack], 0, "S")
        self._add_letters(
            self._changed_numbers(
                has_one & fin, side, relative_sequence + payload_bytes, "last_fin", SEEN_FIN
            ),
            0,
            "F",
        )
        self._add_letters(
            self._changed_numbers(has_one & rst, side, relative_sequence, "last_rst", SEEN_RST),
            0,
            "R",
        )
        has_none = is_own & (control_count == 0)
        self._letter_once(has_none & (payload_bytes > 0), side, SEEN_DATA, "D")
        self._letter_once(has_none & (payload_bytes == 0) & self.is_ack, side, SEEN_ACK, "A")

    def _sequence_restarts(self, side: int, is_own: Bools) -> Bools:
        """Where the side's sequence numbers start anew."""
        sender_state = self.sender_state_before
        restarts: Bools = is_own & (
            (sender_state == INACTIVE)
            | (self.is_syn & ((sender_state == ESTABLISHED) | (sender_state == PARTIAL)))
        )
        repeats_syn = (
            is_own
            & self.is_syn
            & (
                (sender_state == SYN_SENT)
                | (sender_state == SYN_ACK_SENT)
                | (sender_state == RESET)
            )
        )
        if repeats_syn.any():
            initial_sequence = self.tracker.initial_sequence[side]
            previous_start = np.append(initial_sequence[:1], initial_sequence[:-1])
            previous_start[self.continued] = self.chunk.table.of("initial_sequence", side)[
                self.continued_rows
            ]
            restarts |= repeats_syn & (initial_sequence != previous_start)
        return restarts

    def _carry_over(self, column: str, side: int, values: Int64s, restarts: Bools) -> None:
        """Carries what earlier chunks left over to the first packets of connections that go on."""
        earlier = np.where(
            restarts[self.continued], 0, self.chunk.table.of(column, side)[self.continued_rows]
        )
        values[self.continued] = np.maximum(values[self.continued], earlier)

    def _sent_bytes(
        self, side: int, is_own: Bools, relative_sequence: Int64s, segments: _SequenceSpaces
    ) -> Int64s:
        """Highest sequence number the side has used (Zeek's last_seq); retransmissions on the
        way.
        """
        chunk, table = self.chunk, self.chunk.table
        restarts, starts, base = segments
        end_sequence = (
            relative_sequence
            + self.is_syn
            + self.is_fin
            + np.where(self.is_rst, 0, chunk.payload_bytes)
        )
        is_live = is_own & (self.sender_state_before != RESET)
        is_believed = is_live & ~self.is_rst
        first_sequence = np.where(restarts & ~self.is_syn, relative_sequence, end_sequence)
        earlier = np.zeros(self.count, dtype=np.int64)
        earlier[self.continued] = table.of("highest_sequence", side)[self.continued_rows]
        believed_sequence = np.clip(np.where(is_believed, end_sequence, 0), 0, MAX_STREAM_BYTES)
        self._carry_over("highest_sequence", side, believed_sequence, restarts)
        initial = np.where(restarts, np.clip(first_sequence, 0, None), earlier)
        highest = self._running_with_before(believed_sequence, base, starts, initial)
        is_jump = (
            is_live
            & (self.is_rst | self.is_syn)
            & (np.abs(end_sequence - highest.before) <= MAX_SEQUENCE_JUMP)
            & ~restarts
        )
        is_wild = (
            is_believed
            & self.is_syn
            & ~restarts
            & (np.abs(end_sequence - highest.before) > MAX_SEQUENCE_JUMP)
        )
        if is_jump.any() or is_wild.any():
            believed_sequence = np.clip(
                np.where((is_believed & ~is_wild) | is_jump, end_sequence, 0), 0, MAX_STREAM_BYTES
            )
            self._carry_over("highest_sequence", side, believed_sequence, restarts)
            highest = self._running_with_before(believed_sequence, base, starts, initial)
        only_fin = self.is_fin & (highest.before == 1)
        is_retransmission = (
            is_live & (chunk.payload_bytes > 0) & (end_sequence <= highest.before) & ~only_fin
        )
        self._letter_at_powers_of_ten(
            np.flatnonzero(is_retransmission), side, 2, "retransmissions", "T"
        )
        last_positions = chunk.connection_end - 1
        table.of("highest_sequence", side)[chunk.table_row] = highest.including[last_positions]
        fin_connections = chunk.connection[np.flatnonzero(is_own & self.is_fin)]
        table.of("fin_count", side)[chunk.table_row] += np.bincount(
            fin_connections, minlength=len(chunk.table_row)
        )
        return highest.including

    def _received_bytes(
        self,
        side: int,
        is_own: Bools,
        relative_sequence: Int64s,
        segments: _SequenceSpaces,
        highest_sequence: Int64s,
    ) -> _Direction:
        """What of the stream has arrived in order and what was acknowledged."""
        chunk, table = self.chunk, self.chunk.table
        restarts, starts, base = segments
        start = relative_sequence + self.is_syn
        has_data = is_own & (chunk.payload_bytes > 0) & ~self.is_rst & (relative_sequence >= 0)
        fin_end = np.where(
            is_own & self.is_fin, np.clip(start + chunk.payload_bytes, 0, MAX_STREAM_BYTES), 0
        )
        self._carry_over("fin_end", side, fin_end, restarts)
        fin_limit = self._running_maximum(fin_end, base)
        self.give_up_position = np.where(
            table.of("is_given_up", side)[chunk.table_row] & ~chunk.is_new, 0, self.count
        )
        is_known = self.state_before[side] != INACTIVE
        acknowledges = self.is_tcp & ~is_own & self.is_ack
        ack_number = np.where(
            is_known, signed(chunk.ack_number - self.tracker.initial_sequence[side]), 1
        )
        acknowledged = np.where(acknowledges, np.clip(ack_number, 0, MAX_STREAM_BYTES), 0)
        self._highest_acknowledgement(side, acknowledged, ack_number, segments)
        acknowledged = np.where(
            (fin_limit > 0) & (acknowledged > fin_limit), fin_limit, acknowledged
        )
        data_end = np.where(has_data, np.clip(start + chunk.payload_bytes, 0, MAX_STREAM_BYTES), 0)
        data_ends, acknowledged_ends = data_end.copy(), acknowledged.copy()
        arrived_end = np.maximum(data_end, acknowledged)
        for column, values in (
            ("delivered_end", arrived_end),
            ("data_end", data_ends),
            ("acknowledged_end", acknowledged_ends),
        ):
            self._carry_over(column, side, values, restarts)
        earlier = np.ones(self.count, dtype=np.int64)
        earlier[self.continued] = np.maximum(
            table.of("delivered_end", side)[self.continued_rows], 1
        )
        arrived = self._running_with_before(arrived_end, base, starts, earlier)
        sent_end, acknowledged_end = (
            self._running_maximum(data_ends, base),
            self._running_maximum(acknowledged_ends, base),
        )
        self._store_last(
            side,
            ("delivered_end", "data_end", "acknowledged_end", "fin_end"),
            (arrived.including, sent_end, acknowledged_end, fin_limit),
        )
        received = np.maximum(arrived.including, 1)
        self._find_gaps(side, has_data, start, data_end, acknowledged, arrived, received)
        is_given_up = np.arange(self.count) >= self.give_up_position[chunk.connection]
        table.of("is_given_up", side)[chunk.table_row] = is_given_up[chunk.connection_end - 1]
        return _Direction(
            is_own,
            highest_sequence,
            received,
            sent_end > np.maximum(acknowledged_end, 1),
            acknowledged > 0,
            is_given_up,
        )

    def _store_last(
        self, side: int, columns: tuple[str, ...], values: tuple[Int64s | Bools, ...]
    ) -> None:
        last_positions = self.chunk.connection_end - 1
        for column, value in zip(columns, values, strict=True):
            self.chunk.table.of(column, side)[self.chunk.table_row] = value[last_positions]

    def _highest_acknowledgement(
        self, side: int, acknowledged: Int64s, ack_number: Int64s, segments: _SequenceSpaces
    ) -> None:
        """Highest acknowledgement of the side's bytes that counts as size (Zeek's ack_seq)."""
        chunk = self.chunk
        is_broken = (chunk.ack_number == 0) & (ack_number > MAX_SEQUENCE_JUMP)
        counted_acknowledgements = np.where(self.is_rst | is_broken, 0, acknowledged)
        self._carry_over("highest_ack", side, counted_acknowledgements, segments.restarts)
        self._store_last(
            side,
            ("highest_ack",),
            (self._running_maximum(counted_acknowledgements, segments.base),),
        )

    def _find_gaps(
        self,
        side: int,
        has_data: Bools,
        start: Int64s,
        data_end: Int64s,
        acknowledged: Int64s,
        arrived: RunningMaximum,
        received: Int64s,
    ) -> None:
        """Holes that an acknowledgement shows: letters G and missed_bytes; corrects `received`
        behind holes.
        """
        received_before = np.maximum(arrived.before, 1)
        is_early = has_data & (start > received_before)
        gap_positions = np.flatnonzero((acknowledged > received_before) & ~is_early)
        gap_sizes = acknowledged[gap_positions] - received_before[gap_positions]
        rows_with_holes = (
            [row for row in self.continued_rows.tolist() if (row, side) in self.reassemblers]
            if self.reassemblers
            else []
        )
        if is_early.any() or rows_with_holes:
            gap_positions, gap_sizes = self._reassemble_holes(
                side,
                is_early,
                rows_with_holes,
                (has_data, start, data_end, acknowledged),
                arrived,
                received,
                gap_positions,
                gap_sizes,
            )
        is_clean = self._is_established(0) & self._is_established(1)
        counts = is_clean[gap_positions] & (
            gap_positions < self.give_up_position[self.chunk.connection[gap_positions]]
        )
        gap_positions, gap_sizes = gap_positions[counts], gap_sizes[counts]
        self._letter_at_powers_of_ten(gap_positions, side, 3, "gap_count", "G")
        np.add.at(
            self.chunk.table["missed_bytes"],
            self.chunk.table_row[self.chunk.connection[gap_positions]],
            gap_sizes,
        )

    def _is_established(self, side: int) -> Bools:
        """Established, or closed from there."""
        state, previous = self.tracker.state[side], self.tracker.previous_state[side]
        clean: Bools = (state == ESTABLISHED) | (state == CLOSED) & (previous == ESTABLISHED)
        return clean

    def _reassemble_holes(
        self,
        side: int,
        is_early: Bools,
        rows_with_holes: list[int],
        columns: tuple[Bools, Int64s, Int64s, Int64s],
        arrived: RunningMaximum,
        received: Int64s,
        gap_positions: Int64s,
        gap_sizes: Int64s,
    ) -> tuple[Int64s, Int64s]:
        """Packet by packet from each hole to where nothing is missing: gaps found there instead
        of the running ones.
        """
        chunk = self.chunk
        has_data, start, data_end, acknowledged = columns
        is_covered = np.zeros(self.count, dtype=bool)
        found_gaps: list[tuple[int, int]] = []
        begin_of = {
            int(row): int(stop_position)
            for row, stop_position in zip(self.continued_rows, self.continued, strict=True)
        }
        first_positions = [begin_of[row] for row in rows_with_holes]
        for position in sorted({*first_positions, *np.flatnonzero(is_early).tolist()}):
            stretch = int(chunk.connection[position])
            if is_covered[position] or position >= self.give_up_position[stretch]:
                continue
            row, stop = int(chunk.table_row[stretch]), int(chunk.connection_end[stretch])
            hole = self.reassemblers.pop((row, side), None)
            if hole is None:
                hole = Reassembler(
                    max(int(arrived.before[position]), 1),
                    self._acknowledged_before(side, acknowledged, position, stretch),
                )
            stop_position = self._feed_reassembler(
                hole,
                position,
                stop,
                (has_data, start, data_end, acknowledged),
                arrived,
                received,
                found_gaps,
            )
            is_covered[position:stop_position] = True
            if hole.is_given_up:
                self.give_up_position[stretch] = stop_position - 1
            elif stop_position == stop and hole.blocks:
                self.reassemblers[row, side] = hole
        is_kept = ~is_covered[gap_positions]
        positions = np.array([position for position, _ in found_gaps], dtype=np.int64)
        payload_sizes = np.array([gap for _, gap in found_gaps], dtype=np.int64)
        gap_positions, gap_sizes = (
            np.concatenate([gap_positions[is_kept], positions]),
            np.concatenate([gap_sizes[is_kept], payload_sizes]),
        )
        order = np.argsort(gap_positions, kind="stable")
        return gap_positions[order], gap_sizes[order]

    def _acknowledged_before(
        self, side: int, acknowledged: Int64s, position: int, stretch: int
    ) -> int:
        """Highest acknowledgement before a packet of a stretch."""
        begin = int(self.chunk.connection_start[stretch])
        return max(1, int(acknowledged[begin:position].max(initial=1)))

    def _feed_reassembler(
        self,
        hole: Reassembler,
        position: int,
        stop: int,
        columns: tuple[Bools, Int64s, Int64s, Int64s],
        arrived: RunningMaximum,
        received: Int64s,
        found_gaps: list[tuple[int, int]],
    ) -> int:
        """Feeds packets to the reassembler until nothing is missing; the position behind them."""
        has_data, start, data_end, acknowledged = columns
        for packet in range(position, stop):
            if has_data[packet]:
                hole.add_payload(int(start[packet]), int(data_end[packet]))
            if acknowledged[packet]:
                found_gaps.extend(
                    (packet, gap) for gap in hole.acknowledge(int(acknowledged[packet]))
                )
            received[packet] = hole.delivered
            if hole.is_given_up or (
                not hole.blocks and hole.delivered >= arrived.including[packet]
            ):
                return packet + 1
        return stop

    def _closed_sides(self, sides: list[_Direction]) -> None:
        """When each side counts as closed: at its FIN or RST, or once the bytes still missing by
        then have come.
        """
        walk, table = self.tracker, self.chunk.table
        was_closed = table["is_closed"][self.continued_rows] != 0
        is_closed: list[Bools] = []
        for side in (0, 1):
            own, peer = sides[side], sides[1 - side]
            highest, received = own.highest_sequence, own.received
            is_pending = (highest >= received) & (received != highest) & (received != highest - 1)
            is_pending |= (walk.state[side] != RESET) & peer.has_unacknowledged
            is_pending &= ~own.is_given_up
            has_closing_flag = walk.is_closing[:, side].copy()
            has_closing_flag[self.continued] |= (
                table.of("is_closing", side)[self.continued_rows] != 0
            )
            is_closing = self._from_first(has_closing_flag)
            is_done = is_closing & ~is_pending & (own.is_own | own.is_acknowledged)
            is_done[self.continued] |= was_closed[:, side]
            is_closed.append(self._from_first(is_done))
            self._store_last(side, ("is_closing", "is_closed"), (is_closing, is_closed[side]))
        self._schedule_end(is_closed, was_closed)

    def _from_first(self, is_wanted: Bools) -> Bools:
        """From the first packet of `is_wanted` in each stretch to the stretch's end."""
        chunk, positions = self.chunk, np.flatnonzero(is_wanted)[::-1]
        first_positions = np.full(len(chunk.connection_start), self.count)
        first_positions[chunk.connection[positions]] = positions
        is_after: Bools = np.arange(self.count) >= first_positions[chunk.connection]
        return is_after

    def _schedule_end(self, is_closed: list[Bools], was_closed: Bools) -> None:
        """Packets behind both closings, which prolong nothing; and when the connection is given
        up.
        """
        chunk, walk, table = self.chunk, self.tracker, self.chunk.table
        both_closed = is_closed[0] & is_closed[1]
        self.is_after_close[1:] = both_closed[:-1]
        self.is_after_close[self.connection_starts] = False
        self.is_after_close[self.continued] = was_closed.all(axis=1)
        is_complete = np.zeros(self.count, dtype=bool)
        for side in (0, 1):
            just_closed = is_closed[side].copy()
            just_closed[1:] &= ~is_closed[side][:-1] | self.connection_starts[1:]
            just_closed[self.continued] &= ~was_closed[:, side]
            is_alone = (walk.state[side] == RESET) | (walk.state[1 - side] == INACTIVE)
            is_complete |= just_closed & (is_closed[1 - side] | is_alone)
        first_complete = np.minimum.reduceat(
            np.where(is_complete, np.arange(self.count), self.count), chunk.connection_start
        )
        has_ended = first_complete < chunk.connection_end
        rows = chunk.table_row[has_ended]
        table["close_at"][rows] = np.minimum(
            table["close_at"][rows], chunk.arrival[first_complete[has_ended]] + CLOSE_DELAY_US
        )


class _Direction(NamedTuple):
    """One direction, after every packet."""

    is_own: Bools
    highest_sequence: Int64s
    received: Int64s
    has_unacknowledged: Bools
    """some of its bytes aren't acknowledged yet"""
    is_acknowledged: Bools
    """the packet acknowledges this side's bytes"""
    is_given_up: Bools
    """too much is missing: its bytes are no longer put in order"""


def history_letters(streams: TcpStreams) -> tuple[Int64s, Bytes]:
    """Rows of the table and letters that the chunk adds to the histories, in order; upper case
    is the originator.
    """
    groups = streams.letter_groups
    if not groups:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    position = np.concatenate([part[0] for part in groups])
    rank = np.concatenate([np.full(len(part[0]), part[1], dtype=np.int64) for part in groups])
    side = np.concatenate([part[2] for part in groups])
    letter = np.concatenate([np.full(len(part[0]), part[3], dtype=np.uint8) for part in groups])
    order = np.argsort((rank + 1).astype(np.uint8), kind="stable")
    is_large = streams.count > 1 << 16
    order = order[
        np.argsort(position[order].astype(np.int64 if is_large else np.uint16), kind="stable")
    ]
    position, side, letter = position[order], side[order], letter[order]
    is_responder = (side != streams.tracker.originator[position]) & ~np.isin(
        letter, UNDIRECTED_LETTERS
    )
    chunk = streams.chunk
    return chunk.table_row[chunk.connection[position]], np.where(
        is_responder, letter | 0x20, letter
    )
