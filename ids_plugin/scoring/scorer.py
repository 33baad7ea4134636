"""What a bundle makes of windows: its members' probabilities, combined and calibrated, and a
prefilter that spares most flows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ids_plugin import registry
from ids_plugin.bundle import Bundle, Combination, PrefilterEntry
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES, Contributions, Scores
from ids_plugin.schema.window import STEPS, Bools, Floats, Ints, Spec, Windows
from ids_plugin.scoring import (
    AttentiveMember,
    BehaviouralMember,
    ContributingMember,
    Doubles,
    Member,
)
from ids_plugin.scoring.lightgbm import Trees

_ROWS = 4096
"""Rows whose sequences are in memory at once."""
_BENIGN = CLASSES.index("benign")
_OTHER = CLASSES.index("other")


class Scorer:
    """Scores windows with one bundle. One core, no state between calls, the same bits in any
    batch."""

    def __init__(self, bundle: Bundle, *, cascade: bool = True) -> None:
        """`cascade=False` asks every member about every flow.

        Raises:
            BundleError: a file of the bundle doesn't load.
        """
        manifest = bundle.manifest
        self.bundle = bundle
        if manifest.combination is None:
            raise BundleError("manifest.json: combination is missing", location=bundle.location)
        self.members: dict[str, Member] = {
            entry.name: registry.load("members", entry.kind).open(bundle, entry)
            for entry in manifest.members
        }
        self._combination = _Combination(manifest.combination)
        self._thresholds = np.array(
            [float(manifest.thresholds.get(name, np.inf)) for name in bundle.classes]
        )
        self._prefilter: _Prefilter | None = None
        if cascade and manifest.prefilter is not None:
            self._prefilter = _Prefilter(bundle, manifest.prefilter)
        self._spec: Spec | None = None

    def score(self, windows: Windows) -> Scores:
        """Scores of the flows of one batch, in its order.

        Raises:
            BundleError: the windows aren't those the bundle was made for.
        """
        if self._spec is not windows.spec:
            self.bundle.require(windows.spec)
            self._spec = windows.spec
        if self._prefilter is None:
            return self._spread(windows, np.arange(len(windows)), np.zeros(len(windows)))
        low = self._prefilter.probability(windows)
        return self._spread(windows, np.flatnonzero(low >= self._prefilter.threshold), low)

    def try_out(self, spec: Spec) -> None:
        """Has every member judge one window of which nothing is known.

        Raises:
            BundleError: one can't, though it loaded.
        """
        mask = np.zeros((1, STEPS), np.bool_)
        steps = np.full((1, STEPS, len(spec.sequence)), np.nan, np.float32)
        try:
            self.score_arrays(steps, mask, np.full((1, len(spec.table)), np.nan, np.float32))
        except (ValueError, IndexError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                f"can't judge windows: {reason}", location=self.bundle.location
            ) from error

    def score_arrays(self, steps: Floats, mask: Bools, table: Floats) -> Scores:
        """Scores of m windows given as arrays, every member asked: (m, STEPS, F), (m, STEPS), (m,
        T)."""
        probabilities = {
            name: member.probabilities(steps, mask, table) for name, member in self.members.items()
        }
        models = {
            name: 1.0 - probability[:, _BENIGN] for name, probability in probabilities.items()
        }
        return self._decide(self._combination.of(probabilities), models)

    def member_probabilities(self, steps: Floats, mask: Bools, table: Floats) -> dict[str, Doubles]:
        """Member's name → (m, len(CLASSES)): the probabilities before they are combined."""
        return {
            name: member.probabilities(steps, mask, table) for name, member in self.members.items()
        }

    def attention(self, steps: Floats, mask: Bools, table: Floats) -> Doubles | None:
        """(m, STEPS) weights of the steps in the decision of the attentive member that weighs most
        in the combination; rows sum to 1. None where no member has any."""
        weights = self._combination.weights
        for name in sorted(self.members, key=lambda name: -weights.get(name, 0.0)):
            member = self.members[name]
            if isinstance(member, AttentiveMember):
                attention = member.attention(steps, mask, table)
                if attention is not None:
                    return attention
        return None

    def contributions(self, table: Floats, label: int) -> dict[str, Contributions]:
        """Member's name → contributions of the table's features to class `label`, of every member
        that has a weight in the combination and can say what its features contributed.
        """
        return {
            name: Contributions(member.contribution_method, member.contributions(table, label))
            for name, member in self.members.items()
            if name in self._combination.weights and isinstance(member, ContributingMember)
        }

    def weights(self) -> dict[str, float]:
        """Member's name → weight of its log-probabilities in the combination."""
        return dict(self._combination.weights)

    def behaviours(self, table: Floats) -> dict[str, Doubles]:
        """Behaviour's name → (m) how strongly it shows, 0–1; empty without behaviours."""
        strengths: dict[str, Doubles] = {}
        for member in self.members.values():
            if isinstance(member, BehaviouralMember):
                strengths |= member.behaviours(table)
        return strengths

    def _spread(self, windows: Windows, passed: Ints, low: Doubles) -> Scores:
        """Scores of the rows that passed, among those of all rows."""
        probability = np.zeros((len(windows), len(CLASSES)))
        probability[:, _BENIGN] = 1.0 - low
        probability[:, _OTHER] = low
        models = {name: np.full(len(windows), np.nan) for name in self.members}
        for start in range(0, len(passed), _ROWS):
            rows = passed[start : start + _ROWS]
            steps = windows.steps(rows)
            scores = self.score_arrays(steps.values, steps.mask, windows.table(rows))
            probability[rows] = scores.probability
            for name, values in scores.models.items():
                models[name][rows] = values
        return self._decide(probability, models)

    def _decide(self, probability: Doubles, models: dict[str, Doubles]) -> Scores:
        label = np.argmax(probability[:, _BENIGN + 1 :], axis=1) + _BENIGN + 1
        score = 1.0 - probability[:, _BENIGN]
        threshold = self._thresholds[label]
        return Scores(score, label, probability, models, score >= threshold, threshold)


