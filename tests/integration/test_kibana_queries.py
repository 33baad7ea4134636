"""What Kibana would ask is asked of a real Elasticsearch: every panel, search and control gets an
answer with content.

Elasticsearch is real, Kibana is tests/kibana's translation. What stands in on the side of
Elasticsearch and is leaned on here: `match_only_text` (the alert's message) and the names of
networks (GeoIP); tests/services says how.
"""

from __future__ import annotations

import copy
import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import CLASSES
from tests import services
from tests.support.kibana import (
    KqlError,
    Objects,
    Request,
    complaints,
    markdown,
    misfits,
    ours,
    panels,
    requests,
    to_dsl,
    used,
)
from tests.support.kibana.context import fields_of
from tests.support.kibana.dashboard import link_query
from tests.support.kibana.filled import EVERYTHING, Filled, export_sample, trouble
from tests.support.kibana.judge import rule_misfits, rule_uses
from tests.support.kibana.lens import Column
from tests.support.kibana.shown import drawing

OURS = ours()
DASHBOARDS = [one.title for one in OURS.of("dashboard")]
RULES = sorted((Path(__file__).parents[2] / "dashboards/rules/elastic").glob("*.json"))
MODELS = ("control", "counters")
"""detectors of the default bundle"""
ALERTS, FLOWS = "logs-ids_plugin.alert-*", "logs-ids_plugin.flow-*"


@pytest.fixture(scope="module")
def there(elasticsearch: services.Elasticsearch) -> Filled:
    """Alerts of every class, flows and ledger."""
    return Filled(elasticsearch)


@pytest.fixture(scope="module")
def sample(
    elasticsearch: services.Elasticsearch, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Filled, list[Document]]:
    """The sample's alerts, as `scan` and `export` write them."""
    there = Filled(elasticsearch, empty=True)
    return there, export_sample(there, tmp_path_factory.mktemp("sample"))


def during(documents: list[Document]) -> tuple[str, str]:
    """The time range of documents."""
    times = sorted(one["@timestamp"] for one in documents)
    return times[0], times[-1]


@pytest.mark.parametrize("title", DASHBOARDS)
def test_every_request_of_a_dashboard_is_answered(there: Filled, title: str) -> None:
    every = requests(title, time=EVERYTHING, namespace=there.namespace, objects=OURS)
    assert len(every) > 10
    assert trouble(there, every) == []


@pytest.mark.parametrize("title", DASHBOARDS)
def test_every_control_narrows_its_dashboard(there: Filled, title: str) -> None:
    whole = requests(title, time=EVERYTHING, namespace=there.namespace, objects=OURS)
    for control in (one for one in whole if one.kind == "control"):
        field = control.body["aggs"]["unique_terms"]["cardinality"]["field"]
        first = control.rows(there.ask(control))[0]["key"]
        narrowed = requests(
            title, {field: first}, EVERYTHING, namespace=there.namespace, objects=OURS
        )
        before, after = (_hits(there, every) for every in (whole, narrowed))
        assert 0 < after < before, control.name


def _hits(there: Filled, every: list[Request]) -> int:
    """How many alerts the first Lens panel counts."""
    request = next(
        one for one in every if one.kind == "lens" and one.index.startswith("logs-ids_plugin.alert")
    )
    return int(there.ask(request)["hits"]["total"]["value"])


def test_every_field_that_an_object_names_has_a_type_that_it_can_use(there: Filled) -> None:
    assert misfits(OURS, there.mapped(OURS)) == []


def test_each_renamed_field_is_missed_in_the_mapping(there: Filled) -> None:
    names = used(OURS)
    mapped = {
        pattern: {
            f"{name}_" if name in names[pattern] else name: types for name, types in fields.items()
        }
        for pattern, fields in there.mapped(OURS).items()
    }
    found = misfits(OURS, mapped)
    every = {name for inside in names.values() for name in inside}
    assert len(every) > 100
    assert {
        name for name in every if not any(f": {name} isn't in the mapping" in one for one in found)
    } == set()


