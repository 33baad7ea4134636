"""Folds: one behaviour of one host. Flows over the threshold open, join and close them, by event time alone.

The clock that decides is the sensor's (the largest known time so far, column `clock`). Documents come in the order of
the rows that caused them, so splitting the input into other batches changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.alerts import document, policy
from ids_plugin.alerts.allow_list import AllowList
from ids_plugin.alerts.classes import classes
from ids_plugin.alerts.document import BundleFacts, FoldFacts, Verdict
from ids_plugin.alerts.policy import Judged, Key
from ids_plugin.alerts.totals import Totals
from ids_plugin.schema.alert import Document
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.flow import SCHEMA
from ids_plugin.schema.ledger import Ledger, tally
from ids_plugin.schema.score import Scores

Ints = npt.NDArray[np.int64]
Place = tuple[int, int, int, str]
"""where a document stands: row that caused it, 0 closing or 1 opening, when its fold opened, id of the fold"""

QUIET = 30 * 60 * 1_000_000
"""µs of the sensor's clock without a flow after which a fold closes"""
DAY = 24 * 3600 * 1_000_000
"""µs of the sensor's clock after which it closes in any case"""

_SHOWN = [
    name
    for name in SCHEMA
    if name not in ("sensor", "source", "open", "label", "label_detail", "origin")
]


class Outcome(NamedTuple):
    """What a batch, or the end of the input, gave."""

    documents: list[Document]
    ledger: Ledger
    """over_threshold, opened, folded, suppressed and documents, by the flows' `source`"""


@dataclass
class Fold:
    """An open fold; clock times in µs since the epoch."""

    id: str
    source: str
    """kind of input of the flow that opened it"""
    opened: int
    """clock at its first flow"""
    latest: int
    """clock at its latest flow"""
    best: float
    """score of the strongest flow"""
    shown: Document
    """what a document says of the strongest flow"""
    totals: Totals = field(default_factory=Totals)

    @property
    def deadline(self) -> int:
        """Clock at which it closes unless a flow comes before."""
        return min(self.latest + QUIET, self.opened + DAY)

    @property
    def closed_by(self) -> str:
        """Why it closes at its deadline."""
        return "quiet" if self.latest + QUIET <= self.opened + DAY else "day"


class Part(NamedTuple):
    """Consecutive flows of one key in one batch that belong to one fold."""

    opens: bool
    rows: Ints
    """places in Judged"""
    strongest: int
    """place in Judged, -1 where an earlier batch had one as strong"""


@dataclass(frozen=True)
class Plan:
    """What a batch will do to the folds, once the evidence that it needs is there."""

    rows: Ints
    """ascending rows of the batch which need evidence: few"""
    frame: pl.DataFrame = field(repr=False)
    scores: Scores = field(repr=False)
    clock: Ints = field(repr=False)
    """of every row of the batch"""
    parts: list[tuple[Key, Judged, list[Part]]] = field(default_factory=list, repr=False)
    ledger: Ledger = field(default_factory=Ledger, repr=False)


