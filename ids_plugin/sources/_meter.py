"""Packets → connections with Zeek's meaning of every column.

Follows the documented behaviour of Zeek 8's connection tracking (https://docs.zeek.org/en/v8.0/scripts/base/protocols/conn/):
originator and flips, TCP endpoint states, payload by sequence numbers, history letters, timeouts.

Packets of a chunk are ordered by connection. Only those that can change a connection's state (SYN, FIN, RST, the first of a
side, those behind a timeout) are walked, one of every connection per round; everything else is computed for all packets
at once with running maxima and sums over the connections' stretches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ids_plugin.sources._packets import ICMP, ICMP6, TCP, UDP, Packets

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
UInt32s = npt.NDArray[np.uint32]
Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

SECOND = 1_000_000
FIN, SYN, RST, ACK = 1, 2, 4, 16
INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)

ATTEMPT = 5 * SECOND
"""Zeek's tcp_attempt_delay: an unanswered SYN is given up."""
CLOSE = 5 * SECOND
"""tcp_close_delay: how long a closed connection still takes packets."""
TCP_IDLE = 300 * SECOND
LOGIN_IDLE = 3600 * SECOND
OTHER_IDLE = 60 * SECOND
LOGIN_PORTS = (21, 22, 23, 513)
"""ports of base/protocols/conn/inactivity.zeek"""
TOO_LARGE = 1 << 20
"""a SYN or RST that jumps farther in sequence space isn't believed"""
NEVER = np.int64(1 << 62)

TCP_SERVERS = (
    21, 22, 25, 53, 80, 81, 88, 110, 135, 139, 143, 389, 443, 445, 502, 514, 563, 585, 587, 614, 631, 636, 989, 990, 992,
    993, 995, 1080, 1434, 1883, 2811, 3128, 3268, 3306, 3389, 5060, 5222, 5223, 5269, 5432, 6379, 6666, 6667, 6668, 6669,
    8000, 8080, 8888, 20000,
)  # fmt: skip
UDP_SERVERS = (
    53, 67, 69, 88, 123, 137, 161, 162, 389, 443, 514, 1812, 2123, 2152, 3544, 4789, 5060, 5072, 5353, 5355, 6081,
    20000,
)  # fmt: skip
"""Zeek's likely_server_ports, as its default scripts fill it."""

_PER_SIDE = ("packets", "ip_bytes", "payload", "state", "before", "start", "closed", "fins", "top", "acked", "data_end")
_PER_SIDE_MORE = ("seen", "last_syn", "last_fin", "last_rst", "resent", "zero_windows", "gaps")
_BOTH = ("hash", "low_high", "low_low", "high_high", "high_low", "low_port", "high_port", "protocol", "originator")
_BOTH_MORE = ("first_time", "last_time", "first_packet", "attempt_until", "close_at", "missed", "idle")


class Table:
    """Connections as columns; per-side columns have shape (n, 2), side 0 is the lower endpoint."""

    def __init__(self, count: int) -> None:
        self.columns: dict[str, npt.NDArray[np.generic]] = {}
        for name in (*_BOTH, *_BOTH_MORE):
            unsigned = name in ("hash", "low_high", "low_low", "high_high", "high_low")
            self.columns[name] = np.zeros(count, dtype=np.uint64 if unsigned else np.int64)
        for name in (*_PER_SIDE, *_PER_SIDE_MORE):
            self.columns[name] = np.zeros((count, 2), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.columns["hash"])

    def __getitem__(self, name: str) -> npt.NDArray[np.int64]:
        return self.columns[name]  # type: ignore[return-value]

    def take(self, which: Int64s | Bools) -> Table:
        """The rows `which` names."""
        taken = Table(0)
        taken.columns = {name: column[which] for name, column in self.columns.items()}
        return taken

    def grown(self, count: int) -> Table:
        """These rows and `count` empty ones."""
        more = Table(count)
        more.columns = {name: np.concatenate([column, more.columns[name]]) for name, column in self.columns.items()}
        return more


@dataclass
class Finished:
    """Connections that ended, in the order in which they did."""

    table: Table
    history: list[str]
    ended: Int64s = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class Meter:
    """Takes packets chunk by chunk and gives out connections when their end or timeout is reached in capture time."""

    def __init__(self) -> None:
        self.open = Table(0)
        self.clock = -NEVER
        self.letters = _Letters()

    def add(self, packets: Packets) -> Finished:
        """Measures the packets of one chunk; the connections that have ended by then."""
        if not len(packets):
            return Finished(Table(0), [])
        chunk = _Chunk(self.open, packets, self.clock)
        self.clock = chunk.clock
        table, replaced_at = chunk.measure()
        self.letters.append(chunk.letters())
        ends = np.minimum(replaced_at, _deadline(table))
        return self._give_out(table, ends <= self.clock, ends)

    def finish(self) -> Finished:
        """The connections still open, at the end of the input."""
        return self._give_out(self.open, np.ones(len(self.open), dtype=bool), self.open["first_time"])

    def _give_out(self, table: Table, over: Bools, ends: Int64s) -> Finished:
        rows = np.flatnonzero(over)
        rows = rows[np.argsort(ends[rows], kind="stable")]
        history = self.letters.take(rows, len(table))
        self.open = table.take(~over)
        self.letters.keep(~over)
        return Finished(table.take(rows), history, ends[rows])


