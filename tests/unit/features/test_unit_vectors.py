"""Unit vectors in whole numbers: near what logarithms and square roots give, and defined for every
count."""

from __future__ import annotations

import math

import numpy as np

from ids_plugin.features.unit_vectors import FINE, logs, unit
from ids_plugin.schema.uniflow import LARGEST


def test_logarithms_are_exact_at_powers_of_two_and_near_between() -> None:
    counts = np.array([0, 1, 3, 2**16 - 1, 2**31 - 1, 5, 1000, 123_456_789, LARGEST])
    found = logs(counts)
    assert found[:5].tolist() == [0, 256, 512, 16 * 256, 31 * 256]
    assert np.allclose(found, [256 * math.log2(1 + count) for count in counts.tolist()], atol=24)
    assert logs(np.array([LARGEST + 7])) == logs(np.array([LARGEST]))


def test_rows_have_length_one_and_keep_their_direction() -> None:
    counts = np.random.default_rng(1).integers(0, 10**6, (50, 16))
    found = unit(counts, FINE) / FINE
    true = logs(counts) / np.linalg.norm(logs(counts), axis=1, keepdims=True)
    assert np.allclose(found, true, atol=2e-4)


def test_a_row_of_zeros_stays_one_and_one_number_alone_is_the_whole_length() -> None:
    assert unit(np.zeros((1, 7), np.int64), 127).tolist() == [[0] * 7]
    assert unit(np.array([[0, 9, 0]]), 127).tolist() == [[0, 127, 0]]
