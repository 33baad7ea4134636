"""Packets of a chunk ordered by connection and time, beside the connections that were open before it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import Table, mix
from ids_plugin.flowmeter.packets.decoder import Packets

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


class Ordered:
    """The packets of one chunk beside the connections open before it, ordered by connection and time."""

    def __init__(self, table: Table, packets: Packets, arrivals: Int64s) -> None:
        self.packets = packets
        self.table = table
        self.arrivals = arrivals
        self.place = packets.number - packets.first
        swapped, low, high, ports = _canonical(packets)
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
        self.order, self.group, unique = _grouped(key)
        live = np.flatnonzero(table.live)
        which, at = _among(unique, table.hash[live])
        self.touched = live[which]
        self.carried = np.full(len(unique), -1, dtype=np.int64)
        """row of the connection that was open before, per group; -1 where there was none"""
        self.carried[at] = self.touched
        self.key, self.low, self.high, self.ports = key, low, high, ports
        self.place = self.place[self.order]
        self.window = packets.window[self.order]
        self.time = packets.time[self.order]
        self.now = self.time if arrivals is packets.arrivals else arrivals[self.place]
        self.side = swapped[self.order].astype(np.int64)
        self.protocol = packets.protocol[self.order]
        self.flags = packets.flags[self.order]
        self.sequence = packets.sequence[self.order]
        self.acknowledged = packets.acknowledged[self.order]
        self.refused = packets.refused[self.order]
        self.payload = packets.payload[self.order]
        if self.refused.any():
            self.payload[self.refused] = 0
        self.first = np.ones(len(self.group), dtype=bool)
        self.first[1:] = self.group[1:] != self.group[:-1]

    def cut(self, begins: Bools) -> None:
        """Stretches of packets of one connection, which row of the table each is; those at `begins` get new rows."""
        starts = self.first | begins
        self.stretch = np.cumsum(starts.astype(np.int64)) - 1
        """which stretch each packet is of"""
        self.at = np.flatnonzero(starts)
        """first packet of each stretch"""
        self.stop = np.append(self.at[1:], len(starts))
        self.fresh = begins[self.at]
        """whether the stretch begins a connection"""
        self.row = self.carried[self.group[self.at]]
        self.row[self.fresh] = self.table.claim(int(self.fresh.sum()))

    def follow(self, few: Ordered, place: Int64s, turned: Bools) -> None:
        """Takes over the stretches of `few`, packets of this chunk that stand at `place`, and the sides `turned`."""
        if few is self:
            return
        self.at, self.fresh, self.row = place[few.at], few.fresh, few.row
        self.stop = np.append(self.at[1:], len(self.group))
        self.stretch = np.repeat(np.arange(len(self.at)), self.stop - self.at)
        self.side[place[turned]] = few.side[turned]


def _grouped(key: UInt64s) -> tuple[Int64s, Int64s, UInt64s]:
    """Stable order by key, number of the key of each element in that order, and the keys that there are.

    Keys are sorted by their upper half, 16 bits at a time, which NumPy does by counting; should two keys have the same
    upper half, by all of it.
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


def _among(known: UInt64s, asked: UInt64s) -> tuple[Int64s, Int64s]:
    """Which of `asked` are among the keys `known`, which are sorted, and where there.

    Most aren't, and most of these have upper bits that no known key has.
    """
    there = np.zeros(1 << 16, dtype=bool)
    there[known >> np.uint64(48)] = True
    likely = np.flatnonzero(there[asked >> np.uint64(48)])
    key = asked[likely]
    at = np.minimum(np.searchsorted(known, key), len(known) - 1)
    same = known[at] == key
    return likely[same], at[same]


def _canonical(
    packets: Packets,
) -> tuple[Bools, tuple[UInt64s, UInt64s], tuple[UInt64s, UInt64s], tuple[Int64s, Int64s]]:
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