def _deadline(table: Table) -> Int64s:
    """When each connection would time out, µs."""
    originator = table["originator"]
    rows = np.arange(len(table))
    state = table["state"]
    waiting = np.isin(state[rows, originator], (SYN_SENT, SYN_ACK_SENT)) & (state[rows, 1 - originator] == INACTIVE)
    attempt = np.where(waiting & (table["protocol"] == TCP), table["attempt_until"], NEVER)
    return np.minimum(np.minimum(attempt, table["close_at"]), table["last_time"] + table["idle"])


class _Letters:
    """History letters of the open connections, in order of time."""

    def __init__(self) -> None:
        self.row = np.zeros(0, dtype=np.int64)
        self.letter = np.zeros(0, dtype=np.uint8)

    def append(self, new: tuple[Int64s, Bytes]) -> None:
        self.row = np.concatenate([self.row, new[0]])
        self.letter = np.concatenate([self.letter, new[1]])

    def take(self, rows: Int64s, count: int) -> list[str]:
        """The histories of `rows`, of `count` connections there are."""
        order = np.argsort(self.row, kind="stable")
        text = self.letter[order].tobytes().decode("ascii")
        ends = np.cumsum(np.bincount(self.row, minlength=count))
        stops, lengths = ends[rows].tolist(), np.bincount(self.row, minlength=count)[rows].tolist()
        return [text[stop - length : stop] for stop, length in zip(stops, lengths, strict=True)]

    def keep(self, which: Bools) -> None:
        """Forgets the letters of all connections but these, which are renumbered."""
        kept = which[self.row]
        renumbered = np.cumsum(which) - 1
        self.row, self.letter = renumbered[self.row[kept]], self.letter[kept]


def _mix(value: UInt64s) -> UInt64s:
    """Finaliser of splitmix64 (Steele et al. 2014): every input bit changes every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class _Chunk:
    """The packets of one chunk beside the connections open before it, ordered by connection and time."""

    def __init__(self, before: Table, packets: Packets, clock: int | np.int64) -> None:
        self.packets = packets
        self.before = before
        now = np.maximum.accumulate(np.maximum(packets.time, clock))
        self.clock = now[-1]
        swapped, low, high, ports = _canonical(packets)
        proto = packets.protocol.astype(np.uint64)
        key = _mix(low[0] * np.uint64(0x9E3779B97F4A7C15) ^ _mix(low[1] + np.uint64(0x632BE59BD9B4E019)))
        key = _mix(key ^ _mix(high[0] * np.uint64(0xC2B2AE3D27D4EB4F) ^ _mix(high[1] + np.uint64(0x165667B19E3779F9))))
        key = _mix(key ^ (ports[0].astype(np.uint64) << np.uint64(24) | ports[1].astype(np.uint64) << np.uint64(8) | proto))
        unique, group = np.unique(np.concatenate([before["hash"].astype(np.uint64), key]), return_inverse=True)
        self.carried = np.full(len(unique), -1, dtype=np.int64)
        self.carried[group[: len(before)]] = np.arange(len(before))
        group = group[len(before) :]
        self.order = np.argsort(group, kind="stable")
        self.group = group[self.order]
        self.key, self.low, self.high, self.ports = key, low, high, ports
        self.time, self.now = packets.time[self.order], now[self.order]
        self.side = swapped[self.order].astype(np.int64)
        self.protocol = packets.protocol[self.order]
        self.flags = packets.flags[self.order]
        self.sequence = packets.sequence[self.order]
        self.acknowledged = packets.acknowledged[self.order]
        self.payload = packets.payload[self.order]
        self.first = np.ones(len(self.group), dtype=bool)
        self.first[1:] = self.group[1:] != self.group[:-1]

    def measure(self) -> tuple[Table, Int64s]:
        """All connections, open or not, after this chunk, and when each was replaced by another (NEVER if not)."""
        self.walk = _Walk(self)
        self.walk.run()
        self._stretches()
        self.table = self.before.grown(int(self.walk.begins.sum()))
        self._identify()
        self._count()
        self._measure_tcp()
        self._write_state()
        return self.table, self.replaced

    def _stretches(self) -> None:
        """Stretches of packets of one connection; which row of the table each is."""
        begins = self.walk.begins
        self.new = begins
        starts = self.first | begins
        self.stretch = np.cumsum(starts) - 1
        self.at = np.flatnonzero(starts)
        self.stop = np.append(self.at[1:], len(starts))
        fresh = begins[self.at]
        number = len(self.before) + np.cumsum(fresh) - 1
        self.row = np.where(fresh, number, self.carried[self.group[self.at]])
        self.fresh = fresh
        count = len(self.before) + int(fresh.sum())
        self.replaced = np.full(count, NEVER, dtype=np.int64)
        follows = np.flatnonzero(fresh[1:] & (self.group[self.at][1:] == self.group[self.at][:-1]))
        self.replaced[self.row[follows]] = self.now[self.at[follows + 1]]
        head = self.at[self.first[self.at] & fresh]
        early = self.carried[self.group[head]]
        self.replaced[early[early >= 0]] = self.now[head[early >= 0]]

    def _identify(self) -> None:
        """Addresses, ports, first packet of the new connections."""
        at, row = self.order[self.at[self.fresh]], self.row[self.fresh]
        columns = self.table.columns
        names = ("low_high", "low_low", "high_high", "high_low", "low_port", "high_port")
        values = (*self.low, *self.high, *self.ports)
        for name, value in zip(names, values, strict=True):
            columns[name][row] = value[at]
        columns["hash"][row] = self.key[at]
        columns["protocol"][row] = self.packets.protocol[at]
        columns["first_time"][row] = self.packets.time[at]
        columns["last_time"][row] = self.packets.time[at]
        columns["first_packet"][row] = self.packets.number[at]
        columns["attempt_until"][row] = NEVER
        columns["close_at"][row] = NEVER

    def _count(self) -> None:
        """Packets, IP bytes and payload of both sides."""
        sizes = self.packets.ip_bytes[self.order]
        for side in (0, 1):
            own = self.side == side
            for name, value in (("packets", own), ("ip_bytes", sizes * own), ("payload", self.payload * own)):
                self.table[name][self.row, side] += np.add.reduceat(value.astype(np.int64), self.at)

    def _measure_tcp(self) -> None:
        self.tcp = _Tcp(self)

    def _write_state(self) -> None:
        """What the walk left at each connection's last packet."""
        last, row, table, walk = self.stop - 1, self.row, self.table, self.walk
        for side in (0, 1):
            table["state"][row, side] = walk.state[side][last]
            table["before"][row, side] = walk.previous[side][last]
            table["start"][row, side] = walk.start[side][last]
            table["closed"][row, side] = walk.closed[side][last]
        table["originator"][row] = walk.originator[last]
        table["attempt_until"][row] = walk.attempt[last]
        table["close_at"][row] = walk.close[last]
        table["idle"][row] = walk.idle[last]
        both = walk.shut
        counted = np.where(both, -NEVER, self.time)
        position = np.where(both, -1, np.arange(len(both)))
        newest = np.maximum.reduceat(position, self.at)
        has = newest >= self.at
        table["last_time"][row[has]] = counted[newest[has]]

    def letters(self) -> tuple[Int64s, Bytes]:
        """Rows and letters that this chunk adds to the histories."""
        return self.tcp.letters()


