"""Alert groups: flows over the threshold open, join and close them, by event time alone.

A group is one behaviour of one host (the document field `ids_plugin.fold`). The clock that decides
is the sensor's: the largest known time so far, column `clock`. Documents come in the order of the
rows that caused them, so splitting the input into other batches changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ids_plugin.alerts import document, policy
from ids_plugin.alerts.allow_list import AllowList
from ids_plugin.alerts.classes import classes
from ids_plugin.alerts.document import BundleFacts, GroupFacts, Verdict
from ids_plugin.alerts.group_rule import QUIET_GAP_US, GroupTimes, Ints, opening_flows
from ids_plugin.alerts.policy import FlaggedFlows, GroupKey
from ids_plugin.alerts.totals import Totals
from ids_plugin.schema.alert import Document
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.flow import SCHEMA, SENSOR_FLAGS
from ids_plugin.schema.ledger import Ledger, tally
from ids_plugin.schema.score import Scores

DocumentOrder = tuple[int, int, int, str]
"""row that caused a document, 0 closing or 1 opening, when its group opened, id of the group"""

_INTERNAL_COLUMNS = (
    "sensor", "source", "open", "label", "label_detail", "origin", *SENSOR_FLAGS,
)  # fmt: skip
_SHOWN_COLUMNS = [name for name in SCHEMA if name not in _INTERNAL_COLUMNS]


class Outcome(NamedTuple):
    """What a batch, or the end of the input, gave."""

    documents: list[Document]
    ledger: Ledger
    """over_threshold, opened, folded, suppressed and documents, by the flows' `source`"""


@dataclass
class AlertGroup:
    """An open group; clock times in µs since the epoch. A checkpoint holds it under these names."""

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
    quiet: int = QUIET_GAP_US
    """µs that it waits for another flow, as its latest flow says"""
    doubt: int = 0
    """steps by which its severity stays below that of the class, of its surest flow so far"""

    @property
    def times(self) -> GroupTimes:
        """The clock times that decide when it closes."""
        return GroupTimes(self.opened, self.latest, self.quiet)


class GroupPart(NamedTuple):
    """Consecutive flows of one key in one batch that belong to one group."""

    is_opening: bool
    """its first flow opens the group"""
    positions: Ints
    """in FlaggedFlows, ascending"""
    strongest: int
    """position in FlaggedFlows, -1 where an earlier batch had a flow as strong"""


@dataclass(frozen=True)
class Plan:
    """What a batch will do to the groups, once the evidence that it needs is there."""

    rows: Ints
    """ascending rows of the batch which need evidence: few"""
    frame: pl.DataFrame = field(repr=False)
    scores: Scores = field(repr=False)
    clock: Ints = field(repr=False)
    """of every row of the batch"""
    flagged: FlaggedFlows | None = field(default=None, repr=False)
    """None where no flow is over the threshold"""
    parts: dict[GroupKey, list[GroupPart]] = field(default_factory=dict, repr=False)
    ledger: Ledger = field(default_factory=Ledger, repr=False)


@dataclass(frozen=True)
class _Commit:
    """What every step of `AlertGrouper.commit` needs."""

    clock: Ints
    """of every row of the batch"""
    exhibits: dict[int, Document]
    """row → what a document says of its flow"""
    ledger: Ledger
    ingested: datetime | None
    documents: list[tuple[DocumentOrder, Document]] = field(default_factory=list)


