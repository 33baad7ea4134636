"""Pages of documents out of an Elasticsearch index, as of one moment, in the order of a time field.

A point in time keeps what is read the same however long it takes. When it is lost (it expires after
KEPT_ALIVE without a question, or a node restarts) another one is opened, and reading goes on at the
time of the last document; those of that very time which were given are known by their ids. Whatever
is missing from an answer is an error, never silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.elastic.client import asking
from ids_plugin.elastic.client import connect as connect_client
from ids_plugin.errors import InputError, ServiceError, UsageError

if TYPE_CHECKING:
    from elasticsearch import ApiError, Elasticsearch

SCHEME = "elasticsearch:"
TIME = "@timestamp"
KEPT_ALIVE = "5m"
PAGE_BYTES = 4 << 20
"""of documents in one answer, about: a page's size is set by the size of those before it"""
FIRST, MOST = 200, 10_000
"""documents of the first page, and of any: more than 10,000 (`index.max_result_window`) isn't
allowed"""
MOST_EQUAL = 1_000_000
"""documents of the same time that are remembered, to tell them apart when another point in time has
to be opened"""
LAST = 1 << 62
"""sort values beyond it stand for a time that is missing"""
RETRIES = 3
BUSY = (429, 502, 503, 504)
HINTS = {
    400: "check the query, and that the time field is a date",
    403: "reading needs the index privilege read (read_cross_cluster on a remote cluster)",
    404: "check the name of the index, and that its cluster is connected",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What `elasticsearch:URL/INDEX` names."""

    name: str
    """as it was written"""
    url: str
    index: str
    """an index, data stream or alias, or several by commas and wildcards, also on remote clusters
    (`cluster:index`)"""
    query: str | None
    """Lucene's query syntax, as in `?q=` of Elasticsearch's own searches"""


def target(spec: str) -> Target:
    """
    Raises:
        UsageError: the spec names no index, or holds a user or a password.
    """
    parts = urlsplit(spec.removeprefix(SCHEME))
    if "@" in parts.netloc:
        shown = f"{SCHEME}{parts.scheme}://***@{parts.netloc.rpartition('@')[2]}{parts.path}"
        hint = "they belong into --username and --password-file, or --api-key-file"
        raise UsageError("the URL holds a user or a password", location=shown, hint=hint)
    base, _, index = parts.path.rpartition("/")
    asked = parse_qs(parts.query)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or not index
        or asked.keys() - {"q"}
    ):
        hint = (
            f"such as {SCHEME}https://host:9200/logs-zeek.connection-*, "
            "with ?q=QUERY for some of its documents"
        )
        raise UsageError(f"is not {SCHEME}URL/INDEX", location=spec, hint=hint)
    query = asked.get("q", [None])[0]
    return Target(
        spec, urlunsplit((parts.scheme, parts.netloc, base, "", "")), unquote(index), query
    )


@dataclass(frozen=True, slots=True)
class Hit:
    """A document."""

    index: str
    id: str
    time: int
    """ms since the epoch, of the field that orders; LAST or more where it has none"""
    document: dict[str, Any]
    """empty where documents weren't asked for"""

    @property
    def place(self) -> str:
        """`INDEX/_id`"""
        return f"{self.index}/{self.id}"


def connect(settings: Settings) -> Elasticsearch:
    """A client that parses quickly and asks again where that may help.

    Raises:
        MissingExtraError, ConfigError: as `elastic.connect`.
    """
    try:
        from elasticsearch.serializer import OrjsonSerializer
    except ImportError:
        return connect_client(settings)
    fast = dict.fromkeys(
        ("application/json", "application/vnd.elasticsearch+json"), OrjsonSerializer()
    )
    retrying = {"max_retries": RETRIES, "retry_on_status": BUSY, "retry_on_timeout": True}
    return connect_client(settings, serializers=fast, **retrying)


@dataclass
class Pages:
    """The documents of an index, by pages; to be iterated once.

    Args:
        client: of `connect`.
        settings: whose URL errors name.
        target: which documents.
        filters: further conditions, as Elasticsearch's query objects.
        time: the field that orders them; those without it come last.
        documents: whether the documents are wanted, or only parts of them by name, or their ids
            alone.
    """

    client: Elasticsearch
    settings: Settings
    target: Target
    filters: Sequence[Mapping[str, Any]] = ()
    time: str = TIME
    documents: bool | Sequence[str] = True
    reopened: int = 0
    """how often the point in time was lost"""
    pit: str | None = None
    """id of the point in time, while there is one"""
    _size: int = FIRST
    _after: list[Any] | None = None
    _last: int = -LAST
    """time of the last document given; -LAST before the first"""
    _equal: set[str] = field(default_factory=set)
    """places of the documents given that have this time"""
    _from: int | None = None
    """time from which on the present point in time is read"""

    def __iter__(self) -> Iterator[list[Hit]]:
        """
        Raises:
            InputError: there is no such index.
            ServiceError: Elasticsearch can't be reached, refuses, or doesn't answer for all shards.
        """
        try:
            while hits := self._next():
                if fresh := [hit for hit in hits if self._is_new(hit)]:
                    yield fresh
        finally:
            self._close()

    def resize(self, count: int, size: int) -> None:
        """How large the last page's documents were: `size` bytes of `count` documents."""
        wanted = PAGE_BYTES * count // max(1, size)
        self._size = max(1, min(wanted, 4 * self._size, MOST))

    def _is_new(self, hit: Hit) -> bool:
        """Notes a document; False if it was given before the point in time was lost."""
        if hit.time != self._last:
            self._last = hit.time
            self._equal = set()
        known = hit.place in self._equal
        if len(self._equal) <= MOST_EQUAL:
            self._equal.add(hit.place)
        return not known

    def _next(self) -> list[Hit]:
        """The next page; empty at the end."""
        from elasticsearch import ApiError

        while True:
            try:
                with asking(self.settings, f"reading {self.target.index}", HINTS):
                    try:
                        return self._page()
                    except ApiError as error:
                        if not self._recovered(error):
                            raise
            except ServiceError as error:
                if (
                    isinstance(error.__cause__, ApiError)
                    and _kind(error.__cause__) == "index_not_found_exception"
                ):
                    raise InputError(
                        error.message, location=self.target.name, hint=HINTS[404]
                    ) from error
                raise

    def _page(self) -> list[Hit]:
        if self.pit is None:
            self._open()
        order = {
            "order": "asc",
            "unmapped_type": "date",
            "numeric_type": "date",
            "missing": "_last",
        }
        answer = self.client.search(
            pit={"id": self.pit, "keep_alive": KEPT_ALIVE},
            query=self._query(),
            sort=[{self.time: order}, {"_shard_doc": "asc"}],
            search_after=self._after,
            size=self._size,
            source=self.documents
            if isinstance(self.documents, bool)
            else {"includes": list(self.documents)},
            track_total_hits=False,
            allow_partial_search_results=False,
        ).body
        self.pit = answer.get("pit_id", self.pit)
        self._check(answer)
        hits = answer["hits"]["hits"]
        if hits:
            self._after = hits[-1]["sort"]
        return [self._hit(hit) for hit in hits]

    def _open(self) -> None:
        """
        Raises:
            ServiceError: a remote cluster isn't there. A point in time would just leave it out.
        """
        if ":" in self.target.index:
            answer = self.client.search(
                index=self.target.index,
                size=0,
                terminate_after=1,
                track_total_hits=False,
                allow_partial_search_results=False,
            )
            self._check(answer.body)
        opened = self.client.open_point_in_time(index=self.target.index, keep_alive=KEPT_ALIVE)
        self.pit, self._after = opened["id"], None

    def _query(self) -> dict[str, Any]:
        filters: list[Mapping[str, Any]] = list(self.filters)
        if self.target.query:
            filters.append({"query_string": {"query": self.target.query}})
        if self._from is not None:
            filters.append(or_without(self.time, {"gte": self._from}))
        return {"bool": {"filter": filters}}

    def _hit(self, answer: Mapping[str, Any]) -> Hit:
        """
        Raises:
            ServiceError: the index doesn't keep its documents.
        """
        if self.documents and "_source" not in answer:
            hint = "its mapping has _source disabled; read the sensor's records elsewhere"
            raise ServiceError(
                "the index doesn't keep documents", location=str(answer["_index"]), hint=hint
            )
        time = answer["sort"][0]
        return Hit(
            answer["_index"],
            answer["_id"],
            LAST if time is None else int(time),
            answer.get("_source", {}),
        )

    def _check(self, answer: Mapping[str, Any]) -> None:
        """
        Raises:
            ServiceError: the answer isn't about all of it.
            InputError: no index has that name.
        """
        shards, clusters = answer["_shards"], answer.get("_clusters", {})
        missing = (
            shards["failed"]
            or clusters.get("skipped")
            or clusters.get("failed")
            or clusters.get("partial")
        )
        if missing or answer.get("timed_out"):
            away = [
                name
                for name, cluster in clusters.get("details", {}).items()
                if cluster["status"] != "successful"
            ]
            named = f": {', '.join(away)}" if away else ""
            why = (
                "it took too long"
                if answer.get("timed_out")
                else f"{missing} shards or clusters didn't answer{named}"
            )
            raise ServiceError(
                f"reading {self.target.index}: {why}",
                location=self.settings.url,
                hint="see GET _cluster/health",
            )
        if not shards["total"]:
            raise InputError(
                f"no index is called {self.target.index}",
                location=self.target.name,
                hint=HINTS[404],
            )

    def _recovered(self, error: ApiError) -> bool:
        """Whether it is worth asking again: with a smaller page, or from another point in time.

        Raises:
            ServiceError: nothing tells what was read from what wasn't.
        """
        kind = _kind(error)
        if self._size > 1 and (
            "result window is too large" in str(error.body).lower() or error.meta.status == 413
        ):
            self._size //= 2
            return True
        if self.pit is None or kind not in (
            "search_context_missing_exception",
            "no_shard_available_action_exception",
        ):
            return False
        if self._after is None and self.reopened:
            return False
        if len(self._equal) > MOST_EQUAL or -LAST < self._last < 0:
            among = (
                f"more than {MOST_EQUAL:,} documents of one {self.time}"
                if self._last >= 0
                else "those before 1970"
            )
            what = f"the point in time was lost among {among}: where to go on isn't known"
            raise ServiceError(what, location=self.settings.url, hint="run it again")
        self.pit, self.reopened = None, self.reopened + 1
        self._from = self._last if 0 <= self._last < LAST else None
        if self._last >= LAST:
            self.filters = [*self.filters, {"bool": {"must_not": {"exists": {"field": self.time}}}}]
        return True

    def _close(self) -> None:
        """Frees what Elasticsearch keeps for us; it does so by itself after KEPT_ALIVE."""
        from elasticsearch import ApiError, TransportError

        if self.pit is not None:
            with suppress(ApiError, TransportError):
                self.client.options(max_retries=0).close_point_in_time(id=self.pit)
            self.pit = None


def or_without(name: str, bounds: Mapping[str, int]) -> dict[str, Any]:
    """Documents whose time (ms since the epoch) is within bounds, and those that have none."""
    within = {"range": {name: {**bounds, "format": "epoch_millis"}}}
    return {"bool": {"should": [within, {"bool": {"must_not": {"exists": {"field": name}}}}]}}


def _kind(error: ApiError) -> str:
    """The type of the error that is behind an answer."""
    body = error.body.get("error", {}) if isinstance(error.body, Mapping) else {}
    if not isinstance(body, Mapping):
        return ""
    causes = [body.get("type"), *(cause.get("type") for cause in body.get("root_cause", ()))]
    known = [cause for cause in causes if cause and not re.search("phase_execution", cause)]
    return str(known[0]) if known else ""


def settings_for(settings: Settings, target: Target) -> Settings:
    """The settings for another URL."""
    return replace(settings, url=target.url)
