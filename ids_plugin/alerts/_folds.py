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

from ids_plugin.alerts import _document
from ids_plugin.alerts._allow import AllowList
from ids_plugin.alerts._classes import classes
from ids_plugin.alerts._document import BundleFacts, FoldFacts, Verdict
from ids_plugin.alerts._totals import Flows, Totals
from ids_plugin.schema.alert import ACTOR, TARGET, Document
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.flow import SCHEMA
from ids_plugin.schema.ledger import Ledger, tally
from ids_plugin.schema.score import CLASSES, Scores

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

QUIET = 30 * 60 * 1_000_000
"""µs of the sensor's clock without a flow after which a fold closes"""
DAY = 24 * 3600 * 1_000_000
"""µs of the sensor's clock after which it closes in any case"""

_FLOOD, _NOISE = CLASSES.index("flood"), CLASSES.index("inbound_noise")
_NOISY = [CLASSES.index(name) for name in ("scan", "brute_force", "spreading", "inbound_noise")]
"""what strangers do to every host that the internet can reach"""
_SHOWN = [name for name in SCHEMA if name not in ("sensor", "source", "open", "label", "label_detail", "origin")]


class Key(NamedTuple):
    """What makes two flows of one sensor the same behaviour of the same host."""

    subject: str
    role: str
    kind: str
    """class"""


class Outcome(NamedTuple):
    """What a batch, or the end of the input, gave."""

    documents: list[Document]
    ledger: Ledger
    """over_threshold, opened, folded, suppressed and documents; by the flows' `source`"""


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
    """exhibit of the strongest flow"""
    totals: Totals = field(default_factory=Totals)

    @property
    def deadline(self) -> int:
        """Clock at which it closes unless a flow comes before."""
        return min(self.latest + QUIET, self.opened + DAY)

    @property
    def closed_by(self) -> str:
        return "quiet" if self.latest + QUIET <= self.opened + DAY else "day"


class _Part(NamedTuple):
    """Consecutive flows of one key in one batch that belong to one fold."""

    opens: bool
    rows: Ints
    """of `Plan.flows`"""
    strongest: int
    """of `Plan.flows`, -1 where an earlier batch had a stronger one"""


class _Batch(NamedTuple):
    """The flows of a batch that fold, as columns."""

    rows: Ints
    """of the batch"""
    clock: Ints
    score: npt.NDArray[np.float64]
    flows: Flows
    source: list[str]


