"""How far traffic differs from what the model of contacts was trained on: counts, no decision.

A value counts as outside when it is below the 5th or above the 95th percentile of the benign
contacts of training. About 10 % of the values of traffic like theirs are; fewer where a column has
few values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ids_plugin.detectors.contact_profile.model import NAMES
from ids_plugin.schema.window import Floats

TOLERANCE = 1e-3
"""percentiles are rounded"""


class DriftCounts:
    """Values of each column, and how many of them lie outside of the training range."""

    def __init__(self, baselines: Mapping[str, Sequence[float]]) -> None:
        """`baselines`: column → 5th, 50th and 95th percentile; others are never outside."""
        self._low = np.array(
            [baselines[name][0] if name in baselines else np.nan for name in NAMES]
        )
        self._high = np.array(
            [baselines[name][2] if name in baselines else np.nan for name in NAMES]
        )
        self.outside = np.zeros(len(NAMES), np.int64)
        self.known = np.zeros(len(NAMES), np.int64)

    def add(self, features: Floats) -> None:
        """Counts the rows of (m, NAMES), NaN where unknown."""
        is_outside = (features < self._low - TOLERANCE) | (features > self._high + TOLERANCE)
        self.outside += is_outside.sum(axis=0)
        self.known += (~np.isnan(features) & ~np.isnan(self._low)).sum(axis=0)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Column → values outside, values known; columns of which nothing is known left out."""
        return {
            name: (int(outside), int(known))
            for name, outside, known in zip(NAMES, self.outside, self.known, strict=True)
            if known
        }

    def state(self) -> dict[str, Any]:
        """The counts, by column."""
        return {name: list(numbers) for name, numbers in self.counts().items()}

    def restore(self, state: Mapping[str, Sequence[int]]) -> None:
        """Takes up a `state`, in place of its own; columns that it doesn't know begin anew."""
        for index, name in enumerate(NAMES):
            self.outside[index], self.known[index] = state.get(name, (0, 0))
