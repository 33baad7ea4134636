"""What is wrong with a set of saved objects: by itself, and against the mapping of the indices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from tests.support.kibana import dashboard
from tests.support.kibana.context import AGGREGATE, DATE, NUMBER, SEARCH, SHOW, Use, fields_of
from tests.support.kibana.dashboard import LENS, Panel, alone, controls, layers, markdown, panels
from tests.support.kibana.kql import KqlError, to_dsl
from tests.support.kibana.saved import BrokenError, Objects, Saved, opened

CORE = "8.8.0"
VERSIONS = {
    "index-pattern": "8.0.0",
    "lens": "8.9.0",
    "dashboard": "8.9.0",
    "search": "8.0.0",
    "visualization": "8.5.0",
}
"""type → typeMigrationVersion, of the oldest Kibana that is supported; newer ones migrate
forward"""
KEYS = {"id", "type", "attributes", "references", "coreMigrationVersion", "typeMigrationVersion"}
WIDTH = 48
KIBANA_TYPES = {
    **dict.fromkeys(
        ("keyword", "constant_keyword", "wildcard", "text", "match_only_text"), "string"
    ),
    **dict.fromkeys(("long", "integer", "double", "float"), "number"),
}
"""Elasticsearch's type → Kibana's, where the two have different names"""
TO_DASHBOARD = "DASHBOARD_TO_DASHBOARD_DRILLDOWN"
TRIGGERS = {
    TO_DASHBOARD: {"FILTER_TRIGGER"},
    "URL_DRILLDOWN": {
        "VALUE_CLICK_TRIGGER",
        "SELECT_RANGE_TRIGGER",
        "ROW_CLICK_TRIGGER",
        "CONTEXT_MENU_TRIGGER",
    },
}
LINKED = re.compile(r"dashboards?#/(?:view|create)/([\w.-]+)|\]\(#/view/([\w.-]+)")

LISTS = tuple(
    f"ids_plugin.{name}."
    for name in ("evidence.flows", "evidence.features", "fold.top_peers", "fold.top_ports")
)
"""objects of which a document has several: Elasticsearch doesn't know which of their values belong
together"""

Mapped = Mapping[str, Mapping[str, Any]]
"""field → type → what it can do, as `_field_caps` answers"""


def complaints(objects: Objects) -> list[str]:
    """What is wrong with the objects by themselves: forms, versions, references, layout, titles."""
    found = [*_ids(objects)]
    for raw, one in zip(objects.raw, objects, strict=False):
        found += _form(raw, one)
        try:
            found += _references(objects, one)
            found += _content(objects, one)
        except (BrokenError, KqlError) as error:
            found.append(str(error))
    return found


def misfits(objects: Objects, mapped: Mapping[str, Mapped]) -> list[str]:
    """Fields that the objects name and the mapping doesn't have, or not with a type they can use.

    Args:
        objects: the set.
        mapped: a data view's pattern → fields of its indices.
    """
    found: list[str] = []
    for one in objects:
        for view, use in dashboard.uses(objects, one):
            found += _misfit(use, mapped[view.title])
    return list(dict.fromkeys(found))


def used(objects: Objects) -> dict[str, set[str]]:
    """A data view's pattern → fields that the objects name in it."""
    found: dict[str, set[str]] = {}
    for one in objects:
        for view, use in dashboard.uses(objects, one):
            found.setdefault(view.title, set()).add(use.field)
    return found


def rule_misfits(rule: Mapping[str, Any], mapped: Mapped) -> Iterator[str]:
    """The same for a detection rule of Elastic Security, against the fields of its indices."""
    for use in rule_uses(rule):
        yield from _misfit(use, mapped)


