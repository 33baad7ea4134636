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

NAMED_FLOWS = 2
"""All single flows and all pairs of ten are one run of a network (64 windows): the best of them all is named."""
_CHANCE = 0.1
"""Attention is the reason where no more than this share of all pairs lowers the log-odds as much as the two flows it
looked at most: an exact permutation test."""
_TELLING = 0.1
"""A fall of log-odds below is no reason: the odds change by less than a tenth."""


class Earlier(NamedTuple):
    """Weights of the steps of one window, and how they were found."""

    weights: Doubles
    """(STEPS) sums to 1 over the steps that are there"""
    named: Ints
    """earlier steps, strongest first, NAMED_FLOWS at most; none where no flow stands out"""
    method: str
    """`attention`, `step_occlusion`, `no_single_flow`; empty where there is no earlier flow"""


def earlier(
    steps: Floats,
    mask: Bools,
    usual: Floats,
    attention: Doubles | None,
    odds: Odds,
    trust: Trust = "tested",
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
    looked_at = present[:0] if attention is None else _strongest(attention, present)
    if attention is not None and trust == "always":
        return Earlier(attention, looked_at, "attention")
    pairs = list(combinations(present.tolist(), 2)) if len(present) > NAMED_FLOWS else []
    falls, own = _falls(steps, mask, usual, [*((at,) for at in present.tolist()), *pairs], odds)
    if attention is not None and trust == "tested" and pairs:
        fall = falls[tuple(sorted(looked_at.tolist()))]
        if fall > _TELLING and sum(falls[pair] >= fall for pair in pairs) <= max(
            1.0, _CHANCE * len(pairs)
        ):
            return Earlier(attention, looked_at, "attention")
    best = max(falls, key=lambda taken: falls[taken])
    if falls[best] < _TELLING:
        return Earlier(alike, present[:0], "no_single_flow")
    weights = np.zeros(STEPS)
    for at in best:
        weights[at] = max(_share(at, best, falls), 0.0)
    named = np.array(
        sorted((at for at in best if weights[at] > 0), key=lambda at: -weights[at]), np.int64
    )
    weights[-1] = max(own, 0.0)
    return Earlier(weights / weights.sum(), named, "step_occlusion")


def _share(at: int, taken: tuple[int, ...], falls: dict[tuple[int, ...], float]) -> float:
    """What one of one or two flows adds to their fall: its Shapley value."""
    if len(taken) == 1:
        return falls[taken]
    (other,) = (one for one in taken if one != at)
    return (falls[at,] + falls[taken] - falls[other,]) / 2


def without(steps: Floats, mask: Bools, taken: Ints) -> tuple[Floats, Bools]:
    """The window without some of its earlier flows: padding stands in their place."""
    values, left = steps.copy(), mask.copy()
    values[:, taken], left[:, taken] = np.nan, False
    return values, left


def _strongest(weights: Doubles, present: Ints) -> Ints:
    return present[np.argsort(-weights[present], kind="stable")][:NAMED_FLOWS]


def _falls(
    steps: Floats, mask: Bools, usual: Floats, sets: Sequence[tuple[int, ...]], odds: Odds
) -> tuple[dict[tuple[int, ...], float], float]:
    """Fall of the log-odds without each set of flows, and with the flow itself as usual."""
    rows = len(sets) + 2
    values, left = np.repeat(steps, rows, axis=0), np.repeat(mask, rows, axis=0)
    for row, taken in enumerate(sets, 1):
        values[row, list(taken)], left[row, list(taken)] = np.nan, False
    values[-1, -1] = usual
    given = odds(values, left)
    falls = (given[0] - given[1:]).tolist()
    return dict(zip(sets, falls[:-1], strict=True)), falls[-1]
