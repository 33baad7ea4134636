"""The process of `ids-consumer deliver`: alerts and the ledger → Elasticsearch, each document once.

While Elasticsearch can't take documents the process waits, keeps its offsets, and pauses the
partitions of the topics concerned (backpressure).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import orjson
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from ids_plugin import kafka
from ids_plugin.elastic.streams import ALERTS, LEDGER
from ids_plugin.schema.alert import happened
from ids_plugin.sinks import Delivered, Refusal, RetryAfter
from ids_plugin.sinks.elasticsearch import Elasticsearch
from ids_plugin.sinks.ledger_documents import documents, settled

from .runtime.service import Service, StopRequested
from .stream.side_records import ledger_record, reject_record
from .stream.transactions import (
    ProducerRecord,
    TransactionalLoop,
    next_offsets,
    require_topics,
    run_until_stopped,
)

T = TypeVar("T")
STAGE = "deliver"
POLL_TIMEOUT_MS = 200
"""How long a poll waits for records: alerts are few, and a retry may be due."""
STOP_GRACE_S = 5.0
"""How long a request may go on after a stop was requested. What it still writes is recognised by
its id later."""
CHECK_INTERVAL_S = 5.0
"""Time between two checks of a sink that has a problem while there is nothing to write."""
JOIN_INTERVAL_S = 0.2
"""How often a waiting thread sends a heartbeat and looks for a stop request."""
MAX_SHOWN_BYTES = 500
"""Bytes of a refused record that its reject shows as text."""


class RecordDocument(NamedTuple):
    """A document, and the record (kafka-python's ConsumerRecord) that it was made from."""

    record: Any
    document: Any
    """None where the record holds no document, which the sink refuses"""


class Route:
    """A topic's way to its data stream, with the records that aren't delivered yet.

    No route waits for another.
    """

    def __init__(
        self,
        sink: Elasticsearch,
        parse: Callable[[Any], Iterable[Any]],
        is_counted: bool,
    ) -> None:
        self.sink, self.parse = sink, parse
        self.is_counted = is_counted
        """its documents are entered in the ledger"""
        self.pending: dict[TopicPartition, list[Any]] = {}
        self.blocked_reason = ""
        """why nothing can be written at the moment"""
        self.retry_at = 0.0
        """when the next attempt is due, by the monotonic clock"""


class DeliverConsumer:
    """Reads documents, writes them to Elasticsearch, and commits what became of them."""

    def __init__(self, service: Service) -> None:
        self._service, self._config = service, service.config
        self._instance = kafka.instance(self._config.deliver.instance)
        elastic, topics = self._config.elasticsearch, self._config.topics
        self._routes = {
            topics.alerts: Route(Elasticsearch(elastic, ALERTS), _alert, is_counted=True),
            topics.ledger: Route(
                Elasticsearch(elastic, LEDGER), _ledger_documents, is_counted=False
            ),
        }

    def run(self) -> None:
        """Works until a stop is requested.

        Raises:
            UsageError: another process has our name.
        """
        for route in self._routes.values():
            self._check_sink(route)
        run_until_stopped(self._service, self._connect, self._consume)

    def _connect(self) -> TransactionalLoop:
        """
        Raises:
            ServiceError: the broker does not answer, or topics are missing.
        """
        settings = self._config.deliver
        loop = TransactionalLoop(self._service, settings.group, settings.instance)
        self._discard_pending()
        loop.on_reassigned = self._discard_pending
        try:
            with kafka.reaching(self._config):
                needed = {*self._routes, self._config.topics.rejects}
                require_topics(loop.consumer.topics(), needed)
                loop.consumer.subscribe(list(self._routes))
        except BaseException:
            loop.close()
            raise
        return loop

    def _consume(self, loop: TransactionalLoop) -> None:
        """Works until a stop is requested.

        Raises:
            TransactionAborted: what was read last was not committed.
        """
        while not self._service.is_stopping:
            self._advance(loop)
        loop.leave_group()

    def _discard_pending(self) -> None:
        for route in self._routes.values():
            route.pending = {}

    def _advance(self, loop: TransactionalLoop) -> None:
        """One step: poll, then write and commit each route whose attempt is due."""
        self._service.heartbeat()
        self._apply_backpressure(loop)
        batches = loop.poll(POLL_TIMEOUT_MS, self._config.deliver.batch)
        for partition, records in batches.items():
            self._routes[partition.topic].pending.setdefault(partition, []).extend(records)
        for route in self._routes.values():
            if time.monotonic() < route.retry_at:
                continue
            if route.pending:
                with self._service.timed():
                    self._deliver(loop, route)
            elif route.blocked_reason:
                self._check_sink(route)
        reasons = [route.blocked_reason for route in self._routes.values() if route.blocked_reason]
        if reasons:
            self._service.mark_unready("; ".join(reasons))
        else:
            self._service.mark_ready()

    def _apply_backpressure(self, loop: TransactionalLoop) -> None:
        """Pauses the partitions of routes that have pending records, and resumes the others.

        Polling for the other routes keeps the process in the group meanwhile.
        """
        consumer, lags = loop.consumer, {}
        for partition in consumer.assignment():
            # a partition may be revoked at any moment
            with contextlib.suppress(KeyError, KafkaError):
                pending = self._routes[partition.topic].pending
                if pending:
                    consumer.pause(partition)
                else:
                    consumer.resume(partition)
                lag = _lag(consumer, partition, len(pending.get(partition, ())))
                if lag is not None:
                    lags[partition.topic, partition.partition] = lag
        self._service.metrics.set_lags(lags)

    def _check_sink(self, route: Route) -> None:
        """Finds out whether something could be written."""
        route.blocked_reason = self._run_until_stopped(route.sink.problem) or ""
        route.retry_at = time.monotonic() + CHECK_INTERVAL_S if route.blocked_reason else 0.0

    def _deliver(self, loop: TransactionalLoop, route: Route) -> None:
        """Writes all pending documents of a route, or none.

        The order of the steps:

        1. The documents are written to Elasticsearch, each under its own id.
        2. If Elasticsearch asks to wait, nothing is committed; the records stay pending, and the
           attempt is repeated when it is due.
        3. Otherwise one transaction takes the rejects of refused documents, the increment of the
           ledger, and then the offsets. After an error in between the documents are written again,
           and Elasticsearch recognises them by their ids.

        Raises:
            TransactionAborted, StopRequested: nothing was committed.
        """
        pending = [
            RecordDocument(record, document)
            for records in route.pending.values()
            for record in records
            for document in route.parse(record)
        ]
        contents, now = [item.document for item in pending], datetime.now(UTC)
        oldest_ms = min((item.record.timestamp for item in pending), default=0)
        answer = self._run_until_stopped(lambda: route.sink.write(contents, oldest_ms, now))
        if isinstance(answer, RetryAfter):
            route.blocked_reason = answer.reason
            route.retry_at = time.monotonic() + answer.seconds
            return
        route.blocked_reason = ""
        acknowledged = time.time()
        records = [
            self._reject_record(pending[refusal.position].record, refusal)
            for refusal in answer.refusals
        ]
        if route.is_counted:
            records.append(self._ledger_record(pending, answer, acknowledged))
        loop.commit(records, next_offsets(route.pending))
        route.pending = {}
        if route.is_counted:
            self._update_metrics(pending, answer, acknowledged)

    def _ledger_record(
        self, delivered: Sequence[RecordDocument], answer: Delivered, now: float
    ) -> ProducerRecord:
        """What became of alerts, for the ledger."""
        sources = [_header(item.record, "source") for item in delivered]
        ledger = settled([item.document for item in delivered], sources, answer)
        topic = self._config.topics.ledger
        return ledger_record(topic, STAGE, self._instance, int(now * 1000), ledger)

    def _update_metrics(
        self, delivered: Sequence[RecordDocument], answer: Delivered, now: float
    ) -> None:
        metrics = self._service.metrics
        metrics.records.labels(STAGE, "delivered").inc(answer.documents)
        for reason, count in answer.refused.items():
            metrics.records.labels(STAGE, "refused").inc(count)
            metrics.rejects.labels(reason).inc(count)
        for item in delivered:
            metrics.record_delay.observe(max(0.0, now - item.record.timestamp / 1000))
            event_time = happened(item.document)
            if event_time is not None:
                metrics.event_delay.observe(max(0.0, now - event_time))

    def _reject_record(self, record: Any, refusal: Refusal) -> ProducerRecord:
        """The reject of a record that Elasticsearch will never take."""
        value = record.value or b""
        return reject_record(
            self._config.topics.rejects,
            source_topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=refusal.reason,
            detail=refusal.detail,
            shown=value[:MAX_SHOWN_BYTES].decode(errors="replace"),
            sensor=_header(record, "sensor"),
            data=value,
        )

    def _run_until_stopped(self, request: Callable[[], T]) -> T:
        """The result of a request, which runs in a thread: it may take longer than a stop allows.

        Raises:
            StopRequested: a stop was requested, and the request didn't end within STOP_GRACE_S.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(request())
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True, name="elasticsearch")
        stop_seen = 0.0
        thread.start()
        thread.join(JOIN_INTERVAL_S)
        while thread.is_alive():
            self._service.heartbeat()
            if self._service.is_stopping and not stop_seen:
                stop_seen = time.monotonic()
            if stop_seen and time.monotonic() - stop_seen > STOP_GRACE_S:
                raise StopRequested
            thread.join(JOIN_INTERVAL_S)
        if errors:
            raise errors[0]
        return results[0]


def _lag(consumer: KafkaConsumer, partition: TopicPartition, pending: int) -> int | None:
    """Records that aren't read yet, and those that are pending; None where the broker hasn't said
    yet where the partition ends."""
    end = consumer.highwater(partition)
    position = None if end is None else consumer.position(partition, timeout_ms=0)
    return None if position is None else max(0, end - position) + pending


def _alert(record: Any) -> Iterable[Any]:
    """The document of a record; None where it holds none, which the sink refuses."""
    try:
        return [orjson.loads(record.value or b"")]
    except orjson.JSONDecodeError:
        return [None]


def _ledger_documents(record: Any) -> Iterable[Any]:
    """The documents of an increment of the ledger; None where it is none, which the sink
    refuses."""
    place = f"{record.topic}/{record.partition}/{record.offset}"
    try:
        return documents(orjson.loads(record.value or b""), place)
    except (AttributeError, KeyError, TypeError, ValueError):
        return [None]


def _header(record: Any, name: str) -> str:
    for key, value in record.headers:
        if key == name and value:
            return str(value.decode(errors="replace"))
    return ""
