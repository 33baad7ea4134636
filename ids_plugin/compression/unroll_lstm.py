"""An LSTM written out step by step, so that its matrix products can be int8 with static scales.

ONNX Runtime's LSTM is fp32, or int8 with scales taken from the batch, which one odd flow would
shift for all others. Written out, a step costs a dozen small operations beside its product: what
that buys grows with the width, see docs/compression.md."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from ids_plugin.schema.window import STEPS

WIDEST = 32
"""units up to which the fp32 node stays: there it is nearly as fast"""


class Unrolled(nn.Module):
    """Gives what a one-layer `nn.LSTM` gives, batch first."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.units = lstm.hidden_size
        self.seen = nn.Linear(lstm.input_size, 4 * self.units)
        self.kept = nn.Linear(self.units, 4 * self.units, bias=False)
        trained = lstm.state_dict()
        with torch.no_grad():
            self.seen.weight.copy_(trained["weight_ih_l0"])
            self.seen.bias.copy_(trained["bias_ih_l0"] + trained["bias_hh_l0"])
            self.kept.weight.copy_(trained["weight_hh_l0"])

    def forward(self, steps: Tensor) -> tuple[Tensor, None]:
        """(m, STEPS, columns) → hidden states (m, STEPS, units)."""
        seen = self.seen(steps.reshape(-1, self.seen.in_features)).reshape(
            -1, STEPS, 4 * self.units
        )
        hidden, cell = self._step(seen[:, 0], None)
        states = [hidden]
        for step in range(1, STEPS):
            hidden, cell = self._step(seen[:, step] + self.kept(hidden), cell)
            states.append(hidden)
        return torch.stack(states, dim=1), None

    def _step(self, gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
        enter, forget, new, leave = gates.chunk(4, dim=-1)
        fresh = torch.sigmoid(enter) * torch.tanh(new)
        cell = fresh if cell is None else fresh + torch.sigmoid(forget) * cell
        return torch.sigmoid(leave) * torch.tanh(cell), cell


def unrolled(module: nn.Module, widest: int = WIDEST) -> nn.Module | None:
    """A copy with every LSTM of more than `widest` units written out; None where there is none."""
    wide = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.LSTM) and layer.hidden_size > widest
    ]
    if not wide:
        return None
    written = copy.deepcopy(module)
    for name in wide:
        parent, _, last = name.rpartition(".")
        holder = written.get_submodule(parent)
        setattr(holder, last, Unrolled(cast(nn.LSTM, holder.get_submodule(last))))
    return written
