"""Named counters with a threshold for each class: scan, brute force, flood, spreading, noise,
exfiltration, DNS tunnels.

A rule compares one counter with a threshold; its strength is counter / threshold, and its score is
1 - 1 / (2 * strength): 0.5 at the threshold, and nearer to 1 the further above it. Every threshold
of a count is also the smallest number of flows that an alert stands on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ids_plugin.bundle import Bundle
from ids_plugin.detectors import Doubles, Findings, Ints, SensorDetector
from ids_plugin.detectors.counting.catalogue import CONN_COUNTERS
from ids_plugin.detectors.counting.evidence import Baselines, CounterEvidence, Shown
from ids_plugin.detectors.counting.facts import of_flows
from ids_plugin.detectors.counting.rules import DETECTORS, Detector, Finding, findings
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES
from ids_plugin.windows.named_counters import CounterFacts, RollingCounters
from ids_plugin.windows.state import BatchWindows

SCORE_AT_THRESHOLD = 0.5
HALF_HOUR_US = 30 * 60 * 1_000_000
SECOND_US = 1_000_000
Table = dict[str, npt.NDArray[Any]]


class CounterDetector:
    """Rules over counters, with the thresholds of a bundle."""

    def __init__(
        self,
        name: str,
        detectors: Sequence[Detector],
        thresholds: Mapping[str, float],
        baselines: Baselines,
    ) -> None:
        """
        Args:
            detectors: rules, one detector a class.
            thresholds: class → score from which it alerts; SCORE_AT_THRESHOLD where it isn't named.
            baselines: what normal traffic shows.
        """
        self.name = name
        self.detectors = tuple(detectors)
        self.thresholds = {
            detector.label: thresholds.get(detector.label, SCORE_AT_THRESHOLD)
            for detector in self.detectors
        }
        self.lowest_score = SCORE_AT_THRESHOLD
        self.baselines = baselines

    def sensor(self, before: SensorDetector | None = None) -> SensorDetector:
        """The counters of a sensor; they don't depend on the bundle."""
        counters = before.counters if isinstance(before, CounterMemory) else None
        return CounterMemory(self, counters or RollingCounters(CONN_COUNTERS))

    def threshold(self, label: str) -> float:
        """The score from which a class alerts."""
        return self.thresholds[label]


class CounterMemory:
    """The counters of one sensor."""

    def __init__(self, detector: CounterDetector, counters: RollingCounters) -> None:
        self._detector = detector
        self.counters = counters

    def step(self, windows: BatchWindows) -> Findings:
        """Flows that reach the threshold of a rule."""
        facts = of_flows(windows.flows)
        table = _table(windows, facts, self.counters.step(facts))
        reached = findings(table, self._detector.detectors)
        return _strongest(self._detector, windows, table, reached)

    def state(self) -> dict[str, Any]:
        """Every counter's."""
        return self.counters.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up every counter's state."""
        self.counters.restore(state)


def _table(windows: BatchWindows, facts: CounterFacts, counts: Mapping[str, Ints]) -> Table:
    """Column → (n): counters, facts and what rules ask of the flow itself."""
    flows = windows.flows
    return {
        **counts,
        **{f"is_{name}": mask for name, mask in facts.masks.items()},
        **facts.values,
        "clock": facts.clock,
        "local_orig": flows["local_orig"].fill_null(value=False).to_numpy(),
        "local_resp": flows["local_resp"].fill_null(value=False).to_numpy(),
        "resp_p": flows["resp_p"].fill_null(0).to_numpy().astype(np.int64),
        "to_group": flows["to_group"].fill_null(0).to_numpy() > 0,
    }


def _strongest(
    detector: CounterDetector, windows: BatchWindows, table: Table, reached: Sequence[Finding]
) -> Findings:
    """One finding a row: the strongest of its classes."""
    size = len(windows)
    strength = np.zeros(size)
    which, rule = np.full(size, -1, np.int64), np.zeros(size, np.int64)
    is_target = np.zeros(size, np.bool_)
    for number, finding in enumerate(reached):
        stronger = finding.strength > strength[finding.row]
        rows = finding.row[stronger]
        strength[rows] = finding.strength[stronger]
        which[rows], rule[rows] = number, finding.rule[stronger]
        is_target[rows] = finding.target[stronger]
    rows = np.flatnonzero(which >= 0)
    chosen = [
        Shown(reached[which[row]].detector, reached[which[row]].detector.rules[rule[row]])
        for row in rows.tolist()
    ]
    evidence = CounterEvidence(windows, table, rows, chosen, is_target[rows], detector.baselines)
    return Findings(
        rows=rows,
        label=np.array([CLASSES.index(shown.detector.label) for shown in chosen], np.int64),
        score=score_of(strength[rows]),
        threshold=np.array([detector.threshold(shown.detector.label) for shown in chosen]),
        is_target=is_target[rows],
        quiet_us=np.array(
            [max(HALF_HOUR_US, shown.rule.horizon_s * SECOND_US) for shown in chosen], np.int64
        ),
        explain=evidence,
        doubt=np.array([shown.rule.doubt for shown in chosen], np.int64),
    )


def score_of(strength: Doubles) -> Doubles:
    """(m) score 0–1 of strengths from 1 on."""
    return 1 - (1 - SCORE_AT_THRESHOLD) / np.maximum(strength, 1.0)


class CounterKind:
    """Named counters."""

    name = "counters"

    def open(self, bundle: Bundle, entry: Mapping[str, Any]) -> CounterDetector:
        """The detector with the thresholds and baselines of a bundle's file.

        Raises:
            BundleError: the file is no such table, or names a rule that isn't there.
        """
        try:
            content = json.loads(bundle.file(entry["file"]))
            thresholds = {str(rule): float(value) for rule, value in content["thresholds"].items()}
            baselines = {
                str(column): tuple(map(float, numbers))
                for column, numbers in content["baselines"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"no thresholds of counters: {error!r}", location=entry.get("file")
            ) from error
        detectors = with_thresholds(DETECTORS, thresholds)
        return CounterDetector(entry["name"], detectors, entry.get("thresholds", {}), baselines)

    def with_thresholds(
        self, entry: Mapping[str, Any], thresholds: Mapping[str, float]
    ) -> dict[str, Any]:
        """The entry with a score for each class; the counters' own thresholds stay."""
        return {**entry, "thresholds": dict(thresholds)}


def rule_key(detector: Detector, index: int) -> str:
    """How a bundle's file names a rule: class, counter and place among the class's rules."""
    return f"{detector.label}/{detector.rules[index].column}/{index}"


def with_thresholds(
    detectors: Sequence[Detector], thresholds: Mapping[str, float]
) -> tuple[Detector, ...]:
    """The detectors with other thresholds, by `rule_key`.

    Raises:
        BundleError: a rule has no threshold, or a threshold no rule.
    """
    known = {
        rule_key(detector, index) for detector in detectors for index in range(len(detector.rules))
    }
    if known != thresholds.keys():
        differing = ", ".join(sorted(known ^ thresholds.keys()))
        raise BundleError(f"its rules aren't those of this version: {differing}")
    return tuple(
        replace(
            detector,
            rules=tuple(
                rule._replace(threshold=thresholds[rule_key(detector, index)])
                for index, rule in enumerate(detector.rules)
            ),
        )
        for detector in detectors
    )


PLUGIN = CounterKind()