@pytest.mark.parametrize(
    ("name", "made", "said"),
    [
        (
            "ids_plugin.fold.id",
            {"text": {"searchable": True, "aggregatable": False}},
            "can't be aggregated",
        ),
        (
            "event.risk_score",
            {"keyword": {"searchable": True, "aggregatable": True}},
            "is string, not number",
        ),
        (
            "event.start",
            {"long": {"searchable": True, "aggregatable": True}},
            "is number, not date",
        ),
        (
            "ids_plugin.severity",
            {"keyword": {"searchable": False, "aggregatable": True}},
            "can't be searched",
        ),
        (
            "ids_plugin.bundle.id",
            {"object": {"searchable": False, "aggregatable": False}},
            "is an object",
        ),
    ],
)
def test_a_type_that_a_panel_cannot_use_is_named(
    there: Filled, name: str, made: dict[str, Any], said: str
) -> None:
    mapped = there.mapped(OURS)
    found = misfits(OURS, {**mapped, ALERTS: {**mapped[ALERTS], name: made}})
    assert any(f": {name} {said}" in one for one in found), found


@pytest.mark.parametrize(
    ("stream", "least"), [(ALERTS, 30), ("metrics-ids_plugin.ledger-*", 15), (FLOWS, 8)]
)
def test_a_field_renamed_in_mapping_and_documents_empties_what_shows_it(
    there: Filled, stream: str, least: int
) -> None:
    every = [one for title in DASHBOARDS for one in requests(title, time=EVERYTHING, objects=OURS)]
    every = [one for one in every if one.index == stream and one.kind in ("lens", "search")]
    asked = {
        name: [one for one in every if name in shown_by(one)] for name in sorted(used(OURS)[stream])
    }
    asked = {name: asking for name, asking in asked.items() if asking}
    assert len(asked) >= least
    unnoticed = []
    for names in apart(asked):
        with _renamed(there, stream.removesuffix("-*"), names) as index:
            assert not there.fields(index).keys() & set(names)
            for name in names:
                found = trouble(there, [_at(one, index) for one in asked[name]])
                unnoticed += [] if any(_names(one, name, asked[name]) for one in found) else [name]
    assert unnoticed == []


def shown_by(request: Request) -> set[str]:
    """Fields of the columns of a request."""
    if request.kind == "search":
        return set(request.columns) - {"@timestamp"}
    columns = request.layer.columns.values() if request.layer else ()
    return {str(one.state.get("sourceField")) for one in columns} - {
        "None",
        "___records___",
        "@timestamp",
    }


def rows_by(request: Request) -> set[str]:
    """Fields without which a request has no rows at all."""
    found = {name for name, _ in fields_of(request.body["query"])}
    for one in request.layer.columns.values() if request.layer else ():
        own = str(one.state.get("sourceField"))
        found |= (
            {own}
            if one.state.get("isBucketed")
            else {name for name, _ in fields_of(to_dsl(one.kql))} - {own}
        )
    return found


def apart(asked: Mapping[str, list[Request]]) -> list[list[str]]:
    """Groups of fields that one index can do without: none takes away the rows in which another's
    lack would show."""
    groups: list[list[str]] = []
    for name, asking in asked.items():
        mine = set().union(*(rows_by(one) for one in asking)) - {name}
        theirs = {other for other in asked if any(name in rows_by(one) for one in asked[other])} - {
            name
        }
        group = next((one for one in groups if not (mine | theirs) & set(one)), None)
        if group is None:
            groups.append(group := [])
        group.append(name)
    return groups


def _names(lack: str, name: str, asking: list[Request]) -> bool:
    """Whether a complaint is about a field: its column, or all rows."""
    columns = [one for request in asking if request.layer for one in request.layer.columns.values()]
    places = [f"{one.place}: no value" for one in columns if one.state.get("sourceField") == name]
    return any(place in lack for place in [*places, f"no value of {name} in", "no rows"])


def _at(request: Request, index: str) -> Request:
    return Request(
        request.name,
        index,
        request.body,
        request.kind,
        request.panel,
        request.layer,
        request.columns,
    )


@contextmanager
def _renamed(there: Filled, stream: str, names: list[str]) -> Iterator[str]:
    """An index with the documents of a data stream in which these fields have other names."""
    index = services.unique("renamed")
    original = there.client.indices.get_mapping(index=f"{stream}-{there.namespace}")
    mappings = copy.deepcopy(next(iter(original.values()))["mappings"])
    documents = copy.deepcopy(there.sent[stream])
    for name in names:
        _rename_mapped(mappings, name)
        for document in documents:
            _rename(document, name)
    there.client.indices.create(index=index, mappings=mappings, settings={"number_of_replicas": 0})
    lines: list[dict[str, Any]] = []
    for one in documents:
        lines += [{"index": {}}, one]
    answer = there.client.bulk(index=index, operations=lines)
    assert not answer["errors"], answer["items"][0]
    there.client.indices.refresh(index=index)
    yield index
    there.client.indices.delete(index=index)