@dataclass(frozen=True)
class Plan:
    """What a batch will do to the folds, once the evidence that it needs is there."""

    rows: Ints
    """ascending rows of the batch which need evidence: few"""
    frame: pl.DataFrame = field(repr=False)
    scores: Scores = field(repr=False)
    clock: Ints = field(repr=False)
    """of every row of the batch"""
    batch: _Batch = field(repr=False)
    parts: list[tuple[Key, list[_Part]]] = field(repr=False)
    ledger: Ledger = field(repr=False)


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
        ledger = Ledger()
        over = np.flatnonzero(scores.over)
        frame = _judge(flows[over], scores, over)
        frame = self._suppress(frame, ledger)
        batch = _batch(frame, scores)
        parts = [(key, list(self._parts(key, rows, batch))) for key, rows in _keys(frame)]
        for _, found in parts:
            for part in found:
                _count_part(ledger, part, batch, self.sensor)
        return Plan(_needed(parts, batch), flows, scores, _micros(flows, "clock"), batch, parts, ledger)

    def commit(self, plan: Plan, evidence: Mapping[int, Evidence], ingested: datetime | None = None) -> Outcome:
        """Does what was planned: documents in order. `evidence`: of every row in `plan.rows`."""
        events: list[tuple[tuple[int, int, int, str], Document]] = []
        exhibits = {row: _exhibit(plan, row, evidence[row]) for row in plan.rows.tolist()}
        touched = {key for key, _ in plan.parts}
        for key, fold in [item for item in self._folds.items() if item[0] not in touched]:
            events += self._close_due(key, fold, plan, ingested)
        for key, parts in plan.parts:
            for part in parts:
                events += self._take(key, part, plan, exhibits, ingested)
            events += self._close_due(key, self._folds[key], plan, ingested)
        events.sort(key=lambda event: event[0])
        return Outcome([document for _, document in events], plan.ledger)

    def finish(self, ingested: datetime | None = None) -> Outcome:
        """The end of the input: every open fold closes."""
        ledger = Ledger()
        documents = []
        for key, fold in sorted(self._folds.items(), key=lambda item: (item[1].opened, item[1].id)):
            documents.append(self._closed(key, fold, "end", ingested, ledger))
        self._folds.clear()
        return Outcome(documents, ledger)

    def state(self) -> Document:
        """The open folds, JSON-able."""
        folds = [
            {"key": list(key), **fold.__dict__, "totals": fold.totals.state()} for key, fold in self._folds.items()
        ]
        return {"sensor": self.sensor, "folds": folds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up the open folds of a `state`."""
        self._folds.clear()
        for saved in state["folds"]:
            rest = {name: value for name, value in saved.items() if name not in ("key", "totals")}
            self._folds[Key(*saved["key"])] = Fold(**rest, totals=Totals.restore(saved["totals"]))

    def _suppress(self, frame: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
        """The flows that no entry of the allow-list hides; the others are counted."""
        kinds = np.array(CLASSES)[frame["class"].to_numpy()]
        hidden = self.allow.suppressed(frame, kinds)
        for source, entry in zip(frame["source"], hidden.tolist(), strict=True):
            counts = ledger.of(source or "", self.sensor)
            counts.over_threshold += 1
            if entry >= 0:
                tally(counts.suppressed, self.allow.entries[entry].name)
        return frame.filter(hidden < 0)

    def _parts(self, key: Key, rows: Ints, batch: _Batch) -> Iterator[_Part]:
        """Divides the flows of one key into folds."""
        clock = batch.clock[rows]
        fold = self._folds.get(key)
        opened, latest, best = (fold.opened, fold.latest, fold.best) if fold else (0, 0, -1.0)
        pauses = np.flatnonzero(np.diff(clock) >= QUIET) + 1
        start = 0
        opens = fold is None or clock[0] >= min(latest + QUIET, opened + DAY)
        while start < len(rows):
            if opens:
                opened, best = int(clock[start]), -1.0
            stop = int(np.searchsorted(clock, opened + DAY))
            later = pauses[pauses > start]
            stop = min(stop, int(later[0])) if len(later) else stop
            part = rows[start:stop]
            strongest = part[np.argmax(batch.score[part])]
            yield _Part(opens, part, int(strongest) if batch.score[strongest] > best else -1)
            start, opens = stop, True

    def _take(
        self, key: Key, part: _Part, plan: Plan, exhibits: dict[int, Document], ingested: datetime | None
    ) -> Iterator[tuple[tuple[int, int, int, str], Document]]:
        """Adds flows to their fold, which may have to be opened, and the one before it closed."""
        batch = plan.batch
        rest = part.rows
        if part.opens:
            if key in self._folds:
                yield from self._close_due(key, self._folds[key], plan, ingested)
            first, rest = int(rest[0]), rest[1:]
            fold = self._open(key, first, batch, exhibits)
            row = int(batch.rows[first])
            document = _document.opened(self._facts(key, fold), exhibits[row], self.bundle, ingested)
            plan.ledger.of(fold.source, self.sensor).documents += 1
            yield (row, 1, fold.opened, fold.id), document
        fold = self._folds[key]
        fold.latest = int(batch.clock[part.rows[-1]])
        if len(rest):
            fold.totals.add(batch.flows, rest)
        if part.strongest >= 0:
            fold.best = float(batch.score[part.strongest])
            fold.shown = exhibits[int(batch.rows[part.strongest])]

    def _open(self, key: Key, first: int, batch: _Batch, exhibits: dict[int, Document]) -> Fold:
        uid, known, clock = batch.flows.uid[first], int(batch.flows.known[first]), int(batch.clock[first])
        fold = Fold(
            id=_document.digest(self.sensor, *key, uid, known, self.bundle.id),
            source=batch.source[first],
            opened=clock,
            latest=clock,
            best=float(batch.score[first]),
            shown=exhibits[int(batch.rows[first])],
        )
        fold.totals.add(batch.flows, np.array([first]))
        self._folds[key] = fold
        return fold

    def _close_due(
        self, key: Key, fold: Fold, plan: Plan, ingested: datetime | None
    ) -> Iterator[tuple[tuple[int, int, int, str], Document]]:
        """Closes the fold where the clock of the batch reaches its deadline."""
        row = int(np.searchsorted(plan.clock, fold.deadline))
        if row < len(plan.clock):
            del self._folds[key]
            document = self._closed(key, fold, fold.closed_by, ingested, plan.ledger)
            yield (row, 0, fold.opened, fold.id), document

    def _closed(self, key: Key, fold: Fold, closed_by: str, ingested: datetime | None, ledger: Ledger) -> Document:
        ledger.of(fold.source, self.sensor).documents += 1
        return _document.closed(self._facts(key, fold), fold.shown, self.bundle, ingested, closed_by)

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


def _judge(flows: pl.DataFrame, scores: Scores, over: Ints) -> pl.DataFrame:
    """Flows over the threshold with `row`, `class` (index), `target` (the subject is acted upon), `subject`, `peer`."""
    local_orig, local_resp = (flows[name].fill_null(value=False).to_numpy() for name in ("local_orig", "local_resp"))
    stranger = ~local_orig & local_resp
    label = scores.label[over]
    likeliest = scores.probability[over].copy()
    likeliest[:, [0, _NOISE]] = -1.0
    label = np.where((label == _NOISE) & ~stranger, likeliest.argmax(axis=1), label)
    label = np.where(stranger & np.isin(label, _NOISY), _NOISE, label)
    target = stranger | (label == _FLOOD)
    sides = flows.with_columns(
        pl.Series("row", over, pl.Int64), pl.Series("class", label, pl.Int64), pl.Series("target", target, pl.Boolean)
    )
    return sides.with_columns(
        pl.when("target").then("resp_h").otherwise("orig_h").alias("subject"),
        pl.when("target").then("orig_h").otherwise("resp_h").alias("peer"),
    )


def _keys(frame: pl.DataFrame) -> Iterator[tuple[Key, Ints]]:
    """Fold keys in the order of their first flow, with their rows of `frame`."""
    grouped = (
        frame.with_row_index("at")
        .group_by("subject", "target", "class", maintain_order=True)
        .agg(pl.col("at").cast(pl.Int64))
    )
    for subject, target, number, rows in grouped.iter_rows():
        yield Key(subject, TARGET if target else ACTOR, CLASSES[number]), np.array(rows, np.int64)


def _batch(frame: pl.DataFrame, scores: Scores) -> _Batch:
    numbers = frame.select(
        "orig_bytes",
        "resp_bytes",
        ip_bytes=pl.col("orig_ip_bytes") + pl.col("resp_ip_bytes"),
        packets=pl.col("orig_pkts") + pl.col("resp_pkts"),
    )
    port = frame.select(pl.when(pl.col("proto") != "icmp").then("resp_p")).to_series()
    flows = Flows(
        ts=_micros(frame, "ts"),
        known=_micros(frame, "known"),
        uid=frame["uid"].to_list(),
        peer=frame["peer"].to_list(),
        port=port.to_list(),
        sums=numbers.fill_null(0).to_numpy().astype(np.int64).reshape(len(frame), -1),
        has=numbers.select(pl.all().is_not_null()).to_numpy().reshape(len(frame), -1),
        open=frame["open"].fill_null(value=False).to_numpy(),
        replaces=frame["replaces"].fill_null(value=False).to_numpy(),
    )
    rows = frame["row"].to_numpy()
    source = frame["source"].fill_null("").to_list()
    return _Batch(rows, _micros(frame, "clock"), scores.score[rows], flows, source)


def _micros(frame: pl.DataFrame, name: str) -> Ints:
    return frame[name].dt.cast_time_unit("us").cast(pl.Int64).to_numpy()


def _needed(parts: list[tuple[Key, list[_Part]]], batch: _Batch) -> Ints:
    """Rows of the batch whose evidence a document may show: those that open, and the strongest ones."""
    found = [part for _, some in parts for part in some]
    wanted = [part.rows[0] for part in found if part.opens] + [part.strongest for part in found if part.strongest >= 0]
    return np.unique(batch.rows[np.array(wanted, np.int64)])


def _count_part(ledger: Ledger, part: _Part, batch: _Batch, sensor: str) -> None:
    for row in part.rows.tolist():
        ledger.of(batch.source[row], sensor).folded += 1
    if part.opens:
        counts = ledger.of(batch.source[int(part.rows[0])], sensor)
        counts.folded -= 1
        counts.opened += 1


def _exhibit(plan: Plan, row: int, evidence: Evidence) -> Document:
    flow = (
        plan.frame[row]
        .select(_SHOWN)
        .with_columns(pl.col("ts").dt.timestamp("us"), pl.col("duration").dt.total_microseconds())
        .row(0, named=True)
    )
    models = {name: float(values[row]) for name, values in plan.scores.models.items()}
    verdict = Verdict(float(plan.scores.score[row]), float(plan.scores.threshold[row]), models)
    return _document.exhibit(flow, verdict, evidence)
