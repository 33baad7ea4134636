"""Thresholds of a bundle whose members score windows, fitted by flows.

An alert is a group of one flow or more: as many flows over a day as the budget allows are at most
as many alerts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ids_plugin.alerts import AllowList, policy
from ids_plugin.bundle import Bundle, seal
from ids_plugin.engines.opening import open_engine
from ids_plugin.errors import UsageError
from ids_plugin.pipeline import judged
from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.schema.window import Ints
from ids_plugin.scoring import Doubles
from ids_plugin.training.calibrate.traffic import (
    DAY_US,
    FIRST,
    FITTING_SHARE,
    FLOW_COLUMNS,
    LAST,
    Calibration,
    JudgedPart,
    Options,
    before_and_after,
    grouped,
    record,
    split_time,
    watched_days,
)
from ids_plugin.training.conformal import LOWEST_THRESHOLD, allowed_over, fit, flows_needed

METHOD = (
    "split conformal, one shift of the log-odds of all classes; earlier flows fit, later ones check"
)


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
        return split_time(self.known)


def calibrate_windows(
    batches: Iterable[pl.DataFrame],
    bundle: Bundle,
    options: Options,
    data: Sequence[Mapping[str, Any]],
) -> Calibration:
    """The bundle with other thresholds, unsigned, and a report; arguments as for `calibrate`.

    Raises:
        UsageError: too few flows for such a budget; the message says how many are needed.
    """
    before = _thresholds_of_training(bundle)
    traffic = observe(batches, bundle, lowest_threshold(bundle, before))
    split = traffic.split if len(traffic.known) else 0
    fitting, checking = traffic.known[traffic.known <= split], traffic.known[traffic.known > split]
    per_day = len(fitting) / max(watched_days(fitting), 1 / DAY_US) if len(fitting) else 0.0
    alpha = min(options.fitted_budget / per_day, 1.0) if per_day else 1.0
    if allowed_over(len(fitting), alpha) < 0 or not len(checking):
        raise _too_few(len(fitting), options.fitted_budget, per_day, alpha)
    score, label = _candidates(traffic, split, options.allow)
    over = allowed_over(len(fitting), alpha)
    fitted = fit(score, label, over, before, traffic.least, only_raise=options.only_raise)
    after = {**before, **fitted.thresholds}
    report = {
        "budget_per_day": options.budget,
        "fitted_budget_per_day": options.fitted_budget,
        "alpha": alpha,
        "needed": flows_needed(alpha),
        "may_be_over": over,
        "flows": len(fitting),
        "flows_per_day": round(per_day, 1),
        "hours": round(24 * watched_days(fitting), 3),
        "shift_of_log_odds": None if math.isinf(fitted.shift) else round(fitted.shift, 6),
        "thresholds_before": before,
        "thresholds": after,
        **before_and_after(
            partial(alerts, traffic, before, options.allow),
            partial(alerts, traffic, after, options.allow),
            fitting,
            checking,
        ),
    }
    manifest = bundle.manifest.replaced(
        thresholds=after, calibration=record(bundle, METHOD, report, options, data)
    )
    return Calibration(seal(manifest, bundle.files), report)


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
                Batch(sensor, batch.flows[rows, FLOW_COLUMNS], batch.scores.take(rows), times[rows])
            )
    return Traffic(np.sort(np.concatenate(known)), high, least)


def alerts(
    traffic: Traffic,
    thresholds: Mapping[str, float],
    allow: AllowList,
    *,
    start: int = FIRST,
    stop: int = LAST,
) -> tuple[int, list[Document]]:
    """How many flows known after `start` and up to `stop` are over, and the closing documents of
    their groups."""
    return grouped(_judged_parts(traffic, thresholds, start, stop), allow)


def _judged_parts(
    traffic: Traffic, thresholds: Mapping[str, float], start: int, stop: int
) -> Iterator[JudgedPart]:
    limits = np.array([thresholds.get(name, np.inf) for name in CLASSES])
    for batch in traffic.high:
        threshold = limits[batch.scores.label]
        over = (batch.scores.score >= threshold) & (batch.known > start) & (batch.known <= stop)
        scores = batch.scores._replace(over=over, threshold=threshold)
        yield JudgedPart(batch.sensor, batch.flows, scores)


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
