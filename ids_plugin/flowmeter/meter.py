"""Packets → connections with Zeek's meaning of every column.

Follows the documented behaviour of Zeek 8, https://docs.zeek.org/en/v8.0.8/scripts/base/protocols/conn/main.zeek.html.
`_group_by_key` puts the packets of a chunk in order of their connections, `_walk` finds where these begin, end and change
state, `_streams` what their bytes and histories are, `_services` what they speak; `_table` keeps what stays open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import (
    ADDRESS_HALVES,
    CLOSED,
    DNS_CHECK_INTERVAL_US,
    DNS_SILENCE_US,
    ESTABLISHED,
    INACTIVE,
    NEVER,
    PARTIAL,
    RESET,
    SECOND_US,
    SYN_ACK_SENT,
    SYN_SENT,
    Table,
)
from ids_plugin.flowmeter.packet_order import ConnectionPackets
from ids_plugin.flowmeter.packets.decoder import ICMP, ICMP6, TCP, UDP, Packets, payload_beginnings
from ids_plugin.flowmeter.protocol_detection import (
    ANNOUNCES,
    BIT,
    DEEP,
    FTP_CONTROL,
    LOOK_DEEPER,
    LOOKED_AT,
    LOOKED_AT_FIRST,
    TALKATIVE,
    WIDTH,
    Endpoint,
    announced,
    deep_signs,
    possible_signs,
    services,
    signs,
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
    """Takes packets chunk by chunk and gives out connections when their end or timeout is reached in capture time.

    At most `most_open` connections are kept between chunks; beyond that the longest silent are given out as they are
    and counted in `given_out_early`.
    """

    def __init__(self, most_open: int = MAX_OPEN_CONNECTIONS) -> None:
        self.most_open = most_open
        self.given_out_early = 0
        self.table = Table()
        self.clock = -int(NEVER)
        self.letters = _Histories()
        self.holes: dict[tuple[int, int], Reassembler] = {}
        self.announced: dict[Endpoint, int] = {}
        self.parents: TunnelParents = {}

    def add(self, packets: Packets) -> EndedConnections:
        """Measures the packets of one chunk; the connections that have ended by then."""
        if not len(packets.arrivals):
            return EndedConnections(
                Table(), np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
            )
        arrivals = packets.arrivals
        if arrivals[0] < self.clock or (arrivals[1:] < arrivals[:-1]).any():
            arrivals = np.maximum.accumulate(np.maximum(arrivals, self.clock))
        self.clock = int(arrivals[-1])
        table = self.table
        quiet = table.live & (table["dns_check_at"] < NEVER)
        ended = np.full(len(table), NEVER, dtype=np.int64)
        if len(packets):
            ended = self._measure(packets, arrivals, quiet)
        _check_dns_exchanges(table, np.flatnonzero(quiet), arrivals, ended)
        ends = np.minimum(ended, _deadline(table))
        return self._give_out(table.live & (ends <= self.clock), ends)

    def _measure(self, packets: Packets, arrivals: Int64s, quiet: Bools) -> Int64s:
        """Measures packets; when connections of the table ended. Those that have packets are `quiet` no more."""
        chunk = ConnectionPackets(self.table, packets, arrivals)
        quiet[chunk.open_rows] = False
        measured = _ChunkMeasurement(chunk, self.holes)
        note_tunnels(chunk, self.parents)
        self.letters.append(measured.letters)
        self.announced |= measured.announcements
        return measured.ended_at

    def still_open(self, least: int) -> EndedConnections:
        """The TCP connections under way that have lasted at least `least` µs, as they are by now."""
        table = self.table
        lasted = table["last_time"] - table["first_time"] >= least
        rows = np.flatnonzero(table.live & lasted & (table["protocol"] == TCP))
        rows = rows[np.argsort(table["first_time"][rows], kind="stable")]
        parents = {
            index: self.parents[row]
            for index, row in enumerate(rows.tolist())
            if row in self.parents
        }
        found = self.letters.take(rows, len(table))
        return EndedConnections(table.take(rows), *found, parents)

    def finish(self) -> Iterator[EndedConnections]:
        """The connections still open at the end of the input, in order of their first packets, AT_ONCE at a time."""
        rows = np.flatnonzero(self.table.live)
        begun = self.table["first_time"].copy()
        rows = rows[np.argsort(begun[rows], kind="stable")]
        for start in range(0, len(rows), MAX_ENDED_AT_ONCE):
            over = np.zeros(len(self.table), dtype=bool)
            over[rows[start : start + MAX_ENDED_AT_ONCE]] = True
            yield self._give_out(over, begun)

    def _give_out(self, over: Bools, ends: Int64s) -> EndedConnections:
        table = self.table
        self._make_room(over)
        rows = np.flatnonzero(over)
        rows = rows[np.argsort(ends[rows], kind="stable")]
        found = self.letters.take(rows, len(table))
        self.letters.forget(over)
        for key in [key for key in self.holes if over[key[0]]]:
            del self.holes[key]
        finished = table.take(rows)
        table.release(rows)
        self._name_announced(finished)
        place = {row: index for index, row in enumerate(rows.tolist())} if self.parents else {}
        parents = {
            place[row]: self.parents.pop(row)
            for row in [row for row in self.parents if row in place]
        }
        return EndedConnections(finished, *found, parents)

    def _make_room(self, over: Bools) -> None:
        """Marks the longest silent connections as over where more than `most_open` would stay."""
        stays = np.flatnonzero(self.table.live & ~over)
        excess = len(stays) - self.most_open
        if excess > 0:
            oldest = np.argpartition(self.table["last_time"][stays], excess - 1)[:excess]
            over[stays[oldest]] = True
            self.given_out_early += excess

    def _name_announced(self, table: Table) -> None:
        """Marks the data connections that FTP announced; forgets announcements that are too old."""
        if not self.announced:
            return
        swapped = table["originator"] == 1
        port = np.where(swapped, table["low_port"], table["high_port"])
        likely = np.flatnonzero(
            np.isin(port, [endpoint.port for endpoint in self.announced])
            & (table["protocol"] == TCP)
        )
        for row in likely.tolist():
            side = "low" if swapped[row] else "high"
            high, low = table.address(f"{side}_high"), table.address(f"{side}_low")
            endpoint = Endpoint(int(high[row]), int(low[row]), int(port[row]))
            if (
                0
                <= table["first_time"][row] - self.announced.get(endpoint, NEVER)
                <= ANNOUNCEMENT_TIMEOUT_US
            ):
                table["signatures"][row, 0] |= BIT["ftp-data"]
        if len(self.announced) > MAX_ANNOUNCEMENTS:
            newest = sorted(self.announced.items(), key=lambda item: item[1])[
                -MAX_ANNOUNCEMENTS // 2 :
            ]
            self.announced = dict(newest)


def _deadline(table: Table) -> Int64s:
    """When each connection would time out, µs."""
    originator = table["originator"]
    rows = np.arange(len(table))
    state = table["state"]
    own = state[rows, originator]
    waiting = ((own == SYN_SENT) | (own == SYN_ACK_SENT)) & (
        state[rows, 1 - originator] == INACTIVE
    )
    attempt = np.where(waiting & (table["protocol"] == TCP), table["attempt_until"], NEVER)
    deadline: Int64s = np.minimum(
        np.minimum(attempt, table["close_at"]), table["last_time"] + table["idle_timeout"]
    )
    return deadline


def _check_dns_exchanges(table: Table, rows: Int64s, arrivals: Int64s, ended: Int64s) -> None:
    """Zeek's looks at DNS exchanges that have no packet in this chunk."""
    last = table["last_time"]
    while len(rows):
        fires = np.searchsorted(arrivals, table["dns_check_at"][rows])
        happens = fires < len(arrivals)
        rows, clock = rows[happens], arrivals[fires[happens]]
        over = clock - last[rows] >= DNS_SILENCE_US
        ended[rows[over]] = clock[over]
        rows, clock = rows[~over], clock[~over]
        table["dns_check_at"][rows] = clock + DNS_CHECK_INTERVAL_US


