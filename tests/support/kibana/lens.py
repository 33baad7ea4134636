"""A Lens layer → the aggregations that Kibana would ask for, and their answer → the table that it
would draw.

Known: terms (by a column, alphabetically, rare; with missing), date_histogram, filters, range;
count, unique_count, sum, min, max, average, median, percentile, last_value, each with a filter of
its own; static_value, formula. Everything else is refused. `last_value` of one value is asked for
as `top_hits`: Kibana asks `top_metrics`, which the tests' Elasticsearch doesn't have; which types
it can take is checked on the mapping. What isn't among the rows of a terms column ("Other") takes a
second request, known for the first column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tests.support.kibana.context import (
    AGGREGATE,
    DATE,
    FORMAT,
    NUMBER,
    SHOW,
    Time,
    Use,
    fields_of,
    interval,
)
from tests.support.kibana.kql import to_dsl
from tests.support.kibana.saved import JSON, BrokenError

RECORDS = "___records___"
OTHER = "__other__"
BUCKETS = ("terms", "date_histogram", "filters", "range")
SINGLE = {"unique_count": "cardinality", "sum": "sum", "min": "min", "max": "max", "average": "avg"}
ADDING = ("count", "unique_count", "sum")
"""operations that answer 0 where there is nothing"""
MATHS: Mapping[str, Callable[[float, float], float | None]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b if b else None,
}
COLUMN_KEYS = {"label", "customLabel", "dataType", "operationType", "sourceField", "isBucketed", "scale", "params",  # noqa: E501
               "filter", "references", "isStaticValue", "timeScale", "reducedTimeRange", "timeShift"}  # fmt: skip  # noqa: E501

Row = dict[str, Any]


class Column(NamedTuple):
    """One column of a layer, and the name of its aggregation."""

    id: str
    agg: str
    state: JSON
    place: str

    @property
    def operation(self) -> str:
        return str(self.state["operationType"])

    @property
    def params(self) -> JSON:
        return dict(self.state.get("params") or {})

    @property
    def kql(self) -> str:
        """Its own filter."""
        return str((self.state.get("filter") or {}).get("query") or "")


class Layer:
    """The columns of one layer.

    Raises:
        BrokenError: there is something in it that Kibana or this translator doesn't know.
    """

    def __init__(self, state: Mapping[str, Any], place: str) -> None:
        self.place = place
        order, columns = state["columnOrder"], state["columns"]
        if sorted(order) != sorted(columns):
            raise BrokenError(
                f"{place}: columnOrder names {sorted(order)}, columns are {sorted(columns)}"
            )
        asked = [
            name
            for name in order
            if columns[name]["operationType"] not in ("formula", "math", "static_value")
        ]
        self.columns = {
            name: Column(
                name,
                str(asked.index(name)) if name in asked else "",
                columns[name],
                self._named(columns[name]),
            )
            for name in order
        }
        for column in self.columns.values():
            _check(column)
        every = [self.columns[name] for name in asked]
        self.buckets = [one for one in every if one.operation in BUCKETS]
        self.metrics = [one for one in every if one.operation not in BUCKETS]
        self.derived = [one for one in self.columns.values() if not one.agg]
        if any(one.params.get("otherBucket") for one in self.buckets[1:]):
            raise BrokenError(
                f"{place}: the rest of a terms column is known here for the first column only"
            )
        if every[: len(self.buckets)] != self.buckets:
            raise BrokenError(f"{place}: buckets come before metrics in columnOrder")

    def _named(self, state: Mapping[str, Any]) -> str:
        return f"{self.place}, column {state.get('label') or state['operationType']}"

    def aggs(self, time: Time | None) -> JSON:
        """The aggregations, nested as the columns are ordered."""
        inner: JSON = {}
        for column in self.metrics:
            inner |= _metric(column)
        for column in reversed(self.buckets):
            inner = {column.agg: self._bucket(column, time) | ({"aggs": inner} if inner else {})}
        for column, level in zip(self.buckets, self._levels(inner), strict=True):
            ordering = self._ordering(column)
            if ordering:
                level.setdefault("aggs", {}).update(_metric(ordering))
        return inner

    def _levels(self, aggs: JSON) -> Iterator[JSON]:
        for column in self.buckets:
            level = aggs[column.agg]
            yield level
            aggs = level.get("aggs", {})

    def _ordering(self, column: Column) -> Column | None:
        order = column.params.get("orderBy", {})
        if column.operation != "terms" or order.get("type") != "column":
            return None
        if order["columnId"] not in {one.id for one in self.metrics}:
            raise BrokenError(
                f"{column.place}: ordered by {order['columnId']!r}, which is no metric of the layer"
            )
        return self.columns[order["columnId"]]

    def _bucket(self, column: Column, time: Time | None) -> JSON:
        params, field = column.params, column.state.get("sourceField")
        if column.operation == "filters":
            named = {
                one.get("label") or one["input"]["query"]: to_dsl(one["input"]["query"])
                for one in params["filters"]
            }
            return {"filters": {"filters": named}}
        if column.operation == "range":
            if params.get("type") != "range":
                raise BrokenError(
                    f"{column.place}: only ranges that are written out are known here"
                )
            ranges = [
                {end: one[end] for end in ("from", "to") if one.get(end) is not None}
                for one in params["ranges"]
            ]
            return {"range": {"field": field, "ranges": ranges, "keyed": True}}
        if column.operation == "date_histogram":
            return {
                "date_histogram": {
                    "field": field,
                    "time_zone": "UTC",
                    **_interval(params, time),
                    **_bounds(params, time),
                }
            }
        return self._terms(column)

    def _terms(self, column: Column) -> JSON:
        params, field = column.params, column.state["sourceField"]
        order = params["orderBy"]
        if order["type"] == "rare":
            return {"rare_terms": {"field": field, "max_doc_count": order["maxDocCount"]}}
        metric = self._ordering(column)
        by = "_key" if metric is None else _path(metric)
        asked: JSON = {
            "field": field,
            "order": {by: params["orderDirection"]},
            "size": params["size"],
        }
        asked |= {name: params[name] for name in ("include", "exclude") if params.get(name)}
        if (
            params.get("otherBucket")
            and params.get("missingBucket")
            and column.state["dataType"] == "string"
        ):
            asked["missing"] = "__missing__"
        return {"terms": asked}

    def rest(self, aggs: JSON, answer: Mapping[str, Any]) -> JSON | None:
        """The aggregations of Kibana's second request, for what isn't among the first column's
        rows; None where it sends none."""
        column = self.buckets[0] if self.buckets else None
        if column is None or not column.params.get("otherBucket"):
            return None
        found, field = answer["aggregations"][column.agg], column.state["sourceField"]
        if not found["buckets"] or not found["sum_other_doc_count"]:
            return None
        keys = [one["key"] for one in found["buckets"]]
        known = (
            [{"exists": {"field": field}}]
            if "__missing__" in keys or not column.params.get("missingBucket")
            else []
        )
        shown = [{"match_phrase": {field: key}} for key in keys if key != "__missing__"]
        others = {"bool": {"must": [], "filter": known, "should": [], "must_not": shown}}
        inner = aggs[column.agg].get("aggs")
        return {
            "other-filter": {
                "filters": {"filters": {"": others}},
                **({"aggs": inner} if inner else {}),
            }
        }

    def completed(self, answer: JSON, rest: Mapping[str, Any]) -> JSON:
        """The first answer with the row of the others."""
        found = answer["aggregations"][self.buckets[0].agg]
        other = rest["aggregations"]["other-filter"]["buckets"][""] | {"key": OTHER}
        buckets = [*found["buckets"], other] if other["doc_count"] else found["buckets"]
        return {
            **answer,
            "aggregations": {
                **answer["aggregations"],
                self.buckets[0].agg: {**found, "buckets": buckets},
            },
        }

    def rows(self, answer: Mapping[str, Any]) -> list[Row]:
        """Column id → value."""
        whole = {"doc_count": answer["hits"]["total"]["value"], **answer.get("aggregations", {})}
        rows = list(self._rows(whole, 0))
        for row in rows:
            for column in self.derived:
                row[column.id] = self._derive(column, row)
        return rows

    def _rows(self, node: Mapping[str, Any], depth: int) -> Iterator[Row]:
        if depth == len(self.buckets):
            yield {column.id: _value(column, node) for column in self.metrics}
            return
        column = self.buckets[depth]
        buckets = node[column.agg]["buckets"] if column.agg in node else []
        pairs = (
            buckets.items() if isinstance(buckets, dict) else ((_key(one), one) for one in buckets)
        )
        for key, bucket in pairs:
            for row in self._rows(bucket, depth + 1):
                yield {column.id: key, **row}

    def _derive(self, column: Column, row: Row) -> Any:
        if column.operation == "static_value":
            return float(column.params["value"])
        if column.operation == "formula":
            inner = column.state["references"][0]
            return row[inner] if inner in row else self._derive(self.columns[inner], row)
        return self._calculated(column.params["tinymathAst"], row)

    def _calculated(self, node: Any, row: Row) -> Any:
        if isinstance(node, int | float):
            return node
        if isinstance(node, str) or node.get("type") == "variable":
            name = node if isinstance(node, str) else node["value"]
            return row[name] if name in row else self._derive(self.columns[name], row)
        left, right = (self._calculated(one, row) for one in node["args"])
        return None if left is None or right is None else MATHS[node["name"]](left, right)

    def empty(self, rows: list[Row]) -> Iterator[str]:
        """What the table unexpectedly lacks."""
        if not rows:
            yield f"{self.place}: no rows"
            return
        for column in self.columns.values():
            values = [row.get(column.id) for row in rows]
            nothing = (None, 0) if column.operation in ADDING else (None,)
            if all(value in nothing for value in values):
                yield f"{column.place}: no value in {len(rows)} rows"
        counted = [one for one in self.metrics if one.operation == "count" and not one.kql]
        for column in (
            one for one in self.buckets if one.operation in ("filters", "range") and counted
        ):
            full = {row[column.id] for row in rows if row[counted[0].id]}
            for key in {row[column.id] for row in rows} - full:
                yield f"{column.place}: nothing in {key!r}"

    def uses(self) -> Iterator[Use]:
        """Every field that the layer names."""
        for column in self.columns.values():
            yield from _uses(column)


def _check(column: Column) -> None:
    state = column.state
    unknown = state.keys() - COLUMN_KEYS
    if unknown:
        raise BrokenError(f"{column.place}: unknown keys {sorted(unknown)}")
    for name in ("timeShift", "reducedTimeRange"):
        if state.get(name):
            raise BrokenError(f"{column.place}: {name} is not known here")
    known = {
        *BUCKETS,
        *SINGLE,
        "count",
        "median",
        "percentile",
        "last_value",
        "static_value",
        "formula",
        "math",
    }
    if column.operation not in known:
        raise BrokenError(f"{column.place}: the operation {column.operation} is not known here")
    if bool(state.get("isBucketed")) != (column.operation in BUCKETS):
        raise BrokenError(f"{column.place}: isBucketed is wrong")
    if (state.get("filter") or {}).get("language", "kuery") != "kuery":
        raise BrokenError(f"{column.place}: its filter is not in KQL")


def _metric(column: Column) -> JSON:
    """Its aggregation by name; nothing where the count of documents is all."""
    asked = _asked(column)
    if not column.kql:
        return {column.agg: asked} if asked else {}
    inner = {"aggs": {f"{column.agg}-metric": asked}} if asked else {}
    return {f"{column.agg}-filter": {"filter": to_dsl(column.kql), **inner}}


def _asked(column: Column) -> JSON:
    field, params = column.state.get("sourceField"), column.params
    if column.operation == "count":
        return {} if field == RECORDS else {"value_count": {"field": field}}
    if column.operation in SINGLE:
        return {SINGLE[column.operation]: {"field": field}}
    if column.operation in ("median", "percentile"):
        return {
            "percentiles": {
                "field": field,
                "percents": [params.get("percentile", 50)],
                "keyed": False,
            }
        }
    newest = [{params["sortField"]: {"order": "desc"}}]
    return {"top_hits": {"size": 1, "_source": False, "fields": [{"field": field}], "sort": newest}}


def _path(column: Column) -> str:
    """How a terms aggregation is ordered by the column."""
    if column.operation == "last_value":
        raise BrokenError(f"{column.place}: rows can't be ordered by a last value here")
    end = ".50" if column.operation == "median" else f".{column.params.get('percentile')}"
    end = end if column.operation in ("median", "percentile") else ""
    if column.kql:
        return f"{column.agg}-filter" + (f">{column.agg}-metric{end}" if _asked(column) else "")
    return f"{column.agg}{end}" if _asked(column) else "_count"


def _value(column: Column, node: Mapping[str, Any]) -> Any:
    name = column.agg
    if column.kql:
        node, name = node.get(f"{name}-filter", {"doc_count": 0}), f"{name}-metric"
    if not _asked(column):
        return node["doc_count"]
    found = node.get(name, {})
    if column.operation == "last_value":
        hits = found.get("hits", {}).get("hits", [])
        values = (
            hits[0].get("fields", {}).get(column.state["sourceField"], [None]) if hits else [None]
        )
        return values if len(values) > 1 else values[0]
    if column.operation in ("median", "percentile"):
        return found["values"][0]["value"] if found else None
    return found.get("value_as_string", found.get("value"))


def _key(bucket: Mapping[str, Any]) -> Any:
    return bucket.get("key_as_string", bucket["key"])


def _interval(params: JSON, time: Time | None) -> JSON:
    wanted = params.get("interval", "auto")
    if wanted == "auto":
        return interval(time)
    count, unit = wanted[:-1] or "1", wanted[-1]
    calendar = unit in "yqMw" or (count == "1" and unit in "mhd")
    return {"calendar_interval" if calendar else "fixed_interval": f"{count}{unit}"}


def _bounds(params: JSON, time: Time | None) -> JSON:
    if not params.get("includeEmptyRows", True):
        return {"min_doc_count": 1}
    ends = {"extended_bounds": {"min": time.start, "max": time.end}} if time else {}
    return {"min_doc_count": 0, "format": FORMAT, **ends}


def _uses(column: Column) -> Iterator[Use]:
    field, kind = column.state.get("sourceField"), column.state["dataType"]
    if column.kql:
        yield from (
            Use(name, needs, f"{column.place}, filter")
            for name, needs in fields_of(to_dsl(column.kql))
        )
    if column.operation == "filters":
        for one in column.params["filters"]:
            for name, needs in fields_of(to_dsl(one["input"]["query"])):
                yield Use(name, needs, column.place)
    if field is None or field == RECORDS:
        return
    if column.operation in ("sum", "average", "median", "percentile", "range"):
        yield Use(field, NUMBER, column.place)
    elif column.operation == "date_histogram":
        yield Use(field, DATE, column.place, "date")
    elif column.operation == "last_value" and column.params.get("showArrayValues"):
        yield Use(field, SHOW, column.place, kind)
    elif column.operation in ("terms", "last_value", "min", "max"):
        yield Use(field, AGGREGATE, column.place, kind)
    else:
        yield Use(field, AGGREGATE, column.place)
    if column.operation == "last_value":
        yield Use(column.params["sortField"], DATE, f"{column.place}, newest by")
