"""Elastic Security's rules: one a class, saying what classes.toml and the mapping say.

What their queries lift is shown on a real Elasticsearch in tests/integration/test_rules.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ids_plugin.alerts.classes import classes
from ids_plugin.elastic.kibana_objects import ndjson
from ids_plugin.elastic.kibana_rules import rules
from ids_plugin.schema.alert import SEVERITIES
from tests.contract.test_templates import FOLDER as TEMPLATES

FOLDER = Path(__file__).parents[2] / "dashboards/rules"
FILES = sorted(FOLDER.glob("elastic/*.json"))
RULES = {path.stem: made for path, made in zip(FILES, rules(), strict=True)}
each = pytest.mark.parametrize("name", RULES)
BUTTON = re.compile(r"!\{investigate(\{.*\})\}")


def mapped(component: str) -> dict[str, str]:
    """Field → type of a component template."""
    found = {}

    def walk(node: dict[str, Any], name: str) -> None:
        for part, one in node.get("properties", {}).items():
            path = f"{name}.{part}" if name else part
            if "properties" in one or one.get("type") in ("object", "nested"):
                walk(one, path)
            else:
                found[path] = str(one["type"])

    walk(
        json.loads((TEMPLATES / f"component_template/{component}.json").read_text())["template"][
            "mappings"
        ],
        "",
    )
    return found


ECS, OURS = mapped("ids_plugin-ecs"), mapped("ids_plugin-alert")


def buttons(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Queries that the guide's buttons open in Timeline."""
    return [json.loads(found) for found in BUTTON.findall(made["note"])]


def test_there_is_one_for_each_class() -> None:
    assert RULES.keys() == classes().keys()


def test_the_file_for_an_import_by_hand_has_them() -> None:
    """After a change: ids-plugin setup kibana --write-rules dashboards/rules/ids_plugin.ndjson"""
    assert (FOLDER / "ids_plugin.ndjson").read_bytes() == ndjson(rules())


@each
def test_it_says_what_the_class_says(name: str) -> None:
    made, kind = RULES[name], classes()[name]
    assert made["rule_id"] == kind.uuid, "documents carry it as rule.uuid"
    assert made["name"] == f"ids-plugin: {kind.title}"
    assert (made["description"], made["severity"], made["risk_score"]) == (
        kind.description,
        kind.severity,
        SEVERITIES[kind.severity],
    )
    told = [
        (one["tactic"]["id"], technique["id"])
        for one in made["threat"]
        for technique in one["technique"]
    ]
    threat = kind.threat or {"tactic": {"id": []}, "technique": {"id": []}}
    assert [technique for _, technique in told] == threat["technique"]["id"]
    assert {tactic for tactic, _ in told} == set(threat["tactic"]["id"])
    for one in made["threat"]:
        for part in (one["tactic"], *one["technique"]):
            assert part["name"]
            assert part["reference"].endswith(f"/{part['id']}/")
    assert made["references"] == [
        technique["reference"] for one in made["threat"] for technique in one["technique"]
    ]


@each
def test_severity_risk_and_name_are_the_documents(name: str) -> None:
    made = RULES[name]
    levels = {one["severity"]: int(one["value"]) for one in made["severity_mapping"]}
    assert levels == SEVERITIES
    assert {one["field"] for one in made["severity_mapping"]} == {"event.severity"}
    assert [one["field"] for one in made["risk_score_mapping"]] == ["event.risk_score"]
    assert (made["rule_name_override"], made["timestamp_override"]) == ("message", "event.ingested")


@each
def test_it_looks_further_back_than_it_waits_and_has_room(name: str) -> None:
    made = RULES[name]
    assert (made["interval"], made["from"], made["to"]) == ("1m", "now-30m", "now")
    assert made["max_signals"] == 1000, "Kibana's own limit (xpack.alerting.rules.run.alerts.max)"
    assert made["index"] == ["logs-ids_plugin.alert-*"]
    assert (made["type"], made["language"], made["enabled"]) == ("query", "kuery", True)


@each
def test_every_field_that_it_names_is_mapped(name: str) -> None:
    made = RULES[name]
    for one in made["required_fields"]:
        assert (ECS if one["ecs"] else OURS)[one["name"]] == one["type"], one
    required = {one["name"] for one in made["required_fields"]}
    overrides = {made["rule_name_override"], made["timestamp_override"]}
    mappings = {one["field"] for one in (*made["severity_mapping"], *made["risk_score_mapping"])}
    asked = set(re.findall(r"([\w.]+) :", made["query"]))
    assert required == asked | overrides | mappings
    fields = ECS | OURS
    assert set(made["investigation_fields"]["field_names"]) <= fields.keys()
    objects = {path.rpartition(".")[0] for path in fields} | {"ids_plugin.scores"}
    named = set(
        re.findall(
            r"`((?:ids_plugin|event|destination|source|network|rule|zeek)\.[\w.]+)`", made["note"]
        )
    )
    assert named
    assert named <= fields.keys() | objects


@each
def test_the_guide_is_one(name: str) -> None:
    made = RULES[name]
    parts = re.findall(r"^### (.+)$", made["note"], flags=re.M)
    wanted = [
        classes()[name].title,
        "Possible investigation steps",
        "False positive analysis",
        "Response and remediation",
    ]
    assert parts == wanted
    assert len(re.findall(r"^\d+\. ", made["note"], flags=re.M)) >= 3
    assert buttons(made)
    assert made["note"].count("!{investigate") == len(buttons(made))
    assert made["false_positives"]
    assert "Resources: Investigation Guide" in made["tags"]


@each
def test_the_guides_buttons_ask_for_fields_that_alerts_have(name: str) -> None:
    for button in buttons(RULES[name]):
        assert button.keys() == {"label", "description", "providers", "relativeFrom", "relativeTo"}
        for one in (one for group in button["providers"] for one in group):
            assert one.keys() == {"field", "excluded", "queryType", "value", "valueType"}
            assert (one["excluded"], one["queryType"], one["valueType"]) == (
                False,
                "phrase",
                "string",
            )
            for field in re.findall(r"\{\{([\w.]+)\}\}", one["value"]):
                assert field in ECS | OURS


@each
def test_it_is_of_one_shape_with_nothing_of_a_sites(name: str) -> None:
    made = RULES[name]
    assert made.keys() == next(iter(RULES.values())).keys()
    assert not made.keys() & {
        "id",
        "exceptions_list",
        "actions",
        "created_at",
        "updated_by",
        "immutable",
        "meta",
    }


def test_the_page_lists_them_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs/rules.md").read_text()
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in page.splitlines()
        if row.startswith("| ids-plugin: ")
    ]
    wanted = []
    for name in classes():
        made = RULES[name]
        threat = "; ".join(
            f"{one['tactic']['name']}: "
            f"{', '.join(technique['id'] for technique in one['technique'])}"
            for one in made["threat"]
        )
        wanted.append([made["name"], made["severity"], str(made["risk_score"]), threat])
    assert rows == wanted
