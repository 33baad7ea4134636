"""`ids-consumer deliver`: alerts and the ledger → Elasticsearch, each document once; it waits while it has to."""

from __future__ import annotations

import argparse
import base64
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from ids_plugin import kafka
from ids_plugin.commands import Command, Console
from ids_plugin.errors import ServiceError

from .runtime.service import Service, Stopping, add_options, settings

if TYPE_CHECKING:
    from kafka import KafkaConsumer, TopicPartition

    from ids_plugin.sinks import Delivered, Refusal
    from ids_plugin.sinks.elasticsearch import Elasticsearch

    from .stream.transactions import Outgoing, TransactionalLoop

T = TypeVar("T")
Taken = tuple[Any, Any]
"""a record and the document made of it"""
STAGE = "deliver"
WAIT_MS = 200
GRACE = 5.0
"""Seconds that a request under way is waited for when we are told to stop; what it writes is found there later."""
PAUSE = 5.0
"""Seconds between two looks whether something that was wrong before there was anything to write is put right."""
POLITE = 0.2
"""Seconds after which a thread that waits looks up"""
KEPT, SHOWN = 1 << 16, 500
"""Bytes of a refused record that its reject keeps, and shows"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `deliver`."""
    add_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        ConfigError: the configuration can't be used.
        MissingExtraError: a client isn't installed.
        UsageError: another process has our name.
    """
    config = settings(args, STAGE)
    with Service(STAGE, config) as service:
        Deliver(service).run()
    return 0


class Lane:
    """A topic of ours, the data stream it goes to, and what was read and isn't there yet. No lane waits for another."""

    def __init__(
        self, sink: Elasticsearch, read: Callable[[Any], Iterable[Any]], counted: bool
    ) -> None:
        self.sink, self.read = sink, read
        self.counted = counted
        """its documents are entered in the ledger"""
        self.records: dict[TopicPartition, list[Any]] = {}
        self.reason = ""
        """why nothing can be written now"""
        self.again = 0.0
        """when it is worth trying, by the monotonic clock"""


