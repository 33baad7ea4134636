"""What a training run is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ids_plugin.training.balance import Balance
from ids_plugin.training.examples import Sampling

Progress = Callable[[str], None]
"""called with a line of text for people"""


def quiet(message: str) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Fit:
    """How a network is fitted: Adam 1e-3 as published; the rest was chosen on simulated networks
    held out of training."""

    epochs: int = 12
    windows: int = 40_000
    """drawn in each epoch"""
    balance: Balance = field(default_factory=Balance)
    batch: int = 256
    rate: float = 1e-3
    decay: float = 1e-3
    patience: int = 5
    """epochs without a smaller loss on the held-out windows after which training stops"""
    smoothing: float = 0.02
    auxiliary: float = 0.1
    """weight of the reconstruction error"""
    blind: float = 0.25
    """modality dropout: share of the windows whose table is hidden, so that the sequence must do"""
    threads: int = 1


@dataclass(frozen=True)
class Options:
    """What a training run is asked to do."""

    data: tuple[str, ...]
    """`KIND:PATH` of labelled flows, see datasets.labelled_flows"""
    val: tuple[str, ...] = ()
    """networks held out of the members' training: every other one stops it early, the rest
    calibrates; by default a third of `data`, drawn by seed"""
    labels: Path | None = None
    """of `zeek:` logs, see datasets.label_files"""
    family: str = "anomaly_net"
    """entry point of the group `ids_plugin.models` that gives the bundle its name"""
    beside: tuple[str, ...] = ("lightgbm", "behaviour")
    """members that vote beside the family: entry points of the group `ids_plugin.models`, or kinds
    of member (`ids_plugin.members`) that need no training"""
    seed: int = 1
    rounds: int = 40
    """trees per class"""
    prefilter_rounds: int = 40
    """trees of the prefilter"""
    prefilter_missed: float = 0.001
    """share of the flows over a threshold that the prefilter may hold back on the calibration
    networks"""
    false_per_day: float = 1.0
    """alert groups without an attack that the thresholds may cause a day on the calibration
    networks"""
    licence: str = "Apache-2.0"
    fit: Fit = field(default_factory=Fit)
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def members(self) -> tuple[str, ...]:
        """The family and the members beside it, each once."""
        return tuple(dict.fromkeys((self.family, *self.beside)))
