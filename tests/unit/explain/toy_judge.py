"""A scorer whose reasons are known: its score is the share of them that a window still has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ids_plugin.schema.score import CLASSES, Contributions, Scores
from ids_plugin.schema.window import Bools, Floats

Doubles = npt.NDArray[np.float64]


class ToyJudge:
    """Obeys explain's `Judge`; reasons are table features with their value, and earlier steps.

    `named` and `looked_at` are what it says of itself; by default the truth.
    """

    def __init__(
        self,
        features: Mapping[int, float],
        steps: Sequence[int] = (),
        *,
        named: Mapping[int, float] | None = None,
        looked_at: Sequence[int] | None = None,
    ) -> None:
        self._features, self._steps = dict(features), list(steps)
        self._named = dict.fromkeys(features, 1.0) if named is None else dict(named)
        self._looked_at = list(steps if looked_at is None else looked_at)

    def score_arrays(self, steps: Floats, mask: Bools, table: Floats) -> Scores:
        """The share of reasons that are there."""
        kept = [table[:, at] == np.float32(value) for at, value in self._features.items()]
        kept += [mask[:, step] for step in self._steps]
        score = np.mean(np.stack(kept), axis=0).astype(np.float64)
        probability = np.zeros((len(score), len(CLASSES)))
        probability[:, 0], probability[:, 1] = 1 - score, score
        limit = np.full(len(score), 0.5)
        return Scores(
            score, np.ones(len(score), np.int64), probability, {"toy": score}, score >= limit, limit
        )

    def member_probabilities(self, steps: Floats, mask: Bools, table: Floats) -> dict[str, Doubles]:
        """Its only member is called toy and explains itself."""
        return {"toy": self.score_arrays(steps, mask, table).probability}

    def attention(self, steps: Floats, mask: Bools, table: Floats) -> Doubles | None:
        """(m, STEPS): most on what it looked at, a little on every other flow."""
        weights = np.where(mask, 0.01, 0.0)
        for strength, step in enumerate(reversed(self._looked_at), 1):
            weights[:, step] = strength * mask[:, step]
        return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)

    def contributions(self, table: Floats, label: int) -> dict[str, Contributions]:
        """What its only member says of its reasons; nothing for benign."""
        shares = np.zeros((len(table), table.shape[1] + 1))
        if label:
            shares[:, list(self._named)] = list(self._named.values())
        return {"toy": Contributions("tree_shap", shares)}

    def behaviours(self, table: Floats) -> dict[str, Doubles]:
        """One that shows and one that doesn't."""
        return {"shows": np.full(len(table), 0.4), "hardly": np.full(len(table), 0.04)}

    def weights(self) -> dict[str, float]:
        """Of its only member."""
        return {"toy": 1.0}


class LinearJudge(ToyJudge):
    """A network whose log-odds are a weighted sum of table features, and which can't say why."""

    def __init__(self, coefficients: Mapping[int, float], weight: float) -> None:
        super().__init__(coefficients)
        self._coefficients, self._weight = dict(coefficients), weight

    def contributions(self, table: Floats, label: int) -> dict[str, Contributions]:
        """Nothing: its member can't say why."""
        return {}

    def member_probabilities(self, steps: Floats, mask: Bools, table: Floats) -> dict[str, Doubles]:
        """Of its only member."""
        odds = table[:, list(self._coefficients)].astype(np.float64) @ np.array(
            list(self._coefficients.values())
        )
        probability = np.zeros((len(table), len(CLASSES)))
        probability[:, 1] = 1 / (1 + np.exp(-odds))
        probability[:, 0] = 1 - probability[:, 1]
        return {"network": probability}

    def weights(self) -> dict[str, float]:
        """Of its only member."""
        return {"network": self._weight}


class SilentJudge(ToyJudge):
    """A judge without attention, as most families are."""

    def attention(self, steps: Floats, mask: Bools, table: Floats) -> None:
        """There is none."""