def _canonical(packets: Packets) -> tuple[Bools, tuple[UInt64s, UInt64s], tuple[UInt64s, UInt64s], tuple[Int64s, Int64s]]:
    """The endpoints ordered, so that both directions are one connection; `swapped` where the source is the higher."""
    source, target = packets.source, packets.target
    same_high, same_low = source[0] == target[0], source[1] == target[1]
    swapped = np.where(same_high, source[1] > target[1], source[0] > target[0])
    swapped |= same_high & same_low & (packets.source_port > packets.target_port)
    swapped &= ~packets.one_way
    low = tuple(np.where(swapped, t, s) for s, t in zip(source, target, strict=True))
    high = tuple(np.where(swapped, s, t) for s, t in zip(source, target, strict=True))
    ports = (
        np.where(swapped, packets.target_port, packets.source_port),
        np.where(swapped, packets.source_port, packets.target_port),
    )
    return swapped, (low[0], low[1]), (high[0], high[1]), ports


def _next(where: Bools) -> Int64s:
    """For every position the next one at or after it where `where` holds; n + 1 elements."""
    count = len(where)
    found = np.full(count + 1, count, dtype=np.int64)
    found[:count][where] = np.flatnonzero(where)
    return np.minimum.accumulate(found[::-1])[::-1]


