"""Profiles of contacts equal those of a reference; where batches end changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin import checkpoint
from ids_plugin.windows.contacts import (
    CHUNK_FLOWS,
    FEATURE_NAMES,
    ContactFlows,
    Contacts,
    DistinctCounts,
)
from ids_plugin.windows.sorting import MISSING
from tests.property import reference_contacts

MONTH_S = 31 * 86_400
COMPARED = ("rows", "contact", "count", "features", "peer_hosts", "tokens")


def made_flows(rows: int, seed: int, *, hosts: int = 3, peers: int = 5) -> ContactFlows:
    """Flows of a few contacts, drawn from `seed`; now and then a month passes."""
    rng = np.random.default_rng(seed)
    gaps = rng.choice([0, 1, 20, 3600, MONTH_S], rows, p=[0.1, 0.3, 0.4, 0.19, 0.01])
    start = np.cumsum(gaps * 1_000_000 + rng.integers(0, 900_000, rows))
    duration = rng.integers(0, 5_000_000, rows)
    return ContactFlows(
        host=rng.integers(1, hosts + 1, rows).astype(np.uint64),
        peer=rng.integers(1, peers + 1, rows).astype(np.uint64),
        port=rng.choice([80, 443, 4444, 22], rows),
        proto=rng.choice([6, 17], rows),
        start_us=start,
        clock_us=np.maximum.accumulate(start + duration),
        duration_us=duration,
        up=rng.choice([np.nan, 100.0, 104.0, 9000.0], rows),
        down=rng.integers(0, 10_000, rows).astype(np.float64),
        outcome=rng.choice([1, 2, 8, 24], rows).astype(np.uint8),
        is_external=rng.random(rows) < 0.5,
        http=rng.choice([0, 3, 7], rows).astype(np.uint8),
        tls=rng.choice([0, 5], rows).astype(np.uint8),
        uri=rng.choice([MISSING, 20, 40], rows).astype(np.uint8),
    )


def run(
    flows: ContactFlows, edges: Sequence[int], *, limit: int = 262_144, stops: bool = False
) -> tuple[dict[str, Any], bytes]:
    """Everything that profiles give, and the state at the end; with `stops`, every batch has
    another process."""
    contacts = Contacts(limit)
    parts: dict[str, list[Any]] = {name: [] for name in COMPARED}
    for low, high in pairwise(edges):
        if stops:
            saved = checkpoint.dump(contacts.state())
            contacts = Contacts(limit)
            contacts.restore(checkpoint.load(saved))
        for rows in contacts.step(flows.part(low, high)):
            parts["rows"].append(rows.row + low)
            parts["tokens"].append(rows.tokens.T)
            for name in ("contact", "count", "features", "peer_hosts"):
                parts[name].append(getattr(rows, name))
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return joined, checkpoint.dump(contacts.state())


def assert_same(left: tuple[dict[str, Any], bytes], right: tuple[dict[str, Any], bytes]) -> None:
    for name, values in left[0].items():
        np.testing.assert_array_equal(values, right[0][name], err_msg=name)
    assert left[1] == right[1], "the state"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 120), st.integers(0, 1 << 32))
def test_features_equal_the_reference(rows: int, seed: int) -> None:
    flows = made_flows(rows, seed, hosts=2, peers=2)
    made, _ = run(flows, [0, rows])
    expected = reference_contacts.profiles(flows)
    assert made["rows"].tolist() == [profile.row for profile in expected]
    assert made["count"].tolist() == [profile.flows for profile in expected]
    assert made["peer_hosts"].tolist() == [profile.peer_hosts for profile in expected]
    for features, profile in zip(made["features"], expected, strict=True):
        values = dict(zip(FEATURE_NAMES, features.tolist(), strict=True))
        for name, value in profile.features.items():
            assert values[name] == pytest.approx(value, rel=1e-5, abs=1e-5, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(0, 1 << 32),
    st.lists(st.integers(0, 300), max_size=8),
    st.booleans(),
)
def test_where_batches_end_changes_neither_features_nor_state(
    rows: int, seed: int, cuts: list[int], stops: bool
) -> None:
    flows = made_flows(rows, seed)
    edges = [0, *sorted(cut % (rows + 1) for cut in cuts), rows]
    whole = run(flows, [0, rows])
    assert_same(run(flows, edges, stops=stops), whole)
    assert_same(run(flows, range(0, rows + 1)), whole)


@pytest.mark.parametrize("size", [999, CHUNK_FLOWS, 70_001])
def test_where_batches_end_changes_nothing_when_contacts_leave(size: int) -> None:
    rows = 2 * CHUNK_FLOWS + 5_000
    flows = made_flows(rows, 6, peers=9_000)
    whole = run(flows, [0, rows], limit=2_000)
    assert_same(run(flows, [*range(0, rows, size), rows], limit=2_000, stops=True), whole)


@pytest.mark.parametrize("size", [997, CHUNK_FLOWS])
def test_distinct_counts_are_bounded_and_equal_in_any_batches(size: int) -> None:
    rng, rows = np.random.default_rng(3), 3 * CHUNK_FLOWS
    group = rng.integers(1, 3_000, rows).astype(np.uint64)
    member = rng.integers(1, 500, rows).astype(np.uint64)
    is_marked = rng.random(rows) < 0.5

    def counted(edges: Sequence[int]) -> tuple[list[Any], bytes]:
        counts = DistinctCounts(limit=1_000)
        parts = [
            counts.step(group[low:high], member[low:high], is_marked[low:high])
            for low, high in pairwise(edges)
        ]
        state = counts.state()
        assert len(state["groups"]) <= 1_000
        assert len(state["members"]) <= 4_000
        return [np.concatenate(column).tolist() for column in zip(*parts, strict=True)], (
            checkpoint.dump(state)
        )

    assert counted([*range(0, rows, size), rows]) == counted([0, rows])


def test_distinct_counts_count_members_once_and_the_marked_among_them() -> None:
    counts = DistinctCounts()
    group = np.array([1, 1, 2, 1, 1], np.uint64)
    member = np.array([7, 8, 7, 7, 9], np.uint64)
    tallies = counts.step(group, member, np.array([True, False, True, False, True]))
    assert tallies.members.tolist() == [1, 2, 1, 2, 3]
    assert tallies.is_new.tolist() == [True, True, True, False, True]
    assert tallies.marked.tolist() == [1, 1, 1, 1, 2]


def test_a_group_that_left_begins_anew() -> None:
    counts = DistinctCounts(limit=4)
    once = np.array([1], np.uint64)
    counts.step(once, once)
    many = np.arange(10, 9 + CHUNK_FLOWS).astype(np.uint64)
    counts.step(many, many)
    tallies = counts.step(once, once)
    assert (tallies.members.tolist(), tallies.is_new.tolist()) == ([1], [True])


def beacon(flows: int) -> ContactFlows:
    """A host that calls one peer every minute, on one port, with as many bytes each time."""
    every_minute = np.arange(flows) * 60_000_000
    made = made_flows(flows, 2)
    return replace(
        made,
        host=np.ones(flows, np.uint64),
        peer=np.ones(flows, np.uint64),
        port=np.full(flows, 4444),
        proto=np.full(flows, 6),
        start_us=every_minute,
        clock_us=every_minute,
        duration_us=np.zeros(flows, np.int64),
        up=np.full(flows, 100.0),
    )


def test_a_beacon_is_regular() -> None:
    made, _ = run(beacon(30), [0, 30])
    last = dict(zip(FEATURE_NAMES, made["features"][-1].tolist(), strict=True))
    assert (last["gap_mode"], last["gap_mad"], last["up_mode"]) == (1, 0, 1)
    assert np.expm1(last["gap_median"]) * 0.05 == pytest.approx(60, rel=0.04)
    assert last["flows"] == pytest.approx(np.log1p(30))
    assert last["port_peers"] == pytest.approx(np.log(2))
    assert last["rate"] == pytest.approx(np.log1p(60), rel=0.01)


def test_a_pause_of_a_month_begins_the_contact_anew() -> None:
    start = np.r_[np.arange(6), np.arange(6) + MONTH_S] * 1_000_000
    flows = replace(beacon(12), start_us=start, clock_us=start)
    assert run(flows, [0, 12])[0]["count"].tolist() == [5, 6, 5, 6]


def test_the_limit_forgets_the_least_recently_seen() -> None:
    flows = replace(
        made_flows(CHUNK_FLOWS, 4, hosts=1), peer=np.arange(CHUNK_FLOWS).astype(np.uint64)
    )
    contacts = Contacts(limit=1_000)
    contacts.step(flows)
    assert len(contacts) == 750
    assert contacts.left_early == CHUNK_FLOWS - 750
