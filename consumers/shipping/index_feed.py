"""The documents of an Elasticsearch index as they arrive, each once.

Elasticsearch has no query for what was indexed since the last poll. The nearest to it is a field
that says when a document arrived (`event.ingested`). A poll reads the documents from the latest
such time on, and now and then again those of the time before it (`overlap`): documents become
searchable later than they arrived, and not in that order. Documents that were sent are recognised
by digests of their ids. The digests are stored on the topic that has the offsets of files, in the
transaction that holds the documents.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from ids_plugin.config import Elasticsearch as ElasticsearchSettings
from ids_plugin.elastic.paging import Hit, Pages, Target, connect
from ids_plugin.errors import UsageError

from ..stream.transactions import ProducerRecord

DIGEST_BYTES = 12
"""Of a document's id: two of a billion documents share a digest with a probability below 1e-10."""
REREADS_PER_OVERLAP = 10
"""How often within an overlap the time before is read again."""
MAX_QUERY_IDS = 1_000
"""Documents that one query asks for by their ids; far below Elasticsearch's limit of clauses."""
SIZE_SAMPLE_DOCUMENTS = 20
"""Documents of a page whose size is measured to choose the size of the next page."""


@dataclass
class IndexCheckpoint:
    """What one instance remembers of one index that it sends to a topic."""

    owner: str
    """group and instance; the key of its records begins with it"""
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    """of the sequence headers"""
    numbers: dict[str, int] = field(default_factory=dict)
    """sensor → messages so far, over all restarts: the next one's number"""
    latest: int = -1
    """ms: the latest arrival among the documents sent; -1 before the first"""
    forgotten: int = 0
    """ms: digests of documents that arrived before it were dropped, so it is not read again"""
    next: int = 0
    """number of the next batch"""
    _batches: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """number → latest arrival in the batch, and the digests of its documents"""
    _digests: set[bytes] = field(default_factory=set)

    def was_sent(self, hit: Hit) -> bool:
        """Whether the document was sent."""
        return _digest(hit) in self._digests

    def advance(self, topic: str, hits: Sequence[Hit], keep_from: int) -> list[ProducerRecord]:
        """The records that store the checkpoint after these documents were sent.

        Batches whose documents all arrived before `keep_from` (ms) are forgotten.
        """
        batches = []
        if hits:
            arrived = max(hit.time for hit in hits)
            self.latest = max(self.latest, arrived)
            number, digests = self.next, b"".join(map(_digest, hits))
            self._add_batch(number, arrived, digests)
            batch = {"at": arrived, "ids": base64.b64encode(digests).decode()}
            batches.append(self._record(topic, number, batch))
        outdated = [number for number, (at_ms, _) in self._batches.items() if at_ms < keep_from]
        for number in outdated:
            self._drop_batch(number)
            self.forgotten = max(self.forgotten, keep_from)
            batches.append(self._record(topic, number, None))
        header = {
            "run": self.run,
            "numbers": self.numbers,
            "latest": self.latest,
            "forgotten": self.forgotten,
            "next": self.next,
        }
        return [self._record(topic, None, header), *batches]

    def apply(self, key: str, value: dict[str, Any] | None) -> None:
        """Takes a record of the topic; those of other instances are ignored."""
        owner, _, number = key.rpartition("#") if "#" in key else (key, "", "")
        if owner != self.owner:
            return
        if not number and value:
            self.run, self.numbers, self.next = value["run"], value["numbers"], value["next"]
            self.latest, self.forgotten = value["latest"], value["forgotten"]
        elif number:
            self._drop_batch(int(number))
            if value:
                self._add_batch(int(number), value["at"], base64.b64decode(value["ids"]))

    def _record(
        self, topic: str, number: int | None, value: dict[str, Any] | None
    ) -> ProducerRecord:
        key = self.owner if number is None else f"{self.owner}#{number}"
        return ProducerRecord(topic, orjson.dumps(value), key.encode())

    def _add_batch(self, number: int, arrived: int, digests: bytes) -> None:
        self._batches[number] = (arrived, digests)
        self._digests.update(_split(digests))
        self.next = max(self.next, number + 1)

    def _drop_batch(self, number: int) -> None:
        _, digests = self._batches.pop(number, (0, b""))
        self._digests.difference_update(_split(digests))


