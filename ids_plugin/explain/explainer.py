"""Evidence for single windows, and how far it can be trusted: the deletion test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ids_plugin.explain.earlier_flows import Earlier, Trust, earlier, without
from ids_plugin.explain.wording import amount, natural, natural_unit, phrase, sentence
from ids_plugin.schema.evidence import Evidence, EvidenceFeature, EvidenceFlow
from ids_plugin.schema.score import CLASSES, Contributions, Scores
from ids_plugin.schema.window import STEPS, Bools, Floats, Ints, Spec, Windows

Doubles = npt.NDArray[np.float64]

NAMED_FEATURES = 5
_FLOOR = 1e-6
_BENIGN = CLASSES.index("benign")


class Judge(Protocol):
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
    """How far a decision falls when what is named is taken away, and when as much is taken at random."""

    named: float
    random: float

    @property
    def passed(self) -> bool:
        """What is named matters more than chance does."""
        return self.named > self.random


class Deletion(NamedTuple):
    """The deletion test of one explanation: of all it names together, and of its parts, each alone."""

    score: float
    together: Falls
    """of the score"""
    flows: Falls | None
    """of the log-odds of the class, the named earlier flows alone; None where none is named, or all there are"""
    features: Falls
    """of the log-odds of the class, the named features alone"""
    method: str
    """how the flows were found, see _earlier.Earlier; empty where there is no earlier flow"""

    @property
    def passed(self) -> bool:
        """The evidence as a whole names what matters more than chance does."""
        return self.together.passed


class Explainer:
    """Explains single flows of a batch with the scorer that scored them."""

    def __init__(
        self, judge: Judge, spec: Spec, expected: dict[str, float], trust: Trust = "tested"
    ) -> None:
        """`expected`: what is usual for each feature, from the bundle; those left out are unknown. `trust`: in the
        network's own account of the flows it looked at."""
        self._judge = judge
        self._spec = spec
        self._trust: Trust = trust
        self._table = [feature.name for feature in spec.table]
        self._usual = _values([feature.name for feature in spec.table], expected)
        self._usual_step = _values([feature.name for feature in spec.sequence], expected)

    def explain(self, windows: Windows, row: int, label: int) -> Evidence:
        """Evidence for class `label` of the flow at `row`."""
        window = _window(windows, row)
        contributions, methods = self._contributions(window, label)
        before = self._earlier(window, label)
        named = self._named(window, contributions)
        shown = self._judge.behaviours(window.table)
        behaviours = {
            name: round(float(strength[0]), 4)
            for name, strength in shown.items()
            if strength[0] >= 0.05
        }
        values, usual = self._natural(window.table[0]), self._natural(self._usual)
        return Evidence(
            flows=_flows(windows, row, window.mask[0], before),
            features=tuple(self._feature(at, window, float(contributions[at])) for at in named),
            method="+".join(([before.method] if before.method else []) + methods),
            faithfulness=round(max(0.0, self._fall(window, named, before.named)), 6),
            behaviours=behaviours,
            summary=sentence(CLASSES[label], windows.flow(row), values, usual),
        )

    def deletion(
        self, windows: Windows, row: int, label: int, rng: np.random.Generator, draws: int = 5
    ) -> Deletion:
        """The deletion test of the explanation of one flow: named evidence against as much at random, `draws` times."""
        window = _window(windows, row)
        features = self._named(window, self._contributions(window, label)[0])
        before = self._earlier(window, label)
        present = np.flatnonzero(window.mask[0, :-1])
        known = np.flatnonzero(~np.isnan(window.table[0]))
        drawn = [
            (
                rng.choice(known, min(len(features), len(known)), replace=False),
                rng.choice(present, min(len(before.named), len(present)), replace=False),
            )
            for _ in range(draws)
        ]
        tried, none = [(features, before.named), *drawn], features[:0]
        together = np.array([self._fall(window, *each) for each in tried])
        of_features = self._log_falls(window, label, [(each, none) for each, _ in tried])
        of_flows = self._log_falls(window, label, [(none, each) for _, each in tried])
        return Deletion(
            float(self._judge.score_arrays(*window).score[0]),
            _compared(together),
            _compared(of_flows) if 0 < len(before.named) < len(present) else None,
            _compared(of_features),
            before.method,
        )

    def _natural(self, values: Floats) -> dict[str, float | None]:
        """Table features in natural units."""
        return {f.name: natural(f, float(v)) for f, v in zip(self._spec.table, values, strict=True)}

    def _feature(self, at: int, window: Window, contribution: float) -> EvidenceFeature:
        feature = self._spec.table[at]
        value = natural(feature, float(window.table[0, at]))
        expected = natural(feature, float(self._usual[at]))
        return EvidenceFeature(
            name=feature.name,
            value=value,
            expected=expected,
            contribution=round(contribution, 6),
            text=phrase(feature, value, expected),
            label=feature.text,
            unit=natural_unit(feature),
            value_text=amount(value, feature.unit),
            expected_text=None if expected is None else amount(expected, feature.unit),
        )

    def _contributions(self, window: Window, label: int) -> tuple[Doubles, list[str]]:
        """(T) contributions of the table's features to the combined log-odds of `label`, and how they were found."""
        weights = self._judge.weights()
        total, methods = np.zeros(len(self._table)), []
        known = self._judge.contributions(window.table, label)
        benign = self._judge.contributions(window.table, _BENIGN)
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
        """(T) fall of the members' weighted log-odds when each feature alone is set to what is expected."""
        count = len(self._table)
        table = np.repeat(window.table, count + 1, axis=0)
        steps = np.repeat(window.steps, count + 1, axis=0)
        mask = np.repeat(window.mask, count + 1, axis=0)
        for at in range(count):
            self._occlude(table, steps, at + 1, at)
        odds = self._odds(steps, mask, table, label, weights)
        return np.asarray(odds[0] - odds[1:], np.float64)

    def _odds(
        self, steps: Floats, mask: Bools, table: Floats, label: int, weights: dict[str, float]
    ) -> Doubles:
        """(m) the members' weighted log-odds of `label` against benign."""
        opinions = self._judge.member_probabilities(steps, mask, table)
        odds = np.zeros(len(table))
        for name, weight in weights.items():
            opinion = np.maximum(opinions[name], _FLOOR)
            odds += weight * np.log(opinion[:, label] / opinion[:, _BENIGN])
        return odds

    def _earlier(self, window: Window, label: int) -> Earlier:
        """What the decision rests on among the earlier flows."""
        weights = self._judge.weights()

        def odds(steps: Floats, mask: Bools) -> Doubles:
            return self._odds(
                steps, mask, np.repeat(window.table, len(steps), axis=0), label, weights
            )

        attention = self._judge.attention(*window)
        looked_at = None if attention is None else attention[0]
        return earlier(window.steps, window.mask, self._usual_step, looked_at, odds, self._trust)

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

    def _fall(self, window: Window, features: Ints, steps: Ints) -> float:
        """How far the score falls when features are set to what is expected and earlier flows are taken out."""
        before = self._judge.score_arrays(*window).score[0]
        return float(
            before - self._judge.score_arrays(*self._without(window, features, steps)).score[0]
        )

    def _log_falls(self, window: Window, label: int, taken: Sequence[tuple[Ints, Ints]]) -> Doubles:
        """(n) as _fall, of the log-odds of `label`, for n pairs of features and steps."""
        left = [window, *(self._without(window, features, steps) for features, steps in taken)]
        steps, mask, table = (np.concatenate(part) for part in zip(*left, strict=True))
        odds = self._odds(steps, mask, table, label, self._judge.weights())
        return np.asarray(odds[0] - odds[1:])

    def _without(self, window: Window, features: Ints, steps: Ints) -> Window:
        table = window.table.copy()
        values, mask = without(window.steps, window.mask, steps)
        for at in features.tolist():
            self._occlude(table, values, 0, at)
        return Window(values, mask, table)


def _flows(windows: Windows, row: int, present: Bools, before: Earlier) -> tuple[EvidenceFlow, ...]:
    """The flows of the window with their weights; without earlier ones, the host's flows with equal weights."""
    earlier = windows.earlier(row)
    if not earlier and (of_host := windows.host_flows(row, STEPS - 1)):
        shown = [*of_host, windows.flow(row)]
        weights = np.full(len(shown), 1.0 / len(shown))
    else:
        shown = [*earlier, windows.flow(row)]
        weights = before.weights[present]
    return tuple(
        EvidenceFlow(flow, len(shown) - 1 - at, round(float(weight), 6))
        for at, (flow, weight) in enumerate(zip(shown, weights / weights.sum(), strict=True))
    )


def _compared(falls: Doubles) -> Falls:
    """The first one beside the mean of the others."""
    return Falls(float(falls[0]), float(falls[1:].mean()))


def _window(windows: Windows, row: int) -> Window:
    rows = np.array([row])
    steps = windows.steps(rows)
    return Window(steps.values, steps.mask, windows.table(rows))


def _values(names: list[str], expected: dict[str, float]) -> Floats:
    return np.array([expected.get(name, np.nan) for name in names], np.float32)
