"""The whole sentence: source → features → windows → scoring → explain → alerts → sinks.

`Pipeline` is the same for a capture on a laptop and a live stream: flows in, alert documents out.
`scan` puts the sources and their order before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from ids_plugin import features
from ids_plugin.alerts import AlertGrouper, AllowList, BundleFacts
from ids_plugin.bundle import Bundle
from ids_plugin.engines import Engine, JudgedBatch, SensorEngine
from ids_plugin.engines.detectors import DetectorSensor
from ids_plugin.engines.opening import open_engine
from ids_plugin.errors import CheckpointError
from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Ledger, tally
from ids_plugin.schema.reject import Reject
from ids_plugin.sources import Read
from ids_plugin.sources.facts import FactStore
from ids_plugin.sources.local_networks import Locality
from ids_plugin.sources.ordering import ordered
from ids_plugin.windows.state import BatchWindows, Limits, Windower

BATCH = 16_384
"""Flows a step: larger ones are hardly faster and hold more memory"""


MAX_WARNINGS = 100
"""Warnings of a scan that its ledger holds."""

SHARE_DIGITS = 3


class Pipeline:
    """Flows in the order in which they were known → alert documents.

    One bundle, any number of sensors.
    """

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
        self.ledger = Ledger()
        self._allow, self._limits, self._cascade = allow, limits, cascade
        self._sensors: dict[str, tuple[SensorEngine, AlertGrouper]] = {}
        self.swap(bundle)

    def swap(self, bundle: Bundle) -> None:
        """Another bundle from the next batch on; what is remembered of sensors and open groups
        stay.

        Raises:
            BundleError: it doesn't load, or was made for other windows; the one before stays.
        """
        self._engine = open_engine(bundle, cascade=self._cascade, limits=self._limits)
        self.bundle = bundle
        self.facts = BundleFacts(bundle.id, bundle.family, bundle.version)
        for name, (sensor, grouper) in self._sensors.items():
            grouper.bundle = self.facts
            self._sensors[name] = self._engine.sensor(sensor), grouper

    def step(self, flows: pl.DataFrame, ingested: datetime | None = None) -> list[Document]:
        """Documents that a batch of flows opens and closes: a Flow frame with local flags filled.

        `ingested` is the wall clock that documents carry as `event.ingested`; left out when None.
        """
        documents: list[Document] = []
        for name, part in _by_sensor(flows):
            sensor, grouper = self._sensor(name)
            delayed, scored_flows = sensor.delayed, []
            for judged in sensor.step(part):
                documents += self._alerts(judged, grouper, ingested)
                scored_flows.append(judged.flows[["source", "replaces"]])
            self._count(name, part, pl.concat(scored_flows), sensor.delayed - delayed)
        return documents

    def _alerts(
        self, judged: JudgedBatch, grouper: AlertGrouper, ingested: datetime | None
    ) -> list[Document]:
        plan = grouper.plan(judged.flows, judged.scores)
        evidence = {row: judged.explain(row) for row in plan.rows.tolist()}
        outcome = grouper.commit(plan, evidence, ingested)
        self.ledger.add(outcome.ledger)
        return outcome.documents

    def finish(self, ingested: datetime | None = None) -> list[Document]:
        """The end of the input: closing documents of all groups still open."""
        documents: list[Document] = []
        for sensor in sorted(self._sensors):
            documents += self._close(sensor, ingested)
        return documents

    def end(self, sensor: str, ingested: datetime | None = None) -> list[Document]:
        """The end of one sensor's input: closing documents of its groups; then it is as if it had
        never been seen."""
        documents = self._close(sensor, ingested)
        self.forget([sensor])
        return documents

    def forget(self, sensors: Iterable[str]) -> None:
        """Drops windows and groups of these sensors; nothing is closed."""
        for sensor in sensors:
            self._sensors.pop(sensor, None)

    def state(self, sensors: Iterable[str]) -> dict[str, Any]:
        """Windows and open groups of these sensors, as `checkpoint.dump` takes them; write it
        before the next batch."""
        known = {name: self._sensors[name] for name in sorted(sensors) if name in self._sensors}
        return {
            name: {"windows": sensor.state(), "folds": grouper.state()}
            for name, (sensor, grouper) in known.items()
        }

    def restore(self, state: Mapping[str, Any]) -> list[str]:
        """Takes up the sensors of a `state`, in place of what is known of them.

        Windows in the form of another version begin anew, open groups go on. Returns the sensors
        whose windows began anew.
        """
        self.forget(state)
        restarted = []
        for name, saved in state.items():
            sensor, grouper = self._sensor(name)
            grouper.restore(saved["folds"])
            try:
                sensor.restore(saved["windows"])
            except CheckpointError:
                restarted.append(name)
        return restarted

    @property
    def pairs(self) -> int:
        """Pairs of hosts whose windows are kept."""
        return sum(sensor.pairs for sensor, _ in self._sensors.values())

    @property
    def left_early(self) -> dict[str, int]:
        """Sensor → flows that left the windows' memory before their time because a limit was
        reached."""
        return {name: sensor.left_early for name, (sensor, _) in sorted(self._sensors.items())}

    @property
    def outside_training_range(self) -> dict[str, dict[str, float]]:
        """Detector → feature → share of the values of all sensors that lie outside of what benign
        training traffic shows (5th to 95th percentile; about 0.1 where traffic is alike)."""
        outside: dict[str, Counter[str]] = {}
        known: dict[str, Counter[str]] = {}
        for sensor, _ in self._sensors.values():
            counts = sensor.drift() if isinstance(sensor, DetectorSensor) else {}
            for detector, by_feature in counts.items():
                for feature, (values_outside, values) in by_feature.items():
                    outside.setdefault(detector, Counter())[feature] += values_outside
                    known.setdefault(detector, Counter())[feature] += values
        return {
            detector: {
                feature: round(outside[detector][feature] / values, SHARE_DIGITS)
                for feature, values in sorted(by_feature.items())
            }
            for detector, by_feature in known.items()
        }

    def _close(self, sensor: str, ingested: datetime | None) -> list[Document]:
        outcome = self._sensor(sensor)[1].finish(ingested)
        self.ledger.add(outcome.ledger)
        return outcome.documents

    def _sensor(self, name: str) -> tuple[SensorEngine, AlertGrouper]:
        if name not in self._sensors:
            self._sensors[name] = (
                self._engine.sensor(),
                AlertGrouper(name, self.facts, self._allow),
            )
        return self._sensors[name]

    def _count(
        self, sensor: str, flows: pl.DataFrame, scored_flows: pl.DataFrame, delayed: int
    ) -> None:
        """Enters a batch in the ledger: `scored_flows` are those that weren't duplicates."""
        for source in dict.fromkeys(flows["source"].to_list()):
            counts = self.ledger.of(source or "", sensor)
            of_source = scored_flows["source"] == source
            replaced = int((scored_flows["replaces"] & of_source).sum())
            counts.duplicate += int((flows["source"] == source).sum()) - int(of_source.sum())
            counts.replaced += replaced
            counts.scored += int(of_source.sum()) - replaced
        self.ledger.of(flows["source"][0] or "", sensor).delayed += delayed


