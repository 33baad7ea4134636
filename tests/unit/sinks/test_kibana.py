"""Kibana's objects: read from their files, filled in, and in the form that an import takes."""

from __future__ import annotations

import json
from typing import Any

import orjson

from ids_plugin.elastic.kibana_objects import BUDGET, TYPES, SavedObject, ndjson, objects


def saved_object(saved: list[SavedObject], kind: str, name: str) -> SavedObject:
    (matching,) = (each for each in saved if (each["type"], each["id"]) == (kind, name))
    return matching


def leads_to(saved: list[SavedObject], field: str) -> str:
    """The URL template of a field in the data view of alerts."""
    formats = json.loads(
        saved_object(saved, "index-pattern", "ids_plugin-alerts")["attributes"]["fieldFormatMap"]
    )
    return str(formats[field]["params"]["urlTemplate"])


def budget_of(saved: list[SavedObject]) -> str:
    state = saved_object(saved, "lens", "ids_plugin-budget")["attributes"]["state"]
    return str(
        state["datasourceStates"]["formBased"]["layers"]["line"]["columns"]["budget"]["params"][
            "value"
        ]
    )


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [matching for each in value.values() for matching in strings(each)]
    if isinstance(value, list):
        return [matching for each in value for matching in strings(each)]
    return [value] if isinstance(value, str) else []


def test_what_others_refer_to_comes_first_and_the_order_stays() -> None:
    saved = objects()
    assert saved == objects()
    kinds = [each["type"] for each in saved]
    assert kinds == sorted(kinds, key=TYPES.index)
    assert set(kinds) == set(TYPES)


def test_links_stay_within_kibana_unless_a_site_says_where_they_lead() -> None:
    saved = objects()
    for field in (
        "zeek.session_id",
        "ids_plugin.evidence.flows.uid",
        "network.community_id",
        "ids_plugin.bundle.id",
    ):
        assert leads_to(saved, field).startswith("/app/discover#/"), field
        assert "{{value}}" in leads_to(saved, field), field
    assert budget_of(saved) == str(BUDGET)


def test_a_sites_own_links_and_budget() -> None:
    saved = objects(
        packets_url="https://arkime.example/?expression=communityId%3D%3D{{value}}",
        flow_url="https://zeek.example/{{value}}",
        model_url="https://models.example/{{value}}",
        budget=7.5,
    )
    assert leads_to(saved, "network.community_id").startswith("https://arkime.example/")
    assert leads_to(saved, "zeek.session_id") == "https://zeek.example/{{value}}"
    assert leads_to(saved, "ids_plugin.evidence.flows.uid") == "https://zeek.example/{{value}}"
    assert leads_to(saved, "ids_plugin.bundle.id") == "https://models.example/{{value}}"
    assert budget_of(saved) == "7.5"


def test_in_another_space_ids_and_what_names_them_end_in_its_name() -> None:
    here, saved = objects(), objects(space="soc-2")
    assert [each["id"] for each in saved] == [f"{each['id']}-soc-2" for each in here]
    known = {(each["type"], each["id"]) for each in saved}
    assert {(named["type"], named["id"]) for each in saved for named in each["references"]} <= known
    view = next(each for each in saved if each["id"] == "ids_plugin-alerts-soc-2")["attributes"]
    assert view["title"] == "logs-ids_plugin.alert-*"
    formats = json.loads(view["fieldFormatMap"])
    assert "/view/ids_plugin-host-soc-2?" in formats["source.ip"]["params"]["urlTemplate"]
    assert (
        "index:ids_plugin-alerts-soc-2," in formats["ids_plugin.bundle.id"]["params"]["urlTemplate"]
    )
    guide = next(each for each in saved if each["id"] == "ids_plugin-host_guide-soc-2")[
        "attributes"
    ]
    assert "(#/view/ids_plugin-triage-soc-2)" in guide["visState"]


def test_no_placeholder_is_left() -> None:
    assert [text for text in strings(objects()) if text.startswith("$")] == []


def test_vega_panels_hold_their_specification_as_text() -> None:
    panel = saved_object(objects(), "visualization", "ids_plugin-attention")
    spec = json.loads(json.loads(panel["attributes"]["visState"])["params"]["spec"])
    assert spec["$schema"].startswith("https://vega.github.io/schema/vega/v5")


def test_what_kibana_keeps_in_strings_is_in_strings() -> None:
    dashboard = saved_object(objects(), "dashboard", "ids_plugin-triage")["attributes"]
    assert isinstance(json.loads(dashboard["panelsJSON"]), list)
    assert json.loads(dashboard["optionsJSON"])["useMargins"] is True
    assert list(json.loads(dashboard["controlGroupInput"]["panelsJSON"])) == [
        "sensor",
        "class",
        "severity",
    ]
    assert json.loads(dashboard["kibanaSavedObjectMeta"]["searchSourceJSON"])["filter"] == []
    lens = saved_object(objects(), "lens", "ids_plugin-queue")["attributes"]
    assert isinstance(lens["state"], dict), "the state of Lens is an object in Kibana too"


def test_one_object_a_line() -> None:
    saved = objects()
    lines = ndjson(saved).splitlines()
    assert [orjson.loads(line) for line in lines] == saved
    assert ndjson([]) == b""
