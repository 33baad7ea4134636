"""Support vector machine with a Gaussian kernel over the table of a window, a baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ids_plugin.models.layers import Normalise, total
from ids_plugin.schema.window import Spec


class Machines(nn.Module):
    """One machine a class against all others, as a network: every support vector is a unit."""

    def __init__(
        self, table: Normalise, vectors: Tensor, weights: Tensor, bias: Tensor, gamma: float
    ) -> None:
        """vectors (v, 2 * T), weights (v, classes), bias (classes)."""
        super().__init__()
        self.table = table
        self.gamma, self.sharpness = gamma, 1.0
        self.vectors: Tensor
        self.weights: Tensor
        self.bias: Tensor
        self.register_buffer("vectors", vectors)
        self.register_buffer("weights", weights)
        self.register_buffer("bias", bias)

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, None, Tensor]:
        """As TorchFamily; the steps are not asked."""
        here = self.table(table)
        apart = total(here**2) + (self.vectors**2).sum(-1) - 2 * here @ self.vectors.T
        kernel = torch.exp(-self.gamma * torch.clamp(apart, min=0.0))
        logits = (kernel @ self.weights + self.bias) * self.sharpness
        return logits, None, torch.zeros_like(logits[:, 0])


class RbfSvmFamily:
    """scikit-learn's `SVC`, one against all, on a sample: its cost grows with the square of the
    windows."""

    name = "svm_rbf"
    kind = "svm"
    paper = "Cortes and Vapnik, Support-Vector Networks, Machine Learning 1995"

    def build(
        self, spec: Spec, classes: int, *, c: float = 10.0, windows: int = 6_000
    ) -> dict[str, object]:
        """`C` and `gamma` of `sklearn.svm.SVC`, and how many `windows` are drawn."""
        return {"C": c, "gamma": 1.0 / (2 * len(spec.table)), "windows": windows}


PLUGIN = RbfSvmFamily()
