"""TCP byte streams and histories, for all packets of a chunk at once.

Running maxima over a connection's stretch of packets give what was sent, received and acknowledged before each packet.
Only where a segment is missing or comes early does a reassembler walk single packets, until nothing is missing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import (
    ACK,
    CLOSE,
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
from ids_plugin.flowmeter.packet_order import Ordered
from ids_plugin.flowmeter.packets.decoder import TCP, UDP
from ids_plugin.flowmeter.packets.tunnels import TOO_DEEP
from ids_plugin.flowmeter.tcp_state import Walk

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

TOO_LARGE = 1 << 20
"""A SYN or RST that jumps farther in sequence space isn't believed."""
ABOVE_HOLE = 16384
"""tcp_max_above_hole_without_any_acks: data so far ahead, nothing acknowledged, and Zeek gives up on the stream."""
FARTHEST = 1 << 40
"""Bytes of a stream that are told apart; more than any capture holds."""
SEEN_DATA, SEEN_ACK, SEEN_SYN, SEEN_FIN, SEEN_RST, SEEN_INCONSISTENT, SEEN_MULTIPLE, SEEN_LIMIT = (
    1 << bit for bit in range(8)
)
POWERS = 10 ** np.arange(12)
UNDIRECTED = (ord("^"), ord("X"))
"""letters of the connection, not of a side"""


