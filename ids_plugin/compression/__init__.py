"""Compression: bundle → smaller bundle, and what it cost.

`_run.compress` is the whole of it; a file here that defines `PLUGIN` is a step of its recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn

    from ids_plugin.models import WidthsFamily
    from ids_plugin.training.examples import Examples
    from ids_plugin.training.options import Fit


@dataclass(frozen=True)
class NetworkInProgress:
    """A network on its way to something smaller."""

    model: bytes
    """ONNX"""
    module: nn.Module | None = None
    """what `model` was exported from; None once only ONNX is left"""
    notes: Mapping[str, float] = field(default_factory=dict)
    """what the last step has to say about its result beside the cost that every step has"""


@dataclass(frozen=True)
class StepContext:
    """What steps work with."""

    family: WidthsFamily
    classes: tuple[int, ...]
    """of the network's outputs, indices into CLASSES"""
    held_out: Examples
    """windows that choose: when retraining stops, how much is pruned"""
    shown: Examples
    """windows that fix the scales"""
    fit: Fit
    """how a network learns again"""
    seed: int
    progress: Callable[[str], None]
    train: Examples | None = None
    """windows to learn again from"""
    teacher: nn.Module | None = None
    """the network as it was trained"""


class Step(Protocol):
    """One way of making a network smaller, or better at its size."""

    name: str
    value: str
    """in a few words: what the number after `name=` means, and what holds without it"""

    def apply(
        self, work: NetworkInProgress, material: StepContext, value: float | None
    ) -> NetworkInProgress:
        """The smaller network.

        Raises:
            UsageError: the step needs something that is not there, or the value makes no sense.
        """
        ...