def rule_uses(rule: Mapping[str, Any]) -> Iterator[Use]:
    """Every field that a detection rule names."""
    place = f"rule {rule['name']}"
    for name, needs in fields_of(to_dsl(rule["query"])):
        yield Use(name, needs, f"{place}, query")
    for part, needs in (("severity_mapping", SEARCH), ("risk_score_mapping", NUMBER)):
        yield from (Use(one["field"], needs, f"{place}, {part}") for one in rule.get(part, []))
    for part, needs in (("timestamp_override", DATE), ("rule_name_override", SHOW)):
        yield from (Use(name, needs, f"{place}, {part}") for name in [rule.get(part)] if name)
    for one in rule.get("required_fields", []):
        yield Use(
            one["name"],
            SEARCH,
            f"{place}, required field",
            KIBANA_TYPES.get(one["type"], one["type"]),
        )
    for name in rule.get("investigation_fields", {}).get("field_names", []):
        yield Use(name, SHOW, f"{place}, investigation field")


def _misfit(use: Use, mapped: Mapped) -> Iterator[str]:
    said = f"{use.place}: {use.field}"
    types = mapped.get(use.field)
    if types is None or "unmapped" in types:
        yield f"{said} isn't in the mapping"
        return
    if "object" in types or "nested" in types:
        yield f"{said} is an object, not a field"
        return
    kinds = {KIBANA_TYPES.get(name, name) for name in types}
    if use.needs in (AGGREGATE, NUMBER, DATE) and not all(
        one["aggregatable"] for one in types.values()
    ):
        yield f"{said} can't be aggregated or sorted by: {', '.join(types)}"
    if use.needs == SEARCH and not all(one["searchable"] for one in types.values()):
        yield f"{said} can't be searched: {', '.join(types)}"
    wanted = {NUMBER: "number", DATE: "date"}.get(use.needs, use.type)
    if wanted and kinds != {wanted}:
        yield f"{said} is {', '.join(sorted(kinds))}, not {wanted}"


def _ids(objects: Objects) -> Iterator[str]:
    for (kind, name), count in Counter((one["type"], one["id"]) for one in objects.raw).items():
        if count > 1:
            yield f"{kind} {name}: {count} objects have this id"


def _form(raw: Mapping[str, Any], one: Saved) -> Iterator[str]:
    if raw.keys() != KEYS:
        yield f"{one.place}: its keys are {sorted(raw)}"
    if one.type not in VERSIONS:
        yield f"{one.place}: the type {one.type} is not known here"
    elif raw.get("typeMigrationVersion") != VERSIONS[one.type]:
        yield f"{one.place}: typeMigrationVersion {raw.get('typeMigrationVersion')}, not {VERSIONS[one.type]}"  # noqa: E501
    if raw.get("coreMigrationVersion") != CORE:
        yield f"{one.place}: coreMigrationVersion {raw.get('coreMigrationVersion')}, not {CORE}"
    if not one.title:
        yield f"{one.place}: no title"
    names = Counter(reference["name"] for reference in raw.get("references", []))
    yield from (
        f"{one.place}: {count} references are named {name}"
        for name, count in names.items()
        if count > 1
    )


def _references(objects: Objects, one: Saved) -> Iterator[str]:
    wanted = set(_wanted(one))
    for name, (kind, target) in one.references.items():
        if not any((other.type, other.id) == (kind, target) for other in objects):
            yield f"{one.place}: reference {name} leads to {kind} {target}, which isn't there"
        if name not in wanted:
            yield f"{one.place}: nothing uses the reference {name}"
    for name in wanted - one.references.keys():
        yield f"{one.place}: no reference named {name}"


def _wanted(one: Saved) -> Iterator[str]:
    """Names of the references that an object has to have."""
    if one.type == "lens":
        state = one.attributes["state"]
        yield from (
            f"indexpattern-datasource-layer-{name}"
            for name in state["datasourceStates"]["formBased"]["layers"]
        )
        yield from _filter_references(state.get("filters", []))
    elif one.type in ("search", "visualization", "dashboard"):
        source = one.source()
        yield from (source[name] for name in ("indexRefName",) if name in source)
        yield from _filter_references(source.get("filter", []))
    if one.type == "dashboard":
        yield from (f"controlGroup_{name}:optionsListDataView" for name in controls(one))
        for state in opened(one.attributes["panelsJSON"], one.place):
            yield from _panel_references(state)


