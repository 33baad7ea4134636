"""A dashboard → its panels and controls, and the requests that Kibana sends for them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import unquote

from tests.support.kibana.context import (
    AGGREGATE,
    DATE,
    FORMAT,
    NUMBER,
    SHOW,
    Context,
    Time,
    Use,
    fields_of,
    interval,
    selection,
    uses_of,
)
from tests.support.kibana.kql import to_dsl
from tests.support.kibana.lens import Layer, Row
from tests.support.kibana.saved import JSON, BrokenError, Objects, Saved, opened

LENS = {"lnsXY", "lnsDatatable", "lnsMetric", "lnsPie", "lnsHeatmap"}
FOR_NUMBERS = {"bytes", "number", "percent", "duration"}
"""formats of a data view"""
SUGGESTED = 10
"""options that a control shows at first"""
SAMPLE = 500
"""documents that a saved search asks for, as `discover:sampleSize` does by default"""


class Panel(NamedTuple):
    """A panel of a dashboard, or an object by itself."""

    object: Saved
    id: str
    title: str
    description: str
    grid: Mapping[str, int]
    config: JSON
    kind: str
    """lens, search, vega or markdown"""

    @property
    def place(self) -> str:
        return f"{self.object.type} {self.title or self.id}"


class View(NamedTuple):
    """A data view."""

    object: Saved
    title: str
    time: str | None

    def indices(self, namespace: str) -> str:
        """The indices in which it looks."""
        return self.title.replace("-*", f"-{namespace}")


@dataclass(frozen=True)
class Request:
    """A search that Kibana sends."""

    name: str
    """dashboard, panel and layer"""
    index: str
    body: JSON
    kind: str
    """lens, search, vega or control"""
    panel: Panel | None = None
    layer: Layer | None = None
    columns: tuple[str, ...] = ()

    def rest(self, answer: Mapping[str, Any]) -> Request | None:
        """The second request that Kibana sends where the first didn't answer for every term."""
        aggs = self.layer.rest(self.body["aggs"], answer) if self.layer else None
        return replace(self, body={**self.body, "aggs": aggs}) if aggs else None

    def rows(self, answer: Mapping[str, Any]) -> list[Row]:
        """The table in the answer: by column id of a Lens layer, by field of a search, by option of
        a control."""
        if self.layer:
            return self.layer.rows(answer)
        if self.kind == "control":
            return [{"key": one.get("key_as_string", one["key"])} for one in _options(answer)]
        if self.kind == "search":
            return [_flat(hit, self.columns) for hit in answer["hits"]["hits"]]
        return [hit.get("_source", {}) for hit in answer["hits"]["hits"]]

    def empty(self, answer: Mapping[str, Any]) -> Iterator[str]:
        """What the answer unexpectedly lacks: which panel, which column."""
        if answer.get("timed_out") or answer.get("_shards", {}).get("failed"):
            yield f"{self.name}: not every shard answered"
        rows = self.rows(answer)
        if self.layer:
            yield from (f"{self.name}: {lack}" for lack in self.layer.empty(rows))
        elif not rows and not answer.get("aggregations"):
            yield f"{self.name}: no rows"
        for column in self.columns if rows else ():
            if all(row.get(column) is None for row in rows):
                yield f"{self.name}: no value of {column} in {len(rows)} rows"


def panels(objects: Objects, dashboard: Saved) -> list[Panel]:
    """In reading order.

    Raises:
        BrokenError: a panel can't be read.
    """
    states = opened(dashboard.attributes["panelsJSON"], dashboard.place)
    found = [_panel(objects, dashboard, one) for one in states]
    return sorted(found, key=lambda one: (one.grid["y"], one.grid["x"]))


def controls(dashboard: Saved) -> dict[str, JSON]:
    """Id → state of each control."""
    group = dashboard.attributes.get("controlGroupInput")
    if not group:
        return {}
    states = opened(group["panelsJSON"], f"{dashboard.place}, controls")
    return dict(sorted(states.items(), key=lambda one: one[1]["order"]))


def view_of(objects: Objects, owner: Saved, reference: str) -> View:
    """The data view that a reference means."""
    found = objects.follow(owner, reference)
    return View(found, found.title, found.attributes.get("timeFieldName"))