def _rename_mapped(mappings: dict[str, Any], name: str) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        mappings = mappings["properties"][parent]
    mappings["properties"][f"{leaf}_"] = mappings["properties"].pop(leaf)


def _rename(document: Document, name: str) -> None:
    *parents, leaf = name.split(".")
    nodes: list[Any] = [document]
    for parent in parents:
        inner = [node[parent] for node in nodes if parent in node]
        nodes = [one for node in inner for one in (node if isinstance(node, list) else [node])]
    for node in nodes:
        if leaf in node:
            node[f"{leaf}_"] = node.pop(leaf)


@pytest.mark.parametrize("title", DASHBOARDS)
def test_where_nothing_is_every_request_is_answered_by_nothing(there: Filled, title: str) -> None:
    for request in requests(
        title, time=("2020-01-01", "2020-01-02"), namespace=there.namespace, objects=OURS
    ):
        rows = request.rows(there.ask(request))
        if request.layer and not request.layer.buckets:
            rows = [
                {name: value for name, value in row.items() if value}
                for row in rows
                if any(row.values())
            ]
        assert not any(
            row.get(column.id)
            for row in rows
            for column in (request.layer.metrics if request.layer else ())
        )


def test_every_field_that_a_rule_names_has_a_type_that_it_can_use(there: Filled) -> None:
    rules = [json.loads(one.read_text()) for one in RULES]
    assert len(rules) == len(CLASSES) - 1
    fields = there.fields(there.name)
    for rule in rules:
        assert list(rule_misfits(rule, fields)) == []
        for name in {use.field for use in rule_uses(rule)}:
            renamed = {f"{name}_" if one == name else one: types for one, types in fields.items()}
            assert any(f"{name} isn't in the mapping" in one for one in rule_misfits(rule, renamed))


@pytest.mark.parametrize("title", DASHBOARDS)
def test_every_panel_can_be_drawn_from_its_answers(there: Filled, title: str) -> None:
    every = requests(title, time=EVERYTHING, namespace=there.namespace, objects=OURS)
    for panel in panels(OURS, OURS.dashboard(title)):
        answered = [(one, there.ask(one)) for one in every if one.panel == panel]
        made = drawing(OURS, panel, answered, "light")
        assert made.lite or made.vega or "<" in made.html
        assert "No results" not in made.html, panel.title


def test_links_lead_to_what_was_clicked(sample: tuple[Filled, list[Document]]) -> None:
    there, documents = sample
    view = OURS.get("index-pattern", "ids_plugin-alerts")
    formats = json.loads(view.attributes["fieldFormatMap"])
    links = {
        name: form["params"]["urlTemplate"] for name, form in formats.items() if form["id"] == "url"
    }
    inside = {name: link for name, link in links.items() if link.startswith("/app/dashboards")}
    assert {
        "ids_plugin.fold.id",
        "ids_plugin.fold.subject",
        "source.ip",
        "destination.ip",
    } <= inside.keys()
    for name, link in inside.items():
        value = values(documents, name)[0]
        url = link.replace("{{value}}", quote(str(value)))
        (target,) = re.findall(r"#/view/([\w-]+)", url)
        every = requests(
            target,
            None,
            during(documents),
            namespace=there.namespace,
            query=link_query(url),
            objects=OURS,
        )
        table = next(one for one in every if one.layer and "fold" in one.layer.columns)
        folds = {row["fold"] for row in table.rows(there.ask(table))}
        about = [
            one
            for one in documents
            if value in (one["ids_plugin"]["fold"]["id"], *one["related"]["ip"])
        ]
        assert folds == {one["ids_plugin"]["fold"]["id"] for one in about} != set(), name


