"""Detectors side by side: each class is found by its own; the union of what they find alerts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ids_plugin import features, registry
from ids_plugin.bundle import Bundle
from ids_plugin.detectors import CountsDrift, Detector, Findings, SensorDetector
from ids_plugin.engines import JudgedBatch, SensorEngine
from ids_plugin.engines.windows import WindowedSensor
from ids_plugin.errors import BundleError, CheckpointError
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.windows.state import Limits, Windower

MADE_BY = "detectors 1"
"""version of the state"""


class DetectorEngine:
    """A bundle with detectors."""

    def __init__(self, bundle: Bundle, *, limits: Limits | None = None) -> None:
        """
        Raises:
            BundleError: a detector doesn't load, or two have the same name.
        """
        self.detectors: dict[str, Detector] = {}
        self.limits = limits
        for entry in bundle.manifest.detectors:
            detector: Detector = registry.load("detectors", entry.kind).open(bundle, entry.document)
            if detector.name in self.detectors:
                raise BundleError(f"two detectors are called {detector.name!r}")
            self.detectors[detector.name] = detector

    def sensor(self, before: SensorEngine | None = None) -> SensorEngine:
        """The state of a sensor; what detectors remember stays when the bundle changes."""
        if isinstance(before, DetectorSensor):
            return DetectorSensor(self, before.windower, before.memories)
        return DetectorSensor(self, Windower(self.limits, rolling=False), {})


class DetectorSensor(WindowedSensor):
    """What the detectors remember of one sensor."""

    def __init__(
        self, engine: DetectorEngine, windower: Windower, before: Mapping[str, SensorDetector]
    ) -> None:
        self.windower = windower
        self.memories = {
            name: detector.sensor(before.get(name)) for name, detector in engine.detectors.items()
        }

    def step(self, flows: pl.DataFrame) -> Iterator[JudgedBatch]:
        """The flows of a batch, judged by every detector."""
        for windows in self.windower.step(features.add(flows)):
            findings = {name: memory.step(windows) for name, memory in self.memories.items()}
            union = Union(findings, len(windows))
            yield JudgedBatch(windows.flows, union.scores(), union.explain, windows, findings)

    def drift(self) -> dict[str, Mapping[str, tuple[int, int]]]:
        """Detector → feature → values outside of the training range, and values known; only of
        detectors that count them."""
        return {
            name: memory.drift()
            for name, memory in self.memories.items()
            if isinstance(memory, CountsDrift)
        }

    def state(self) -> dict[str, Any]:
        """The windower's and the detectors'."""
        return {
            "made_by": MADE_BY,
            "windower": self.windower.state(),
            "detectors": {name: memory.state() for name, memory in self.memories.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`; a detector that it doesn't know begins anew.

        Raises:
            CheckpointError: another version or another kind of engine made it.
        """
        if state.get("made_by") != MADE_BY:
            raise CheckpointError(
                "the state was kept by another version, which this one can't read"
            )
        self.windower.restore(state["windower"])
        for name, memory in self.memories.items():
            if name in state["detectors"]:
                memory.restore(state["detectors"][name])


class Union:
    """What several detectors say of the same n flows.

    A flow has the label of one detector: the first of the bundle that is over its threshold, so a
    bundle lists what names an attack by a rule before what only knows that something is rare. Where
    none is over, it is the one with the highest score.
    """

    def __init__(self, findings: Mapping[str, Findings], flows: int) -> None:
        self._findings = dict(findings)
        self._flows = flows
        self._winner = np.full(flows, -1, np.int64)
        self._position = np.zeros(flows, np.int64)

    def scores(self) -> Scores:
        """(n) of all flows; those that no detector has a word for score 0."""
        rows = self._flows
        score, threshold = np.zeros(rows), np.ones(rows)
        label = np.ones(rows, np.int64)
        is_target, is_over = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        quiet_us, doubt = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        probability = np.zeros((rows, len(CLASSES)))
        by_detector: dict[str, Any] = {}
        for number, (name, finding) in enumerate(self._findings.items()):
            by_detector[name] = own = np.full(rows, np.nan)
            own[finding.rows] = finding.score
            probability[finding.rows, finding.label] = np.maximum(
                probability[finding.rows, finding.label], finding.score
            )
            reaches = finding.score >= finding.threshold
            better = ~is_over[finding.rows] & (reaches | (finding.score > score[finding.rows]))
            chosen = finding.rows[better]
            score[chosen], threshold[chosen] = finding.score[better], finding.threshold[better]
            label[chosen], is_target[chosen] = finding.label[better], finding.is_target[better]
            is_over[chosen], quiet_us[chosen] = reaches[better], finding.quiet_us[better]
            doubt[chosen] = 0 if finding.doubt is None else finding.doubt[better]
            self._winner[chosen] = number
            self._position[chosen] = np.flatnonzero(better)
        probability[:, 0] = 1 - score
        names = np.array(["", *self._findings])
        return Scores(
            score=score,
            label=label,
            probability=probability,
            models=by_detector,
            over=is_over,
            threshold=threshold,
            is_target=is_target,
            quiet_us=quiet_us,
            detector=names[self._winner + 1],
            doubt=doubt,
        )

    def explain(self, row: int) -> Evidence:
        """Evidence of the detector whose label a row has."""
        findings: Sequence[Findings] = list(self._findings.values())
        return findings[int(self._winner[row])].explain(int(self._position[row]))
