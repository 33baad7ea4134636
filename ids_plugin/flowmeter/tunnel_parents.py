"""Which tunnels connections came through: uids that depend on the capture alone, and what tunnels are called.

Zeek names a connection's innermost tunnel, and adds every other it is seen in later.
https://docs.zeek.org/en/v8.0.8/scripts/base/protocols/conn/main.zeek.html (tunnel_parents)
"""

from __future__ import annotations

import numpy as np

from ids_plugin.flowmeter.connection_table import Table, mix
from ids_plugin.flowmeter.packet_order import ConnectionPackets
from ids_plugin.flowmeter.packets.headers import Int64s, UInt64s
from ids_plugin.flowmeter.packets.tunnels import NONE, TOO_DEEP
from ids_plugin.flowmeter.protocol_detection import CARRIED

TunnelParents = dict[int, list[int]]
"""Rows of the table → seeds of the uids of tunnels beyond the first that a connection came through."""
MAX_FURTHER_PARENTS = 5
"""Further tunnels named for one connection: Zeek's Tunnel::max_changes_per_connection."""


def uid_seeds(table: Table) -> UInt64s:
    """What the uids are made of: the connection, its first packet's time and number."""
    return mix(table.hash ^ table["first_time"].astype(np.uint64)) + table["first_packet"].astype(
        np.uint64
    )


def note_tunnels(chunk: ConnectionPackets, parents: TunnelParents) -> None:
    """Notes the tunnels that the chunk's packets came through, and the connections that turn out to be tunnels."""
    packets, table = chunk.packets, chunk.table
    inside = np.flatnonzero(packets.tunnel_parent != -1)
    carrying = np.flatnonzero((packets.tunnel_kind != NONE) & (packets.tunnel_kind != TOO_DEEP))
    if not (len(inside) or len(carrying)):
        return
    row, side = np.empty(len(packets), dtype=np.int64), np.empty(len(packets), dtype=np.int64)
    row[chunk.order], side[chunk.order] = chunk.table_row[chunk.connection], chunk.side
    np.bitwise_or.at(
        table["signatures"], (row[carrying], side[carrying]), CARRIED[packets.tunnel_kind[carrying]]
    )
    if not len(inside):
        return
    parent = packets.tunnel_parent[inside]
    seed = np.zeros(len(inside), dtype=np.uint64)
    connection = parent >= 0
    seed[connection] = uid_seeds(table)[row[parent[connection]]]
    seed[~connection] = packets.tunnels[-2 - parent[~connection]]
    _note_parents(table, row[inside], seed.view(np.int64), parents)


def _note_parents(table: Table, row: Int64s, seed: Int64s, parents: TunnelParents) -> None:
    """Tunnels by the rows of the connections in them, in order of time."""
    new, first = np.unique(row, return_index=True)
    orphan = table["tunnel_parent"][new] == 0
    table["tunnel_parent"][new[orphan]] = seed[first[orphan]]
    other = np.flatnonzero(seed != table["tunnel_parent"][row])
    _, at = np.unique(
        mix(mix(row[other].view(np.uint64)) ^ seed[other].view(np.uint64)), return_index=True
    )
    at = other[np.sort(at)]
    for own, further in zip(row[at].tolist(), seed[at].tolist(), strict=True):
        found = parents.setdefault(own, [])
        if further not in found and len(found) < MAX_FURTHER_PARENTS:
            found.append(further)