class IndexFeed:
    """The documents that arrive in an index.

    Args:
        settings: address and login of the server.
        target: the index, and the query that chooses documents.
        arrival_field: the field that says when a document arrived.
        overlap_ms: how long after its arrival a document may become searchable.
        checkpoint: which documents were sent.
        clock: ms since the epoch.
    """

    def __init__(
        self,
        settings: ElasticsearchSettings,
        target: Target,
        arrival_field: str,
        overlap_ms: int,
        checkpoint: IndexCheckpoint,
        clock: Callable[[], int],
    ) -> None:
        self._settings, self._target, self._arrival_field = settings, target, arrival_field
        self._overlap_ms, self._reread_every_ms = overlap_ms, overlap_ms // REREADS_PER_OVERLAP
        self._checkpoint, self._clock = checkpoint, clock
        self._client = connect(settings)
        self._next_reread = 0

    @property
    def keep_from(self) -> int:
        """ms: documents that arrived since then may still become searchable, so the digests of
        those that were sent have to be kept. The clock of whoever stamped a document moves it no
        further than ours."""
        latest = min(self._checkpoint.latest, self._clock())
        return latest - self._overlap_ms - self._reread_every_ms

    def poll(self) -> Iterator[tuple[list[Hit], bool]]:
        """Documents that weren't sent yet, and whether they are late, behind others that were sent.

        The checkpoint has to be advanced by them before the next step of the iterator.

        Raises:
            InputError: there is no such index.
            ServiceError: Elasticsearch can't be reached, refuses, or doesn't answer for all of it.
        """
        now, latest = self._clock(), self._checkpoint.latest
        if latest >= 0 and now >= self._next_reread:
            for hits in self._late(latest):
                yield hits, True
            self._next_reread = now + self._reread_every_ms
        since = max(self._checkpoint.forgotten, min(latest, now))
        for hits in self._pages({"gte": since}, has_documents=True):
            if unsent := self._unsent(hits):
                yield unsent, False

    def count_stamped(self) -> tuple[int, int]:
        """How many documents say when they arrived, and how many don't: these are never sent.

        Raises:
            ApiError, TransportError: the client's.
        """
        stamped = {"exists": {"field": self._arrival_field}}
        counts = []
        for clause in ("filter", "must_not"):
            query = {"bool": {clause: [stamped]}}
            counts.append(self._client.count(index=self._target.index, query=query)["count"])
        return counts[0], counts[1]

    def _unsent(self, hits: Iterable[Hit]) -> list[Hit]:
        return [hit for hit in hits if not self._checkpoint.was_sent(hit)]

    def _late(self, latest: int) -> Iterator[list[Hit]]:
        """Unsent documents that arrived before `latest`: first their ids, then their contents."""
        since = max(self._checkpoint.forgotten, self.keep_from)
        bounds = {"gte": since, "lt": latest}
        for hits in self._pages(bounds, has_documents=False):
            missed = self._unsent(hits)
            for start in range(0, len(missed), MAX_QUERY_IDS):
                part = missed[start : start + MAX_QUERY_IDS]
                wanted = {hit.place for hit in part}
                ids = [hit.id for hit in part]
                for page in self._pages(bounds, has_documents=True, ids=ids):
                    if fetched := [hit for hit in page if hit.place in wanted]:
                        yield fetched

    def _pages(
        self, bounds: dict[str, int], has_documents: bool, ids: Sequence[str] = ()
    ) -> Iterator[list[Hit]]:
        """Pages of the documents whose arrival is within `bounds` (ms), in that order."""
        filters: list[dict[str, Any]] = [
            {"range": {self._arrival_field: {**bounds, "format": "epoch_millis"}}}
        ]
        if ids:
            filters.append({"ids": {"values": ids}})
        pages = Pages(
            self._client,
            self._settings,
            self._target,
            filters,
            self._arrival_field,
            has_documents,
        )
        for hits in pages:
            yield hits
            sample = hits[:: max(1, len(hits) // SIZE_SAMPLE_DOCUMENTS)]
            pages.resize(len(sample), sum(len(orjson.dumps(hit.document)) for hit in sample))


def require_stamps(stamped: int, unstamped: int, arrival_field: str, target: Target) -> None:
    """
    Raises:
        UsageError: no document says when it arrived.
    """
    if unstamped and not stamped:
        hint = (
            "name the field that says when they were indexed with --arrival, or add one: "
            "an ingest pipeline with "
            '{"set": {"field": "event.ingested", "value": "{{{_ingest.timestamp}}}"}}'
        )
        raise UsageError(f"no document has {arrival_field}", location=target.name, hint=hint)


def _digest(hit: Hit) -> bytes:
    return blake2b(hit.place.encode(), digest_size=DIGEST_BYTES).digest()


def _split(digests: bytes) -> Iterator[bytes]:
    starts = range(0, len(digests), DIGEST_BYTES)
    return (digests[start : start + DIGEST_BYTES] for start in starts)
