"""The table of slots against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin.windows.slots import Keys, SlotTable, mix

INVERSE = pow(0x9E3779B97F4A7C15, -1, 1 << 64)
keys = st.one_of(
    st.integers(1, 40),
    st.integers(0, 200).map(lambda n: n * INVERSE % (1 << 64) or 1),  # all of one home place
    st.integers(1, (1 << 64) - 1),
)
batches = st.lists(st.lists(keys, max_size=80), max_size=8)


def array(values: list[int]) -> Keys:
    return np.array(values, np.uint64)


def fill(table: SlotTable, known: dict[int, int], batch: list[int]) -> None:
    """Adds a batch to both; a new key may get any of the next slots."""
    before = len(known)
    for key, slot in zip(batch, table.slots(array(batch)).tolist(), strict=True):
        assert known.setdefault(key, slot) == slot
    assert table.count == len(known)
    assert sorted(known.values()) == list(range(len(known)))
    assert all(slot >= before for key, slot in list(known.items())[before:])


@settings(max_examples=80, deadline=None)
@given(batches, st.lists(keys, max_size=30))
def test_slots_are_those_of_a_dictionary(parts: list[list[int]], asked: list[int]) -> None:
    table, known = SlotTable(), dict[int, int]()
    for batch in parts:
        fill(table, known, batch)
    assert table.contains(array(asked)).tolist() == [key in known for key in asked]
    assert table.count == len(known)
    assert table.slots(array(list(known))).tolist() == list(known.values())


@settings(max_examples=80, deadline=None)
@given(st.lists(keys, min_size=1, max_size=200), st.data())
def test_what_is_kept_is_numbered_anew_and_the_rest_forgotten(
    first: list[int], data: st.DataObject
) -> None:
    table, known = SlotTable(), dict[int, int]()
    fill(table, known, first)
    kept = data.draw(st.lists(st.sampled_from(sorted(known.values())), unique=True))
    renamed = table.keep(np.array(kept, np.int64)).tolist()
    assert [renamed[slot] for slot in kept] == list(range(len(kept)))
    assert sorted(renamed) == sorted([-1] * (len(known) - len(kept)) + list(range(len(kept))))
    known = {key: renamed[slot] for key, slot in known.items() if renamed[slot] >= 0}
    fill(table, known, data.draw(st.lists(keys, max_size=80)))


def test_it_grows_past_any_size() -> None:
    table = SlotTable()
    wanted = np.arange(1, 50_001, dtype=np.uint64)
    slots = table.slots(np.concatenate([wanted, wanted]))
    assert (slots[:50_000] == slots[50_000:]).all()
    assert np.array_equal(np.sort(slots[:50_000]), np.arange(50_000))
    assert not table.contains(wanted + np.uint64(50_000)).any()


def test_nothing_in_nothing_out() -> None:
    assert len(SlotTable().slots(array([]))) == 0
    assert len(SlotTable().contains(array([]))) == 0


def test_a_mixture_depends_on_the_order_and_rarely_collides() -> None:
    left, right = (
        side.ravel()
        for side in np.meshgrid(np.arange(300, dtype=np.uint64), np.arange(300, dtype=np.uint64))
    )
    mixed = mix(left, right)
    assert len(np.unique(mixed)) == 90_000
    assert (mix(right, left) == mixed).sum() == 300
