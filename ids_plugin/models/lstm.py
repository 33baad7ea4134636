"""Plain LSTM, a baseline: the flows of a pair in their order, the last hidden state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ids_plugin.models import Shape, UnitGroup, UnitSlice
from ids_plugin.models.layers import Classifier, Head, head_groups, head_of, lstm_group
from ids_plugin.schema.window import Spec


class LstmWidths(NamedTuple):
    """Units of the LSTM and of what every classifier has."""

    lstm: int = 64
    head: Head = Head()


class LstmBody(nn.Module):
    """One layer, one direction."""

    def __init__(self, columns: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(columns, units, batch_first=True)

    def forward(self, seen: Tensor, is_flow: Tensor) -> Tensor:
        """(m, STEPS, columns), (m, STEPS, 1) → (m, units)."""
        ordered, _ = self.lstm(seen)
        last: Tensor = ordered[:, -1]
        return last


class LstmFamily:
    """About 50,000 parameters at the default width."""

    name = "lstm"
    kind = "torch"
    paper = "Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 1997"

    def build(
        self, spec: Spec, classes: int, *, widths: LstmWidths | None = None, dropout: float = 0.2
    ) -> Classifier:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        sequence, table, widths = len(spec.sequence), len(spec.table), widths or LstmWidths()
        body = LstmBody(2 * sequence, widths.lstm)
        return Classifier(body, widths.lstm, sequence, table, classes, dropout, widths.head)

    def widths(self, weights: Mapping[str, Shape]) -> LstmWidths:
        """As models.WidthsFamily."""
        return LstmWidths(weights["body.lstm.weight_hh_l0"][1], head_of(weights))

    def groups(self, widths: LstmWidths) -> tuple[UnitGroup, ...]:
        """As models.WidthsFamily."""
        units = lstm_group("body.lstm", widths.lstm, (UnitSlice("decide.0.weight", 1),))
        return units, *head_groups(widths.lstm, widths.head)


PLUGIN = LstmFamily()
