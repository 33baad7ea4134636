"""Plain CNN, a baseline: two convolutions over the flows of a pair, the largest response of each
filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ids_plugin.models import Shape, UnitGroup, UnitSlice
from ids_plugin.models.layers import Classifier, Head, head_groups, head_of, rows
from ids_plugin.schema.window import Spec


class CnnWidths(NamedTuple):
    """Filters of the two convolutions, and units of what every classifier has."""

    first: int = 64
    second: int = 64
    head: Head = Head()


class CnnBody(nn.Module):
    """Two convolutions of three steps, then the maximum over the steps that are there."""

    def __init__(self, columns: int, first: int, second: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(columns, first, 3, padding=1)
        self.second = nn.Conv1d(first, second, 3, padding=1)

    def forward(self, seen: Tensor, is_flow: Tensor) -> Tensor:
        """(m, STEPS, columns), (m, STEPS, 1) → (m, second)."""
        present = is_flow.transpose(1, 2)
        hidden = torch.relu(self.first(seen.transpose(1, 2))) * present
        hidden = torch.relu(self.second(hidden)) * present
        return hidden.amax(dim=-1)


class CnnFamily:
    """About 40,000 parameters at the default width."""

    name = "cnn"
    kind = "torch"
    paper = "the plain CNN that CNN-LSTM hybrids are compared with"

    def build(
        self, spec: Spec, classes: int, *, widths: CnnWidths | None = None, dropout: float = 0.2
    ) -> Classifier:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        sequence, table, widths = len(spec.sequence), len(spec.table), widths or CnnWidths()
        body = CnnBody(2 * sequence, widths.first, widths.second)
        return Classifier(body, widths.second, sequence, table, classes, dropout, widths.head)

    def widths(self, weights: Mapping[str, Shape]) -> CnnWidths:
        """As models.WidthsFamily."""
        return CnnWidths(
            weights["body.first.weight"][0], weights["body.second.weight"][0], head_of(weights)
        )

    def groups(self, widths: CnnWidths) -> tuple[UnitGroup, ...]:
        """As models.WidthsFamily."""
        made = []
        for name, filters, reader in (
            ("body.first", widths.first, "body.second.weight"),
            ("body.second", widths.second, "decide.0.weight"),
        ):
            parts = (*rows(f"{name}.weight", f"{name}.bias"), UnitSlice(reader, 1))
            made.append(UnitGroup(name, filters, (f"{name}.weight",), parts))
        return *made, *head_groups(widths.second, widths.head)


PLUGIN = CnnFamily()