def test_a_panel_that_finds_nothing_is_named_with_its_column(there: Filled) -> None:
    wrong = copy.deepcopy(OURS.raw)
    queue = next(one for one in wrong if one["id"] == "ids_plugin-queue")
    column = queue["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]["rows"][
        "columns"
    ]["sensor"]
    column["sourceField"] = "observer.nickname"
    objects = Objects(wrong)
    every = requests("Triage", time=EVERYTHING, namespace=there.namespace, objects=objects)
    (lack,) = trouble(there, every)
    assert "Queue" in lack
    assert f"column {column['label']}: no value" in lack
    assert any(
        "observer.nickname isn't in the mapping" in one
        for one in misfits(objects, there.mapped(objects))
    )
    queue["attributes"]["state"]["query"]["query"] = "event.kind : nothing"
    every = requests("Triage", time=EVERYTHING, namespace=there.namespace, objects=Objects(wrong))
    assert any("Queue" in one and "no rows" in one for one in trouble(there, every))


# The translator itself: what it asks gives what can be counted by hand.


def one_layer(*columns: tuple[str, dict[str, Any]], query: str = "") -> Objects:
    """A dashboard with one panel of one layer."""
    layer = {"columns": dict(columns), "columnOrder": [name for name, _ in columns]}
    state = {
        "datasourceStates": {"formBased": {"layers": {"l": layer}}},
        "query": {"language": "kuery", "query": query},
    }
    state |= {
        "filters": [],
        "visualization": {"layerId": "l", "columns": [{"columnId": name} for name, _ in columns]},
    }
    panel = {
        "type": "lens",
        "panelIndex": "p",
        "panelRefName": "panel_p",
        "gridData": {"x": 0, "y": 0, "w": 9, "h": 9},
    }
    view = {"title": ALERTS, "name": "a", "timeFieldName": "@timestamp"}
    return Objects(
        [
            {"type": "index-pattern", "id": "v", "attributes": view},
            {
                "type": "lens",
                "id": "x",
                "attributes": {"title": "X", "visualizationType": "lnsDatatable", "state": state},
                "references": [
                    {"name": "indexpattern-datasource-layer-l", "type": "index-pattern", "id": "v"}
                ],
            },
            {
                "type": "dashboard",
                "id": "d",
                "attributes": {"title": "D", "panelsJSON": json.dumps([panel])},
                "references": [{"name": "p:panel_p", "type": "lens", "id": "x"}],
            },
        ]
    )


def column(
    operation: str, field: str | None = None, kql: str = "", kind: str = "number", **params: Any
) -> dict[str, Any]:
    """A column of a layer."""
    made: dict[str, Any] = {
        "label": operation,
        "dataType": kind,
        "operationType": operation,
        "params": params,
    }
    made["isBucketed"] = operation in ("terms", "date_histogram", "filters", "range")
    return (
        made
        | ({"sourceField": field} if field else {})
        | ({"filter": {"language": "kuery", "query": kql}} if kql else {})
    )


def terms(field: str, by: str | None = None, kind: str = "string", **params: Any) -> dict[str, Any]:
    order = {"type": "column", "columnId": by} if by else {"type": "alphabetical"}
    return column(
        "terms",
        field,
        "",
        kind,
        orderBy=order,
        orderDirection="desc" if by else "asc",
        size=50,
        **params,
    )


COUNT = column("count", "___records___")


def table(
    there: Filled, *columns: tuple[str, dict[str, Any]], query: str = ""
) -> list[dict[str, Any]]:
    """What the layer's request answers."""
    (request,) = requests(
        "D", time=EVERYTHING, namespace=there.namespace, objects=one_layer(*columns, query=query)
    )
    return request.rows(there.ask(request))


def values(node: Any, path: str) -> list[Any]:
    """Every value of a field in documents."""
    if isinstance(node, list):
        return [value for one in node for value in values(one, path)]
    if not path or node is None:
        return [] if node is None else [node]
    name, _, rest = path.partition(".")
    return values(node.get(name), rest)


def test_terms_are_counted_and_ordered_by_a_metric(there: Filled) -> None:
    rows = table(there, ("label", terms("ids_plugin.label", "n")), ("n", COUNT))
    assert {row["label"]: row["n"] for row in rows} == Counter(
        values(there.documents, "ids_plugin.label")
    )
    rows = table(
        there,
        ("label", terms("ids_plugin.label", "most")),
        ("most", column("max", "ids_plugin.fold.count")),
    )
    assert [row["most"] for row in rows] == sorted((row["most"] for row in rows), reverse=True)
    most: dict[str, int] = {}
    for one in there.documents:
        label = one["ids_plugin"]["label"]
        most[label] = max(most.get(label, 0), one["ids_plugin"]["fold"]["count"])
    assert {row["label"]: row["most"] for row in rows} == most


