"""Which of the earlier flows a decision rests on: what the network says it looked at where that proves true, else what
taking flows out does to the decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.schema.window import STEPS, Bools, Floats, Ints

Doubles = npt.NDArray[np.float64]
Odds = Callable[[Floats, Bools], Doubles]
"""steps (m, STEPS, F), mask (m, STEPS) → (m) log-odds of a class against benign, the table as it is"""
Trust = Literal["tested", "always", "never"]
"""attention is shown where it passes the test below; or untested; or not at all"""

NAMED_FLOWS = 3
_CHANCE = 0.1
"""Attention is the reason where no more than this share of all pairs of flows lowers the log-odds as much as the two it
looked at most: an exact permutation test. All pairs and all single flows are one run of a network (64 windows)."""
_TELLING = 1e-6
"""a fall of log-odds below is rounding"""


class Earlier(NamedTuple):
    """Weights of the steps of one window, and how they were found."""

    weights: Doubles
    """(STEPS) sums to 1 over the steps that are there"""
    named: Ints
    """earlier steps, strongest first, NAMED_FLOWS at most; none where no flow stands out"""
    method: str
    """`attention`, `step_occlusion`, `no_single_flow`; empty where there is no earlier flow"""


def earlier(
    steps: Floats, mask: Bools, usual: Floats, attention: Doubles | None, odds: Odds, trust: Trust = "tested"
) -> Earlier:
    """
    Args:
        steps: (1, STEPS, F).
        mask: (1, STEPS).
        usual: (F) what is usual of a step.
        attention: (STEPS) as the network gives it.
        odds: judges changed sequences.
        trust: when attention is shown.
    """
    present = np.flatnonzero(mask[0, :-1])
    alike = mask[0] / mask[0].sum()
    if not len(present):
        return Earlier(alike, present, "")
    if attention is not None and trust == "always":
        return Earlier(attention, _strongest(attention, present), "attention")
    pairs = list(combinations(present.tolist(), 2)) if len(present) > 2 else []
    falls = _falls(steps, mask, usual, [*((at,) for at in present.tolist()), *pairs], odds)
    if attention is not None and trust == "tested" and pairs:
        looked_at = tuple(sorted(_strongest(attention, present)[:2].tolist()))
        at_least = np.array(falls.together) >= falls.together[pairs.index(looked_at)]
        if max(falls.together) > _TELLING and at_least.sum() <= max(1.0, _CHANCE * len(pairs)):
            return Earlier(attention, _strongest(attention, present), "attention")
    weights = falls.shares(present, pairs)
    if not weights[present].any():
        return Earlier(alike, present[:0], "no_single_flow")
    named = _strongest(weights, present)
    return Earlier(weights / weights.sum(), named[weights[named] > 0], "step_occlusion")


class _Falls(NamedTuple):
    """How far the log-odds fall."""

    alone: Doubles
    """without one earlier flow"""
    together: Doubles
    """without two"""
    own: float
    """with the flow itself as usual"""

    def shares(self, present: Ints, pairs: Sequence[tuple[int, int]]) -> Doubles:
        """(STEPS) what each flow is worth: the mean of its fall alone and of what it adds to those of the others, the
        first two terms of a Shapley value; 0 where that isn't for the class."""
        alone, added = np.zeros(STEPS), np.zeros(STEPS)
        alone[present] = self.alone
        for (one, other), fall in zip(pairs, self.together.tolist(), strict=True):
            added[one] += (fall - alone[other]) / (len(present) - 1)
            added[other] += (fall - alone[one]) / (len(present) - 1)
        worth = (alone + added) / 2 if pairs else alone
        worth[-1] = self.own
        return np.where(worth > _TELLING, worth, 0.0)


def without(steps: Floats, mask: Bools, taken: Ints) -> tuple[Floats, Bools]:
    """The window without some of its earlier flows: padding stands in their place."""
    values, left = steps.copy(), mask.copy()
    values[:, taken], left[:, taken] = np.nan, False
    return values, left


def _strongest(weights: Doubles, present: Ints) -> Ints:
    return present[np.argsort(-weights[present], kind="stable")][:NAMED_FLOWS]


def _falls(steps: Floats, mask: Bools, usual: Floats, sets: Sequence[tuple[int, ...]], odds: Odds) -> _Falls:
    """Every set of flows taken out, the single ones first."""
    rows = len(sets) + 2
    values, left = np.repeat(steps, rows, axis=0), np.repeat(mask, rows, axis=0)
    for row, taken in enumerate(sets, 1):
        values[row, list(taken)], left[row, list(taken)] = np.nan, False
    values[-1, -1] = usual
    given = odds(values, left)
    falls, count = given[0] - given[1:], sum(len(taken) == 1 for taken in sets)
    return _Falls(falls[:count], falls[count:-1], float(falls[-1]))
