"""Connections as columns: what the meter keeps of each, and Zeek's names and times for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

SECOND_US = 1_000_000
FIN, SYN, RST, ACK = 1, 2, 4, 16
INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)

ATTEMPT_TIMEOUT_US = 5 * SECOND_US
"""Zeek's tcp_attempt_delay: an unanswered SYN is given up."""
CLOSE_DELAY_US = 5 * SECOND_US
"""tcp_close_delay: how long a closed connection still takes packets."""
TCP_IDLE_TIMEOUT_US = 300 * SECOND_US
LOGIN_IDLE_TIMEOUT_US = 3600 * SECOND_US
DATAGRAM_IDLE_TIMEOUT_US = 60 * SECOND_US
LOGIN_PORTS = (21, 22, 23, 513)
"""ports of base/protocols/conn/inactivity.zeek"""
DNS_PORTS = (53, 137, 5353, 5355)
DNS_CHECK_INTERVAL_US = 10 * SECOND_US
"""dns_session_timeout: how often a DNS exchange over UDP is looked at, and ended if it has been
still for
"""
DNS_SILENCE_US = 9 * SECOND_US
NEVER = np.int64(1 << 62)

TCP_SERVERS = (
    21, 22, 25, 53, 80, 81, 88, 110, 135, 139, 143, 389, 443, 445, 502, 514, 563, 585, 587, 614,
    631, 636, 989, 990, 992, 993, 995, 1080, 1434, 1883, 2811, 3128, 3268, 3306, 3389, 5060, 5222,
    5223, 5269, 5432, 6379, 6666, 6667, 6668, 6669, 8000, 8080, 8888, 20000,
)  # fmt: skip
UDP_SERVERS = (
    53, 67, 69, 88, 123, 137, 161, 162, 389, 443, 514, 1812, 2123, 2152, 3544, 4789, 5060, 5072,
    5353, 5355, 6081, 20000,
)  # fmt: skip
"""Zeek's likely_server_ports, as its default scripts fill it."""

ADDRESS_HALVES = ("low_high", "low_low", "high_high", "high_low")
COLUMN_BLOCKS = (
    (np.int64, 1, ("first_time", "last_time", "first_packet", "missed_bytes", "tunnel_parent")),
    (
        np.int64,
        2,
        ("packets", "ip_bytes", "payload_bytes", "highest_sequence", "highest_ack", "signatures"),
    ),
    (np.int32, 1, ("low_port", "high_port", "protocol", "originator")),
    (np.int32, 2, ("state", "previous_state", "fin_count")),
    (np.int64, 1, ("attempt_until", "close_at", "dns_check_at", "idle_timeout")),
    (
        np.int64,
        2,
        (
            "initial_sequence",
            "delivered_end",
            "data_end",
            "acknowledged_end",
            "fin_end",
            "last_syn",
            "last_fin",
            "last_rst",
        ),
    ),
    (
        np.int32,
        2,
        (
            "is_closing",
            "is_closed",
            "seen_letters",
            "retransmissions",
            "zero_windows",
            "gap_count",
            "is_given_up",
            "inspected_packets",
            "bad_checksums",
        ),
    ),
)
"""What a connection has once (1), what each of its sides has (2). Grown one by one, so that
little is there twice.
"""
ENDED_BLOCKS = 4
"""Blocks that are still asked for when a connection has ended: the first ones."""
FIRST_ROWS, MIN_GROWTH_ROWS = 1 << 6, 1 << 12
"""Rows a table begins with and grows by, at least."""


class Table:
    """Connections as columns; each has a row as long as it is open, and rows are used again.

    `table[name]` is a view: (rows,) for what a connection has once, (rows, 2) for what each side
    has, side 0 being the lower endpoint. Times are µs.
    """

    def __init__(self, rows: int = 0) -> None:
        self.keys = np.zeros((1 + len(ADDRESS_HALVES), rows), dtype=np.uint64)
        self.blocks = [
            np.zeros((sides * len(names), rows), dtype=kind) for kind, sides, names in COLUMN_BLOCKS
        ]
        self.live = np.zeros(rows, dtype=bool)

    def __len__(self) -> int:
        return len(self.live)

    def __getitem__(self, name: str) -> Int64s:
        block, position, count = _COLUMN_POSITIONS[name]
        column: Int64s = (
            self.blocks[block][position]
            if count == 1
            else self.blocks[block][position : position + 2].T
        )
        return column

    def of(self, name: str, side: int) -> Int64s:
        """(rows,) what one side has: a view, quicker to pick rows from than both sides."""
        block, position, _ = _COLUMN_POSITIONS[name]
        column: Int64s = self.blocks[block][position + side]
        return column

    @property
    def hash(self) -> UInt64s:
        """(rows,) of the endpoints and the protocol."""
        hash_: UInt64s = self.keys[0]
        return hash_

    def address(self, name: str) -> UInt64s:
        """(rows,) half of an address, of `ADDRESS_HALVES`."""
        half: UInt64s = self.keys[1 + ADDRESS_HALVES.index(name)]
        return half

    def take(self, rows: Int64s) -> Table:
        """A table of these rows alone, of what is SHOWN."""
        taken = Table()
        taken.keys = self.keys.take(rows, axis=1)
        taken.blocks = [block.take(rows, axis=1) for block in self.blocks[:ENDED_BLOCKS]]
        taken.live = self.live[rows]
        return taken

    def claim(self, count: int) -> Int64s:
        """Empty rows for `count` new connections; grows where there are too few."""
        free = np.flatnonzero(~self.live)
        if len(free) < count:
            self._grow(count - len(free))
            free = np.flatnonzero(~self.live)
        rows = free[:count]
        for block in (self.keys, *self.blocks):
            for column in block:
                column[rows] = 0
        self.live[rows] = True
        return rows

    def release(self, rows: Int64s) -> None:
        """These connections are over."""
        self.live[rows] = False

    def _grow(self, least: int) -> None:
        more = max(least, len(self) // 8, MIN_GROWTH_ROWS if len(self) else FIRST_ROWS)
        wider = ((0, 0), (0, more))
        self.keys = np.pad(self.keys, wider)
        for index, block in enumerate(self.blocks):
            self.blocks[index] = np.pad(block, wider)
        self.live = np.pad(self.live, (0, more))


def _column_positions() -> dict[str, tuple[int, int, int]]:
    """Block, first row in it and number of rows of every column."""
    return {
        name: (index, place * sides, sides)
        for index, (_, sides, names) in enumerate(COLUMN_BLOCKS)
        for place, name in enumerate(names)
    }


_COLUMN_POSITIONS = _column_positions()


def mix(value: UInt64s) -> UInt64s:
    """Finaliser of splitmix64 (Steele et al. 2014): every input bit changes every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