class AlertGrouper:
    """The groups of one sensor. It takes every batch in order, with or without flows over the
    threshold."""

    def __init__(self, sensor: str, bundle: BundleFacts, allow: AllowList | None = None) -> None:
        self.sensor = sensor
        self.bundle = bundle
        self.allow = allow or AllowList()
        self._groups: dict[GroupKey, AlertGroup] = {}

    def __len__(self) -> int:
        """Open groups."""
        return len(self._groups)

    def plan(self, flows: pl.DataFrame, scores: Scores) -> Plan:
        """What the batch does to the groups; changes nothing.

        Args:
            flows: (n) Flow frame in the order in which flows were known, with `known`, `clock`
                (Datetime, µs) and `replaces` (Boolean).
            scores: (n) of these flows.
        """
        clock = policy.micros(flows, "clock")
        over = np.flatnonzero(scores.over)
        if not len(over):
            return Plan(over, flows, scores, clock)
        flagged = policy.flag(flows, scores, over)
        hidden_by = self.allow.suppressed(flagged)
        parts = self._parts(flagged, np.flatnonzero(hidden_by < 0))
        ledger = self._count(flagged, hidden_by, parts)
        rows = _rows_with_evidence(flagged, parts)
        return Plan(rows, flows, scores, clock, flagged, parts, ledger)

    def commit(
        self, plan: Plan, evidence: Mapping[int, Evidence], ingested: datetime | None = None
    ) -> Outcome:
        """Does what was planned: documents in order.

        Args:
            plan: of the batch that follows the last one committed.
            evidence: of every row in `plan.rows`.
            ingested: wall clock for `event.ingested`; left out where None.
        """
        exhibits = _exhibits(plan, evidence, self.bundle) if len(plan.rows) else {}
        commit = _Commit(plan.clock, exhibits, Ledger() + plan.ledger, ingested)
        for key in self._groups.keys() - plan.parts.keys():
            self._close_due(key, commit)
        if plan.flagged is not None:
            for key, parts in plan.parts.items():
                for part in parts:
                    self._apply(key, plan.flagged, part, commit)
                self._close_due(key, commit)
        ordered = sorted(commit.documents, key=lambda entry: entry[0])
        return Outcome([alert for _, alert in ordered], commit.ledger)

    def finish(self, ingested: datetime | None = None) -> Outcome:
        """The end of the input: every open group closes."""
        outcome = Outcome([], Ledger())
        for key, group in sorted(self._groups.items(), key=_age):
            outcome.documents.append(self._closed(key, group, "end", outcome.ledger, ingested))
        self._groups.clear()
        return outcome

    def state(self) -> Document:
        """The open groups, JSON-able, the same after the same flows; serialise it before the next
        batch."""
        saved = [
            {"key": list(key), **vars(group), "totals": group.totals.state()}
            for key, group in sorted(self._groups.items(), key=_age)
        ]
        return {"sensor": self.sensor, "folds": saved}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up the open groups of a `state`, in place of its own."""
        self._groups.clear()
        for saved in state["folds"]:
            fields = {name: value for name, value in saved.items() if name not in ("key", "totals")}
            group = AlertGroup(**fields, totals=Totals.restore(saved["totals"]))
            self._groups[GroupKey(*saved["key"])] = group

    def _parts(self, flagged: FlaggedFlows, positions: Ints) -> dict[GroupKey, list[GroupPart]]:
        """Divides the flows at `positions` into groups, by key in the order of their first flow."""
        keys, numbers = flagged.key_numbers(positions)
        by_key = np.argsort(numbers, kind="stable")
        positions, numbers = positions[by_key], numbers[by_key]
        open_groups = {
            number: self._groups[key].times
            for number, key in enumerate(keys)
            if key in self._groups
        }
        is_opening = opening_flows(
            numbers, flagged.clock[positions], open_groups, flagged.quiet_us[positions]
        )
        is_first = np.diff(numbers, prepend=-1) != 0
        starts = np.flatnonzero(is_opening | is_first).tolist()
        parts: dict[GroupKey, list[GroupPart]] = {key: [] for key in keys}
        for start, stop in zip(starts, [*starts[1:], len(positions)], strict=False):
            key = keys[numbers[start]]
            members = positions[start:stop]
            best = -1.0 if is_opening[start] else self._groups[key].best
            strongest = int(members[np.argmax(flagged.score[members])])
            if flagged.score[strongest] <= best:
                strongest = -1
            parts[key].append(GroupPart(bool(is_opening[start]), members, strongest))
        return parts

    def _count(
        self, flagged: FlaggedFlows, hidden_by: Ints, parts: Mapping[GroupKey, list[GroupPart]]
    ) -> Ledger:
        """What becomes of the flows over the threshold, by their source."""
        ledger = Ledger()
        for source in set(flagged.source):
            counts = ledger.of(source, self.sensor)
            entries = hidden_by[[name == source for name in flagged.source]]
            counts.over_threshold = len(entries)
            counts.folded = int((entries < 0).sum())
            for entry, count in zip(
                *np.unique(entries[entries >= 0], return_counts=True), strict=True
            ):
                tally(counts.suppressed, self.allow.entries[entry].name, int(count))
        for of_key in parts.values():
            for part in of_key:
                if part.is_opening:
                    counts = ledger.of(flagged.source[int(part.positions[0])], self.sensor)
                    counts.opened += 1
                    counts.folded -= 1
        return ledger

    def _apply(self, key: GroupKey, flagged: FlaggedFlows, part: GroupPart, run: _Commit) -> None:
        """Opens the group of a part where it opens one, and adds its flows to it."""
        if part.is_opening:
            self._close_due(key, run)
            self._open(key, flagged, int(part.positions[0]), run)
        group = self._groups[key]
        joining = part.positions[1:] if part.is_opening else part.positions
        if len(joining):
            group.totals.add(flagged.flows, joining)
        group.latest = int(flagged.clock[part.positions[-1]])
        group.quiet = int(flagged.quiet_us[part.positions[-1]])
        group.doubt = min(group.doubt, int(flagged.doubt[part.positions].min()))
        if part.strongest >= 0:
            group.best = float(flagged.score[part.strongest])
            group.shown = run.exhibits[int(flagged.rows[part.strongest])]

    def _open(self, key: GroupKey, flagged: FlaggedFlows, position: int, run: _Commit) -> None:
        """Opens a group with the flow at `position`: its alert."""
        flows, clock = flagged.flows, int(flagged.clock[position])
        uid, known = flows.uid[position], int(flows.known[position])
        row = int(flagged.rows[position])
        group = AlertGroup(
            id=document.digest(self.sensor, *key, uid, known, self.bundle.id),
            source=flagged.source[position],
            opened=clock,
            latest=clock,
            best=float(flagged.score[position]),
            shown=run.exhibits[row],
            doubt=int(flagged.doubt[position]),
        )
        group.totals.add(flows, np.array([position]))
        self._groups[key] = group
        run.ledger.of(group.source, self.sensor).documents += 1
        alert = document.opened(self._facts(key, group), group.shown, self.bundle, run.ingested)
        run.documents.append(((row, 1, group.opened, group.id), alert))

    def _close_due(self, key: GroupKey, run: _Commit) -> None:
        """Closes the group of a key, if it is open, at the row where the clock reaches its
        deadline."""
        group = self._groups.get(key)
        if group is None or not len(run.clock) or run.clock[-1] < group.times.deadline:
            return
        del self._groups[key]
        row = int(np.searchsorted(run.clock, group.times.deadline))
        closing = self._closed(key, group, group.times.closed_by, run.ledger, run.ingested)
        run.documents.append(((row, 0, group.opened, group.id), closing))

    def _closed(
        self,
        key: GroupKey,
        group: AlertGroup,
        closed_by: str,
        ledger: Ledger,
        ingested: datetime | None,
    ) -> Document:
        ledger.of(group.source, self.sensor).documents += 1
        facts = self._facts(key, group)
        return document.closed(facts, group.shown, self.bundle, ingested, closed_by)

    def _facts(self, key: GroupKey, group: AlertGroup) -> GroupFacts:
        return GroupFacts(
            id=group.id,
            sensor=self.sensor,
            subject=key.subject,
            kind=classes()[key.kind],
            role=key.role,
            first=group.totals.first,
            last=group.totals.last,
            totals=group.totals.document(),
            doubt=group.doubt,
        )


def _age(item: tuple[GroupKey, AlertGroup]) -> tuple[int, str]:
    return item[1].opened, item[1].id


def _rows_with_evidence(flagged: FlaggedFlows, parts: Mapping[GroupKey, list[GroupPart]]) -> Ints:
    """Rows whose evidence a document may show: those that open a group, and the strongest ones."""
    positions = []
    for of_key in parts.values():
        for part in of_key:
            if part.is_opening:
                positions.append(int(part.positions[0]))
            if part.strongest >= 0:
                positions.append(part.strongest)
    return np.unique(flagged.rows[positions]).astype(np.int64)


def _exhibits(
    plan: Plan, evidence: Mapping[int, Evidence], bundle: BundleFacts
) -> dict[int, Document]:
    """What documents say of the flows in `plan.rows`."""
    times = {
        "ts": pl.col("ts").dt.timestamp("us"),
        "duration": pl.col("duration").dt.total_microseconds(),
    }
    flows = plan.frame.select(_SHOWN_COLUMNS)[plan.rows].with_columns(**times)
    exhibits = {}
    for row, flow in zip(plan.rows.tolist(), flows.iter_rows(named=True), strict=True):
        models = {name: float(values[row]) for name, values in plan.scores.models.items()}
        detector = "" if plan.scores.detector is None else str(plan.scores.detector[row])
        verdict = Verdict(
            float(plan.scores.score[row]), float(plan.scores.threshold[row]), models, detector
        )
        exhibits[row] = document.exhibit(flow, verdict, evidence[row], bundle)
    return exhibits
