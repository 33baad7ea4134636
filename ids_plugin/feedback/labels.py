"""Judged alerts → labelled flows, as `train --data lab:FILE` reads them: a class, or benign, and who said so.

The alert's document holds a few flows, its evidence. All flows of the fold are found in the traffic itself, by scoring
it again: those over their threshold that fold under the alert's key in its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from ids_plugin.alerts import policy
from ids_plugin.alerts.policy import Judged, Key
from ids_plugin.bundle import Bundle
from ids_plugin.feedback.proposals import Ruled
from ids_plugin.pipeline import scored
from ids_plugin.schema import flow
from ids_plugin.schema.alert import ACTOR, TARGET
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.verdict import TRUE
from ids_plugin.scoring.scorer import Scorer

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
    """Labelled flows as they are found; one that judged alerts label differently is in none of them."""

    parts: list[pl.DataFrame] = field(default_factory=list)

    def evidence(self, ruled: Sequence[Ruled]) -> None:
        """Adds the flows that the alerts' documents hold."""
        rows = [_row(one, shown) for one in ruled for shown in one.case.evidence]
        self.parts.append(pl.DataFrame(rows, schema=flow.SCHEMA, orient="row"))

    def traffic(
        self, batches: Iterable[pl.DataFrame], ruled: Sequence[Ruled], bundle: Bundle
    ) -> None:
        """Adds the flows of the alerts' folds among those of `batches`: Flow frames in the order in which flows were
        known, local flags filled."""
        self.parts.extend(_folded(batches, ruled, bundle))

    def flows(self) -> tuple[pl.DataFrame, int]:
        """(Flow frame in the order of `ts`, each flow once), and how many contradict each other and were left out."""
        both = pl.concat([pl.DataFrame(schema=flow.SCHEMA), *self.parts])
        key = ("sensor", "uid", "orig_h", "resp_h", "orig_p", "resp_p")
        agreed = both.filter(pl.col("label").n_unique().over(key) == 1)
        contradicting = both.filter(pl.col("label").n_unique().over(key) > 1).unique(key).height
        full = agreed.sort(pl.col("source") == SOURCE, maintain_order=True)
        return full.unique(key, keep="first", maintain_order=True).sort("ts", "uid"), contradicting


def label(one: Ruled) -> tuple[str, str]:
    """Class, or benign, and who said so of which alert."""
    kind = one.case.kind if one.verdict.verdict == TRUE else "benign"
    by = f" by {one.verdict.analyst}" if one.verdict.analyst else ""
    return kind, f"judged {one.verdict.verdict}{by}, alert {one.case.alert}"


def _row(one: Ruled, shown: Mapping[str, Any]) -> dict[str, Any]:
    kind, detail = label(one)
    seconds = shown.get("duration")
    ts = datetime.fromisoformat(shown["ts"])
    return {
        **dict.fromkeys(flow.SCHEMA),
        **{name: shown.get(name) for name in _EVIDENCE},
        "sensor": one.case.sensor,
        "source": SOURCE,
        "open": False,
        "ts": ts if ts.tzinfo else ts.replace(tzinfo=UTC),
        "duration": None if seconds is None else timedelta(seconds=seconds),
        "label": kind,
        "label_detail": detail,
    }


def _folded(
    batches: Iterable[pl.DataFrame], ruled: Sequence[Ruled], bundle: Bundle
) -> Iterator[pl.DataFrame]:
    """Flows of judged folds, labelled, batch by batch."""
    wanted: dict[tuple[str, Key], list[Ruled]] = {}
    for one in ruled:
        wanted.setdefault(
            (one.case.sensor, Key(one.case.subject, one.case.role, one.case.kind)), []
        ).append(one)
    for _, windows, scores in scored(batches, Scorer(bundle)):
        judged = policy.judge(windows.flows, scores, np.flatnonzero(scores.over))
        yield _labelled(windows.flows, judged, wanted)


def _labelled(
    flows: pl.DataFrame, judged: Judged, wanted: Mapping[tuple[str, Key], list[Ruled]]
) -> pl.DataFrame:
    """Of the flows over the threshold those that a judged fold holds; once for each such fold."""
    rows, labels = [], []
    for at in range(len(judged.rows)):
        acted_upon = bool(judged.target[at])
        subject = judged.resp_h[at] if acted_upon else judged.orig_h[at]
        key = Key(subject, TARGET if acted_upon else ACTOR, CLASSES[judged.label[at]])
        row = int(judged.rows[at])
        for one in wanted.get((flows["sensor"][row], key), ()):
            if one.case.first <= judged.flows.ts[at] and judged.flows.known[at] <= one.case.last:
                rows.append(row)
                labels.append(label(one))
    named = pl.DataFrame(labels, schema=dict.fromkeys(_LABELS, pl.String()), orient="row")
    return (
        flows[rows]
        .select(name for name in flow.SCHEMA if name not in _LABELS)
        .hstack(named)
        .select(*flow.SCHEMA)
    )
