"""Fits what stands above the members: their combination, the thresholds, the prefilter's
threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from ids_plugin.alerts import policy
from ids_plugin.alerts.group_counts import by_key
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.schema.window import Bools, Ints
from ids_plugin.scoring import Doubles
from ids_plugin.training.examples import Examples

FLOOR = 1e-4
"""Probabilities below count as this: a member never says more than 10,000 : 1."""
_OPTIMISER_STEPS = 400
_BENIGN_PASSED = 0.1
"""share of the benign flows that the prefilter may let pass"""
_THRESHOLD_GRID = np.r_[
    np.arange(0.5, 0.95, 0.05), 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999
]


def fit_combination(
    probabilities: Mapping[str, Doubles], held_out: Examples, known: Sequence[int]
) -> dict[str, object]:
    """Weights and biases of least weighted log-loss on networks the members never saw, drawn a
    little towards equal weights and no bias; classes nobody was trained on are left out. `known`
    are the classes of the members."""
    rows = np.flatnonzero(np.isin(held_out.label, known))
    logs = {
        name: np.log(np.maximum(probability[rows][:, list(known)], FLOOR))
        for name, probability in probabilities.items()
    }
    stacked = torch.tensor(np.stack(list(logs.values())))
    target = torch.tensor(np.searchsorted(known, held_out.label[rows]))
    importance = torch.tensor(held_out.weight[rows] / held_out.weight[rows].sum())
    weight = torch.full((len(logs),), 1.0 / len(logs), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(known), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=0.02)
    for _ in range(_OPTIMISER_STEPS):
        optimiser.zero_grad()
        logits = (stacked * weight.abs()[:, None, None]).sum(0) + bias
        each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        pull = ((weight - 1.0 / len(logs)) ** 2).sum() + 0.1 * (bias**2).sum()
        torch.autograd.backward((each * importance).sum() + 0.01 * pull)
        optimiser.step()
    return {
        "method": "multinomial logistic over log-probabilities, at equal odds of benign and attack",
        "weights": dict(
            zip(logs, [round(value, 6) for value in weight.abs().tolist()], strict=True)
        ),
        "bias": {
            CLASSES[label]: round(value, 6)
            for label, value in zip(known, bias.tolist(), strict=True)
        },
        "floor": FLOOR,
    }


@dataclass(frozen=True)
class ScoredNetwork:
    """All flows of one network and their scores, as thresholds and metrics need them."""

    network: str
    flows: pl.DataFrame
    """(n) with labels, as windows give them"""
    scores: Scores

    @property
    def days(self) -> float:
        """Days from the first flow to the last."""
        ts = self.flows["ts"]
        return max((ts.max() - ts.min()).total_seconds(), 1.0) / 86_400  # type: ignore[operator,union-attr]

    def is_attack(self, rows: Ints) -> Bools:
        """(m) which of these flows are attacks."""
        return (self.flows["label"][rows] != "benign").to_numpy()


def false_alerts(network: ScoredNetwork) -> int:
    """Alert groups of the flows over their threshold that hold no attack flow."""
    rows = np.flatnonzero(network.scores.over)
    flagged = policy.flag(network.flows, network.scores, rows)
    return by_key(flagged).count_without(network.is_attack(rows))


def fit_thresholds(
    networks: Sequence[ScoredNetwork], known: Sequence[int], false_per_day: float
) -> dict[str, float]:
    """The thresholds that find most activities, each class counting the same, with at most
    `false_per_day` alerts that hold no attack flow.

    A knapsack over classes (dynamic programming), exact where classes share no alert group. What
    external originators do is one group whatever its class, so the alerts of all classes together
    are counted in the end, and the budget is lowered until they keep to it; of equals the
    strictest.
    """
    budget = int(false_per_day * sum(network.days for network in networks))
    choices = {label: _choices(networks, label) for label in known if label != 0}
    best = _best_by_cost(choices, budget)
    spent = budget
    while True:
        affordable = [choice for cost, choice in best.items() if cost <= spent]
        thresholds = max(affordable, key=lambda choice: choice[0])[1]
        judged = [with_thresholds(network, thresholds) for network in networks]
        if spent == 0 or sum(map(false_alerts, judged)) <= budget:
            return thresholds
        spent -= 1


def _best_by_cost(
    choices: Mapping[int, Sequence[ThresholdChoice]], budget: int
) -> dict[int, tuple[float, dict[str, float]]]:
    """False alerts → the largest sum of found shares that they buy, and its thresholds by class."""
    best: dict[int, tuple[float, dict[str, float]]] = {0: (0.0, {})}
    for label, of_class in choices.items():
        reached: dict[int, tuple[float, dict[str, float]]] = {}
        for spent, (value, chosen) in best.items():
            for choice in of_class:
                cost = spent + choice.false_alerts
                total = value + choice.found_share
                if cost <= budget and total > reached.get(cost, (-1.0, {}))[0]:
                    reached[cost] = total, chosen | {CLASSES[label]: choice.threshold}
        best = reached
    return best


class ThresholdChoice(NamedTuple):
    """What one threshold of one class gives."""

    threshold: float
    false_alerts: int
    """alert groups without an attack flow"""
    found_share: float
    """of the class's activities"""