class _Walk:
    """Rounds over the packets that can change a connection's state; afterwards the state after every packet.

    Attributes `state`, `previous`, `start`, `closed` are pairs (side 0, side 1) of arrays over the packets.
    """

    def __init__(self, chunk: _Chunk) -> None:
        self.chunk = chunk
        count = len(chunk.group)
        self.count = count
        self.begins = np.zeros(count, dtype=bool)
        self.event = np.zeros(count, dtype=bool)
        self.flipped = np.zeros(count, dtype=bool)
        self.state_at = np.zeros((count, 2), dtype=np.int8)
        self.previous_at = np.zeros((count, 2), dtype=np.int8)
        self.start_at = np.zeros((count, 2), dtype=np.int64)
        self.closed_at = np.zeros((count, 2), dtype=bool)
        self.originator_at = np.zeros(count, dtype=np.int64)
        self.attempt_at = np.full(count, NEVER, dtype=np.int64)
        self.close_at = np.full(count, NEVER, dtype=np.int64)
        self.idle_at = np.zeros(count, dtype=np.int64)

    def run(self) -> None:
        """Walks all connections of the chunk."""
        self._plain()
        self._tcp()
        self._spread()

    def _likely_server(self, positions: Int64s) -> tuple[Bools, Bools]:
        """Whether source and target port of these packets are those of likely servers."""
        packets, order = self.chunk.packets, self.chunk.order[positions]
        known = np.zeros((2, 65536), dtype=bool)
        known[0, list(TCP_SERVERS)] = True
        known[1, list(UDP_SERVERS)] = True
        udp = (packets.protocol[order] == UDP).astype(np.int64)
        ports = ((packets.protocol[order] == TCP) | (udp == 1))
        return known[udp, packets.source_port[order]] & ports, known[udp, packets.target_port[order]] & ports

    def _plain(self) -> None:
        """UDP, ICMP and other protocols: a pause ends a connection, nothing else does."""
        chunk = self.chunk
        other = chunk.protocol != TCP
        previous = np.empty(self.count, dtype=np.int64)
        previous[1:] = chunk.time[:-1]
        head = np.flatnonzero(chunk.first)
        row = chunk.carried[chunk.group[head]]
        known = row >= 0
        previous[head] = -NEVER
        previous[head[known]] = chunk.before["last_time"][row[known]]
        pause = chunk.now - previous >= OTHER_IDLE
        begins = other & pause
        at = np.flatnonzero(begins)
        self.begins[at] = True
        source, target = self._likely_server(at)
        broadcast = chunk.packets.target[1][chunk.order[at]] == np.uint64(0x0000FFFF_FFFFFFFF)
        flip = source & ~target & ~broadcast & (chunk.protocol[at] == UDP)
        self.flipped[at] = flip
        self.originator_at[at] = np.where(flip, 1 - chunk.side[at], chunk.side[at])
        self.event |= other & (begins | chunk.first)
        goes_on = head[known & other[head] & ~begins[head]]
        self.originator_at[goes_on] = chunk.before["originator"][chunk.carried[chunk.group[goes_on]]]
        self.idle_at[other] = OTHER_IDLE

    def _tcp(self) -> None:
        chunk = self.chunk
        is_tcp = chunk.protocol == TCP
        begin = np.flatnonzero(chunk.first & is_tcp)
        if not len(begin):
            return
        self.begin = begin
        stops = np.append(np.flatnonzero(chunk.first), self.count)
        self.end = stops[np.searchsorted(stops, begin, side="right")]
        pause = np.zeros(self.count, dtype=bool)
        pause[1:] = chunk.now[1:] - chunk.time[:-1] >= TCP_IDLE
        marked = (chunk.flags & (SYN | FIN | RST) != 0) | pause
        self.jumps = (
            _next(marked),
            _next(marked | (chunk.side == 0)),
            _next(marked | (chunk.side == 1)),
        )
        live = _Live(len(begin))
        row = chunk.carried[chunk.group[begin]]
        live.load(chunk.before, row)
        position = begin
        active = np.arange(len(begin))
        while len(active):
            self._round(live, active, position)
            following = self._jump(live, active, position)
            going = following < self.end[active]
            active, position = active[going], following[going]

    def _jump(self, live: _Live, active: Int64s, position: Int64s) -> Int64s:
        """Where each connection's state can change next."""
        state = live.state[active]
        silent0, silent1 = state[:, 0] == INACTIVE, state[:, 1] == INACTIVE
        after = position + 1
        following = self.jumps[0][after]
        following = np.where(silent0, self.jumps[1][after], following)
        following = np.where(silent1, self.jumps[2][after], following)
        timed = (live.close[active] < NEVER) | (silent0 & silent1)
        waiting = (live.attempt[active] < NEVER) & (silent0 | silent1)
        return np.where(timed | waiting, after, following)

    def _round(self, live: _Live, active: Int64s, position: Int64s) -> None:
        """One packet of every active connection."""
        chunk = self.chunk
        flags, side = chunk.flags[position], chunk.side[position]
        step = _Step(
            who=active,
            side=side,
            time=chunk.time[position],
            now=chunk.now[position],
            syn=flags & SYN != 0,
            fin=flags & FIN != 0,
            rst=flags & RST != 0,
            ack=flags & ACK != 0,
            sequence=chunk.sequence[position],
            acknowledged=chunk.acknowledged[position],
            payload=chunk.payload[position],
        )
        behind = position > self.begin[active]
        behind &= ~live.closed[active].all(axis=1)
        live.last[active[behind]] = chunk.time[position[behind] - 1]
        fresh = live.ended(step)
        if fresh.any():
            self._begin(live, step, fresh, position[fresh])
        live.advance(step, self.flipped, position)
        self.event[position] = True
        self.state_at[position] = live.state[active]
        self.previous_at[position] = live.previous[active]
        self.start_at[position] = live.start[active]
        self.closed_at[position] = live.closed[active]
        self.originator_at[position] = live.originator[active]
        self.attempt_at[position] = live.attempt[active]
        self.close_at[position] = live.close[active]
        self.idle_at[position] = live.idle[active]

    def _begin(self, live: _Live, step: _Step, fresh: Bools, position: Int64s) -> None:
        """New connections at these packets: who is the originator, and how long may it be idle."""
        who, side = step.who[fresh], step.side[fresh]
        self.begins[position] = True
        source, target = self._likely_server(position)
        opens = step.syn[fresh] & ~step.ack[fresh]
        packets, order = self.chunk.packets, self.chunk.order[position]
        lower = packets.source_port[order] < packets.target_port[order]
        flip = ~opens & source & (~target | (~step.syn[fresh] & lower))
        self.flipped[position] = flip
        originator = np.where(flip, 1 - side, side)
        responder_port = np.where(flip, packets.source_port[order], packets.target_port[order])
        live.begin(who, originator, step.time[fresh])
        live.idle[who] = np.where(np.isin(responder_port, LOGIN_PORTS), LOGIN_IDLE, TCP_IDLE)

    def _spread(self) -> None:
        """Carries the state after the last change to every packet behind it."""
        latest = np.maximum.accumulate(np.where(self.event, np.arange(self.count), 0))
        self.latest = latest
        self.state = self.state_at[latest, 0], self.state_at[latest, 1]
        self.previous = self.previous_at[latest, 0], self.previous_at[latest, 1]
        self.start = self.start_at[latest, 0], self.start_at[latest, 1]
        self.closed = self.closed_at[latest, 0], self.closed_at[latest, 1]
        self.originator = self.originator_at[latest]
        self.attempt = self.attempt_at[latest]
        self.close = self.close_at[latest]
        self.idle = self.idle_at[latest]
        both = self.closed[0] & self.closed[1]
        self.shut = np.zeros(self.count, dtype=bool)
        self.shut[1:] = both[:-1]
        starts = self.chunk.first | self.begins
        self.shut &= ~starts
        head = np.flatnonzero(self.chunk.first & ~self.begins)
        row = self.chunk.carried[self.chunk.group[head]]
        closed = self.chunk.before["closed"][row]
        self.shut[head] = (closed[:, 0] != 0) & (closed[:, 1] != 0)


