"""CNN-LSTM designed together with its compression: two depthwise-separable convolutions and one narrow LSTM."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ids_plugin.models._layers import Classifier
from ids_plugin.schema.window import Spec


class Widths(NamedTuple):
    """Filters of the two blocks and units of the LSTM: what structured pruning makes smaller."""

    first: int = 384
    second: int = 384
    lstm: int = 320


class Block(nn.Module):
    """Depthwise-separable convolution of three steps, batch normalisation, ReLU (Chollet, Xception, CVPR 2017)."""

    def __init__(self, columns: int, filters: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(columns, columns, 3, padding=1, groups=columns, bias=False)
        self.pointwise = nn.Conv1d(columns, filters, 1, bias=False)
        self.normalise = nn.BatchNorm1d(filters)

    def forward(self, values: Tensor) -> Tensor:
        """(m, columns, STEPS) → (m, filters, STEPS)."""
        return torch.relu(self.normalise(self.pointwise(self.depthwise(values))))


class Body(nn.Module):
    """Two blocks for local patterns, one LSTM for their order; its last hidden state is the context."""

    def __init__(self, columns: int, widths: Widths) -> None:
        super().__init__()
        self.first = Block(columns, widths.first)
        self.second = Block(widths.first, widths.second)
        self.lstm = nn.LSTM(widths.second, widths.lstm, batch_first=True)

    def forward(self, seen: Tensor, there: Tensor) -> Tensor:
        """(m, STEPS, columns), (m, STEPS, 1) → (m, units)."""
        present = there.transpose(1, 2)
        local = self.second(self.first(seen.transpose(1, 2)) * present) * present
        ordered, _ = self.lstm(local.transpose(1, 2))
        last: Tensor = ordered[:, -1]
        return last


class Family:
    """About 1.2 million parameters before compression, as published (4.8 MB)."""

    name = "cnn_lstm"
    kind: Literal["torch"] = "torch"
    paper = "compressed CNN-LSTM: depthwise-separable Conv1d, narrow LSTM, structured L1 pruning, int8 (Adam 1e-3)"

    def build(self, spec: Spec, classes: int, *, widths: Widths | None = None, dropout: float = 0.2) -> Classifier:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        sequence, table, widths = len(spec.sequence), len(spec.table), widths or Widths()
        return Classifier(Body(2 * sequence, widths), widths.lstm, sequence, table, classes, dropout)


PLUGIN = Family()