class _Histories:
    """History letters of the open connections, in order of time."""

    def __init__(self) -> None:
        self.table_row = np.zeros(0, dtype=np.int64)
        self.letter = np.zeros(0, dtype=np.uint8)

    def append(self, new: tuple[Int64s, Bytes]) -> None:
        self.table_row = np.concatenate([self.table_row, new[0]])
        self.letter = np.concatenate([self.letter, new[1]])

    def take(self, rows: Int64s, count: int) -> tuple[Bytes, Int64s]:
        """Letters of `rows`, one behind the other, and where each begins; `count` is the rows of the table."""
        place = np.full(count, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        asked = np.flatnonzero(place[self.table_row] >= 0)
        of = place[self.table_row[asked]]
        order = np.argsort(of.astype(np.uint16) if len(rows) <= 1 << 16 else of, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=len(rows)))])
        return self.letter[asked[order]], ends.astype(np.int64)

    def forget(self, over: Bools) -> None:
        """Drops the letters of connections that are over."""
        kept = ~over[self.table_row]
        self.table_row, self.letter = self.table_row[kept], self.letter[kept]


class _ChunkMeasurement:
    """One chunk's packets measured; the table is up to date afterwards.

    Attributes: `ended_at` (when each connection of the table ended, NEVER if it is open), `announcements` (endpoints FTP spoke
    of), `history_letters` (rows and letters to add to the histories).
    """

    def __init__(self, chunk: ConnectionPackets, holes: dict[tuple[int, int], Reassembler]) -> None:
        few, place = without_uneventful_runs(chunk)
        self.tracker = StateTracker(few)
        self.tracker.run()
        few.split_connections(self.tracker.begins_connection)
        chunk.adopt_connections(few, place, self.tracker.is_reversed)
        self.chunk = few
        self.ended_at = self._replacement_times()
        self._write_endpoints()
        streams = TcpStreams(few, self.tracker, holes)
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
        talkative = (
            TALKATIVE[table["low_port"][chunk.table_row]]
            | TALKATIVE[table["high_port"][chunk.table_row]]
        )
        room = (
            np.where(talkative, LOOKED_AT, LOOKED_AT_FIRST)[:, None]
            - table["inspected_packets"][chunk.table_row]
        )
        data = (chunk.payload_bytes > 0) & ((protocol == TCP) | (protocol == UDP))
        chosen = np.zeros(len(data), dtype=bool)
        for which in (0, 1):
            own = data & (chunk.side == which)
            rank = np.cumsum(own.astype(np.int64))
            before = rank[chunk.connection_start] - own[chunk.connection_start]
            last = np.minimum(before + room[:, which], rank[chunk.connection_end - 1])
            table.of("inspected_packets", which)[chunk.table_row] += last - before
            chosen |= own & (rank <= last[chunk.connection])
        position = np.flatnonzero(chosen)
        row, at = chunk.table_row[chunk.connection[position]], chunk.order[position]
        port = np.where(
            table["originator"][row] == 0, table["high_port"][row], table["low_port"][row]
        )
        first = packets.data[np.minimum(packets.payload_offset[at], len(packets.data) - 1)]
        possible = possible_signs(first, packets.captured_payload[at], protocol[position], port)
        some = np.flatnonzero(possible)
        position, row, at, port, possible = (
            position[some],
            row[some],
            at[some],
            port[some],
            possible[some],
        )
        length = packets.captured_payload[at]
        found = signs(
            payload_beginnings(packets.data, packets.payload_offset[at], length, WIDTH),
            length,
            possible,
            port,
        )
        some = np.flatnonzero(found)
        row, side, at, found = row[some], chunk.side[position[some]], at[some], found[some]
        np.bitwise_or.at(table["signatures"], (row, side), found)
        self._inspect_whole_payloads(row, side, at, found)

    def _inspect_whole_payloads(self, row: Int64s, side: Int64s, at: Int64s, found: Int64s) -> None:
        """Request lines and authentication inside SMB, packet by packet: these are few."""
        table = self.chunk.table["signatures"]
        tcp = self.chunk.table["protocol"][row] == TCP
        for index in np.flatnonzero(tcp & (found & LOOK_DEEPER != 0)).tolist():
            table[row[index], side[index]] |= deep_signs(
                self._payload(int(at[index])), int(found[index])
            )

    def _payload(self, packet: int) -> bytes:
        """Beginning of a packet's payload."""
        packets = self.chunk.packets
        start = int(packets.payload_offset[packet])
        return packets.data[
            start : start + min(int(packets.captured_payload[packet]), DEEP)
        ].tobytes()

    def _find_announcements(self) -> None:
        """Endpoints of data connections that FTP control connections speak of."""
        packets = self.chunk.packets
        control = (packets.source_port == FTP_CONTROL) | (packets.destination_port == FTP_CONTROL)
        control &= (packets.protocol == TCP) & (packets.captured_payload > 8)
        self.announcements: dict[Endpoint, int] = {}
        for packet in np.flatnonzero(control).tolist():
            payload = self._payload(packet)
            sender = int(packets.source[0][packet]), int(packets.source[1][packet])
            endpoint = announced(payload, sender) if payload.startswith(ANNOUNCES) else None
            if endpoint:
                self.announcements[endpoint] = int(packets.time[packet])

    def _replacement_times(self) -> Int64s:
        """When connections gave way to another of the same endpoints; NEVER for the rest of the table."""
        chunk = self.chunk
        ended = np.full(len(chunk.table), NEVER, dtype=np.int64)
        group = chunk.group[chunk.connection_start]
        follows = np.flatnonzero(chunk.is_new[1:] & (group[1:] == group[:-1]))
        ended[chunk.table_row[follows]] = chunk.arrival[chunk.connection_start[follows + 1]]
        head = (
            chunk.is_first_of_group[chunk.connection_start]
            & chunk.is_new
            & (chunk.open_row[group] >= 0)
        )
        ended[chunk.open_row[group[head]]] = chunk.arrival[chunk.connection_start[head]]
        return ended

    def _write_endpoints(self) -> None:
        """Addresses, ports and first packet of the new connections."""
        at, row = (
            self.chunk.order[self.chunk.connection_start[self.chunk.is_new]],
            self.chunk.table_row[self.chunk.is_new],
        )
        table, packets = self.chunk.table, self.chunk.packets
        table.hash[row] = self.chunk.key[at]
        for name, address in zip(ADDRESS_HALVES, (*self.chunk.low, *self.chunk.high), strict=True):
            table.address(name)[row] = address[at]
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
            table[column][row] = value[at]
        for column in ("attempt_until", "close_at", "dns_check_at"):
            table[column][row] = NEVER

    def _count_packets(self) -> None:
        """Packets, IP bytes and payload of both sides."""
        chunk, last = self.chunk, self.chunk.connection_end - 1
        heard = (~chunk.has_bad_checksum).astype(np.int64)
        payload_sizes = chunk.packets.ip_bytes[chunk.order] * heard
        for name, value in (
            ("packets", heard),
            ("ip_bytes", payload_sizes),
            ("payload_bytes", chunk.payload_bytes),
        ):
            both, second = (
                np.diff(np.cumsum(part)[last], prepend=0)
                for part in (value, np.where(chunk.side == 1, value, 0))
            )
            for side, total in ((0, both - second), (1, second)):
                chunk.table.of(name, side)[chunk.table_row] += total

    def _write_states(self, shut: Bools) -> None:
        """What the walk left at each connection's last packet."""
        last, row, table, walk = (
            self.chunk.connection_end - 1,
            self.chunk.table_row,
            self.chunk.table,
            self.tracker,
        )
        for side in (0, 1):
            table.of("state", side)[row] = walk.state[side][last]
            table.of("previous_state", side)[row] = walk.previous_state[side][last]
            table.of("initial_sequence", side)[row] = walk.initial_sequence[side][last]
        table["originator"][row] = walk.originator[last]
        table["attempt_until"][row] = walk.attempt_deadline[last]
        table["idle_timeout"][row] = walk.idle_timeout[last]
        position = np.where(shut, -1, np.arange(len(self.chunk.connection)))
        newest = np.maximum.reduceat(position, self.chunk.connection_start)
        has = newest >= self.chunk.connection_start
        table["last_time"][row[has]] = self.chunk.time[newest[has]]
        group = self.chunk.group[last]
        final = np.append(group[1:] != group[:-1], True)
        table["dns_check_at"][row[final]] = walk.dns_check_at[group[final]]
        over = final & walk.is_dns_ended[group]
        self.ended_at[row[over]] = walk.dns_check_at[group[over]]


