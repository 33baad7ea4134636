"""Thresholds from normal traffic and a budget: split conformal prediction (Papadopoulos et al.
2002).

How strange a flow is, is how far its score's log-odds are above its class's threshold; so one shift
moves all thresholds and the balance between the classes stays that of training. Of n normal flows
floor((n + 1) α) - 1 may be over. If the flows to come are exchangeable with these, each is over
with a probability of at most α.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Ints
from ids_plugin.scoring import Doubles

LOWEST_THRESHOLD = 0.8
"""score below which nothing is called an attack, whatever the budget: what the gate is trained to
let pass"""


class Fitted(NamedTuple):
    """Thresholds by class, and the shift of their log-odds: -inf where they stand as low as they
    may."""

    thresholds: dict[str, float]
    shift: float


def flows_needed(alpha: float) -> int:
    """How many normal flows a false-alarm rate of α takes at least: the smallest n with n ≥ 1/α -
    1."""
    count = max(math.ceil(1 / alpha - 1), 0)
    while count and allowed_over(count - 1, alpha) >= 0:
        count -= 1
    while allowed_over(count, alpha) < 0:
        count += 1
    return count


def allowed_over(count: int, alpha: float) -> int:
    """How many of `count` normal flows may be over; -1 where they are too few to say."""
    return math.floor((count + 1) * alpha) - 1


def fit(
    score: Doubles,
    label: Ints,
    over: int,
    thresholds: Mapping[str, float],
    least: float,
    *,
    only_raise: bool = False,
) -> Fitted:
    """Thresholds that at most `over` of the normal flows reach.

    `score`, `label` (m): of all that score `least` or more, whatever the number of the others. A
    class whose threshold is 1 or more, or isn't there, is off and stays so. `only_raise` keeps
    thresholds from falling below the given ones.
    """
    own_thresholds = np.array([thresholds.get(name, np.inf) for name in CLASSES])
    log_odds = np.array([_log_odds(limit) for limit in own_thresholds.tolist()])
    nonconformity = (
        np.array([_log_odds(value) for value in score.tolist()])
        - np.where(own_thresholds < 1.0, log_odds, 0.0)[label]
    )
    nonconformity[own_thresholds[label] >= 1.0] = -math.inf
    ranked = np.sort(nonconformity)[::-1]
    shift = float(ranked[over]) if over < len(ranked) else -math.inf
    fitted = {}
    for number, name in enumerate(CLASSES):
        if name not in thresholds:
            continue
        limit = float(own_thresholds[number])
        if limit < 1.0:
            limit = max(least, _probability(float(log_odds[number]) + shift))
        ordinary = score[(label == number) & (nonconformity <= shift)]
        if len(ordinary) and ordinary.max() >= limit:
            limit = float(np.nextafter(ordinary.max(), 2.0))
        fitted[name] = max(limit, float(own_thresholds[number])) if only_raise else limit
    return Fitted(fitted, shift)


def _log_odds(probability: float) -> float:
    if 0.0 < probability < 1.0:
        return math.log(probability) - math.log1p(-probability)
    return math.inf if probability >= 1.0 else -math.inf


def _probability(log_odds: float) -> float:
    if log_odds >= 0:
        return 1.0 / (1.0 + math.exp(-log_odds))
    return math.exp(log_odds) / (1.0 + math.exp(log_odds)) if log_odds > -math.inf else 0.0