class Deliver:
    """Takes documents from Kafka, gives them to Elasticsearch, and commits what became of them."""

    def __init__(self, service: Service) -> None:
        from ids_plugin.elastic.streams import ALERTS, LEDGER
        from ids_plugin.sinks.elasticsearch import Elasticsearch

        self._service, self._config = service, service.config
        self._instance = kafka.instance(self._config.deliver.instance)
        elastic, topics = self._config.elasticsearch, self._config.topics
        self._lanes = {
            topics.alerts: Lane(Elasticsearch(elastic, ALERTS), _alert, counted=True),
            topics.ledger: Lane(Elasticsearch(elastic, LEDGER), _increment, counted=False),
        }

    def run(self) -> None:
        """Goes on until told to stop.

        Raises:
            UsageError: another process has our name.
        """
        from .stream.transactions import TransactionAborted

        for lane in self._lanes.values():
            self._look(lane)
        while not self._service.stopping:
            with self._service.patiently(self._connected) as exchange:
                try:
                    while not self._service.stopping:
                        self._turn(exchange)
                    exchange.leave()
                except TransactionAborted as error:
                    self._service.missing(str(error))
                    self._service.wait(0.5)

    def _connected(self) -> TransactionalLoop:
        """
        Raises:
            ServiceError: the broker doesn't answer, or topics of ours are missing.
        """
        from .stream.transactions import TransactionalLoop

        told = self._config.deliver
        exchange = TransactionalLoop(self._service, told.group, told.instance)
        self._forget()
        exchange.forget = self._forget
        with kafka.reaching(self._config):
            missing = sorted(
                {*self._lanes, self._config.topics.rejects} - exchange.consumer.topics()
            )
            exchange.consumer.subscribe(list(self._lanes))
        if missing:
            exchange.close()
            hint = "ids-plugin setup kafka makes them"
            raise ServiceError(
                f"topics are missing: {', '.join(missing)}", location="kafka", hint=hint
            )
        return exchange

    def _forget(self) -> None:
        for lane in self._lanes.values():
            lane.records = {}

    def _turn(self, exchange: TransactionalLoop) -> None:
        self._service.turn()
        self._hold(exchange)
        for partition, records in exchange.poll(WAIT_MS, self._config.deliver.batch).items():
            self._lanes[partition.topic].records.setdefault(partition, []).extend(records)
        for lane in self._lanes.values():
            if time.monotonic() < lane.again:
                continue
            if lane.records:
                with self._service.timed():
                    self._deliver(exchange, lane)
            elif lane.reason:
                self._look(lane)
        if reasons := [lane.reason for lane in self._lanes.values() if lane.reason]:
            self._service.missing("; ".join(reasons))
        else:
            self._service.working()

    def _hold(self, exchange: TransactionalLoop) -> None:
        """A lane that waits takes no more; asking for the others' records keeps us in the group."""
        from kafka.errors import KafkaError

        lags = {}
        for partition in exchange.consumer.assignment():
            with contextlib.suppress(KeyError, KafkaError):  # it may be taken away at any moment
                records = self._lanes[partition.topic].records
                (exchange.consumer.pause if records else exchange.consumer.resume)(partition)
                lag = _lag(exchange.consumer, partition, len(records.get(partition, ())))
                if lag is not None:
                    lags[partition.topic, partition.partition] = lag
        self._service.metrics.behind(lags)

    def _look(self, lane: Lane) -> None:
        """Whether something could be written."""
        lane.reason = self._within(lane.sink.problem) or ""
        lane.again = time.monotonic() + PAUSE if lane.reason else 0.0

    def _deliver(self, exchange: TransactionalLoop, lane: Lane) -> None:
        """All that waits or nothing.

        Raises:
            TransactionAborted, Stopping: nothing of it was committed; what is in Elasticsearch by now will be found there.
        """
        from ids_plugin.sinks import RetryAfter

        taken = [
            (one, made)
            for records in lane.records.values()
            for one in records
            for made in lane.read(one)
        ]
        documents, now = [document for _, document in taken], datetime.now(UTC)
        since = min((record.timestamp for record, _ in taken), default=0)
        answer = self._within(lambda: lane.sink.write(documents, since, now))
        if isinstance(answer, RetryAfter):
            lane.reason, lane.again = answer.reason, time.monotonic() + answer.seconds
            return
        lane.reason = ""
        refused = [self._reject(taken[one.position][0], one) for one in answer.refusals]
        acknowledged = time.time()
        counted = [self._increment(taken, answer, acknowledged)] if lane.counted else []
        exchange.commit([*refused, *counted], _places(lane))
        lane.records = {}
        if lane.counted:
            self._measure(taken, answer, acknowledged)

    def _increment(self, taken: Sequence[Taken], answer: Delivered, now: float) -> Outgoing:
        """What became of alerts, for the ledger."""
        from ids_plugin.sinks.ledger_documents import settled

        from .stream.transactions import Outgoing

        sources = [_header(record, "source") for record, _ in taken]
        ledger = settled([document for _, document in taken], sources, answer).to_dict()
        entry = {
            "stage": STAGE,
            "instance": self._instance,
            "at": int(now * 1000),
            "ledger": ledger,
        }
        return Outgoing(self._config.topics.ledger, orjson.dumps(entry), self._instance.encode())

    def _measure(self, taken: Sequence[Taken], answer: Delivered, now: float) -> None:
        from ids_plugin.schema.alert import happened

        metrics = self._service.metrics
        metrics.records.labels(STAGE, "delivered").inc(answer.documents)
        for reason, count in answer.refused.items():
            metrics.records.labels(STAGE, "refused").inc(count)
            metrics.rejects.labels(reason).inc(count)
        for record, document in taken:
            metrics.record_delay.observe(max(0.0, now - record.timestamp / 1000))
            if (at := happened(document)) is not None:
                metrics.event_delay.observe(max(0.0, now - at))

    def _reject(self, record: Any, refusal: Refusal) -> Outgoing:
        """A record that Elasticsearch will never take, as rejects.ndjson has it, with its place and its bytes."""
        from .stream.transactions import Outgoing

        value = (record.value or b"")[:KEPT]
        told = {
            "input": record.topic,
            "place": f"partition {record.partition} offset {record.offset}",
            "reason": refusal.reason,
            "detail": refusal.detail,
            "data": value[:SHOWN].decode(errors="replace"),
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "sensor": _header(record, "sensor"),
            "bytes": base64.b64encode(value).decode(),
        }
        return Outgoing(self._config.topics.rejects, orjson.dumps(told))

    def _within(self, do: Callable[[], T]) -> T:
        """What `do` gives, in a thread: a request may take longer than we may when told to stop.

        Raises:
            Stopping: we were told to stop and it didn't end within GRACE.
        """
        given: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                given.append(do())
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)

        thread, told = threading.Thread(target=run, daemon=True, name="elasticsearch"), 0.0
        thread.start()
        thread.join(POLITE)
        while thread.is_alive():
            self._service.turn()
            told = told or (time.monotonic() if self._service.stopping else 0.0)
            if told and time.monotonic() - told > GRACE:
                raise Stopping
            thread.join(POLITE)
        if failed:
            raise failed[0]
        return given[0]


def _lag(consumer: KafkaConsumer, partition: TopicPartition, waiting: int) -> int | None:
    """Records not read yet, and those that wait here; None where the broker hasn't said yet."""
    end = consumer.highwater(partition)
    place = None if end is None else consumer.position(partition, timeout_ms=0)
    return None if place is None else max(0, end - place) + waiting


def _places(lane: Lane) -> dict[TopicPartition, Any]:
    from kafka.structs import OffsetAndMetadata

    return {
        partition: OffsetAndMetadata(records[-1].offset + 1, "", records[-1].leader_epoch)
        for partition, records in lane.records.items()
    }


def _alert(record: Any) -> Iterable[Any]:
    """The document; None where it is none, which the sink refuses."""
    try:
        return [orjson.loads(record.value or b"")]
    except orjson.JSONDecodeError:
        return [None]


def _increment(record: Any) -> Iterable[Any]:
    """The documents of an increment of the ledger; None where it is none, which the sink refuses."""
    from ids_plugin.sinks.ledger_documents import documents

    try:
        return documents(
            orjson.loads(record.value or b""), f"{record.topic}/{record.partition}/{record.offset}"
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return [None]


def _header(record: Any, name: str) -> str:
    return next(
        (value.decode(errors="replace") for key, value in record.headers if key == name and value),
        "",
    )


PLUGIN = Command(
    STAGE,
    "Write alerts and the ledger to Elasticsearch, each document once.",
    "example: ids-consumer deliver --config ids.toml",
    configure,
    run,
)
