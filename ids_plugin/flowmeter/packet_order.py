"""Packets of a chunk ordered by connection and time, beside the connections that were open before
it.

A group is all packets of the chunk with the same two endpoints and the same protocol. It holds one
connection or several: `tcp_state` finds where they begin, `ConnectionPackets.split_connections`
cuts there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import Table, mix
from ids_plugin.flowmeter.packets.packet_columns import Packets

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


class ConnectionPackets:
    """The packets of one chunk beside the connections open before it, ordered by connection and
    time.
    """

    def __init__(self, table: Table, packets: Packets, arrivals: Int64s) -> None:
        self.packets = packets
        self.table = table
        self.arrivals = arrivals
        self.capture_index = packets.number - packets.first_number
        swapped, low, high, ports = _order_endpoints(packets)
        proto = packets.protocol.astype(np.uint64)
        key = mix(
            low[0] * np.uint64(0x9E3779B97F4A7C15) ^ mix(low[1] + np.uint64(0x632BE59BD9B4E019))
        )
        key = mix(
            key
            ^ mix(
                high[0] * np.uint64(0xC2B2AE3D27D4EB4F)
                ^ mix(high[1] + np.uint64(0x165667B19E3779F9))
            )
        )
        key = mix(
            key
            ^ (
                ports[0].astype(np.uint64) << np.uint64(24)
                | ports[1].astype(np.uint64) << np.uint64(8)
                | proto
            )
        )
        self.order, self.group, unique = _group_by_key(key)
        live = np.flatnonzero(table.live)
        known_rows, known_groups = _find_keys(unique, table.hash[live])
        self.open_rows = live[known_rows]
        self.open_row = np.full(len(unique), -1, dtype=np.int64)
        """row of the connection that was open before, per group; -1 where there was none"""
        self.open_row[known_groups] = self.open_rows
        self.key, self.low, self.high, self.ports = key, low, high, ports
        self.capture_index = self.capture_index[self.order]
        self.window = packets.window[self.order]
        self.time = packets.time[self.order]
        self.arrival = self.time if arrivals is packets.arrivals else arrivals[self.capture_index]
        self.side = swapped[self.order].astype(np.int64)
        self.protocol = packets.protocol[self.order]
        self.flags = packets.flags[self.order]
        self.sequence = packets.sequence[self.order]
        self.ack_number = packets.ack_number[self.order]
        self.has_bad_checksum = packets.has_bad_checksum[self.order]
        self.payload_bytes = packets.payload_bytes[self.order]
        if self.has_bad_checksum.any():
            self.payload_bytes[self.has_bad_checksum] = 0
        self.is_first_of_group = np.ones(len(self.group), dtype=bool)
        self.is_first_of_group[1:] = self.group[1:] != self.group[:-1]

    def split_connections(self, begins: Bools) -> None:
        """Stretches of packets of one connection, which row of the table each is; those at
        `begins_connection` get new rows.
        """
        starts = self.is_first_of_group | begins
        self.connection = np.cumsum(starts.astype(np.int64)) - 1
        """which stretch each packet is of"""
        self.connection_start = np.flatnonzero(starts)
        """first packet of each stretch"""
        self.connection_end = np.append(self.connection_start[1:], len(starts))
        self.is_new = begins[self.connection_start]
        """whether the stretch begins a connection"""
        self.table_row = self.open_row[self.group[self.connection_start]]
        self.table_row[self.is_new] = self.table.claim(int(self.is_new.sum()))

    def adopt_connections(
        self, reduced: ConnectionPackets, positions: Int64s, is_reversed: Bools
    ) -> None:
        """Takes over the stretches of `reduced`, packets of this chunk that stand at
        `capture_index`, and the sides `is_reversed`.
        """
        if reduced is self:
            return
        self.connection_start, self.is_new, self.table_row = (
            positions[reduced.connection_start],
            reduced.is_new,
            reduced.table_row,
        )
        self.connection_end = np.append(self.connection_start[1:], len(self.group))
        self.connection = np.repeat(
            np.arange(len(self.connection_start)), self.connection_end - self.connection_start
        )
        self.side[positions[is_reversed]] = reduced.side[is_reversed]


def _group_by_key(key: UInt64s) -> tuple[Int64s, Int64s, UInt64s]:
    """Stable order by key, number of the key of each element in that order, and the keys that there
    are.

    Keys are sorted by their upper half, 16 bits at a time, which NumPy does by counting; should two
    keys have the same upper half, by all of it.
    """
    order = np.argsort((key >> np.uint64(32)).astype(np.uint16), kind="stable")
    order = order[np.argsort((key >> np.uint64(48)).astype(np.uint16)[order], kind="stable")]
    sorted_key = key[order]
    first = np.ones(len(key), dtype=bool)
    first[1:] = sorted_key[1:] != sorted_key[:-1]
    half = (sorted_key >> np.uint64(32)).astype(np.uint32)
    if (first[1:] & (half[1:] == half[:-1])).any():
        order = np.argsort(key, kind="stable")
        sorted_key = key[order]
        first[1:] = sorted_key[1:] != sorted_key[:-1]
    return order, np.cumsum(first.astype(np.int64)) - 1, sorted_key[np.flatnonzero(first)]


def _find_keys(known_keys: UInt64s, keys: UInt64s) -> tuple[Int64s, Int64s]:
    """Which of `keys` are among the keys `known_keys`, which are sorted, and where there.

    Most aren't, and most of these have upper bits that no known key has.
    """
    has_upper_bits = np.zeros(1 << 16, dtype=bool)
    has_upper_bits[known_keys >> np.uint64(48)] = True
    candidates = np.flatnonzero(has_upper_bits[keys >> np.uint64(48)])
    key = keys[candidates]
    positions = np.minimum(np.searchsorted(known_keys, key), len(known_keys) - 1)
    is_same = known_keys[positions] == key
    return candidates[is_same], positions[is_same]


def _order_endpoints(
    packets: Packets,
) -> tuple[Bools, tuple[UInt64s, UInt64s], tuple[UInt64s, UInt64s], tuple[Int64s, Int64s]]:
    """The endpoints ordered, so that both directions are one connection; `swapped` where the
    source is the higher.
    """
    source, target = packets.source, packets.destination
    same_high, same_low = source[0] == target[0], source[1] == target[1]
    swapped = np.where(same_high, source[1] > target[1], source[0] > target[0])
    swapped |= same_high & same_low & (packets.source_port > packets.destination_port)
    swapped &= ~packets.is_one_way
    low = tuple(np.where(swapped, t, s) for s, t in zip(source, target, strict=True))
    high = tuple(np.where(swapped, s, t) for s, t in zip(source, target, strict=True))
    ports = (
        np.where(swapped, packets.destination_port, packets.source_port),
        np.where(swapped, packets.source_port, packets.destination_port),
    )
    return swapped, (low[0], low[1]), (high[0], high[1]), ports
