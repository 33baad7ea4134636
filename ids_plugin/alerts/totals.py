"""The totals of an alert group: what its flows add up to, the same however they were split into
batches."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ids_plugin.schema.alert import Document

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Key = TypeVar("Key", int, str)

TOP = 10
"""peers and ports that the totals name"""
MOST_PEERS = 65_536
"""distinct peers a group counts one by one (about 6 MB); an infected host can try millions a day"""
SUMS = ("orig_bytes", "resp_bytes", "ip_bytes", "packets")


class Flows(NamedTuple):
    """Flows over the threshold as columns, in the order in which they were known; times in µs since
    the epoch."""

    ts: Ints
    known: Ints
    uid: list[str | None]
    peer: list[str]
    port: list[int | None]
    """the responder's, None where there is none or it is ICMP's code"""
    sums: Ints
    """(n, len(SUMS)), 0 where unknown"""
    has: Bools
    """(n, len(SUMS)) known"""
    open: Bools
    """the connection had not ended"""
    replaces: Bools
    """the record stands for an earlier one of the same uid"""


@dataclass
class Totals:
    """Sums over the flows of one group.

    A growing connection counts once, with its latest numbers.
    """

    count: int = 0
    first: int = 0
    last: int = 0
    sums: list[int | None] = field(default_factory=lambda: [None] * len(SUMS))
    peers: Counter[str] = field(default_factory=Counter)
    more_peers: bool = False
    ports: Counter[int] = field(default_factory=Counter)
    growing: dict[str, list[int]] = field(default_factory=dict)
    """uid → what the open connection added to `sums`"""

    def add(self, flows: Flows, rows: Ints) -> None:
        """Adds `rows` (ascending, at least one) of `flows`."""
        counted, summed = self._grow(flows, rows)
        first, last = int(flows.ts[rows].min()), int(flows.known[rows].max())
        self.first = first if self.count == 0 else min(self.first, first)
        self.last = last if self.count == 0 else max(self.last, last)
        self.count += len(counted)
        added, known = flows.sums[summed].sum(axis=0), flows.has[rows].any(axis=0)
        for column in np.flatnonzero(known):
            self.sums[column] = (self.sums[column] or 0) + int(added[column])
        fresh = counted.tolist()
        self.more_peers |= _count(self.peers, [flows.peer[row] for row in fresh])
        self.ports.update([port for row in fresh if (port := flows.port[row]) is not None])

    def _grow(self, flows: Flows, rows: Ints) -> tuple[Ints, Ints]:
        """The rows that count as flows, and those whose numbers hold: a replacing record is only in
        the second."""
        growing_indices = np.flatnonzero(flows.open[rows] | flows.replaces[rows])
        counted, summed = np.ones(len(rows), np.bool_), np.ones(len(rows), np.bool_)
        open_indices: dict[str, int] = {}
        for index in growing_indices.tolist():
            row = int(rows[index])
            uid = flows.uid[row] or ""
            if flows.replaces[row] and (uid in open_indices or uid in self.growing):
                counted[index] = False
                if uid in open_indices:
                    summed[open_indices.pop(uid)] = False
                else:
                    self._take_back(self.growing.pop(uid))
            if flows.open[row]:
                open_indices[uid] = index
        self.growing.update(
            {uid: flows.sums[rows[index]].tolist() for uid, index in open_indices.items()}
        )
        return rows[counted], rows[summed]

    def _take_back(self, numbers: Iterable[int]) -> None:
        self.sums = [
            None if old is None else old - number
            for old, number in zip(self.sums, numbers, strict=True)
        ]

    def document(self) -> Document:
        """The counts of `ids_plugin.fold`, None where unknown."""
        return {
            "count": self.count,
            "peers": len(self.peers),
            "peers_relation": "gte" if self.more_peers else "eq",
            "top_peers": [{"ip": peer, "count": count} for peer, count in _top(self.peers)],
            "ports": len(self.ports),
            "top_ports": [{"port": port, "count": count} for port, count in _top(self.ports)],
            **dict(zip(SUMS, self.sums, strict=True)),
        }

    def state(self) -> Document:
        """JSON-able."""
        return {
            **self.__dict__,
            "peers": list(self.peers.items()),
            "ports": list(self.ports.items()),
            "sums": list(self.sums),
            "growing": {uid: list(numbers) for uid, numbers in sorted(self.growing.items())},
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Totals:
        """The totals whose `state` it was."""
        peers, ports = Counter(dict(state["peers"])), Counter(dict(state["ports"]))
        return cls(**{**state, "peers": peers, "ports": ports})


def _count(peers: Counter[str], values: list[str]) -> bool:
    """Counts values in their order; beyond MOST_PEERS distinct ones new ones are left out: whether
    there were any."""
    if len(peers) + len(values) <= MOST_PEERS or len(peers.keys() | set(values)) <= MOST_PEERS:
        peers.update(values)
        return False
    left_out = False
    for value, count in Counter(values).items():
        if value in peers or len(peers) < MOST_PEERS:
            peers[value] += count
        else:
            left_out = True
    return left_out


def _top(counter: Counter[Key]) -> list[tuple[Key, int]]:
    return heapq.nsmallest(TOP, counter.items(), key=lambda item: (-item[1], item[0]))
