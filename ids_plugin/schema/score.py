"""A score: how sure every model of a bundle is of every class, and what the bundle makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

CLASSES: tuple[str, ...] = (
    "benign",
    "scan",
    "brute_force",
    "flood",
    "command_and_control",
    "exfiltration",
    "spreading",
    "inbound_noise",
    "other",
)
"""Index in this tuple is the class number everywhere."""


class Scores(NamedTuple):
    """Scores of n flows.

    A flow's row depends on its window and the bundle alone, to the last bit.
    """

    score: npt.NDArray[np.float64]
    """(n) calibrated 0–1: how sure the bundle is that the flow isn't benign"""
    label: npt.NDArray[np.int64]
    """(n) index into CLASSES of the likeliest class other than benign"""
    probability: npt.NDArray[np.float64]
    """(n, len(CLASSES)) calibrated"""
    models: dict[str, npt.NDArray[np.float64]]
    """model name → (n) its own score 0–1 of not being benign; NaN where a cascade did not ask it"""
    over: npt.NDArray[np.bool_]
    """(n) score reaches the bundle's threshold of the label"""
    threshold: npt.NDArray[np.float64]
    """(n) that threshold"""
    is_target: npt.NDArray[np.bool_] | None = None
    """(n) whether the label is about the responder; None: policy decides whose behaviour it is"""
    quiet_us: npt.NDArray[np.int64] | None = None
    """(n) µs that an alert group stays open after the flow; None: as long as any"""
    detector: npt.NDArray[np.str_] | None = None
    """(n) name of the detector whose label it is, "" for none; None: the bundle has no detectors"""
    doubt: npt.NDArray[np.int64] | None = None
    """(n) steps by which the severity stays below that of the class; None: none"""

    def take(self, rows: npt.NDArray[np.int64]) -> Scores:
        """The scores of some flows: of rows (m), in their order."""
        columns: dict[str, Any] = {
            name: None if column is None else column[rows]
            for name, column in self._asdict().items()
            if name != "models"
        }
        models = {name: values[rows] for name, values in self.models.items()}
        return Scores(models=models, **columns)


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of consecutive batches of one bundle as one; at least one batch."""
    first = parts[0]
    columns: dict[str, Any] = {
        name: None
        if getattr(first, name) is None
        else np.concatenate([getattr(part, name) for part in parts])
        for name in Scores._fields
        if name != "models"
    }
    models = {name: np.concatenate([part.models[name] for part in parts]) for name in first.models}
    return Scores(models=models, **columns)


class Contributions(NamedTuple):
    """What each feature of the table contributed to one member's decision, for m windows."""

    method: str
    """how they were found, as `ids_plugin.evidence.method` names it: `tree_shap`, …"""
    values: npt.NDArray[np.float64]
    """(m, T + 1) log-odds of one class; the last column is the value without any feature"""
