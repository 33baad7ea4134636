"""Evidence for single windows, and how far it can be trusted: the deletion test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ids_plugin.explain.earlier_flows import (
    EarlierWeights,
    Trust,
    weigh_earlier_flows,
    without,
)
from ids_plugin.explain.wording import amount, natural, natural_unit, phrase, sentence
from ids_plugin.schema.evidence import Evidence, EvidenceFeature, EvidenceFlow
from ids_plugin.schema.score import CLASSES, Contributions, Scores
from ids_plugin.schema.window import STEPS, Bools, Floats, Ints, Spec, Windows

Doubles = npt.NDArray[np.float64]

NAMED_FEATURES = 5
_FLOOR = 1e-6
_BENIGN = CLASSES.index("benign")


class ExplainableScorer(Protocol):
    """What explanation asks of a scorer."""

    def score_arrays(self, steps: Floats, mask: Bools, table: Floats) -> Scores: ...
    def member_probabilities(
        self, steps: Floats, mask: Bools, table: Floats
    ) -> dict[str, Doubles]: ...
    def attention(self, steps: Floats, mask: Bools, table: Floats) -> Doubles | None: ...
    def contributions(self, table: Floats, label: int) -> dict[str, Contributions]: ...
    def behaviours(self, table: Floats) -> dict[str, Doubles]: ...
    def weights(self) -> dict[str, float]: ...


class Window(NamedTuple):
    """One window as arrays with a leading axis of 1, as models take them."""

    steps: Floats
    mask: Bools
    table: Floats


class Falls(NamedTuple):
    """How far a decision falls when what is named is taken away, and when as much is taken at
    random."""

    named: float
    random: float

    @property
    def passed(self) -> bool:
        """What is named matters more than chance does."""
        return self.named > self.random


class Deletion(NamedTuple):
    """The deletion test of one explanation: all it names together, and each of its parts alone."""

    score: float
    together: Falls
    """of the score"""
    flows: Falls | None
    """of the log-odds of the class, the named earlier flows alone; None where none is named, or all
    there are"""
    features: Falls
    """of the log-odds of the class, the named features alone"""
    method: str
    """how the flows were found, see earlier_flows.EarlierWeights; empty where there is no earlier
    flow"""

    @property
    def passed(self) -> bool:
        """The evidence as a whole names what matters more than chance does."""
        return self.together.passed


class Explainer:
    """Explains single flows of a batch with the scorer that scored them."""

    def __init__(
        self,
        scorer: ExplainableScorer,
        spec: Spec,
        baseline: dict[str, float],
        trust: Trust = "tested",
    ) -> None:
        """
        Args:
            scorer: the one that scored the flows.
            spec: features of the windows.
            baseline: each feature's value in normal traffic, from the bundle; a feature that is
                left out has no baseline.
            trust: when the network's attention is shown.
        """
        self._scorer = scorer
        self._spec = spec
        self._trust: Trust = trust
        self._names = [feature.name for feature in spec.table]
        self._baseline = _in_order([feature.name for feature in spec.table], baseline)
        self._baseline_step = _in_order([feature.name for feature in spec.sequence], baseline)

    def explain(self, windows: Windows, row: int, label: int) -> Evidence:
        """Evidence for class `label` of the flow at `row`."""
        window = _window_of(windows, row)
        contributions, methods = self._contributions(window, label)
        before = self._weigh_earlier(window, label)
        named = self._named_features(window, contributions)
        shown = self._scorer.behaviours(window.table)
        behaviours = {
            name: round(float(strength[0]), 4)
            for name, strength in shown.items()
            if strength[0] >= 0.05
        }
        values, baseline = self._natural_units(window.table[0]), self._natural_units(self._baseline)
        return Evidence(
            flows=_evidence_flows(windows, row, window.mask[0], before),
            features=tuple(
                self._evidence_feature(index, window, float(contributions[index]))
                for index in named
            ),
            method="+".join(([before.method] if before.method else []) + methods),
            faithfulness=round(max(0.0, self._score_fall(window, named, before.named)), 6),
            behaviours=behaviours,
            summary=sentence(CLASSES[label], windows.flow(row), values, baseline),
        )

    def deletion(
        self, windows: Windows, row: int, label: int, rng: np.random.Generator, draws: int = 5
    ) -> Deletion:
        """The deletion test of the explanation of one flow: named evidence against as much at
        random, `draws` times."""
        window = _window_of(windows, row)
        features = self._named_features(window, self._contributions(window, label)[0])
        before = self._weigh_earlier(window, label)
        present = np.flatnonzero(window.mask[0, :-1])
        known = np.flatnonzero(~np.isnan(window.table[0]))
        drawn = [
            (
                rng.choice(known, min(len(features), len(known)), replace=False),
                rng.choice(present, min(len(before.named), len(present)), replace=False),
            )
            for _ in range(draws)
        ]
        tried, nothing = [(features, before.named), *drawn], features[:0]
        together = np.array([self._score_fall(window, *each) for each in tried])
        of_features = self._log_odds_falls(window, label, [(each, nothing) for each, _ in tried])
        of_flows = self._log_odds_falls(window, label, [(nothing, each) for _, each in tried])
        return Deletion(
            float(self._scorer.score_arrays(*window).score[0]),
            _falls(together),
            _falls(of_flows) if 0 < len(before.named) < len(present) else None,
            _falls(of_features),
            before.method,
        )

    def _natural_units(self, values: Floats) -> dict[str, float | None]:
        """Table features in natural units."""
        return {f.name: natural(f, float(v)) for f, v in zip(self._spec.table, values, strict=True)}

    def _evidence_feature(self, index: int, window: Window, contribution: float) -> EvidenceFeature:
        feature = self._spec.table[index]
        value = natural(feature, float(window.table[0, index]))
        baseline = natural(feature, float(self._baseline[index]))
        return EvidenceFeature(
            name=feature.name,
            value=value,
            expected=baseline,
            contribution=round(contribution, 6),
            text=phrase(feature, value, baseline),
            label=feature.text,
            unit=natural_unit(feature),
            value_text=amount(value, feature.unit),
            expected_text=None if baseline is None else amount(baseline, feature.unit),
        )

    def _contributions(self, window: Window, label: int) -> tuple[Doubles, list[str]]:
        """(T) contributions of the table's features to the combined log-odds of `label`, and how
        they were found."""
        weights = self._scorer.weights()
        total, methods = np.zeros(len(self._names)), []
        known = self._scorer.contributions(window.table, label)
        benign = self._scorer.contributions(window.table, _BENIGN)
        for name, contributions in known.items():
            against = contributions.values - benign[name].values
            total += weights[name] * against[0, :-1]
            if contributions.method not in methods:
                methods.append(contributions.method)
        others = {name: weight for name, weight in weights.items() if name not in known}
        if others:
            total += self._occlusion(window, label, others)
            methods.append("occlusion")
        return total, methods

    def _occlusion(self, window: Window, label: int, weights: dict[str, float]) -> Doubles:
        """(T) fall of the members' weighted log-odds when each feature alone is set to what is
        expected."""
        count = len(self._names)
        table = np.repeat(window.table, count + 1, axis=0)
        steps = np.repeat(window.steps, count + 1, axis=0)
        mask = np.repeat(window.mask, count + 1, axis=0)
        for index in range(count):
            self._occlude(table, steps, index + 1, index)
        log_odds = self._log_odds(steps, mask, table, label, weights)
        return np.asarray(log_odds[0] - log_odds[1:], np.float64)

    def _log_odds(
        self, steps: Floats, mask: Bools, table: Floats, label: int, weights: dict[str, float]
    ) -> Doubles:
        """(m) the members' weighted log-odds of `label` against benign."""
        probabilities = self._scorer.member_probabilities(steps, mask, table)
        odds = np.zeros(len(table))
        for name, weight in weights.items():
            probability = np.maximum(probabilities[name], _FLOOR)
            odds += weight * np.log(probability[:, label] / probability[:, _BENIGN])
        return odds

    def _weigh_earlier(self, window: Window, label: int) -> EarlierWeights:
        """What the decision rests on among the earlier flows."""
        weights = self._scorer.weights()

        def log_odds(steps: Floats, mask: Bools) -> Doubles:
            table = np.repeat(window.table, len(steps), axis=0)
            return self._log_odds(steps, mask, table, label, weights)

        attention = self._scorer.attention(*window)
        attended = None if attention is None else attention[0]
        return weigh_earlier_flows(
            window.steps, window.mask, self._baseline_step, attended, log_odds, self._trust
        )

    def _occlude(self, table: Floats, steps: Floats, row: int, index: int) -> None:
        """Sets feature `index` of the table, and of the flow's own step where it is one, to its
        baseline."""
        table[row, index] = self._baseline[index]
        if index < len(self._spec.flow):
            steps[row, -1, index] = self._baseline_step[index]

    def _named_features(self, window: Window, contributions: Doubles) -> Ints:
        """The features that speak most for the class, strongest first; unknown ones never."""
        known = np.where(np.isnan(window.table[0]), -np.inf, contributions)
        order = np.argsort(-known, kind="stable")[:NAMED_FEATURES]
        return order[known[order] > 0]

    def _score_fall(self, window: Window, features: Ints, steps: Ints) -> float:
        """How far the score falls when features are set to their baseline and earlier flows are
        taken out."""
        before = self._scorer.score_arrays(*window).score[0]
        return float(
            before - self._scorer.score_arrays(*self._without(window, features, steps)).score[0]
        )

    def _log_odds_falls(
        self, window: Window, label: int, taken: Sequence[tuple[Ints, Ints]]
    ) -> Doubles:
        """(n) as _score_fall, of the log-odds of `label`, for n pairs of features and steps."""
        left = [window, *(self._without(window, features, steps) for features, steps in taken)]
        steps, mask, table = (np.concatenate(part) for part in zip(*left, strict=True))
        log_odds = self._log_odds(steps, mask, table, label, self._scorer.weights())
        return np.asarray(log_odds[0] - log_odds[1:])

    def _without(self, window: Window, features: Ints, steps: Ints) -> Window:
        table = window.table.copy()
        values, mask = without(window.steps, window.mask, steps)
        for index in features.tolist():
            self._occlude(table, values, 0, index)
        return Window(values, mask, table)


def _evidence_flows(
    windows: Windows, row: int, present: Bools, before: EarlierWeights
) -> tuple[EvidenceFlow, ...]:
    """The flows of the window with their weights; without earlier ones, the host's flows with equal
    weights."""
    earlier = windows.earlier(row)
    if not earlier and (of_host := windows.host_flows(row, STEPS - 1)):
        shown = [*of_host, windows.flow(row)]
        weights = np.full(len(shown), 1.0 / len(shown))
    else:
        shown = [*earlier, windows.flow(row)]
        weights = before.weights[present]
    return tuple(
        EvidenceFlow(flow, len(shown) - 1 - position, round(float(weight), 6))
        for position, (flow, weight) in enumerate(zip(shown, weights / weights.sum(), strict=True))
    )


def _falls(falls: Doubles) -> Falls:
    """The first one beside the mean of the others."""
    return Falls(float(falls[0]), float(falls[1:].mean()))


def _window_of(windows: Windows, row: int) -> Window:
    rows = np.array([row])
    steps = windows.steps(rows)
    return Window(steps.values, steps.mask, windows.table(rows))


def _in_order(names: list[str], baseline: dict[str, float]) -> Floats:
    return np.array([baseline.get(name, np.nan) for name in names], np.float32)
