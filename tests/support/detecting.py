"""Runs detectors of the shipped bundle over made flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from ids_plugin import features, registry
from ids_plugin.detectors import Detector, Findings
from ids_plugin.schema import flow
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import CLASSES
from ids_plugin.windows.state import Windower
from tests.support import shipped
from tests.support.factories import Row, frame


class Judged(NamedTuple):
    """What a detector says of some flows."""

    flows: pl.DataFrame
    """in known order"""
    findings: Findings

    @property
    def alerts(self) -> list[tuple[int, str, bool]]:
        """(row, class, whether the responder is the subject) of the findings over the threshold."""
        columns = (self.findings.rows, self.findings.label, self.findings.is_target)
        over = self.findings.score >= self.findings.threshold
        rows, labels, targets = (column[over].tolist() for column in columns)
        return [
            (row, CLASSES[label], target)
            for row, label, target in zip(rows, labels, targets, strict=True)
        ]

    @property
    def classes(self) -> set[str]:
        """Classes of the findings over the threshold."""
        return {name for _, name, _ in self.alerts}

    def first(self, label: str) -> int:
        """Row of the first alert of a class."""
        return min(row for row, name, _ in self.alerts if name == label)

    def evidence(self, row: int) -> Evidence:
        """Why a row is a finding."""
        return self.findings.explain(self.findings.rows.tolist().index(row))


def shipped_detector(kind: str, **entry_keys: Any) -> Detector:
    """The shipped bundle's detector of a kind; `entry_keys` replace keys of its entry."""
    made = shipped.detector_bundle()
    entry = next(entry for entry in made.manifest.detectors if entry.kind == kind)
    opened: Detector = registry.load("detectors", kind).open(made, {**entry.document, **entry_keys})
    return opened


def judge(kind: str, rows: Sequence[Row], **entry_keys: Any) -> Judged:
    """What the shipped detector of a kind says of flows, all in one batch."""
    flows = frame(rows)
    memory = shipped_detector(kind, **entry_keys).sensor()
    (windows,) = Windower(rolling=False).step(features.add(flows.select(flow.SCHEMA.keys())))
    return Judged(windows.flows, memory.step(windows))
