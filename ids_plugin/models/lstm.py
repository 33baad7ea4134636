"""Plain LSTM, a baseline: the flows of a pair in their order, the last hidden state."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ids_plugin.models._layers import Classifier
from ids_plugin.schema.window import Spec


class Body(nn.Module):
    """One layer, one direction."""

    def __init__(self, columns: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(columns, units, batch_first=True)

    def forward(self, seen: Tensor, there: Tensor) -> Tensor:
        """(m, STEPS, columns), (m, STEPS, 1) → (m, units)."""
        ordered, _ = self.lstm(seen)
        last: Tensor = ordered[:, -1]
        return last


class Family:
    """About 50,000 parameters at the default width."""

    name = "lstm"
    kind: Literal["torch"] = "torch"
    paper = "Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 1997"

    def build(self, spec: Spec, classes: int, *, units: int = 64, dropout: float = 0.2) -> Classifier:
        """A fresh network for windows of `spec`; its weights come from torch's current seed."""
        sequence, table = len(spec.sequence), len(spec.table)
        return Classifier(Body(2 * sequence, units), units, sequence, table, classes, dropout)


PLUGIN = Family()
