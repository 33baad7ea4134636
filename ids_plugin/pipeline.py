"""The whole sentence: source → features → windows → scoring → explain → alerts → sinks.

`Pipeline` is the same for a capture on a laptop and a live stream: flows in, alert documents out. `scan` puts the
sources and their order before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from ids_plugin import features
from ids_plugin.alerts import AllowList, BundleFacts, Folder
from ids_plugin.bundle import Bundle
from ids_plugin.explain import Explainer
from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Ledger, tally
from ids_plugin.scoring._scorer import Scorer
from ids_plugin.sources import Read, Reject
from ids_plugin.sources._local import Locality
from ids_plugin.sources._order import ordered
from ids_plugin.windows import spec
from ids_plugin.windows._state import BatchWindows, Limits, Windower

BATCH = 16_384
"""Flows a step: larger ones are hardly faster and hold more memory"""


class Pipeline:
    """Flows in the order in which they were known → alert documents. One bundle, any number of sensors."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        allow: AllowList | None = None,
        cascade: bool = True,
        limits: Limits | None = None,
    ) -> None:
        """
        Raises:
            BundleError: the bundle doesn't load, or was made for other windows.
        """
        bundle.require(spec())
        self.ledger = Ledger()
        self.facts = BundleFacts(bundle.id, bundle.family, bundle.version)
        self._scorer = Scorer(bundle, cascade=cascade)
        self._explainer = Explainer(self._scorer, spec(), bundle.usual)
        self._allow, self._limits = allow, limits
        self._sensors: dict[str, tuple[Windower, Folder]] = {}

    def step(self, flows: pl.DataFrame, ingested: datetime | None = None) -> list[Document]:
        """Documents that a batch of flows opens and closes: a Flow frame with local flags filled.

        `ingested` is the wall clock that documents carry as `event.ingested`; left out when None.
        """
        documents: list[Document] = []
        for (name,), part in flows.partition_by("sensor", as_dict=True, maintain_order=True).items():
            windower, folder = self._sensor(str(name))
            delayed, kept = windower.delayed, []
            for windows in windower.step(features.add(part)):
                documents += self._alerts(windows, folder, ingested)
                kept.append(windows.flows.select("source", "replaces"))
            self._count(str(name), part, pl.concat(kept), windower.delayed - delayed)
        return documents

    def _alerts(self, windows: BatchWindows, folder: Folder, ingested: datetime | None) -> list[Document]:
        scores = self._scorer.score(windows)
        plan = folder.plan(windows.flows, scores)
        evidence = {row: self._explainer.explain(windows, row, int(scores.label[row])) for row in plan.rows.tolist()}
        outcome = folder.commit(plan, evidence, ingested)
        self.ledger.add(outcome.ledger)
        return outcome.documents

    def finish(self, ingested: datetime | None = None) -> list[Document]:
        """The end of the input: closing documents of all folds still open."""
        documents: list[Document] = []
        for sensor in sorted(self._sensors):
            outcome = self._sensors[sensor][1].finish(ingested)
            documents += outcome.documents
            self.ledger.add(outcome.ledger)
        return documents

    @property
    def left_early(self) -> dict[str, int]:
        """Sensor → flows that left the windows' memory before their time because a limit was reached."""
        return {name: windower.left_early for name, (windower, _) in sorted(self._sensors.items())}

    def _sensor(self, name: str) -> tuple[Windower, Folder]:
        if name not in self._sensors:
            self._sensors[name] = Windower(self._limits), Folder(name, self.facts, self._allow)
        return self._sensors[name]

    def _count(self, sensor: str, flows: pl.DataFrame, kept: pl.DataFrame, delayed: int) -> None:
        """Enters a batch in the ledger: `kept` are the flows that weren't duplicates."""
        for source in flows["source"].unique().sort().to_list():
            counts = self.ledger.of(source or "", sensor)
            rows = int((flows["source"] == source).sum())
            mine = kept.filter(pl.col("source") == source)
            replaced = int(mine["replaces"].sum())
            counts.duplicate += rows - len(mine)
            counts.replaced += replaced
            counts.scored += len(mine) - replaced
        self.ledger.of(flows["source"][0] or "", sensor).delayed += delayed


@dataclass
class Scan:
    """What a scan does beside reading and scoring; every hook may be left as it is."""

    locality: Locality = field(default_factory=Locality)
    spill_dir: Path | None = None
    rejected: Callable[[tuple[Reject, ...]], None] = lambda rejects: None
    watch: Callable[[pl.DataFrame], None] = lambda flows: None
    """sees every batch in order, before it is scored"""
    progress: Callable[[str, int], None] = lambda stage, records: None
    """`read` or `score`, and how many records more"""


def scan(
    reads: Iterable[Read], pipeline: Pipeline, how: Scan, ingested: datetime | None = None
) -> Iterator[list[Document]]:
    """Everything the sources give, in known order, through the pipeline; documents come as they are made.

    Raises:
        InputError: an input could not be read at all, or the disk for sorting is full.
        LedgerError: the ledger doesn't balance, up to the delivery of the documents.
    """
    steps = _counted(reads, pipeline.ledger, how)
    for flows in ordered(steps, batch_rows=BATCH, spill_dir=how.spill_dir, locality=how.locality):
        how.watch(flows)
        yield pipeline.step(flows, ingested)
        how.progress("score", len(flows))
    yield pipeline.finish(ingested)
    pipeline.ledger.notes["local_networks"] = how.locality.describe()
    pipeline.ledger.notes["left_early"] = pipeline.left_early


def _counted(reads: Iterable[Read], ledger: Ledger, how: Scan) -> Iterator[Read]:
    """The reads, entered in the ledger."""
    for step in reads:
        counts = ledger.of(step.source, step.sensor)
        counts.read += step.read
        counts.parsed += step.read - len(step.rejects)
        for reject in step.rejects:
            tally(counts.rejected, reject.reason)
        for reason, count in step.out_of_scope.items():
            tally(counts.out_of_scope, reason, count)
        for note, count in step.notes.items():
            ledger.notes[note] = ledger.notes.get(note, 0) + count
        if step.rejects:
            how.rejected(step.rejects)
        how.progress("read", step.read)
        yield step
