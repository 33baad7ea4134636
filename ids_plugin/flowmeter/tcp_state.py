"""The packets that can change a connection's state, one of every connection a round.

For TCP these are SYN, FIN and RST, the first packets of a side, and whatever comes behind a timeout; for DNS over UDP
the times at which Zeek looks whether an exchange is over. What Zeek's TCP session does with them is in `Live`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import (
    ACK,
    ATTEMPT,
    CLOSE,
    CLOSED,
    DNS_POLL,
    DNS_PORTS,
    DNS_STILL,
    ESTABLISHED,
    FIN,
    INACTIVE,
    LOGIN_IDLE,
    LOGIN_PORTS,
    NEVER,
    OTHER_IDLE,
    PARTIAL,
    RESET,
    RST,
    SYN,
    SYN_ACK_SENT,
    SYN_SENT,
    TCP_IDLE,
    TCP_SERVERS,
    UDP_SERVERS,
    Table,
)
from ids_plugin.flowmeter.packet_order import Ordered
from ids_plugin.flowmeter.packets.decoder import TCP, UDP

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]


def _ports(*numbers: int) -> Bools:
    """(65536,) True at these ports."""
    return np.isin(np.arange(65536), numbers)


SERVERS = np.stack([_ports(*TCP_SERVERS), _ports(*UDP_SERVERS)])
NAMES, LOGINS = _ports(*DNS_PORTS), _ports(*LOGIN_PORTS)
TURNED = (53, 137)
"""DNS ports on both sides of servers that ask each other."""
BROADCAST = np.uint64(0x0000FFFF_FFFFFFFF)


def _next(where: Bools) -> Int64s:
    """For every position the next one at or after it where `where` holds; n + 1 elements."""
    count = len(where)
    places = np.append(np.flatnonzero(where), count)
    return np.repeat(places, np.diff(places, prepend=-1))


class Walk:
    """Rounds over the packets that can change a connection's state; afterwards the state after every packet.

    Attributes `state`, `previous`, `start`, `closed` are pairs (side 0, side 1) of arrays over the packets.
    """

    def __init__(self, chunk: Ordered) -> None:
        self.chunk = chunk
        count = len(chunk.group)
        self.count = count
        self.begins = np.zeros(count, dtype=bool)
        self.event = np.zeros(count, dtype=bool)
        self.flipped = np.zeros(count, dtype=bool)
        self.turned = np.zeros(count, dtype=bool)
        self.state_at = np.zeros((count, 2), dtype=np.int8)
        self.previous_at = np.zeros((count, 2), dtype=np.int8)
        self.start_at = np.zeros((count, 2), dtype=np.int64)
        self.closed_at = np.zeros((count, 2), dtype=bool)
        self.originator_at = np.zeros(count, dtype=np.int64)
        self.attempt_at = np.full(count, NEVER, dtype=np.int64)
        self.close_at = np.full(count, NEVER, dtype=np.int64)
        self.idle_at = np.zeros(count, dtype=np.int64)
        self.closing = np.zeros((count, 2), dtype=bool)
        self.polls = np.full(len(chunk.carried), NEVER, dtype=np.int64)
        """when Zeek next looks at the DNS exchange of a group; when it found it over, if `ended`"""
        self.ended = np.zeros(len(chunk.carried), dtype=bool)
        self.left: list[tuple[Int64s, Int64s]] = []
        """last packets of connections, and where their sides begin as far as is known by then"""

    def run(self) -> None:
        """Walks all connections of the chunk."""
        self._plain()
        self._tcp()
        self._spread()

    def _likely_server(self, positions: Int64s) -> tuple[Bools, Bools]:
        """Whether source and target port of these packets are those of likely servers."""
        packets, order = self.chunk.packets, self.chunk.order[positions]
        udp = (packets.protocol[order] == UDP).astype(np.int64)
        ports = (packets.protocol[order] == TCP) | (udp == 1)
        return SERVERS[udp, packets.source_port[order]] & ports, SERVERS[
            udp, packets.target_port[order]
        ] & ports

    def _plain(self) -> None:
        """UDP, ICMP and other protocols: a pause ends a connection, nothing else does but the end of a DNS exchange."""
        chunk = self.chunk
        other = chunk.protocol != TCP
        head = np.flatnonzero(chunk.first & other)
        row = chunk.carried[chunk.group[head]]
        known = row >= 0
        previous = np.empty(self.count, dtype=np.int64)
        previous[1:] = chunk.time[:-1]
        previous[head] = -NEVER
        previous[head[known]] = chunk.table["last_time"][row[known]]
        named = NAMES[chunk.packets.source_port] | NAMES[chunk.packets.target_port]
        dns = (chunk.protocol == UDP) & named[chunk.order]
        self.begins |= other & ~dns & (chunk.now - previous >= OTHER_IDLE)
        asked = dns[head]
        poll = np.full(len(head), NEVER, dtype=np.int64)
        poll[known] = chunk.table["poll_at"][row[known]]
        self._dns(head[asked], poll[asked], previous)
        at = np.flatnonzero(self.begins)
        source, target = self._likely_server(at)
        broadcast = chunk.packets.target[1][chunk.order[at]] == BROADCAST
        flip = source & ~target & ~broadcast & (chunk.protocol[at] == UDP)
        self.flipped[at] = flip
        self.originator_at[at] = np.where(flip, 1 - chunk.side[at], chunk.side[at])
        self._answers_first(at[dns[at] & ~flip])
        self.event |= other & (self.begins | chunk.first)
        goes_on = head[~self.begins[head]]
        self.originator_at[goes_on] = chunk.table["originator"][chunk.carried[chunk.group[goes_on]]]
        self.idle_at[other] = OTHER_IDLE

    def _answers_first(self, at: Int64s) -> None:
        """DNS that begins with an answer between two servers' ports: Zeek turns it round, the packet's count too."""
        chunk, packets = self.chunk, self.chunk.packets
        order = chunk.order[at]
        both = np.isin(packets.source_port[order], TURNED) & np.isin(
            packets.target_port[order], TURNED
        )
        both &= packets.captured[order] > 2
        at, order = at[both], order[both]
        at = at[packets.data[packets.content[order] + 2] & 0x80 != 0]
        chunk.side[at] = 1 - chunk.side[at]
        self.originator_at[at] = chunk.side[at]
        self.turned[at] = True

    def _dns(self, head: Int64s, poll: Int64s, previous: Int64s) -> None:
        """Splits DNS exchanges where one of Zeek's looks, every ten seconds, finds them still."""
        chunk = self.chunk
        if not len(head):
            return
        size = np.int64(len(chunk.arrivals))
        place = chunk.group * size + chunk.place
        stops = np.append(np.flatnonzero(chunk.first), self.count)
        end = stops[np.searchsorted(stops, head, side="right")]
        begin = poll >= NEVER
        self.begins[head[begin]] = True
        poll = np.where(begin, chunk.now[head] + DNS_POLL, poll)
        group = chunk.group[head]
        active = np.arange(len(head))
        while len(active):
            fires = np.searchsorted(chunk.arrivals, poll[active])
            happens = fires < size
            self.polls[group[active[~happens]]] = poll[active[~happens]]
            active, fires = active[happens], fires[happens]
            position = np.searchsorted(place, group[active] * size + fires)
            clock = chunk.arrivals[fires]
            last = np.where(
                position > head[active], chunk.time[position - 1], previous[head[active]]
            )
            over = clock - last >= DNS_STILL
            more = position < end[active]
            self.polls[group[active[over & ~more]]] = np.minimum(clock[over & ~more], NEVER - 1)
            again = over & more
            self.begins[position[again]] = True
            poll[active[again]] = chunk.now[position[again]] + DNS_POLL
            poll[active[~over]] = clock[~over] + DNS_POLL
            self.ended[group[active[over & ~more]]] = True
            active = active[~over | more]

    def _tcp(self) -> None:
        chunk = self.chunk
        is_tcp = chunk.protocol == TCP
        begin = np.flatnonzero(is_tcp & (chunk.first | self._new_attempts()))
        if not len(begin):
            return
        self.begin = begin
        stops = np.append(np.flatnonzero(chunk.first), self.count)
        self.end = np.minimum(
            np.append(begin[1:], self.count), stops[np.searchsorted(stops, begin, side="right")]
        )
        marked = self._marked()
        self.jumps = (
            _next(marked),
            _next(marked | (chunk.side == 0)),
            _next(marked | (chunk.side == 1)),
        )
        self.clock = _Clock(chunk.group, chunk.now)
        self.acks = np.flatnonzero((chunk.flags & ACK != 0) & is_tcp & ~chunk.refused)
        live = Live(len(begin))
        self.visited = begin - 1
        row = np.where(chunk.first[begin], chunk.carried[chunk.group[begin]], -1)
        live.load(chunk.table, row)
        live.login[row >= 0] = self._login(row[row >= 0])
        position = begin
        active = np.arange(len(begin))
        while len(active):
            self._round(live, active, position)
            following = self._jump(live, active, position)
            going = following < self.end[active]
            over = active[~going]
            self._guess(live, over, self.end[over] - 1)
            self.left.append((self.end[over] - 1, live.start[over]))
            active, position = active[going], following[going]

    def _new_attempts(self) -> Bools:
        """SYNs with another number than the SYN their side sent before: each opens a connection, whatever came between.

        But for one that the other side seems to have answered already: these two may only have changed places.
        """
        chunk = self.chunk
        opens = chunk.flags & (SYN | ACK) == SYN
        again = np.zeros(self.count, dtype=bool)
        likely = np.flatnonzero(opens & ~chunk.first)
        for side in np.unique(chunk.side[likely]).tolist():
            own = chunk.side == side
            at = likely[own[likely]]
            theirs = np.append(0, np.flatnonzero(own))
            last = theirs[np.searchsorted(theirs, at - 1, side="right") - 1]
            known = (chunk.group[last] == chunk.group[at]) & own[last] & opens[last]
            again[at] = known & (chunk.sequence[last] != chunk.sequence[at])
            again[at] &= chunk.acknowledged[at - 1] != (chunk.sequence[at] + 1) & 0xFFFFFFFF
        return again

    def _marked(self) -> Bools:
        """Packets that may change the state of an established connection: not those that only repeat the one before."""
        chunk = self.chunk
        control = chunk.flags & (SYN | FIN | RST)
        marked = control != 0
        same = (
            (control[1:] == control[:-1])
            & (chunk.side[1:] == chunk.side[:-1])
            & (control[1:] & SYN == 0)
        )
        marked[1:] &= ~same | chunk.first[1:]
        marked[1:] |= chunk.now[1:] - chunk.time[:-1] >= TCP_IDLE
        changes: Bools = marked
        return changes

    def _login(self, row: Int64s) -> Bools:
        """Whether connections open before the chunk go to a port where people log in."""
        before = self.chunk.table
        port = np.where(
            before["originator"][row] == 0, before["high_port"][row], before["low_port"][row]
        )
        login: Bools = LOGINS[port]
        return login

    def _jump(self, live: Live, active: Int64s, position: Int64s) -> Int64s:
        """Where each connection's state can change next."""
        state = live.state[active]
        silent0, silent1 = state[:, 0] == INACTIVE, state[:, 1] == INACTIVE
        after = position + 1
        following = self.jumps[0][after]
        following = np.where(silent0, self.jumps[1][after], following)
        following = np.where(silent1, self.jumps[2][after], following)
        following = np.where(silent0 & silent1, after, following)
        deadline = np.where(
            silent0 | silent1,
            np.minimum(live.close[active], live.attempt[active]),
            live.close[active],
        )
        timed = np.flatnonzero(deadline < NEVER)
        expires = self.clock.first(self.chunk.group[position[timed]], deadline[timed])
        following[timed] = np.minimum(following[timed], np.maximum(expires, after[timed]))
        return following

    def _round(self, live: Live, active: Int64s, position: Int64s) -> None:
        """One packet of every active connection."""
        chunk = self.chunk
        flags, side = chunk.flags[position], chunk.side[position]
        step = Step(
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
        opens = np.flatnonzero(step.syn)
        self._guess(live, active[opens], position[opens] - 1)
        self.visited[active] = position
        fresh = live.ended(step)
        if fresh.any():
            self._begin(live, step, fresh, position[fresh])
        heard = ~chunk.refused[position]
        step = step if heard.all() else step.keep(heard)
        closing = live.advance(step, self.flipped, position[heard])
        self.closing[position[heard][closing], step.side[closing]] = True
        self.event[position] = True
        self.state_at[position] = live.state[active]
        self.previous_at[position] = live.previous[active]
        self.start_at[position] = live.start[active]
        self.closed_at[position] = live.closed[active]
        self.originator_at[position] = live.originator[active]
        self.attempt_at[position] = live.attempt[active]
        self.close_at[position] = live.close[active]
        self.idle_at[position] = live.idle[active]

    def _guess(self, live: Live, who: Int64s, position: Int64s) -> None:
        """Where a silent side begins, by its peer's last acknowledgement up to `position`; rounds pass these over."""
        last = np.searchsorted(self.acks, position, side="right") - 1
        who, last = who[last >= 0], self.acks[last[last >= 0]]
        since = last > self.visited[who]
        who, last = who[since], last[since]
        side = 1 - self.chunk.side[last]
        silent = live.state[who, side] == INACTIVE
        live.start[who[silent], side[silent]] = (
            self.chunk.acknowledged[last[silent]] - 1
        ) & 0xFFFFFFFF

    def _begin(self, live: Live, step: Step, fresh: Bools, position: Int64s) -> None:
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
        live.login[who] = LOGINS[responder_port]

    def _spread(self) -> None:
        """Carries the state after the last change to every packet behind it."""
        latest = np.maximum.accumulate(np.where(self.event, np.arange(self.count), 0))
        self.latest = latest
        self.state = self.state_at[latest, 0], self.state_at[latest, 1]
        self.previous = self.previous_at[latest, 0], self.previous_at[latest, 1]
        self.start = self.start_at[latest, 0], self.start_at[latest, 1]
        for last, start in self.left:
            self.start[0][last], self.start[1][last] = start.T
        self.closed = self.closed_at[latest, 0], self.closed_at[latest, 1]
        self.originator = self.originator_at[latest]
        self.attempt = self.attempt_at[latest]
        self.close = self.close_at[latest]
        self.idle = self.idle_at[latest]


class _Clock:
    """Finds the first packet of a group at or after a time."""

    def __init__(self, group: Int64s, now: Int64s) -> None:
        self.start = int(now.min())
        self.span = min(int(now.max()) - self.start + 2, (1 << 62) // (int(group[-1]) + 1))
        self.key = group * self.span + np.minimum(now - self.start, self.span - 1)

    def first(self, group: Int64s, time: Int64s) -> Int64s:
        """Positions; that of the group's end where there is none."""
        return np.searchsorted(
            self.key, group * self.span + np.clip(time - self.start, 0, self.span - 1)
        )


@dataclass
class Step:
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

    def keep(self, mask: Bools) -> Step:
        """The steps of the mask."""
        return Step(**{name: getattr(self, name)[mask] for name in self.__dataclass_fields__})


class Live:
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
        self.idle = np.full(count, TCP_IDLE, dtype=np.int64)
        self.login = np.zeros(count, dtype=bool)

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
        self.idle[who] = TCP_IDLE

    def ended(self, step: Step) -> Bools:
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
        opens: Bools = ~self.exists[who] | timeout | (again & (both | ~(same | reversal)))
        return opens

    def advance(self, step: Step, flipped: Bools, position: Int64s) -> Bools:
        """Sequence starts, last time and the endpoint states as Zeek's TCP session moves them; which close."""
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
        return close

    def _starts(self, step: Step, mine: Int8s, peer: Int8s) -> None:
        who, side, other = step.who, step.side, 1 - step.side
        again = (
            (mine == ESTABLISHED) | (mine == PARTIAL) | (mine == SYN_SENT) | (mine == SYN_ACK_SENT)
        )
        again |= (mine == RESET) & (self.previous[who, side] == INACTIVE)
        fresh = (mine == INACTIVE) | again & step.syn
        value = np.where(step.syn, step.sequence, (step.sequence - 1) & 0xFFFFFFFF)
        self.start[who[fresh], side[fresh]] = value[fresh]
        guess = step.ack & (peer == INACTIVE)
        self.start[who[guess], other[guess]] = (step.acknowledged[guess] - 1) & 0xFFFFFFFF

    def _inactive(
        self, step: Step, mine: Int8s, peer: Int8s, flipped: Bools, position: Int64s
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
        agreed = answers & (new_peer == ESTABLISHED) & self.login[who]
        self.idle[who[agreed]] = LOGIN_IDLE
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

    def _close(self, step: Step, close: Bools) -> None:
        """A side is done; both done, or one by reset or alone: the connection ends soon."""
        close = close & ~self.closed[step.who, step.side]
        who, side = step.who[close], step.side[close]
        self.closed[who, side] = True
        complete = (
            (self.state[who, side] == RESET)
            | self.closed[who, 1 - side]
            | (self.state[who, 1 - side] == INACTIVE)
        )
        self.close[who[complete]] = step.now[close][complete] + CLOSE
