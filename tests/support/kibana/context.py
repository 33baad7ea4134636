"""What restricts a request: queries, filters, selections of controls and the time range, and the
fields these name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tests.support.kibana.kql import KqlError, to_dsl
from tests.support.kibana.saved import JSON, BrokenError

FORMAT = "strict_date_optional_time"
ROUND = (
    *(
        (0.5, "100ms"),
        (5, "1s"),
        (7.5, "5s"),
        (15, "10s"),
        (45, "30s"),
        (180, "1m"),
        (540, "5m"),
        (1200, "10m"),
    ),
    *(
        (2700, "30m"),
        (7200, "1h"),
        (21_600, "3h"),
        (86_400, "12h"),
        (604_800, "1d"),
        (1_814_400, "7d"),
    ),
)
"""seconds below which an interval is rounded to one of that name"""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800, "M": 2_629_800, "y": 31_557_600}

SEARCH, AGGREGATE, NUMBER, DATE, SHOW = "search", "aggregate", "number", "date", "show"
"""what a field has to be good for"""


class Use(NamedTuple):
    """A field that an object names."""

    field: str
    needs: str
    place: str
    """object, panel and column"""
    type: str = ""
    """what the object takes it for: Kibana's number, string, ip, date or boolean; empty where it
    doesn't say"""


class Time(NamedTuple):
    """A time range: ISO 8601 or Elasticsearch's date math."""

    start: str
    end: str

    def seconds(self) -> float:
        """How long it is."""
        now = datetime.now(UTC)
        return (_instant(self.end, now) - _instant(self.start, now)).total_seconds()


class Context(NamedTuple):
    """What a request inherits from its dashboard, and adds to it."""

    queries: tuple[str, ...] = ()
    """KQL"""
    filters: tuple[JSON, ...] = ()
    """saved filters"""
    time: Time | None = None

    def plus(self, source: Mapping[str, Any], place: str) -> Context:
        """With the query and the filters of an object's search source.

        Raises:
            BrokenError: it is in a language other than KQL.
        """
        query = source.get("query") or {}
        if query.get("query") and query.get("language") != "kuery":
            raise BrokenError(f"{place}: its query is in {query.get('language')}, not in KQL")
        added = (query["query"],) if query.get("query") else ()
        return self._replace(
            queries=self.queries + added,
            filters=self.filters + tuple(source.get("filter") or source.get("filters") or ()),
        )

    def query(self, time_field: str | None) -> JSON:
        """The query of the request.

        Raises:
            KqlError: a query can't be read.
        """
        wanted = [to_dsl(kql) for kql in self.queries]
        unwanted: list[JSON] = []
        for one in self.filters:
            meta = one.get("meta", {})
            if not meta.get("disabled"):
                (unwanted if meta.get("negate") else wanted).append(_filter(one))
        if time_field and self.time:
            wanted.append(
                {
                    "range": {
                        time_field: {"format": FORMAT, "gte": self.time.start, "lte": self.time.end}
                    }
                }
            )
        return {"bool": {"must": [], "filter": wanted, "should": [], "must_not": unwanted}}


def selection(field: str, chosen: Any) -> JSON:
    """The filter of a control in which one or several values were chosen."""
    values = (
        list(chosen) if isinstance(chosen, Sequence) and not isinstance(chosen, str) else [chosen]
    )
    phrases = [{"match_phrase": {field: value}} for value in values]
    query = (
        phrases[0]
        if len(phrases) == 1
        else {"bool": {"should": phrases, "minimum_should_match": 1}}
    )
    return {"meta": {"key": field, "negate": False, "disabled": False}, "query": query}


def fields_of(query: Any) -> Iterator[tuple[str, str]]:
    """(field, what it has to be good for) of a query in Elasticsearch's DSL.

    Raises:
        BrokenError: there is a kind of query in it that isn't known here.
    """
    if isinstance(query, list):
        for one in query:
            yield from fields_of(one)
        return
    for kind, inner in query.items():
        if kind == "bool":
            for part in ("must", "filter", "should", "must_not"):
                yield from fields_of(inner.get(part, []))
        elif kind in ("match", "match_phrase", "term", "terms", "wildcard", "prefix", "range"):
            yield from ((name, SEARCH) for name in inner if name not in ("boost",))
        elif kind == "exists":
            yield inner["field"], SEARCH
        elif kind == "query_string" and "fields" in inner:
            yield from ((name, SEARCH) for name in inner["fields"])
        elif kind != "match_all":
            raise BrokenError(f"a query of kind {kind} is not known here")


def uses_of(source: Mapping[str, Any], place: str) -> Iterator[Use]:
    """Fields that an object's own query and filters name.

    Raises:
        BrokenError: a query can't be read.
    """
    try:
        query = Context().plus(source, place).query(None)
    except KqlError as error:
        raise BrokenError(f"{place}: {error}") from error
    for name, needs in fields_of(query):
        yield Use(name, needs, f"{place}, query")


def interval(time: Time | None, bars: int = 50) -> JSON:
    """The interval that Kibana's `auto` takes for a time range: a round one near that many bars."""
    seconds = (time or Time("now-15m", "now")).seconds() / bars
    return {"fixed_interval": next((name for bound, name in ROUND if seconds < bound), "30d")}


def _filter(one: JSON) -> JSON:
    if one.get("meta", {}).get("type") == "combined":
        raise BrokenError("combined filters are not known here")
    if "query" in one:
        return dict(one["query"])
    return {name: value for name, value in one.items() if name not in ("meta", "$state")}


def _instant(text: str, now: datetime) -> datetime:
    """The instant that date math (`now`, `now-7d`, `now/d` as now) or ISO 8601 means."""
    if not text.startswith("now"):
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    ago = text.removeprefix("now").partition("/")[0].removeprefix("-")
    return now - timedelta(seconds=int(ago[:-1]) * UNITS[ago[-1]]) if ago else now
