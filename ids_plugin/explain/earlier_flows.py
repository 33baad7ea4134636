"""Which of the earlier flows a decision rests on.

The network's attention says it where a test confirms it; else occlusion does: how far the decision
falls when flows are taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.schema.window import STEPS, Bools, Floats, Ints

Doubles = npt.NDArray[np.float64]
LogOdds = Callable[[Floats, Bools], Doubles]
"""steps (m, STEPS, F), mask (m, STEPS) → (m) log-odds of a class against benign, the table as it is
"""
Trust = Literal["tested", "always", "never"]
"""attention is shown where it passes the test below; or untested; or not at all"""

NAMED_FLOWS = 2
"""All single flows and all pairs of ten flows are one run of a network (64 windows): the set with
the largest fall is named."""
_MAX_CHANCE_SHARE = 0.1
"""Attention is the reason where no more than this share of all pairs lowers the log-odds as much as
the two flows with the most attention: an exact permutation test."""
_MIN_LOG_ODDS_FALL = 0.1
"""A smaller fall of the log-odds is no reason: the odds change by less than a tenth."""


class EarlierWeights(NamedTuple):
    """Weights of the steps of one window, and how they were found."""

    weights: Doubles
    """(STEPS) sums to 1 over the steps that are there"""
    named: Ints
    """earlier steps, strongest first, NAMED_FLOWS at most; none where no flow stands out"""
    method: str
    """`attention`, `step_occlusion`, `no_single_flow`; empty where there is no earlier flow"""


def weigh_earlier_flows(
    steps: Floats,
    mask: Bools,
    baseline: Floats,
    attention: Doubles | None,
    log_odds: LogOdds,
    trust: Trust = "tested",
) -> EarlierWeights:
    """How much the decision on one window rests on each of its steps.

    Args:
        steps: (1, STEPS, F).
        mask: (1, STEPS).
        baseline: (F) a step of normal traffic.
        attention: (STEPS) as the network gives it.
        log_odds: the log-odds of changed sequences.
        trust: when attention is shown.
    """
    present = np.flatnonzero(mask[0, :-1])
    equal_weights = mask[0] / mask[0].sum()
    if not len(present):
        return EarlierWeights(equal_weights, present, "")
    attended = present[:0] if attention is None else _strongest(attention, present)
    if attention is not None and trust == "always":
        return EarlierWeights(attention, attended, "attention")
    pairs = list(combinations(present.tolist(), 2)) if len(present) > NAMED_FLOWS else []
    falls, own_fall = _log_odds_falls(
        steps, mask, baseline, [*((step,) for step in present.tolist()), *pairs], log_odds
    )
    if attention is not None and trust == "tested" and pairs:
        fall = falls[tuple(sorted(attended.tolist()))]
        if fall > _MIN_LOG_ODDS_FALL and sum(falls[pair] >= fall for pair in pairs) <= max(
            1.0, _MAX_CHANCE_SHARE * len(pairs)
        ):
            return EarlierWeights(attention, attended, "attention")
    best = max(falls, key=lambda removed: falls[removed])
    if falls[best] < _MIN_LOG_ODDS_FALL:
        return EarlierWeights(equal_weights, present[:0], "no_single_flow")
    weights = np.zeros(STEPS)
    for step in best:
        weights[step] = max(_shapley_value(step, best, falls), 0.0)
    named = np.array(
        sorted((step for step in best if weights[step] > 0), key=lambda step: -weights[step]),
        np.int64,
    )
    weights[-1] = max(own_fall, 0.0)
    return EarlierWeights(weights / weights.sum(), named, "step_occlusion")


def _shapley_value(
    step: int, removed: tuple[int, ...], falls: dict[tuple[int, ...], float]
) -> float:
    """What one of one or two flows adds to their fall: its Shapley value."""
    if len(removed) == 1:
        return falls[removed]
    (other,) = (candidate for candidate in removed if candidate != step)
    return (falls[step,] + falls[removed] - falls[other,]) / 2


def without(steps: Floats, mask: Bools, removed: Ints) -> tuple[Floats, Bools]:
    """The window without some of its earlier flows: padding stands in their place."""
    values, present = steps.copy(), mask.copy()
    values[:, removed], present[:, removed] = np.nan, False
    return values, present


def _strongest(weights: Doubles, present: Ints) -> Ints:
    return present[np.argsort(-weights[present], kind="stable")][:NAMED_FLOWS]


def _log_odds_falls(
    steps: Floats, mask: Bools, baseline: Floats, sets: Sequence[tuple[int, ...]], log_odds: LogOdds
) -> tuple[dict[tuple[int, ...], float], float]:
    """Fall of the log-odds without each set of flows, and with the flow itself as usual."""
    rows = len(sets) + 2
    values, present = np.repeat(steps, rows, axis=0), np.repeat(mask, rows, axis=0)
    for row, removed in enumerate(sets, 1):
        values[row, list(removed)], present[row, list(removed)] = np.nan, False
    values[-1, -1] = baseline
    odds = log_odds(values, present)
    falls = (odds[0] - odds[1:]).tolist()
    return dict(zip(sets, falls[:-1], strict=True)), falls[-1]
