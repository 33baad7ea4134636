"""Evidence for single windows, and how far it can be trusted: the deletion test."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ids_plugin.explain._words import natural, phrase, sentence
from ids_plugin.schema.evidence import Evidence, EvidenceFeature, EvidenceFlow
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.schema.window import STEPS, Bools, Floats, Ints, Spec, Windows

Doubles = npt.NDArray[np.float64]

NAMED_FLOWS = 3
NAMED_FEATURES = 5
_FLOOR = 1e-6
_BENIGN = CLASSES.index("benign")


class Judge(Protocol):
    """What explanation asks of a scorer."""

    def score_arrays(self, steps: Floats, mask: Bools, table: Floats) -> Scores: ...
    def member_probabilities(self, steps: Floats, mask: Bools, table: Floats) -> dict[str, Doubles]: ...
    def attention(self, steps: Floats, mask: Bools, table: Floats) -> Doubles | None: ...
    def contributions(self, table: Floats, label: int) -> Doubles | None: ...
    def behaviours(self, table: Floats) -> dict[str, Doubles]: ...
    def weights(self) -> dict[str, float]: ...


class Window(NamedTuple):
    """One window as arrays with a leading axis of 1, as models take them."""

    steps: Floats
    mask: Bools
    table: Floats


class Deletion(NamedTuple):
    """How far the score falls when the named evidence is taken away, and when as much is taken at random."""

    score: float
    named: float
    random: float

    @property
    def passed(self) -> bool:
        """The evidence names what matters more than chance does."""
        return self.named > self.random


class Explainer:
    """Explains single flows of a batch with the scorer that scored them."""

    def __init__(self, judge: Judge, spec: Spec, expected: dict[str, float]) -> None:
        """`expected`: what is usual for each feature, from the bundle; those left out are unknown."""
        self._judge = judge
        self._spec = spec
        self._table = [feature.name for feature in spec.table]
        self._usual = _values([feature.name for feature in spec.table], expected)
        self._usual_step = _values([feature.name for feature in spec.sequence], expected)

    def explain(self, windows: Windows, row: int, label: int) -> Evidence:
        """Evidence for class `label` of the flow at `row`."""
        window = _window(windows, row)
        contributions, methods = self._contributions(window, label)
        attention = self._judge.attention(*window)
        named = self._named(window, contributions)
        flows = self._flows(windows, row, window, attention)
        shown = self._judge.behaviours(window.table)
        behaviours = {name: round(float(strength[0]), 4) for name, strength in shown.items() if strength[0] >= 0.05}
        values, usual = self._natural(window.table[0]), self._natural(self._usual)
        return Evidence(
            flows=flows,
            features=tuple(self._feature(at, window, float(contributions[at])) for at in named),
            method="+".join((["attention"] if attention is not None else []) + methods),
            faithfulness=round(max(0.0, self._fall(window, named, self._top_steps(window, attention))), 6),
            behaviours=behaviours,
            summary=sentence(CLASSES[label], windows.flow(row), values, usual),
        )

    def deletion(self, windows: Windows, row: int, label: int, rng: np.random.Generator, draws: int = 5) -> Deletion:
        """The deletion test of the explanation of one flow: named evidence against as much at random."""
        window = _window(windows, row)
        contributions, _ = self._contributions(window, label)
        features = self._named(window, contributions)
        steps = self._top_steps(window, self._judge.attention(*window))
        score = float(self._judge.score_arrays(*window).score[0])
        present = np.flatnonzero(window.mask[0, :-1])
        known = np.flatnonzero(~np.isnan(window.table[0]))
        falls = [
            self._fall(
                window,
                rng.choice(known, min(len(features), len(known)), replace=False),
                rng.choice(present, min(len(steps), len(present)), replace=False),
            )
            for _ in range(draws)
        ]
        return Deletion(score, self._fall(window, features, steps), float(np.mean(falls)))

    def _natural(self, values: Floats) -> dict[str, float | None]:
        """Table features in natural units."""
        return {f.name: natural(f, float(v)) for f, v in zip(self._spec.table, values, strict=True)}

    def _feature(self, at: int, window: Window, contribution: float) -> EvidenceFeature:
        feature = self._spec.table[at]
        value = natural(feature, float(window.table[0, at]))
        expected = natural(feature, float(self._usual[at]))
        return EvidenceFeature(feature.name, value, expected, round(contribution, 6), phrase(feature, value, expected))

    def _contributions(self, window: Window, label: int) -> tuple[Doubles, list[str]]:
        """(T) contributions of the table's features to the combined log-odds of `label`, and how they were found."""
        weights = self._judge.weights()
        total, methods = np.zeros(len(self._table)), []
        trees = self._judge.contributions(window.table, label)
        if trees is not None:
            benign = self._judge.contributions(window.table, _BENIGN)
            against = trees if benign is None else trees - benign
            total += weights.get("lightgbm", 1.0) * against[0, :-1]
            methods.append("tree_shap")
        others = {name: weight for name, weight in weights.items() if name != "lightgbm" or trees is None}
        if others:
            total += self._occlusion(window, label, others)
            methods.append("occlusion")
        return total, methods

    def _occlusion(self, window: Window, label: int, weights: dict[str, float]) -> Doubles:
        """(T) fall of the members' weighted log-odds when each feature alone is set to what is expected."""
        count = len(self._table)
        table = np.repeat(window.table, count + 1, axis=0)
        steps = np.repeat(window.steps, count + 1, axis=0)
        mask = np.repeat(window.mask, count + 1, axis=0)
        for at in range(count):
            self._occlude(table, steps, at + 1, at)
        opinions = self._judge.member_probabilities(steps, mask, table)
        odds = np.zeros(count + 1)
        for name, weight in weights.items():
            opinion = np.maximum(opinions[name], _FLOOR)
            odds += weight * np.log(opinion[:, label] / opinion[:, _BENIGN])
        return np.asarray(odds[0] - odds[1:], np.float64)

    def _occlude(self, table: Floats, steps: Floats, row: int, at: int) -> None:
        """Sets feature `at` of the table, and of the flow's own step where it is one, to what is expected."""
        table[row, at] = self._usual[at]
        if at < len(self._spec.flow):
            steps[row, -1, at] = self._usual_step[at]

    def _named(self, window: Window, contributions: Doubles) -> Ints:
        """The features that speak most for the class, strongest first; unknown ones never."""
        known = np.where(np.isnan(window.table[0]), -np.inf, contributions)
        order = np.argsort(-known, kind="stable")[:NAMED_FEATURES]
        return order[known[order] > 0]

    def _top_steps(self, window: Window, attention: Doubles | None) -> Ints:
        """The earlier steps that the network looked at most, strongest first."""
        present = np.flatnonzero(window.mask[0, :-1])
        if attention is None:
            return present[::-1][:NAMED_FLOWS]
        return present[np.argsort(-attention[0, present], kind="stable")][:NAMED_FLOWS]

    def _fall(self, window: Window, features: Ints, steps: Ints) -> float:
        """How far the score falls when features are set to what is expected and earlier flows are taken out."""
        table, values, mask = window.table.copy(), window.steps.copy(), window.mask.copy()
        for at in features.tolist():
            self._occlude(table, values, 0, at)
        mask[0, steps] = False
        values[0, steps] = np.nan
        before = self._judge.score_arrays(*window).score[0]
        return float(before - self._judge.score_arrays(values, mask, table).score[0])

    def _flows(self, windows: Windows, row: int, window: Window, attention: Doubles | None) -> tuple[EvidenceFlow, ...]:
        """The flows of the window with their weights; without earlier ones, the host's flows with equal weights."""
        earlier = windows.earlier(row)
        if not earlier and (of_host := windows.host_flows(row, STEPS - 1)):
            shown = [*of_host, windows.flow(row)]
            weights = np.full(len(shown), 1.0 / len(shown))
        else:
            shown = [*earlier, windows.flow(row)]
            present = window.mask[0]
            weights = np.full(len(shown), 1.0 / len(shown)) if attention is None else attention[0, present]
        return tuple(
            EvidenceFlow(flow, len(shown) - 1 - at, round(float(weight), 6))
            for at, (flow, weight) in enumerate(zip(shown, weights / weights.sum(), strict=True))
        )


def _window(windows: Windows, row: int) -> Window:
    rows = np.array([row])
    steps = windows.steps(rows)
    return Window(steps.values, steps.mask, windows.table(rows))


def _values(names: list[str], expected: dict[str, float]) -> Floats:
    return np.array([expected.get(name, np.nan) for name in names], np.float32)
