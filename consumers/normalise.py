"""The process of `ids-consumer normalise`: sensors' topics → flows by sensor on ids.flows.

It reads records in any envelope and writes flows, rejects and counts, each exactly once, and
watermarks that say how far the source topics are read.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from kafka import TopicPartition

from ids_plugin import kafka
from ids_plugin.config import Config
from ids_plugin.errors import ConfigError, ServiceError
from ids_plugin.schema.ledger import Counts
from ids_plugin.sources.flow_batches import Watermarks, encode, encode_watermarks
from ids_plugin.sources.messages import Fetched, MessageReader, Messages, Rejected

from .runtime.service import Service
from .stream.fetched_columns import count_records, fetch_batches, record_columns
from .stream.side_records import ledger_record, reject_record
from .stream.topics import TopicWatcher, partition_counts
from .stream.transactions import (
    ProducerRecord,
    TransactionalLoop,
    next_offsets,
    require_topics,
    run_until_stopped,
)

STAGE = "normalise"
WATERMARK_INTERVAL_S = 0.25
"""Records without numbers wait for a watermark: a quarter of the reorder buffer's usual second."""
GATHER_TIME_S = 0.1
"""Records are gathered for so long before they are parsed together: small batches cost most."""
END_OFFSETS_TIMEOUT_MS = 2_000
"""How long the broker may take to return the end offsets of the source partitions."""
FETCH_OPTIONS = {
    "fetch_max_wait_ms": 100,
    "fetch_min_bytes": 1 << 16,
    "fetch_max_bytes": 16 << 20,
    "max_partition_fetch_bytes": 4 << 20,
}
LEDGER_OUTCOMES = ("read", "parsed", "rejected", "out_of_scope")
"""Counters of the ledger that are metrics too."""


def source_topics(settings: Config, existing: Iterable[str]) -> set[str]:
    """The topics to read among the `existing` ones; a pattern never matches the pipeline's own.

    Raises:
        ConfigError: nothing is named, or both topics and a pattern.
    """
    topics, pattern = settings.normalise.topics, settings.normalise.pattern
    if bool(topics) == bool(pattern):
        what = "both topics and a pattern" if topics else "neither topics nor a pattern"
        raise ConfigError(f"normalise has {what}", hint='such as topics = ["zeek"]')
    if not pattern:
        return set(topics) & set(existing)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"normalise.pattern is no regular expression: {error}") from error
    own_topics = set(vars(settings.topics).values())
    return {name for name in existing if name not in own_topics and compiled.fullmatch(name)}


