"""Quantisation-aware fine-tuning: the network learns with the rounding that int8 will do (Jacob et al., Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018), then is written as int8.

What is rounded in training is what is rounded in serving: the inputs of convolutions and dense layers, by static scales
from the same windows as step int8's, and their weights, per channel. Gradients pass as if nothing were rounded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ids_plugin.compress import Material, Work
from ids_plugin.compress._retrain import exported, needed, probabilities, retrain
from ids_plugin.compress.int8 import LARGEST_WEIGHT, Scale, quantised

EPOCHS = 3
RATE = 2e-4
_TEMPERATURE = 2.0


class Qat:
    """Step `qat`."""

    name = "qat"
    value = f"epochs (default: {EPOCHS})"

    def apply(self, work: Work, material: Material, value: float | None) -> Work:
        """As compress.Step."""
        module = copy.deepcopy(needed(work, self.name))
        scales = observed(module, material)
        rounding = Rounding(module, scales)
        epochs = EPOCHS if value is None else max(1, int(value))
        retrain(module, material, epochs=epochs, temperature=_TEMPERATURE, rate=RATE)
        rounding.settle()
        return Work(quantised(exported(module, material).model, material.shown, scales))


def observed(module: nn.Module, material: Material) -> dict[str, Scale]:
    """Layer → how its input is rounded, from the least and the largest value it reads among the shown windows."""
    ends: dict[str, tuple[float, float]] = {}

    def look(name: str, values: Tensor) -> None:
        low, high = ends.get(name, (0.0, 0.0))
        ends[name] = min(low, float(values.min())), max(high, float(values.max()))

    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: look(name, given[0]))
        for name, layer in layers(module)
    ]
    probabilities(module, material.shown, material.classes)
    for hook in hooks:
        hook.remove()
    return {name: Scale.between(*end) for name, end in ends.items()}


def layers(module: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv1d]]:
    """What int8 computes in bytes, by name."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            yield name, layer


class Rounding:
    """Makes a network round as int8 does, until it is settled."""

    def __init__(self, module: nn.Module, scales: dict[str, Scale]) -> None:
        self._layers = [layer for name, layer in layers(module) if name in scales]
        self._hooks = []
        for name, layer in layers(module):
            if name in scales:
                self._hooks.append(layer.register_forward_pre_hook(_Inputs(scales[name])))
                parametrize.register_parametrization(layer, "weight", _Weights())

    def settle(self) -> None:
        """The network is an ordinary one again, with weights that int8 represents exactly."""
        for hook in self._hooks:
            hook.remove()
        for layer in self._layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


class _Inputs:
    def __init__(self, scale: Scale) -> None:
        self._scale = scale

    def __call__(self, _layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        step, zero = float(self._scale.step), int(self._scale.zero)
        return (torch.fake_quantize_per_tensor_affine(given[0], step, zero, 0, 255), *given[1:])


class _Weights(nn.Module):
    """Per output channel, symmetric."""

    def forward(self, weight: Tensor) -> Tensor:
        largest = weight.detach().abs().flatten(1).amax(dim=1)
        step = torch.where(largest > 0, largest / LARGEST_WEIGHT, torch.ones_like(largest))
        zero = torch.zeros(len(step), dtype=torch.int32)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, step, zero, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT)
        return rounded


PLUGIN = Qat()
