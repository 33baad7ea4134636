"""Packets → connections with Zeek's meaning of every column.

The behaviour is that of Zeek 8:
https://docs.zeek.org/en/v8.0.8/scripts/base/protocols/conn/main.zeek.html

The meter never looks at one packet after the other. It takes a chunk of packets (some ten thousand)
as columns, and every step works on all packets of the chunk at once:

1. `packet_order` sorts the packets by connection and time. All packets of a pair of endpoints stand
   one behind the other, and are a group.
2. `uneventful_packets` replaces long runs of ordinary data packets by at most three that stand for
   them.
3. `tcp_state` finds the packets that can change a connection's state, and handles one of each group
   per round. After it the state of both sides is known at every packet, and every group is split
   into connections.
4. `tcp_stream` computes what was sent, received and acknowledged before each packet by running
   maxima over the packets of a connection, and from these the gaps and the history letters.
5. `protocol_detection` compares the first payloads of both sides with signatures.

The results go into the `connection_table`, one row a connection. Connections that stay open are in
it when the next chunk comes, so the cuts between chunks leave no trace in the flows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import (
    ADDRESS_HALVES,
    DNS_CHECK_INTERVAL_US,
    DNS_SILENCE_US,
    INACTIVE,
    NEVER,
    SECOND_US,
    SYN_ACK_SENT,
    SYN_SENT,
    Table,
)
from ids_plugin.flowmeter.ftp_data import (
    FTP_ANNOUNCEMENTS,
    FTP_CONTROL,
    Endpoint,
    announced_endpoint,
)
from ids_plugin.flowmeter.packet_order import ConnectionPackets
from ids_plugin.flowmeter.packets.packet_columns import (
    TCP,
    UDP,
    Packets,
    payload_beginnings,
)
from ids_plugin.flowmeter.payload_signatures import (
    HEAD_WIDTH,
    INSPECTED_PACKETS,
    INSPECTED_PACKETS_TALKATIVE,
    IS_TALKATIVE_PORT,
    NEEDS_WHOLE_PAYLOAD,
    SIGNATURE_BIT,
    WHOLE_PAYLOAD_BYTES,
    matching_signatures,
    possible_signatures,
    whole_payload_signatures,
)
from ids_plugin.flowmeter.tcp_state import StateTracker
from ids_plugin.flowmeter.tcp_stream import Reassembler, TcpStreams, history_letters
from ids_plugin.flowmeter.tunnel_parents import TunnelParents, note_tunnels
from ids_plugin.flowmeter.uneventful_packets import without_uneventful_runs

Int64s = npt.NDArray[np.int64]

UInt64s = npt.NDArray[np.uint64]

Bools = npt.NDArray[np.bool_]

Bytes = npt.NDArray[np.uint8]

ANNOUNCEMENT_TIMEOUT_US = 300 * SECOND_US
"""How long a data connection that FTP announced is waited for."""

MAX_ANNOUNCEMENTS = 10_000

MAX_ENDED_AT_ONCE = 1 << 15
"""Connections given out at once at the end."""

MAX_OPEN_CONNECTIONS = 100_000
"""Connections kept open between chunks: about 45 MB."""


@dataclass
class EndedConnections:
    """Connections that ended, in the order in which they did."""

    table: Table
    history_letters: Bytes
    """history letters of all, one connection behind the other"""
    history_ends: Int64s
    """(n + 1) where each connection's letters begin, and the last's end"""
    parents: TunnelParents = field(default_factory=dict)
    """seeds of further tunnels, by row"""

    def history(self, row: int) -> str:
        """The history of one connection."""
        return (
            self.history_letters[self.history_ends[row] : self.history_ends[row + 1]]
            .tobytes()
            .decode("ascii")
        )


class Meter:
    """Takes packets chunk by chunk and gives out connections when their end or timeout is reached
    in capture time.

    At most `most_open` connections are kept between chunks; beyond that the longest silent are
    given out as they are and counted in `given_out_early`.
    """

    def __init__(self, most_open: int = MAX_OPEN_CONNECTIONS) -> None:
        self.most_open = most_open
        self.given_out_early = 0
        self.table = Table()
        self.last_arrival = -int(NEVER)
        self.histories = _Histories()
        self.reassemblers: dict[tuple[int, int], Reassembler] = {}
        self.announcements: dict[Endpoint, int] = {}
        self.parents: TunnelParents = {}

    def add(self, packets: Packets) -> EndedConnections:
        """Measures the packets of one chunk; the connections that have ended by then."""
        if not len(packets.arrivals):
            return EndedConnections(
                Table(), np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
            )
        arrivals = packets.arrivals
        if arrivals[0] < self.last_arrival or (arrivals[1:] < arrivals[:-1]).any():
            arrivals = np.maximum.accumulate(np.maximum(arrivals, self.last_arrival))
        self.last_arrival = int(arrivals[-1])
        table = self.table
        has_no_packets = table.live & (table["dns_check_at"] < NEVER)
        ended_at = np.full(len(table), NEVER, dtype=np.int64)
        if len(packets):
            ended_at = self._measure(packets, arrivals, has_no_packets)
        _check_dns_exchanges(table, np.flatnonzero(has_no_packets), arrivals, ended_at)
        due_at = np.minimum(ended_at, _deadline(table))
        return self._take_ended(table.live & (due_at <= self.last_arrival), due_at)

    def _measure(self, packets: Packets, arrivals: Int64s, has_no_packets: Bools) -> Int64s:
        """Measures packets; when connections of the table ended. Those that have packets are
        `has_no_packets` no more.
        """
        chunk = ConnectionPackets(self.table, packets, arrivals)
        has_no_packets[chunk.open_rows] = False
        measured = _ChunkMeasurement(chunk, self.reassemblers)
        note_tunnels(chunk, self.parents)
        self.histories.append(measured.letters)
        self.announcements |= measured.announcements
        return measured.ended_at

    def still_open(self, min_duration_us: int) -> EndedConnections:
        """The TCP connections under way that have lasted at least `min_duration_us` µs, as they
        are by now.
        """
        table = self.table
        lasted = table["last_time"] - table["first_time"] >= min_duration_us
        rows = np.flatnonzero(table.live & lasted & (table["protocol"] == TCP))
        rows = rows[np.argsort(table["first_time"][rows], kind="stable")]
        parents = {
            index: self.parents[row]
            for index, row in enumerate(rows.tolist())
            if row in self.parents
        }
        histories = self.histories.take(rows, len(table))
        return EndedConnections(table.take(rows), *histories, parents)

    def finish(self) -> Iterator[EndedConnections]:
        """The connections still open at the end of the input, in order of their first packets,
        AT_ONCE at a time.
        """
        rows = np.flatnonzero(self.table.live)
        first_times = self.table["first_time"].copy()
        rows = rows[np.argsort(first_times[rows], kind="stable")]
        for start in range(0, len(rows), MAX_ENDED_AT_ONCE):
            is_over = np.zeros(len(self.table), dtype=bool)
            is_over[rows[start : start + MAX_ENDED_AT_ONCE]] = True
            yield self._take_ended(is_over, first_times)

    def begin_epoch(self) -> Iterator[EndedConnections]:
        """Gives out what is open; the packets that come may be earlier than those before."""
        yield from self.finish()
        self.last_arrival = -int(NEVER)
        self.announcements.clear()

    def _take_ended(self, is_over: Bools, ends: Int64s) -> EndedConnections:
        table = self.table
        self._end_longest_silent(is_over)
        rows = np.flatnonzero(is_over)
        rows = rows[np.argsort(ends[rows], kind="stable")]
        histories = self.histories.take(rows, len(table))
        self.histories.forget(is_over)
        for key in [key for key in self.reassemblers if is_over[key[0]]]:
            del self.reassemblers[key]
        finished = table.take(rows)
        table.release(rows)
        self._mark_ftp_data_connections(finished)
        index_of_row = (
            {row: index for index, row in enumerate(rows.tolist())} if self.parents else {}
        )
        parents = {
            index_of_row[row]: self.parents.pop(row)
            for row in [row for row in self.parents if row in index_of_row]
        }
        return EndedConnections(finished, *histories, parents)

    def _end_longest_silent(self, is_over: Bools) -> None:
        """Marks the longest silent connections as over where more than `most_open` would stay."""
        open_rows = np.flatnonzero(self.table.live & ~is_over)
        excess = len(open_rows) - self.most_open
        if excess > 0:
            oldest = np.argpartition(self.table["last_time"][open_rows], excess - 1)[:excess]
            is_over[open_rows[oldest]] = True
            self.given_out_early += excess

    def _mark_ftp_data_connections(self, table: Table) -> None:
        """Marks the data connections that FTP announced; forgets announcements that are too old."""
        if not self.announcements:
            return
        is_swapped = table["originator"] == 1
        port = np.where(is_swapped, table["low_port"], table["high_port"])
        candidates = np.flatnonzero(
            np.isin(port, [endpoint.port for endpoint in self.announcements])
            & (table["protocol"] == TCP)
        )
        for row in candidates.tolist():
            side = "low" if is_swapped[row] else "high"
            high, low = table.address(f"{side}_high"), table.address(f"{side}_low")
            endpoint = Endpoint(int(high[row]), int(low[row]), int(port[row]))
            if (
                0
                <= table["first_time"][row] - self.announcements.get(endpoint, NEVER)
                <= ANNOUNCEMENT_TIMEOUT_US
            ):
                table["signatures"][row, 0] |= SIGNATURE_BIT["ftp-data"]
        if len(self.announcements) > MAX_ANNOUNCEMENTS:
            newest = sorted(self.announcements.items(), key=lambda item: item[1])[
                -MAX_ANNOUNCEMENTS // 2 :
            ]
            self.announcements = dict(newest)


def _deadline(table: Table) -> Int64s:
    """When each connection would time out, µs."""
    originator = table["originator"]
    rows = np.arange(len(table))
    state = table["state"]
    originator_state = state[rows, originator]
    is_unanswered = ((originator_state == SYN_SENT) | (originator_state == SYN_ACK_SENT)) & (
        state[rows, 1 - originator] == INACTIVE
    )
    attempt_deadline = np.where(
        is_unanswered & (table["protocol"] == TCP), table["attempt_until"], NEVER
    )
    deadline: Int64s = np.minimum(
        np.minimum(attempt_deadline, table["close_at"]), table["last_time"] + table["idle_timeout"]
    )
    return deadline


def _check_dns_exchanges(table: Table, rows: Int64s, arrivals: Int64s, ended_at: Int64s) -> None:
    """Zeek's looks at DNS exchanges that have no packet in this chunk."""
    last_time = table["last_time"]
    while len(rows):
        fired_by = np.searchsorted(arrivals, table["dns_check_at"][rows])
        has_fired = fired_by < len(arrivals)
        rows, now = rows[has_fired], arrivals[fired_by[has_fired]]
        is_silent = now - last_time[rows] >= DNS_SILENCE_US
        ended_at[rows[is_silent]] = now[is_silent]
        rows, now = rows[~is_silent], now[~is_silent]
        table["dns_check_at"][rows] = now + DNS_CHECK_INTERVAL_US


