"""Rare classes: windows drawn more often, errors that weigh more, or the focal loss (Lin et al.
2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ids_plugin.schema.window import Ints
from ids_plugin.training.examples import Examples

Means = Literal["resample", "weight", "none"]
MEANS: tuple[Means, ...] = get_args(Means)


@dataclass(frozen=True)
class Balance:
    """What keeps the many from drowning the few; `Examples.weight` says how much each window should
    count."""

    means: Means = "resample"
    """windows are drawn by weight, or their errors weigh by it, or all are alike"""
    focal: float = 0.0
    """errors are multiplied by (1 - p of the right class) to this power"""

    def draw(self, train: Examples, count: int, rng: np.random.Generator) -> Ints:
        """(count) rows for one epoch."""
        return rng.choice(len(train), count, p=train.weight if self.means == "resample" else None)

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor, smoothing: float) -> Tensor:
        """Mean error of logits (m, classes) for target (m); weight (m) as `Examples.weight` has
        it."""
        if self.means != "weight" and not self.focal:
            return cross_entropy(logits, target, label_smoothing=smoothing)
        each = cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
        if self.focal:
            right = torch.softmax(logits, dim=-1).gather(1, target[:, None])[:, 0]
            each = each * torch.clamp(1.0 - right, min=1e-6) ** self.focal
        return (each * weight).sum() / weight.sum() if self.means == "weight" else each.mean()
