"""Judged alerts → labelled flows, as `train --data lab:FILE` reads them: a class, or benign, and
who said so.

The alert's document holds a few flows, its evidence. All flows of the group are found in the
traffic itself, by scoring it again: those over their threshold that group under the alert's key in
its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from ids_plugin.alerts import policy
from ids_plugin.alerts.policy import FlaggedFlows, GroupKey
from ids_plugin.bundle import Bundle
from ids_plugin.engines.opening import open_engine
from ids_plugin.feedback.proposals import Ruled
from ids_plugin.pipeline import judged
from ids_plugin.schema import flow
from ids_plugin.schema.verdict import TRUE

SOURCE = "alert"
"""what the column `source` says of flows that are known from an alert's evidence alone"""
_LABELS = ("label", "label_detail")
_EVIDENCE = (
    "uid",
    "orig_h",
    "orig_p",
    "resp_h",
    "resp_p",
    "proto",
    "conn_state",
    "orig_bytes",
    "resp_bytes",
)


@dataclass
class Labels:
    """Labelled flows as they are found; one that judged alerts label differently is in none of
    them."""

    parts: list[pl.DataFrame] = field(default_factory=list)

    def evidence(self, ruled: Sequence[Ruled]) -> None:
        """Adds the flows that the alerts' documents hold."""
        rows = [
            _row(ruled_alert, shown) for ruled_alert in ruled for shown in ruled_alert.case.evidence
        ]
        self.parts.append(pl.DataFrame(rows, schema=flow.SCHEMA, orient="row"))

    def traffic(
        self, batches: Iterable[pl.DataFrame], ruled: Sequence[Ruled], bundle: Bundle
    ) -> None:
        """Adds the flows of the alert groups among those of `batches`: Flow frames in the order in
        which flows were known, local flags filled."""
        self.parts.extend(_labelled_batches(batches, ruled, bundle))

    def flows(self) -> tuple[pl.DataFrame, int]:
        """(Flow frame in the order of `ts`, each flow once), and how many contradict each other and
        were left out."""
        both = pl.concat([pl.DataFrame(schema=flow.SCHEMA), *self.parts])
        key = ("sensor", "uid", "orig_h", "resp_h", "orig_p", "resp_p")
        agreed = both.filter(pl.col("label").n_unique().over(key) == 1)
        contradicting = both.filter(pl.col("label").n_unique().over(key) > 1).unique(key).height
        full = agreed.sort(pl.col("source") == SOURCE, maintain_order=True)
        return full.unique(key, keep="first", maintain_order=True).sort("ts", "uid"), contradicting


def label(ruled: Ruled) -> tuple[str, str]:
    """Class, or benign, and who said so of which alert."""
    kind = ruled.case.kind if ruled.verdict.verdict == TRUE else "benign"
    by = f" by {ruled.verdict.analyst}" if ruled.verdict.analyst else ""
    return kind, f"judged {ruled.verdict.verdict}{by}, alert {ruled.case.alert}"


def _row(ruled: Ruled, shown: Mapping[str, Any]) -> dict[str, Any]:
    kind, detail = label(ruled)
    seconds = shown.get("duration")
    ts = datetime.fromisoformat(shown["ts"])
    return {
        **dict.fromkeys(flow.SCHEMA),
        **{name: shown.get(name) for name in _EVIDENCE},
        "sensor": ruled.case.sensor,
        "source": SOURCE,
        "open": False,
        "ts": ts if ts.tzinfo else ts.replace(tzinfo=UTC),
        "duration": None if seconds is None else timedelta(seconds=seconds),
        "label": kind,
        "label_detail": detail,
    }


def _labelled_batches(
    batches: Iterable[pl.DataFrame], ruled: Sequence[Ruled], bundle: Bundle
) -> Iterator[pl.DataFrame]:
    """Flows of judged alerts, labelled, batch by batch."""
    wanted: dict[tuple[str, GroupKey], list[Ruled]] = {}
    for ruled_alert in ruled:
        case = ruled_alert.case
        key = GroupKey(case.subject, case.role, case.kind)
        wanted.setdefault((case.sensor, key), []).append(ruled_alert)
    for sensor, batch in judged(batches, open_engine(bundle)):
        flagged = policy.flag(batch.flows, batch.scores, np.flatnonzero(batch.scores.over))
        of_sensor = {key: alerts for (name, key), alerts in wanted.items() if name == sensor}
        yield _labelled(batch.flows, flagged, of_sensor)


def _labelled(
    flows: pl.DataFrame, flagged: FlaggedFlows, wanted: Mapping[GroupKey, Sequence[Ruled]]
) -> pl.DataFrame:
    """Of the flows over the threshold those that a judged alert holds; once for each such alert."""
    rows, labels = [], []
    keys, numbers = flagged.key_numbers()
    for position, number in enumerate(numbers.tolist()):
        ts, known = flagged.flows.ts[position], flagged.flows.known[position]
        for ruled_alert in wanted.get(keys[number], ()):
            if ruled_alert.case.first <= ts and known <= ruled_alert.case.last:
                rows.append(int(flagged.rows[position]))
                labels.append(label(ruled_alert))
    named = pl.DataFrame(labels, schema=dict.fromkeys(_LABELS, pl.String()), orient="row")
    return (
        flows[rows]
        .select(name for name in flow.SCHEMA if name not in _LABELS)
        .hstack(named)
        .select(*flow.SCHEMA)
    )
