"""Sends what arrives in an Elasticsearch index to a sensor's topic, and remembers what it sent."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b

from elasticsearch import ApiError, TransportError

from ids_plugin import kafka
from ids_plugin.elastic.paging import Hit, target
from ids_plugin.errors import InputError, ServiceError
from ids_plugin.sources.messages import MessageReader
from ids_plugin.sources.readers.documents import line

from ..runtime.service import Service
from ..stream.transactions import Outgoing, TransactionAborted, TransactionalLoop
from .file_checkpoint import recall
from .index_feed import Feed, Log, require_stamps
from .tail import KEPT, LONGEST

IDLE = 1.0
"""seconds between two looks: what is indexed can be found after a second at the earliest"""
AWAY = 5.0
"""seconds until a server that doesn't answer, or an index that is missing, is asked for again"""
COUNTED = 60.0
"""seconds between two counts of documents that don't say when they arrived"""


class IndexShipper:
    """Follows one index."""

    def __init__(self, service: Service, args: argparse.Namespace) -> None:
        """
        Raises:
            UsageError: what is to be followed is no index.
        """
        told = service.config.ship
        self._service, self._topic, self._from_end = service, str(args.topic), bool(args.from_end)
        self._target = target(args.files[0])
        self._settings = replace(service.config.elasticsearch, url=self._target.url)
        self._arrival, self._overlap = str(args.arrival), int(args.overlap * 1000)
        self._sensor = args.sensor or told.sensor
        self._default = kafka.instance(told.instance)
        name = blake2b(args.files[0].encode(), digest_size=4).hexdigest()
        self._group = f"{told.group}-{self._topic}-{name}"
        self._who = f"{self._group}/{self._default}"
        self._reader = MessageReader()
        self._counted = 0.0
        self._cut = 0

    def run(self) -> None:
        """Goes on until told to stop.

        Raises:
            UsageError: another process has our name; no document says when it arrived.
        """
        from .connection import connected

        while not self._service.stopping:
            with self._service.patiently(
                lambda: connected(self._service, self._group, self._topic)
            ) as exchange:
                try:
                    self._follow(exchange)
                except TransactionAborted as error:
                    self._service.missing(str(error))
                    self._service.wait(0.5)

    def _follow(self, exchange: TransactionalLoop) -> None:
        """Goes on from what was committed.

        Raises:
            TransactionAborted: something was not committed; the next life begins from there.
        """
        log, config = Log(self._who), self._service.config
        self._service.patiently(lambda: recall(exchange, config, log.take))
        if log.latest < 0 and self._from_end:
            log.latest = log.forgotten = _now()
            exchange.commit(log.note(config.topics.places, [], 0), {})
        self._service.say(f"following {self._target.index}, by {self._arrival}")
        feed = Feed(self._settings, self._target, self._arrival, self._overlap, log, _now)
        while not self._service.stopping:
            self._service.turn()
            try:
                sent = self._turn(exchange, log, feed)
            except (ServiceError, InputError) as error:
                self._service.missing(str(error))
                self._service.wait(AWAY)
                continue
            self._service.working()
            if not sent:
                self._service.wait(IDLE)

    def _turn(self, exchange: TransactionalLoop, log: Log, feed: Feed) -> int:
        """One look; how many documents were sent."""
        self._count(feed)
        sent = 0
        for hits, late in feed.look():
            with self._service.timed():
                messages = list(self._messages(hits, log))
                told = log.note(self._service.config.topics.places, hits, feed.keep_from)
                exchange.commit([*messages, *told], {})
            self._tell(messages, late)
            sent += len(messages)
            self._service.turn()
            if self._service.stopping:
                break
        return sent

    def _messages(self, hits: Sequence[Hit], log: Log) -> Iterator[Outgoing]:
        """One message a document, numbered by sensor."""
        numbers = Counter(log.numbers)
        for hit in hits:
            found = line(hit.document, self._reader.classify)
            sensor = self._sensor or found.sensor or self._default
            headers = (
                ("ids-sensor", sensor.encode()),
                ("ids-seq", f"{log.run}:{numbers[sensor]}".encode()),
            )
            cut = len(found.text) > LONGEST
            self._cut += cut
            text = found.text[:KEPT] if cut else found.text
            yield Outgoing(self._topic, text, None, headers)
            numbers[sensor] += 1
        log.numbers = dict(numbers)

    def _tell(self, messages: Sequence[Outgoing], late: bool) -> None:
        records = self._service.metrics.records
        records.labels("ship", "sent").inc(len(messages))
        records.labels("ship", "late").inc(len(messages) if late else 0)
        records.labels("ship", "cut").inc(self._cut)
        self._cut = 0

    def _count(self, feed: Feed) -> None:
        """Warns of documents that are never sent, once a minute at most.

        Raises:
            UsageError: no document says when it arrived.
        """
        if time.monotonic() < self._counted + COUNTED and self._counted:
            return
        try:
            stamped, unstamped = feed.unstamped()
        except (ApiError, TransportError):
            return  # the look that follows says what is wrong
        self._counted = time.monotonic()
        require_stamps(stamped, unstamped, self._arrival, self._target)
        if unstamped:
            self._service.warn(
                f"{unstamped:,} documents have no {self._arrival}: they are not sent"
            )


def _now() -> int:
    return time.time_ns() // 1_000_000
