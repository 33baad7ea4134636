"""Layers that several families share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ids_plugin.models import Shape, UnitGroup, UnitSlice

CLIP = 5.0
"""Standard deviations beyond which a value counts no more."""


def total(values: Tensor) -> Tensor:
    """(m, columns) → (m, 1), their sum, as a matrix product: what ONNX Runtime's own sum of a row
    gives depends, in its last bits, on where in memory the row begins, so on its place in the
    batch."""
    return values @ torch.ones(values.shape[-1], 1, dtype=values.dtype)


class Normalise(nn.Module):
    """Standardises and clips; what is unknown (NaN) becomes 0, and a second half of the columns
    says where."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    def forward(self, values: Tensor) -> Tensor:
        """(..., columns) → (..., 2 * columns)."""
        unknown = torch.isnan(values)
        known = torch.where(unknown, self.mean, values)
        scaled = torch.clamp((known - self.mean) * self.scale, -CLIP, CLIP)
        return torch.cat([scaled, unknown.to(values.dtype)], dim=-1)


class Attention(nn.Module):
    """One head of query/key/value attention: the last step asks, every step that isn't padding
    answers."""

    def __init__(self, width: int, key: int, value: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, key)
        self.key = nn.Linear(width, key)
        self.value = nn.Linear(width, value)
        self.scale = key**-0.5

    def forward(self, steps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """steps (m, STEPS, width), mask (m, STEPS, 1) of 0 and 1 → context (m, value), weights (m,
        STEPS)."""
        query = self.query(steps[:, -1])
        match = (self.key(steps) * query.unsqueeze(1)).sum(-1) * self.scale
        weights = torch.softmax(match + (mask.squeeze(-1) - 1.0) * 1e4, dim=-1)
        return (self.value(steps) * weights.unsqueeze(-1)).sum(1), weights


class Table(nn.Module):
    """What the hosts did of late and the flow's summary: two dense layers over the window's
    table."""

    def __init__(self, columns: int, first: int, second: int, dropout: float) -> None:
        super().__init__()
        self.scale = Normalise(columns)
        self.layers = nn.Sequential(
            nn.Linear(2 * columns, first),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(first, second),
            nn.ReLU(),
        )

    def forward(self, table: Tensor) -> Tensor:
        """(m, columns) → (m, second)."""
        joined: Tensor = self.layers(self.scale(table))
        return joined


class Head(NamedTuple):
    """Units of the layers that a body shares with every other: two of the table, one that
    decides."""

    table: int = 48
    joined: int = 24
    decide: int = 48


class Classifier(nn.Module):
    """A body reads the steps, the table joins its context, two dense layers decide."""

    def __init__(
        self,
        body: nn.Module,
        context: int,
        sequence: int,
        table: int,
        classes: int,
        dropout: float,
        head: Head,
    ) -> None:
        """`body`: steps (m, STEPS, 2 * sequence), 0 in the padding, and what is none (m, STEPS, 1)
        → (m, context)."""
        super().__init__()
        self.steps = Normalise(sequence)
        self.body = body
        self.table = Table(table, head.table, head.joined, dropout)
        self.decide = nn.Sequential(
            nn.Linear(context + head.joined, head.decide),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(head.decide, classes),
        )

    def set_scaling(self, means: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
        """Mean and 1 / standard deviation of the step features and of the table's."""
        for layer, mean, scale in zip((self.steps, self.table.scale), means, scales, strict=True):
            layer.mean.copy_(mean)
            layer.scale.copy_(scale)

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, None, Tensor]:
        """(m, STEPS, F), (m, STEPS) bool, (m, T) → logits (m, classes), no attention, no auxiliary
        loss (m)."""
        is_flow = mask.unsqueeze(-1).to(steps.dtype)
        context = self.body(self.steps(steps) * is_flow, is_flow)
        logits = self.decide(torch.cat([context, self.table(table)], dim=-1))
        return logits, None, torch.zeros_like(logits[:, 0])


def head_of(weights: Mapping[str, Shape]) -> Head:
    """The head that a Classifier with weights of these shapes has."""
    return Head(
        *(
            weights[f"{layer}.weight"][0]
            for layer in ("table.layers.0", "table.layers.3", "decide.0")
        )
    )


def head_groups(context: int, head: Head) -> tuple[UnitGroup, ...]:
    """Units of a Classifier's head; `context`: how many the body gives."""
    return (
        UnitGroup(
            "table",
            head.table,
            ("table.layers.0.weight",),
            (
                *rows("table.layers.0.weight", "table.layers.0.bias"),
                UnitSlice("table.layers.3.weight", 1),
            ),
        ),
        UnitGroup(
            "joined",
            head.joined,
            ("table.layers.3.weight",),
            (
                *rows("table.layers.3.weight", "table.layers.3.bias"),
                UnitSlice("decide.0.weight", 1, start=context),
            ),
        ),
        UnitGroup(
            "decide",
            head.decide,
            ("decide.0.weight",),
            (*rows("decide.0.weight", "decide.0.bias"), UnitSlice("decide.3.weight", 1)),
        ),
    )


def lstm_group(name: str, units: int, readers: tuple[UnitSlice, ...]) -> UnitGroup:
    """Units of the one-layer LSTM called `name`: their rows in all four gates, and what reads their
    state."""
    weights = (f"{name}.weight_ih_l0", f"{name}.weight_hh_l0")
    gates = tuple(
        UnitSlice(tensor, 0, blocks=4)
        for tensor in (*weights, f"{name}.bias_ih_l0", f"{name}.bias_hh_l0")
    )
    return UnitGroup(name, units, weights, (*gates, UnitSlice(weights[1], 1), *readers))


def rows(*names: str) -> tuple[UnitSlice, ...]:
    """A unit is one row of each of these."""
    return tuple(UnitSlice(name, 0) for name in names)