class _Histories:
    """History letters of the open connections, in order of time."""

    def __init__(self) -> None:
        self.table_row = np.zeros(0, dtype=np.int64)
        self.letter = np.zeros(0, dtype=np.uint8)

    def append(self, added: tuple[Int64s, Bytes]) -> None:
        self.table_row = np.concatenate([self.table_row, added[0]])
        self.letter = np.concatenate([self.letter, added[1]])

    def take(self, rows: Int64s, count: int) -> tuple[Bytes, Int64s]:
        """Letters of `rows`, one behind the other, and where each begins; `count` is the rows of
        the table.
        """
        index_of_row = np.full(count, -1, dtype=np.int64)
        index_of_row[rows] = np.arange(len(rows))
        wanted = np.flatnonzero(index_of_row[self.table_row] >= 0)
        index = index_of_row[self.table_row[wanted]]
        order = np.argsort(
            index.astype(np.uint16) if len(rows) <= 1 << 16 else index, kind="stable"
        )
        ends = np.concatenate([[0], np.cumsum(np.bincount(index, minlength=len(rows)))])
        return self.letter[wanted[order]], ends.astype(np.int64)

    def forget(self, is_over: Bools) -> None:
        """Drops the letters of connections that are over."""
        is_open = ~is_over[self.table_row]
        self.table_row, self.letter = self.table_row[is_open], self.letter[is_open]


