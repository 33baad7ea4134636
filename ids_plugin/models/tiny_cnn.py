"""`tiny_cnn`: convolution, pooling and dense layers over the sixteen or seven numbers of one
uniflow."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ids_plugin.schema.window import Spec


class TinyCnnShape(NamedTuple):
    """One network. The convolution slides over the features in their order."""

    inputs: int
    filters: int
    kernel: int
    same: bool
    """zeros are put around the features so that there are as many positions as features"""
    hidden: tuple[int, ...] = ()
    """widths of the dense layers before the last"""
    pool: int = 2
    classes: int = 5

    @property
    def before(self) -> int:
        """Zeros before the first feature; behind the last there are kernel - 1 less these."""
        return (self.kernel - 1) // 2 if self.same else 0

    @property
    def positions(self) -> int:
        """Of the convolution, that pooling reads: a rest that doesn't fill a pool is left out."""
        return self.pooled * self.pool

    @property
    def pooled(self) -> int:
        """Positions behind the pooling."""
        return (self.inputs if self.same else self.inputs - self.kernel + 1) // self.pool

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs of the first dense layer, then outputs of each."""
        return (self.filters * self.pooled, *self.hidden, self.classes)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        dense = sum((a + 1) * b for a, b in pairwise(self.widths))
        return self.filters * (self.kernel + 1) + dense

    @property
    def macs(self) -> int:
        """Multiplications of one classification."""
        dense = sum(a * b for a, b in pairwise(self.widths))
        return self.filters * self.kernel * self.positions + dense


ORIGINAL = TinyCnnShape(16, filters=64, kernel=4, same=False, hidden=(64, 20))
"""Convolution, pooling, flattening, three dense layers and dropout: 26,365 parameters, as
published."""
OPTIMISED = TinyCnnShape(7, filters=11, kernel=4, same=True, hidden=(15,))
"""Convolution, pooling, flattening, two dense layers: 645 parameters, as published."""
PRE_OPTIMISED = OPTIMISED._replace(inputs=16)
"""The same five layers on all features."""


class TinyCnnFamily:
    """The published layer counts and parameters; the widths behind them are ours, since they
    weren't printed."""

    name = "tiny_cnn"
    kind = "uniflow"
    paper = (
        "tiny CNN for microcontrollers: chi-square 16 → 7, 26,365 → 645 parameters"
        " (10 epochs, batch 32)"
    )

    def build(
        self, spec: Spec, classes: int, *, shape: TinyCnnShape = OPTIMISED, dropout: float = 0.2
    ) -> nn.Module:
        """A fresh network for uniflows, whatever `spec`: unit vectors (m, shape.inputs) → logits
        (m, classes)."""
        return network(shape._replace(classes=classes), dropout)


class Pad(nn.Module):
    """Zeros before and behind, not the same number of them, in operations that ONNX has."""

    def __init__(self, before: int, behind: int) -> None:
        super().__init__()
        self.before, self.behind = before, behind

    def forward(self, values: Tensor) -> Tensor:
        """(m, 1, n) → (m, 1, before + n + behind); n is no less than either."""
        nothing = values * 0.0
        return torch.cat([nothing[..., : self.before], values, nothing[..., : self.behind]], dim=-1)


def network(shape: TinyCnnShape, dropout: float = 0.0) -> nn.Module:
    """A fresh network; its weights come from torch's current seed. Layers `conv` and `dense0`,
    `dense1`, …"""
    layers: list[tuple[str, nn.Module]] = [("channel", nn.Unflatten(1, (1, shape.inputs)))]
    if shape.same:
        layers.append(("pad", Pad(shape.before, shape.kernel - 1 - shape.before)))
    layers += [("conv", nn.Conv1d(1, shape.filters, shape.kernel)), ("rectify", nn.ReLU())]
    layers += [
        ("pool", nn.MaxPool1d(shape.pool)),
        ("flatten", nn.Flatten()),
        ("drop", nn.Dropout(dropout)),
    ]
    for number, (inputs, outputs) in enumerate(pairwise(shape.widths)):
        layers += [(f"rectify{number}", nn.ReLU())] if number else []
        layers.append((f"dense{number}", nn.Linear(inputs, outputs)))
    made = nn.Sequential()
    for name, layer in layers:
        made.add_module(name, layer)
    return made


PLUGIN = TinyCnnFamily()