def requests(
    objects: Objects,
    dashboard: Saved,
    filters: Mapping[str, Any] | None = None,
    time: Time | None = None,
    namespace: str = "*",
    query: str = "",
) -> Iterator[Request]:
    """
    Raises:
        BrokenError, KqlError: something of the dashboard can't be read.
    """
    time = time or saved_time(dashboard)
    context = Context(time=time).plus(dashboard.source(), dashboard.place)
    context = context._replace(queries=(query,)) if query else context
    chosen = {**_preselected(dashboard), **(filters or {})}
    for name in controls(dashboard):
        yield _control(objects, dashboard, name, context, namespace)
    context = context._replace(
        filters=(*context.filters, *(selection(*one) for one in chosen.items()))
    )
    for panel in panels(objects, dashboard):
        yield from panel_requests(objects, panel, context, namespace, f"{dashboard.title} / ")


def panel_requests(
    objects: Objects, panel: Panel, context: Context, namespace: str = "*", prefix: str = ""
) -> Iterator[Request]:
    """What one panel asks."""
    own = panel.config.get("timeRange")
    if own:
        context = context._replace(time=Time(own["from"], own["to"]))
    makers = {"lens": _lens, "search": _search, "vega": _vega, "markdown": _nothing}
    name = f"{prefix}{panel.title}"
    yield from makers[panel.kind](objects, panel, context, namespace, name)


def alone(one: Saved) -> Panel | None:
    """An object that asks something, as if it were the only panel; None for what asks nothing by
    itself."""
    if one.type not in ("lens", "search", "visualization"):
        return None
    title, description = one.title, str(one.attributes.get("description", ""))
    return Panel(
        one, one.id, title, description, {"x": 0, "y": 0, "w": 48, "h": 15}, {}, _kind(one)
    )


def saved_time(dashboard: Saved) -> Time:
    """The time range that the dashboard opens with."""
    if not dashboard.attributes.get("timeRestore"):
        return Time("now-15m", "now")
    return Time(dashboard.attributes["timeFrom"], dashboard.attributes["timeTo"])


def layers(panel: Panel) -> dict[str, Layer]:
    """The layers of a Lens panel."""
    state = panel.object.attributes["state"]
    found = state["datasourceStates"].get("formBased", {}).get("layers", {})
    if not found:
        raise BrokenError(f"{panel.place}: no layers in datasourceStates.formBased")
    names = f"{panel.place}, layer " if len(found) > 1 else ""
    return {
        name: Layer(one, f"{names}{name}" if names else panel.place) for name, one in found.items()
    }


def vega_spec(panel: Panel) -> JSON:
    """The specification of a Vega panel."""
    state = opened(panel.object.attributes["visState"], panel.place)
    return dict(opened(state["params"]["spec"], f"{panel.place}, spec"))


def markdown(panel: Panel) -> str:
    """The text of a markdown panel."""
    state = opened(panel.object.attributes["visState"], panel.place)
    return str(state["params"]["markdown"])


def uses(objects: Objects, one: Saved) -> Iterator[tuple[View, Use]]:
    """Every field that an object names, beside the data view in which it must be.

    Raises:
        BrokenError: the object can't be read.
    """
    if one.type == "dashboard":
        yield from _dashboard_uses(objects, one)
    elif one.type == "index-pattern":
        view = View(one, one.title, one.attributes.get("timeFieldName"))
        yield from ((view, use) for use in _view_uses(one))
    else:
        panel = alone(one)
        if panel is not None:
            yield from _PANEL_USES[panel.kind](objects, panel)


def _panel(objects: Objects, dashboard: Saved, state: JSON) -> Panel:
    config = state.get("embeddableConfig", {})
    if "panelRefName" in state:
        shown = objects.follow(dashboard, f"{state['panelIndex']}:{state['panelRefName']}")
    else:
        shown = _by_value(dashboard, state, config)
    if shown.type != state["type"]:
        raise BrokenError(
            f"{dashboard.place}: panel {state['panelIndex']} is said to be a {state['type']}"
        )
    title = state.get("title") or config.get("title") or shown.title
    description = config.get("description") or shown.attributes.get("description", "")
    return Panel(
        shown, state["panelIndex"], title, description, state["gridData"], config, _kind(shown)
    )


