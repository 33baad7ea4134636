"""What the named counters show in normal traffic: the percentiles that alerts compare with."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from ids_plugin import features
from ids_plugin.detectors.counters import rule_key
from ids_plugin.detectors.counting.catalogue import CONN_COUNTERS
from ids_plugin.detectors.counting.facts import of_flows
from ids_plugin.detectors.counting.rules import DETECTORS
from ids_plugin.windows.named_counters import RollingCounters
from ids_plugin.windows.state import Windower

PERCENTILES = (5, 50, 95, 99.9, 100)


class CounterBaselines:
    """Collects counters of the flows that they count, capture by capture."""

    def __init__(self) -> None:
        self._values: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]] = {}

    def add(self, flows: pl.DataFrame) -> None:
        """One capture of normal traffic: a Flow frame in known order, local flags filled."""
        counters = RollingCounters(CONN_COUNTERS)
        for windows in Windower(rolling=False).step(features.add(flows)):
            facts = of_flows(windows.flows)
            counts = counters.step(facts)
            for counter in CONN_COUNTERS:
                counted = facts.masks[counter.where]
                for horizon in counter.horizons:
                    column = counter.column(horizon)
                    self._values.setdefault(column, []).append(counts[column][counted])

    def percentiles(self) -> dict[str, list[float]]:
        """Counter over a horizon → PERCENTILES over all flows that it counts."""
        joined = {column: np.concatenate(parts) for column, parts in self._values.items()}
        return {
            column: [round(float(number), 3) for number in np.percentile(values, PERCENTILES)]
            for column, values in joined.items()
            if len(values)
        }


def counters_file(baselines: CounterBaselines) -> bytes:
    """The file of the detector `counters`: the thresholds of this version, and the baselines."""
    thresholds = {
        rule_key(detector, index): rule.threshold
        for detector in DETECTORS
        for index, rule in enumerate(detector.rules)
    }
    content = {"thresholds": thresholds, "baselines": baselines.percentiles()}
    return json.dumps(content, indent=1).encode()
