"""What steps share that change weights: learning again, exporting, asking a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ids_plugin.compression import NetworkInProgress, StepContext
from ids_plugin.errors import UsageError
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring import Doubles
from ids_plugin.training.examples import Examples
from ids_plugin.training.torch_network import (
    FittedNetwork,
    Inputs,
    TrainingSet,
    export,
    learn,
    tensors,
)

_ROWS = 4096


def needed(work: NetworkInProgress, step: str) -> nn.Module:
    """The network as torch has it.

    Raises:
        UsageError: only ONNX is left of it.
    """
    if work.module is None:
        raise UsageError(
            f"step {step} changes weights, and there are only those of ONNX",
            hint="start from an fp32 bundle as `train` leaves it, and name the step before int8",
        )
    return work.module


def retrain(
    module: nn.Module,
    material: StepContext,
    *,
    epochs: int | None = None,
    temperature: float | None = None,
    rate: float | None = None,
) -> None:
    """Lets the network learn again, weights that are 0 staying 0; with a temperature from the
    teacher too. Nothing is dropped out: what is left after pruning is none too much.

    Raises:
        UsageError: there is nothing to learn from.
    """
    if material.train is None:
        raise UsageError(
            "a step that learns again needs labelled flows to learn from", hint="--train SPEC"
        )
    fit = replace(
        material.fit, epochs=epochs or material.fit.epochs, rate=rate or material.fit.rate
    )
    torch.manual_seed(material.seed)
    soft, temperature = (
        (None, 1.0) if temperature is None else (_answers(material.teacher), temperature)
    )
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    learn(
        module,
        TrainingSet(
            material.train,
            material.held_out,
            material.classes,
            fit,
            material.seed,
            material.progress,
            soft,
            temperature,
            _holding(module),
        ),
    )


def _answers(teacher: nn.Module | None) -> Callable[[Inputs], Tensor]:
    def answer(inputs: Inputs) -> Tensor:
        logits: Tensor = network(*inputs)[0]
        return logits

    network = needed(NetworkInProgress(b"", teacher), "distil")
    return answer


def _holding(module: nn.Module) -> Callable[[], None]:
    """Puts back to 0 what is 0 now, biases aside."""
    held = [
        (weight, weight == 0)
        for weight in module.parameters()
        if weight.dim() > 1 and bool((weight == 0).any())
    ]

    def hold() -> None:
        with torch.no_grad():
            for weight, zero in held:
                weight[zero] = 0.0

    return hold


def exported(module: nn.Module, material: StepContext, **notes: float) -> NetworkInProgress:
    """The work whose network this is."""
    return NetworkInProgress(
        export(FittedNetwork(module.eval(), material.classes, []), material.held_out), module, notes
    )


def probabilities(module: nn.Module, examples: Examples, classes: tuple[int, ...]) -> Doubles:
    """(n, len(CLASSES)) as the network in torch says."""
    out = np.zeros((len(examples), len(CLASSES)))
    with torch.no_grad():
        for start in range(0, len(examples), _ROWS):
            rows = np.arange(start, min(start + _ROWS, len(examples)))
            logits = module(*tensors(examples, rows))[0]
            out[rows[:, None], np.array(classes)] = torch.softmax(logits, dim=-1).numpy()
    return out