class _Combination:
    """Stacking (Wolpert 1992): multinomial logistic over the members' log-probabilities, a weight
    per member and a bias per class, fitted on networks the members never saw; so it is the
    calibration too."""

    def __init__(self, combination: Combination) -> None:
        self.weights = combination.weights
        self._bias = combination.bias
        self._floor = float(combination.floor)

    def of(self, probabilities: dict[str, Doubles]) -> Doubles:
        """(m, len(CLASSES)); classes without a bias are those nobody was trained on: 0."""
        known = [
            (index, self._bias[name]) for index, name in enumerate(CLASSES) if name in self._bias
        ]
        rows = len(next(iter(probabilities.values())))
        odds, total = np.zeros((rows, len(CLASSES))), np.zeros(rows)
        logits = {index: np.full(rows, bias) for index, bias in known}
        for name, weight in self.weights.items():
            for index, logit in logits.items():
                logit += weight * np.log(np.maximum(probabilities[name][:, index], self._floor))
        top = np.max(list(logits.values()), axis=0)
        for index, logit in logits.items():
            odds[:, index] = np.exp(logit - top)
            total += odds[:, index]
        return odds / total[:, None]


class _Prefilter:
    """The first stage of the cascade: a few shallow trees over columns that are there anyway; below
    its threshold nothing else is asked."""

    def __init__(self, bundle: Bundle, entry: PrefilterEntry) -> None:
        self.threshold = float(entry.threshold)
        self._trees = Trees(bundle.file(entry.file), f"{bundle.location}/{entry.file}")
        self._features = entry.features
        if self._trees.inputs != len(self._features):
            raise BundleError(
                "the prefilter's columns aren't those the manifest names", location=bundle.location
            )

    def probability(self, windows: Windows) -> Doubles:
        """(n) probability of not being benign."""
        return self._trees.probabilities(prefilter_columns(windows, self._features))[:, 0]


def prefilter_columns(windows: Windows, names: Sequence[str]) -> Floats:
    """(n, len(names)): the named flow and context features of every row."""
    context = {feature.name: index for index, feature in enumerate(windows.spec.context)}
    columns = [
        windows.context[:, context[n]] if n in context else windows.flows[n].to_numpy()
        for n in names
    ]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)
