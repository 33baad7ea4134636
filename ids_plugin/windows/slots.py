"""A vectorised hash table from 64-bit keys to consecutive slots: what a dictionary would be, a
batch at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Slots = npt.NDArray[np.int64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def mix(left: Keys, right: Keys) -> Keys:
    """A 64-bit hash of two 64-bit values, in order; splitmix64's finaliser (Steele et al. 2014)."""
    value = (left * np.uint64(0xBF58476D1CE4E5B9)) ^ (right + _MULTIPLIER + (left << np.uint64(6)))
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class SlotTable:
    """Open addressing with linear probing; at most half full. Keys are hashes: 0 stands for an
    empty place."""

    def __init__(self, capacity: int = 1024) -> None:
        self.count = 0
        self._keys: Keys = np.zeros(capacity, np.uint64)
        self._slots: npt.NDArray[np.int32] = np.zeros(capacity, np.int32)

    def slots(self, keys: Keys) -> Slots:
        """(n) slot of each key; keys not seen before get the next slots. Equal keys get the
        same."""
        keys = np.where(keys == 0, np.uint64(1), keys)
        if 2 * (self.count + len(keys)) > len(self._keys):
            self._grow(2 * (self.count + len(keys)))
        place = self._home(keys)
        pending = np.arange(len(keys))
        while len(pending):
            here = place[pending]
            wanted = keys[pending]
            empty = self._keys[here] == 0
            if empty.any():
                self._claim(here[empty], wanted[empty])
            pending = pending[self._keys[here] != wanted]
            place[pending] = (place[pending] + 1) & (len(self._keys) - 1)
        return self._slots[place].astype(np.int64)

    def contains(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """(n) whether each key has a slot; adds nothing."""
        keys = np.where(keys == 0, np.uint64(1), keys)
        place, pending = self._home(keys), np.arange(len(keys))
        while len(pending):
            here = self._keys[place[pending]]
            pending = pending[(here != keys[pending]) & (here != 0)]
            place[pending] = (place[pending] + 1) & (len(self._keys) - 1)
        return np.equal(self._keys[place], keys)

    def _claim(self, places: Slots, keys: Keys) -> None:
        """Writes keys to empty places; where several want one, the last gets it and the others
        probe on."""
        self._keys[places] = keys
        turn = np.arange(len(places), dtype=np.int32)
        self._slots[places] = turn
        fresh = places[self._slots[places] == turn]
        self._slots[fresh] = np.arange(self.count, self.count + len(fresh), dtype=np.int32)
        self.count += len(fresh)

    def keep(self, slots: Slots) -> Slots:
        """Forgets all but `slots` (distinct); these get new numbers. Returns (old count) new slot
        or -1."""
        renamed = np.full(self.count, -1, np.int64)
        renamed[slots] = np.arange(len(slots))
        used = self._keys != 0
        keys, old = self._keys[used], self._slots[used]
        is_kept = renamed[old] >= 0
        self._rebuild(keys[is_kept], renamed[old[is_kept]], max(1024, 4 * len(slots)))
        return renamed

    def keys(self) -> Keys:
        """(count) the key of every slot."""
        used = self._keys != 0
        keys = np.zeros(self.count, np.uint64)
        keys[self._slots[used]] = self._keys[used]
        return keys

    @classmethod
    def of(cls, keys: Keys) -> SlotTable:
        """The table whose `keys` these are."""
        table = cls()
        table._rebuild(keys, np.arange(len(keys)), max(1024, 4 * len(keys)))
        return table

    def _home(self, keys: Keys) -> Slots:
        shift = np.uint64(64 - (len(self._keys).bit_length() - 1))
        return ((keys * _MULTIPLIER) >> shift).astype(np.int64)

    def _grow(self, wanted: int) -> None:
        used = self._keys != 0
        self._rebuild(self._keys[used], self._slots[used].astype(np.int64), wanted)

    def _rebuild(self, keys: Keys, slots: Slots, wanted: int) -> None:
        capacity = 1 << max(10, (wanted - 1).bit_length())
        self._keys = np.zeros(capacity, np.uint64)
        self._slots = np.zeros(capacity, np.int32)
        self.count = len(keys)
        place = self._home(keys)
        pending = np.arange(len(keys))
        while len(pending):
            here = place[pending]
            empty = self._keys[here] == 0
            self._keys[here[empty]] = keys[pending[empty]]
            placed = self._keys[here] == keys[pending]
            self._slots[here[placed]] = slots[pending[placed]]
            pending = pending[~placed]
            place[pending] = (place[pending] + 1) & (capacity - 1)