def _by_value(dashboard: Saved, state: JSON, config: JSON) -> Saved:
    """The object that a panel holds itself."""
    name = state["panelIndex"]
    mine = {
        key.removeprefix(f"{name}:"): to
        for key, to in dashboard.references.items()
        if key.startswith(f"{name}:")
    }
    if state["type"] == "lens":
        return Saved("lens", name, config["attributes"], mine)
    if state["type"] == "visualization":
        held = config["savedVis"]
        return Saved("visualization", name, {**held, "visState": json.dumps(held)}, mine)
    raise BrokenError(f"{dashboard.place}: a {state['type']} by value is not known here")


def _kind(one: Saved) -> str:
    if one.type in ("lens", "search"):
        return one.type
    if one.type == "visualization":
        kind = opened(one.attributes["visState"], one.place)["type"]
        if kind in ("vega", "markdown"):
            return str(kind)
        raise BrokenError(f"{one.place}: a visualization of type {kind} is not known here")
    raise BrokenError(f"{one.place}: not known here")


def _preselected(dashboard: Saved) -> dict[str, Any]:
    inputs = [one["explicitInput"] for one in controls(dashboard).values()]
    return {
        one["fieldName"]: one["selectedOptions"] for one in inputs if one.get("selectedOptions")
    }


def _control(
    objects: Objects, dashboard: Saved, name: str, context: Context, namespace: str
) -> Request:
    state = controls(dashboard)[name]
    held = state["explicitInput"]
    place = f"{dashboard.title} / control {held.get('title') or held['fieldName']}"
    if state["type"] != "optionsListControl":
        raise BrokenError(f"{place}: a control of type {state['type']} is not known here")
    view = view_of(objects, dashboard, f"controlGroup_{name}:optionsListDataView")
    field = held["fieldName"]
    sort = held.get("sort", {"by": "_count", "direction": "desc"})
    terms = {
        "field": field,
        "size": SUGGESTED,
        "shard_size": SUGGESTED,
        "order": {sort["by"]: sort["direction"]},
    }
    asked = {"suggestions": {"terms": terms}, "unique_terms": {"cardinality": {"field": field}}}
    body = {
        "size": 0,
        "timeout": "1000ms",
        "terminate_after": 100_000,
        "query": context.query(view.time),
        "aggs": asked,
    }
    return Request(place, view.indices(namespace), body, "control", columns=("key",))


