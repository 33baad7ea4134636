"""The flows that windows and evidence still need: up to k of each pair, linked from each flow to
the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.schema.window import EARLIER

Ints = npt.NDArray[np.int64]
Halves = npt.NDArray[np.float16]

DAY_US = 24 * 3600 * 1_000_000
_NEVER = np.iinfo(np.int64).max
_COLUMNS = {
    "seq": np.int64,
    "clock": np.int64,
    "ts": np.int64,
    "pair": np.int32,
    "origin": np.int32,
    "before": np.int32,
    "host_before": np.int32,
    "replaced_at": np.int64,
}
"""of a flow: its number and clock, start (µs), pair and originator, the flow before it of its pair
and of its originator (index here, -1 for none), the number of the record that replaces it"""
_LINKS = {"before": "pair", "host_before": "origin"}
_EVIDENCE_COLUMNS = (
    "uid", "ts", "orig_h", "orig_p", "resp_h", "resp_p", "proto", "conn_state", "duration",
    "orig_bytes", "resp_bytes",
)  # fmt: skip


class History:
    """Append-only between two compactions; `prune` forgets what no window can reach."""

    def __init__(self, features: int) -> None:
        self.count = 0
        self.frame = pl.DataFrame()
        self.features: Halves = np.zeros((0, features), np.float16)
        self.columns: dict[str, npt.NDArray[np.signedinteger]] = {
            name: np.zeros(0, dtype) for name, dtype in _COLUMNS.items()
        }

    def __getitem__(self, name: str) -> npt.NDArray[np.signedinteger]:
        """(count) one of the columns."""
        return self.columns[name][: self.count]

    def append(self, flows: pl.DataFrame, features: Halves, columns: dict[str, Ints]) -> None:
        """Adds a batch. `before` and `host_before` are indices into this store, -1 for none."""
        size = self.count + len(features)
        if size > len(self.features):
            room = max(size, 2 * len(self.features))
            self.features = np.concatenate(
                [
                    self.features[: self.count],
                    np.empty((room - self.count, self.features.shape[1]), np.float16),
                ]
            )
            self.columns = {
                name: np.concatenate(
                    [values[: self.count], np.empty(room - self.count, values.dtype)]
                )
                for name, values in self.columns.items()
            }
        self.features[self.count : size] = features
        for name, values in (columns | {"replaced_at": np.full(len(features), _NEVER)}).items():
            self.columns[name][self.count : size] = values
        shown = flows[list(_EVIDENCE_COLUMNS)]
        self.frame = shown if self.count == 0 else self.frame.vstack(shown)
        if self.frame.n_chunks() > 64:
            self.frame = self.frame.rechunk()
        self.count = size

    def earlier(self, rows: Ints) -> Ints:
        """(m, EARLIER) indices of the flows before those at index `rows`, latest first, -1 where
        there are none."""
        indices = np.full((len(rows), EARLIER), -1, np.int64)
        filled = np.zeros(len(rows), np.int64)
        index, rows_left = self["before"][rows], np.arange(len(rows))
        seq, clock = self["seq"][rows], self["clock"][rows]
        while True:
            going = (index >= 0) & (filled[rows_left] < EARLIER)
            going[going] = clock[rows_left[going]] - self["clock"][index[going]] < DAY_US
            index, rows_left = index[going], rows_left[going]
            if not len(index):
                return indices
            seen = self["replaced_at"][index] > seq[rows_left]
            indices[rows_left[seen], filled[rows_left[seen]]] = index[seen]
            filled[rows_left[seen]] += 1
            index = self["before"][index]

    def of_host(self, row: int, limit: int) -> list[int]:
        """Indices of the latest flows of the originator of the flow at index `row`, itself
        excluded, latest first."""
        indices: list[int] = []
        index = int(self["host_before"][row])
        while (
            index >= 0
            and len(indices) < limit
            and self["clock"][row] - self["clock"][index] < DAY_US
        ):
            if self["replaced_at"][index] > self["seq"][row]:
                indices.append(index)
            index = int(self["host_before"][index])
        return indices

    def prune(self, limit: int, clock: int) -> int:
        """Keeps the last EARLIER flows of each pair, none older than a day, at most `limit` flows:
        the pairs seen least recently leave first. Returns how many flows that windows could still
        reach had to leave."""
        if self.count <= limit:
            return 0
        fresh = np.flatnonzero((clock - self["clock"] < DAY_US) & (self["replaced_at"] == _NEVER))
        order = fresh[np.argsort(self["pair"][fresh].astype(np.int64) * self.count - fresh)]
        pair = self["pair"][order]
        starts = (
            np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
            if len(pair)
            else np.zeros(0, np.int64)
        )
        lengths = np.diff(np.r_[starts, len(pair)])
        reachable = np.arange(len(pair)) - np.repeat(starts, lengths) < EARLIER
        remaining = order[reachable]
        lost = max(0, len(remaining) - limit)
        if lost:
            newest = np.repeat(order[starts], lengths)[reachable]
            remaining = remaining[np.lexsort((-remaining, -newest))[:limit]]
        self._select(np.sort(remaining))
        return lost

    def state(self) -> dict[str, Any]:
        """A tree of arrays and a frame; what links the flows follows from it."""
        columns = {name: self[name] for name in _COLUMNS if name not in _LINKS}
        return {"frame": self.frame, "features": self.features[: self.count], "columns": columns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        self.frame, self.features, self.columns = (
            state["frame"],
            state["features"],
            dict(state["columns"]),
        )
        self.count = len(self.features)
        self._tie()

    def _select(self, rows: Ints) -> None:
        self.frame = self.frame[rows].rechunk() if self.count else self.frame
        self.features = self.features[: self.count][rows]
        self.columns = {name: values[: self.count][rows] for name, values in self.columns.items()}
        self.count = len(rows)
        self._tie()

    def _tie(self) -> None:
        """Links every flow anew to the one before it."""
        for name, group in _LINKS.items():
            self.columns[name] = _previous(self[group])


def _previous(group: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.int32]:
    """(n) index of the row before each one in its group, -1 for the first."""
    order = np.argsort(group.astype(np.int64) * len(group) + np.arange(len(group)))
    before = np.full(len(group), -1, np.int32)
    same = group[order[1:]] == group[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    return before
