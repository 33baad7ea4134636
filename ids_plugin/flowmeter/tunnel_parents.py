"""Which tunnels connections came through: uids that depend on the capture alone, and what tunnels
are called.

Zeek names a connection's innermost tunnel, and adds every other it is seen in later.
https://docs.zeek.org/en/v8.0.8/scripts/base/protocols/conn/main.zeek.html (tunnel_parents)
"""

from __future__ import annotations

import numpy as np

from ids_plugin.flowmeter.connection_table import Table, mix
from ids_plugin.flowmeter.packet_order import ConnectionPackets
from ids_plugin.flowmeter.packets.headers import Int64s, UInt64s
from ids_plugin.flowmeter.packets.tunnels import NONE, TOO_DEEP
from ids_plugin.flowmeter.payload_signatures import TUNNEL_BITS

TunnelParents = dict[int, list[int]]
"""Rows of the table → seeds of the uids of tunnels beyond the first that a connection came
through.
"""
MAX_FURTHER_PARENTS = 5
"""Further tunnels named for one connection: Zeek's Tunnel::max_changes_per_connection."""


def uid_seeds(table: Table) -> UInt64s:
    """What the uids are made of: the connection, its first packet's time and number."""
    return mix(table.hash ^ table["first_time"].astype(np.uint64)) + table["first_packet"].astype(
        np.uint64
    )


def note_tunnels(chunk: ConnectionPackets, parents: TunnelParents) -> None:
    """Notes the tunnels that the chunk's packets came through, and the connections that turn out
    to be tunnels.
    """
    packets, table = chunk.packets, chunk.table
    inner_packets = np.flatnonzero(packets.tunnel_parent != -1)
    carriers = np.flatnonzero((packets.tunnel_kind != NONE) & (packets.tunnel_kind != TOO_DEEP))
    if not (len(inner_packets) or len(carriers)):
        return
    row, side = np.empty(len(packets), dtype=np.int64), np.empty(len(packets), dtype=np.int64)
    row[chunk.order], side[chunk.order] = chunk.table_row[chunk.connection], chunk.side
    np.bitwise_or.at(
        table["signatures"],
        (row[carriers], side[carriers]),
        TUNNEL_BITS[packets.tunnel_kind[carriers]],
    )
    if not len(inner_packets):
        return
    parent = packets.tunnel_parent[inner_packets]
    seed = np.zeros(len(inner_packets), dtype=np.uint64)
    connection = parent >= 0
    seed[connection] = uid_seeds(table)[row[parent[connection]]]
    seed[~connection] = packets.tunnels[-2 - parent[~connection]]
    _note_parents(table, row[inner_packets], seed.view(np.int64), parents)


def _note_parents(table: Table, row: Int64s, seed: Int64s, parents: TunnelParents) -> None:
    """Tunnels by the rows of the connections in them, in order of time."""
    new, first = np.unique(row, return_index=True)
    orphan = table["tunnel_parent"][new] == 0
    table["tunnel_parent"][new[orphan]] = seed[first[orphan]]
    other = np.flatnonzero(seed != table["tunnel_parent"][row])
    _, first_rows = np.unique(
        mix(mix(row[other].view(np.uint64)) ^ seed[other].view(np.uint64)), return_index=True
    )
    first_rows = other[np.sort(first_rows)]
    for own, further in zip(row[first_rows].tolist(), seed[first_rows].tolist(), strict=True):
        further_seeds = parents.setdefault(own, [])
        if further not in further_seeds and len(further_seeds) < MAX_FURTHER_PARENTS:
            further_seeds.append(further)
