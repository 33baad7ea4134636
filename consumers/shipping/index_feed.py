"""Documents of an Elasticsearch index as they arrive, each once.

Nothing in Elasticsearch tells what was indexed since the last look. What comes nearest is a field that says when a
document arrived (`event.ingested`). So a look takes the documents from the latest such time on, and looks again at
those of the time before (`overlap`): documents become searchable later than they arrived, and not in that order. Those
known by their ids were sent. These ids are kept where places in files are, written in the transaction that holds the
documents.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.elastic.paging import Hit, Pages, Target, connect
from ids_plugin.errors import UsageError

from ..stream.transactions import Outgoing

SIZE = 12
"""bytes of a document's digest: two of a billion documents have the same one with a probability below 1e-10"""
SHARE = 10
"""the time before is looked at again this often within an overlap"""
FETCHED = 1_000
"""documents asked for by their ids at once"""


@dataclass
class Log:
    """What one instance remembers of one index it sends to a topic."""

    who: str
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    """of the numbers in the headers"""
    numbers: dict[str, int] = field(default_factory=dict)
    """sensor → messages so far, all lives together: the next one's number"""
    latest: int = -1
    """ms: the latest arrival among the documents sent; -1 before the first"""
    forgotten: int = 0
    """ms: documents that arrived before aren't known any more; nobody may ask for them"""
    next: int = 0
    """number of the next batch"""
    _batches: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """number → latest arrival in it, and the digests of its documents"""
    _known: set[bytes] = field(default_factory=set)

    def knows(self, hit: Hit) -> bool:
        """Whether it was sent."""
        return _digest(hit) in self._known

    def note(self, topic: str, hits: Sequence[Hit], keep: int) -> list[Outgoing]:
        """How it stands after these documents were sent; forgets those that arrived before `keep`."""
        told = []
        if hits:
            self.latest = max([self.latest, *(hit.time for hit in hits)])
            number, at, digests = (
                self.next,
                max(hit.time for hit in hits),
                b"".join(map(_digest, hits)),
            )
            self._put(number, at, digests)
            told.append(
                self._message(topic, number, {"at": at, "ids": base64.b64encode(digests).decode()})
            )
        for number in [number for number, (at, _) in self._batches.items() if at < keep]:
            self._drop(number)
            self.forgotten = max(self.forgotten, keep)
            told.append(self._message(topic, number, None))
        whole = {
            name: getattr(self, name) for name in ("run", "numbers", "latest", "forgotten", "next")
        }
        return [self._message(topic, "", whole), *told]

    def take(self, key: str, value: dict[str, Any] | None) -> None:
        """One message of the topic, another instance's too."""
        who, _, number = key.rpartition("#") if "#" in key else (key, "", "")
        if who != self.who:
            return
        if not number and value:
            self.run, self.numbers, self.next = value["run"], value["numbers"], value["next"]
            self.latest, self.forgotten = value["latest"], value["forgotten"]
        elif number:
            self._drop(int(number))
            if value:
                self._put(int(number), value["at"], base64.b64decode(value["ids"]))

    def _message(self, topic: str, number: int | str, value: dict[str, Any] | None) -> Outgoing:
        key = f"{self.who}#{number}" if number != "" else self.who
        return Outgoing(topic, orjson.dumps(value), key.encode())

    def _put(self, number: int, at: int, digests: bytes) -> None:
        self._batches[number] = (at, digests)
        self._known.update(_split(digests))
        self.next = max(self.next, number + 1)

    def _drop(self, number: int) -> None:
        _, digests = self._batches.pop(number, (0, b""))
        self._known.difference_update(_split(digests))


class Feed:
    """What arrives in an index.

    Args:
        settings: where it is and who we are.
        target: what of it.
        arrival: the field that says when a document arrived.
        overlap: ms that a document may take from there until it can be found.
        log: which were sent.
        clock: ms since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        arrival: str,
        overlap: int,
        log: Log,
        clock: Callable[[], int],
    ) -> None:
        self._settings, self._target, self._arrival = settings, target, arrival
        self._overlap, self._every, self._log, self._clock = overlap, overlap // SHARE, log, clock
        self._client = connect(settings)
        self._again = 0

    @property
    def keep_from(self) -> int:
        """ms: documents that arrived since then may still come, and those that were sent have to be known. A clock that
        is wrong where a document was stamped moves it no further than ours."""
        return min(self._log.latest, self._clock()) - self._overlap - self._every

    def look(self) -> Iterator[tuple[list[Hit], bool]]:
        """Documents that weren't sent yet, and whether they are late: behind others that were. They have to be noted in
        the log before the next step.

        Raises:
            InputError: there is no such index.
            ServiceError: Elasticsearch can't be reached, refuses, or doesn't answer for all of it.
        """
        now, latest = self._clock(), self._log.latest
        if latest >= 0 and now >= self._again:
            yield from ((hits, True) for hits in self._late(latest))
            self._again = now + self._every
        since = max(self._log.forgotten, min(latest, now))
        for hits in self._pages({"gte": since}, documents=True):
            if new := self._new(hits):
                yield new, False

    def unstamped(self) -> tuple[int, int]:
        """How many documents say when they arrived, and how many don't: these are never sent.

        Raises:
            ApiError, TransportError: the client's.
        """
        stamped = {"exists": {"field": self._arrival}}
        counts = [
            self._client.count(index=self._target.index, query={"bool": {clause: [stamped]}})[
                "count"
            ]
            for clause in ("filter", "must_not")
        ]
        return counts[0], counts[1]

    def _new(self, hits: Iterable[Hit]) -> list[Hit]:
        return [hit for hit in hits if not self._log.knows(hit)]

    def _late(self, latest: int) -> Iterator[list[Hit]]:
        bounds = {"gte": max(self._log.forgotten, self.keep_from), "lt": latest}
        for hits in self._pages(bounds, documents=False):
            missed = self._new(hits)
            for start in range(0, len(missed), FETCHED):
                part = missed[start : start + FETCHED]
                wanted = {hit.place for hit in part}
                for found in self._pages(bounds, documents=True, ids=[hit.id for hit in part]):
                    if fetched := [hit for hit in found if hit.place in wanted]:
                        yield fetched

    def _pages(
        self, bounds: dict[str, int], documents: bool, ids: Sequence[str] = ()
    ) -> Iterator[list[Hit]]:
        filters: list[dict[str, Any]] = [
            {"range": {self._arrival: {**bounds, "format": "epoch_millis"}}}
        ]
        if ids:
            filters.append({"ids": {"values": ids}})
        pages = Pages(self._client, self._settings, self._target, filters, self._arrival, documents)
        for hits in pages:
            yield hits
            size = sum(len(orjson.dumps(hit.document)) for hit in hits[:: max(1, len(hits) // 20)])
            pages.resize(len(hits[:: max(1, len(hits) // 20)]), size)


def require_stamps(stamped: int, unstamped: int, arrival: str, target: Target) -> None:
    """
    Raises:
        UsageError: no document says when it arrived.
    """
    if unstamped and not stamped:
        hint = (
            "name the field that says when they were indexed with --arrival, or add one: an ingest pipeline with "
            '{"set": {"field": "event.ingested", "value": "{{{_ingest.timestamp}}}"}}'
        )
        raise UsageError(f"no document has {arrival}", location=target.name, hint=hint)


def _digest(hit: Hit) -> bytes:
    return blake2b(hit.place.encode(), digest_size=SIZE).digest()


def _split(digests: bytes) -> Iterator[bytes]:
    return (digests[start : start + SIZE] for start in range(0, len(digests), SIZE))
