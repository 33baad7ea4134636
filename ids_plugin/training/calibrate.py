"""Thresholds fitted to one's own normal traffic; needs no torch.

The traffic is divided in time: the earlier part fits the thresholds, the later part shows what they
give. A flow that the allow-list hides can't alert and counts as ordinary. An alert is a group of
one flow or more: as many flows over a day as the budget allows are at most as many alerts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ids_plugin.alerts import AlertGrouper, AllowList, BundleFacts, policy
from ids_plugin.bundle import Bundle, seal
from ids_plugin.engines.opening import open_engine
from ids_plugin.errors import UsageError
from ids_plugin.pipeline import judged
from ids_plugin.schema import flow
from ids_plugin.schema.alert import Document
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.schema.window import Ints
from ids_plugin.scoring import Doubles
from ids_plugin.training.conformal import LOWEST_THRESHOLD, allowed_over, fit, flows_needed

FITTING_SHARE = 0.7
"""of the flows fit the thresholds; the rest, later in time, checks them"""
MAX_WATCHED_PAUSE_US = 3_600_000_000
"""µs without a flow that don't count as time in which something was watched"""
DAY_US = 86_400_000_000
NAMED_ALERTS = 5
"""alerts that are named"""
_COLUMNS = [*flow.SCHEMA, "known", "clock", "replaces"]
_NO_EVIDENCE = Evidence((), (), "", 0.0, {}, "")


@dataclass(frozen=True)
class Options:
    """What a calibration is told."""

    budget: float
    """alerts a day"""
    allow: AllowList = field(default_factory=AllowList)
    only_raise: bool = False
    """no threshold falls below the bundle's own"""


class Calibration(NamedTuple):
    """A bundle with other thresholds, and how they came about."""

    bundle: Bundle
    """unsigned"""
    report: dict[str, Any]
    """thresholds before and after, the traffic, and what held-back traffic gives; JSON-able"""


class Batch(NamedTuple):
    """Flows that score so high that some threshold might be below."""

    sensor: str
    flows: pl.DataFrame
    scores: Scores
    known: Ints
    """(n) µs since the epoch"""


@dataclass(frozen=True)
class Traffic:
    """What a bundle makes of normal traffic."""

    known: Ints
    """of every flow, µs since the epoch, ascending"""
    high: Sequence[Batch]
    """the flows that score `least` or more"""
    least: float

    @property
    def split(self) -> int:
        """Flows known up to this time (µs since the epoch) fit, the later ones check."""
        return int(self.known[max(math.ceil(FITTING_SHARE * len(self.known)) - 1, 0)])


def calibrate(
    batches: Iterable[pl.DataFrame],
    bundle: Bundle,
    options: Options,
    data: Sequence[Mapping[str, Any]],
) -> Calibration:
    """The bundle with other thresholds, unsigned, and a report.

    The same input gives the same bundle.

    `batches`: Flow frames of normal traffic in the order in which flows were known, local flags
    filled; `data` says what they were read from, for the bundle's card.

    Raises:
        UsageError: too few flows for such a budget; the message says how many are needed.
    """
    before = _thresholds_of_training(bundle)
    traffic = observe(batches, bundle, lowest_threshold(bundle, before))
    split = traffic.split if len(traffic.known) else 0
    fitting, checking = traffic.known[traffic.known <= split], traffic.known[traffic.known > split]
    per_day = len(fitting) / max(_watched_days(fitting), 1 / DAY_US) if len(fitting) else 0.0
    alpha = min(options.budget / per_day, 1.0) if per_day else 1.0
    if allowed_over(len(fitting), alpha) < 0 or not len(checking):
        raise _too_few(len(fitting), options.budget, per_day, alpha)
    score, label = _candidates(traffic, split, options.allow)
    over = allowed_over(len(fitting), alpha)
    fitted = fit(score, label, over, before, traffic.least, only_raise=options.only_raise)
    after = {**before, **fitted.thresholds}
    report = {
        "budget_per_day": options.budget,
        "alpha": alpha,
        "needed": flows_needed(alpha),
        "may_be_over": over,
        "flows": len(fitting),
        "flows_per_day": round(per_day, 1),
        "hours": round(24 * _watched_days(fitting), 3),
        "shift_of_log_odds": None if math.isinf(fitted.shift) else round(fitted.shift, 6),
        "thresholds_before": before,
        "thresholds": after,
        "as_it_was": _summary(
            alerts(traffic, before, options.allow, stop=split), _watched_days(fitting)
        ),
        "held_back": {
            "flows": len(checking),
            "hours": round(24 * _watched_days(checking), 3),
            "before": _summary(
                alerts(traffic, before, options.allow, start=split), _watched_days(checking)
            ),
            "after": _summary(
                alerts(traffic, after, options.allow, start=split), _watched_days(checking)
            ),
        },
    }
    return Calibration(_sealed(bundle, after, report, options, data), report)


def lowest_threshold(bundle: Bundle, thresholds: Mapping[str, float]) -> float:
    """The lowest threshold there can be: LOWEST_THRESHOLD, or lower where the bundle's own are; and
    what passes the prefilter at least, because nothing below it is scored."""
    prefilter = bundle.manifest.prefilter
    passed = 0.0 if prefilter is None else float(prefilter.threshold)
    return max(min([LOWEST_THRESHOLD, *thresholds.values()]), passed)


def observe(batches: Iterable[pl.DataFrame], bundle: Bundle, least: float) -> Traffic:
    """Scores every flow, and keeps those of `least` or more."""
    known, high = [np.zeros(0, np.int64)], []
    for sensor, batch in judged(batches, open_engine(bundle)):
        times = policy.micros(batch.flows, "known")
        known.append(times)
        rows = np.flatnonzero(batch.scores.score >= least)
        if len(rows):
            high.append(
                Batch(sensor, batch.flows[rows, _COLUMNS], batch.scores.take(rows), times[rows])
            )
    return Traffic(np.sort(np.concatenate(known)), high, least)