def _by_sensor(flows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """The flows of each sensor, in their order; nothing is copied where there is but one."""
    names = flows["sensor"]
    if len(flows) and (names == names[0]).all():
        yield str(names[0]), flows
        return
    for (name,), part in flows.partition_by("sensor", as_dict=True, maintain_order=True).items():
        yield str(name), part


@dataclass
class Scan:
    """What a scan does beside reading and scoring; every hook may be left as it is."""

    locality: Locality = field(default_factory=Locality)
    facts: FactStore = field(default_factory=FactStore)
    spill_dir: Path | None = None
    rejected: Callable[[tuple[Reject, ...]], None] = lambda rejects: None
    warned: Callable[[tuple[Reject, ...]], None] = lambda warnings: None
    watch: Callable[[pl.DataFrame], None] = lambda flows: None
    """sees every batch in order, before it is scored"""
    progress: Callable[[str, int], None] = lambda stage, records: None
    """`read` or `score`, and how many records more"""


def scan(
    reads: Iterable[Read], pipeline: Pipeline, how: Scan, ingested: datetime | None = None
) -> Iterator[list[Document]]:
    """Everything the sources give, in known order, through the pipeline; documents come as they are
    made.

    Raises:
        InputError: an input could not be read at all, or the disk for sorting is full.
        LedgerError: the ledger doesn't balance, up to the delivery of the documents.
    """
    steps = _counted(reads, pipeline.ledger, how)
    batches = ordered(
        steps, batch_rows=BATCH, spill_dir=how.spill_dir, locality=how.locality, facts=how.facts
    )
    for flows in batches:
        how.watch(flows)
        yield pipeline.step(flows, ingested)
        how.progress("score", len(flows))
    yield pipeline.finish(ingested)
    pipeline.ledger.notes["local_networks"] = how.locality.describe()
    pipeline.ledger.notes["left_early"] = pipeline.left_early
    if shares := pipeline.outside_training_range:
        pipeline.ledger.notes["outside_training_range"] = shares
    if how.facts.left_early:
        pipeline.ledger.notes["facts_left_early"] = how.facts.left_early


def _counted(reads: Iterable[Read], ledger: Ledger, how: Scan) -> Iterator[Read]:
    """The reads, entered in the ledger."""
    for step in reads:
        for sensor, rows in step.flows["sensor"].value_counts().iter_rows():
            counts = ledger.of(step.source, sensor)
            counts.read += rows
            counts.parsed += rows
        if not 0 < step.flows.height == step.read:
            counts = ledger.of(step.source, step.sensor)
            counts.read += step.read - step.flows.height
            counts.parsed += step.read - step.flows.height - len(step.rejects)
        for reject in step.rejects:
            tally(counts.rejected, reject.reason)
        for reason, count in step.out_of_scope.items():
            tally(counts.out_of_scope, reason, count)
        for note, count in step.notes.items():
            ledger.notes[note] = ledger.notes.get(note, 0) + count
        if step.rejects:
            how.rejected(step.rejects)
        if step.warnings:
            _note_warnings(ledger, step.warnings)
            how.warned(step.warnings)
        how.progress("read", step.read)
        yield step


def _note_warnings(ledger: Ledger, warnings: tuple[Reject, ...]) -> None:
    """The first warnings stand in the ledger's notes as they are shown."""
    texts: list[str] = ledger.notes.setdefault("warnings", [])
    texts += [
        f"{warning.input}, {warning.place}: {warning.detail}"
        for warning in warnings[: MAX_WARNINGS - len(texts)]
    ]


def judged(batches: Iterable[pl.DataFrame], engine: Engine) -> Iterator[tuple[str, JudgedBatch]]:
    """(sensor, what the engine makes of its flows) batch by batch, as `Pipeline.step` does it.

    Each is valid until the next is asked for. `batches`: Flow frames with local flags filled, in
    the order in which flows were known.
    """
    sensors: dict[str, SensorEngine] = {}
    for batch in batches:
        for name, part in _by_sensor(batch):
            if name not in sensors:
                sensors[name] = engine.sensor()
            for judged_batch in sensors[name].step(part):
                yield name, judged_batch


def windowed(batches: Iterable[pl.DataFrame]) -> Iterator[tuple[str, BatchWindows]]:
    """(sensor, windows) batch by batch, as a bundle whose members score windows sees them.

    Each is valid until the next is asked for. `batches`: Flow frames with local flags filled, in
    the order in which flows were known.
    """
    windowers: dict[str, Windower] = {}
    for batch in batches:
        for sensor, part in _by_sensor(batch):
            windower = windowers.setdefault(sensor, Windower())
            for windows in windower.step(features.add(part)):
                yield sensor, windows
