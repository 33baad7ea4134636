"""Architectures only: window spec → something that can be trained. A file here that defines
`PLUGIN` is a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ids_plugin.schema.window import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModelFamily(Protocol):
    """A model family."""

    name: str
    kind: str
    """how it is trained: the name of an entry point of the group `ids_plugin.trainers`; `uniflow`
    is trained to a bundle of its own by training.tiny"""
    paper: str
    """where the architecture was published"""


class TorchFamily(ModelFamily, Protocol):
    """A network: (steps, mask, table) → class logits (m, classes), attention (m, STEPS) or None,
    auxiliary loss (m)."""

    def build(self, spec: Spec, classes: int) -> nn.Module:
        """A fresh network, `Network` below; its weights come from torch's current seed."""
        ...


Shape = tuple[int, ...]


class UnitSlice(NamedTuple):
    """Where a group's units are in one tensor: unit u is `start + block * units + u` of dimension
    `dim`."""

    tensor: str
    dim: int
    blocks: int = 1
    start: int = 0


class UnitGroup(NamedTuple):
    """Units (filters, LSTM units, neurons) that can be removed without changing the others."""

    name: str
    units: int
    ranked: tuple[str, ...]
    """tensors whose rows say what a unit is worth"""
    parts: tuple[UnitSlice, ...]
    """everything that goes with a unit: what makes it and what reads it"""


class WidthsFamily(TorchFamily, Protocol):
    """A network that exists in any widths, so that units can be removed from it and it can be
    rebuilt from arrays."""

    def build(self, spec: Spec, classes: int, *, widths: Any = None) -> nn.Module:
        """A fresh network of these widths, the family's own by default."""
        ...

    def widths(self, weights: Mapping[str, Shape]) -> Any:
        """The widths of a network whose weights have these shapes."""
        ...

    def groups(self, widths: Any) -> tuple[UnitGroup, ...]:
        """What of such a network can be removed, in the order of the data."""
        ...


class NormalFamily(ModelFamily, Protocol):
    """A network of normal traffic: (steps, mask, table) → reconstruction error (m), prediction
    error (m)."""

    def build(self, spec: Spec, classes: int) -> nn.Module:
        """A fresh network; its weights come from torch's current seed."""
        ...


class TreeFamily(ModelFamily, Protocol):
    """A learner of another library: `lightgbm`, `forest` and `svm`."""

    def build(self, spec: Spec, classes: int) -> dict[str, object]:
        """The parameters it takes."""
        ...


class Network(Protocol):
    """What a torch family's module can do beside being called."""

    def set_scaling(self, means: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
        """Mean and 1 / standard deviation of the step features and of the table's, before
        training."""
        ...
