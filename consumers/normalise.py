"""`ids-consumer normalise`: sensors' topics in any envelope → flows by sensor on ids.flows, exactly once."""

from __future__ import annotations

import argparse
import base64
import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from ids_plugin import kafka
from ids_plugin.commands import Command, Console
from ids_plugin.config import Config
from ids_plugin.errors import ConfigError, ServiceError

from .runtime.service import Service, add_options, settings

if TYPE_CHECKING:
    from kafka import TopicPartition

    from ids_plugin.sources.messages import Messages, Rejected

    from .stream.transactions import Outgoing, TransactionalLoop

STAGE = "normalise"
MARKS = 0.25
"""Seconds between two tellings of how far the source topics are read: what records without numbers wait for."""
GATHER = 0.1
"""Seconds that records are gathered at most before they are read together: small portions cost most."""
FETCH = {
    "fetch_max_wait_ms": 100,
    "fetch_min_bytes": 1 << 16,
    "fetch_max_bytes": 16 << 20,
    "max_partition_fetch_bytes": 4 << 20,
}
PATIENCE_MS = 2_000
"""How long the broker may take to say where partitions end."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `normalise`."""
    add_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        ConfigError: the configuration can't be used.
        UsageError: another process has our name.
    """
    config = settings(args, STAGE)
    wanted(config, ())
    with Service(STAGE, config) as service:
        Normaliser(service).run()
    return 0


def wanted(config: Config, there: Iterable[str]) -> set[str]:
    """The topics to read of those that are there; a pattern never matches topics of ours.

    Raises:
        ConfigError: nothing is named, or both topics and a pattern.
    """
    told = config.normalise
    if bool(told.topics) == bool(told.pattern):
        what = "both topics and a pattern" if told.topics else "neither topics nor a pattern"
        raise ConfigError(f"normalise has {what}", hint='such as topics = ["zeek"]')
    if not told.pattern:
        return set(told.topics) & set(there)
    try:
        pattern = re.compile(told.pattern)
    except re.error as error:
        raise ConfigError(f"normalise.pattern is no regular expression: {error}") from error
    ours = set(vars(config.topics).values())
    return {name for name in there if name not in ours and pattern.fullmatch(name)}


class Normaliser:
    """Takes records, writes flows, rejects and counts, and tells how far it has read."""

    def __init__(self, service: Service) -> None:
        from ids_plugin.sources.messages import MessageReader

        self._service, self._config = service, service.config
        self._instance = kafka.instance(self._config.normalise.instance)
        self._reader = MessageReader(self._config.normalise.sensors)
        self._sources: dict[str, int] = {}
        """topic that we read → number of its partitions"""
        self._gathered: dict[TopicPartition, list[Any]] = {}
        self._latest: dict[TopicPartition, int] = {}
        """ms: the latest record taken of each partition"""
        self._told = 0.0
        """when the last marks went out"""

    def run(self) -> None:
        """Goes on until told to stop.

        Raises:
            UsageError: another process has our name.
        """
        from .stream.topics import Lookout
        from .stream.transactions import TransactionAborted

        while not self._service.stopping:
            with (
                self._service.patiently(self._connected) as exchange,
                contextlib.closing(Lookout(self._config)) as look,
            ):
                try:
                    while not self._service.stopping and not self._outdated(look.partitions):
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
        from .stream.fetched_columns import by_columns
        from .stream.topics import partitions
        from .stream.transactions import TransactionalLoop

        told, ours = self._config.normalise, self._config.topics
        there = partitions(self._config)
        missing = sorted({ours.flows, ours.rejects, ours.ledger} - there.keys())
        if missing:
            hint = "ids-plugin setup kafka makes them"
            raise ServiceError(
                f"topics are missing: {', '.join(missing)}", location="kafka", hint=hint
            )
        self._sources = {name: there[name] for name in sorted(wanted(self._config, there))}
        named = told.pattern or ", ".join(told.topics)
        if not self._sources:
            raise ServiceError(
                f"no topic to read: {named}", location="kafka", hint="it is read once it is there"
            )
        for topic in sorted(set(told.topics) - there.keys()):
            self._service.warn(f"topic {topic} is missing: it is read once it is there")
        exchange = TransactionalLoop(self._service, told.group, told.instance, **FETCH)
        self._told = 0.0
        self._forget()
        exchange.forget = self._forget
        by_columns(exchange.consumer)
        exchange.consumer.subscribe(topics=list(self._sources))
        return exchange

    def _outdated(self, there: dict[str, int]) -> bool:
        """Other topics or partitions are to be read than when we connected."""
        return (
            bool(there)
            and {name: there[name] for name in wanted(self._config, there)} != self._sources
        )

    def _forget(self) -> None:
        self._gathered, self._latest = {}, {}

    def _turn(self, exchange: TransactionalLoop) -> None:
        self._service.turn()
        self._gather(exchange)
        now = time.time_ns() // 1_000_000
        found = self._read(now)
        due = time.monotonic() - self._told >= MARKS
        if not (found or due):
            return
        with self._service.timed():
            marks = self._marks(exchange, now) if due else []
            exchange.commit(
                [*self._messages(found, now), *marks] if found else marks, self._places()
            )
        self._gathered = {}
        if found:
            self._count(found, now)

    def _gather(self, exchange: TransactionalLoop) -> None:
        """Takes records for a moment, or until there are enough."""
        from .stream.fetched_columns import count

        most, end = self._config.normalise.batch, time.monotonic() + GATHER
        while (left := end - time.monotonic()) > 0 and not self._service.stopping:
            room = most - sum(map(count, self._gathered.values()))
            if room <= 0:
                return
            for partition, records in exchange.poll(int(left * 1000) + 1, room).items():
                self._gathered.setdefault(partition, []).extend(records)

    def _read(self, now: int) -> Messages | None:
        from ids_plugin.sources.messages import Fetched

        from .stream.fetched_columns import columns

        if not self._gathered:
            return None
        fetched = []
        for place, records in self._gathered.items():
            part = columns(records)
            self._latest[place] = max(
                self._latest.get(place, 0), min(max(part.times, default=0), now)
            )
            fetched.append(
                Fetched(
                    place.topic,
                    place.partition,
                    part.offsets,
                    part.times,
                    part.values,
                    part.headers,
                )
            )
        return self._reader.read(fetched, now)

    def _places(self) -> dict[TopicPartition, Any]:
        from kafka.structs import OffsetAndMetadata

        return {
            partition: OffsetAndMetadata(records[-1].offset + 1, "", records[-1].leader_epoch)
            for partition, records in self._gathered.items()
        }

    def _messages(self, found: Messages, now: int) -> Iterator[Outgoing]:
        """What is sent of what was found."""
        from ids_plugin.sources.flow_batches import encode

        from .stream.transactions import Outgoing

        topics = self._config.topics
        for batch in found.batches:
            for value, headers in encode(batch):
                yield Outgoing(topics.flows, value, batch.sensor.encode(), headers)
        for reject in found.rejects:
            yield Outgoing(topics.rejects, orjson.dumps(_told(reject)))
        entry = {
            "stage": STAGE,
            "instance": self._instance,
            "at": now,
            "ledger": found.ledger.to_dict(),
        }
        if found.counters:
            entry["sensor_counts"] = found.counters
        yield Outgoing(topics.ledger, orjson.dumps(entry), self._instance.encode())

    def _marks(self, exchange: TransactionalLoop, now: int) -> list[Outgoing]:
        """How far we have read, for every partition of ids.flows; nothing while the broker doesn't say where the source
        partitions end."""
        from ids_plugin.sources.flow_batches import Watermarks, encode_watermarks

        from .stream.transactions import Outgoing

        self._told = time.monotonic()
        consumer = exchange.consumer
        assigned = sorted(consumer.assignment())
        try:
            with kafka.reaching(self._config):
                ends = consumer.end_offsets(assigned, timeout_ms=PATIENCE_MS) if assigned else {}
                partitions = exchange.producer.partitions_for(self._config.topics.flows)
        except ServiceError as error:
            self._service.missing(error)
            return []
        marks, lags = {}, {}
        for partition in assigned:
            left = ends[partition] - (consumer.position(partition, timeout_ms=0) or 0)
            lags[partition.topic, partition.partition] = max(0, left)
            if left <= 0:
                marks[f"{partition.topic}/{partition.partition}"] = now
            elif partition in self._latest:
                marks[f"{partition.topic}/{partition.partition}"] = self._latest[partition]
        self._service.metrics.behind(lags)
        value, headers = encode_watermarks(Watermarks(now, self._sources, marks))
        return [
            Outgoing(self._config.topics.flows, value, None, headers, number)
            for number in sorted(partitions)
        ]

    def _count(self, found: Messages, now: int) -> None:
        metrics, total = self._service.metrics, found.ledger.total
        for outcome in ("read", "parsed", "rejected", "out_of_scope"):
            metrics.records.labels(STAGE, outcome).inc(total.value(outcome))
        for reason, count in total.rejected.items():
            metrics.rejects.labels(reason).inc(count)
        for (_, sensor), counts in found.ledger.items():
            metrics.sensor_read.labels(sensor).inc(counts.read - counts.value("out_of_scope"))
            metrics.sensor_seen.labels(sensor).set(now / 1000)
        for record in found.counters:
            labels = [str(record.get(name, "")) for name in ("sensor", "node", "stream")]
            for what, value in record.items():
                if isinstance(value, int) and not isinstance(value, bool):
                    metrics.sensor.labels(*labels, what).set(value)


def _told(reject: Rejected) -> dict[str, Any]:
    """A reject as rejects.ndjson has it, with its place in numbers and its bytes."""
    return {
        "input": reject.topic,
        "place": f"partition {reject.partition} offset {reject.offset}",
        "reason": reject.reason,
        "detail": reject.detail,
        "data": reject.shown,
        "topic": reject.topic,
        "partition": reject.partition,
        "offset": reject.offset,
        "sensor": reject.sensor,
        "bytes": base64.b64encode(reject.data).decode(),
    }


PLUGIN = Command(
    STAGE,
    "Read sensors' records in any envelope; write flows by sensor.",
    "example: ids-consumer normalise --config ids.toml",
    configure,
    run,
)