class NormaliseConsumer:
    """Reads records; writes flows, rejects, counts and watermarks."""

    def __init__(self, service: Service) -> None:
        self._service, self._config = service, service.config
        self._instance = kafka.instance(self._config.normalise.instance)
        self._reader = MessageReader(self._config.normalise.sensors)
        self._source_partitions: dict[str, int] = {}
        """topic that is read → number of its partitions"""
        self._pending: dict[TopicPartition, list[Any]] = {}
        """records that were fetched and are not committed"""
        self._latest_ms: dict[TopicPartition, int] = {}
        """time of the latest record taken from each partition"""
        self._watermarks_sent_at = 0.0
        """by the monotonic clock"""

    def run(self) -> None:
        """Works until a stop is requested.

        Raises:
            UsageError: another process has our name.
        """
        run_until_stopped(self._service, self._connect, self._consume)

    def _connect(self) -> TransactionalLoop:
        """
        Raises:
            ServiceError: the broker does not answer, or topics are missing.
        """
        settings, own_topics = self._config.normalise, self._config.topics
        existing = partition_counts(self._config)
        require_topics(existing, {own_topics.flows, own_topics.rejects, own_topics.ledger})
        names = sorted(source_topics(self._config, existing))
        self._source_partitions = {name: existing[name] for name in names}
        if not names:
            raise ServiceError(
                f"no topic to read: {settings.pattern or ', '.join(settings.topics)}",
                location="kafka",
                hint="it is read once it is there",
            )
        for topic in sorted(set(settings.topics) - existing.keys()):
            self._service.warn(f"topic {topic} is missing: it is read once it is there")
        loop = TransactionalLoop(self._service, settings.group, settings.instance, **FETCH_OPTIONS)
        self._watermarks_sent_at = 0.0
        self._discard_pending()
        loop.on_reassigned = self._discard_pending
        fetch_batches(loop.consumer)
        loop.consumer.subscribe(topics=names)
        return loop

    def _consume(self, loop: TransactionalLoop) -> None:
        """Works until a stop is requested, or other topics or partitions are to be read.

        Raises:
            TransactionAborted: what was read last was not committed.
        """
        with contextlib.closing(TopicWatcher(self._config)) as watcher:
            while not self._service.is_stopping and not self._is_outdated(watcher.partition_counts):
                self._advance(loop)
            loop.leave_group()

    def _is_outdated(self, existing: dict[str, int]) -> bool:
        """Other topics or partitions are to be read than when the loop began."""
        if not existing:
            return False
        wanted = {name: existing[name] for name in source_topics(self._config, existing)}
        return wanted != self._source_partitions

    def _discard_pending(self) -> None:
        self._pending, self._latest_ms = {}, {}

    def _advance(self, loop: TransactionalLoop) -> None:
        """One step: poll, parse, commit. Nothing is committed where there is nothing to say."""
        self._service.heartbeat()
        self._poll(loop)
        now_ms = time.time_ns() // 1_000_000
        messages = self._parse(now_ms)
        is_due = time.monotonic() - self._watermarks_sent_at >= WATERMARK_INTERVAL_S
        if messages is None and not is_due:
            return
        with self._service.timed():
            records = list(self._output_records(messages, now_ms)) if messages else []
            if is_due:
                records += self._watermark_records(loop, now_ms)
            loop.commit(records, next_offsets(self._pending))
        self._pending = {}
        if messages:
            self._update_metrics(messages, now_ms)

    def _poll(self, loop: TransactionalLoop) -> None:
        """Fetches records for GATHER_TIME_S, or until there are enough for a batch."""
        max_records, end = self._config.normalise.batch, time.monotonic() + GATHER_TIME_S
        while (left := end - time.monotonic()) > 0 and not self._service.is_stopping:
            room = max_records - sum(map(count_records, self._pending.values()))
            if room <= 0:
                return
            for partition, records in loop.poll(int(left * 1000) + 1, room).items():
                self._pending.setdefault(partition, []).extend(records)

    def _parse(self, now_ms: int) -> Messages | None:
        """What the pending records say; None where there are none."""
        if not self._pending:
            return None
        fetched = []
        for partition, records in self._pending.items():
            columns = record_columns(records)
            latest = min(max(columns.times, default=0), now_ms)
            self._latest_ms[partition] = max(self._latest_ms.get(partition, 0), latest)
            fetched.append(
                Fetched(
                    partition.topic,
                    partition.partition,
                    columns.offsets,
                    columns.times,
                    columns.values,
                    columns.headers,
                )
            )
        return self._reader.read(fetched, now_ms)

    def _output_records(self, messages: Messages, now_ms: int) -> Iterator[ProducerRecord]:
        """Flows, rejects and an increment of the ledger."""
        topics = self._config.topics
        for batch in messages.batches:
            for value, headers in encode(batch):
                yield ProducerRecord(topics.flows, value, batch.sensor.encode(), headers)
        for reject in messages.rejects:
            yield _reject_record(topics.rejects, reject)
        further = {"sensor_counts": messages.counters} if messages.counters else None
        yield ledger_record(topics.ledger, STAGE, self._instance, now_ms, messages.ledger, further)

    def _watermark_records(self, loop: TransactionalLoop, now_ms: int) -> list[ProducerRecord]:
        """How far the assigned partitions are read, for every partition of ids.flows.

        Nothing while the broker does not say where the source partitions end.
        """
        self._watermarks_sent_at = time.monotonic()
        consumer = loop.consumer
        assigned = sorted(consumer.assignment())
        ends: dict[TopicPartition, int] = {}
        try:
            with kafka.reaching(self._config):
                if assigned:
                    ends = consumer.end_offsets(assigned, timeout_ms=END_OFFSETS_TIMEOUT_MS)
                flow_partitions = loop.producer.partitions_for(self._config.topics.flows)
        except ServiceError as error:
            self._service.mark_unready(error)
            return []
        read_up_to, lags = {}, {}
        for partition in assigned:
            name = f"{partition.topic}/{partition.partition}"
            lag = ends[partition] - (consumer.position(partition, timeout_ms=0) or 0)
            lags[partition.topic, partition.partition] = max(0, lag)
            if lag <= 0:
                read_up_to[name] = now_ms
            elif partition in self._latest_ms:
                read_up_to[name] = self._latest_ms[partition]
        self._service.metrics.set_lags(lags)
        value, headers = encode_watermarks(Watermarks(now_ms, self._source_partitions, read_up_to))
        return [
            ProducerRecord(self._config.topics.flows, value, None, headers, number)
            for number in sorted(flow_partitions)
        ]

    def _update_metrics(self, messages: Messages, now_ms: int) -> None:
        metrics = self._service.metrics
        total: Counts = messages.ledger.total
        for outcome in LEDGER_OUTCOMES:
            metrics.records.labels(STAGE, outcome).inc(total.value(outcome))
        for reason, count in total.rejected.items():
            metrics.rejects.labels(reason).inc(count)
        for (_, sensor), counts in messages.ledger.items():
            metrics.sensor_read.labels(sensor).inc(counts.read - counts.value("out_of_scope"))
            metrics.sensor_seen.labels(sensor).set(now_ms / 1000)
        for counters in messages.counters:
            labels = [str(counters.get(name, "")) for name in ("sensor", "node", "stream")]
            for what, value in counters.items():
                if isinstance(value, int) and not isinstance(value, bool):
                    metrics.sensor.labels(*labels, what).set(value)


def _reject_record(topic: str, reject: Rejected) -> ProducerRecord:
    return reject_record(
        topic,
        source_topic=reject.topic,
        partition=reject.partition,
        offset=reject.offset,
        reason=reject.reason,
        detail=reject.detail,
        shown=reject.shown,
        sensor=reject.sensor,
        data=reject.data,
    )
