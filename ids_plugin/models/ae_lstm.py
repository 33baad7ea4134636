"""AE-LSTM, trained on normal traffic only: a dense autoencoder of flows and a stacked LSTM that foresees the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ids_plugin.models._layers import Normalise
from ids_plugin.schema.window import Spec


class AeLstm(nn.Module):
    """The encoder's view of each earlier flow is what the LSTM reads, so both learn one code; the table has an
    autoencoder of its own beside the flow's code."""

    def __init__(self, sequence: int, table: int, units: int, latent: int) -> None:
        super().__init__()
        self.steps = Normalise(sequence)
        self.table = Normalise(table)
        self.encoder = nn.Sequential(nn.Linear(2 * sequence, units), nn.ReLU(), nn.Linear(units, latent), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(latent, units), nn.ReLU(), nn.Linear(units, sequence))
        self.inside = nn.Sequential(
            nn.Linear(2 * table + latent, units), nn.ReLU(), nn.Linear(units, latent), nn.ReLU()
        )
        self.outside = nn.Sequential(nn.Linear(latent, units), nn.ReLU(), nn.Linear(units, table))
        self.lstm = nn.LSTM(latent, units, num_layers=2, batch_first=True)
        self.foresee = nn.Linear(units, sequence)

    def set_scaling(self, means: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
        """Mean and 1 / standard deviation of the step features and of the table's."""
        for layer, mean, scale in zip((self.steps, self.table), means, scales, strict=True):
            layer.mean.copy_(mean)
            layer.scale.copy_(scale)

    def foreseeing(self) -> list[nn.Parameter]:
        """Parameters of the prediction alone."""
        return [*self.lstm.parameters(), *self.foresee.parameters()]

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """(m, STEPS, F), (m, STEPS) bool, (m, T) → mean squared errors of reconstruction and of prediction (m) each;
        what is unknown, and the prediction where there is no earlier flow, have none."""
        there = mask.unsqueeze(-1).to(steps.dtype)
        seen = self.steps(steps) * there
        flow, unknown = seen[:, -1].chunk(2, dim=-1)
        hosts = self.table(table)
        values, absent = hosts.chunk(2, dim=-1)
        code = self.encoder(seen) * there
        again = self.outside(self.inside(torch.cat([hosts, code[:, -1]], dim=-1)))
        rebuilt = torch.cat([self.decoder(code[:, -1]), again], dim=-1)
        error = _error(rebuilt, torch.cat([flow, values], dim=-1), torch.cat([unknown, absent], dim=-1))
        before, _ = self.lstm(code[:, :-1])
        return error, _error(self.foresee(before[:, -1]), flow, unknown) * there[:, -2, 0]


def _error(guess: Tensor, value: Tensor, unknown: Tensor) -> Tensor:
    """(m) mean squared error over what is known."""
    known = 1.0 - unknown
    return ((guess - value) ** 2 * known).sum(-1) / torch.clamp(known.sum(-1), min=1.0)


class Family:
    """64 units, as published."""

    name = "ae_lstm"
    kind: Literal["normal"] = "normal"
    paper = "AE-LSTM: A(t) = α · reconstruction error + β · prediction error, co-trained on normal traffic (Adam 1e-3)"

    def build(self, spec: Spec, classes: int, *, units: int = 64, latent: int = 16) -> AeLstm:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        return AeLstm(len(spec.sequence), len(spec.table), units, latent)


PLUGIN = Family()
