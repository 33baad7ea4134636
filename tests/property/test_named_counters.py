"""Named counters equal a count written for reading; where batches end changes nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin import checkpoint
from ids_plugin.windows.named_counters import (
    SECOND_US,
    Counter,
    CounterFacts,
    Ints,
    RollingCounters,
)
from tests.property import reference_counters

COUNTERS = (
    Counter("plain", ("host",), "failed", (10, 600)),
    Counter("distinct", ("host",), "failed", (10, 60, 600), ("peer",)),
    Counter("sum", ("host", "peer"), "failed", (60,), (), "sent"),
    Counter("distinct_sum", ("host",), "failed", (60,), ("peer",), "sent"),
    Counter("of_another", ("peer",), "failed", (60, 3600), ("host",), read=("host",)),
)
records = st.fixed_dictionaries(
    {
        "gap": st.sampled_from([0, 0, 1, 5, 9, 10, 59, 60, 599, 600, 4000]),
        "host": st.integers(1, 3),
        "peer": st.integers(1, 5),
        "failed": st.sampled_from([True, True, False]),
        "sent": st.integers(0, 50),
        "connection": st.sampled_from([None, None, None, 1, 2]),
    }
)


def facts_of(drawn: list[dict[str, Any]]) -> CounterFacts:
    """Facts of drawn records; those of a connection have its host and peer."""
    rows, seen = [], set()
    for number, record in enumerate(drawn):
        name = record["connection"]
        same = {"host": 1, "peer": name} if name else {}
        row = record | same | {"growing": name is not None, "replaces": name in seen}
        rows.append(row | {"connection": name or 100 + number})
        seen |= {name} - {None}

    def column(name: str, kind: type[np.generic]) -> Any:
        return np.array([row[name] for row in rows], kind)

    return CounterFacts(
        np.cumsum(column("gap", np.int64)) * SECOND_US,
        {name: column(name, np.uint64) for name in ("host", "peer", "connection")},
        {name: column(name, np.bool_) for name in ("failed", "growing", "replaces")},
        {"sent": column("sent", np.int64)},
    )


def part(facts: CounterFacts, low: int, high: int) -> CounterFacts:
    """Rows `low` to `high`."""
    cut: Any = [
        {name: values[low:high] for name, values in columns.items()}
        for columns in (facts.keys, facts.masks, facts.values)
    ]
    return CounterFacts(facts.clock[low:high], *cut)


def run(
    facts: CounterFacts, edges: list[int], visible: int, *, stops: bool = False
) -> tuple[dict[str, list[int]], bytes]:
    """Numbers by column, and the state at the end; with `stops` every batch has another process."""
    rolling = RollingCounters(COUNTERS, visible)
    numbers: dict[str, list[int]] = {
        counter.column(horizon): [] for counter in COUNTERS for horizon in counter.horizons
    }
    for low, high in pairwise(edges):
        if stops:
            saved = checkpoint.dump(rolling.state())
            rolling = RollingCounters(COUNTERS, visible)
            rolling.restore(checkpoint.load(saved))
        if low == high:
            continue
        for name, column in rolling.step(part(facts, low, high)).items():
            numbers[name] += column.tolist()
    return numbers, checkpoint.dump(rolling.state())


drawn_records = st.lists(records, min_size=1, max_size=60)
visible_events = st.sampled_from([1, 4, 17, 1000])


@settings(max_examples=80, deadline=None)
@given(drawn_records, visible_events)
def test_numbers_equal_the_reference(drawn: list[dict[str, Any]], visible: int) -> None:
    facts = facts_of(drawn)
    numbers, _ = run(facts, [0, len(drawn)], visible)
    for counter in COUNTERS:
        for horizon in counter.horizons:
            expected = reference_counters.count(counter, facts, horizon, visible)
            assert numbers[counter.column(horizon)] == expected, counter.column(horizon)


@settings(max_examples=80, deadline=None)
@given(drawn_records, visible_events, st.lists(st.integers(0, 60), max_size=8), st.booleans())
def test_where_batches_end_changes_neither_numbers_nor_state(
    drawn: list[dict[str, Any]], visible: int, cuts: list[int], stops: bool
) -> None:
    facts = facts_of(drawn)
    edges = [0, *sorted(cut % (len(drawn) + 1) for cut in cuts), len(drawn)]
    whole = run(facts, [0, len(drawn)], visible)
    assert run(facts, edges, visible, stops=stops) == whole
    assert run(facts, list(range(len(drawn) + 1)), visible) == whole


@pytest.mark.parametrize("size", [7, 1_000, 30_000])
def test_what_is_forgotten_on_the_way_changes_nothing(size: int) -> None:
    rng, rows = np.random.default_rng(5), 30_000
    clock: Ints = np.cumsum(rng.choice([0, 1, 30], rows)) * SECOND_US
    keys = {
        "host": rng.integers(1, 400, rows).astype(np.uint64),
        "peer": rng.integers(1, 4000, rows).astype(np.uint64),
        "connection": np.arange(rows).astype(np.uint64),
    }
    masks = {"failed": rng.random(rows) < 0.8, "growing": np.zeros(rows, np.bool_)}
    facts = CounterFacts(
        clock, keys, masks | {"replaces": masks["growing"]}, {"sent": rng.integers(0, 9, rows)}
    )
    edges = [*range(0, rows, size), rows]
    assert run(facts, edges, 2_000) == run(facts, [0, 11, rows], 2_000)


def test_what_leaves_because_of_the_limit_is_counted() -> None:
    calm: dict[str, Any] = {
        "gap": 1, "host": 1, "peer": 1, "failed": True, "sent": 1, "connection": None
    }  # fmt: skip
    rolling = RollingCounters(COUNTERS[:1], visible=3)
    rolling.step(facts_of([calm] * 8))
    assert rolling.left_early == {"plain": 5}
    rolling.step(facts_of([calm | {"gap": 60}]))
    assert rolling.left_early == {"plain": 5}, "what time takes away is not counted"
