"""CNN + LSTM + autoencoder + attention over the flows of a pair; what the hosts did of late joins the decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ids_plugin.models._layers import Attention, Normalise
from ids_plugin.schema.window import Spec


class Widths(NamedTuple):
    """Units of each part."""

    encoder: int = 32
    latent: int = 12
    convolution: int = 32
    lstm: int = 32
    key: int = 16
    context: int = 32
    table: int = 48
    decision: int = 48


class AnomalyNet(nn.Module):
    """Steps → autoencoder (features of one flow) and two convolutions (local patterns) → LSTM (order) → attention, the
    flow itself asking → context vector; with the table's features and the reconstruction error → classes.
    """

    def __init__(self, sequence: int, table: int, classes: int, widths: Widths, dropout: float) -> None:
        super().__init__()
        self.steps = Normalise(sequence)
        self.table = Normalise(table)
        self.encoder = nn.Sequential(
            nn.Linear(2 * sequence, widths.encoder), nn.ReLU(), nn.Linear(widths.encoder, widths.latent), nn.ReLU()
        )
        self.decoder = nn.Sequential(
            nn.Linear(widths.latent, widths.encoder), nn.ReLU(), nn.Linear(widths.encoder, sequence)
        )
        self.first = nn.Conv1d(2 * sequence, widths.convolution, 3, padding=1)
        self.second = nn.Conv1d(widths.convolution, widths.convolution, 3, padding=1)
        self.lstm = nn.LSTM(widths.convolution + widths.latent, widths.lstm, batch_first=True)
        self.attend = Attention(widths.lstm + widths.convolution, widths.key, widths.context)
        self.host = nn.Sequential(
            nn.Linear(2 * table, widths.table), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(widths.table, widths.table // 2), nn.ReLU(),
        )  # fmt: skip
        self.decide = nn.Sequential(
            nn.Linear(widths.context + widths.table // 2 + 1, widths.decision), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(widths.decision, classes),
        )  # fmt: skip

    def set_scaling(self, means: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
        """Mean and 1 / standard deviation of the step features and of the table's."""
        for layer, mean, scale in zip((self.steps, self.table), means, scales, strict=True):
            layer.mean.copy_(mean)
            layer.scale.copy_(scale)

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(m, STEPS, F), (m, STEPS) bool, (m, T) → logits (m, classes), attention (m, STEPS), squared error (m)."""
        there = mask.unsqueeze(-1).to(steps.dtype)
        seen = self.steps(steps) * there
        latent = self.encoder(seen) * there
        error = self._error(seen, latent, there)
        local = torch.relu(self.first(seen.transpose(1, 2))) * there.transpose(1, 2)
        local = torch.relu(self.second(local)).transpose(1, 2) * there
        ordered, _ = self.lstm(torch.cat([local, latent], dim=-1))
        context, weights = self.attend(torch.cat([ordered, local], dim=-1), there)
        host = self.host(self.table(table))
        logits = self.decide(torch.cat([context, host, torch.clamp(error, max=4.0).unsqueeze(-1)], dim=-1))
        return logits, weights, error

    def _error(self, seen: Tensor, latent: Tensor, there: Tensor) -> Tensor:
        """Mean squared error of the known values of the steps that are there."""
        values, unknown = seen.chunk(2, dim=-1)
        known = (1.0 - unknown) * there
        squared: Tensor = (self.decoder(latent) - values) ** 2 * known
        return squared.sum((1, 2)) / torch.clamp(known.sum((1, 2)), min=1.0)


class Family:
    """About 40,000 parameters at the default widths."""

    name = "anomaly_net"
    kind: Literal["torch"] = "torch"
    paper = "CNN, LSTM, autoencoder and query/key/value attention over time steps (Adam 1e-3, dropout 0.2)"

    def build(self, spec: Spec, classes: int, *, widths: Widths | None = None, dropout: float = 0.2) -> AnomalyNet:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        return AnomalyNet(len(spec.sequence), len(spec.table), classes, widths or Widths(), dropout)


PLUGIN = Family()
