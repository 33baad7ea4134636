"""Detectors: one for each kind of attack, with inputs, a threshold and a budget of false alerts of
its own.

A kind of detector is one file with a `DetectorKind`, named by an entry point of the group
`ids_plugin.detectors`; the manifest's `detectors[].kind` is the name of that entry point. A
bundle's detectors judge side by side; the union of what they find alerts. What a detector remembers
of a sensor (counters, contacts) doesn't depend on the bundle, so it stays when another bundle takes
over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ids_plugin.bundle import Bundle
from ids_plugin.schema.evidence import Evidence
from ids_plugin.windows.state import BatchWindows

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Findings(NamedTuple):
    """What one detector says of the m flows of a batch that are worth a word; all others are
    ordinary to it."""

    rows: Ints
    """(m) rows of the batch, ascending, each once"""
    label: Ints
    """(m) index into CLASSES"""
    score: Doubles
    """(m) calibrated 0–1: comparable between detectors"""
    threshold: Doubles
    """(m) what the score has to reach to alert"""
    is_target: Bools
    """(m) it is the responder's behaviour, or done to the responder: the group's subject"""
    quiet_us: Ints
    """(m) µs that an alert group stays open after the flow, at least half an hour"""
    explain: Callable[[int], Evidence]
    """position in these arrays → evidence; valid until the next step"""
    doubt: Ints | None = None
    """(m) steps by which the alert's severity stays below its class's, because the detector is less
    sure (alerts/severity.py); None: none"""


class SensorDetector(Protocol):
    """A detector's memory of one sensor."""

    def step(self, windows: BatchWindows) -> Findings:
        """Judges a batch of flows, in the order in which they were known. What comes out of it
        doesn't depend on how flows are cut into batches."""
        ...

    def state(self) -> dict[str, Any]:
        """A tree for `checkpoint.dump`; the same after the same flows, wherever batches ended."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own.

        Raises:
            CheckpointError: another version made it.
        """
        ...


@runtime_checkable
class CountsDrift(Protocol):
    """A detector's memory that counts how far a sensor's traffic differs from that of training."""

    def drift(self) -> Mapping[str, tuple[int, int]]:
        """Feature → values outside of the range of benign training traffic (5th to 95th
        percentile), and values known."""
        ...


class Detector(Protocol):
    """A detector of a bundle."""

    name: str
    """of its entry in the manifest; what alerts name"""
    thresholds: Mapping[str, float]
    """class → the score from which it alerts, for every class that the detector names"""
    lowest_score: float
    """no finding scores less: no threshold may be lower"""

    def sensor(self, before: SensorDetector | None = None) -> SensorDetector:
        """The memory of a sensor, judged by this detector; it goes on with that of `before` where
        it can."""
        ...


class DetectorKind(Protocol):
    """A kind of detector."""

    name: str

    def open(self, bundle: Bundle, entry: Mapping[str, Any]) -> Detector:
        """The detector that `entry` of the manifest's `detectors` describes.

        Raises:
            BundleError: its file doesn't load, or it was made for other features.
        """
        ...

    def with_thresholds(
        self, entry: Mapping[str, Any], thresholds: Mapping[str, float]
    ) -> dict[str, Any]:
        """The entry of a detector whose thresholds (class → score) are others, as near to these as
        it can have them and none lower."""
        ...
