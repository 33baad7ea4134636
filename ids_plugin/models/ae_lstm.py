"""AE-LSTM, trained on normal traffic only: a dense autoencoder of flows and a stacked LSTM that
foresees the next."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ids_plugin.models.layers import Normalise, total
from ids_plugin.schema.window import Spec


class AeLstm(nn.Module):
    """The encoder's view of each earlier flow is what the LSTM reads, so both learn one code; the
    table has an autoencoder of its own beside the flow's code."""

    def __init__(
        self, sequence: int, table: int, units: int, latent: int, hidden: float = 0.0
    ) -> None:
        """`hidden`: share of the values that are hidden in training, so that they must be told from
        the others."""
        super().__init__()
        self.hidden = hidden
        self.steps = Normalise(sequence)
        self.table = Normalise(table)
        self.encoder = nn.Sequential(
            nn.Linear(2 * sequence, units), nn.ReLU(), nn.Linear(units, latent), nn.ReLU()
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, units), nn.ReLU(), nn.Linear(units, sequence)
        )
        self.inside = nn.Sequential(
            nn.Linear(2 * table + latent, units), nn.ReLU(), nn.Linear(units, latent), nn.ReLU()
        )
        self.outside = nn.Sequential(nn.Linear(latent, units), nn.ReLU(), nn.Linear(units, table))
        self.lstm = nn.LSTM(latent, units, num_layers=2, batch_first=True)
        self.foresee = nn.Linear(units, sequence)
        self.rebuilt_unit: Tensor
        self.foreseen_unit: Tensor
        self.register_buffer("rebuilt_unit", torch.eye(sequence + table))
        self.register_buffer("foreseen_unit", torch.eye(sequence))

    def set_scaling(self, means: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
        """Mean and 1 / standard deviation of the step features and of the table's."""
        for layer, mean, scale in zip((self.steps, self.table), means, scales, strict=True):
            layer.mean.copy_(mean)
            layer.scale.copy_(scale)

    def set_units(self, rebuilt: Tensor, foreseen: Tensor) -> None:
        """What residuals are multiplied with before they are squared, (F + T, F + T) and (F, F):
        nothing at first."""
        self.rebuilt_unit.copy_(rebuilt)
        self.foreseen_unit.copy_(foreseen)

    def foreseeing(self) -> list[nn.Parameter]:
        """Parameters of the prediction alone."""
        return [*self.lstm.parameters(), *self.foresee.parameters()]

    def residuals(
        self, steps: Tensor, mask: Tensor, table: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward` → what the reconstruction of flow and table is off by (m, F + T), what the
        prediction of the flow is (m, F), both 0 where the value is unknown, and where flow and
        table are known (m, F + T)."""
        is_flow = mask.unsqueeze(-1).to(steps.dtype)
        seen = self.steps(steps) * is_flow
        flow, unknown = seen[:, -1].chunk(2, dim=-1)
        hosts = self.table(table)
        values, absent = hosts.chunk(2, dim=-1)
        shown = torch.cat([seen[:, :-1], self._hide(seen[:, -1]).unsqueeze(1)], dim=1)
        code = self.encoder(shown) * is_flow
        again = self.outside(self.inside(torch.cat([self._hide(hosts), code[:, -1]], dim=-1)))
        rebuilt = torch.cat([self.decoder(code[:, -1]), again], dim=-1)
        known = 1.0 - torch.cat([unknown, absent], dim=-1)
        before, _ = self.lstm(code[:, :-1])
        ahead = (self.foresee(before[:, -1]) - flow) * (1.0 - unknown)
        return (rebuilt - torch.cat([flow, values], dim=-1)) * known, ahead, known

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """(m, STEPS, F), (m, STEPS) bool, (m, T) → mean squared errors of reconstruction and of
        prediction (m) each, over what is known; where there is no earlier flow, of what a first
        flow is foreseen to be."""
        again, ahead, known = self.residuals(steps, mask, table)
        return _error(again @ self.rebuilt_unit, known), _error(
            ahead @ self.foreseen_unit, known[:, : ahead.shape[1]]
        )

    def _hide(self, normalised: Tensor) -> Tensor:
        """(m, 2 * columns) with some of the values unknown, in training."""
        if not self.training or not self.hidden:
            return normalised
        values, unknown = normalised.chunk(2, dim=-1)
        shown = (torch.rand_like(values) >= self.hidden).to(values.dtype)
        return torch.cat([values * shown, torch.maximum(unknown, 1.0 - shown)], dim=-1)


def _error(residual: Tensor, known: Tensor) -> Tensor:
    """(m) mean square over what is known."""
    return (total(residual**2) / torch.clamp(total(known), min=1.0)).squeeze(-1)


class AeLstmFamily:
    """64 units, as published."""

    name = "ae_lstm"
    kind = "normal"
    paper = (
        "AE-LSTM: A(t) = α · reconstruction error + β · prediction error,"
        " co-trained on normal traffic (Adam 1e-3)"
    )

    def build(
        self, spec: Spec, classes: int, *, units: int = 64, latent: int = 16, hidden: float = 0.3
    ) -> AeLstm:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        return AeLstm(len(spec.sequence), len(spec.table), units, latent, hidden)


PLUGIN = AeLstmFamily()
