"""The process of `ids-consumer detect`: flows → windows → scores → alerts, exactly once.

It stores checkpoints of its state, so that after a restart or a rebalance the alerts are those of a
process that never stopped.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from kafka import TopicPartition
from kafka.producer.future import RecordMetadata
from kafka.structs import OffsetAndMetadata

from ids_plugin import checkpoint, kafka
from ids_plugin.bundle import Bundle
from ids_plugin.errors import BundleError, ServiceError
from ids_plugin.schema.alert import SEVERITIES, Document
from ids_plugin.schema.ledger import Ledger

from .runtime.bundles import BundleWatcher
from .runtime.service import Service, StopRequested
from .stream.checkpoints import CheckpointPointer, PendingCheckpoint, RevokeListener, recover
from .stream.detector import Detector, UnreadableRecord
from .stream.side_records import ledger_record, reject_record
from .stream.transactions import (
    Offsets,
    ProducerRecord,
    TransactionAborted,
    TransactionalLoop,
    require_topics,
    run_until_stopped,
)

STAGE = "detect"
LEDGER_OUTCOMES = (
    "scored",
    "duplicate",
    "replaced",
    "delayed",
    "over_threshold",
    "opened",
    "folded",
    "suppressed",
    "documents",
)
"""Counters of the ledger that are metrics too."""
GATHER_TIME_S = 0.2
"""Flows are gathered for so long before they are scored together: small batches cost most."""
MAX_POLL_RECORDS = 20
"""Records a poll: each of a busy sensor holds thousands of flows."""
TARGET_STEP_S = 1.0
"""Scoring between two commits, about: so much is repeated after `kill -9`."""
MIN_STEP_FLOWS = 1_000
"""Flows between two commits at least: smaller steps pay more for transactions than for scoring."""
MAX_STEP_FLOWS = 65_536
"""Flows between two commits at most: this bounds memory, and what is repeated after a crash."""
REVOKE_BUDGET_S = 4.0
"""Time for checkpoints before partitions are revoked, or the process ends: a member that is silent
for longer loses its place in the group."""
IDLE_COMMIT_INTERVAL_S = 1.0
"""Time between two commits while no flows come."""
COMMITTED_OFFSET_TIMEOUT_MS = 10_000
"""How long the broker may take to return a committed offset and its metadata."""
FETCH_OPTIONS = {
    "fetch_max_wait_ms": 100,
    "fetch_max_bytes": 16 << 20,
    "max_partition_fetch_bytes": 4 << 20,
}


@dataclass
class PartitionProgress:
    """How far a partition of ids.flows is processed."""

    next_offset: int
    """offset of the record that comes next"""
    committed_offset: int
    checkpoint: CheckpointPointer
    """the last checkpoint"""
    checkpoint_due: float
    """when the next one is due, by the monotonic clock"""

    @property
    def is_ahead_of_checkpoint(self) -> bool:
        """Records were processed since the last checkpoint."""
        return self.next_offset > self.checkpoint.offset


class DetectConsumer:
    """Reads flows; writes alerts, counts, and checkpoints of its state."""

    def __init__(self, service: Service) -> None:
        """
        Raises:
            ConfigError, BundleError: the configuration or the bundle can't be used.
        """
        self._service, self._config = service, service.config
        self._instance = kafka.instance(self._config.detect.instance)
        self._bundles = BundleWatcher(self._config, service.warn)
        self._detector = Detector(self._config, self._bundles.current)
        self._progress: dict[int, PartitionProgress] = {}
        """number of an assigned partition → its progress"""
        self._is_reassigned = False
        """partitions were assigned anew since the last poll"""
        self._committed_at = 0.0
        """when the last transaction was committed, by the monotonic clock"""
        self._step_flows = MIN_STEP_FLOWS
        """flows between two commits: as many as were scored in TARGET_STEP_S lately"""

    def run(self) -> None:
        """Works until a stop is requested.

        Raises:
            UsageError: another process has our name.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, lambda *_: self._bundles.expire())
        self._service.info(self._detector.local_rule.describe("detect.local_nets"))
        self._use_bundle(self._bundles.current)
        run_until_stopped(self._service, self._connect, self._consume)

    def _connect(self) -> TransactionalLoop:
        """
        Raises:
            ServiceError: the broker does not answer, or topics are missing.
        """
        settings, topics = self._config.detect, self._config.topics
        loop = TransactionalLoop(self._service, settings.group, settings.instance, **FETCH_OPTIONS)
        loop.on_reassigned = self._on_reassigned
        listener = RevokeListener(lambda: self._commit_before_revoke(loop))
        needed = {topics.flows, topics.alerts, topics.rejects, topics.ledger, topics.state}
        try:
            with kafka.reaching(self._config):
                require_topics(loop.consumer.topics(), needed)
                loop.consumer.subscribe([topics.flows], listener=listener)
        except BaseException:
            loop.close()
            raise
        return loop

    def _consume(self, loop: TransactionalLoop) -> None:
        """Works until a stop is requested; afterwards no state is left.

        Raises:
            TransactionAborted: what was read last was not committed, or a service doesn't answer.
        """
        try:
            while not self._service.is_stopping:
                self._advance(loop)
            self._commit_before_revoke(loop)
            loop.leave_group()
        except ServiceError as error:
            raise TransactionAborted(str(error)) from error
        finally:
            self._detector.clear()
            self._progress = {}

    def _on_reassigned(self) -> None:
        """What isn't committed is read again, by us or by others."""
        self._detector.discard_pending()
        self._is_reassigned = True

    def _advance(self, loop: TransactionalLoop) -> None:
        """One step: poll, score, commit."""
        self._service.heartbeat()
        self._swap_bundle(loop)
        self._poll(loop)
        is_due = time.monotonic() - self._committed_at >= IDLE_COMMIT_INTERVAL_S
        if self._detector.ready_flows or is_due:
            self._commit(loop, self._due_checkpoint())
            self._update_lags(loop)

    def _poll(self, loop: TransactionalLoop) -> None:
        """Takes flows for GATHER_TIME_S; commits whenever there are enough for a step."""
        end = time.monotonic() + GATHER_TIME_S
        while (left := end - time.monotonic()) > 0 and not self._service.is_stopping:
            batches = loop.poll(int(left * 1000) + 1, MAX_POLL_RECORDS)
            if self._is_reassigned:
                self._adopt_partitions(loop)
            for partition, records in batches.items():
                progress = self._progress[partition.partition]
                for record in records:
                    if record.offset < progress.next_offset:
                        continue
                    self._detector.add(record)
                    progress.next_offset = record.offset + 1
                    if self._detector.ready_flows >= self._step_flows:
                        self._commit(loop)

    def _swap_bundle(self, loop: TransactionalLoop) -> None:
        """Scores with another bundle from here on, where there is one.

        Every partition gets a checkpoint, since flows from here on must be scored with the new
        bundle after a restart too.
        """
        bundle = self._bundles.poll()
        if bundle is None:
            return
        self._commit(loop)
        try:
            self._detector.pipeline.swap(bundle)
        except BundleError as error:
            self._bundles.refuse(error)
            return
        self._use_bundle(bundle)
        for number in self._progress:
            self._commit(loop, number)

    def _use_bundle(self, bundle: Bundle) -> None:
        previous, self._bundles.current = self._bundles.current, bundle
        info = self._service.metrics.bundle
        info.labels(previous.id, previous.family).set(0)
        info.labels(bundle.id, bundle.family).set(1)
        self._service.info(f"bundle {bundle.id[:12]} judges", **{"ids_plugin.bundle.id": bundle.id})

    def _adopt_partitions(self, loop: TransactionalLoop) -> None:
        """Drops the state of revoked partitions, and recovers that of newly assigned ones.

        Raises:
            ServiceError: the broker does not answer.
        """
        self._is_reassigned = False
        assigned = loop.consumer.assignment()
        for number in self._progress.keys() - {partition.partition for partition in assigned}:
            self._detector.forget(number)
            del self._progress[number]
        for partition in sorted(assigned):
            with kafka.reaching(self._config):
                committed = loop.consumer.committed(
                    partition, metadata=True, timeout_ms=COMMITTED_OFFSET_TIMEOUT_MS
                )
                known = self._progress.get(partition.partition)
                if known is None or committed is None or known.next_offset != committed.offset:
                    progress = self._recover_partition(loop, partition, committed)
                    self._progress[partition.partition] = progress
                    self._commit(loop, self._due_checkpoint())

    def _recover_partition(
        self, loop: TransactionalLoop, partition: TopicPartition, committed: Any
    ) -> PartitionProgress:
        """Brings the state of a partition to its committed offset.

        Raises:
            StopRequested: a stop was requested before that.
        """
        if committed:
            offset = committed.offset
        else:
            offset = int(loop.consumer.beginning_offsets([partition])[partition])
        current = self._bundles.current.id
        pointer = CheckpointPointer.parse(committed.metadata if committed else "")
        pointer = pointer or CheckpointPointer(0, current)
        began = time.monotonic()
        with self._scoring_with(pointer.bundle):
            for warning in recover(self._detector, self._config, partition, pointer, offset):
                self._service.heartbeat()
                if warning:
                    self._service.warn(warning)
                if self._service.is_stopping:
                    raise StopRequested
        self._detector.discard_pending()
        seconds = time.monotonic() - began
        self._service.info(
            f"{partition.topic}/{partition.partition} is ours from offset {offset} on",
            seconds=round(seconds, 3),
            checkpoint=pointer.offset if pointer.pieces else None,
        )
        is_urgent = seconds > TARGET_STEP_S or pointer.bundle != current
        pause = 0 if is_urgent else self._config.detect.snapshot_seconds
        return PartitionProgress(offset, offset, pointer, time.monotonic() + pause)

    @contextlib.contextmanager
    def _scoring_with(self, bundle_id: str) -> Iterator[None]:
        """Scores with the bundle that scored the flows when they were read first, if we have it."""
        current, configured = self._bundles.current, self._bundles.configured
        has_to_swap = bundle_id == configured.id != current.id
        if has_to_swap:
            self._detector.pipeline.swap(configured)
        elif bundle_id != current.id:
            self._service.warn(
                f"bundle {bundle_id[:12]}, which judged before, isn't there any more"
            )
        try:
            yield
        finally:
            if has_to_swap:
                self._detector.pipeline.swap(current)

    def _commit_before_revoke(self, loop: TransactionalLoop) -> None:
        """Commits what was processed, and the checkpoints that REVOKE_BUDGET_S allows: the next
        owner of the partitions begins there.

        Raises:
            TransactionAborted: the rest wasn't committed.
        """
        end = time.monotonic() + REVOKE_BUDGET_S
        self._commit(loop)
        ahead = [number for number, it in self._progress.items() if it.is_ahead_of_checkpoint]
        for number in ahead:
            if time.monotonic() < end:
                self._commit(loop, number)

    def _due_checkpoint(self) -> int | None:
        """The partition whose checkpoint is most overdue; None where none is due."""
        due = {
            number: progress.checkpoint_due
            for number, progress in self._progress.items()
            if progress.is_ahead_of_checkpoint
        }
        first = min(due, key=lambda number: due[number], default=None)
        return None if first is None or due[first] > time.monotonic() else first

    def _commit(self, loop: TransactionalLoop, checkpointed: int | None = None) -> None:
        """Scores what was read and commits what came of it.

        The order of the steps:

        1. The released flows are scored; this makes the alerts and the increment of the ledger.
        2. Where a partition is to be `checkpointed`, its state is written to `ids.state`; of a
           large state, the first pieces go out in transactions of their own. They change nothing,
           because no offset points to them yet.
        3. One transaction takes the last pieces, the alerts, the rejects and the ledger, and then
           the offsets of all partitions (`TransactionalLoop.commit`).
        4. Only then are the progress, the metrics and the list of unreadable records updated. An
           error in any step before leads to a new loop, which begins at the committed offsets.

        Raises:
            TransactionAborted: nothing of it was committed.
        """
        is_unchanged = all(
            progress.next_offset == progress.committed_offset
            for progress in self._progress.values()
        )
        if checkpointed is None and is_unchanged:
            return
        with self._service.timed():
            now = datetime.now(UTC)
            documents, ledger = self._score(now)
            records = list(self._output_records(documents, ledger, now))
            if checkpointed is None:
                loop.commit(records, self._offsets())
            else:
                self._commit_with_checkpoint(loop, checkpointed, records)
                self._service.metrics.checkpoint_time.labels(checkpointed).set(now.timestamp())
        self._committed_at = time.monotonic()
        self._detector.unreadable.clear()
        for progress in self._progress.values():
            progress.committed_offset = progress.next_offset
        self._update_metrics(documents, ledger)

    def _commit_with_checkpoint(
        self, loop: TransactionalLoop, number: int, records: Sequence[ProducerRecord]
    ) -> None:
        """Commits with the state of a partition and a pointer to it: steps 2 and 3 of `_commit`.

        Raises:
            TransactionAborted: nothing of it was committed.
        """
        topic, progress = self._config.topics.state, self._progress[number]
        partition = number % len(loop.producer.partitions_for(topic))
        pending = PendingCheckpoint.build(
            CheckpointPointer(progress.next_offset, self._bundles.current.id, partition),
            progress.checkpoint,
            topic,
            number,
            checkpoint.dump(self._detector.state(number)),
        )
        pending.send_excess(loop)

        def offsets_after_send(sent: Sequence[RecordMetadata]) -> Offsets:
            progress.checkpoint = pending.final_pointer(sent)
            progress.checkpoint_due = time.monotonic() + self._config.detect.snapshot_seconds
            return self._offsets()

        loop.commit([*pending.unsent, *records], offsets_after_send)

    def _score(self, now: datetime) -> tuple[list[Document], Ledger]:
        """Documents and counts of the flows that were released."""
        self._service.heartbeat()
        flows, began = self._detector.ready_flows, time.monotonic()
        documents, ledger = self._detector.step(now), self._detector.take_ledger()
        if flows >= MIN_STEP_FLOWS:
            in_target_time = round(flows * TARGET_STEP_S / (time.monotonic() - began))
            self._step_flows = max(MIN_STEP_FLOWS, min(MAX_STEP_FLOWS, in_target_time))
        return documents, ledger

    def _offsets(self) -> Offsets:
        """The next offset of every partition, with the pointer to its checkpoint."""
        topic = self._config.topics.flows
        return {
            TopicPartition(topic, number): OffsetAndMetadata(
                progress.next_offset, str(progress.checkpoint), -1
            )
            for number, progress in self._progress.items()
        }

    def _output_records(
        self, documents: list[Document], ledger: Ledger, now: datetime
    ) -> Iterator[ProducerRecord]:
        """Alerts, rejects and an increment of the ledger."""
        topics = self._config.topics
        for document in documents:
            group_id = document["ids_plugin"]["fold"]["id"]
            yield ProducerRecord(topics.alerts, orjson.dumps(document), group_id.encode())
        for unreadable in self._detector.unreadable:
            yield _reject_record(topics.rejects, unreadable)
        if ledger.items():
            now_ms = round(now.timestamp() * 1000)
            yield ledger_record(topics.ledger, STAGE, self._instance, now_ms, ledger)

    def _update_metrics(self, documents: list[Document], ledger: Ledger) -> None:
        metrics, total = self._service.metrics, ledger.total
        for outcome in LEDGER_OUTCOMES:
            metrics.records.labels(STAGE, outcome).inc(total.value(outcome))
        severity_names = {number: name for name, number in SEVERITIES.items()}
        for document in documents:
            event, bundle = document["event"], document["ids_plugin"]["bundle"]
            if event["kind"] == "alert":
                severity = severity_names[event["severity"]]
                metrics.alerts.labels(severity, bundle["family"]).inc()
        metrics.pairs.set(self._detector.pipeline.pairs)

    def _update_lags(self, loop: TransactionalLoop) -> None:
        topic, lags = self._config.topics.flows, {}
        for number, progress in self._progress.items():
            end = loop.consumer.highwater(TopicPartition(topic, number))
            lags[topic, number] = max(0, (end or 0) - progress.next_offset)
        self._service.metrics.set_lags(lags)


def _reject_record(topic: str, unreadable: UnreadableRecord) -> ProducerRecord:
    record = unreadable.record
    return reject_record(
        topic,
        source_topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason="bad_message",
        detail=unreadable.detail,
        shown="",
        sensor="",
        data=record.value or b"",
    )
