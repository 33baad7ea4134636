"""Layers that several families share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CLIP = 5.0
"""Standard deviations beyond which a value counts no more."""


class Normalise(nn.Module):
    """Standardises and clips; what is unknown (NaN) becomes 0, and a second half of the columns says where."""

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
    """One head of query/key/value attention: the last step asks, every step that isn't padding answers."""

    def __init__(self, width: int, key: int, value: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, key)
        self.key = nn.Linear(width, key)
        self.value = nn.Linear(width, value)
        self.scale = key**-0.5

    def forward(self, steps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """steps (m, STEPS, width), mask (m, STEPS, 1) of 0 and 1 → context (m, value), weights (m, STEPS)."""
        query = self.query(steps[:, -1])
        match = (self.key(steps) * query.unsqueeze(1)).sum(-1) * self.scale
        weights = torch.softmax(match + (mask.squeeze(-1) - 1.0) * 1e4, dim=-1)
        return (self.value(steps) * weights.unsqueeze(-1)).sum(1), weights


class Table(nn.Module):
    """What the hosts did of late and the flow's summary: two dense layers over the window's table."""

    def __init__(self, columns: int, width: int, dropout: float) -> None:
        super().__init__()
        self.scale = Normalise(columns)
        self.layers = nn.Sequential(
            nn.Linear(2 * columns, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width // 2), nn.ReLU()
        )

    def forward(self, table: Tensor) -> Tensor:
        """(m, columns) → (m, width // 2)."""
        joined: Tensor = self.layers(self.scale(table))
        return joined


class Classifier(nn.Module):
    """A body reads the steps, the table joins its context, two dense layers decide."""

    def __init__(
        self, body: nn.Module, context: int, sequence: int, table: int, classes: int, dropout: float, width: int = 48
    ) -> None:
        """`body`: steps (m, STEPS, 2 * sequence), 0 in the padding, and what is none (m, STEPS, 1) → (m, context)."""
        super().__init__()
        self.steps = Normalise(sequence)
        self.body = body
        self.table = Table(table, width, dropout)
        self.decide = nn.Sequential(
            nn.Linear(context + width // 2, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, classes)
        )

    def set_scaling(self, means: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
        """Mean and 1 / standard deviation of the step features and of the table's."""
        for layer, mean, scale in zip((self.steps, self.table.scale), means, scales, strict=True):
            layer.mean.copy_(mean)
            layer.scale.copy_(scale)

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, None, Tensor]:
        """(m, STEPS, F), (m, STEPS) bool, (m, T) → logits (m, classes), no attention, no auxiliary loss (m)."""
        there = mask.unsqueeze(-1).to(steps.dtype)
        context = self.body(self.steps(steps) * there, there)
        logits = self.decide(torch.cat([context, self.table(table)], dim=-1))
        return logits, None, torch.zeros_like(logits[:, 0])