class _ChunkMeasurement:
    """One chunk's packets measured; the table is up to date afterwards.

    Attributes: `ended_at` (when each connection of the table ended, NEVER if it is open),
    `announcements` (endpoints FTP spoke of), `history_letters` (rows and letters to add to the
    histories).
    """

    def __init__(
        self, chunk: ConnectionPackets, reassemblers: dict[tuple[int, int], Reassembler]
    ) -> None:
        without_runs, positions = without_uneventful_runs(chunk)
        self.tracker = StateTracker(without_runs)
        self.tracker.run()
        without_runs.split_connections(self.tracker.begins_connection)
        chunk.adopt_connections(without_runs, positions, self.tracker.is_reversed)
        self.chunk = without_runs
        self.ended_at = self._replacement_times()
        self._write_endpoints()
        streams = TcpStreams(without_runs, self.tracker, reassemblers)
        self.letters = history_letters(streams)
        self._write_states(streams.is_after_close)
        self.chunk = chunk
        self._count_packets()
        self._inspect_payloads()
        self._find_announcements()

    def _inspect_payloads(self) -> None:
        """What the first payloads of each side look like."""
        table, packets = self.chunk.table, self.chunk.packets
        chunk, protocol = self.chunk, self.chunk.protocol
        is_talkative = (
            IS_TALKATIVE_PORT[table["low_port"][chunk.table_row]]
            | IS_TALKATIVE_PORT[table["high_port"][chunk.table_row]]
        )
        remaining = (
            np.where(is_talkative, INSPECTED_PACKETS_TALKATIVE, INSPECTED_PACKETS)[:, None]
            - table["inspected_packets"][chunk.table_row]
        )
        has_data = (chunk.payload_bytes > 0) & ((protocol == TCP) | (protocol == UDP))
        is_chosen = np.zeros(len(has_data), dtype=bool)
        for side in (0, 1):
            is_own = has_data & (chunk.side == side)
            rank = np.cumsum(is_own.astype(np.int64))
            rank_before = rank[chunk.connection_start] - is_own[chunk.connection_start]
            last_rank = np.minimum(rank_before + remaining[:, side], rank[chunk.connection_end - 1])
            table.of("inspected_packets", side)[chunk.table_row] += last_rank - rank_before
            is_chosen |= is_own & (rank <= last_rank[chunk.connection])
        position = np.flatnonzero(is_chosen)
        row, packet = chunk.table_row[chunk.connection[position]], chunk.order[position]
        port = np.where(
            table["originator"][row] == 0, table["high_port"][row], table["low_port"][row]
        )
        first_bytes = packets.data[
            np.minimum(packets.payload_offset[packet], len(packets.data) - 1)
        ]
        possible = possible_signatures(
            first_bytes, packets.captured_payload[packet], protocol[position], port
        )
        some = np.flatnonzero(possible)
        position, row, packet, port, possible = (
            position[some],
            row[some],
            packet[some],
            port[some],
            possible[some],
        )
        length = packets.captured_payload[packet]
        signatures = matching_signatures(
            payload_beginnings(packets.data, packets.payload_offset[packet], length, HEAD_WIDTH),
            length,
            possible,
            port,
        )
        some = np.flatnonzero(signatures)
        row, packet, signatures = row[some], packet[some], signatures[some]
        sender_side = chunk.side[position[some]]
        np.bitwise_or.at(table["signatures"], (row, sender_side), signatures)
        self._inspect_whole_payloads(row, sender_side, packet, signatures)

    def _inspect_whole_payloads(
        self, row: Int64s, side: Int64s, packet: Int64s, signatures: Int64s
    ) -> None:
        """Request lines and authentication inside SMB, packet by packet: these are few."""
        table_signatures = self.chunk.table["signatures"]
        tcp = self.chunk.table["protocol"][row] == TCP
        for index in np.flatnonzero(tcp & (signatures & NEEDS_WHOLE_PAYLOAD != 0)).tolist():
            table_signatures[row[index], side[index]] |= whole_payload_signatures(
                self._payload(int(packet[index])), int(signatures[index])
            )

    def _payload(self, packet: int) -> bytes:
        """Beginning of a packet's payload."""
        packets = self.chunk.packets
        start = int(packets.payload_offset[packet])
        return packets.data[
            start : start + min(int(packets.captured_payload[packet]), WHOLE_PAYLOAD_BYTES)
        ].tobytes()

    def _find_announcements(self) -> None:
        """Endpoints of data connections that FTP control connections speak of."""
        packets = self.chunk.packets
        is_control = (packets.source_port == FTP_CONTROL) | (
            packets.destination_port == FTP_CONTROL
        )
        is_control &= (packets.protocol == TCP) & (packets.captured_payload > 8)
        self.announcements: dict[Endpoint, int] = {}
        for packet in np.flatnonzero(is_control).tolist():
            payload = self._payload(packet)
            sender = int(packets.source[0][packet]), int(packets.source[1][packet])
            endpoint = (
                announced_endpoint(payload, sender)
                if payload.startswith(FTP_ANNOUNCEMENTS)
                else None
            )
            if endpoint:
                self.announcements[endpoint] = int(packets.time[packet])

    def _replacement_times(self) -> Int64s:
        """When connections gave way to another of the same endpoints; NEVER for the rest of the
        table.
        """
        chunk = self.chunk
        ended_at = np.full(len(chunk.table), NEVER, dtype=np.int64)
        group = chunk.group[chunk.connection_start]
        followed = np.flatnonzero(chunk.is_new[1:] & (group[1:] == group[:-1]))
        ended_at[chunk.table_row[followed]] = chunk.arrival[chunk.connection_start[followed + 1]]
        heads = (
            chunk.is_first_of_group[chunk.connection_start]
            & chunk.is_new
            & (chunk.open_row[group] >= 0)
        )
        ended_at[chunk.open_row[group[heads]]] = chunk.arrival[chunk.connection_start[heads]]
        return ended_at

    def _write_endpoints(self) -> None:
        """Addresses, ports and first packet of the new connections."""
        packet, rows = (
            self.chunk.order[self.chunk.connection_start[self.chunk.is_new]],
            self.chunk.table_row[self.chunk.is_new],
        )
        table, packets = self.chunk.table, self.chunk.packets
        table.hash[rows] = self.chunk.key[packet]
        for name, address in zip(ADDRESS_HALVES, (*self.chunk.low, *self.chunk.high), strict=True):
            table.address(name)[rows] = address[packet]
        columns = {
            "low_port": self.chunk.ports[0],
            "high_port": self.chunk.ports[1],
            "protocol": packets.protocol,
        }
        columns |= {
            "first_time": packets.time,
            "last_time": packets.time,
            "first_packet": packets.number,
        }
        for column, value in columns.items():
            table[column][rows] = value[packet]
        for column in ("attempt_until", "close_at", "dns_check_at"):
            table[column][rows] = NEVER

    def _count_packets(self) -> None:
        """Packets, IP bytes and payload of both sides."""
        chunk, last_positions = self.chunk, self.chunk.connection_end - 1
        is_counted = (~chunk.has_bad_checksum).astype(np.int64)
        payload_sizes = chunk.packets.ip_bytes[chunk.order] * is_counted
        for name, value in (
            ("packets", is_counted),
            ("ip_bytes", payload_sizes),
            ("payload_bytes", chunk.payload_bytes),
        ):
            both_sides, high_side = (
                np.diff(np.cumsum(part)[last_positions], prepend=0)
                for part in (value, np.where(chunk.side == 1, value, 0))
            )
            for side, total in ((0, both_sides - high_side), (1, high_side)):
                chunk.table.of(name, side)[chunk.table_row] += total

    def _write_states(self, is_after_close: Bools) -> None:
        """What the walk left at each connection's last packet."""
        last_positions, row, table, walk = (
            self.chunk.connection_end - 1,
            self.chunk.table_row,
            self.chunk.table,
            self.tracker,
        )
        for side in (0, 1):
            table.of("state", side)[row] = walk.state[side][last_positions]
            table.of("previous_state", side)[row] = walk.previous_state[side][last_positions]
            table.of("initial_sequence", side)[row] = walk.initial_sequence[side][last_positions]
        table["originator"][row] = walk.originator[last_positions]
        table["attempt_until"][row] = walk.attempt_deadline[last_positions]
        table["idle_timeout"][row] = walk.idle_timeout[last_positions]
        position = np.where(is_after_close, -1, np.arange(len(self.chunk.connection)))
        newest_position = np.maximum.reduceat(position, self.chunk.connection_start)
        has_packet = newest_position >= self.chunk.connection_start
        table["last_time"][row[has_packet]] = self.chunk.time[newest_position[has_packet]]
        group = self.chunk.group[last_positions]
        is_last_of_group = np.append(group[1:] != group[:-1], True)
        table["dns_check_at"][row[is_last_of_group]] = walk.dns_check_at[group[is_last_of_group]]
        is_over = is_last_of_group & walk.is_dns_ended[group]
        self.ended_at[row[is_over]] = walk.dns_check_at[group[is_over]]
