"""CNN + LSTM + autoencoder + attention over the flows of a pair; what the hosts did of late joins
the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ids_plugin.models import Shape, UnitGroup, UnitSlice
from ids_plugin.models.layers import Attention, Normalise, lstm_group, rows
from ids_plugin.schema.window import Spec


class AnomalyNetWidths(NamedTuple):
    """Units of each part."""

    encoder: int = 32
    latent: int = 12
    decoder: int = 32
    first: int = 32
    second: int = 32
    lstm: int = 32
    key: int = 16
    context: int = 32
    table: int = 48
    joined: int = 24
    decide: int = 48


class AnomalyNet(nn.Module):
    """Steps → autoencoder (features of one flow) and two convolutions (local patterns) → LSTM
    (order) → attention, the flow itself asking → context vector; with the table's features and the
    reconstruction error → classes."""

    def __init__(
        self, sequence: int, table: int, classes: int, widths: AnomalyNetWidths, dropout: float
    ) -> None:
        super().__init__()
        self.steps = Normalise(sequence)
        self.table = Normalise(table)
        self.encoder = nn.Sequential(
            nn.Linear(2 * sequence, widths.encoder),
            nn.ReLU(),
            nn.Linear(widths.encoder, widths.latent),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Linear(widths.latent, widths.decoder), nn.ReLU(), nn.Linear(widths.decoder, sequence)
        )
        self.first = nn.Conv1d(2 * sequence, widths.first, 3, padding=1)
        self.second = nn.Conv1d(widths.first, widths.second, 3, padding=1)
        self.lstm = nn.LSTM(widths.second + widths.latent, widths.lstm, batch_first=True)
        self.attend = Attention(widths.lstm + widths.second, widths.key, widths.context)
        self.host = nn.Sequential(
            nn.Linear(2 * table, widths.table),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(widths.table, widths.joined),
            nn.ReLU(),
        )
        self.decide = nn.Sequential(
            nn.Linear(widths.context + widths.joined + 1, widths.decide),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(widths.decide, classes),
        )

    def set_scaling(self, means: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
        """Mean and 1 / standard deviation of the step features and of the table's."""
        for layer, mean, scale in zip((self.steps, self.table), means, scales, strict=True):
            layer.mean.copy_(mean)
            layer.scale.copy_(scale)

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(m, STEPS, F), (m, STEPS) bool, (m, T) → logits (m, classes), attention (m, STEPS),
        squared error (m)."""
        is_flow = mask.unsqueeze(-1).to(steps.dtype)
        seen = self.steps(steps) * is_flow
        latent = self.encoder(seen) * is_flow
        error = self._error(seen, latent, is_flow)
        local = torch.relu(self.first(seen.transpose(1, 2))) * is_flow.transpose(1, 2)
        local = torch.relu(self.second(local)).transpose(1, 2) * is_flow
        ordered, _ = self.lstm(torch.cat([local, latent], dim=-1))
        context, weights = self.attend(torch.cat([ordered, local], dim=-1), is_flow)
        host = self.host(self.table(table))
        logits = self.decide(
            torch.cat([context, host, torch.clamp(error, max=4.0).unsqueeze(-1)], dim=-1)
        )
        return logits, weights, error

    def _error(self, seen: Tensor, latent: Tensor, is_flow: Tensor) -> Tensor:
        """Mean squared error of the known values of the steps that are there."""
        values, unknown = seen.chunk(2, dim=-1)
        known = (1.0 - unknown) * is_flow
        squared: Tensor = (self.decoder(latent) - values) ** 2 * known
        return squared.sum((1, 2)) / torch.clamp(known.sum((1, 2)), min=1.0)


class AnomalyNetFamily:
    """About 40,000 parameters at the default widths."""

    name = "anomaly_net"
    kind = "torch"
    paper = (
        "CNN, LSTM, autoencoder and query/key/value attention over time steps"
        " (Adam 1e-3, dropout 0.2)"
    )

    def build(
        self,
        spec: Spec,
        classes: int,
        *,
        widths: AnomalyNetWidths | None = None,
        dropout: float = 0.2,
    ) -> AnomalyNet:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        return AnomalyNet(
            len(spec.sequence), len(spec.table), classes, widths or AnomalyNetWidths(), dropout
        )

    def widths(self, weights: Mapping[str, Shape]) -> AnomalyNetWidths:
        """As models.WidthsFamily."""
        layers = (
            "encoder.0",
            "encoder.2",
            "decoder.0",
            "first",
            "second",
            "attend.key",
            "attend.value",
        )
        encoder, latent, decoder, first, second, key, context = (
            weights[f"{name}.weight"][0] for name in layers
        )
        table, joined, decide = (
            weights[f"{name}.weight"][0] for name in ("host.0", "host.3", "decide.0")
        )
        lstm = weights["lstm.weight_hh_l0"][1]
        return AnomalyNetWidths(
            encoder, latent, decoder, first, second, lstm, key, context, table, joined, decide
        )

    def groups(self, widths: AnomalyNetWidths) -> tuple[UnitGroup, ...]:
        """As models.WidthsFamily; the width of query and key stays, since their product is scaled
        by it."""
        asked = ("attend.query.weight", "attend.key.weight", "attend.value.weight")
        return (
            _layer("encoder.0", widths.encoder, UnitSlice("encoder.2.weight", 1)),
            _layer(
                "encoder.2",
                widths.latent,
                UnitSlice("decoder.0.weight", 1),
                UnitSlice("lstm.weight_ih_l0", 1, start=widths.second),
            ),
            _layer("decoder.0", widths.decoder, UnitSlice("decoder.2.weight", 1)),
            _layer("first", widths.first, UnitSlice("second.weight", 1)),
            _layer(
                "second",
                widths.second,
                UnitSlice("lstm.weight_ih_l0", 1),
                *(UnitSlice(name, 1, start=widths.lstm) for name in asked),
            ),
            lstm_group("lstm", widths.lstm, tuple(UnitSlice(name, 1) for name in asked)),
            _layer("attend.value", widths.context, UnitSlice("decide.0.weight", 1)),
            _layer("host.0", widths.table, UnitSlice("host.3.weight", 1)),
            _layer("host.3", widths.joined, UnitSlice("decide.0.weight", 1, start=widths.context)),
            _layer("decide.0", widths.decide, UnitSlice("decide.3.weight", 1)),
        )


def _layer(name: str, units: int, *readers: UnitSlice) -> UnitGroup:
    return UnitGroup(
        name, units, (f"{name}.weight",), (*rows(f"{name}.weight", f"{name}.bias"), *readers)
    )


PLUGIN = AnomalyNetFamily()
