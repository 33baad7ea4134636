"""Thresholds of a bundle with detectors, fitted by alerts.

Every class of every detector has a threshold of its own and gets a part of the budget. Of the
alerts that the fitting time may have (budget times its days) each class may have as many as any
other; what one doesn't need goes to the others, and what doesn't divide to those of the highest
severity. So a host that outside hosts try all day costs the other classes nothing.

A class that needs no more than its part gets the lowest threshold that its detector can judge by.
Any other gets one just above the score of an alert that is one too many. Such a threshold promises
nothing of the next alert, which may come tomorrow: it counts as that alert, too, as in conformal
prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ids_plugin import registry
from ids_plugin.alerts import AllowList, policy
from ids_plugin.alerts.classes import classes
from ids_plugin.alerts.group_rule import opening_flows
from ids_plugin.bundle import Bundle, seal
from ids_plugin.detectors import Findings
from ids_plugin.engines.detectors import DetectorEngine, Union
from ids_plugin.errors import UsageError
from ids_plugin.pipeline import judged
from ids_plugin.schema.alert import SEVERITIES, Document
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.schema.window import Ints
from ids_plugin.scoring import Doubles
from ids_plugin.training.calibrate.traffic import (
    FIRST,
    FITTING_SHARE,
    FLOW_COLUMNS,
    LAST,
    NO_EVIDENCE,
    Calibration,
    JudgedPart,
    Options,
    before_and_after,
    grouped,
    record,
    split_time,
    watched_days,
)

METHOD = (
    "alerts a day, shared among the classes of all detectors; earlier flows fit, later ones check"
)
SCORE_STEP = 1e-6
"""thresholds stand so far above a score that isn't to reach them"""


class Unit(NamedTuple):
    """What has a threshold of its own: a class of a detector."""

    detector: str
    label: str

    @property
    def name(self) -> str:
        """As reports and manifests have it."""
        return f"{self.detector}/{self.label}"


Thresholds = Mapping[Unit, float]


class NotedBatch(NamedTuple):
    """The flows of a batch of which a detector has a word."""

    sensor: str
    flows: pl.DataFrame
    findings: Mapping[str, Findings]
    """by detector; rows are those of `flows`"""
    known: Ints
    """(n) µs since the epoch"""


class Observed(NamedTuple):
    """What detectors make of normal traffic."""

    known: Ints
    """of every flow, µs since the epoch, ascending"""
    noted: Sequence[NotedBatch]


@dataclass(frozen=True)
class UnitFlows:
    """The flows of one unit that fit, sorted by the key of their alert and then by time."""

    key: Ints
    """(n) number of the key"""
    clock: Ints
    """(n) µs since the epoch"""
    quiet_us: Ints
    """(n) µs that a group stays open after each flow"""
    score: Doubles
    """(n)"""

    def alerts(self, threshold: float) -> int:
        """Alert groups of the flows that reach a threshold."""
        chosen = self.score >= threshold
        opening = opening_flows(self.key[chosen], self.clock[chosen], None, self.quiet_us[chosen])
        return int(opening.sum())

    def threshold(self, allowed: int, lowest: float) -> float:
        """The lowest threshold from `lowest` on that at most `allowed` alerts reach."""
        if self.alerts(lowest) <= allowed:
            return lowest
        scores = np.unique(self.score[self.score >= lowest])
        low, high = 0, len(scores)
        while low < high:
            middle = (low + high) // 2
            if self.alerts(float(scores[middle])) <= allowed:
                high = middle
            else:
                low = middle + 1
        return min(float(scores[high - 1]) + SCORE_STEP, 1.0)


class Share(NamedTuple):
    """What a unit gets of the budget."""

    needed: int
    """alerts at its lowest threshold"""
    allowed: int

    @property
    def cost(self) -> int:
        """Alerts that it counts as: a unit that is cut short counts as one more than it shows."""
        return self.allowed + (self.allowed < self.needed)


