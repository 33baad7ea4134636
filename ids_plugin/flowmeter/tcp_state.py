"""The state of every connection after every packet, in rounds.

A state machine must take the packets of one connection in order, but connections don't depend on
each other. So a round takes the next packet of every connection under way, all in one step of
NumPy:

- `position` holds, for each connection under way, the place of its next packet among the packets of
  the chunk (which stand in groups, see `packet_order`).
- `TcpStates` holds the states of these connections as arrays, and `TcpStates.advance` moves all of
  them as Zeek's TCP session does:
  https://docs.zeek.org/en/v8.0.8/scripts/base/protocols/conn/main.zeek.html
- `StateTracker._advance_round` notes the new state at the positions of the packets.
- `StateTracker._next_positions` says where each connection goes on. Most packets can't change a
  state: once both sides have spoken only SYN, FIN and RST do, and packets that come after a
  timeout. Tables made beforehand give the next such packet of any position (`next_candidate`), so
  that a connection of a million packets takes as few rounds as one of ten.
- Connections that have reached their last packet leave; the rounds end when none is left.

`StateTracker._fill_forward` then gives the packets that no round visited the state of the last
visited packet before them.

UDP, ICMP and other protocols need no rounds, because only a pause ends them. DNS over UDP has
rounds of its own: they follow the times at which Zeek checks whether an exchange is over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import (
    ACK,
    ATTEMPT_TIMEOUT_US,
    CLOSE_DELAY_US,
    CLOSED,
    DATAGRAM_IDLE_TIMEOUT_US,
    DNS_CHECK_INTERVAL_US,
    DNS_PORTS,
    DNS_SILENCE_US,
    ESTABLISHED,
    FIN,
    INACTIVE,
    LOGIN_IDLE_TIMEOUT_US,
    LOGIN_PORTS,
    NEVER,
    PARTIAL,
    RESET,
    RST,
    SYN,
    SYN_ACK_SENT,
    SYN_SENT,
    TCP_IDLE_TIMEOUT_US,
    TCP_SERVERS,
    UDP_SERVERS,
    Table,
)
from ids_plugin.flowmeter.packet_order import ConnectionPackets
from ids_plugin.flowmeter.packets.packet_columns import TCP, UDP

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]


def _ports(*numbers: int) -> Bools:
    """(65536,) True at these ports."""
    return np.isin(np.arange(65536), numbers)


LIKELY_SERVERS = np.stack([_ports(*TCP_SERVERS), _ports(*UDP_SERVERS)])
NAMES, IS_LOGIN_PORT = _ports(*DNS_PORTS), _ports(*LOGIN_PORTS)
REVERSIBLE_DNS_PORTS = (53, 137)
"""DNS ports on both sides of servers that ask each other."""
IPV4_BROADCAST = np.uint64(0x0000FFFF_FFFFFFFF)


def _next_true(is_wanted: Bools) -> Int64s:
    """For every position the next one at or after it where `is_wanted` holds; n + 1 elements."""
    count = len(is_wanted)
    positions = np.append(np.flatnonzero(is_wanted), count)
    return np.repeat(positions, np.diff(positions, prepend=-1))


class StateTracker:
    """Rounds over the packets that can change a connection's state; afterwards the state after
    every packet.

    Attributes `state`, `previous_time`, `origin`, `is_closed` are pairs (side 0, side 1) of arrays
    over the packets.
    """

    def __init__(self, chunk: ConnectionPackets) -> None:
        self.chunk = chunk
        count = len(chunk.group)
        self.count = count
        self.begins_connection = np.zeros(count, dtype=bool)
        self.is_recorded = np.zeros(count, dtype=bool)
        self.is_flipped = np.zeros(count, dtype=bool)
        self.is_reversed = np.zeros(count, dtype=bool)
        self.recorded_state = np.zeros((count, 2), dtype=np.int8)
        self.recorded_previous_state = np.zeros((count, 2), dtype=np.int8)
        self.recorded_initial_sequence = np.zeros((count, 2), dtype=np.int64)
        self.recorded_is_closed = np.zeros((count, 2), dtype=bool)
        self.recorded_originator = np.zeros(count, dtype=np.int64)
        self.recorded_attempt_deadline = np.full(count, NEVER, dtype=np.int64)
        self.recorded_close_deadline = np.full(count, NEVER, dtype=np.int64)
        self.recorded_idle_timeout = np.zeros(count, dtype=np.int64)
        self.is_closing = np.zeros((count, 2), dtype=bool)
        self.dns_check_at = np.full(len(chunk.open_row), NEVER, dtype=np.int64)
        """when Zeek next looks at the DNS exchange of a group; when it found it over, if
        `opens_connection`
        """
        self.is_dns_ended = np.zeros(len(chunk.open_row), dtype=bool)
        self.final_initial_sequences: list[tuple[Int64s, Int64s]] = []
        """last packets of connections, and where their sides begin as far as is known by then"""

    def run(self) -> None:
        """Walks all connections of the chunk."""
        self._track_datagrams()
        self._track_tcp()
        self._fill_forward()

    def _likely_server(self, positions: Int64s) -> tuple[Bools, Bools]:
        """Whether source and target port of these packets are those of likely servers."""
        packets, order = self.chunk.packets, self.chunk.order[positions]
        is_udp = (packets.protocol[order] == UDP).astype(np.int64)
        has_ports = (packets.protocol[order] == TCP) | (is_udp == 1)
        return LIKELY_SERVERS[is_udp, packets.source_port[order]] & has_ports, LIKELY_SERVERS[
            is_udp, packets.destination_port[order]
        ] & has_ports

    def _track_datagrams(self) -> None:
        """UDP, ICMP and other protocols: a pause ends a connection, nothing else does but the
        end of a DNS exchange.
        """
        chunk = self.chunk
        is_datagram = chunk.protocol != TCP
        heads = np.flatnonzero(chunk.is_first_of_group & is_datagram)
        open_rows = chunk.open_row[chunk.group[heads]]
        is_open = open_rows >= 0
        previous_time = np.empty(self.count, dtype=np.int64)
        previous_time[1:] = chunk.time[:-1]
        previous_time[heads] = -NEVER
        previous_time[heads[is_open]] = chunk.table["last_time"][open_rows[is_open]]
        has_dns_port = NAMES[chunk.packets.source_port] | NAMES[chunk.packets.destination_port]
        is_dns = (chunk.protocol == UDP) & has_dns_port[chunk.order]
        self.begins_connection |= (
            is_datagram & ~is_dns & (chunk.arrival - previous_time >= DATAGRAM_IDLE_TIMEOUT_US)
        )
        is_dns_head = is_dns[heads]
        check_at = np.full(len(heads), NEVER, dtype=np.int64)
        check_at[is_open] = chunk.table["dns_check_at"][open_rows[is_open]]
        self._split_dns_exchanges(heads[is_dns_head], check_at[is_dns_head], previous_time)
        begin_positions = np.flatnonzero(self.begins_connection)
        source, target = self._likely_server(begin_positions)
        broadcast = chunk.packets.destination[1][chunk.order[begin_positions]] == IPV4_BROADCAST
        is_flipped = source & ~target & ~broadcast & (chunk.protocol[begin_positions] == UDP)
        self.is_flipped[begin_positions] = is_flipped
        self.recorded_originator[begin_positions] = np.where(
            is_flipped, 1 - chunk.side[begin_positions], chunk.side[begin_positions]
        )
        self._reverse_dns_answers(begin_positions[is_dns[begin_positions] & ~is_flipped])
        self.is_recorded |= is_datagram & (self.begins_connection | chunk.is_first_of_group)
        continued_heads = heads[~self.begins_connection[heads]]
        self.recorded_originator[continued_heads] = chunk.table["originator"][
            chunk.open_row[chunk.group[continued_heads]]
        ]
        self.recorded_idle_timeout[is_datagram] = DATAGRAM_IDLE_TIMEOUT_US

    def _reverse_dns_answers(self, positions: Int64s) -> None:
        """DNS that begins with an answer between two servers' ports: Zeek turns it round, the
        packet's count too.
        """
        chunk, packets = self.chunk, self.chunk.packets
        order = chunk.order[positions]
        between_servers = np.isin(packets.source_port[order], REVERSIBLE_DNS_PORTS) & np.isin(
            packets.destination_port[order], REVERSIBLE_DNS_PORTS
        )
        between_servers &= packets.captured_payload[order] > 2
        positions, order = positions[between_servers], order[between_servers]
        positions = positions[packets.data[packets.payload_offset[order] + 2] & 0x80 != 0]
        chunk.side[positions] = 1 - chunk.side[positions]
        self.recorded_originator[positions] = chunk.side[positions]
        self.is_reversed[positions] = True

    def _split_dns_exchanges(self, heads: Int64s, check_at: Int64s, previous_time: Int64s) -> None:
        """Splits DNS exchanges where one of Zeek's looks, every ten seconds, finds them still."""
        chunk = self.chunk
        if not len(heads):
            return
        arrival_count = np.int64(len(chunk.arrivals))
        group_arrival = chunk.group * arrival_count + chunk.capture_index
        group_ends = np.append(np.flatnonzero(chunk.is_first_of_group), self.count)
        end = group_ends[np.searchsorted(group_ends, heads, side="right")]
        is_new = check_at >= NEVER
        self.begins_connection[heads[is_new]] = True
        check_at = np.where(is_new, chunk.arrival[heads] + DNS_CHECK_INTERVAL_US, check_at)
        group = chunk.group[heads]
        active = np.arange(len(heads))
        while len(active):
            fired_by = np.searchsorted(chunk.arrivals, check_at[active])
            has_fired = fired_by < arrival_count
            self.dns_check_at[group[active[~has_fired]]] = check_at[active[~has_fired]]
            active, fired_by = active[has_fired], fired_by[has_fired]
            position = np.searchsorted(group_arrival, group[active] * arrival_count + fired_by)
            now = chunk.arrivals[fired_by]
            last_time = np.where(
                position > heads[active], chunk.time[position - 1], previous_time[heads[active]]
            )
            is_silent = now - last_time >= DNS_SILENCE_US
            has_more = position < end[active]
            self.dns_check_at[group[active[is_silent & ~has_more]]] = np.minimum(
                now[is_silent & ~has_more], NEVER - 1
            )
            reopens = is_silent & has_more
            self.begins_connection[position[reopens]] = True
            check_at[active[reopens]] = chunk.arrival[position[reopens]] + DNS_CHECK_INTERVAL_US
            check_at[active[~is_silent]] = now[~is_silent] + DNS_CHECK_INTERVAL_US
            self.is_dns_ended[group[active[is_silent & ~has_more]]] = True
            active = active[~is_silent | has_more]

    def _track_tcp(self) -> None:
        chunk = self.chunk
        is_tcp = chunk.protocol == TCP
        attempt_begin = np.flatnonzero(is_tcp & (chunk.is_first_of_group | self._new_attempts()))
        if not len(attempt_begin):
            return
        self.attempt_begin = attempt_begin
        group_ends = np.append(np.flatnonzero(chunk.is_first_of_group), self.count)
        self.attempt_end = np.minimum(
            np.append(attempt_begin[1:], self.count),
            group_ends[np.searchsorted(group_ends, attempt_begin, side="right")],
        )
        may_change = self._state_changes()
        self.next_candidate = (
            _next_true(may_change),
            _next_true(may_change | (chunk.side == 0)),
            _next_true(may_change | (chunk.side == 1)),
        )
        self.arrival_index = _ArrivalIndex(chunk.group, chunk.arrival)
        self.ack_positions = np.flatnonzero(
            (chunk.flags & ACK != 0) & is_tcp & ~chunk.has_bad_checksum
        )
        states = TcpStates(len(attempt_begin))
        self.last_visited = attempt_begin - 1
        open_rows = np.where(
            chunk.is_first_of_group[attempt_begin], chunk.open_row[chunk.group[attempt_begin]], -1
        )
        states.load(chunk.table, open_rows)
        states.is_login[open_rows >= 0] = self._goes_to_login_port(open_rows[open_rows >= 0])
        position = attempt_begin
        active = np.arange(len(attempt_begin))
        while len(active):
            self._advance_round(states, active, position)
            next_position = self._next_positions(states, active, position)
            continues = next_position < self.attempt_end[active]
            finished = active[~continues]
            self._guess_initial_sequences(states, finished, self.attempt_end[finished] - 1)
            self.final_initial_sequences.append(
                (self.attempt_end[finished] - 1, states.initial_sequence[finished])
            )
            active, position = active[continues], next_position[continues]

    def _new_attempts(self) -> Bools:
        """SYNs with another number than the SYN their side sent before: each opens a connection,
        whatever came between.

        But for one that the other side seems to have answered already: these two may only have
        changed places.
        """
        chunk = self.chunk
        is_syn = chunk.flags & (SYN | ACK) == SYN
        is_new_attempt = np.zeros(self.count, dtype=bool)
        candidates = np.flatnonzero(is_syn & ~chunk.is_first_of_group)
        for side in np.unique(chunk.side[candidates]).tolist():
            is_own = chunk.side == side
            own_candidates = candidates[is_own[candidates]]
            own_positions = np.append(0, np.flatnonzero(is_own))
            previous_syn = own_positions[
                np.searchsorted(own_positions, own_candidates - 1, side="right") - 1
            ]
            follows_own_syn = (
                (chunk.group[previous_syn] == chunk.group[own_candidates])
                & is_own[previous_syn]
                & is_syn[previous_syn]
            )
            is_new_attempt[own_candidates] = follows_own_syn & (
                chunk.sequence[previous_syn] != chunk.sequence[own_candidates]
            )
            is_new_attempt[own_candidates] &= (
                chunk.ack_number[own_candidates - 1]
                != (chunk.sequence[own_candidates] + 1) & 0xFFFFFFFF
            )
        return is_new_attempt

    def _state_changes(self) -> Bools:
        """Packets that may change the state of an established connection: not those that only
        repeat the one before.
        """
        chunk = self.chunk
        control_flags = chunk.flags & (SYN | FIN | RST)
        may_change = control_flags != 0
        repeats = (
            (control_flags[1:] == control_flags[:-1])
            & (chunk.side[1:] == chunk.side[:-1])
            & (control_flags[1:] & SYN == 0)
        )
        may_change[1:] &= ~repeats | chunk.is_first_of_group[1:]
        may_change[1:] |= chunk.arrival[1:] - chunk.time[:-1] >= TCP_IDLE_TIMEOUT_US
        changes: Bools = may_change
        return changes

    def _goes_to_login_port(self, rows: Int64s) -> Bools:
        """Whether connections open before the chunk go to a port where people log in."""
        table = self.chunk.table
        port = np.where(
            table["originator"][rows] == 0, table["high_port"][rows], table["low_port"][rows]
        )
        is_login: Bools = IS_LOGIN_PORT[port]
        return is_login

    def _next_positions(self, states: TcpStates, active: Int64s, position: Int64s) -> Int64s:
        """Where each connection's state can change next."""
        state = states.state[active]
        is_silent_low, is_silent_high = state[:, 0] == INACTIVE, state[:, 1] == INACTIVE
        after = position + 1
        next_position = self.next_candidate[0][after]
        next_position = np.where(is_silent_low, self.next_candidate[1][after], next_position)
        next_position = np.where(is_silent_high, self.next_candidate[2][after], next_position)
        next_position = np.where(is_silent_low & is_silent_high, after, next_position)
        deadline = np.where(
            is_silent_low | is_silent_high,
            np.minimum(states.close_deadline[active], states.attempt_deadline[active]),
            states.close_deadline[active],
        )
        has_deadline = np.flatnonzero(deadline < NEVER)
        expiry_position = self.arrival_index.first_at_or_after(
            self.chunk.group[position[has_deadline]], deadline[has_deadline]
        )
        next_position[has_deadline] = np.minimum(
            next_position[has_deadline], np.maximum(expiry_position, after[has_deadline])
        )
        return next_position

    def _advance_round(self, states: TcpStates, active: Int64s, position: Int64s) -> None:
        """One packet of every active connection."""
        chunk = self.chunk
        flags, side = chunk.flags[position], chunk.side[position]
        packets = RoundPackets(
            index=active,
            side=side,
            time=chunk.time[position],
            arrival=chunk.arrival[position],
            syn=flags & SYN != 0,
            fin=flags & FIN != 0,
            rst=flags & RST != 0,
            ack=flags & ACK != 0,
            sequence=chunk.sequence[position],
            ack_number=chunk.ack_number[position],
            payload_bytes=chunk.payload_bytes[position],
        )
        continues = position > self.attempt_begin[active]
        continues &= ~states.is_closed[active].all(axis=1)
        states.last_time[active[continues]] = chunk.time[position[continues] - 1]
        syn_rows = np.flatnonzero(packets.syn)
        self._guess_initial_sequences(states, active[syn_rows], position[syn_rows] - 1)
        self.last_visited[active] = position
        is_new = states.opens_connection(packets)
        if is_new.any():
            self._begin_connections(states, packets, is_new, position[is_new])
        is_measured = ~chunk.has_bad_checksum[position]
        packets = packets if is_measured.all() else packets.keep(is_measured)
        is_closing = states.advance(packets, self.is_flipped, position[is_measured])
        self.is_closing[position[is_measured][is_closing], packets.side[is_closing]] = True
        self.is_recorded[position] = True
        self.recorded_state[position] = states.state[active]
        self.recorded_previous_state[position] = states.previous_state[active]
        self.recorded_initial_sequence[position] = states.initial_sequence[active]
        self.recorded_is_closed[position] = states.is_closed[active]
        self.recorded_originator[position] = states.originator[active]
        self.recorded_attempt_deadline[position] = states.attempt_deadline[active]
        self.recorded_close_deadline[position] = states.close_deadline[active]
        self.recorded_idle_timeout[position] = states.idle_timeout[active]

    def _guess_initial_sequences(self, states: TcpStates, index: Int64s, position: Int64s) -> None:
        """Where a silent side begins, by its peer's last acknowledgement up to `position`;
        rounds pass these over.
        """
        last_ack = np.searchsorted(self.ack_positions, position, side="right") - 1
        index, last_ack = index[last_ack >= 0], self.ack_positions[last_ack[last_ack >= 0]]
        is_unseen = last_ack > self.last_visited[index]
        index, last_ack = index[is_unseen], last_ack[is_unseen]
        side = 1 - self.chunk.side[last_ack]
        is_inactive = states.state[index, side] == INACTIVE
        states.initial_sequence[index[is_inactive], side[is_inactive]] = (
            self.chunk.ack_number[last_ack[is_inactive]] - 1
        ) & 0xFFFFFFFF

    def _begin_connections(
        self, states: TcpStates, packets: RoundPackets, is_new: Bools, position: Int64s
    ) -> None:
        """New connections at these packets: who is the originator, and how long may it be idle."""
        index, side = packets.index[is_new], packets.side[is_new]
        self.begins_connection[position] = True
        source_is_server, destination_is_server = self._likely_server(position)
        is_plain_syn = packets.syn[is_new] & ~packets.ack[is_new]
        all_packets, order = self.chunk.packets, self.chunk.order[position]
        has_lower_source_port = all_packets.source_port[order] < all_packets.destination_port[order]
        is_flipped = (
            ~is_plain_syn
            & source_is_server
            & (~destination_is_server | (~packets.syn[is_new] & has_lower_source_port))
        )
        self.is_flipped[position] = is_flipped
        originator = np.where(is_flipped, 1 - side, side)
        responder_port = np.where(
            is_flipped, all_packets.source_port[order], all_packets.destination_port[order]
        )
        states.begin_connections(index, originator, packets.time[is_new])
        states.is_login[index] = IS_LOGIN_PORT[responder_port]

    def _fill_forward(self) -> None:
        """Carries the state after the last change to every packet behind it."""
        latest = np.maximum.accumulate(np.where(self.is_recorded, np.arange(self.count), 0))
        self.latest_recorded = latest
        self.state = self.recorded_state[latest, 0], self.recorded_state[latest, 1]
        self.previous_state = (
            self.recorded_previous_state[latest, 0],
            self.recorded_previous_state[latest, 1],
        )
        self.initial_sequence = (
            self.recorded_initial_sequence[latest, 0],
            self.recorded_initial_sequence[latest, 1],
        )
        for last, start in self.final_initial_sequences:
            self.initial_sequence[0][last], self.initial_sequence[1][last] = start.T
        self.is_closed = self.recorded_is_closed[latest, 0], self.recorded_is_closed[latest, 1]
        self.originator = self.recorded_originator[latest]
        self.attempt_deadline = self.recorded_attempt_deadline[latest]
        self.close_deadline = self.recorded_close_deadline[latest]
        self.idle_timeout = self.recorded_idle_timeout[latest]