class Folder:
    """The folds of one sensor. Give it every batch, with or without flows over the threshold, in order."""

    def __init__(self, sensor: str, bundle: BundleFacts, allow: AllowList | None = None) -> None:
        self.sensor = sensor
        self.bundle = bundle
        self.allow = allow or AllowList()
        self._folds: dict[Key, Fold] = {}

    def __len__(self) -> int:
        """Open folds."""
        return len(self._folds)

    def plan(self, flows: pl.DataFrame, scores: Scores) -> Plan:
        """What the batch does to the folds; changes nothing.

        `flows` (n): a Flow frame in the order in which flows were known, with `known`, `clock` (Datetime, µs) and
        `replaces` (Boolean). `scores` (n).
        """
        clock = policy.micros(flows, "clock")
        over = np.flatnonzero(scores.over)
        if not len(over):
            return Plan(over, flows, scores, clock)
        judged = policy.judge(flows, scores, over)
        hidden = self.allow.suppressed(judged)
        found = judged.keys(np.flatnonzero(hidden < 0))
        parts = [(key, judged, list(self._parts(key, rows, judged))) for key, rows in found.items()]
        return Plan(_wanted(parts), flows, scores, clock, parts, self._count(judged, hidden, parts))

    def commit(
        self, plan: Plan, evidence: Mapping[int, Evidence], ingested: datetime | None = None
    ) -> Outcome:
        """Does what was planned: documents in order. `evidence`: of every row in `plan.rows`."""
        outcome = Outcome([], Ledger() + plan.ledger)
        shown = _exhibits(plan, evidence, self.bundle) if len(plan.rows) else {}
        placed: list[tuple[Place, Document]] = []
        work = {key: (batch, parts) for key, batch, parts in plan.parts}
        for key in self._folds.keys() - work.keys():
            placed += self._close_due(key, plan.clock, outcome.ledger, ingested)
        for key, (batch, parts) in work.items():
            for part in parts:
                if part.opens:
                    placed += self._close_due(key, plan.clock, outcome.ledger, ingested)
                    placed.append(
                        self._open(key, batch, int(part.rows[0]), shown, outcome.ledger, ingested)
                    )
                self._join(self._folds[key], batch, part, shown)
            placed += self._close_due(key, plan.clock, outcome.ledger, ingested)
        outcome.documents.extend(document for _, document in sorted(placed, key=lambda one: one[0]))
        return outcome

    def finish(self, ingested: datetime | None = None) -> Outcome:
        """The end of the input: every open fold closes."""
        outcome = Outcome([], Ledger())
        for key, fold in sorted(self._folds.items(), key=_age):
            outcome.documents.append(self._closed(key, fold, "end", outcome.ledger, ingested))
        self._folds.clear()
        return outcome

    def state(self) -> Document:
        """The open folds, JSON-able, the same after the same flows; serialise it before the next batch."""
        ordered = sorted(self._folds.items(), key=_age)
        folds = [
            {"key": list(key), **vars(fold), "totals": fold.totals.state()} for key, fold in ordered
        ]
        return {"sensor": self.sensor, "folds": folds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up the open folds of a `state`, in place of its own."""
        self._folds.clear()
        for saved in state["folds"]:
            rest = {name: value for name, value in saved.items() if name not in ("key", "totals")}
            self._folds[Key(*saved["key"])] = Fold(**rest, totals=Totals.restore(saved["totals"]))

    def _parts(self, key: Key, rows: Ints, batch: Judged) -> Iterator[Part]:
        """Divides the flows of one key into folds."""
        clock = batch.clock[rows]
        fold = self._folds.get(key)
        opened, best = (fold.opened, fold.best) if fold else (0, -1.0)
        opens = fold is None or int(clock[0]) >= fold.deadline
        pauses = np.append(np.flatnonzero(np.diff(clock) >= QUIET) + 1, len(rows))
        start = 0
        while start < len(rows):
            if opens:
                opened, best = int(clock[start]), -1.0
            stop = min(int(np.searchsorted(clock, opened + DAY)), int(pauses[pauses > start][0]))
            part = rows[start:stop]
            strongest = int(part[np.argmax(batch.score[part])])
            yield Part(opens, part, strongest if batch.score[strongest] > best else -1)
            start, opens = stop, True

    def _count(
        self, judged: Judged, hidden: Ints, parts: list[tuple[Key, Judged, list[Part]]]
    ) -> Ledger:
        """What becomes of the flows over the threshold, by their source."""
        ledger = Ledger()
        for source in set(judged.source):
            counts = ledger.of(source, self.sensor)
            mine = hidden[[one == source for one in judged.source]]
            counts.over_threshold = len(mine)
            counts.folded = int((mine < 0).sum())
            for entry, count in zip(*np.unique(mine[mine >= 0], return_counts=True), strict=True):
                tally(counts.suppressed, self.allow.entries[entry].name, int(count))
        for batch, part in (
            (batch, part) for _, batch, found in parts for part in found if part.opens
        ):
            counts = ledger.of(batch.source[int(part.rows[0])], self.sensor)
            counts.opened += 1
            counts.folded -= 1
        return ledger

    def _open(
        self,
        key: Key,
        batch: Judged,
        at: int,
        shown: dict[int, Document],
        ledger: Ledger,
        ingested: datetime | None,
    ) -> tuple[Place, Document]:
        """Opens a fold with flow `at` of the batch: its alert."""
        uid, known, clock = batch.flows.uid[at], int(batch.flows.known[at]), int(batch.clock[at])
        fold = Fold(
            id=document.digest(self.sensor, *key, uid, known, self.bundle.id),
            source=batch.source[at],
            opened=clock,
            latest=clock,
            best=float(batch.score[at]),
            shown=shown[int(batch.rows[at])],
        )
        fold.totals.add(batch.flows, np.array([at]))
        self._folds[key] = fold
        ledger.of(fold.source, self.sensor).documents += 1
        opening = document.opened(self._facts(key, fold), fold.shown, self.bundle, ingested)
        return (int(batch.rows[at]), 1, fold.opened, fold.id), opening

    def _join(self, fold: Fold, batch: Judged, part: Part, shown: dict[int, Document]) -> None:
        """Adds the flows of a part to their open fold; the one that opened it is in already."""
        rest = part.rows[1:] if part.opens else part.rows
        if len(rest):
            fold.totals.add(batch.flows, rest)
        fold.latest = int(batch.clock[part.rows[-1]])
        if part.strongest >= 0:
            fold.best = float(batch.score[part.strongest])
            fold.shown = shown[int(batch.rows[part.strongest])]

    def _close_due(
        self, key: Key, clock: Ints, ledger: Ledger, ingested: datetime | None
    ) -> Iterator[tuple[Place, Document]]:
        """Closes the fold of a key, if it is open, at the row where the clock reaches its deadline."""
        fold = self._folds.get(key)
        if fold is None or not len(clock) or clock[-1] < fold.deadline:
            return
        del self._folds[key]
        row = int(np.searchsorted(clock, fold.deadline))
        yield (
            (row, 0, fold.opened, fold.id),
            self._closed(key, fold, fold.closed_by, ledger, ingested),
        )

    def _closed(
        self, key: Key, fold: Fold, closed_by: str, ledger: Ledger, ingested: datetime | None
    ) -> Document:
        ledger.of(fold.source, self.sensor).documents += 1
        return document.closed(self._facts(key, fold), fold.shown, self.bundle, ingested, closed_by)

    def _facts(self, key: Key, fold: Fold) -> FoldFacts:
        return FoldFacts(
            id=fold.id,
            sensor=self.sensor,
            subject=key.subject,
            kind=classes()[key.kind],
            role=key.role,
            first=fold.totals.first,
            last=fold.totals.last,
            totals=fold.totals.document(),
        )


def _age(item: tuple[Key, Fold]) -> tuple[int, str]:
    return item[1].opened, item[1].id


def _wanted(parts: list[tuple[Key, Judged, list[Part]]]) -> Ints:
    """Rows whose evidence a document may show: those that open a fold, and the strongest ones."""
    rows = [
        int(batch.rows[at])
        for _, batch, found in parts
        for part in found
        for at in (part.rows[0] if part.opens else -1, part.strongest)
        if at >= 0
    ]
    return np.unique(np.array(rows, np.int64))


def _exhibits(
    plan: Plan, evidence: Mapping[int, Evidence], bundle: BundleFacts
) -> dict[int, Document]:
    """What documents say of the flows in `plan.rows`."""
    times = {
        "ts": pl.col("ts").dt.timestamp("us"),
        "duration": pl.col("duration").dt.total_microseconds(),
    }
    flows = plan.frame.select(_SHOWN)[plan.rows].with_columns(**times)
    shown = {}
    for row, flow in zip(plan.rows.tolist(), flows.iter_rows(named=True), strict=True):
        models = {name: float(values[row]) for name, values in plan.scores.models.items()}
        verdict = Verdict(float(plan.scores.score[row]), float(plan.scores.threshold[row]), models)
        shown[row] = document.exhibit(flow, verdict, evidence[row], bundle)
    return shown