def _choices(networks: Sequence[ScoredNetwork], label: int) -> list[ThresholdChoice]:
    """What each threshold of the grid gives, the strictest first.

    Above the grid stands a threshold that nothing reaches, so that there is always one that costs
    nothing.
    """
    thresholds = _THRESHOLD_GRID[::-1]
    false = np.zeros(len(thresholds), np.int64)
    found_counts, activities = np.zeros(len(thresholds), np.int64), 0
    for network in networks:
        false += count_false_alerts(network, label, thresholds)
        surest = _surest_flows(network, label)
        found_counts += (surest[None, :] >= thresholds[:, None]).sum(axis=1)
        activities += len(surest)
    found_share = found_counts / max(activities, 1)
    choices = [ThresholdChoice(1.0, 0, 0.0)]
    for threshold, count, part in zip(
        thresholds.tolist(), false.tolist(), found_share.tolist(), strict=True
    ):
        choices.append(ThresholdChoice(round(threshold, 6), count, part))
    return choices


def count_false_alerts(network: ScoredNetwork, label: int, thresholds: Doubles) -> Ints:
    """(t) alert groups without an attack flow that the flows of one class make, per threshold.

    Args:
        network: its flows and scores.
        label: index of the class that the bundle gives the flows.
        thresholds: (t) scores.
    """
    scores = network.scores
    rows = np.flatnonzero((scores.label == label) & (scores.score >= thresholds.min()))
    flagged = policy.flag(network.flows, scores, rows)
    flows, is_attack = by_key(flagged), network.is_attack(rows)
    score = flagged.score[flows.position]
    counts = [flows.count_without(is_attack, score >= threshold) for threshold in thresholds]
    return np.array(counts, np.int64)


def _surest_flows(network: ScoredNetwork, label: int) -> Doubles:
    """(a) per activity of a class the highest score of its flows that get this class; -1 where none
    does."""
    is_labelled = network.scores.label == label
    named = network.flows.select("label", "label_detail").with_columns(
        score=pl.Series(np.where(is_labelled, network.scores.score, -1.0))
    )
    of_class = named.filter(pl.col("label") == CLASSES[label])
    return of_class.group_by("label_detail").agg(pl.col("score").max())["score"].to_numpy()


def with_thresholds(judged: ScoredNetwork, thresholds: Mapping[str, float]) -> ScoredNetwork:
    """The same scores, judged by other thresholds."""
    each = np.array([thresholds.get(name, np.inf) for name in CLASSES])[judged.scores.label]
    scores = judged.scores._replace(threshold=each, over=judged.scores.score >= each)
    return ScoredNetwork(judged.network, judged.flows, scores)


def fit_prefilter_threshold(
    values: Sequence[Doubles], networks: Sequence[ScoredNetwork], missed: float
) -> float:
    """The highest threshold of the prefilter that holds back at most a `missed` share of the flows
    over a threshold.

    Of every class that is found in a network the flow with the highest value passes as well. Beyond
    that, no more than a share of _BENIGN_PASSED of the benign flows passes: one odd flow would cost
    the speed that the prefilter is there for.

    Args:
        values: per network (n) what the prefilter gives each flow.
        networks: the same networks, scored.
        missed: share from 0 to 1.
    """
    of_alerting = np.concatenate(
        [value[network.scores.over] for value, network in zip(values, networks, strict=True)]
    )
    if not len(of_alerting):
        return 0.0
    keeping_most = float(np.quantile(of_alerting, missed))
    highest_by_class, of_benign = [keeping_most], [np.zeros(0)]
    for value, network in zip(values, networks, strict=True):
        flows = network.flows.select("label").with_columns(value=pl.Series(value))
        alerting = flows.filter(pl.Series(network.scores.over) & (pl.col("label") != "benign"))
        highest = alerting.group_by("label").agg(pl.col("value").max())
        highest_by_class += highest["value"].to_list()
        of_benign.append(flows.filter(pl.col("label") == "benign")["value"].to_numpy())
    benign = np.concatenate(of_benign)
    passing_few = float(np.quantile(benign, 1 - _BENIGN_PASSED)) if len(benign) else 0.0
    return round(max(min(highest_by_class), min(keeping_most, passing_few)), 8)


def report(networks: Sequence[ScoredNetwork]) -> dict[str, object]:
    """What the thresholds give: activities found in their class and in any, alerts without an
    attack, days."""
    activities = pl.concat([_activities(network) for network in networks])
    missed = activities.filter(~pl.col("in_class")).select("network", "label", "detail")
    false = sum(map(false_alerts, networks))
    days = sum(network.days for network in networks)
    return {
        "activities": len(activities),
        "found": int(activities["in_any_class"].sum()),
        "found_in_class": int(activities["in_class"].sum()),
        "missed": sorted(" ".join(names) for names in missed.rows())[:50],
        "false_folds": false,
        "days": round(days, 3),
        "false_folds_per_day": round(false / max(days, 1e-9), 3),
    }


def _activities(network: ScoredNetwork) -> pl.DataFrame:
    """One row an attack activity: `network`, `label`, `detail`, and whether any of its flows is
    over the threshold, `in_class` or `in_any_class`."""
    flows = network.flows.select(
        network=pl.lit(network.network),
        label="label",
        detail=pl.col("label_detail").fill_null(""),
        over=pl.Series(network.scores.over),
        predicted=pl.Series(np.array(CLASSES)[network.scores.label]),
    )
    is_in_class = pl.col("over") & (pl.col("predicted") == pl.col("label"))
    attacks = flows.filter(pl.col("label") != "benign")
    return attacks.group_by("network", "label", "detail", maintain_order=True).agg(
        in_class=is_in_class.any(), in_any_class=pl.col("over").any()
    )