def alerts(
    traffic: Traffic,
    thresholds: Mapping[str, float],
    allow: AllowList,
    *,
    start: int = np.iinfo(np.int64).min,
    stop: int = np.iinfo(np.int64).max,
) -> tuple[int, list[Document]]:
    """How many flows known after `start` and up to `stop` are over, and the closing documents of
    their groups."""
    limits = np.array([thresholds.get(name, np.inf) for name in CLASSES])
    groupers: dict[str, AlertGrouper] = {}
    documents: list[Document] = []
    count = 0
    for batch in traffic.high:
        over = (
            (batch.scores.score >= limits[batch.scores.label])
            & (batch.known > start)
            & (batch.known <= stop)
        )
        rows = np.flatnonzero(over)
        if not len(rows):
            continue
        scores = batch.scores.take(rows)._replace(
            over=over[rows], threshold=limits[batch.scores.label[rows]]
        )
        grouper = groupers.setdefault(
            batch.sensor, AlertGrouper(batch.sensor, BundleFacts("", "", ""), allow)
        )
        plan = grouper.plan(batch.flows[rows], scores)
        count += sum(
            counts.over_threshold - counts.value("suppressed") for _, counts in plan.ledger.items()
        )
        documents += grouper.commit(plan, dict.fromkeys(plan.rows.tolist(), _NO_EVIDENCE)).documents
    documents += [
        document for grouper in groupers.values() for document in grouper.finish().documents
    ]
    return count, [document for document in documents if document["event"]["kind"] == "event"]


def _thresholds_of_training(bundle: Bundle) -> dict[str, float]:
    """The thresholds of training, also of a bundle that was calibrated since."""
    calibration = bundle.manifest.calibration
    before = {} if calibration is None else dict(calibration.thresholds_before)
    return before or dict(bundle.manifest.thresholds)


def _candidates(traffic: Traffic, split: int, allow: AllowList) -> tuple[Doubles, Ints]:
    """Score and label of the high-scoring flows that fit the thresholds, but for those that the
    allow-list hides."""
    score, label = [np.zeros(0)], [np.zeros(0, np.int64)]
    for batch in traffic.high:
        rows = np.flatnonzero(batch.known <= split)
        if len(rows) and allow.entries:
            rows = rows[allow.suppressed(policy.flag(batch.flows, batch.scores, rows)) < 0]
        score.append(batch.scores.score[rows])
        label.append(batch.scores.label[rows])
    return np.concatenate(score), np.concatenate(label)


def _too_few(flows: int, budget: float, per_day: float, alpha: float) -> UsageError:
    if not flows:
        return UsageError("there are no flows to calibrate on")
    count = flows_needed(alpha)
    hours = 24 * count / per_day / FITTING_SHARE
    return UsageError(
        f"too few flows for {budget:g} alerts a day: "
        f"at {per_day:,.0f} flows a day that is a rate of {alpha:.2g}, "
        f"which takes {count:,} flows to fit, and there are {flows:,}",
        hint=f"give {math.ceil(count / FITTING_SHARE):,} flows or more in all, "
        f"{hours:.1f} h of such traffic: "
        f"{1 - FITTING_SHARE:.0%} are held back to check",
    )


def _watched_days(known: Ints) -> float:
    """Days in which there was something to see: pauses of more than an hour don't count."""
    pauses: Ints = np.diff(known)
    return float(pauses[pauses <= MAX_WATCHED_PAUSE_US].sum()) / DAY_US


def _summary(result: tuple[int, list[Document]], days: float) -> dict[str, Any]:
    """JSON-able: flows over, alerts, and what the largest of them were."""
    over, documents = result
    largest = sorted(
        documents,
        key=lambda document: (-document["ids_plugin"]["fold"]["count"], document["event"]["id"]),
    )
    by_class: dict[str, int] = {}
    for document in documents:
        by_class[document["ids_plugin"]["label"]] = (
            by_class.get(document["ids_plugin"]["label"], 0) + 1
        )
    return {
        "over": over,
        "alerts": len(documents),
        "alerts_per_day": round(len(documents) / days, 3) if days else None,
        "by_class": dict(sorted(by_class.items())),
        "largest": [document["message"] for document in largest[:NAMED_ALERTS]],
    }


def _sealed(
    bundle: Bundle,
    thresholds: Mapping[str, float],
    report: Mapping[str, Any],
    options: Options,
    data: Sequence[Mapping[str, Any]],
) -> Bundle:
    """Without hosts: `largest` stays out of what may be passed on."""
    fields = {
        name: value
        for name, value in report.items()
        if name not in ("thresholds", "as_it_was", "held_back")
    }
    held_back = {name: report["held_back"][name] for name in ("flows", "hours")}
    after = {
        name: report["held_back"]["after"][name]
        for name in ("over", "alerts", "alerts_per_day", "by_class")
    }
    earlier = bundle.manifest.calibration
    calibration = {
        "method": "split conformal, one shift of the log-odds of all classes; "
        "earlier flows fit, later ones check",
        "of": bundle.id if earlier is None else earlier.of,
        "data": [dict(entry) for entry in data],
        "allowed": [entry.name for entry in options.allow.entries],
        "only_raise": options.only_raise,
        **fields,
        "held_back": held_back | after,
    }
    manifest = bundle.manifest.replaced(thresholds=dict(thresholds), calibration=calibration)
    return seal(manifest, bundle.files)
