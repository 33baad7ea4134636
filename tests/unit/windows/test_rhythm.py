"""Rhythm of a window: known numbers by the standard library, and null where there is too little to
say."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin.schema.window import STEPS
from ids_plugin.windows import Sequences, rhythm, spec

NAMES = [feature.name for feature in rhythm.FEATURES]


def of(starts: list[float], sent: list[float | None], failed: list[bool]) -> dict[str, float]:
    """Features of one window; lists begin with the flow itself, `starts` are seconds before it."""
    padding = [np.nan] * (STEPS - len(starts))
    features = {feature.name: np.full((1, STEPS), np.nan, np.float32) for feature in spec().flow}
    features["orig_volume"][0, : len(sent)] = [np.nan if one is None else one for one in sent]
    features["failed"][0, : len(failed)] = failed
    columns = rhythm.PLUGIN.compute(Sequences(np.array([[*starts, *padding]]), features))
    return {name: float(column[0]) for name, column in zip(NAMES, columns, strict=True)}


def wanted(starts: list[float], sent: list[float], failed: list[bool]) -> dict[str, Any]:
    intervals = [abs(after - before) for before, after in pairwise(starts)]
    median, mean = statistics.median(intervals), statistics.fmean(intervals)
    several = len(intervals) > 1
    away = statistics.median(abs(one - median) for one in intervals)
    return {
        "window_flows": len(intervals),
        "interval_median": np.log1p(median),
        "interval_cv": statistics.pstdev(intervals) / max(mean, 1e-3) if several else np.nan,
        "interval_mad": away / max(median, 1e-3) if several else np.nan,
        "window_span": np.log1p(sum(intervals)),
        "same_size": statistics.fmean(abs(one - sent[0]) < 0.02 for one in sent[1:]),
        "window_failed": statistics.fmean(failed),
        "window_upload": statistics.fmean(sent),
        "size_spread": statistics.pstdev(sent),
    }


steps = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(0, 20), st.booleans()),
    min_size=1,
    max_size=STEPS - 1,
)


@settings(max_examples=80, deadline=None)
@given(steps, st.integers(0, 20))
def test_numbers_are_those_of_the_standard_library(
    drawn: list[tuple[int, int, bool]], own: int
) -> None:
    starts = [0.0, *np.cumsum([gap / 4 for gap, _, _ in drawn]).tolist()]
    sent = [float(own), *(float(size) for _, size, _ in drawn)]
    failed = [True, *(lost for _, _, lost in drawn)]
    assert of(starts, list(sent), failed) == pytest.approx(
        wanted(starts, sent, failed), rel=1e-4, abs=1e-4, nan_ok=True
    )


def test_a_beacon_has_no_spread() -> None:
    found = of([0, 60, 120, 180, 240], [5.0] * 5, [False] * 5)
    assert (found["interval_cv"], found["interval_mad"], found["size_spread"]) == (0, 0, 0)
    assert (found["same_size"], found["window_flows"]) == (1, 4)
    assert np.expm1(found["interval_median"]) == pytest.approx(60)


def test_a_lone_flow_has_no_rhythm() -> None:
    found = of([0], [5.0], [False])
    assert {name for name in NAMES if np.isnan(found[name])} == {
        "interval_median", "interval_cv", "interval_mad", "same_size"
    }  # fmt: skip
    assert (found["window_flows"], found["window_span"], found["window_upload"]) == (0, 0, 5)


def test_unknown_volumes_are_no_volumes() -> None:
    found = of([0, 1, 2], [None, None, None], [False] * 3)
    assert np.isnan([found["window_upload"], found["size_spread"], found["same_size"]]).all()
    found = of([0, 1, 2, 3], [4.0, None, 8.0, 4.0], [False] * 4)
    assert found["window_upload"] == pytest.approx(16 / 3)
    assert found["same_size"] == 0.5
