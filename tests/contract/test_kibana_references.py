"""The saved objects hold together: forms, versions, references, layout, links; and whatever breaks
that is named."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from ids_plugin.elastic import kibana_objects
from tests.support import vega
from tests.support.kibana import (
    BrokenError,
    KqlError,
    Objects,
    complaints,
    ours,
    panels,
    requests,
    to_dsl,
    used,
)

OURS = ours()
TRIAGE = OURS.dashboard("Triage")

Change = Callable[[dict[str, dict[str, Any]]], None]


def test_nothing_is_wrong_with_the_objects_by_themselves() -> None:
    assert complaints(OURS) == []


def test_nothing_is_wrong_with_those_of_another_space() -> None:
    found = Objects(kibana_objects.objects(space="soc"))
    assert complaints(found) == []
    assert all(one.id.endswith("-soc") for one in found)


def test_vega_panels_name_the_fields_that_they_ask_for() -> None:
    named = used(
        Objects([one for one in OURS.raw if one["type"] in ("visualization", "index-pattern")])
    )
    for name, spec in vega.specs().items():
        assert vega.fields(spec) <= named[vega.request(spec)["index"]], name


def test_ids_are_ours_and_stay() -> None:
    assert [one.id for one in ours()] == [one.id for one in OURS]
    assert all(re.fullmatch(r"ids_plugin-[a-z0-9_]+", one.id) for one in OURS)
    stay = {"ids_plugin-overview", "ids_plugin-triage", "ids_plugin-host"}
    assert {one.id for one in OURS.of("dashboard")} == stay
    assert {one.id for one in OURS.of("index-pattern")} == {
        f"ids_plugin-{name}" for name in ("alerts", "flows", "ledger")
    }


def test_every_panel_says_what_it_shows_and_when_it_is_empty() -> None:
    for dashboard in OURS.of("dashboard"):
        for panel in panels(OURS, dashboard):
            assert panel.title, dashboard.title
            assert panel.kind == "markdown" or re.search(
                r"\b(Empty|0( or -)?):", panel.description
            ), panel.title


def test_each_dashboard_leads_to_the_others() -> None:
    names = {one.id for one in OURS.of("dashboard")}
    for dashboard in OURS.of("dashboard"):
        texts = "".join(
            str(panel.object.attributes)
            for panel in panels(OURS, dashboard)
            if panel.kind == "markdown"
        )
        assert names - {dashboard.id} <= set(re.findall(r"#/view/([\w-]+)", texts))


def _panels(objects: dict[str, dict[str, Any]], change: Callable[[list[Any]], None]) -> None:
    attributes = objects[TRIAGE.id]["attributes"]
    states = json.loads(attributes["panelsJSON"])
    change(states)
    attributes["panelsJSON"] = json.dumps(states)


def _of(objects: dict[str, dict[str, Any]], kind: str, visual: str = "") -> dict[str, Any]:
    return next(
        one
        for one in objects.values()
        if one["type"] == kind
        and (not visual or one["attributes"].get("visualizationType") == visual)
    )


def _layer(one: dict[str, Any]) -> dict[str, Any]:
    layers: dict[str, Any] = one["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]
    first: dict[str, Any] = next(iter(layers.values()))
    return first


def _unknown_operation(objects: dict[str, dict[str, Any]]) -> None:
    column = next(iter(_layer(_of(objects, "lens"))["columns"].values()))
    column["operationType"] = "cumulative_magic"


def _undrawn(objects: dict[str, dict[str, Any]]) -> None:
    _of(objects, "lens", "lnsDatatable")["attributes"]["state"]["visualization"]["columns"].pop()


def _two_of_a_list(objects: dict[str, dict[str, Any]]) -> None:
    layer = _layer(objects["ids_plugin-peers"])
    column = next(one for one in layer["columns"].values() if one["operationType"] == "max")
    column["sourceField"] = "ids_plugin.fold.top_peers.count"


def _drilldown(objects: dict[str, dict[str, Any]]) -> None:
    reference = next(
        one for one in objects[TRIAGE.id]["references"] if ":drilldown:" in one["name"]
    )
    reference["id"] = "ids_plugin-nowhere"


def _link(objects: dict[str, dict[str, Any]]) -> None:
    text = next(
        one
        for one in objects.values()
        if "#/view/ids_plugin-host" in str(one["attributes"].get("visState"))
    )
    text["attributes"]["visState"] = text["attributes"]["visState"].replace(
        "#/view/ids_plugin-host", "#/view/nowhere"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o: o.pop("ids_plugin-queue"), "leads to lens ids_plugin-queue, which isn't there"),
        (lambda o: o[TRIAGE.id]["references"].pop(0), "no reference named"),
        (
            lambda o: o[TRIAGE.id]["references"].append({"name": "x", "type": "lens", "id": "y"}),
            "nothing uses",
        ),
        (_drilldown, "leads to dashboard ids_plugin-nowhere"),
        (_link, "a link leads to the dashboard nowhere"),
        (
            lambda o: _of(o, "lens").update(typeMigrationVersion="9.1.0"),
            "typeMigrationVersion 9.1.0",
        ),
        (lambda o: _of(o, "search").pop("coreMigrationVersion"), "coreMigrationVersion None"),
        (lambda o: _of(o, "lens").update(updated_at="2026-01-01"), "its keys are"),
        (lambda o: _of(o, "lens")["attributes"].update(description=""), "no description"),
        (lambda o: _of(o, "index-pattern")["attributes"].update(title=""), "no title"),
        (
            lambda o: _of(o, "lens")["attributes"].update(visualizationType="lnsMagic"),
            "lnsMagic is not known",
        ),
        (_unknown_operation, "cumulative_magic is not known"),
        (_undrawn, "isn't drawn"),
        (_two_of_a_list, "don't belong together"),
        (lambda o: _panels(o, lambda p: p[1]["gridData"].update(y=0)), "overlap"),
        (lambda o: _panels(o, lambda p: p[1]["gridData"].update(w=49)), "leaves the grid"),
        (lambda o: _panels(o, lambda p: p[1].update(type="search")), "is said to be a search"),
        (lambda o: _of(o, "dashboard")["attributes"].update(panelsJSON=[]), "a string of JSON"),
    ],
)
def test_what_is_broken_is_named(change: Change, said: str) -> None:
    objects = {one["id"]: dict(one) for one in copy.deepcopy(OURS.raw)}
    change(objects)
    found = complaints(Objects(objects.values()))
    assert any(said in one for one in found), found


def test_two_objects_with_one_id_are_named() -> None:
    assert any(
        "2 objects have this id" in one for one in complaints(Objects([*OURS.raw, OURS.raw[0]]))
    )


def test_requests_of_an_unknown_dashboard_are_refused() -> None:
    with pytest.raises(BrokenError, match="0 dashboards are named 'Billing'"):
        requests("Billing", objects=OURS)


def test_requests_carry_filters_time_and_namespace() -> None:
    found = requests(
        "Triage",
        {"rule.name": ["Network scan", "Flood"]},
        ("now-7d", "now"),
        namespace="lab",
        objects=OURS,
    )
    assert {one.index for one in found} == {"logs-ids_plugin.alert-lab"}
    chosen = [{"match_phrase": {"rule.name": name}} for name in ("Network scan", "Flood")]
    for request in found:
        clauses = request.body["query"]["bool"]["filter"]
        assert any(
            clause.get("range", {}).get("@timestamp", {}).get("gte") == "now-7d"
            for clause in clauses
        )
        assert ({"bool": {"should": chosen, "minimum_should_match": 1}} in clauses) == (
            request.kind != "control"
        )


@pytest.mark.parametrize(
    ("kql", "dsl"),
    [
        ("", {"match_all": {}}),
        ("a.b: c", {"bool": {"should": [{"match": {"a.b": "c"}}], "minimum_should_match": 1}}),
        (
            'a : "b c"',
            {"bool": {"should": [{"match_phrase": {"a": "b c"}}], "minimum_should_match": 1}},
        ),
        ("a: b c", {"bool": {"should": [{"match": {"a": "b c"}}], "minimum_should_match": 1}}),
        ("a: *", {"bool": {"should": [{"exists": {"field": "a"}}], "minimum_should_match": 1}}),
        (
            "a >= 5",
            {"bool": {"should": [{"range": {"a": {"gte": "5"}}}], "minimum_should_match": 1}},
        ),
        ("a: true", {"bool": {"should": [{"match": {"a": True}}], "minimum_should_match": 1}}),
        (r"a: b\:c", {"bool": {"should": [{"match": {"a": "b:c"}}], "minimum_should_match": 1}}),
        (
            "a: x*",
            {
                "bool": {
                    "should": [{"query_string": {"fields": ["a"], "query": "x*"}}],
                    "minimum_should_match": 1,
                }
            },
        ),
        (
            "not a: *",
            {
                "bool": {
                    "must_not": {
                        "bool": {"should": [{"exists": {"field": "a"}}], "minimum_should_match": 1}
                    }
                }
            },
        ),
    ],
)
def test_kql_becomes_what_kibana_sends(kql: str, dsl: dict[str, Any]) -> None:
    assert to_dsl(kql) == dsl


def test_or_binds_weaker_than_and_in_kql() -> None:
    query = to_dsl("a: 1 or b: 2 and c: (3 or 4)")["bool"]
    assert query["should"][0] == to_dsl("a: 1")
    assert query["should"][1] == {"bool": {"filter": [to_dsl("b: 2"), to_dsl("c: (3 or 4)")]}}
    assert to_dsl("(a: 1 or b: 2) and c: 3")["bool"]["filter"][0] == to_dsl("a: 1 or b: 2")


@pytest.mark.parametrize(
    "kql",
    [
        "free text",
        '"a phrase"',
        "a: ",
        "a: (b",
        "a: b)",
        "a.*: b",
        "a: {b: c}",
        "a and",
        'a: "b',
        "a: b and",
        "a >",
    ],
)
def test_kql_that_is_not_known_is_refused(kql: str) -> None:
    with pytest.raises(KqlError):
        to_dsl(kql)