def test_terms_ordered_by_a_filtered_metric_and_by_a_median(there: Filled) -> None:
    filtered = column("count", "___records___", "event.kind: alert")
    rows = table(there, ("label", terms("ids_plugin.label", "n")), ("n", filtered))
    alerts = [one for one in there.documents if one["event"]["kind"] == "alert"]
    assert {row["label"]: row["n"] for row in rows} == Counter(values(alerts, "ids_plugin.label"))
    for operation in ("median", "average"):
        for kql in ("", "event.kind: event"):
            metric = column(operation, "ids_plugin.fold.count", kql)
            rows = table(there, ("label", terms("ids_plugin.label", "m")), ("m", metric))
            found = [row["m"] for row in rows]
            assert found == sorted(found, reverse=True)


def test_terms_within_terms_keep_their_order(there: Filled) -> None:
    rows = table(
        there,
        ("sensor", terms("observer.name")),
        ("label", terms("ids_plugin.label", "n")),
        ("n", COUNT),
    )
    pairs = Counter(
        (one["observer"]["name"], one["ids_plugin"]["label"]) for one in there.documents
    )
    assert {(row["sensor"], row["label"]): row["n"] for row in rows} == pairs


def test_a_missing_value_is_a_row_where_it_is_asked_for(there: Filled) -> None:
    protocol = terms("network.protocol", "n", otherBucket=True, missingBucket=True)
    rows = {row["p"]: row["n"] for row in table(there, ("p", protocol), ("n", COUNT))}
    known = Counter(values(there.documents, "network.protocol"))
    assert rows == {**known, "__missing__": len(there.documents) - known.total()}


@pytest.mark.parametrize("missing", [False, True])
def test_what_is_not_among_the_terms_is_the_row_of_the_others(there: Filled, missing: bool) -> None:
    first = terms("network.protocol", "n", otherBucket=True, missingBucket=missing)
    first["params"]["size"] = 1 + missing
    rows = table(there, ("p", first), ("sensor", terms("observer.name")), ("n", COUNT))
    known = Counter(values(there.documents, "network.protocol"))
    shown = Counter({row["p"]: 0 for row in rows})
    for row in rows:
        shown[row["p"]] += row["n"]
    assert len(shown) == 2 + missing
    assert shown.total() == (len(there.documents) if missing else known.total())
    assert shown["__other__"] == known.total() - sum(known[name] for name in shown)


@pytest.mark.parametrize(
    ("operation", "reference"),
    [
        ("sum", sum),
        ("min", min),
        ("max", max),
        ("average", statistics.fmean),
        ("unique_count", lambda v: len(set(v))),
    ],
)
def test_metrics_are_those_of_the_documents(
    there: Filled, operation: str, reference: Callable[[Any], float]
) -> None:
    closed = [one for one in there.documents if one["event"]["kind"] == "event"]
    (row,) = table(there, ("m", column(operation, "ids_plugin.fold.count", "event.kind: event")))
    assert row["m"] == pytest.approx(reference(values(closed, "ids_plugin.fold.count")))


def test_a_last_value_is_the_newest_documents(there: Filled) -> None:
    last = column(
        "last_value", "message", kind="string", sortField="@timestamp", showArrayValues=True
    )
    rows = {
        row["label"]: row["m"]
        for row in table(there, ("label", terms("ids_plugin.label")), ("m", last))
    }
    for label, message in rows.items():
        same = [one for one in there.documents if one["ids_plugin"]["label"] == label]
        newest = max(one["@timestamp"] for one in same)
        assert message in {one["message"] for one in same if one["@timestamp"] == newest}


