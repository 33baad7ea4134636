"""Plain CNN, a baseline: two convolutions over the flows of a pair, the largest response of each filter."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ids_plugin.models._layers import Classifier
from ids_plugin.schema.window import Spec


class Body(nn.Module):
    """Two convolutions of three steps, then the maximum over the steps that are there."""

    def __init__(self, columns: int, filters: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(columns, filters, 3, padding=1)
        self.second = nn.Conv1d(filters, filters, 3, padding=1)

    def forward(self, seen: Tensor, there: Tensor) -> Tensor:
        """(m, STEPS, columns), (m, STEPS, 1) → (m, filters)."""
        present = there.transpose(1, 2)
        hidden = torch.relu(self.first(seen.transpose(1, 2))) * present
        hidden = torch.relu(self.second(hidden)) * present
        return hidden.amax(dim=-1)


class Family:
    """About 40,000 parameters at the default width."""

    name = "cnn"
    kind: Literal["torch"] = "torch"
    paper = "the plain CNN that CNN-LSTM hybrids are compared with"

    def build(self, spec: Spec, classes: int, *, filters: int = 64, dropout: float = 0.2) -> Classifier:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        sequence, table = len(spec.sequence), len(spec.table)
        return Classifier(Body(2 * sequence, filters), filters, sequence, table, classes, dropout)


PLUGIN = Family()
