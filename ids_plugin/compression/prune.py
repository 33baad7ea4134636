"""Structured pruning: filters, LSTM units and neurons with the least L1 norm are removed, not
zeroed, and the rest learns again (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017). A
family says itself what its units are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ids_plugin.compression import NetworkInProgress, StepContext
from ids_plugin.compression.cost import macro_f1
from ids_plugin.compression.retrain import exported, needed, probabilities, retrain
from ids_plugin.errors import UsageError
from ids_plugin.models import UnitGroup, UnitSlice, WidthsFamily
from ids_plugin.training.torch_network import rebuilt

LOSS = 0.002
"""macro-F1 that may be lost where no share is given"""
FEWEST = 16
"""units that every layer keeps"""
_WHOLE = 8
"""units are kept by so many: kernels work on whole vectors"""
_ROUNDS = 3
_HALF = 0.5


class Prune:
    """Step `prune`."""

    name = "prune"
    value = (
        "share of the units to remove (default: as many as cost at most"
        f" {LOSS:g} macro-F1 on the held-out windows)"
    )

    def apply(
        self, work: NetworkInProgress, material: StepContext, value: float | None
    ) -> NetworkInProgress:
        """As compress.Step."""
        module = needed(work, self.name)
        if value is None:
            return exported(_by_threshold(module, material), material)
        if not 0 < value < 1:
            raise UsageError(f"prune={value:g}: a share is between 0 and 1")
        units = sum(group.units for group in groups(material.family, module.state_dict()))
        for number in range(1, _ROUNDS + 1):
            module = _smaller(module, material, round(units * (1 - value) ** (number / _ROUNDS)))
            retrain(module, material, epochs=_short(material))
        return exported(module, material)


def _by_threshold(module: nn.Module, material: StepContext) -> nn.Module:
    """Halved as long as the held-out windows allow it."""
    floor = _worth(module, material) - LOSS
    while True:
        units = sum(group.units for group in groups(material.family, module.state_dict()))
        smaller = _smaller(module, material, int(units * _HALF))
        if _size(smaller) == _size(module):
            return module
        retrain(smaller, material, epochs=_short(material))
        worth = _worth(smaller, material)
        material.progress(f"prune: macro-F1 {worth:.4f}, at least {floor:.4f} is wanted")
        if worth < floor:
            return module
        module = smaller


def _short(material: StepContext) -> int:
    """Epochs between two rounds; `tune` or `distil` afterwards is what takes its time."""
    return max(2, material.fit.epochs // 8)


def _worth(module: nn.Module, material: StepContext) -> float:
    return macro_f1(material.held_out, probabilities(module, material.held_out, material.classes))


def _size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def groups(family: WidthsFamily, state: Mapping[str, Tensor]) -> tuple[UnitGroup, ...]:
    """The units of a network with these weights."""
    return family.groups(family.widths({name: tuple(value.shape) for name, value in state.items()}))


def _smaller(module: nn.Module, material: StepContext, keep: int) -> nn.Module:
    """The network with about `keep` units left, those over one threshold on their L1 norms; norms
    are in units of their layer's mean, so that wide layers and narrow ones compare."""
    state: Mapping[str, Tensor] = module.state_dict()
    norms = {group.name: _norms(group, state) for group in groups(material.family, state)}
    threshold = np.sort(np.concatenate(list(norms.values())))[::-1][max(0, keep - 1)]
    units_left = {}
    for name, norm in norms.items():
        count = -(-int((norm >= threshold).sum()) // _WHOLE) * _WHOLE
        count = min(max(count, FEWEST), len(norm))
        units_left[name] = torch.from_numpy(np.sort(np.argsort(-norm, kind="stable")[:count]))
    state = cut(material.family, state, units_left)
    smaller = rebuilt(material.family, material.held_out.spec, len(material.classes), state)
    left = ", ".join(f"{name} {len(units)}" for name, units in units_left.items())
    material.progress(f"prune: {_size(module)} → {_size(smaller)} weights: {left}")
    return smaller


def cut(
    family: WidthsFamily, state: Mapping[str, Tensor], units_left: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights with only the units `kept` (group → their numbers, ascending) of each group."""
    left = dict(state)
    for number, group in enumerate(groups(family, left)):
        now = groups(family, left)[number]
        for part in now.parts:
            left[part.tensor] = _cut(left[part.tensor], part, now.units, units_left[group.name])
    return left


def _norms(group: UnitGroup, state: Mapping[str, Tensor]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(units) sum of the absolute weights of each unit's rows, in units of their mean."""
    total = np.zeros(group.units)
    for name in group.ranked:
        rows = state[name].abs().flatten(1).sum(1).double().numpy()
        total += rows.reshape(-1, group.units).sum(axis=0)
    return np.asarray(total / max(total.mean(), 1e-12))


def _cut(tensor: Tensor, part: UnitSlice, units: int, units_left: Tensor) -> Tensor:
    """The tensor with the kept units of one part only; what isn't of the group stays."""
    size = tensor.shape[part.dim]
    end = part.start + part.blocks * units
    chosen = [part.start + block * units + units_left for block in range(part.blocks)]
    rows = torch.cat([torch.arange(part.start), *chosen, torch.arange(end, size)])
    return tensor.index_select(part.dim, rows)


PLUGIN = Prune()