class _ArrivalIndex:
    """Finds the first packet of a group at or after a time."""

    def __init__(self, group: Int64s, now: Int64s) -> None:
        self.origin = int(now.min())
        self.span = min(int(now.max()) - self.origin + 2, (1 << 62) // (int(group[-1]) + 1))
        self.key = group * self.span + np.minimum(now - self.origin, self.span - 1)

    def first_at_or_after(self, group: Int64s, time: Int64s) -> Int64s:
        """Positions; that of the group's end where there is none."""
        return np.searchsorted(
            self.key, group * self.span + np.clip(time - self.origin, 0, self.span - 1)
        )


@dataclass
class RoundPackets:
    """One packet of each of some connections."""

    index: Int64s
    side: Int64s
    time: Int64s
    arrival: Int64s
    syn: Bools
    fin: Bools
    rst: Bools
    ack: Bools
    sequence: Int64s
    ack_number: Int64s
    payload_bytes: Int64s

    def keep(self, mask: Bools) -> RoundPackets:
        """The steps of the mask."""
        return RoundPackets(
            **{name: getattr(self, name)[mask] for name in self.__dataclass_fields__}
        )


class TcpStates:
    """State of the TCP connections under way, one a group of packets."""

    def __init__(self, count: int) -> None:
        self.exists = np.zeros(count, dtype=bool)
        self.state = np.zeros((count, 2), dtype=np.int8)
        self.previous_state = np.zeros((count, 2), dtype=np.int8)
        self.initial_sequence = np.zeros((count, 2), dtype=np.int64)
        self.is_closed = np.zeros((count, 2), dtype=bool)
        self.originator = np.zeros(count, dtype=np.int64)
        self.last_time = np.zeros(count, dtype=np.int64)
        self.attempt_deadline = np.full(count, NEVER, dtype=np.int64)
        self.close_deadline = np.full(count, NEVER, dtype=np.int64)
        self.idle_timeout = np.full(count, TCP_IDLE_TIMEOUT_US, dtype=np.int64)
        self.is_login = np.zeros(count, dtype=bool)

    def load(self, table: Table, rows: Int64s) -> None:
        """Takes over connections open before the chunk; `rows` is -1 where there is none."""
        is_open = rows >= 0
        rows = rows[is_open]
        self.exists[is_open] = True
        self.state[is_open] = table["state"][rows]
        self.previous_state[is_open] = table["previous_state"][rows]
        self.initial_sequence[is_open] = table["initial_sequence"][rows]
        self.is_closed[is_open] = table["is_closed"][rows] != 0
        self.originator[is_open] = table["originator"][rows]
        self.last_time[is_open] = table["last_time"][rows]
        self.attempt_deadline[is_open] = table["attempt_until"][rows]
        self.close_deadline[is_open] = table["close_at"][rows]
        self.idle_timeout[is_open] = table["idle_timeout"][rows]

    def begin_connections(self, index: Int64s, originator: Int64s, time: Int64s) -> None:
        """Starts new connections."""
        self.exists[index] = True
        self.state[index] = INACTIVE
        self.previous_state[index] = INACTIVE
        self.initial_sequence[index] = 0
        self.is_closed[index] = False
        self.originator[index] = originator
        self.last_time[index] = time
        self.attempt_deadline[index] = NEVER
        self.close_deadline[index] = NEVER
        self.idle_timeout[index] = TCP_IDLE_TIMEOUT_US

    def opens_connection(self, packets: RoundPackets) -> Bools:
        """Whether the packet opens a new connection: none yet, timed out, or its ports are used
        again.
        """
        index = packets.index
        originator = self.originator[index]
        originator_state = self.state[index, originator]
        responder_state = self.state[index, 1 - originator]
        is_unanswered = ((originator_state == SYN_SENT) | (originator_state == SYN_ACK_SENT)) & (
            responder_state == INACTIVE
        )
        has_timed_out = is_unanswered & (self.attempt_deadline[index] <= packets.arrival)
        has_timed_out |= self.close_deadline[index] <= packets.arrival
        has_timed_out |= self.last_time[index] + self.idle_timeout[index] <= packets.arrival
        both_closed = self.is_closed[index].all(axis=1)
        syn_sender = np.where(packets.ack, 1 - originator, originator)
        may_reopen = packets.syn & (~packets.ack | (originator_state == INACTIVE))
        repeats_syn = packets.sequence == self.initial_sequence[index, syn_sender]
        crosses_syn = (
            ~packets.ack & (originator_state == SYN_ACK_SENT) & (responder_state == INACTIVE)
        )
        crosses_syn &= packets.sequence == self.initial_sequence[index, 1 - originator]
        opens_connection: Bools = (
            ~self.exists[index]
            | has_timed_out
            | (may_reopen & (both_closed | ~(repeats_syn | crosses_syn)))
        )
        return opens_connection

    def advance(self, packets: RoundPackets, is_flipped: Bools, position: Int64s) -> Bools:
        """Sequence starts, last time and the endpoint states as Zeek's TCP session moves them;
        which close.
        """
        index, side, peer = packets.index, packets.side, 1 - packets.side
        own_state, peer_state = self.state[index, side], self.state[index, peer]
        self._update_initial_sequences(packets, own_state, peer_state)
        is_open = ~self.is_closed[index].all(axis=1)
        self.last_time[index[is_open]] = packets.time[is_open]
        new_own_state, new_peer_state, is_closing = self._first_packets(
            packets, own_state, peer_state, is_flipped, position
        )
        has_sent_syn = (own_state == SYN_SENT) | (own_state == SYN_ACK_SENT)
        new_own_state = np.where(has_sent_syn & packets.fin, CLOSED, new_own_state)
        new_own_state = np.where(has_sent_syn & packets.rst, RESET, new_own_state)
        is_closing |= has_sent_syn & (packets.fin | packets.rst)
        is_flowing = (own_state == ESTABLISHED) | (own_state == PARTIAL)
        is_late_syn = (own_state == PARTIAL) & (peer_state == INACTIVE) & packets.syn & ~packets.ack
        new_own_state = np.where(is_late_syn, SYN_SENT, new_own_state)
        is_orderly_close = is_flowing & packets.fin & ~packets.rst
        new_own_state = np.where(is_orderly_close, CLOSED, new_own_state)
        is_fin_after_reset = (
            is_orderly_close & (peer_state == RESET) & (self.previous_state[index, peer] == CLOSED)
        )
        new_peer_state = np.where(is_fin_after_reset, CLOSED, new_peer_state)
        new_own_state = np.where(is_flowing & packets.rst, RESET, new_own_state)
        is_closing |= is_orderly_close | is_flowing & packets.rst
        is_reset_after_close = (own_state == CLOSED) & packets.rst & (peer_state != CLOSED)
        new_own_state = np.where(is_reset_after_close, RESET, new_own_state)
        is_closing |= is_reset_after_close
        self._set_state(index, side, own_state, new_own_state)
        self._set_state(index, peer, peer_state, new_peer_state)
        self._schedule_close(packets, is_closing)
        return is_closing

    def _update_initial_sequences(
        self, packets: RoundPackets, own_state: Int8s, peer_state: Int8s
    ) -> None:
        index, side, peer = packets.index, packets.side, 1 - packets.side
        may_restart = (
            (own_state == ESTABLISHED)
            | (own_state == PARTIAL)
            | (own_state == SYN_SENT)
            | (own_state == SYN_ACK_SENT)
        )
        may_restart |= (own_state == RESET) & (self.previous_state[index, side] == INACTIVE)
        restarts = (own_state == INACTIVE) | may_restart & packets.syn
        first_sequence = np.where(
            packets.syn, packets.sequence, (packets.sequence - 1) & 0xFFFFFFFF
        )
        self.initial_sequence[index[restarts], side[restarts]] = first_sequence[restarts]
        is_guessed = packets.ack & (peer_state == INACTIVE)
        self.initial_sequence[index[is_guessed], peer[is_guessed]] = (
            packets.ack_number[is_guessed] - 1
        ) & 0xFFFFFFFF

    def _first_packets(
        self,
        packets: RoundPackets,
        own_state: Int8s,
        peer_state: Int8s,
        is_flipped: Bools,
        position: Int64s,
    ) -> tuple[Int8s, Int8s, Bools]:
        """First packets of a side."""
        index, side = packets.index, packets.side
        is_first = own_state == INACTIVE
        is_originator = side == self.originator[index]
        opens = is_first & packets.syn & is_originator
        new_own_state = np.where(opens, np.where(packets.ack, SYN_ACK_SENT, SYN_SENT), own_state)
        self.attempt_deadline[index[opens]] = packets.time[opens] + ATTEMPT_TIMEOUT_US
        answers = is_first & packets.syn & ~is_originator
        reversal = answers & ~packets.ack & (peer_state == SYN_ACK_SENT)
        self.originator[index[reversal]] = side[reversal]
        is_flipped[position[reversal]] = True
        new_peer_state = np.where(
            reversal | answers & (peer_state == SYN_SENT), ESTABLISHED, peer_state
        )
        new_own_state = np.where(answers, ESTABLISHED, new_own_state)
        is_login_session = answers & (new_peer_state == ESTABLISHED) & self.is_login[index]
        self.idle_timeout[index[is_login_session]] = LOGIN_IDLE_TIMEOUT_US
        new_own_state = np.where(is_first & packets.fin, CLOSED, new_own_state)
        new_own_state = np.where(is_first & packets.rst, RESET, new_own_state)
        is_closing = is_first & (packets.fin | packets.rst)
        has_no_control_flag = is_first & ~(packets.syn | packets.fin | packets.rst)
        is_early = ~is_originator & (packets.payload_bytes == 0) & (peer_state == SYN_SENT)
        joins = packets.ack & (peer_state == ESTABLISHED)
        new_own_state = np.where(
            has_no_control_flag & ~is_early, np.where(joins, ESTABLISHED, PARTIAL), new_own_state
        )
        return new_own_state.astype(np.int8), new_peer_state.astype(np.int8), is_closing

    def _set_state(self, index: Int64s, side: Int64s, old_state: Int8s, new_state: Int8s) -> None:
        has_changed = old_state != new_state
        self.previous_state[index[has_changed], side[has_changed]] = old_state[has_changed]
        self.state[index[has_changed], side[has_changed]] = new_state[has_changed]

    def _schedule_close(self, packets: RoundPackets, is_closing: Bools) -> None:
        """A side is done; both done, or one by reset or alone: the connection ends soon."""
        is_closing = is_closing & ~self.is_closed[packets.index, packets.side]
        index, side = packets.index[is_closing], packets.side[is_closing]
        self.is_closed[index, side] = True
        is_complete = (
            (self.state[index, side] == RESET)
            | self.is_closed[index, 1 - side]
            | (self.state[index, 1 - side] == INACTIVE)
        )
        self.close_deadline[index[is_complete]] = (
            packets.arrival[is_closing][is_complete] + CLOSE_DELAY_US
        )
