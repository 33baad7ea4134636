"""Layers that several families share."""

from __future__ import annotations

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
