"""Fits what stands above the members: their combination, the thresholds, the gate's threshold."""

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
_STEPS = 400
_PASSES = 0.1
_GRID = np.r_[
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
    for _ in range(_STEPS):
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
    thresholds = _GRID[::-1]
    false = np.zeros(len(thresholds), np.int64)
    found, activities = np.zeros(len(thresholds), np.int64), 0
    for network in networks:
        false += count_false_alerts(network, label, thresholds)
        surest = _surest_flows(network, label)
        found += (surest[None, :] >= thresholds[:, None]).sum(axis=1)
        activities += len(surest)
    share = found / max(activities, 1)
    choices = [ThresholdChoice(1.0, 0, 0.0)]
    for threshold, count, part in zip(
        thresholds.tolist(), false.tolist(), share.tolist(), strict=True
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


def fit_gate_threshold(
    passed: Sequence[Doubles], networks: Sequence[ScoredNetwork], missed: float
) -> float:
    """The highest gate value that keeps all but a `missed` share of the flows over a threshold, and
    of every class that is found in a network at least the flow the gate is surest of; but for this
    it lets no more than a share of _PASSES of the benign flows through, since one odd flow would
    cost the speed the gate is there for."""
    over = np.concatenate(
        [gate[judged.scores.over] for gate, judged in zip(passed, networks, strict=True)]
    )
    if not len(over):
        return 0.0
    most = float(np.quantile(over, missed))
    surest, benign = [most], []
    for gate, judged in zip(passed, networks, strict=True):
        named = judged.flows.select("label").with_columns(gate=pl.Series(gate))
        found = named.filter(pl.Series(judged.scores.over) & (pl.col("label") != "benign"))
        surest += found.group_by("label").agg(pl.col("gate").max())["gate"].to_list()
        benign.append(named.filter(pl.col("label") == "benign")["gate"].to_numpy())
    least = (
        float(np.quantile(np.concatenate(benign), 1 - _PASSES)) if sum(map(len, benign)) else 0.0
    )
    return round(max(min(surest), min(most, least)), 8)


def report(networks: Sequence[ScoredNetwork]) -> dict[str, object]:
    """What the thresholds give: activities found in their class and in any, folds without an
    attack, days."""
    found = right = total = false = 0
    missed: list[str] = []
    for judged in networks:
        false += false_alerts(judged)
        named = judged.flows.select(
            "label", detail=pl.col("label_detail").fill_null("")
        ).with_columns(
            over=pl.Series(judged.scores.over),
            klass=pl.Series(np.array(CLASSES)[judged.scores.label]),
        )
        right_class = pl.col("over") & (pl.col("klass") == pl.col("label"))
        attacks = named.filter(pl.col("label") != "benign").group_by(
            "label", "detail", maintain_order=True
        )
        summed = attacks.agg(any=pl.col("over").any(), right=right_class.any())
        total, found, right = (
            total + len(summed),
            found + int(summed["any"].sum()),
            right + int(summed["right"].sum()),
        )
        missed += [
            f"{judged.network} {row[0]} {row[1]}" for row in summed.filter(~pl.col("right")).rows()
        ]
    days = sum(judged.days for judged in networks)
    return {
        "activities": total, "found": found, "found_in_class": right, "missed": sorted(missed)[:50],
        "false_folds": false, "days": round(days, 3), "false_folds_per_day": round(false / max(days, 1e-9), 3),
    }  # fmt: skip
