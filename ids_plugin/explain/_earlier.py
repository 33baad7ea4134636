"""Which of the earlier flows a decision rests on: what the network says it looked at where that proves true, else what
taking flows out does to the decision."""

from __future__ import annotations

from collections.abc import Callable
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
_PAIR = 2
"""flows taken out together when attention is tested: with all other pairs that is one run of a network (64 windows)"""
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
    sets = [[at] for at in present.tolist()]
    if len(present) > _PAIR:
        sets += [list(pair) for pair in combinations(present.tolist(), _PAIR)]
    falls = _falls(steps, mask, usual, sets, odds)
    singles, pairs = falls[: len(present)], falls[len(present) : -1]
    if attention is not None and trust == "tested" and len(pairs):
        looked_at = sorted(_strongest(attention, present)[:_PAIR].tolist())
        if pairs[sets.index(looked_at) - len(present)] > max(float(pairs.mean()), _TELLING):
            return Earlier(attention, _strongest(attention, present), "attention")
    weights = np.zeros(STEPS)
    weights[present], weights[-1] = singles, falls[-1]
    weights = np.where(weights > _TELLING, weights, 0.0)
    if not weights[present].any():
        return Earlier(alike, present[:0], "no_single_flow")
    named = _strongest(weights, present)
    return Earlier(weights / weights.sum(), named[weights[named] > 0], "step_occlusion")


def without(steps: Floats, mask: Bools, taken: Ints) -> tuple[Floats, Bools]:
    """The window without some of its earlier flows: padding stands in their place."""
    values, left = steps.copy(), mask.copy()
    values[:, taken], left[:, taken] = np.nan, False
    return values, left


def _strongest(weights: Doubles, present: Ints) -> Ints:
    return present[np.argsort(-weights[present], kind="stable")][:NAMED_FLOWS]


def _falls(steps: Floats, mask: Bools, usual: Floats, sets: list[list[int]], odds: Odds) -> Doubles:
    """(sets + 1) fall of the log-odds without each set of earlier flows; the last one's with the flow itself usual."""
    rows = len(sets) + 2
    values, left = np.repeat(steps, rows, axis=0), np.repeat(mask, rows, axis=0)
    for row, taken in enumerate(sets, 1):
        values[row, taken], left[row, taken] = np.nan, False
    values[-1, -1] = usual
    given = odds(values, left)
    return np.asarray(given[0] - given[1:])
