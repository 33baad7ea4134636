"""Fits what stands above the members: their combination, the thresholds, the gate's threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from ids_plugin.schema import flow
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.scoring import Doubles
from ids_plugin.training.examples import Examples

FLOOR = 1e-4
"""Probabilities below count as this: a member never says more than 10,000 : 1."""
_STEPS = 400
_CLOSES = 1_800_000_000
"""µs after which a fold is closed (30 min)"""
_PASSES = 0.1
_GRID = np.r_[
    np.arange(0.5, 0.95, 0.05), 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999
]


def fit_combination(
    opinions: Mapping[str, Doubles], held_out: Examples, known: Sequence[int]
) -> dict[str, object]:
    """Weights and biases of least weighted log-loss on networks the members never saw, drawn a little towards equal
    weights and no bias; classes nobody was trained on are left out. `known` are the classes of the members."""
    rows = np.flatnonzero(np.isin(held_out.label, known))
    logs = {
        name: np.log(np.maximum(opinion[rows][:, list(known)], FLOOR))
        for name, opinion in opinions.items()
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
class Judged:
    """All flows of one network and their scores, as thresholds and metrics need them."""

    network: str
    flows: pl.DataFrame
    scores: Scores

    @property
    def days(self) -> float:
        """Days from the first flow to the last."""
        ts = self.flows["ts"]
        return max((ts.max() - ts.min()).total_seconds(), 1.0) / 86_400  # type: ignore[operator,union-attr]


def subject(flows: pl.DataFrame, labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pl.Series:
    """(n) whose behaviour each flow would be: the local host, the originator where both or neither are local, the
    responder of a flood."""
    victim = pl.Series(labels == CLASSES.index("flood"))
    outside_in = ~pl.col("local_orig") & pl.col("local_resp")
    return flows.select(pl.when(victim | outside_in).then("resp_h").otherwise("orig_h")).to_series()


def folds(judged: Judged, over: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> pl.DataFrame:
    """Folds of the flows that are `over`: host, class, first (clock), flows, how many of them are attacks."""
    named = judged.flows.select(
        "label", known=flow.known().to_physical(), host=subject(judged.flows, judged.scores.label)
    ).with_columns(klass=pl.Series(judged.scores.label), over=pl.Series(over))
    hits = named.filter("over").sort("known")
    gap = (pl.col("known").diff().over("host", "klass") > _CLOSES).fill_null(value=False)
    return (
        hits.with_columns(part=gap.cum_sum().over("host", "klass"))
        .group_by("host", "klass", "part", maintain_order=True)
        .agg(
            first=pl.col("known").first(),
            flows=pl.len(),
            attacks=(pl.col("label") != "benign").sum(),
        )
    )


def fit_thresholds(
    networks: Sequence[Judged], known: Sequence[int], false_per_day: float
) -> dict[str, float]:
    """The thresholds that find most activities, each class counting the same, with at most `false_per_day` folds that
    hold no attack flow. Exact: a knapsack over classes (dynamic programming); of equals the strictest.
    """
    budget = int(false_per_day * sum(judged.days for judged in networks))
    classes = [label for label in known if label != 0]
    best: dict[int, tuple[float, dict[str, float]]] = {0: (0.0, {})}
    for label in classes:
        choices = _choices(networks, label)
        reached: dict[int, tuple[float, dict[str, float]]] = {}
        for spent, (value, chosen) in best.items():
            for threshold, false, found in choices:
                total = spent + false
                if total <= budget and value + found > reached.get(total, (-1.0, {}))[0]:
                    reached[total] = value + found, chosen | {CLASSES[label]: threshold}
        best = reached
    return max(best.values(), key=lambda one: one[0])[1]


def _choices(networks: Sequence[Judged], label: int) -> list[tuple[float, int, float]]:
    """Per threshold, strictest first: folds without attacks, and the share of the class's activities that are found.

    Above the grid stands a threshold that nothing reaches, so that there is always one that costs nothing.
    """
    choices = [(1.0, 0, 0.0)]
    for threshold in _GRID[::-1].tolist():
        false = found = activities = 0
        for judged in networks:
            over = (judged.scores.label == label) & (judged.scores.score >= threshold)
            false += folds(judged, over).filter(pl.col("attacks") == 0).height
            named = judged.flows.select("label", "label_detail").with_columns(over=pl.Series(over))
            mine = (
                named.filter(pl.col("label") == CLASSES[label])
                .group_by("label_detail")
                .agg(pl.col("over").any())
            )
            found, activities = found + int(mine["over"].sum()), activities + mine.height
        choices.append((round(threshold, 6), false, found / max(activities, 1)))
    return choices


def with_thresholds(judged: Judged, thresholds: Mapping[str, float]) -> Judged:
    """The same scores, judged by other thresholds."""
    each = np.array([thresholds.get(name, np.inf) for name in CLASSES])[judged.scores.label]
    scores = judged.scores._replace(threshold=each, over=judged.scores.score >= each)
    return Judged(judged.network, judged.flows, scores)


def fit_gate_threshold(
    passed: Sequence[Doubles], networks: Sequence[Judged], missed: float
) -> float:
    """The highest gate value that keeps all but a `missed` share of the flows over a threshold, and of every class
    that is found in a network at least the flow the gate is surest of; but for this it lets no more than a share of
    _PASSES of the benign flows through, since one odd flow would cost the speed the gate is there for."""
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


def report(networks: Sequence[Judged]) -> dict[str, object]:
    """What the thresholds give: activities found in their class and in any, folds without an attack, days."""
    found = right = total = false = 0
    missed: list[str] = []
    for judged in networks:
        false += folds(judged, judged.scores.over).filter(pl.col("attacks") == 0).height
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
