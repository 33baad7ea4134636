"""Order statistics of short columns of bytes are those of numpy, column by column."""

from __future__ import annotations

import numpy as np
import pytest

from ids_plugin.windows.sorting import (
    MISSING,
    Bytes,
    count_known,
    entropy,
    largest_cluster,
    middle,
    quantile,
    sort_columns,
)


def columns(steps: int, seed: int = 5) -> Bytes:
    """Some columns, a third of them with unknown values, one without any known."""
    values = np.random.default_rng(seed).integers(0, 251, (steps, 333)).astype(np.uint8)
    values[steps // 2 :, ::3] = MISSING
    values[:, 0] = MISSING
    return values


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 24, 31])
def test_columns_are_sorted_and_the_input_stays(steps: int) -> None:
    values = columns(steps)
    before = values.copy()
    assert np.array_equal(sort_columns(values), np.sort(values, axis=0))
    assert np.array_equal(values, before)


def test_quantiles_are_linear_between_two_known_values() -> None:
    ordered = sort_columns(columns(24))
    known = count_known(ordered)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        made = quantile(ordered, known, share)
        assert np.isnan(made[0])
        for column, value in list(zip(ordered.T, made.tolist(), strict=True))[1:]:
            expected = np.quantile(column[column != MISSING].astype(float), share)
            assert value == pytest.approx(expected, abs=1e-3)


def test_the_middle_is_a_value_of_the_column() -> None:
    ordered = sort_columns(columns(24))
    known = count_known(ordered)
    assert known[0] == 0
    middles = middle(ordered, known)
    assert middles[0] == MISSING
    for column, value in list(zip(ordered.T, middles, strict=True))[1:]:
        assert value == np.sort(column[column != MISSING])[((column != MISSING).sum() - 1) // 2]


@pytest.mark.parametrize("width", [0, 2, 9])
def test_clusters_hold_what_lies_within_a_width(width: int) -> None:
    ordered = sort_columns(columns(24) // np.uint8(3))
    ordered[ordered == MISSING // 3] = MISSING
    for column, size in zip(ordered.T, largest_cluster(ordered, width).tolist(), strict=True):
        known = column[column != MISSING].astype(int)
        sizes = [((known >= low) & (known <= low + width)).sum() for low in known]
        assert size == max(sizes, default=0)


def test_entropy_is_a_share_of_the_largest_possible() -> None:
    same, different = np.full((24, 1), 7, np.uint8), np.arange(24, dtype=np.uint8)[:, None] * 8
    single = np.full((24, 1), MISSING, np.uint8)
    single[0] = 4
    values = sort_columns(np.concatenate([same, different, single], axis=1))
    shares = entropy(values, count_known(values), 2)
    assert shares[0] == pytest.approx(0, abs=1e-6)
    assert shares[1] == pytest.approx(1, abs=1e-6)
    assert np.isnan(shares[2])
