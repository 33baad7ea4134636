"""Lightweight temporal convolutional network: dilated causal convolutions, computed only where the
last step looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ids_plugin.models import Shape, UnitGroup, UnitSlice
from ids_plugin.models.layers import Classifier, Head, head_groups, head_of, rows
from ids_plugin.schema.window import STEPS, Spec

DILATIONS = (1, 2, 4, 8)
KERNEL = 3


class LightweightTcnWidths(NamedTuple):
    """Filters of the convolutions, one a dilation."""

    filters: tuple[int, ...] = (160, 256, 320, 512)
    head: Head = Head()


def positions(steps: int = STEPS, dilations: tuple[int, ...] = DILATIONS) -> list[list[int]]:
    """Steps whose values each layer's output needs so that the last step's is right, first layer
    first; steps before the window are negative and stay 0."""
    needed = [[steps - 1]]
    for dilation in reversed(dilations[1:]):
        before = {step - dilation * tap for step in needed[0] for tap in range(KERNEL)}
        needed.insert(0, sorted(step for step in before if step >= 0))
    return needed


class Causal(nn.Module):
    """A causal convolution of three taps, ReLU (Bai et al., An Empirical Evaluation of Generic
    Convolutional and Recurrent Networks for Sequence Modeling, 2018), at chosen steps only: the
    same numbers for a part of the work. It has no bias, so that what lies before the first flow
    stays 0 without a mask."""

    def __init__(
        self, columns: int, filters: int, dilation: int, available: list[int], wanted: list[int]
    ) -> None:
        """`given`: the steps that the input has; `wanted`: those that the output is to have."""
        super().__init__()
        self.taps = nn.Linear(KERNEL * columns, filters, bias=False)
        needed = [step - dilation * tap for step in wanted for tap in range(KERNEL)]
        self.sources = [available.index(step) if step >= 0 else len(available) for step in needed]
        self.wanted = len(wanted)

    def forward(self, values: Tensor) -> Tensor:
        """(m, given, columns) → (m, wanted, filters)."""
        taken = nn.functional.pad(values, (0, 0, 0, 1))[:, self.sources]
        heard = torch.relu(self.taps(taken.reshape(-1, self.taps.in_features)))
        return heard.reshape(-1, self.wanted, self.taps.out_features)

    def everywhere(self, values: Tensor, dilation: int) -> Tensor:
        """(m, columns, STEPS) → (m, filters, STEPS): the convolution as it is published."""
        kernel = (
            self.taps.weight.reshape(self.taps.out_features, KERNEL, -1).flip(1).transpose(1, 2)
        )
        padded = nn.functional.pad(values, (dilation * (KERNEL - 1), 0))
        return torch.relu(nn.functional.conv1d(padded, kernel, dilation=dilation))


class LightweightTcnBody(nn.Module):
    """The dilated stack as a tree that ends in the last step; `tree=False` computes every step in
    every layer, as published. A column that is 1 where there is a flow stands in for the biases."""

    def __init__(self, columns: int, widths: LightweightTcnWidths, *, tree: bool) -> None:
        super().__init__()
        self.tree = tree
        available, sizes = list(range(STEPS)), [columns + 1, *widths.filters]
        layers = []
        for number, (dilation, wanted) in enumerate(zip(DILATIONS, positions(), strict=True)):
            layers.append(Causal(sizes[number], sizes[number + 1], dilation, available, wanted))
            available = wanted
        self.layers = nn.Sequential(*layers)

    def forward(self, seen: Tensor, is_flow: Tensor) -> Tensor:
        """(m, STEPS, columns), (m, STEPS, 1) → (m, filters of the last layer)."""
        values = torch.cat([seen, is_flow], dim=-1)
        if self.tree:
            last: Tensor = self.layers(values)[:, -1]
            return last
        values = values.transpose(1, 2)
        for layer, dilation in zip(self.layers, DILATIONS, strict=True):
            values = cast(Causal, layer).everywhere(values, dilation)
        return values[:, :, -1]


class LightweightTcnFamily:
    """About 0.85 million parameters before compression, as published (0.9 million)."""

    name = "l_tcn"
    kind = "torch"
    paper = (
        "lightweight TCN: dilated causal convolutions 1, 2, 4, 8,"
        " iterative magnitude pruning to 60 % (Adam 1e-3)"
    )

    def build(
        self,
        spec: Spec,
        classes: int,
        *,
        widths: LightweightTcnWidths | None = None,
        dropout: float = 0.2,
        tree: bool = True,
    ) -> Classifier:
        """A fresh network for windows of `spec`; its weights come from torch's current seed. With
        `tree=False` it does the work of the published stack, for the same numbers."""
        sequence, table, widths = (
            len(spec.sequence),
            len(spec.table),
            widths or LightweightTcnWidths(),
        )
        body = LightweightTcnBody(2 * sequence, widths, tree=tree)
        return Classifier(body, widths.filters[-1], sequence, table, classes, dropout, widths.head)

    def widths(self, weights: Mapping[str, Shape]) -> LightweightTcnWidths:
        """As models.WidthsFamily."""
        filters = (
            weights[f"body.layers.{number}.taps.weight"][0] for number in range(len(DILATIONS))
        )
        return LightweightTcnWidths(tuple(filters), head_of(weights))

    def groups(self, widths: LightweightTcnWidths) -> tuple[UnitGroup, ...]:
        """As models.WidthsFamily."""
        readers = [
            UnitSlice(f"body.layers.{number}.taps.weight", 1, blocks=KERNEL)
            for number in range(1, len(DILATIONS))
        ]
        made = []
        for number, reader in enumerate([*readers, UnitSlice("decide.0.weight", 1)]):
            taps = f"body.layers.{number}.taps"
            parts = (*rows(f"{taps}.weight"), reader)
            made.append(UnitGroup(taps, widths.filters[number], (f"{taps}.weight",), parts))
        return *made, *head_groups(widths.filters[-1], widths.head)


PLUGIN = LightweightTcnFamily()
