"""`ids-consumer detect`: flows → windows → scores → alerts on ids.alerts, exactly once; goes on as if never stopped."""

from __future__ import annotations

import argparse
import base64
import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from ids_plugin import kafka
from ids_plugin.commands import Command, Console
from ids_plugin.errors import BundleError, ServiceError

from .runtime.service import Service, Stopping, add_options, settings

if TYPE_CHECKING:
    from kafka import TopicPartition
    from kafka.producer.future import RecordMetadata

    from ids_plugin.bundle import Bundle
    from ids_plugin.schema.alert import Document
    from ids_plugin.schema.ledger import Ledger

    from .stream.checkpoints import Pointer
    from .stream.detector import Unreadable
    from .stream.transactions import Outgoing, Places, TransactionalLoop

STAGE = "detect"
OUTCOMES = (
    "scored", "duplicate", "replaced", "delayed", "over_threshold", "opened", "folded", "suppressed", "documents",
)  # fmt: skip
"""counters of the ledger that are metrics too"""
GATHER = 0.2
"""Seconds that flows are gathered at most before they are scored together: small portions cost most."""
MESSAGES = 20
"""taken at once at most; those of a quick sensor hold thousands of flows"""
STEP = 1.0
"""Seconds of scoring between two commits, about: so much is done again when we are killed"""
LEAST = 1_000
"""Flows between two commits at least"""
SETTLE = 4.0
"""Seconds in which states are kept before partitions go to others, or we end: who is silent for longer is thrown out"""
IDLE = 1.0
"""Seconds between two commits when there is nothing to tell of."""
FETCH = {
    "fetch_max_wait_ms": 100,
    "fetch_max_bytes": 16 << 20,
    "max_partition_fetch_bytes": 4 << 20,
}
PATIENCE_MS = 10_000
"""How long the broker may take to say what was committed."""
KEPT = 1 << 16
"""Bytes of a message that can't be read which its reject keeps."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `detect`."""
    add_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        ConfigError, BundleError: the configuration or the bundle can't be used.
        UsageError: another process has our name.
    """
    with Service(STAGE, settings(args, STAGE)) as service:
        Detect(service).run()
    return 0


@dataclass
class Place:
    """How far a partition of ids.flows was taken in."""

    next: int
    """offset of the message that comes next"""
    committed: int
    kept: Pointer
    """its last snapshot"""
    due: float
    """when the next one is due, by the monotonic clock"""


class Detect:
    """Takes flows, writes alerts and counts, keeps snapshots of its state."""

    def __init__(self, service: Service) -> None:
        """
        Raises:
            ConfigError, BundleError: the configuration or the bundle can't be used.
        """
        from .runtime.bundles import Bundles
        from .stream.detector import Detector

        self._service, self._config = service, service.config
        self._instance = kafka.instance(self._config.detect.instance)
        self._bundles = Bundles(self._config, service.warn)
        self._detector = Detector(self._config, self._bundles.current)
        self._places: dict[int, Place] = {}
        self._regrouped = False
        """partitions were given out anew"""
        self._told = 0.0
        """when the last transaction was committed, by the monotonic clock"""
        self._most = LEAST
        """flows between two commits, as many as were scored in STEP lately"""

    def run(self) -> None:
        """Goes on until told to stop.

        Raises:
            UsageError: another process has our name.
        """
        from .stream.transactions import TransactionAborted

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, lambda *_: self._bundles.look_now())
        self._service.say(self._detector.local_rule.describe("detect.local_nets"))
        self._judging(self._bundles.current)
        while not self._service.stopping:
            with self._service.patiently(self._connected) as exchange:
                try:
                    while not self._service.stopping:
                        self._turn(exchange)
                    self._settle(exchange)
                    exchange.leave()
                except (TransactionAborted, ServiceError) as error:
                    self._service.missing(str(error))
                    self._service.wait(0.5)
                finally:
                    self._detector.clear()
                    self._places = {}

    def _connected(self) -> TransactionalLoop:
        """
        Raises:
            ServiceError: the broker doesn't answer, or topics of ours are missing.
        """
        from .stream.checkpoints import Revoked
        from .stream.transactions import TransactionalLoop

        told, ours = self._config.detect, self._config.topics
        exchange = TransactionalLoop(self._service, told.group, told.instance, **FETCH)
        exchange.forget = self._forget
        revoked = Revoked(lambda: self._settle(exchange))
        with kafka.reaching(self._config):
            there = exchange.consumer.topics()
            exchange.consumer.subscribe([ours.flows], listener=revoked)
        missing = sorted({ours.flows, ours.alerts, ours.rejects, ours.ledger, ours.state} - there)
        if missing:
            exchange.__exit__(ServiceError, None, None)
            hint = "ids-plugin setup kafka makes them"
            raise ServiceError(
                f"topics are missing: {', '.join(missing)}", location="kafka", hint=hint
            )
        return exchange

    def _forget(self) -> None:
        """Partitions were given out anew: what isn't committed is read again, by us or by others."""
        self._detector.undo()
        self._regrouped = True

    def _turn(self, exchange: TransactionalLoop) -> None:
        self._service.turn()
        self._swap(exchange)
        self._gather(exchange)
        if self._detector.waiting or time.monotonic() - self._told >= IDLE:
            self._commit(exchange, self._due())
            self._measure(exchange)

    def _gather(self, exchange: TransactionalLoop) -> None:
        """Takes flows in for a moment; commits whenever there are enough."""
        end = time.monotonic() + GATHER
        while (left := end - time.monotonic()) > 0 and not self._service.stopping:
            found = exchange.poll(int(left * 1000) + 1, MESSAGES)
            if self._regrouped:
                self._adopt(exchange)
            for partition, records in found.items():
                place = self._places[partition.partition]
                for record in (one for one in records if one.offset >= place.next):
                    self._detector.take(record)
                    place.next = record.offset + 1
                    if self._detector.waiting >= self._most:
                        self._commit(exchange)

    def _swap(self, exchange: TransactionalLoop) -> None:
        """Another bundle judges from here on, if there is one."""
        bundle = self._bundles.look()
        if bundle is None:
            return
        self._commit(exchange)
        try:
            self._detector.pipeline.swap(bundle)
        except BundleError as error:
            self._bundles.refuse(error)
            return
        self._judging(bundle)
        for number in self._places:
            self._commit(exchange, number)

    def _judging(self, bundle: Bundle) -> None:
        before, self._bundles.current = self._bundles.current, bundle
        self._service.metrics.bundle.labels(before.id, before.family).set(0)
        self._service.metrics.bundle.labels(bundle.id, bundle.family).set(1)
        self._service.say(f"bundle {bundle.id[:12]} judges", **{"ids_plugin.bundle.id": bundle.id})

    def _adopt(self, exchange: TransactionalLoop) -> None:
        """Takes up the state of the partitions that became ours.

        Raises:
            ServiceError: the broker doesn't answer.
        """
        self._regrouped = False
        assigned = exchange.consumer.assignment()
        for partition in self._places.keys() - {one.partition for one in assigned}:
            self._detector.forget(partition)
            del self._places[partition]
        for place in sorted(assigned):
            with kafka.reaching(self._config):
                committed = exchange.consumer.committed(
                    place, metadata=True, timeout_ms=PATIENCE_MS
                )
                known = self._places.get(place.partition)
                if known is None or committed is None or known.next != committed.offset:
                    self._places[place.partition] = self._restored(exchange, place, committed)
                    self._commit(exchange, self._due())

    def _restored(
        self, exchange: TransactionalLoop, place: TopicPartition, committed: Any
    ) -> Place:
        """The state of a partition at its committed offset.

        Raises:
            Stopping: we were told to stop before it was there.
        """
        from .stream.checkpoints import Pointer, go_on

        offset = (
            committed.offset
            if committed
            else int(exchange.consumer.beginning_offsets([place])[place])
        )
        kept = Pointer.parse(committed.metadata if committed else "") or Pointer(
            0, self._bundles.current.id
        )
        began = time.monotonic()
        with self._judged_by(kept.bundle):
            for said in go_on(self._detector, self._config, place, kept, offset):
                self._service.turn()
                if said:
                    self._service.warn(said)
                if self._service.stopping:
                    raise Stopping
        self._detector.undo()
        took = time.monotonic() - began
        told = {"seconds": round(took, 3), "snapshot": kept.offset if kept.pieces else None}
        self._service.say(
            f"{place.topic}/{place.partition} is ours from offset {offset} on", **told
        )
        hurry = took > STEP or kept.bundle != self._bundles.current.id
        pause = 0 if hurry else self._config.detect.snapshot_seconds
        return Place(offset, offset, kept, time.monotonic() + pause)

    @contextlib.contextmanager
    def _judged_by(self, identity: str) -> Iterator[None]:
        """Has the bundle judge that did so when what is read again was read first, if we still have it."""
        current, configured = self._bundles.current, self._bundles.configured
        if identity == configured.id != current.id:
            self._detector.pipeline.swap(configured)
        elif identity != current.id:
            self._service.warn(f"bundle {identity[:12]}, which judged before, isn't there any more")
        try:
            yield
        finally:
            if identity == configured.id != current.id:
                self._detector.pipeline.swap(current)

    def _settle(self, exchange: TransactionalLoop) -> None:
        """Commits what was taken in, and keeps the states that there is time for: who takes over begins there.

        Raises:
            TransactionAborted: the rest wasn't committed.
        """
        end = time.monotonic() + SETTLE
        self._commit(exchange)
        for number in self._changed():
            if time.monotonic() < end:
                self._commit(exchange, number)

    def _changed(self) -> list[int]:
        """Partitions whose last snapshot isn't what they are now."""
        return [number for number, place in self._places.items() if place.next > place.kept.offset]

    def _due(self) -> int | None:
        """The partition whose snapshot is most overdue, if one is."""
        due = {number: self._places[number].due for number in self._changed()}
        first = min(due, key=lambda number: due[number], default=None)
        return None if first is None or due[first] > time.monotonic() else first

    def _commit(self, exchange: TransactionalLoop, keep: int | None = None) -> None:
        """Scores what was taken in and commits what came of it, with a snapshot of the partition to `keep`.

        Raises:
            TransactionAborted: nothing of it was committed.
        """
        if keep is None and all(place.next == place.committed for place in self._places.values()):
            return
        with self._service.timed():
            now = datetime.now(UTC)
            documents, ledger = self._scored(now)
            messages = self._messages(documents, ledger, now)
            if keep is None:
                exchange.commit(messages, self._offsets())
            else:
                self._commit_state(exchange, keep, messages)
                self._service.metrics.snapshot.labels(keep).set(now.timestamp())
        self._told = time.monotonic()
        self._detector.unreadable.clear()
        for place in self._places.values():
            place.committed = place.next
        self._count(documents, ledger)

    def _commit_state(
        self, exchange: TransactionalLoop, number: int, messages: Iterable[Outgoing]
    ) -> None:
        """Commits with the state of one partition, and a pointer to it.

        Raises:
            TransactionAborted: nothing of it was committed.
        """
        from ids_plugin import checkpoint

        from .stream.checkpoints import Keeping, Pointer

        topic, place = self._config.topics.state, self._places[number]
        partition = number % len(exchange.producer.partitions_for(topic))
        pointer = Pointer(place.next, self._bundles.current.id, partition)
        keeping = Keeping.of(
            pointer, place.kept, topic, number, checkpoint.dump(self._detector.state(number))
        )
        keeping.send_most(exchange)

        def after(sent: Sequence[RecordMetadata]) -> Places:
            place.kept = keeping.kept(sent)
            place.due = time.monotonic() + self._config.detect.snapshot_seconds
            return self._offsets()

        exchange.commit([*keeping.rest, *messages], after)

    def _scored(self, now: datetime) -> tuple[list[Document], Ledger]:
        """Documents and counts of what was taken in."""
        from .stream.detector import FLOWS

        self._service.turn()
        flows, began = self._detector.waiting, time.monotonic()
        documents, ledger = self._detector.step(now), self._detector.counted()
        if flows >= LEAST:
            self._most = max(LEAST, min(FLOWS, round(flows * STEP / (time.monotonic() - began))))
        return documents, ledger

    def _offsets(self) -> Places:
        from kafka import TopicPartition
        from kafka.structs import OffsetAndMetadata

        return {
            TopicPartition(self._config.topics.flows, number): OffsetAndMetadata(
                place.next, str(place.kept), -1
            )
            for number, place in self._places.items()
        }

    def _messages(
        self, documents: list[Document], ledger: Ledger, now: datetime
    ) -> Iterator[Outgoing]:
        from .stream.transactions import Outgoing

        topics = self._config.topics
        for document in documents:
            yield Outgoing(
                topics.alerts, orjson.dumps(document), document["ids_plugin"]["fold"]["id"].encode()
            )
        for one in self._detector.unreadable:
            yield Outgoing(topics.rejects, orjson.dumps(_told(one)))
        if ledger.items():
            at = round(now.timestamp() * 1000)
            entry = {
                "stage": STAGE,
                "instance": self._instance,
                "at": at,
                "ledger": ledger.to_dict(),
            }
            yield Outgoing(topics.ledger, orjson.dumps(entry), self._instance.encode())

    def _count(self, documents: list[Document], ledger: Ledger) -> None:
        from ids_plugin.schema.alert import SEVERITIES

        metrics, total = self._service.metrics, ledger.total
        for outcome in OUTCOMES:
            metrics.records.labels(STAGE, outcome).inc(total.value(outcome))
        names = {number: name for name, number in SEVERITIES.items()}
        for document in documents:
            event, bundle = document["event"], document["ids_plugin"]["bundle"]
            if event["kind"] == "alert":
                metrics.alerts.labels(names[event["severity"]], bundle["family"]).inc()
        metrics.pairs.set(self._detector.pipeline.pairs)

    def _measure(self, exchange: TransactionalLoop) -> None:
        """How far behind we are."""
        from kafka import TopicPartition

        topic, lags = self._config.topics.flows, {}
        for number, place in self._places.items():
            end = exchange.consumer.highwater(TopicPartition(topic, number))
            lags[topic, number] = max(0, (end or 0) - place.next)
        self._service.metrics.behind(lags)


def _told(one: Unreadable) -> dict[str, Any]:
    """A reject as rejects.ndjson has it, with its place in numbers and its bytes."""
    record, data = one.record, (one.record.value or b"")[:KEPT]
    return {
        "input": record.topic,
        "place": f"partition {record.partition} offset {record.offset}",
        "reason": "bad_message",
        "detail": one.detail,
        "data": "",
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "sensor": "",
        "bytes": base64.b64encode(data).decode(),
    }


PLUGIN = Command(
    STAGE,
    "Score flows; write explained alerts.",
    "example: ids-consumer detect --config ids.toml",
    configure,
    run,
)