def test_filters_and_ranges_split_the_documents(there: Filled) -> None:
    queries = ["event.kind: alert", "event.severity >= 73"]
    split = [
        {"label": f"q{number}", "input": {"language": "kuery", "query": kql}}
        for number, kql in enumerate(queries)
    ]
    rows = {
        row["f"]: row["n"]
        for row in table(there, ("f", column("filters", filters=split)), ("n", COUNT))
    }
    severe = sum(value >= 73 for value in values(there.documents, "event.severity"))
    assert rows == {"q0": len(there.documents) // 2, "q1": severe}
    ranges = column(
        "range", "event.severity", type="range", ranges=[{"from": 0, "to": 47}, {"from": 47}]
    )
    rows = {row["r"]: row["n"] for row in table(there, ("r", ranges), ("n", COUNT))}
    low = sum(value < 47 for value in values(there.documents, "event.severity"))
    assert list(rows.values()) == [low, len(there.documents) - low]


def test_time_is_cut_into_days_with_the_empty_ones(there: Filled) -> None:
    rows = table(
        there,
        ("t", column("date_histogram", "@timestamp", kind="date", interval="1d")),
        ("n", COUNT),
    )
    days = Counter(one["@timestamp"][:10] for one in there.documents)
    assert {row["t"][:10]: row["n"] for row in rows if row["n"]} == days
    first, last = (datetime.fromisoformat(end) for end in EVERYTHING)
    assert len(rows) == (last - first).days + 1
    rows = table(
        there,
        ("t", column("date_histogram", "@timestamp", kind="date", interval="auto")),
        ("n", COUNT),
    )
    assert 20 < len(rows) <= 100


def test_a_formula_is_worked_out_from_its_parts(there: Filled) -> None:
    parts = ("a", column("count", "___records___", "event.kind: alert")), ("n", COUNT)
    math = column(
        "math", tinymathAst={"type": "function", "name": "divide", "args": ["a", "n"]}
    ) | {"references": ["a", "n"]}
    share = column("formula", formula="count(kql='event.kind: alert') / count()") | {
        "references": ["m"]
    }
    (row,) = table(
        there, *parts, ("m", math), ("f", share), ("s", column("static_value", value="0.5"))
    )
    assert row["f"] == row["s"] == 0.5


@pytest.mark.parametrize(
    ("kql", "predicate"),
    [
        ("event.kind: alert", lambda d: d["event"]["kind"] == "alert"),
        ("event.kind: (alert or event)", lambda d: True),
        ("not event.kind: alert", lambda d: d["event"]["kind"] != "alert"),
        ("event.severity >= 73 and event.severity < 99", lambda d: d["event"]["severity"] == 73),
        ("network.protocol: *", lambda d: "protocol" in d["network"]),
        ("ids_plugin.label: s*", lambda d: d["ids_plugin"]["label"].startswith("s")),
        ('rule.name: "Network scan"', lambda d: d["rule"]["name"] == "Network scan"),
        (
            "ids_plugin.fold.subject: 10.0.0.66",
            lambda d: d["ids_plugin"]["fold"]["subject"] == "10.0.0.66",
        ),
        (
            "related.ip: 10.0.0.0/24",
            lambda d: any(ip.startswith("10.0.0.") for ip in d["related"]["ip"]),
        ),
        ('@timestamp < "2026-03-02T10:00:00Z"', lambda d: d["@timestamp"] < "2026-03-02T10:00:00Z"),
        (
            "ids_plugin.label: (scan or flood) or (event.kind: event and not observer.name: "
            "gateway)",
            lambda d: (
                d["ids_plugin"]["label"] in ("scan", "flood")
                or (d["event"]["kind"] == "event" and d["observer"]["name"] != "gateway")
            ),
        ),
    ],
)
def test_kql_finds_what_it_says(
    there: Filled, kql: str, predicate: Callable[[Document], bool]
) -> None:
    found = there.client.count(index=there.name, query=to_dsl(kql))["count"]
    assert found == sum(predicate(one) for one in there.documents) > 0


@pytest.mark.parametrize(
    "columns",
    [
        (("n", column("moving_average")),),
        (("n", COUNT | {"timeShift": "1w"}),),
        (("t", terms("ids_plugin.label", "nothing")), ("n", COUNT)),
        (("n", COUNT), ("t", terms("ids_plugin.label"))),
        (("n", column("count", "___records___", "free text")),),
        (
            ("s", terms("observer.name")),
            ("t", terms("ids_plugin.label", otherBucket=True)),
            ("n", COUNT),
        ),
    ],
)
def test_what_the_translator_does_not_know_it_refuses(
    columns: tuple[tuple[str, dict[str, Any]], ...],
) -> None:
    with pytest.raises((ValueError, KqlError)):
        requests("D", objects=one_layer(*columns))
    assert complaints(one_layer(*columns))


# The analyst's six questions, asked of the sample's alerts by Triage's own queries.


def test_triage_answers_the_six_questions_about_every_alert(
    sample: tuple[Filled, list[Document]],
) -> None:
    there, documents = sample
    alerts = [one for one in documents if one["event"]["kind"] == "alert"]
    assert len({one["rule"]["name"] for one in alerts}) == 7
    assert (
        trouble(
            there,
            requests("Triage", time=during(documents), namespace=there.namespace, objects=OURS),
        )
        == []
    )
    advice = next(
        panel for panel in panels(OURS, OURS.dashboard("Triage")) if panel.title == "What next"
    )
    for alert in alerts:
        chosen = {"ids_plugin.fold.id": alert["ids_plugin"]["fold"]["id"]}
        every = requests(
            "Triage", chosen, during(documents), namespace=there.namespace, objects=OURS
        )
        shown = _answers(there, every)
        same = [
            one
            for one in documents
            if one["ids_plugin"]["fold"]["id"] == alert["ids_plugin"]["fold"]["id"]
        ]
        _which_host_what_since_when(
            alert, same, next(rows for name, rows in shown.items() if name.startswith("Queue"))
        )
        _how_sure(same, shown)
        _compared_with_what(alert, shown)
        _what_next(alert, shown, markdown(advice))


def _which_host_what_since_when(
    alert: Document, same: list[Document], queue: list[dict[str, Any]]
) -> None:
    (row,) = queue
    fold = alert["ids_plugin"]["fold"]
    assert (row["Host"], row["What"]) == (fold["subject"], alert["rule"]["name"])
    assert row["Since"][:23] == min(values(same, "event.start"))[:23]
    assert row["Last flow"] >= row["Since"]
    assert row["Flows"] >= fold["count"]


def _how_sure(same: list[Document], shown: dict[str, list[dict[str, Any]]]) -> None:
    (row,) = shown["How sure"]
    assert row["Score"] == max(values(same, "ids_plugin.score")) >= row["had to reach"]
    (row,) = shown["Faithfulness"]
    assert row["of the evidence"] == max(values(same, "ids_plugin.evidence.faithfulness"))
    (row,) = shown["What each detector said"]
    for name in (f"ids_plugin.scores.{detector}" for detector in MODELS):
        scores = values(same, name)
        assert row[name] == (max(scores) if scores else None)


def _compared_with_what(alert: Document, shown: dict[str, list[dict[str, Any]]]) -> None:
    """Every panel of Vega has what it draws for this alert: it prefers the alert to the closing
    document."""
    for name in ("Weight of the earlier flows", "What moved the score", "Seen against expected"):
        (drawn,) = shown[name]
        assert drawn["message"] == alert["message"], name
    (drawn,) = shown["Seen against expected"]
    features = alert["ids_plugin"]["evidence"]["features"]
    assert [
        (one["name"], one.get("value"), one.get("expected"))
        for one in drawn["ids_plugin"]["evidence"]["features"]
    ] == [(one["name"], one.get("value"), one.get("expected")) for one in features]
    assert features


def _what_next(alert: Document, shown: dict[str, list[dict[str, Any]]], advice: str) -> None:
    """To Zeek's record, to the packets, to the earlier flows, to the model; and what to do about
    the class."""
    ways = {row["Zeek uid"]: row for row in shown["Flows: to Zeek and to the packets"]}
    way = ways[alert["zeek"]["session_id"]]
    assert way["Community ID"] == alert["network"]["community_id"]
    assert way["Model"] == alert["ids_plugin"]["bundle"]["id"]
    listed = [row["ids_plugin.evidence.flows.uid"] for row in shown["Earlier flows looked at"]]
    earlier = {uid for uids in listed for uid in (uids if isinstance(uids, list) else [uids])}
    assert {one["uid"] for one in alert["ids_plugin"]["evidence"]["flows"]} <= earlier
    assert f"| {alert['rule']['name']} |" in advice


def _answers(there: Filled, every: list[Request]) -> dict[str, list[dict[str, Any]]]:
    """Panel → its rows, by the ids, labels and fields of its columns."""
    found = {}
    for request in every:
        rows = request.rows(there.ask(request))
        if request.layer:
            shown = request.layer.columns
            rows = [_by("sourceField", shown, row) | _by("label", shown, row) | row for row in rows]
        found[request.name.removeprefix("IDS Triage / ")] = rows
    return found


def _by(key: str, columns: Mapping[str, Column], row: dict[str, Any]) -> dict[str, Any]:
    return {columns[name].state.get(key, name): value for name, value in row.items()}