def _filter_references(filters: list[Any]) -> Iterator[str]:
    for meta in (one.get("meta", {}) for one in filters):
        yield from (meta[name] for name in ("indexRefName",) if name in meta)
        if meta.get("index") and meta.get("type") != "custom":
            yield meta["index"]


def _panel_references(state: Mapping[str, Any]) -> Iterator[str]:
    name, config = state["panelIndex"], state.get("embeddableConfig", {})
    if "panelRefName" in state:
        yield f"{name}:{state['panelRefName']}"
    for layer in (
        config.get("attributes", {})
        .get("state", {})
        .get("datasourceStates", {})
        .get("formBased", {})
        .get("layers", {})
    ):
        yield f"{name}:indexpattern-datasource-layer-{layer}"
    for event in _events(config):
        if event["action"]["factoryId"] == TO_DASHBOARD:
            yield f"{name}:drilldown:{TO_DASHBOARD}:{event['eventId']}:dashboardId"


def _events(config: Mapping[str, Any]) -> list[Any]:
    return list(config.get("enhancements", {}).get("dynamicActions", {}).get("events", []))


def _content(objects: Objects, one: Saved) -> Iterator[str]:
    if one.type == "dashboard":
        yield from _layout(objects, one)
        yield from _drilldowns(objects, one)
        yield from _links(objects, str(one.attributes))
    elif one.type == "index-pattern":
        yield from _view(objects, one)
    else:
        panel = alone(one)
        if not one.attributes.get("description"):
            yield f"{one.place}: no description"
        if panel and panel.kind == "lens":
            yield from _drawn(panel)
            yield from _mixed(panel)
        if panel and panel.kind == "markdown":
            yield from _links(objects, markdown(panel))
        if panel and panel.kind == "search" and not one.attributes.get("columns"):
            yield f"{one.place}: no columns"


def _layout(objects: Objects, one: Saved) -> Iterator[str]:
    shown = panels(objects, one)
    if not one.attributes.get("description"):
        yield f"{one.place}: no description"
    states = opened(one.attributes["panelsJSON"], one.place)
    if len({state["panelIndex"] for state in states}) < len(states):
        yield f"{one.place}: two panels have one panelIndex"
    yield from (
        f"{one.place}: gridData.i of panel {state['panelIndex']} is {state['gridData'].get('i')}"
        for state in states
        if state["gridData"].get("i") != state["panelIndex"]
    )
    for panel in shown:
        for name, said in (("title", panel.title), ("description", panel.description)):
            if not said:
                yield f"{one.place}: panel {panel.id} has no {name}"
        grid = panel.grid
        if (
            grid["x"] < 0
            or grid["y"] < 0
            or grid["w"] < 1
            or grid["h"] < 1
            or grid["x"] + grid["w"] > WIDTH
        ):
            yield f"{one.place}: panel {panel.title} leaves the grid: {dict(grid)}"
    for a, b in combinations(shown, 2):
        if _overlap(a.grid, b.grid):
            yield f"{one.place}: panels {a.title} and {b.title} overlap"


def _overlap(a: Mapping[str, int], b: Mapping[str, int]) -> bool:
    across = a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
    return across and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]


