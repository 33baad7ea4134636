"""Quantisation-aware fine-tuning: the network learns with the rounding that int8 will do (Jacob et
al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
CVPR 2018), then is written as int8.

What is rounded in training is what is rounded in serving: the inputs of convolutions and dense
layers, by static scales from the same windows as step int8's, and their weights, per channel.
Gradients pass as if nothing were rounded."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ids_plugin.compression import NetworkInProgress, StepContext
from ids_plugin.compression.int8 import LARGEST_WEIGHT, Scale, Scales, quantised
from ids_plugin.compression.retrain import exported, needed, probabilities, retrain

EPOCHS = 3
RATE = 2e-4
_TEMPERATURE = 2.0


class Qat:
    """Step `qat`."""

    name = "qat"
    value = f"epochs (default: {EPOCHS})"

    def apply(
        self, work: NetworkInProgress, material: StepContext, value: float | None
    ) -> NetworkInProgress:
        """As compress.Step."""
        module = copy.deepcopy(needed(work, self.name))
        scales = observed(module, material)
        rounding = Rounding(module, scales)
        epochs = EPOCHS if value is None else max(1, int(value))
        retrain(module, material, epochs=epochs, temperature=_TEMPERATURE, rate=RATE)
        rounding.settle()
        return NetworkInProgress(
            quantised(exported(module, material).model, material.shown, scales)
        )


def observed(module: nn.Module, material: StepContext) -> Scales:
    """How layers round, from the least and the largest value among the shown windows."""
    read: dict[str, tuple[float, float]] = {}
    written: dict[str, tuple[float, float]] = {}

    def widen(ends: dict[str, tuple[float, float]], name: str, values: Tensor) -> None:
        low, high = ends.get(name, (0.0, 0.0))
        ends[name] = min(low, float(values.min())), max(high, float(values.max()))

    hooks = []
    for name, layer, last in layers(module):
        hooks.append(
            layer.register_forward_pre_hook(
                lambda _, values, name=name: widen(read, name, values[0])
            )
        )
        if last is not None:
            hooks.append(
                last.register_forward_hook(
                    lambda _, __, values, name=name: widen(written, name, values)
                )
            )
    probabilities(module, material.shown, material.classes)
    for hook in hooks:
        hook.remove()
    return Scales(
        *({name: Scale.between(*end) for name, end in ends.items()} for ends in (read, written))
    )


def layers(module: nn.Module) -> list[tuple[str, nn.Module, nn.Module | None]]:
    """What int8 computes in bytes, by name; of a convolution also what gives its result: the batch
    normalisation that follows it, which the exporter makes part of it, or itself."""
    listed: list[tuple[str, nn.Module, nn.Module | None]] = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            listed.append((name, layer, None))
        elif isinstance(layer, nn.Conv1d):
            listed.append((name, layer, layer))
        elif isinstance(layer, nn.BatchNorm1d):
            listed[-1] = (*listed[-1][:2], layer)
    return listed


class Rounding:
    """Makes a network round as int8 does, until it is settled."""

    def __init__(self, module: nn.Module, scales: Scales) -> None:
        self._layers = []
        self._hooks = []
        for name, layer, last in layers(module):
            self._layers.append(layer)
            self._hooks.append(layer.register_forward_pre_hook(_Inputs(scales.read[name])))
            parametrize.register_parametrization(layer, "weight", _Weights())
            if last is not None:
                self._hooks.append(last.register_forward_hook(_Output(scales.written[name])))

    def settle(self) -> None:
        """The network is an ordinary one again, with weights that int8 represents exactly."""
        for hook in self._hooks:
            hook.remove()
        for layer in self._layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _rounded(values: Tensor, scale: Scale) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(values, float(scale.step), int(scale.zero), 0, 255)


class _Inputs:
    def __init__(self, scale: Scale) -> None:
        self._scale = scale

    def __call__(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_rounded(inputs[0], self._scale), *inputs[1:])


class _Output:
    def __init__(self, scale: Scale) -> None:
        self._scale = scale

    def __call__(self, _layer: nn.Module, _given: tuple[Tensor, ...], values: Tensor) -> Tensor:
        return _rounded(values, self._scale)


class _Weights(nn.Module):
    """Per output channel, symmetric."""

    def forward(self, weight: Tensor) -> Tensor:
        largest = weight.detach().abs().flatten(1).amax(dim=1)
        step = torch.where(largest > 0, largest / LARGEST_WEIGHT, torch.ones_like(largest))
        zero = torch.zeros(len(step), dtype=torch.int32)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(
            weight, step, zero, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT
        )
        return rounded


PLUGIN = Qat()
