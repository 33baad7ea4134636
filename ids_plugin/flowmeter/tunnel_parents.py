"""Which tunnels connections came through: uids that depend on the capture alone, and what tunnels are called.

Zeek names a connection's innermost tunnel, and adds every other it is seen in later.
https://docs.zeek.org/en/v8.0.8/scripts/base/protocols/conn/main.zeek.html (tunnel_parents)
"""

from __future__ import annotations

import numpy as np

from ids_plugin.flowmeter.connection_table import Table, mix
from ids_plugin.flowmeter.packet_order import Ordered
from ids_plugin.flowmeter.packets.headers import Int64s, UInt64s
from ids_plugin.flowmeter.packets.tunnels import NONE, TOO_DEEP
from ids_plugin.flowmeter.protocol_detection import CARRIED

Parents = dict[int, list[int]]
"""Rows of the table → seeds of the uids of tunnels beyond the first that a connection came through."""
MOST_PARENTS = 5
"""Further tunnels named for one connection: Zeek's Tunnel::max_changes_per_connection."""


def seeds(table: Table) -> UInt64s:
    """What the uids are made of: the connection, its first packet's time and number."""
    return mix(table.hash ^ table["first_time"].astype(np.uint64)) + table["first_packet"].astype(
        np.uint64
    )


def nest(chunk: Ordered, parents: Parents) -> None:
    """Notes the tunnels that the chunk's packets came through, and the connections that turn out to be tunnels."""
    packets, table = chunk.packets, chunk.table
    inside = np.flatnonzero(packets.parent != -1)
    carrying = np.flatnonzero((packets.carries != NONE) & (packets.carries != TOO_DEEP))
    if not (len(inside) or len(carrying)):
        return
    row, side = np.empty(len(packets), dtype=np.int64), np.empty(len(packets), dtype=np.int64)
    row[chunk.order], side[chunk.order] = chunk.row[chunk.stretch], chunk.side
    np.bitwise_or.at(
        table["signs"], (row[carrying], side[carrying]), CARRIED[packets.carries[carrying]]
    )
    if not len(inside):
        return
    parent = packets.parent[inside]
    seed = np.zeros(len(inside), dtype=np.uint64)
    connection = parent >= 0
    seed[connection] = seeds(table)[row[parent[connection]]]
    seed[~connection] = packets.tunnels[-2 - parent[~connection]]
    _note(table, row[inside], seed.view(np.int64), parents)


def _note(table: Table, row: Int64s, seed: Int64s, parents: Parents) -> None:
    """Tunnels by the rows of the connections in them, in order of time."""
    new, first = np.unique(row, return_index=True)
    orphan = table["parent"][new] == 0
    table["parent"][new[orphan]] = seed[first[orphan]]
    other = np.flatnonzero(seed != table["parent"][row])
    _, at = np.unique(
        mix(mix(row[other].view(np.uint64)) ^ seed[other].view(np.uint64)), return_index=True
    )
    at = other[np.sort(at)]
    for own, further in zip(row[at].tolist(), seed[at].tolist(), strict=True):
        found = parents.setdefault(own, [])
        if further not in found and len(found) < MOST_PARENTS:
            found.append(further)
