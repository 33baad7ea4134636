"""Thresholds fitted to one's own normal traffic; needs no torch.

The traffic is divided in time: the earlier part fits the thresholds, the later part shows what they
give. A flow that the allow-list hides can't alert and counts as ordinary. A bundle whose members
score windows is fitted by flows (`windows.py`), one with detectors by alerts (`detectors.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from ids_plugin.bundle import Bundle
from ids_plugin.training.calibrate.detectors import calibrate_detectors
from ids_plugin.training.calibrate.traffic import Calibration, Options
from ids_plugin.training.calibrate.windows import (
    Traffic,
    alerts,
    calibrate_windows,
    lowest_threshold,
    observe,
)

__all__ = [
    "Calibration",
    "Options",
    "Traffic",
    "alerts",
    "calibrate",
    "lowest_threshold",
    "observe",
]


def calibrate(
    batches: Iterable[pl.DataFrame],
    bundle: Bundle,
    options: Options,
    data: Sequence[Mapping[str, Any]],
) -> Calibration:
    """The bundle with other thresholds, unsigned, and a report.

    The same input gives the same bundle.

    Args:
        batches: Flow frames of normal traffic in the order in which flows were known, local flags
            filled.
        bundle: as it was trained, or calibrated before.
        options: the budget and what else is asked for.
        data: what the batches were read from, for the bundle's card.

    Raises:
        UsageError: too little traffic for such a budget; the message says how much is needed.
    """
    fit = calibrate_detectors if bundle.manifest.detectors else calibrate_windows
    return fit(batches, bundle, options, data)