@dataclass
class _Step:
    """One packet of each of some connections."""

    who: Int64s
    side: Int64s
    time: Int64s
    now: Int64s
    syn: Bools
    fin: Bools
    rst: Bools
    ack: Bools
    sequence: Int64s
    acknowledged: Int64s
    payload: Int64s


class _Live:
    """State of the TCP connections under way, one a group of packets."""

    def __init__(self, count: int) -> None:
        self.exists = np.zeros(count, dtype=bool)
        self.state = np.zeros((count, 2), dtype=np.int8)
        self.previous = np.zeros((count, 2), dtype=np.int8)
        self.start = np.zeros((count, 2), dtype=np.int64)
        self.closed = np.zeros((count, 2), dtype=bool)
        self.originator = np.zeros(count, dtype=np.int64)
        self.last = np.zeros(count, dtype=np.int64)
        self.attempt = np.full(count, NEVER, dtype=np.int64)
        self.close = np.full(count, NEVER, dtype=np.int64)
        self.idle = np.zeros(count, dtype=np.int64)

    def load(self, before: Table, row: Int64s) -> None:
        """Takes over connections open before the chunk; `row` is -1 where there is none."""
        known = row >= 0
        row = row[known]
        self.exists[known] = True
        self.state[known] = before["state"][row]
        self.previous[known] = before["before"][row]
        self.start[known] = before["start"][row]
        self.closed[known] = before["closed"][row] != 0
        self.originator[known] = before["originator"][row]
        self.last[known] = before["last_time"][row]
        self.attempt[known] = before["attempt_until"][row]
        self.close[known] = before["close_at"][row]
        self.idle[known] = before["idle"][row]

    def begin(self, who: Int64s, originator: Int64s, time: Int64s) -> None:
        """Starts new connections."""
        self.exists[who] = True
        self.state[who] = INACTIVE
        self.previous[who] = INACTIVE
        self.start[who] = 0
        self.closed[who] = False
        self.originator[who] = originator
        self.last[who] = time
        self.attempt[who] = NEVER
        self.close[who] = NEVER

    def ended(self, step: _Step) -> Bools:
        """Whether the packet opens a new connection: none yet, timed out, or its ports are used again."""
        who = step.who
        originator = self.originator[who]
        own = self.state[who, originator]
        other = self.state[who, 1 - originator]
        waiting = ((own == SYN_SENT) | (own == SYN_ACK_SENT)) & (other == INACTIVE)
        timeout = waiting & (self.attempt[who] <= step.now)
        timeout |= self.close[who] <= step.now
        timeout |= self.last[who] + self.idle[who] <= step.now
        both = self.closed[who].all(axis=1)
        asked = np.where(step.ack, 1 - originator, originator)
        again = step.syn & (~step.ack | (own == INACTIVE))
        same = step.sequence == self.start[who, asked]
        reversal = ~step.ack & (own == SYN_ACK_SENT) & (other == INACTIVE)
        reversal &= step.sequence == self.start[who, 1 - originator]
        return ~self.exists[who] | timeout | again & (both | ~(same | reversal))

    def advance(self, step: _Step, flipped: Bools, position: Int64s) -> None:
        """Sequence starts, last time, then the endpoint states as Zeek's TCP session moves them."""
        who, side, other = step.who, step.side, 1 - step.side
        mine, peer = self.state[who, side], self.state[who, other]
        self._starts(step, mine, peer)
        open_still = ~self.closed[who].all(axis=1)
        self.last[who[open_still]] = step.time[open_still]
        new_mine, new_peer, close = self._inactive(step, mine, peer, flipped, position)
        sent = (mine == SYN_SENT) | (mine == SYN_ACK_SENT)
        new_mine = np.where(sent & step.fin, CLOSED, new_mine)
        new_mine = np.where(sent & step.rst, RESET, new_mine)
        close |= sent & (step.fin | step.rst)
        flowing = (mine == ESTABLISHED) | (mine == PARTIAL)
        late = (mine == PARTIAL) & (peer == INACTIVE) & step.syn & ~step.ack
        new_mine = np.where(late, SYN_SENT, new_mine)
        normal = flowing & step.fin & ~step.rst
        new_mine = np.where(normal, CLOSED, new_mine)
        undo = normal & (peer == RESET) & (self.previous[who, other] == CLOSED)
        new_peer = np.where(undo, CLOSED, new_peer)
        new_mine = np.where(flowing & step.rst, RESET, new_mine)
        close |= normal | flowing & step.rst
        torn = (mine == CLOSED) & step.rst & (peer != CLOSED)
        new_mine = np.where(torn, RESET, new_mine)
        close |= torn
        self._set(who, side, mine, new_mine)
        self._set(who, other, peer, new_peer)
        self._close(step, close)

    def _starts(self, step: _Step, mine: Int8s, peer: Int8s) -> None:
        who, side, other = step.who, step.side, 1 - step.side
        again = (mine == ESTABLISHED) | (mine == PARTIAL) | (mine == SYN_SENT) | (mine == SYN_ACK_SENT)
        again |= (mine == RESET) & (self.previous[who, side] == INACTIVE)
        fresh = (mine == INACTIVE) | again & step.syn
        value = np.where(step.syn, step.sequence, (step.sequence - 1) & 0xFFFFFFFF)
        self.start[who[fresh], side[fresh]] = value[fresh]
        guess = step.ack & (peer == INACTIVE)
        self.start[who[guess], other[guess]] = (step.acknowledged[guess] - 1) & 0xFFFFFFFF

    def _inactive(
        self, step: _Step, mine: Int8s, peer: Int8s, flipped: Bools, position: Int64s
    ) -> tuple[Int8s, Int8s, Bools]:
        """First packets of a side."""
        who, side = step.who, step.side
        first = mine == INACTIVE
        is_orig = side == self.originator[who]
        opens = first & step.syn & is_orig
        new = np.where(opens, np.where(step.ack, SYN_ACK_SENT, SYN_SENT), mine)
        self.attempt[who[opens]] = step.time[opens] + ATTEMPT
        answers = first & step.syn & ~is_orig
        reversal = answers & ~step.ack & (peer == SYN_ACK_SENT)
        self.originator[who[reversal]] = side[reversal]
        flipped[position[reversal]] = True
        new_peer = np.where(reversal | answers & (peer == SYN_SENT), ESTABLISHED, peer)
        new = np.where(answers, ESTABLISHED, new)
        new = np.where(first & step.fin, CLOSED, new)
        new = np.where(first & step.rst, RESET, new)
        close = first & (step.fin | step.rst)
        plain = first & ~(step.syn | step.fin | step.rst)
        early = ~is_orig & (step.payload == 0) & (peer == SYN_SENT)
        joins = step.ack & (peer == ESTABLISHED)
        new = np.where(plain & ~early, np.where(joins, ESTABLISHED, PARTIAL), new)
        return new.astype(np.int8), new_peer.astype(np.int8), close

    def _set(self, who: Int64s, side: Int64s, old: Int8s, new: Int8s) -> None:
        changed = old != new
        self.previous[who[changed], side[changed]] = old[changed]
        self.state[who[changed], side[changed]] = new[changed]

    def _close(self, step: _Step, close: Bools) -> None:
        """A side is done; both done, or one by reset or alone: the connection ends soon."""
        close = close & ~self.closed[step.who, step.side]
        who, side = step.who[close], step.side[close]
        self.closed[who, side] = True
        complete = (self.state[who, side] == RESET) | self.closed[who, 1 - side] | (self.state[who, 1 - side] == INACTIVE)
        self.close[who[complete]] = self.last[who[complete]] + CLOSE


