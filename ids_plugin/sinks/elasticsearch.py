"""Writes documents to an Elasticsearch data stream, each once across retries and rollovers.

A bulk `create` with the document's deterministic id is refused (409, which counts as success) where
the id exists, but only within the backing index that is written to. So before a document is
created, realtime gets look it up in every backing index that could hold it; unlike searches they
see what was written a moment ago. When the set of backing indices has changed meanwhile, or another
writer was active, the lookup is repeated. Of several copies the oldest stays, so that all writers
come to the same result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

import orjson

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.config import load
from ids_plugin.elastic.client import JSON, connect
from ids_plugin.elastic.streams import ALERTS, VERSION, backing, explain, refusal, stream
from ids_plugin.errors import UsageError
from ids_plugin.schema.alert import happened
from ids_plugin.sinks import Delivered, Refusal, RetryAfter, SinkEnvironment

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch as Client

RETRY_SOON_S, RETRY_LATER_S = 1.0, 5.0
"""until a retry is worthwhile: for what passes by itself, and for what a person has to repair"""

CLOCK_SKEW_MS = 3600_000
"""that the clocks of this host and of Elasticsearch may differ"""

REQUEST_BYTES, REQUEST_LOOKUPS = 900_000, 5_000
"""of documents, and documents looked up, in one request: proxies often accept at most 1 MB"""

MAX_ID_BYTES = 512
"""bytes; Elasticsearch refuses the whole request for a longer one"""

INDEX_ERRORS = frozenset(
    {"index_closed_exception", "validation_exception", "illegal_state_exception"}
)
"""errors with status 400 that say nothing about the document"""

NO_PIPELINE = re.compile(r"pipeline with id \[.*\] does not exist")
"""another such error, known by its reason alone"""

NDJSON_HEADERS = {"accept": "application/json", "content-type": "application/x-ndjson"}


class _Wait(Exception):
    """Nothing can be written now."""

    def __init__(self, seconds: float, what: str, then: str) -> None:
        super().__init__(what)
        self.answer = RetryAfter(seconds, f"{what} ({then})")


class _Copy(NamedTuple):
    """Where a document is: its backing index and the version that a deletion names."""

    place: str
    seq_no: int
    primary_term: int


class Elasticsearch:
    """Writes to the data stream `name` in the namespace of the settings. The target is a URL.

    `clock` gives the time that becomes `event.ingested` where `write` isn't passed one.

    Raises:
        MissingExtraError: the client isn't installed.
        ConfigError: the settings can't be right.
    """

    name = "elasticsearch"

    def __init__(
        self,
        settings: Settings,
        name: str = ALERTS,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.stream = stream(name, settings.namespace)
        self.location = f"{settings.url}/{self.stream}"
        self._settings = settings
        self._clock = clock
        self._client: Client = connect(settings)

    @classmethod
    def open(cls, target: str, environment: SinkEnvironment) -> Self:
        """A sink for the alerts of a scan at a URL; login, CA file and namespace are settings.

        Raises:
            UsageError: the target isn't a URL, or holds a password that anybody could read.
            ConfigError, MissingExtraError: as for the class.
        """
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("is no URL", location=target, hint="such as https://host:9200")
        if "@" in parts.netloc:
            hint = "they belong in IDS_ELASTICSEARCH_USERNAME and IDS_ELASTICSEARCH_PASSWORD_FILE"
            shown = f"{parts.scheme}://***@{parts.netloc.rpartition('@')[2]}{parts.path}"
            raise UsageError("the URL holds a user or a password", location=shown, hint=hint)
        settings = load(environment.config).elasticsearch
        return cls(replace(settings, url=target), clock=environment.clock)

    def write(
        self,
        documents: Sequence[Mapping[str, Any]],
        since: int | None = None,
        ingested: datetime | None = None,
    ) -> Delivered | RetryAfter:
        """Writes each document once, whatever was written before.

        After RetryAfter some documents may have been stored; write the same batch again.

        Args:
            documents: alert or ledger documents with an `event.id`.
            since: ms since the epoch, before which no attempt was made to write these documents.
                Backing indices that took nothing since then, nor since the earliest `@timestamp`,
                aren't searched: they can't hold the documents.
            ingested: becomes their `event.ingested`.
        """
        if not documents:
            return Delivered(0)
        if ingested is None and self._clock:
            ingested = self._clock()
        from elasticsearch import ApiError, TransportError

        try:
            return self._write(
                documents, None if since is None else min(since, _earliest(documents)), ingested
            )
        except _Wait as wait:
            return wait.answer
        except (ApiError, TransportError) as error:
            what, then = explain(error)
            passes = (
                not isinstance(error, ApiError)
                or error.meta.status == 429
                or error.meta.status >= 500
            )
            return RetryAfter(
                RETRY_SOON_S if passes else RETRY_LATER_S, f"{self.location}: {what} ({then})"
            )

    def problem(self) -> str | None:
        """Why nothing could be written now and what to do about it; None when all is well."""
        from elasticsearch import ApiError, TransportError

        try:
            self._indices(None)
        except _Wait as wait:
            return wait.answer.reason
        except (ApiError, TransportError) as error:
            return "{}: {} ({})".format(self.location, *explain(error))
        return None

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def abort(self) -> None:
        """What was taken stays: every document of it is whole."""
        self.close()

    def _write(
        self, documents: Sequence[Mapping[str, Any]], since: int | None, ingested: datetime | None
    ) -> Delivered | RetryAfter:
        named, refusals = _named(documents)
        before = self._indices(since)
        existing = self._there(named, before)
        missing = {name: position for name, position in named.items() if name not in existing}
        created, refused = self._create(missing, documents, ingested)
        after = self._indices(since)
        if after != before:
            self._there(named, after)
        taken = len(documents) - len(refusals) - len(refused)
        return Delivered(taken, tuple(sorted(refusals + refused)), known=taken - created)

    def _indices(self, since: int | None) -> list[str]:
        """Backing indices that were written to since then, oldest first.

        Raises:
            _Wait: there is none, or its mapping isn't ours or too old for what we write.
        """
        indices = backing(self._client, self.stream)
        if not indices:
            raise self._wait(f"there is no data stream {self.stream}")
        version = indices[-1].version
        if version is None:
            raise self._wait(
                f"data stream {self.stream} wasn't made from our template and would take anything"
            )
        if version < VERSION:
            raise self._wait(f"data stream {self.stream} was made from an older template")
        written = [
            index
            for index, next_index in pairwise(indices)
            if since is None or next_index.created + CLOCK_SKEW_MS >= since
        ]
        return [index.name for index in (*written, indices[-1])]

    def _wait(self, what: str) -> _Wait:
        then = (
            "run: ids-plugin setup elasticsearch --url "
            f"{self._settings.url} --namespace {self._settings.namespace}"
        )
        return _Wait(RETRY_LATER_S, f"{self.location}: {what}", then)

    def _there(self, ids: Iterable[str], indices: Sequence[str]) -> set[str]:
        """The ids that are stored already; of several copies all but the oldest are deleted.

        Raises:
            _Wait: an index can't be read, or a copy can't be deleted.
        """
        asked = [
            {"_index": index, "_id": name, "_source": False} for name in ids for index in indices
        ]
        wanted = "docs._index,docs._id,docs.found,docs._seq_no,docs._primary_term,docs.error"
        answers: list[Any] = []
        for start in range(0, len(asked), REQUEST_LOOKUPS):
            body = orjson.dumps({"docs": asked[start : start + REQUEST_LOOKUPS]})
            answers += self._request("POST", f"/_mget?filter_path={wanted}", body)["docs"]
        copies: dict[str, list[_Copy]] = {}
        for name in answers:
            if name.get("found"):
                copy = _Copy(name["_index"], name["_seq_no"], name["_primary_term"])
                copies.setdefault(name["_id"], []).append(copy)
            elif (
                name.get("error", {}).get("type", "index_not_found_exception")
                != "index_not_found_exception"
            ):
                what, then = refusal(_status(name["error"]), name["error"])
                raise _Wait(
                    RETRY_LATER_S, f"{self.location}: {name['_index']} can't be read: {what}", then
                )
        self._delete([(name, newer) for name, held in copies.items() for newer in held[1:]])
        return set(copies)

    def _delete(self, copies: Sequence[tuple[str, _Copy]]) -> None:
        """
        Raises:
            _Wait: one of them can't be deleted; one that has gone meanwhile is deleted.
        """
        if not copies:
            return
        lines = [
            {
                "delete": {
                    "_index": copy.place,
                    "_id": name,
                    "if_seq_no": copy.seq_no,
                    "if_primary_term": copy.primary_term,
                }
            }
            for name, copy in copies
        ]
        for answer in self._bulk(b"".join(map(_line, lines))):
            if answer["status"] not in (200, 404, 409):
                what, then = refusal(answer["status"], answer.get("error", {}))
                raise _Wait(
                    RETRY_LATER_S, f"{self.location}: a copy can't be deleted: {what}", then
                )

    def _create(
        self,
        named: Mapping[str, int],
        documents: Sequence[Mapping[str, Any]],
        ingested: datetime | None,
    ) -> tuple[int, list[Refusal]]:
        """Creates documents: returns how many were new, and which will never be taken.

        `named` is the id → position in the batch of each.

        Raises:
            _Wait: not all of them are there.
        """
        lines, refusals = _lines(named, documents, ingested)
        answers = [
            answer
            for body in _bodies(lines.values())
            for answer in self._bulk(body, f"/{self.stream}")
        ]
        created = 0
        for position, answer in zip(lines, answers, strict=True):
            status, error = answer["status"], answer.get("error", {})
            if answer.get("failure_store") == "used":
                refusals.append(
                    Refusal(position, "failure_store", "it went to the data stream's failure store")
                )
            elif status == 400 and NO_PIPELINE.match(str(error.get("reason"))):
                raise self._wait(str(error["reason"]))
            elif status == 400 and error.get("type") not in INDEX_ERRORS:
                refusals.append(Refusal(position, str(error.get("type")), _reason(error)))
            elif status == 201:
                created += 1
            elif status != 409:
                what, then = refusal(status, error)
                raise _Wait(
                    RETRY_SOON_S if status == 429 or status >= 500 else RETRY_LATER_S,
                    f"{self.location}: {what}",
                    then,
                )
        return created, refusals

    def _bulk(self, body: bytes, path: str = "") -> list[dict[str, Any]]:
        wanted = ",".join(f"items.*.{part}" for part in ("status", "error", "failure_store"))
        answer = self._request("POST", f"{path}/_bulk?filter_path={wanted}", body, NDJSON_HEADERS)
        return [next(iter(item.values())) for item in answer["items"]]

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = JSON
    ) -> Any:
        answer: Any = self._client.perform_request(method, path, headers=headers, body=body)
        return answer.body


def _named(documents: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], list[Refusal]]:
    """Id → place of its first document in the batch, and those without an id that Elasticsearch
    could take."""
    named: dict[str, int] = {}
    refusals = []
    for position, document in enumerate(documents):
        if not isinstance(document, Mapping):
            refusals.append(Refusal(position, "no_document", "it is no JSON object"))
            continue
        event = document.get("event")
        name = event.get("id") if isinstance(event, Mapping) else None
        if isinstance(name, str) and name.isascii() and 0 < len(name) <= MAX_ID_BYTES:
            named.setdefault(name, position)
        else:
            refusals.append(
                Refusal(position, "no_id", "event.id is no ASCII text of at most 512 characters")
            )
    return named, refusals


def _earliest(documents: Sequence[Mapping[str, Any]]) -> int:
    """The earliest `@timestamp` in ms since the epoch; 0 where one can't be read."""
    return min(int((happened(document) or 0) * 1000) for document in documents)