def payload_sizes(table: Table) -> Int64s:
    """(n, 2) payload bytes of both sides: TCP by sequence numbers, others by their headers' lengths."""
    span = np.maximum(table["highest_sequence"], table["highest_ack"])
    span = np.where(span > 0, span - 1, 0)
    span = np.where((table["fin_count"] > 0) & (span > 0), span - 1, span)
    aborted = (
        (table["previous_state"] == SYN_SENT)
        & (table["state"] == RESET)
        & (table["state"][:, ::-1] == INACTIVE)
    )
    span = np.where((table["state"] == INACTIVE) | aborted & (table["highest_ack"] == 0), 0, span)
    protocol = table["protocol"][:, None]
    counted = np.isin(protocol, (UDP, ICMP, ICMP6))
    return np.where(protocol == TCP, span, np.where(counted, table["payload_bytes"], 0))


CONN_STATES = (
    "REJ",
    "RSTRH",
    "RSTR",
    "RSTOS0",
    "OTH",
    "RSTO",
    "SF",
    "SH",
    "S2",
    "SHR",
    "S3",
    "S0",
    "S1",
)


def conn_states(finished: EndedConnections, size: Int64s) -> Int64s:
    """Zeek's conn_state of every connection as index into STATES, as base/protocols/conn/main.zeek decides it."""
    table = finished.table
    row = np.arange(len(table))
    originator = table["originator"]
    own, other = table["state"][row, originator], table["state"][row, 1 - originator]
    silent = (own == INACTIVE) | (own == PARTIAL)
    unanswered = (other == INACTIVE) | (other == PARTIAL)
    empty = (size == 0).all(axis=1)
    rejected = (own == SYN_SENT) | (own == SYN_ACK_SENT) | ((own == RESET) & empty)
    stealth = np.zeros(len(table), dtype=bool)
    for index in np.flatnonzero((own == RESET) & unanswered & (table["protocol"] == TCP)).tolist():
        stealth[index] = _SYN_THEN_RESET.fullmatch(finished.history(index)) is not None
    tcp = np.select(
        [
            (other == RESET) & rejected,
            (other == RESET) & silent,
            other == RESET,
            stealth,
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
        range(len(CONN_STATES)),
        CONN_STATES.index("OTH"),
    )
    sent, got = table["packets"][row, originator] > 0, table["packets"][row, 1 - originator] > 0
    names = [CONN_STATES.index(name) for name in ("SF", "S0", "SHR")]
    udp = np.select([sent & got, sent, got], names, CONN_STATES.index("OTH"))
    is_tcp, is_udp = table["protocol"] == TCP, table["protocol"] == UDP
    return np.select([is_tcp, is_udp], [tcp, udp], CONN_STATES.index("OTH")).astype(np.int64)


_SYN_THEN_RESET = re.compile(r"\^?S[^HAFGIQ]*R.*")


def named_services(table: Table) -> tuple[list[str | None], Int64s]:
    """Zeek's services that occur, and which of them each connection has; None where nothing was recognised."""
    row = np.arange(len(table))
    originator = table["originator"]
    port = np.where(originator == 0, table["high_port"], table["low_port"])
    own, other = table["signatures"][row, originator], table["signatures"][row, 1 - originator]
    return services(own, other, port, table["protocol"])
