"""Training: labelled windows + model → bundle.

`run.train` is the whole of it: networks → windows → members → combination → thresholds → bundle.
How a model family is fitted is the business of a `Trainer`; the family's `kind` is the name of its
entry point in the group `ids_plugin.trainers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ids_plugin.training.examples import Examples
    from ids_plugin.training.options import Options, Progress


@dataclass(frozen=True)
class TrainedMember:
    """A trained family as a bundle has it."""

    kind: str
    """kind of member that serves it: an entry point of the group `ids_plugin.members`"""
    file: str
    """name its model would like to have in the bundle; a second member gets another"""
    data: bytes
    """contents of that file"""
    classes: tuple[int, ...]
    """of its outputs, indices into CLASSES"""
    record: Mapping[str, Any]
    """what the manifest's `training.members` says of it; JSON"""
    weights: bytes | None = None
    """arrays of a network that compression can rebuild"""


class Trainer(Protocol):
    """Fits the model families of one kind."""

    name: str
    """the kind"""

    def train(
        self,
        family: Any,
        train_set: Examples,
        stop_set: Examples,
        options: Options,
        progress: Progress,
    ) -> TrainedMember:
        """A family fitted to `train_set`; the same bytes for the same arguments on one machine.

        Args:
            family: the plugin of the group `ids_plugin.models`.
            train_set: windows to train on.
            stop_set: windows of other networks, to stop early by.
            options: of the whole training run; trainers read seed, rounds and fit.
            progress: called with a line of text for every step.
        """
        ...