def _running(values: Int64s, segment: Int64s) -> Int64s:
    """Running maximum within consecutive segments; `values` must lie in -1 … 2^40."""
    base = segment << 41
    return np.maximum.accumulate(values + base) - base


def _signed(difference: Int64s) -> Int64s:
    """Distance in 32-bit sequence space, -2^31 … 2^31 - 1."""
    return (difference + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


class _Tcp:
    """Bytes by sequence numbers and history letters, for all packets at once."""

    def __init__(self, chunk: _Chunk) -> None:
        self.chunk = chunk
        self.walk = chunk.walk
        self.found: list[tuple[Int64s, int, Int64s, str]] = []
        self.is_tcp = chunk.protocol == TCP
        self.starts = chunk.first | chunk.walk.begins
        self.mine_before, self.peer_before = self._before()
        self._flips()
        self._udp_letters()
        if self.is_tcp.any():
            for side in (0, 1):
                self._side(side)

    def _before(self) -> tuple[Int8s, Int8s]:
        """State of the sender and of its peer before each packet."""
        chunk, walk = self.chunk, self.walk
        both = []
        for side in (0, 1):
            state = np.zeros(len(self.starts), dtype=np.int8)
            state[1:] = walk.state[side][:-1]
            state[self.starts] = INACTIVE
            head = np.flatnonzero(chunk.first & ~walk.begins)
            state[head] = chunk.before["state"][chunk.carried[chunk.group[head]], side]
            both.append(state)
        return np.where(chunk.side == 0, both[0], both[1]), np.where(chunk.side == 0, both[1], both[0])

    def _flips(self) -> None:
        position = np.flatnonzero(self.walk.flipped)
        beginning = self.walk.begins[position]
        self._letter(position[beginning], -1, "^")
        self._letter(position[~beginning], 5, "^")

    def _udp_letters(self) -> None:
        udp = self.chunk.protocol == UDP
        if not udp.any():
            return
        for side in (0, 1):
            self._once(udp & (self.chunk.side == side), side, 0, 1, "D")

    def _letter(self, position: Int64s, rank: int, letter: str) -> None:
        """Adds `letter` at packets; within a packet lower ranks come first."""
        if len(position):
            self.found.append((position, rank, self.chunk.side[position], letter))

    def _once(self, mask: Bools, side: int, rank: int, bit: int, letter: str) -> None:
        """The letter at the first packet of `mask` in each connection that has not seen it yet."""
        position = np.flatnonzero(mask)
        stretch = self.chunk.stretch[position]
        first = np.ones(len(position), dtype=bool)
        first[1:] = stretch[1:] != stretch[:-1]
        position = position[first]
        row = self.chunk.row[self.chunk.stretch[position]]
        seen = self.chunk.table["seen"]
        position = position[seen[row, side] & bit == 0]
        seen[row, side] |= bit
        self._letter(position, rank, letter)

    def _changed(self, mask: Bools, side: int, number: Int64s, column: str, bit: int, letters: tuple[str, Bools]) -> None:
        """A letter at the first packet of `mask`, and again where its number differs from the last one's."""
        position = np.flatnonzero(mask)
        if not len(position):
            return
        table, row = self.chunk.table, self.chunk.row[self.chunk.stretch[position]]
        stretch = self.chunk.stretch[position]
        first = np.ones(len(position), dtype=bool)
        first[1:] = stretch[1:] != stretch[:-1]
        value = number[position]
        previous = np.empty_like(value)
        previous[1:] = value[:-1]
        previous[first] = table[column][row[first], side]
        unseen = first & (table["seen"][row, side] & bit == 0)
        chosen = position[unseen | (value != previous)]
        last = np.append(first[1:], True)
        table[column][row[last], side] = value[last]
        table["seen"][row, side] |= bit
        other, special = letters
        self._letter(chosen[special[chosen]], 0, "H" if other == "S" else other)
        self._letter(chosen[~special[chosen]], 0, other)

    def _scaled(self, mask: Bools, side: int, rank: int, column: str, letter: str, sender: bool = True) -> None:
        """The letter at the 1st, 10th, 100th, … packet of `mask`."""
        position = np.flatnonzero(mask)
        if not len(position):
            return
        stretch = self.chunk.stretch[position]
        first = np.ones(len(position), dtype=bool)
        first[1:] = stretch[1:] != stretch[:-1]
        begin = np.flatnonzero(first)
        row = self.chunk.row[stretch]
        table = self.chunk.table
        count = np.arange(len(position)) - np.repeat(begin, np.diff(np.append(begin, len(position)))) + 1
        count += table[column][row, side]
        last = np.append(first[1:], True)
        table[column][row[last], side] = count[last]
        chosen = position[np.isin(count, 10 ** np.arange(10))]
        if len(chosen):
            self.found.append((chosen, rank, np.full(len(chosen), side, dtype=np.int64), letter))

    def _side(self, side: int) -> None:
        chunk, walk = self.chunk, self.walk
        own = self.is_tcp & (chunk.side == side)
        flags, length = chunk.flags, chunk.payload
        syn, fin, rst = flags & SYN != 0, flags & FIN != 0, flags & RST != 0
        relative = _signed(chunk.sequence - walk.start[side])
        control = syn.astype(np.int64) + fin + rst
        self._once(own & (control > 1) & fin & rst, side, 0, 32, "I")
        self._once(own & (control > 1) & ~(fin & rst), side, 0, 64, "Q")
        one = own & (control == 1)
        acks = flags & ACK != 0
        none = np.zeros(len(own), dtype=bool)
        self._changed(one & syn, side, relative, "last_syn", 4, ("S", acks))
        self._changed(one & fin, side, relative + length, "last_fin", 8, ("F", none))
        self._changed(one & rst, side, relative, "last_rst", 16, ("R", none))
        plain = own & (control == 0)
        self._once(plain & (length > 0), side, 0, 1, "D")
        self._once(plain & (length == 0) & acks, side, 0, 2, "A")
        window = chunk.packets.window[chunk.order]
        zero = own & (window == 0) & ~rst & (self.peer_before != CLOSED) & (self.mine_before != RESET)
        self._scaled(zero, side, 1, "zero_windows", "W")
        self._bytes(side, own, relative)

    def _epochs(self, side: int, own: Bools, syn: Bools) -> Bools:
        """Where the side's sequence numbers start anew."""
        mine = self.mine_before
        anew = own & ((mine == INACTIVE) | syn & ((mine == ESTABLISHED) | (mine == PARTIAL)))
        sent = own & syn & ((mine == SYN_SENT) | (mine == SYN_ACK_SENT) | (mine == RESET))
        if sent.any():
            start = self.walk.start[side]
            before = np.append(start[:1], start[:-1])
            anew |= sent & (start != before) & ~self.starts
        return anew

    def _bytes(self, side: int, own: Bools, relative: Int64s) -> None:
        """Highest sequence number sent and acknowledged; retransmissions and gaps on the way."""
        chunk, walk, table = self.chunk, self.walk, self.chunk.table
        flags, length = chunk.flags, chunk.payload
        syn, fin, rst = flags & SYN != 0, flags & FIN != 0, flags & RST != 0
        anew = self._epochs(side, own, syn)
        segment = np.cumsum(self.starts | anew)
        upper = relative + syn + fin + np.where(rst, 0, length)
        fresh_partial = anew & ~syn
        carried = np.zeros(len(own), dtype=np.int64)
        goes_on = np.flatnonzero(chunk.first & ~walk.begins)
        rows = chunk.carried[chunk.group[goes_on]]
        carried[goes_on] = table["top"][rows, side]
        base = np.where(own & (self.mine_before != RESET) & ~rst & ~(syn & ~anew & (np.abs(upper) > TOO_LARGE)), upper, 0)
        base = np.clip(base, 0, 1 << 40)
        top = _running(np.maximum(base, carried), segment)
        before = np.zeros(len(own), dtype=np.int64)
        before[1:] = top[:-1]
        before[self.starts | anew] = 0
        before[goes_on] = table["top"][rows, side]
        trusted_rst = own & rst & (np.abs(upper - before) <= TOO_LARGE) & (self.mine_before != RESET)
        if trusted_rst.any():
            base = np.where(trusted_rst, np.clip(upper, 0, 1 << 40), base)
            top = _running(np.maximum(base, carried), segment)
            before[1:] = top[:-1]
            before[self.starts | anew] = 0
            before[goes_on] = table["top"][rows, side]
        before = np.where(fresh_partial, 1, np.where(anew, upper, before))
        only_fin = fin & (before == 1)
        resent = own & (length > 0) & (upper <= before) & ~rst & (self.mine_before != RESET) & ~only_fin & ~anew
        self._scaled(resent, side, 2, "resent", "T")
        self._acks(side, own, segment, goes_on, rows)
        last = chunk.stop - 1
        table["top"][chunk.row, side] = top[last]
        table["fins"][chunk.row, side] += np.add.reduceat((own & fin).astype(np.int64), chunk.at)

    def _acks(self, side: int, own: Bools, segment: Int64s, goes_on: Int64s, rows: Int64s) -> None:
        """Highest byte the peer acknowledged."""
        chunk, walk, table = self.chunk, self.walk, self.chunk.table
        acks = self.is_tcp & (chunk.side != side) & (chunk.flags & ACK != 0) & (chunk.flags & RST == 0)
        acks &= self.peer_before != INACTIVE
        relative = _signed(chunk.acknowledged - walk.start[side])
        broken = (chunk.acknowledged == 0) & (relative > TOO_LARGE)
        value = np.where(acks & (relative > 0) & ~broken, relative, 0)
        value[goes_on] = np.maximum(value[goes_on], table["acked"][rows, side])
        acked = _running(value, segment)
        table["acked"][chunk.row, side] = acked[chunk.stop - 1]

    def letters(self) -> tuple[Int64s, Bytes]:
        """Rows and letters in order; upper case is the originator."""
        if not self.found:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8)
        position = np.concatenate([found[0] for found in self.found])
        rank = np.concatenate([np.full(len(found[0]), found[1], dtype=np.int64) for found in self.found])
        side = np.concatenate([found[2] for found in self.found])
        letter = np.concatenate([np.full(len(found[0]), ord(found[3]), dtype=np.uint8) for found in self.found])
        order = np.argsort(position * 8 + rank + 1, kind="stable")
        position, rank, side, letter = position[order], rank[order], side[order], letter[order]
        lower = (side != self.walk.originator[position]) & (letter != ord("^"))
        return self.chunk.row[self.chunk.stretch[position]], np.where(lower, letter | 0x20, letter)


