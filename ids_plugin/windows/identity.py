"""Which records are the same flow: duplicates, and open-connection records that a later record
replaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ids_plugin.windows.slots import Keys, SlotTable, mix

Ints = npt.NDArray[np.int64]
GENERATION = 131_072
"""Flows a sensor's memory for duplicates spans: between one and two generations. Repeats come from
overlapping files (neighbours in known order) and from a sensor's restart (minutes); 2 x 131,072
flows are half an hour at 150 flows/s."""


class Identity:
    """Remembers the flows of one sensor."""

    def __init__(self) -> None:
        self._recent, self._older = SlotTable(), SlotTable()
        self._growing: dict[int, int] = {}
        self.seen = 0

    def room(self) -> int:
        """How many more records fit before the memory turns over; a batch must not be longer."""
        return GENERATION - self.seen % GENERATION

    def duplicates(self, uid: Keys, content: Keys) -> npt.NDArray[np.bool_]:
        """(n) whether a record with this uid and content came before, in this batch or earlier."""
        key = mix(uid, content)
        repeated = np.ones(len(key), np.bool_)
        repeated[np.unique(key, return_index=True)[1]] = False
        repeated |= self._older.contains(key) | self._recent.contains(key)
        self._recent.slots(key[~repeated])
        self.seen += len(key)
        if self.seen % GENERATION == 0:
            self._recent, self._older = SlotTable(), self._recent
        return repeated

    def replaced(self, uid: Keys, still_open: npt.NDArray[np.bool_], start: int) -> Ints:
        """(n) sequence number of the record that each one replaces, -1 for none; `start` is that of
        the first row."""
        before = np.full(len(uid), -1, np.int64)
        if not self._growing and not still_open.any():
            return before
        growing = np.fromiter(self._growing, np.uint64, len(self._growing))
        for row in np.flatnonzero(
            np.isin(uid, np.concatenate([growing, uid[still_open]]))
        ).tolist():
            name = int(uid[row])
            before[row] = self._growing.pop(name, -1)
            if still_open[row]:
                self._growing[name] = start + row
        return before

    def forget_growing(self, before: int) -> None:
        """Forgets open connections not heard of since sequence number `before`."""
        self._growing = {uid: seq for uid, seq in self._growing.items() if seq >= before}

    def state(self) -> dict[str, Any]:
        """A tree of arrays and numbers."""
        return {
            "seen": self.seen,
            "recent": np.sort(self._recent.keys()),
            "older": np.sort(self._older.keys()),
            "growing": np.array(sorted(self._growing), np.uint64),
            "growing_seq": np.array(
                [self._growing[uid] for uid in sorted(self._growing)], np.int64
            ),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        self.seen = state["seen"]
        self._recent, self._older = SlotTable.of(state["recent"]), SlotTable.of(state["older"])
        self._growing = dict(
            zip(state["growing"].tolist(), state["growing_seq"].tolist(), strict=True)
        )
