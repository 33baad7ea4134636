"""CNN-LSTM designed together with its compression: two depthwise-separable convolutions and one
narrow LSTM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ids_plugin.models import Shape, UnitGroup, UnitSlice
from ids_plugin.models.layers import Classifier, Head, head_groups, head_of, lstm_group, rows
from ids_plugin.schema.window import Spec


class CnnLstmWidths(NamedTuple):
    """Filters of the two blocks and units of the LSTM: what structured pruning makes smaller."""

    first: int = 384
    second: int = 384
    lstm: int = 320
    head: Head = Head()


class Block(nn.Module):
    """Depthwise-separable convolution of three steps, batch normalisation, ReLU (Chollet, Xception,
    CVPR 2017)."""

    def __init__(self, columns: int, filters: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(columns, columns, 3, padding=1, groups=columns, bias=False)
        self.pointwise = nn.Conv1d(columns, filters, 1, bias=False)
        self.normalise = nn.BatchNorm1d(filters)

    def forward(self, values: Tensor) -> Tensor:
        """(m, columns, STEPS) → (m, filters, STEPS)."""
        return torch.relu(self.normalise(self.pointwise(self.depthwise(values))))


class CnnLstmBody(nn.Module):
    """Two blocks for local patterns, one LSTM for their order; its last hidden state is the
    context."""

    def __init__(self, columns: int, widths: CnnLstmWidths) -> None:
        super().__init__()
        self.first = Block(columns, widths.first)
        self.second = Block(widths.first, widths.second)
        self.lstm = nn.LSTM(widths.second, widths.lstm, batch_first=True)

    def forward(self, seen: Tensor, is_flow: Tensor) -> Tensor:
        """(m, STEPS, columns), (m, STEPS, 1) → (m, units)."""
        present = is_flow.transpose(1, 2)
        local = self.second(self.first(seen.transpose(1, 2)) * present) * present
        ordered, _ = self.lstm(local.transpose(1, 2))
        last: Tensor = ordered[:, -1]
        return last


class CnnLstmFamily:
    """About 1.2 million parameters before compression, as published (4.8 MB)."""

    name = "cnn_lstm"
    kind = "torch"
    paper = (
        "compressed CNN-LSTM: depthwise-separable Conv1d, narrow LSTM,"
        " structured L1 pruning, int8 (Adam 1e-3)"
    )

    def build(
        self, spec: Spec, classes: int, *, widths: CnnLstmWidths | None = None, dropout: float = 0.2
    ) -> Classifier:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        sequence, table, widths = len(spec.sequence), len(spec.table), widths or CnnLstmWidths()
        body = CnnLstmBody(2 * sequence, widths)
        return Classifier(body, widths.lstm, sequence, table, classes, dropout, widths.head)

    def widths(self, weights: Mapping[str, Shape]) -> CnnLstmWidths:
        """As models.WidthsFamily."""
        first, second = (
            weights[f"body.{block}.pointwise.weight"][0] for block in ("first", "second")
        )
        return CnnLstmWidths(first, second, weights["body.lstm.weight_hh_l0"][1], head_of(weights))

    def groups(self, widths: CnnLstmWidths) -> tuple[UnitGroup, ...]:
        """As models.WidthsFamily."""
        second = (
            UnitSlice("body.second.depthwise.weight", 0),
            UnitSlice("body.second.pointwise.weight", 1),
        )
        return (
            _filters("body.first", widths.first, second),
            _filters("body.second", widths.second, (UnitSlice("body.lstm.weight_ih_l0", 1),)),
            lstm_group("body.lstm", widths.lstm, (UnitSlice("decide.0.weight", 1),)),
            *head_groups(widths.lstm, widths.head),
        )


def _filters(block: str, filters: int, readers: tuple[UnitSlice, ...]) -> UnitGroup:
    """Filters of a block, with their batch normalisation."""
    normalised = [
        f"{block}.normalise.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    ]
    made = f"{block}.pointwise.weight"
    return UnitGroup(block, filters, (made,), (*rows(made, *normalised), *readers))


PLUGIN = CnnLstmFamily()