def calibrate_detectors(
    batches: Iterable[pl.DataFrame],
    bundle: Bundle,
    options: Options,
    data: Sequence[Mapping[str, Any]],
) -> Calibration:
    """The bundle with other thresholds, unsigned, and a report; arguments as for `calibrate`.

    Raises:
        UsageError: too little traffic for such a budget; the message says how much is needed.
    """
    engine = DetectorEngine(bundle)
    before = _thresholds_of_training(bundle, engine)
    observed = observe_findings(batches, engine)
    split = split_time(observed.known) if len(observed.known) else 0
    fitting = observed.known[observed.known <= split]
    checking = observed.known[observed.known > split]
    days = watched_days(fitting)
    affordable = math.floor(options.fitted_budget * days)
    if affordable < 1 or not len(checking):
        raise _too_little(len(fitting), days, options.fitted_budget)
    lowest = _lowest(engine, before, only_raise=options.only_raise)
    flows = {unit: _unit_flows(observed, unit, split, options.allow) for unit in lowest}
    fitted, shares = _fit(observed, flows, lowest, affordable, split, options.allow)
    made = _with_thresholds(bundle, fitted)
    after = _thresholds(DetectorEngine(made))
    report = {
        "budget_per_day": options.budget,
        "fitted_budget_per_day": options.fitted_budget,
        "alerts_allowed": affordable,
        "expected_per_day": round(sum(share.cost for share in shares.values()) / days, 3),
        "flows": len(fitting),
        "flows_per_day": round(len(fitting) / days, 1),
        "hours": round(24 * days, 3),
        "shares": {
            unit.name: {"needed": share.needed, "allowed": share.allowed}
            for unit, share in shares.items()
        },
        "thresholds_before": _named(before),
        "thresholds": _named(after),
        **before_and_after(
            partial(alerts, observed, before, options.allow),
            partial(alerts, observed, after, options.allow),
            fitting,
            checking,
        ),
    }
    calibration = record(bundle, METHOD, report, options, data)
    manifest = made.manifest.replaced(calibration=calibration)
    return Calibration(seal(manifest, bundle.files), report)


def observe_findings(batches: Iterable[pl.DataFrame], engine: DetectorEngine) -> Observed:
    """All that the detectors find, also below their thresholds."""
    known: list[Ints] = [np.zeros(0, np.int64)]
    noted: list[NotedBatch] = []
    for sensor, batch in judged(batches, engine):
        times = policy.micros(batch.flows, "known")
        known.append(times)
        rows = np.unique(np.concatenate([finding.rows for finding in batch.findings.values()]))
        if len(rows):
            findings = {
                name: finding._replace(
                    rows=np.searchsorted(rows, finding.rows), explain=_without_evidence
                )
                for name, finding in batch.findings.items()
            }
            noted.append(NotedBatch(sensor, batch.flows[rows, FLOW_COLUMNS], findings, times[rows]))
    return Observed(np.sort(np.concatenate(known)), noted)


def alerts(
    observed: Observed,
    thresholds: Thresholds,
    allow: AllowList,
    *,
    start: int = FIRST,
    stop: int = LAST,
) -> tuple[int, list[Document]]:
    """How many flows known after `start` and up to `stop` are over, and the closing documents of
    their groups."""
    return grouped(_judged_parts(observed, thresholds, start, stop), allow)


def _judged_parts(
    observed: Observed, thresholds: Thresholds, start: int, stop: int
) -> Iterator[JudgedPart]:
    for batch in observed.noted:
        scores = _scores(batch, thresholds)
        in_time = (batch.known > start) & (batch.known <= stop)
        yield JudgedPart(batch.sensor, batch.flows, scores._replace(over=scores.over & in_time))


def _scores(batch: NotedBatch, thresholds: Thresholds) -> Scores:
    """What the union of the detectors says by other thresholds."""
    findings = {}
    for name, finding in batch.findings.items():
        limits = np.array([thresholds.get(Unit(name, label), np.inf) for label in CLASSES])
        findings[name] = finding._replace(threshold=limits[finding.label])
    return Union(findings, len(batch.flows)).scores()


def _unit_flows(observed: Observed, unit: Unit, split: int, allow: AllowList) -> UnitFlows:
    """The flows of a unit that fit, but for those that the allow-list hides."""
    numbers: dict[tuple[str, str, str], int] = {}
    parts: list[UnitFlows] = [_empty()]
    for batch in observed.noted:
        finding = batch.findings[unit.detector]
        rows = finding.rows[finding.label == CLASSES.index(unit.label)]
        rows = rows[batch.known[rows] <= split]
        if not len(rows):
            continue
        scores = Union({unit.detector: finding}, len(batch.flows)).scores()
        flagged = policy.flag(batch.flows, scores, rows)
        shown = np.flatnonzero(allow.suppressed(flagged) < 0)
        keys = [flagged.key(position) for position in shown.tolist()]
        key = [
            numbers.setdefault((batch.sensor, group.subject, group.role), len(numbers))
            for group in keys
        ]
        parts.append(
            UnitFlows(
                np.array(key, np.int64),
                flagged.clock[shown],
                flagged.quiet_us[shown],
                flagged.score[shown],
            )
        )
    return _sorted(parts)