def _options(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(answer["aggregations"]["suggestions"]["buckets"])


def _lens(
    objects: Objects, panel: Panel, context: Context, namespace: str, name: str
) -> Iterator[Request]:
    state = panel.object.attributes["state"]
    found = layers(panel)
    for layer_id, layer in found.items():
        held = state["datasourceStates"]["formBased"]["layers"][layer_id]
        if not layer.buckets and not layer.metrics:
            continue
        view = view_of(objects, panel.object, f"indexpattern-datasource-layer-{layer_id}")
        without = Context(time=context.time)  # with it Kibana leaves out the panel's own query too
        query = (
            without if held.get("ignoreGlobalFilters") else context.plus(state, panel.place)
        ).query(view.time)
        body = {
            "size": 0,
            "track_total_hits": True,
            "query": query,
            "aggs": layer.aggs(context.time),
        }
        named = f"{name} [{layer_id}]" if len(found) > 1 else name
        yield Request(named, view.indices(namespace), body, "lens", panel, layer)


def _search(
    objects: Objects, panel: Panel, context: Context, namespace: str, name: str
) -> Iterator[Request]:
    one, source = panel.object, panel.object.source()
    view = view_of(objects, one, source["indexRefName"])
    columns = tuple(panel.config.get("columns") or one.attributes["columns"])
    sort = [
        {
            field: {
                "order": way,
                "unmapped_type": "boolean",
                **({"format": FORMAT} if field == view.time else {}),
            }
        }
        for field, way in panel.config.get("sort") or one.attributes["sort"]
    ]
    fields = [{"field": "*", "include_unmapped": True}, {"field": view.time, "format": FORMAT}]
    query = context.plus(source, panel.place).query(view.time)
    body = {
        "size": SAMPLE,
        "track_total_hits": False,
        "version": True,
        "_source": False,
        "fields": fields,
    }
    body |= {"stored_fields": ["*"], "sort": [*sort, {"_doc": "desc"}], "query": query}
    yield Request(name, view.indices(namespace), body, "search", panel, columns=columns)


def _vega(
    objects: Objects, panel: Panel, context: Context, namespace: str, name: str
) -> Iterator[Request]:
    for number, url in enumerate(_urls(vega_spec(panel))):
        body = _filled(url, context)
        index = url["index"].replace("-*", f"-{namespace}")
        yield Request(f"{name} [{number}]" if number else name, index, body, "vega", panel)


def _nothing(
    objects: Objects, panel: Panel, context: Context, namespace: str, name: str
) -> Iterator[Request]:
    if not markdown(panel).strip():
        raise BrokenError(f"{panel.place}: no text")
    yield from ()


def _urls(node: Any) -> Iterator[JSON]:
    """The data blocks of a Vega specification that ask Elasticsearch."""
    if isinstance(node, dict):
        url = node.get("url")
        if isinstance(url, dict) and "index" in url:
            yield url
        for inner in node.values():
            yield from _urls(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _urls(inner)


def _filled(url: JSON, context: Context) -> JSON:
    """The body with Kibana's placeholders replaced."""
    body: JSON = copy.deepcopy(url.get("body", {}))
    field = url.get("%timefield%")
    if "query" in body:
        if "%context%" in url or field:
            raise BrokenError(
                "a Vega panel has a query and %context% or %timefield%: Kibana refuses both "
                "together"
            )
        body["query"] = _replaced(body["query"], context)
    elif url.get("%context%"):
        body["query"] = context.query(field)
    elif field:
        body["query"] = {"range": {field: _bounds(context)}}
    return body | ({"aggs": _replaced(body["aggs"], context)} if "aggs" in body else {})


def _bounds(context: Context) -> JSON:
    return (
        {"gte": context.time.start, "lte": context.time.end, "format": FORMAT}
        if context.time
        else {}
    )


def _replaced(node: Any, context: Context) -> Any:
    if isinstance(node, list):
        return [inner for one in node for inner in _spliced(one, context)]
    if not isinstance(node, dict):
        return node
    if node.get("%timefilter%") is True:
        return _bounds(context)
    if "%timefilter%" in node and context.time:
        return context.time.start if node["%timefilter%"] == "min" else context.time.end
    made = {name: _replaced(inner, context) for name, inner in node.items()}
    histogram = made.get("date_histogram")
    if isinstance(histogram, dict) and isinstance(histogram.get("interval"), dict):
        del histogram["interval"]
        histogram |= interval(context.time)
    return made


def _spliced(one: Any, context: Context) -> list[Any]:
    name = (
        one.removeprefix("%dashboard_context-").removesuffix("_clause%")
        if isinstance(one, str)
        else ""
    )
    if name in ("must", "must_not", "filter"):
        return list(context.query(None)["bool"][name])
    return [_replaced(one, context)]


def _flat(hit: Mapping[str, Any], columns: Iterable[str]) -> Row:
    fields = hit.get("fields", {})
    row: Row = {}
    for column in columns:
        values = fields.get(column)
        if values:
            row[column] = values if len(values) > 1 else values[0]
    return row


def _lens_uses(objects: Objects, panel: Panel) -> Iterator[tuple[View, Use]]:
    for layer_id, layer in layers(panel).items():
        view = view_of(objects, panel.object, f"indexpattern-datasource-layer-{layer_id}")
        yield from ((view, use) for use in layer.uses())
        yield from ((view, use) for use in uses_of(panel.object.attributes["state"], panel.place))


def _search_uses(objects: Objects, panel: Panel) -> Iterator[tuple[View, Use]]:
    one, source = panel.object, panel.object.source()
    view = view_of(objects, one, source["indexRefName"])
    yield from (
        (view, Use(name, SHOW, f"{panel.place}, column")) for name in one.attributes["columns"]
    )
    yield from (
        (view, Use(name, AGGREGATE, f"{panel.place}, sort")) for name, _ in one.attributes["sort"]
    )
    yield from ((view, use) for use in uses_of(source, panel.place))


def _vega_uses(objects: Objects, panel: Panel) -> Iterator[tuple[View, Use]]:
    views = {
        one.title: View(one, one.title, one.attributes.get("timeFieldName"))
        for one in objects.of("index-pattern")
    }
    for url in _urls(vega_spec(panel)):
        if url["index"] not in views:
            raise BrokenError(f"{panel.place}: no data view has the pattern {url['index']}")
        for name, needs in _body_fields(url):
            yield views[url["index"]], Use(name, needs, panel.place)


def _body_fields(url: JSON) -> Iterator[tuple[str, str]]:
    """Fields that a request written out names."""
    body = _filled(url, Context())
    yield from ((name, DATE) for name in [url.get("%timefield%")] if name)
    yield from fields_of(body.get("query", {}))
    source = body.get("_source", [])
    names = (
        source.get("includes", [])
        if isinstance(source, dict)
        else [source]
        if isinstance(source, str)
        else source
    )
    yield from ((name, SHOW) for name in names or [])
    yield from (
        (one["field"] if isinstance(one, dict) else one, SHOW) for one in body.get("fields", [])
    )
    for one in body.get("sort", []):
        yield from (
            (name, AGGREGATE)
            for name in (one if isinstance(one, dict) else [one])
            if not name.startswith("_")
        )
    yield from _agg_fields(body.get("aggs", {}))


def _agg_fields(aggs: JSON) -> Iterator[tuple[str, str]]:
    for one in aggs.values():
        for kind, inner in one.items():
            if kind == "aggs":
                yield from _agg_fields(inner)
            elif kind == "filter":
                yield from fields_of(inner)
            elif "field" in inner:
                yield inner["field"], AGGREGATE


def _no_uses(objects: Objects, panel: Panel) -> Iterator[tuple[View, Use]]:
    yield from ()


def _dashboard_uses(objects: Objects, one: Saved) -> Iterator[tuple[View, Use]]:
    for name, control in controls(one).items():
        view = view_of(objects, one, f"controlGroup_{name}:optionsListDataView")
        yield (
            view,
            Use(control["explicitInput"]["fieldName"], AGGREGATE, f"{one.place}, control {name}"),
        )
    views = {
        panel.object.id: panel for panel in panels(objects, one) if panel.kind in ("lens", "search")
    }
    for panel in views.values():
        for view, _ in [next(_PANEL_USES[panel.kind](objects, panel))]:
            yield from ((view, use) for use in uses_of(one.source(), one.place))
            names = [
                *panel.config.get("columns", []),
                *(name for name, _ in panel.config.get("sort", [])),
            ]
            yield from (
                (view, Use(name, SHOW, f"{one.place}, panel {panel.title}")) for name in names
            )


def link_query(url: str) -> str:
    """The KQL that a link into Kibana carries; empty where it carries none."""
    found = re.search(r"_a=\(.*query:'([^']*)'", url)
    return unquote(found.group(1)) if found else ""


def _view_uses(one: Saved) -> Iterator[Use]:
    attributes = one.attributes
    if attributes.get("timeFieldName"):
        yield Use(attributes["timeFieldName"], DATE, f"{one.place}, time field")
    for name in opened(attributes.get("fieldAttrs", "{}"), one.place):
        yield Use(name, SHOW, f"{one.place}, label")
    for name, form in opened(attributes.get("fieldFormatMap", "{}"), one.place).items():
        yield Use(name, NUMBER if form.get("id") in FOR_NUMBERS else SHOW, f"{one.place}, format")
        kql = link_query(str(form.get("params", {}).get("urlTemplate", "")))
        yield from (
            Use(other, needs, f"{one.place}, link of {name}")
            for other, needs in fields_of(to_dsl(kql))
        )
    if opened(attributes.get("runtimeFieldMap", "{}"), one.place) not in ({}, None):
        raise BrokenError(f"{one.place}: runtime fields are not known here")


_PANEL_USES = {"lens": _lens_uses, "search": _search_uses, "vega": _vega_uses, "markdown": _no_uses}
