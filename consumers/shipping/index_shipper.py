"""The process of `ids-consumer ship elasticsearch:URL/INDEX`: arriving documents → a sensor's
topic."""

from __future__ import annotations

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
from ..stream.transactions import ProducerRecord, TransactionalLoop, run_until_stopped
from .connection import connect
from .file_checkpoint import replay_checkpoints
from .index_feed import IndexCheckpoint, IndexFeed, require_stamps
from .options import ShipOptions
from .tail import KEPT_LINE_BYTES, MAX_LINE_BYTES

STAGE = "ship"
POLL_INTERVAL_S = 1.0
"""Pause between two polls: Elasticsearch makes documents searchable after a second at the
earliest."""
RETRY_DELAY_S = 5.0
"""Pause before a server that doesn't answer, or an index that is missing, is asked again."""
COUNT_INTERVAL_S = 60.0
"""Time between two counts of documents without an arrival time."""


class IndexShipper:
    """Follows one index."""

    def __init__(self, service: Service, options: ShipOptions) -> None:
        """
        Raises:
            UsageError: what is to be followed is no index.
        """
        settings = service.config.ship
        address = options.inputs[0]
        self._service, self._topic = service, options.topic
        self._is_from_end = options.is_from_end
        self._target = target(address)
        self._elasticsearch = replace(service.config.elasticsearch, url=self._target.url)
        self._arrival_field = options.arrival_field
        self._overlap_ms = int(options.overlap_s * 1000)
        self._sensor = options.sensor or settings.sensor
        self._default_sensor = kafka.instance(settings.instance)
        digest = blake2b(address.encode(), digest_size=4).hexdigest()
        self._group = f"{settings.group}-{self._topic}-{digest}"
        self._checkpoint_owner = f"{self._group}/{self._default_sensor}"
        self._reader = MessageReader()
        self._counted_at = 0.0
        self._cut_documents = 0

    def run(self) -> None:
        """Works until a stop is requested.

        Raises:
            UsageError: another process has our name; no document says when it arrived.
        """
        run_until_stopped(
            self._service,
            lambda: connect(self._service, self._group, self._topic),
            self._consume,
        )

    def _consume(self, loop: TransactionalLoop) -> None:
        """Continues from the committed checkpoint until a stop is requested.

        Raises:
            TransactionAborted: something was not committed; the next loop begins at the checkpoint.
        """
        stored, config = IndexCheckpoint(self._checkpoint_owner), self._service.config
        self._service.retry(lambda: replay_checkpoints(loop, config, stored.apply))
        if stored.latest < 0 and self._is_from_end:
            stored.latest = stored.forgotten = _now_ms()
            loop.commit(stored.advance(config.topics.places, [], 0), {})
        self._service.info(f"following {self._target.index}, by {self._arrival_field}")
        feed = IndexFeed(
            self._elasticsearch,
            self._target,
            self._arrival_field,
            self._overlap_ms,
            stored,
            _now_ms,
        )
        while not self._service.is_stopping:
            self._service.heartbeat()
            try:
                sent = self._advance(loop, stored, feed)
            except (ServiceError, InputError) as error:
                self._service.mark_unready(str(error))
                self._service.wait(RETRY_DELAY_S)
                continue
            self._service.mark_ready()
            if not sent:
                self._service.wait(POLL_INTERVAL_S)

    def _advance(self, loop: TransactionalLoop, stored: IndexCheckpoint, feed: IndexFeed) -> int:
        """One poll of the index, with a transaction for each page; the number of documents sent."""
        self._count_unstamped(feed)
        sent = 0
        for hits, is_late in feed.poll():
            with self._service.timed():
                documents = list(self._document_records(hits, stored))
                checkpoint = stored.advance(
                    self._service.config.topics.places, hits, feed.keep_from
                )
                loop.commit([*documents, *checkpoint], {})
            self._update_metrics(len(documents), is_late)
            sent += len(documents)
            self._service.heartbeat()
            if self._service.is_stopping:
                break
        return sent

    def _document_records(
        self, hits: Sequence[Hit], stored: IndexCheckpoint
    ) -> Iterator[ProducerRecord]:
        """One record a document, numbered by sensor."""
        numbers = Counter(stored.numbers)
        for hit in hits:
            log_line = line(hit.document, self._reader.classify)
            sensor = self._sensor or log_line.sensor or self._default_sensor
            headers = (
                ("ids-sensor", sensor.encode()),
                ("ids-seq", f"{stored.run}:{numbers[sensor]}".encode()),
            )
            text = log_line.text
            if len(text) > MAX_LINE_BYTES:
                self._cut_documents += 1
                text = text[:KEPT_LINE_BYTES]
            yield ProducerRecord(self._topic, text, None, headers)
            numbers[sensor] += 1
        stored.numbers = dict(numbers)

    def _update_metrics(self, sent: int, is_late: bool) -> None:
        records = self._service.metrics.records
        records.labels(STAGE, "sent").inc(sent)
        records.labels(STAGE, "late").inc(sent if is_late else 0)
        records.labels(STAGE, "cut").inc(self._cut_documents)
        self._cut_documents = 0

    def _count_unstamped(self, feed: IndexFeed) -> None:
        """Warns of documents that are never sent, once a minute at most.

        Raises:
            UsageError: no document says when it arrived.
        """
        if self._counted_at and time.monotonic() < self._counted_at + COUNT_INTERVAL_S:
            return
        try:
            stamped, unstamped = feed.count_stamped()
        except (ApiError, TransportError):
            return  # the poll that follows raises what is wrong
        self._counted_at = time.monotonic()
        require_stamps(stamped, unstamped, self._arrival_field, self._target)
        if unstamped:
            self._service.warn(
                f"{unstamped:,} documents have no {self._arrival_field}: they are not sent"
            )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