def _drilldowns(objects: Objects, one: Saved) -> Iterator[str]:
    for state in opened(one.attributes["panelsJSON"], one.place):
        for event in _events(state.get("embeddableConfig", {})):
            action = event["action"]
            place = f"{one.place}: drill-down {action.get('name') or event['eventId']}"
            kind = action["factoryId"]
            if kind not in TRIGGERS:
                yield f"{place}: {kind} is not known here"
                continue
            if not action.get("name"):
                yield f"{place}: no name"
            if not event.get("triggers") or not set(event["triggers"]) <= TRIGGERS[kind]:
                yield f"{place}: {kind} isn't triggered by {event.get('triggers')}"
            if kind == TO_DASHBOARD:
                objects.get(
                    *one.references[
                        f"{state['panelIndex']}:drilldown:{kind}:{event['eventId']}:dashboardId"
                    ]
                )
            elif not re.match(
                r"https?://|\{\{|/", action["config"].get("url", {}).get("template", "")
            ):
                yield f"{place}: no URL"


def _links(objects: Objects, text: str) -> Iterator[str]:
    """Dashboards that a text leads to."""
    known = {one.id for one in objects.of("dashboard")}
    for names in LINKED.findall(text):
        for name in names:
            if name and name not in known:
                yield f"a link leads to the dashboard {name}, which isn't there"


def _view(objects: Objects, one: Saved) -> Iterator[str]:
    if not one.attributes.get("name"):
        yield f"{one.place}: no name"
    for name, form in opened(one.attributes.get("fieldFormatMap", "{}"), one.place).items():
        if form.get("id") == "url":
            yield from _links(objects, str(form.get("params", {}).get("urlTemplate", "")))
        if "id" not in form:
            yield f"{one.place}: the format of {name} has no id"


def _drawn(panel: Panel) -> Iterator[str]:
    """Whether what is drawn and what is asked for are the same columns."""
    kind, state = panel.object.attributes["visualizationType"], panel.object.attributes["state"]
    if kind not in LENS:
        yield f"{panel.place}: {kind} is not known here"
    asked = layers(panel)
    columns = {name: layer for layer in asked.values() for name in layer.columns}
    shown = set(_accessors(state["visualization"]))
    yield from (
        f"{panel.place}: draws {name}, which is no column"
        for name in sorted(shown - columns.keys())
    )
    inner = {
        name
        for layer in asked.values()
        for one in layer.columns.values()
        for name in one.state.get("references", [])
    }
    yield from (
        f"{columns[name].columns[name].place}: isn't drawn"
        for name in columns.keys() - shown - inner
    )
    layer_ids = set(_named(state["visualization"], "layerId"))
    yield from (
        f"{panel.place}: draws the layer {name}, which isn't there"
        for name in sorted(layer_ids - asked.keys())
    )


def _mixed(panel: Panel) -> Iterator[str]:
    """Whether a layer asks for what only looks as if it belonged together."""
    for layer in layers(panel).values():
        for prefix in LISTS:
            inside = {one.field for one in layer.uses() if one.field.startswith(prefix)}
            grouped = any(one.state.get("sourceField") in inside for one in layer.buckets)
            if grouped and len(inside) > 1:
                yield f"{layer.place}: {', '.join(sorted(inside))} of one document don't belong together"  # noqa: E501


def _accessors(node: Any) -> Iterator[str]:
    """Columns that a visualisation draws."""
    lists = ("accessors", "primaryGroups", "secondaryGroups", "metrics")
    single = ("xAccessor", "yAccessor", "valueAccessor", "splitAccessor", "metricAccessor", "secondaryMetricAccessor",  # noqa: E501
              "breakdownByAccessor", "maxAccessor", "columnId", "forAccessor", "metric", "accessor")  # fmt: skip  # noqa: E501
    if isinstance(node, list):
        for one in node:
            yield from _accessors(one)
    elif isinstance(node, dict):
        for name, inner in node.items():
            if name in lists and isinstance(inner, list):
                yield from (one for one in inner if isinstance(one, str))
            elif name in single and isinstance(inner, str):
                yield inner
            else:
                yield from _accessors(inner)


def _named(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, list):
        for one in node:
            yield from _named(one, key)
    elif isinstance(node, dict):
        for name, inner in node.items():
            if name == key:
                yield inner
            else:
                yield from _named(inner, key)
