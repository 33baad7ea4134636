"""The promise of split conformal thresholds, on scores whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ids_plugin.schema.score import CLASSES
from ids_plugin.training.conformal import Fitted, allowed_over, fit, flows_needed

OWN = dict(zip(CLASSES[1:], (0.99, 0.99, 0.95, 0.97, 0.98, 0.98, 0.995, 1.0), strict=True))


def fitted(score: list[float], label: list[int], over: int, *, only_raise: bool = False) -> Fitted:
    return fit(np.array(score), np.array(label, np.int64), over, OWN, 0.5, only_raise=only_raise)


def over(found: Fitted, score: np.ndarray, label: np.ndarray) -> np.ndarray:
    limits = np.array([found.thresholds.get(name, np.inf) for name in CLASSES])
    return np.asarray(score >= limits[label])


@given(st.floats(1e-5, 1.0))
def test_as_many_flows_are_needed_as_the_theory_says(alpha: float) -> None:
    count = flows_needed(alpha)
    assert count == pytest.approx(max(1 / alpha - 1, 0), abs=1.001)
    assert allowed_over(count, alpha) >= 0
    assert count == 0 or allowed_over(count - 1, alpha) < 0


@pytest.mark.parametrize(("alpha", "count"), [(1.0, 0), (0.5, 1), (0.1, 9), (0.01, 99), (1 / 3, 2)])
def test_the_numbers_at_the_edge(alpha: float, count: int) -> None:
    assert flows_needed(alpha) == count


def test_the_rate_is_kept_on_flows_never_seen() -> None:
    """Mean false-alarm rate over many draws: at most α, and near it, because nothing is given
    away."""
    rng = np.random.default_rng(1)
    alpha, count, rates = 0.02, 400, []
    for _ in range(300):
        score = 1 / (1 + np.exp(-rng.normal(0, 3, 2 * count)))
        label = rng.integers(1, 8, 2 * count)
        found = fit(score[:count], label[:count], allowed_over(count, alpha), OWN, 0.0)
        rates.append(over(found, score[count:], label[count:]).mean())
    assert 0.8 * alpha < np.mean(rates) <= alpha + 3 * np.std(rates) / math.sqrt(len(rates))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.5, 0.9, 0.97, 0.99, 0.995, 0.999, 1 - 1e-12, 1.0]), st.integers(1, 8)
        )
    ),
    st.integers(0, 12),
    st.booleans(),
)
def test_no_more_than_allowed_are_over_whatever_the_ties(
    rows: list[tuple[float, int]], count: int, only_raise: bool
) -> None:
    score, label = np.array([one for one, _ in rows]), np.array([one for _, one in rows], np.int64)
    found = fit(score, label, count, OWN, 0.5, only_raise=only_raise)
    assert over(found, score, label).sum() <= count
    assert all(
        limit >= (OWN[name] if only_raise else 0.5) for name, limit in found.thresholds.items()
    )


def test_classes_keep_their_balance() -> None:
    found = fitted([0.999, 0.9995, 0.6], [1, 3, 2], 0).thresholds

    def odds(limit: float) -> float:
        return limit / (1 - limit)

    shifts = [odds(found[name]) / odds(OWN[name]) for name in CLASSES[1:8]]
    assert shifts == pytest.approx([shifts[0]] * 7, rel=1e-6)
    assert found["flood"] > 0.9995


def test_a_budget_that_nothing_reaches_lowers_thresholds_no_further_than_said() -> None:
    assert set(fitted([], [], 3).thresholds.values()) == {0.5, 1.0}
    assert fitted([], [], 3, only_raise=True).thresholds == OWN


def test_a_class_that_is_off_stays_off_and_costs_nothing() -> None:
    found = fitted([0.9999, 0.99999], [8, 8], 1)
    assert found == fitted([], [], 1)
    assert found.thresholds["other"] == 1.0


def test_certain_scores_of_normal_traffic_switch_a_class_off() -> None:
    found = fitted([1.0], [1], 0)
    assert not over(found, np.array([1.0]), np.array([1]))[0]
