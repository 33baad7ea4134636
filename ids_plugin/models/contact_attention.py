"""`contacts`: attention over the last flows of a contact, a third vote beside trees and a logistic
model.

Two encoder layers (Vaswani et al. 2017, normalised before each part), then attention pooling: a
query that was learnt asks, and the weights of the flows are an output of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ids_plugin.schema.window import Spec

UNKNOWN_PENALTY = 1e4
"""what the match of a flow that isn't there loses"""


class ContactAttentionShape(NamedTuple):
    """One network."""

    flows: int = 24
    token: int = 26
    """numbers of a flow"""
    table: int = 12
    """numbers of the contact"""
    width: int = 32
    heads: int = 4
    layers: int = 2
    inner: int = 64
    dropout: float = 0.2


class ContactsFamily:
    """The network of the control detector; its other voters aren't networks."""

    name = "contacts"
    kind = "contacts"
    paper = "attention over the flows of a contact, after Vaswani et al. 2017"

    def build(
        self, spec: Spec, classes: int, *, shape: ContactAttentionShape | None = None
    ) -> nn.Module:
        """A fresh network of contacts, whatever `spec` and `classes`: one log-odds."""
        return ContactAttention(shape or ContactAttentionShape())


class ContactAttention(nn.Module):
    """(m, flows, token), (m, flows) bool, (m, table) → log-odds (m), weights of the flows (m,
    flows)."""

    def __init__(self, shape: ContactAttentionShape) -> None:
        super().__init__()
        width = shape.width
        self.embed = nn.Linear(shape.token, width)
        self.place = nn.Parameter(torch.zeros(shape.flows, width))
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.query = nn.Linear(width, 1)
        self.decide = nn.Sequential(
            nn.Linear(2 * width + shape.table, width),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(width, 1),
        )

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """`mask` is true where a flow is there; the last always is."""
        missing = (1.0 - mask.to(steps.dtype)) * UNKNOWN_PENALTY
        hidden = self.embed(steps) + self.place
        for layer in self.layers:
            hidden = layer(hidden, missing)
        weights = torch.softmax(self.query(hidden).squeeze(-1) - missing, dim=-1)
        pooled = (weights.unsqueeze(1) @ hidden).squeeze(1)
        largest = (hidden - missing.unsqueeze(-1)).amax(1)
        logit = self.decide(torch.cat([pooled, largest, table], dim=1)).squeeze(-1)
        return logit, weights


class EncoderLayer(nn.Module):
    """Self-attention and two dense layers, each on normalised input and added to it."""

    def __init__(self, shape: ContactAttentionShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.first, self.second = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.project = nn.Linear(shape.width, 3 * shape.width)
        self.join = nn.Linear(shape.width, shape.width)
        self.dense = nn.Sequential(
            nn.Linear(shape.width, shape.inner),
            nn.ReLU(),
            nn.Dropout(shape.dropout),
            nn.Linear(shape.inner, shape.width),
        )
        self.drop = nn.Dropout(shape.dropout)

    def forward(self, hidden: Tensor, missing: Tensor) -> Tensor:
        """(m, flows, width), (m, flows) penalty of flows that aren't there → (m, flows, width)."""
        hidden = hidden + self.drop(self._attend(self.first(hidden), missing))
        dense: Tensor = hidden + self.drop(self.dense(self.second(hidden)))
        return dense

    def _attend(self, hidden: Tensor, missing: Tensor) -> Tensor:
        flows, width = hidden.shape[1], hidden.shape[2]
        parts = self.project(hidden).reshape(-1, flows, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        match = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5
        weights = torch.softmax(match - missing[:, None, None, :], dim=-1)
        joined = (self.drop(weights) @ value).transpose(1, 2).reshape(-1, flows, width)
        attended: Tensor = self.join(joined)
        return attended


PLUGIN = ContactsFamily()