def sizes(table: Table) -> Int64s:
    """(n, 2) payload bytes of both sides: TCP by sequence numbers, others by their headers' lengths."""
    span = np.maximum(table["top"], table["acked"])
    span = np.where(span > 0, span - 1, 0)
    span = np.where((table["fins"] > 0) & (span > 0), span - 1, span)
    aborted = (table["before"] == SYN_SENT) & (table["state"] == RESET) & (table["state"][:, ::-1] == INACTIVE)
    span = np.where((table["state"] == INACTIVE) | aborted & (table["acked"] == 0), 0, span)
    return np.where((table["protocol"] == TCP)[:, None], span, table["payload"])


def conn_states(table: Table, history: list[str], size: Int64s) -> list[str]:
    """Zeek's conn_state of every connection, as base/protocols/conn/main.zeek decides it."""
    row = np.arange(len(table))
    originator = table["originator"]
    own, other = table["state"][row, originator], table["state"][row, 1 - originator]
    silent = (own == INACTIVE) | (own == PARTIAL)
    unanswered = (other == INACTIVE) | (other == PARTIAL)
    empty = (size == 0).all(axis=1)
    rejected = (own == SYN_SENT) | (own == SYN_ACK_SENT) | (own == RESET) & empty
    stealth = np.array([_SYN_THEN_RESET.fullmatch(text) is not None for text in history])
    tcp = np.select(
        [
            (other == RESET) & rejected,
            (other == RESET) & silent,
            other == RESET,
            (own == RESET) & unanswered & stealth,
            (own == RESET) & unanswered,
            own == RESET,
            (own == CLOSED) & (other == CLOSED),
            (own == CLOSED) & unanswered,
            own == CLOSED,
            (other == CLOSED) & silent,
            other == CLOSED,
            (own == SYN_SENT) & (other == INACTIVE),
            (own == ESTABLISHED) & (other == ESTABLISHED),
        ],
        ["REJ", "RSTRH", "RSTR", "RSTOS0", "OTH", "RSTO", "SF", "SH", "S2", "SHR", "S3", "S0", "S1"],
        "OTH",
    )
    sent, got = table["packets"][row, originator] > 0, table["packets"][row, 1 - originator] > 0
    udp = np.select([sent & got, sent, got], ["SF", "S0", "SHR"], "OTH")
    chosen = np.select([table["protocol"] == TCP, table["protocol"] == UDP], [tcp, udp], "OTH")
    return [str(state) for state in chosen]


_SYN_THEN_RESET = re.compile(r"\^?S[^HAFGIQ]*R.*")
