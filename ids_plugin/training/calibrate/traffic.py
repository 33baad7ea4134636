"""What both ways of calibrating share: options, time that was watched, alerts that thresholds
give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from ids_plugin.alerts import AlertGrouper, AllowList, BundleFacts
from ids_plugin.bundle import Bundle
from ids_plugin.schema import flow
from ids_plugin.schema.alert import Document
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import Scores
from ids_plugin.schema.window import Ints

FITTING_SHARE = 0.7
"""of the flows fit the thresholds; the rest, later in time, checks them"""
MAX_WATCHED_PAUSE_US = 3_600_000_000
"""µs without a flow that don't count as time in which something was watched"""
DAY_US = 86_400_000_000
FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
"""µs: before and after all times"""
NAMED_ALERTS = 5
"""alerts that are named"""
OTHERS_TRAFFIC_FACTOR = 5.0
"""the budget is divided by it where the traffic is others': thresholds fitted to some networks gave
2 to 5 times as many alerts in others"""
FLOW_COLUMNS = [*flow.SCHEMA, "known", "clock", "replaces"]
NO_EVIDENCE = Evidence((), (), "", 0.0, {}, "")


@dataclass(frozen=True)
class Options:
    """What a calibration is told."""

    budget: float
    """alerts a day"""
    allow: AllowList = field(default_factory=AllowList)
    only_raise: bool = False
    """no threshold falls below the bundle's own"""
    others_traffic: bool = False
    """the traffic isn't that of the network that the bundle is for"""

    @property
    def fitted_budget(self) -> float:
        """Alerts a day that the thresholds are fitted to."""
        return self.budget / (OTHERS_TRAFFIC_FACTOR if self.others_traffic else 1.0)


class Alerts(Protocol):
    """What thresholds give in the traffic that was seen."""

    def __call__(self, *, start: int = FIRST, stop: int = LAST) -> tuple[int, list[Document]]:
        """How many flows known after `start` and up to `stop` are over, and the closing documents
        of their groups."""


class Calibration(NamedTuple):
    """A bundle with other thresholds, and how they came about."""

    bundle: Bundle
    """unsigned"""
    report: dict[str, Any]
    """thresholds before and after, the traffic, and what held-back traffic gives; JSON-able"""


class JudgedPart(NamedTuple):
    """Some flows of a batch, judged by thresholds."""

    sensor: str
    flows: pl.DataFrame
    scores: Scores


def split_time(known: Ints) -> int:
    """Flows known up to this time (µs since the epoch) fit, the later ones check.

    `known`: (n) of every flow, ascending; one at least.
    """
    return int(known[max(math.ceil(FITTING_SHARE * len(known)) - 1, 0)])


def watched_days(known: Ints) -> float:
    """Days in which there was something to see: pauses of more than an hour don't count."""
    pauses: Ints = np.diff(known)
    return float(pauses[pauses <= MAX_WATCHED_PAUSE_US].sum()) / DAY_US


def grouped(parts: Iterable[JudgedPart], allow: AllowList) -> tuple[int, list[Document]]:
    """How many flows are over their threshold, and the closing documents of their groups."""
    groupers: dict[str, AlertGrouper] = {}
    documents: list[Document] = []
    count = 0
    for part in parts:
        rows = np.flatnonzero(part.scores.over)
        if not len(rows):
            continue
        grouper = groupers.setdefault(
            part.sensor, AlertGrouper(part.sensor, BundleFacts("", "", ""), allow)
        )
        plan = grouper.plan(part.flows[rows], part.scores.take(rows))
        count += sum(
            counts.over_threshold - counts.value("suppressed") for _, counts in plan.ledger.items()
        )
        documents += grouper.commit(plan, dict.fromkeys(plan.rows.tolist(), NO_EVIDENCE)).documents
    documents += [
        document for grouper in groupers.values() for document in grouper.finish().documents
    ]
    return count, [document for document in documents if document["event"]["kind"] == "event"]


def summary(result: tuple[int, list[Document]], days: float) -> dict[str, Any]:
    """JSON-able: flows over, alerts, and what the largest of them were."""
    over, documents = result
    largest = sorted(
        documents,
        key=lambda document: (-document["ids_plugin"]["fold"]["count"], document["event"]["id"]),
    )
    by_class: dict[str, int] = {}
    for document in documents:
        label = document["ids_plugin"]["label"]
        by_class[label] = by_class.get(label, 0) + 1
    return {
        "over": over,
        "alerts": len(documents),
        "alerts_per_day": round(len(documents) / days, 3) if days else None,
        "by_class": dict(sorted(by_class.items())),
        "largest": [document["message"] for document in largest[:NAMED_ALERTS]],
    }


def before_and_after(
    before: Alerts, after: Alerts, fitting: Ints, checking: Ints
) -> dict[str, Any]:
    """JSON-able: alerts by the thresholds of training while others were fitted, and by both on the
    traffic that was held back.

    Args:
        before, after: what the thresholds of training give, and the fitted ones.
        fitting, checking: µs since the epoch, ascending: when the flows that fit were known, and
            the later ones that check; one of each at least.
    """
    split, days = int(fitting[-1]), watched_days(checking)
    return {
        "as_it_was": summary(before(stop=split), watched_days(fitting)),
        "held_back": {
            "flows": len(checking),
            "hours": round(24 * days, 3),
            "before": summary(before(start=split), days),
            "after": summary(after(start=split), days),
        },
    }


def record(
    bundle: Bundle,
    method: str,
    report: Mapping[str, Any],
    options: Options,
    data: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What a manifest keeps of a calibration, without hosts: `largest` stays out of what may be
    passed on."""
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
    return {
        "method": method,
        "of": bundle.id if earlier is None else earlier.of,
        "data": [dict(entry) for entry in data],
        "allowed": [entry.name for entry in options.allow.entries],
        "only_raise": options.only_raise,
        "others_traffic": options.others_traffic,
        **fields,
        "held_back": held_back | after,
    }