def _empty() -> UnitFlows:
    none = np.zeros(0, np.int64)
    return UnitFlows(none, none, none, np.zeros(0))


def _sorted(parts: Sequence[UnitFlows]) -> UnitFlows:
    """The flows of consecutive batches by key, then in the order in which they were known."""
    key = np.concatenate([part.key for part in parts])
    order = np.argsort(key, kind="stable")
    return UnitFlows(
        key[order],
        np.concatenate([part.clock for part in parts])[order],
        np.concatenate([part.quiet_us for part in parts])[order],
        np.concatenate([part.score for part in parts])[order],
    )


def _fit(
    observed: Observed,
    flows: Mapping[Unit, UnitFlows],
    lowest: Thresholds,
    affordable: int,
    split: int,
    allow: AllowList,
) -> tuple[dict[Unit, float], dict[Unit, Share]]:
    """Thresholds and shares of the budget with which all units together keep to it.

    A flow that one class no longer claims may be claimed by another, so the alerts of the union are
    counted in the end, and less is shared out until they keep to the budget.
    """
    needed = {unit: of_unit.alerts(lowest[unit]) for unit, of_unit in flows.items()}
    shared = affordable
    while True:
        shares = share_out(needed, shared)
        fitted = {
            unit: of_unit.threshold(shares[unit].allowed, lowest[unit])
            for unit, of_unit in flows.items()
        }
        _, documents = alerts(observed, fitted, allow, stop=split)
        if len(documents) <= affordable or not shared:
            return fitted, shares
        shared -= 1


def share_out(needed: Mapping[Unit, int], affordable: int) -> dict[Unit, Share]:
    """What each unit gets of the alerts that are affordable: the same, but no more than it needs.

    Args:
        needed: alerts of each unit at its lowest threshold.
        affordable: alerts of all units together.
    """
    shares: dict[Unit, Share] = {}
    left, units = affordable, sorted(needed, key=lambda unit: needed[unit])
    while units and needed[units[0]] <= left // len(units):
        unit = units.pop(0)
        shares[unit] = Share(needed[unit], needed[unit])
        left -= needed[unit]
    for rank, unit in enumerate(sorted(units, key=_severity_rank)):
        part = left // len(units) + (rank < left % len(units))
        allowed = part if part >= needed[unit] else max(part - 1, 0)
        shares[unit] = Share(needed[unit], allowed)
    return {unit: shares[unit] for unit in needed}


def _severity_rank(unit: Unit) -> int:
    return -SEVERITIES[classes()[unit.label].severity]


def _lowest(engine: DetectorEngine, before: Thresholds, *, only_raise: bool) -> dict[Unit, float]:
    """The lowest threshold that each unit may get."""
    return {
        unit: threshold if only_raise else engine.detectors[unit.detector].lowest_score
        for unit, threshold in before.items()
    }


def _thresholds(engine: DetectorEngine) -> dict[Unit, float]:
    return {
        Unit(name, label): threshold
        for name, detector in engine.detectors.items()
        for label, threshold in detector.thresholds.items()
    }


def _thresholds_of_training(bundle: Bundle, engine: DetectorEngine) -> dict[Unit, float]:
    """The thresholds of training, also of a bundle that was calibrated since."""
    calibration = bundle.manifest.calibration
    before = {} if calibration is None else calibration.thresholds_before
    return {
        unit: before.get(unit.name, threshold) for unit, threshold in _thresholds(engine).items()
    }


def _named(thresholds: Thresholds) -> dict[str, float]:
    return {unit.name: threshold for unit, threshold in thresholds.items()}


def _with_thresholds(bundle: Bundle, thresholds: Thresholds) -> Bundle:
    """The bundle whose detectors have these thresholds."""
    entries = []
    for entry in bundle.manifest.detectors:
        name = entry.document["name"]
        of_detector = {
            unit.label: value for unit, value in thresholds.items() if unit.detector == name
        }
        kind = registry.load("detectors", entry.kind)
        entries.append(kind.with_thresholds(entry.document, of_detector))
    return seal(bundle.manifest.replaced(detectors=entries), bundle.files)


def _without_evidence(position: int) -> Evidence:
    return NO_EVIDENCE


def _too_little(flows: int, days: float, budget: float) -> UsageError:
    if not flows:
        return UsageError("there are no flows to calibrate on")
    needed = 1 / budget / FITTING_SHARE
    return UsageError(
        f"too little traffic for {budget:g} alerts a day: it takes {1 / budget:.3g} days to fit, "
        f"and there are {days:.2g}",
        hint=f"give {needed:.3g} days or more in all: {1 - FITTING_SHARE:.0%} are held back to "
        "check",
    )