def signed(difference: Int64s) -> Int64s:
    """Distance in 32-bit sequence space, -2^31 … 2^31 - 1."""
    return (difference + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


class Running(NamedTuple):
    """A maximum over the stretch so far: with and without the packet itself."""

    with_it: Int64s
    before: Int64s


class _Segments(NamedTuple):
    """Stretches of one side's sequence numbers."""

    anew: Bools
    """where the side's sequence numbers start anew"""
    starts: Bools
    """there, and where connections begin"""
    base: Int64s
    """number of the segment, above the bits of any value: running maxima don't cross segments"""

    @classmethod
    def of(cls, begins: Bools, anew: Bools) -> _Segments:
        starts = begins | anew
        return cls(anew, starts, np.cumsum(starts.astype(np.int64)) << 41)


class Reassembler:
    """What one side has sent and not all been received in order: Zeek's reassembler for the packets around a hole."""

    def __init__(self, delivered: int, trimmed: int) -> None:
        self.delivered = delivered
        self.trimmed = trimmed
        self.given_up = False
        self.blocks: list[tuple[int, int]] = []

    def data(self, start: int, end: int) -> None:
        """Takes payload of relative sequence numbers start … end."""
        start = max(start, self.trimmed)
        if end <= start:
            return
        self.blocks.append((start, end))
        self._advance()
        self.given_up |= self.trimmed <= 1 and any(
            end - self.delivered > ABOVE_HOLE for _, end in self.blocks
        )

    def acknowledge(self, upto: int) -> list[int]:
        """The peer has everything below `upto`; sizes of the holes that it shows were never seen."""
        if upto <= self.trimmed:
            return []
        gaps = []
        if upto > self.delivered:
            for start, end in sorted(self.blocks):
                if start >= upto:
                    break
                if start > self.delivered:
                    gaps.append(start - self.delivered)
                self.delivered = max(self.delivered, end)
            if upto > self.delivered:
                gaps.append(upto - self.delivered)
                self.delivered = upto
        self.trimmed = upto
        self._advance()
        return gaps

    def _advance(self) -> None:
        """Moves over blocks that are no longer behind a hole and forgets those acknowledged."""
        rest = []
        for start, end in sorted(self.blocks):
            if start <= self.delivered:
                self.delivered = max(self.delivered, end)
            else:
                rest.append((start, end))
        self.blocks = rest


class Streams:
    """Bytes, gaps, closing and history letters of one chunk's packets; updates the table as it goes."""

    def __init__(
        self, chunk: Ordered, walk: Walk, holes: dict[tuple[int, int], Reassembler]
    ) -> None:
        self.chunk = chunk
        self.walk = walk
        self.holes = holes
        self.found: list[tuple[Int64s, int, Int64s, int]] = []
        self.is_tcp = (chunk.protocol == TCP) & ~chunk.refused
        self.starts = chunk.first | walk.begins
        self.count = len(self.starts)
        self.goes_on = chunk.at[~chunk.fresh]
        self.goes_on_row = chunk.row[~chunk.fresh]
        flags = chunk.flags
        self.syn, self.fin, self.rst, self.ack = (flags & bit != 0 for bit in (SYN, FIN, RST, ACK))
        self._refusals()
        self._udp_letters()
        self.shut = np.zeros(self.count, dtype=bool)
        if self.is_tcp.any():
            self._tcp()
        self.shut |= chunk.refused
        self._flips()

    def _tcp(self) -> None:
        self.state_before = self._state_before(0), self._state_before(1)
        side = self.chunk.side == 0
        self.mine_before = np.where(side, *self.state_before)
        self.peer_before = np.where(side, *self.state_before[::-1])
        pending = [self._side(side) for side in (0, 1)]
        self._closing(pending)

    def _state_before(self, side: int) -> Int8s:
        """State of a side before each packet."""
        state = np.zeros(self.count, dtype=np.int8)
        state[1:] = self.walk.state[side][:-1]
        state[self.starts] = INACTIVE
        state[self.goes_on] = self.chunk.table.of("state", side)[self.goes_on_row]
        return state

    def _maximum(self, values: Int64s, base: Int64s) -> Int64s:
        """Running maximum within segments; values in 0 … FARTHEST, `base` as `_base` gives it."""
        top = values + base
        np.maximum.accumulate(top, out=top)
        top -= base
        return top

    def _running(self, values: Int64s, base: Int64s, starts: Bools, first: Int64s) -> Running:
        """The same, also before each packet: `first` where a segment starts."""
        top = self._maximum(values, base)
        before = np.empty_like(top)
        before[1:] = top[:-1]
        return Running(top, np.where(starts, first, before))

    def _flips(self) -> None:
        position = np.flatnonzero(self.walk.flipped)
        beginning = self.walk.begins[position]
        self._letter(position[beginning], -1, "^")
        self._letter(position[~beginning], 5, "^")
        self._letter(np.flatnonzero(self.walk.turned), 5, "^")

    def _refusals(self) -> None:
        """Packets of TCP and UDP whose checksum doesn't fit."""
        if self.chunk.refused.any():
            counted = self.chunk.refused & np.isin(self.chunk.protocol, (TCP, UDP))
            for side in (0, 1):
                self._scaled(
                    np.flatnonzero(counted & (self.chunk.side == side)), side, 0, "refused", "C"
                )

    def _udp_letters(self) -> None:
        udp = (self.chunk.protocol == UDP) & ~self.chunk.refused
        if udp.any():
            for side in (0, 1):
                self._once(udp & (self.chunk.side == side), side, SEEN_DATA, "D")
            deep = self.chunk.packets.carries == TOO_DEEP
            if deep.any():
                self._once(deep[self.chunk.order], 0, SEEN_LIMIT, "X")

    def _letter(self, position: Int64s, rank: int, letter: str, side: int | None = None) -> None:
        """Adds `letter` at packets, by rank within a packet. It is the sender's unless `side` is given."""
        if len(position):
            sides = (
                self.chunk.side[position]
                if side is None
                else np.full(len(position), side, dtype=np.int64)
            )
            self.found.append((position, rank, sides, ord(letter)))

    def _heads(self, position: Int64s) -> tuple[Bools, Int64s]:
        """Which of these packets are the first of their connection among them, and the table's rows."""
        stretch = self.chunk.stretch[position]
        first = np.ones(len(position), dtype=bool)
        first[1:] = stretch[1:] != stretch[:-1]
        return first, self.chunk.row[stretch]

    def _once(self, mask: Bools, side: int, bit: int, letter: str) -> None:
        """The letter at the first packet of `mask` in each connection that has not seen it yet."""
        position = np.flatnonzero(mask)
        if not len(position):
            return
        first, row = self._heads(position)
        position, row = position[first], row[first]
        seen = self.chunk.table["seen"]
        fresh = seen[row, side] & bit == 0
        seen[row, side] |= bit
        self._letter(position[fresh], 0, letter)

    def _changed(self, mask: Bools, side: int, number: Int64s, column: str, bit: int) -> Int64s:
        """The first packet of `mask` in each connection, and those whose number differs from the last one's."""
        position = np.flatnonzero(mask)
        if not len(position):
            return position
        table = self.chunk.table
        first, row = self._heads(position)
        value = number[position]
        previous = np.empty_like(value)
        previous[1:] = value[:-1]
        previous[first] = table[column][row[first], side]
        unseen = first & (table.of("seen", side)[row] & bit == 0)
        last = np.append(first[1:], True)
        table[column][row[last], side] = value[last]
        table.of("seen", side)[row] |= bit
        chosen: Int64s = position[unseen | (value != previous)]
        return chosen

    def _scaled(self, position: Int64s, side: int, rank: int, column: str, letter: str) -> None:
        """The letter at the 1st, 10th, 100th, … of these packets of a connection."""
        if not len(position):
            return
        first, row = self._heads(position)
        begin = np.flatnonzero(first)
        table = self.chunk.table
        count = (
            np.arange(len(position))
            - np.repeat(begin, np.diff(np.append(begin, len(position))))
            + 1
        )
        count += table.of(column, side)[row]
        last = np.append(first[1:], True)
        table[column][row[last], side] = count[last]
        power = POWERS[np.searchsorted(POWERS, count)] == count
        self._letter(position[power], rank, letter, side)

    def _side(self, side: int) -> _Side:
        """One direction's letters, bytes and gaps; what its closing depends on."""
        chunk = self.chunk
        own = self.is_tcp & (chunk.side == side)
        relative = signed(chunk.sequence - self.walk.start[side])
        length = chunk.payload
        self._control_letters(side, own, relative, length)
        zero = (
            own
            & (chunk.window == 0)
            & ~self.rst
            & (self.peer_before != CLOSED)
            & (self.mine_before != RESET)
        )
        self._scaled(np.flatnonzero(zero), side, 1, "zero_windows", "W")
        anew = self._anew(side, own)
        segments = _Segments.of(self.starts, anew)
        top = self._sent(side, own, relative, segments)
        return self._received(side, own, relative, segments, top)

    def _control_letters(self, side: int, own: Bools, relative: Int64s, length: Int64s) -> None:
        """S H F R I Q, D and A."""
        syn, fin, rst = self.syn, self.fin, self.rst
        control = syn.astype(np.int8) + fin + rst
        many = own & (control > 1)
        if many.any():
            self._once(many & fin & rst, side, SEEN_INCONSISTENT, "I")
            self._once(many & ~(fin & rst), side, SEEN_MULTIPLE, "Q")
        one = own & (control == 1)
        position = self._changed(one & syn, side, relative, "last_syn", SEEN_SYN)
        answers = self.ack[position]
        self._letter(position[answers], 0, "H")
        self._letter(position[~answers], 0, "S")
        self._letter(
            self._changed(one & fin, side, relative + length, "last_fin", SEEN_FIN), 0, "F"
        )
        self._letter(self._changed(one & rst, side, relative, "last_rst", SEEN_RST), 0, "R")
        plain = own & (control == 0)
        self._once(plain & (length > 0), side, SEEN_DATA, "D")
        self._once(plain & (length == 0) & self.ack, side, SEEN_ACK, "A")

    def _anew(self, side: int, own: Bools) -> Bools:
        """Where the side's sequence numbers start anew."""
        mine = self.mine_before
        anew: Bools = own & (
            (mine == INACTIVE) | (self.syn & ((mine == ESTABLISHED) | (mine == PARTIAL)))
        )
        again = own & self.syn & ((mine == SYN_SENT) | (mine == SYN_ACK_SENT) | (mine == RESET))
        if again.any():
            start = self.walk.start[side]
            before = np.append(start[:1], start[:-1])
            before[self.goes_on] = self.chunk.table.of("start", side)[self.goes_on_row]
            anew |= again & (start != before)
        return anew

    def _carry(self, column: str, side: int, values: Int64s, anew: Bools) -> None:
        """Folds what earlier chunks left into the first packets of connections that go on."""
        held = np.where(anew[self.goes_on], 0, self.chunk.table.of(column, side)[self.goes_on_row])
        values[self.goes_on] = np.maximum(values[self.goes_on], held)

    def _sent(self, side: int, own: Bools, relative: Int64s, segments: _Segments) -> Int64s:
        """Highest sequence number the side has used (Zeek's last_seq); retransmissions on the way."""
        chunk, table = self.chunk, self.chunk.table
        anew, starts, base = segments
        upper = relative + self.syn + self.fin + np.where(self.rst, 0, chunk.payload)
        live = own & (self.mine_before != RESET)
        believed = live & ~self.rst
        first = np.where(anew & ~self.syn, relative, upper)
        held = np.zeros(self.count, dtype=np.int64)
        held[self.goes_on] = table.of("top", side)[self.goes_on_row]
        value = np.clip(np.where(believed, upper, 0), 0, FARTHEST)
        self._carry("top", side, value, anew)
        start_value = np.where(anew, np.clip(first, 0, None), held)
        top = self._running(value, base, starts, start_value)
        jumps = live & (self.rst | self.syn) & (np.abs(upper - top.before) <= TOO_LARGE) & ~anew
        wild = believed & self.syn & ~anew & (np.abs(upper - top.before) > TOO_LARGE)
        if jumps.any() or wild.any():
            value = np.clip(np.where((believed & ~wild) | jumps, upper, 0), 0, FARTHEST)
            self._carry("top", side, value, anew)
            top = self._running(value, base, starts, start_value)
        only_fin = self.fin & (top.before == 1)
        resent = live & (chunk.payload > 0) & (upper <= top.before) & ~only_fin
        self._scaled(np.flatnonzero(resent), side, 2, "resent", "T")
        last = chunk.stop - 1
        table.of("top", side)[chunk.row] = top.with_it[last]
        fins = chunk.stretch[np.flatnonzero(own & self.fin)]
        table.of("fins", side)[chunk.row] += np.bincount(fins, minlength=len(chunk.row))
        return top.with_it

    def _received(
        self, side: int, own: Bools, relative: Int64s, segments: _Segments, top: Int64s
    ) -> _Side:
        """What of the stream has arrived in order and what was acknowledged."""
        chunk, table = self.chunk, self.chunk.table
        anew, starts, base = segments
        start = relative + self.syn
        data = own & (chunk.payload > 0) & ~self.rst & (relative >= 0)
        fin_end = np.where(own & self.fin, np.clip(start + chunk.payload, 0, FARTHEST), 0)
        self._carry("fin_end", side, fin_end, anew)
        finish = self._maximum(fin_end, base)
        self.given_up = np.where(
            table.of("given_up", side)[chunk.row] & ~chunk.fresh, 0, self.count
        )
        known = self.state_before[side] != INACTIVE
        acks = self.is_tcp & ~own & self.ack
        number = np.where(known, signed(chunk.acknowledged - self.walk.start[side]), 1)
        value = np.where(acks, np.clip(number, 0, FARTHEST), 0)
        self._acknowledged(side, value, number, segments)
        value = np.where((finish > 0) & (value > finish), finish, value)
        end = np.where(data, np.clip(start + chunk.payload, 0, FARTHEST), 0)
        ends, trims = end.copy(), value.copy()
        both = np.maximum(end, value)
        for column, values in (("delivered", both), ("data_end", ends), ("trimmed", trims)):
            self._carry(column, side, values, anew)
        held = np.ones(self.count, dtype=np.int64)
        held[self.goes_on] = np.maximum(table.of("delivered", side)[self.goes_on_row], 1)
        arrived = self._running(both, base, starts, held)
        sent, trimmed = self._maximum(ends, base), self._maximum(trims, base)
        self._store(
            side,
            ("delivered", "data_end", "trimmed", "fin_end"),
            (arrived.with_it, sent, trimmed, finish),
        )
        received = np.maximum(arrived.with_it, 1)
        self._gaps(side, data, start, end, value, arrived, received)
        given_up = np.arange(self.count) >= self.given_up[chunk.stretch]
        table.of("given_up", side)[chunk.row] = given_up[chunk.stop - 1]
        return _Side(own, top, received, sent > np.maximum(trimmed, 1), value > 0, given_up)

    def _store(
        self, side: int, columns: tuple[str, ...], values: tuple[Int64s | Bools, ...]
    ) -> None:
        last = self.chunk.stop - 1
        for column, value in zip(columns, values, strict=True):
            self.chunk.table.of(column, side)[self.chunk.row] = value[last]

    def _acknowledged(self, side: int, value: Int64s, number: Int64s, segments: _Segments) -> None:
        """Highest acknowledgement of the side's bytes that counts as size (Zeek's ack_seq)."""
        chunk = self.chunk
        broken = (chunk.acknowledged == 0) & (number > TOO_LARGE)
        counted = np.where(self.rst | broken, 0, value)
        self._carry("acked", side, counted, segments.anew)
        self._store(side, ("acked",), (self._maximum(counted, segments.base),))

    def _gaps(
        self,
        side: int,
        data: Bools,
        start: Int64s,
        end: Int64s,
        value: Int64s,
        arrived: Running,
        received: Int64s,
    ) -> None:
        """Holes that an acknowledgement shows: letters G and missed_bytes; corrects `received` behind holes."""
        before = np.maximum(arrived.before, 1)
        early = data & (start > before)
        shown = np.flatnonzero((value > before) & ~early)
        size = value[shown] - before[shown]
        held = (
            [row for row in self.goes_on_row.tolist() if (row, side) in self.holes]
            if self.holes
            else []
        )
        if early.any() or held:
            shown, size = self._around_holes(
                side, early, held, (data, start, end, value), arrived, received, shown, size
            )
        clean = self._clean(0) & self._clean(1)
        counts = clean[shown] & (shown < self.given_up[self.chunk.stretch[shown]])
        shown, size = shown[counts], size[counts]
        self._scaled(shown, side, 3, "gaps", "G")
        np.add.at(self.chunk.table["missed"], self.chunk.row[self.chunk.stretch[shown]], size)

    def _clean(self, side: int) -> Bools:
        """Established, or closed from there."""
        state, previous = self.walk.state[side], self.walk.previous[side]
        clean: Bools = (state == ESTABLISHED) | (state == CLOSED) & (previous == ESTABLISHED)
        return clean

    def _around_holes(
        self,
        side: int,
        early: Bools,
        held: list[int],
        columns: tuple[Bools, Int64s, Int64s, Int64s],
        arrived: Running,
        received: Int64s,
        shown: Int64s,
        size: Int64s,
    ) -> tuple[Int64s, Int64s]:
        """Packet by packet from each hole to where nothing is missing: gaps found there instead of the running ones."""
        chunk = self.chunk
        data, start, end, value = columns
        covered = np.zeros(self.count, dtype=bool)
        found: list[tuple[int, int]] = []
        begin_of = {
            int(row): int(at) for row, at in zip(self.goes_on_row, self.goes_on, strict=True)
        }
        first = [begin_of[row] for row in held]
        for position in sorted({*first, *np.flatnonzero(early).tolist()}):
            stretch = int(chunk.stretch[position])
            if covered[position] or position >= self.given_up[stretch]:
                continue
            row, stop = int(chunk.row[stretch]), int(chunk.stop[stretch])
            hole = self.holes.pop((row, side), None)
            if hole is None:
                hole = Reassembler(
                    max(int(arrived.before[position]), 1),
                    self._trimmed(side, value, position, stretch),
                )
            at = self._walk_hole(
                hole, position, stop, (data, start, end, value), arrived, received, found
            )
            covered[position:at] = True
            if hole.given_up:
                self.given_up[stretch] = at - 1
            elif at == stop and hole.blocks:
                self.holes[row, side] = hole
        keep = ~covered[shown]
        where = np.array([position for position, _ in found], dtype=np.int64)
        sizes = np.array([gap for _, gap in found], dtype=np.int64)
        shown, size = np.concatenate([shown[keep], where]), np.concatenate([size[keep], sizes])
        order = np.argsort(shown, kind="stable")
        return shown[order], size[order]

    def _trimmed(self, side: int, value: Int64s, position: int, stretch: int) -> int:
        """Highest acknowledgement before a packet of a stretch."""
        begin = int(self.chunk.at[stretch])
        return max(1, int(value[begin:position].max(initial=1)))

    def _walk_hole(
        self,
        hole: Reassembler,
        position: int,
        stop: int,
        columns: tuple[Bools, Int64s, Int64s, Int64s],
        arrived: Running,
        received: Int64s,
        found: list[tuple[int, int]],
    ) -> int:
        """Feeds packets to the reassembler until nothing is missing; the position behind them."""
        data, start, end, value = columns
        for at in range(position, stop):
            if data[at]:
                hole.data(int(start[at]), int(end[at]))
            if value[at]:
                found.extend((at, gap) for gap in hole.acknowledge(int(value[at])))
            received[at] = hole.delivered
            if hole.given_up or (not hole.blocks and hole.delivered >= arrived.with_it[at]):
                return at + 1
        return stop

    def _closing(self, sides: list[_Side]) -> None:
        """When each side counts as closed: at its FIN or RST, or once the bytes still missing by then have come."""
        walk, table = self.walk, self.chunk.table
        was_shut = table["closed"][self.goes_on_row] != 0
        closed: list[Bools] = []
        for side in (0, 1):
            mine, peer = sides[side], sides[1 - side]
            last, got = mine.top, mine.received
            pending = (last >= got) & (got != last) & (got != last - 1)
            pending |= (walk.state[side] != RESET) & peer.unread
            pending &= ~mine.given_up
            trigger = walk.closing[:, side].copy()
            trigger[self.goes_on] |= table.of("closing", side)[self.goes_on_row] != 0
            asked = self._from(trigger)
            done = asked & ~pending & (mine.own | mine.acknowledged)
            done[self.goes_on] |= was_shut[:, side]
            closed.append(self._from(done))
            self._store(side, ("closing", "closed"), (asked, closed[side]))
        self._shut(closed, was_shut)

    def _from(self, mask: Bools) -> Bools:
        """From the first packet of `mask` in each stretch to the stretch's end."""
        chunk, at = self.chunk, np.flatnonzero(mask)[::-1]
        first = np.full(len(chunk.at), self.count)
        first[chunk.stretch[at]] = at
        since: Bools = np.arange(self.count) >= first[chunk.stretch]
        return since

    def _shut(self, closed: list[Bools], was_shut: Bools) -> None:
        """Packets behind both closings, which prolong nothing; and when the connection is given up."""
        chunk, walk, table = self.chunk, self.walk, self.chunk.table
        both = closed[0] & closed[1]
        self.shut[1:] = both[:-1]
        self.shut[self.starts] = False
        self.shut[self.goes_on] = was_shut.all(axis=1)
        complete = np.zeros(self.count, dtype=bool)
        for side in (0, 1):
            turns = closed[side].copy()
            turns[1:] &= ~closed[side][:-1] | self.starts[1:]
            turns[self.goes_on] &= ~was_shut[:, side]
            alone = (walk.state[side] == RESET) | (walk.state[1 - side] == INACTIVE)
            complete |= turns & (closed[1 - side] | alone)
        first = np.minimum.reduceat(np.where(complete, np.arange(self.count), self.count), chunk.at)
        ends = first < chunk.stop
        row = chunk.row[ends]
        table["close_at"][row] = np.minimum(table["close_at"][row], chunk.now[first[ends]] + CLOSE)


class _Side(NamedTuple):
    """One direction, after every packet."""

    own: Bools
    top: Int64s
    received: Int64s
    unread: Bools
    """some of its bytes aren't acknowledged yet"""
    acknowledged: Bools
    """the packet acknowledges this side's bytes"""
    given_up: Bools
    """too much is missing: its bytes are no longer put in order"""


def letters(streams: Streams) -> tuple[Int64s, Bytes]:
    """Rows of the table and letters that the chunk adds to the histories, in order; upper case is the originator."""
    found = streams.found
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    position = np.concatenate([part[0] for part in found])
    rank = np.concatenate([np.full(len(part[0]), part[1], dtype=np.int64) for part in found])
    side = np.concatenate([part[2] for part in found])
    letter = np.concatenate([np.full(len(part[0]), part[3], dtype=np.uint8) for part in found])
    order = np.argsort((rank + 1).astype(np.uint8), kind="stable")
    many = streams.count > 1 << 16
    order = order[
        np.argsort(position[order].astype(np.int64 if many else np.uint16), kind="stable")
    ]
    position, side, letter = position[order], side[order], letter[order]
    lower = (side != streams.walk.originator[position]) & ~np.isin(letter, UNDIRECTED)
    chunk = streams.chunk
    return chunk.row[chunk.stretch[position]], np.where(lower, letter | 0x20, letter)