def _lines(
    named: Mapping[str, int], documents: Sequence[Mapping[str, Any]], ingested: datetime | None
) -> tuple[dict[int, bytes], list[Refusal]]:
    """Place → its lines of the bulk request, and those that are nested too deep to be written."""
    lines: dict[int, bytes] = {}
    refusals = []
    for name, position in named.items():
        try:
            lines[position] = _line({"create": {"_id": name}}) + _line(
                _stamped(documents[position], ingested)
            )
        except orjson.JSONEncodeError as error:
            refusals.append(Refusal(position, "not_json", str(error)))
    return lines, refusals


def _bodies(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in their order, as requests of at most REQUEST_BYTES.

    A document that is larger becomes a request of its own.
    """
    body: list[bytes] = []
    size = 0
    for line in lines:
        if body and size + len(line) > REQUEST_BYTES:
            yield b"".join(body)
            body, size = [], 0
        body.append(line)
        size += len(line)
    if body:
        yield b"".join(body)


def _stamped(document: Mapping[str, Any], ingested: datetime | None) -> Mapping[str, Any]:
    if ingested is None:
        return document
    moment = ingested.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {**document, "event": {**document["event"], "ingested": moment}}


def _line(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _reason(error: Mapping[str, Any]) -> str:
    """The error's reason, with its cause's where that says more."""
    cause = error.get("caused_by", {}).get("reason")
    return f"{error.get('reason')}: {cause}" if cause else str(error.get("reason"))


def _status(error: Mapping[str, Any]) -> int:
    """The status that goes with an error inside an answer that is itself 200."""
    return 403 if error.get("type") in ("security_exception", "cluster_block_exception") else 503


PLUGIN = Elasticsearch
