"""Mappings are what the documents' fields are said to be: ECS 8.11's types, and ours of
schema/alert.py.

    python -m tests.contract.test_templates        writes the mappings of dashboards/elasticsearch
    anew

Count `version` up in every file and in ids_plugin/elastic/streams.py when a mapping changes: `setup
elasticsearch` then renews what is installed, and `deliver` waits until it did."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ids_plugin.elastic import streams
from ids_plugin.schema import alert
from ids_plugin.schema.alert import Field
from ids_plugin.schema.ledger import Counts, Ledger
from ids_plugin.sinks import ledger_documents
from tests.contract.test_ecs import DOCUMENTS, ECS, field_of, fits, leaves

FOLDER = Path(__file__).parents[2] / "dashboards/elasticsearch"
FILES = sorted(FOLDER.glob("*/*.json"))
TEMPLATES = sorted(FOLDER.glob("index_template/*.json"))
META = {"managed_by": streams.MANAGED_BY, "version": streams.VERSION}
GEO = (
    "city_name",
    "continent_name",
    "country_iso_code",
    "country_name",
    "location",
    "region_iso_code",
    "region_name",
)
ENRICHED = tuple(
    f"{side}.{name}"
    for side in ("source", "destination")
    for name in (*(f"geo.{one}" for one in GEO), "as.number", "as.organization.name")
)
"""what the ingest pipeline adds to documents"""
LIMITS: dict[str, dict[str, Any]] = {
    "keyword": {"ignore_above": 1024},
    "date": {"format": "strict_date_optional_time"},
}
"""what fields of a type have beside it"""


def increment() -> dict[str, Any]:
    """A message of the ledger's topic with every counter and reasons."""
    ledger = Ledger()
    ledger.of("zeek", "gateway").add(
        Counts(read=5, parsed=3, rejected={"no_ts": 2}, scored=3, suppressed={"a.b": 1})
    )
    return {
        "stage": "normalise",
        "instance": "n1",
        "at": 1_795_254_021_149,
        "ledger": ledger.to_dict(),
    }


LEDGER_DOCUMENTS = ledger_documents.documents(increment(), "ids.ledger/0/17")


def ecs_fields() -> list[Field]:
    """ECS fields that any document has, or gets on its way in."""
    written = {name for one in [*DOCUMENTS, *LEDGER_DOCUMENTS] for name, _, _ in leaves(one)}
    return [
        Field(name, ECS[name][0], ECS[name][1], "")
        for name in sorted(written.union(ENRICHED))
        if name in ECS
    ]


def mapping(fields: Iterable[Field]) -> dict[str, Any]:
    """The strict mapping of these fields; names that the data gives become a dynamic object of one
    type."""
    root: dict[str, Any] = {"properties": {}}
    templates = []
    for field in fields:
        *parents, leaf = field.name.split(".")
        node = root
        for parent in parents:
            node = node["properties"].setdefault(parent, {})
            if (parent, leaf) != (parents[-1], "*"):
                node.setdefault("properties", {})
        if leaf == "*":
            node |= {"type": "object", "dynamic": True}
            templates.append(
                {parents[-1]: {"path_match": field.name, "mapping": {"type": field.type}}}
            )
        else:
            node["properties"][leaf] = {"type": field.type, **LIMITS.get(field.type, {})}
    return {
        "dynamic": "strict",
        "date_detection": False,
        **({"dynamic_templates": templates} if templates else {}),
    } | root


def component(fields: Iterable[Field], what: str, **settings: Any) -> dict[str, Any]:
    return {
        "template": {
            "mappings": mapping(fields),
            **({"settings": {"index": settings}} if settings else {}),
        },
        "version": streams.VERSION,
        "_meta": META | {"description": what},
    }


MADE = {
    "ids_plugin-ecs": component(ecs_fields(), "ECS 8.11 fields that documents of ids-plugin have"),
    "ids_plugin-alert": component(
        alert.FIELDS, "Fields of alerts that ECS doesn't have", default_pipeline="ids_plugin-geoip"
    ),
    "ids_plugin-ledger": component(
        ledger_documents.FIELDS, "Fields of the ledger that ECS doesn't have"
    ),
}


def load(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", MADE)
def test_mappings_are_made_from_the_fields(name: str) -> None:
    assert load(FOLDER / f"component_template/{name}.json") == MADE[name], (
        "see the top of this file"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_object_says_whose_it_is_and_its_version(path: Path) -> None:
    """Lifecycle policies have a version of their own: a newer one takes back for how long a site
    keeps documents."""
    made = load(path)
    meta = made.get("policy", made)["_meta"]
    assert meta.pop("description")
    assert meta == META | ({"version": 1} if "policy" in made else {})
    assert "policy" in made or made["version"] == streams.VERSION


def test_the_pipeline_writes_the_fields_that_are_mapped_and_refuses_nothing() -> None:
    made = load(FOLDER / "ingest_pipeline/ids_plugin-geoip.json")
    assert (
        MADE["ids_plugin-alert"]["template"]["settings"]["index"]["default_pipeline"]
        == "ids_plugin-geoip"
    )
    written = set[str]()
    for processor in made["processors"]:
        ((kind, said),) = processor.items()
        assert said["ignore_missing"] is said["ignore_failure"] is True
        if kind == "geoip":
            written |= {f"{said['target_field']}.{name}" for name in said["properties"]}
        else:
            written = written - {said["field"]} | {said["target_field"]}
    assert written == set(ENRICHED) <= ECS.keys()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_are_above_the_stock_ones_and_refer_to_what_is_there(path: Path) -> None:
    made = load(path)
    assert made["index_patterns"] == [f"{path.stem}-*"]
    assert made["priority"] > 200, "Fleet's own are 200, the stock ones 100"
    (custom,) = made["ignore_missing_component_templates"]
    assert custom == f"{path.stem}@custom" == made["composed_of"][-1]
    for part in made["composed_of"][:-1]:
        assert (FOLDER / f"component_template/{part}.json").exists()
    policy = made["template"]["settings"]["index"]["lifecycle"]["name"]
    phases = load(FOLDER / f"ilm_policy/{policy}.json")["policy"]["phases"]
    assert made["template"]["lifecycle"]["data_retention"] == phases["delete"]["min_age"]
    assert made["template"]["data_stream_options"] == {"failure_store": {"enabled": False}}
    assert made["template"]["mappings"]["_meta"] == META
    kind, dataset = path.stem.split("-")
    said = made["template"]["mappings"]["properties"]["data_stream"]["properties"]
    assert (said["type"]["value"], said["dataset"]["value"]) == (kind, dataset)


def test_templates_are_those_of_the_streams_that_are_written() -> None:
    assert {streams.ALERTS, streams.LEDGER} <= {path.stem for path in TEMPLATES}
    assert streams.ALERTS.endswith(f"-{alert.DATASET}")
    assert streams.LEDGER.endswith(f"-{ledger_documents.DATASET}")


def test_ecs_9_has_the_same_fields_with_the_same_types() -> None:
    newer = json.loads((Path(__file__).parent / "ecs-9.4.json").read_text())["fields"]
    for field in ecs_fields():
        kind, is_array, allowed = newer[field.name]
        assert (kind, is_array) == (field.type, field.array), field.name
        assert set(ECS[field.name][2] or ()) <= set(allowed or ()), field.name


def test_documents_of_the_ledger_have_known_fields_and_add_up() -> None:
    ours = {field.name: field.type for field in ledger_documents.FIELDS}
    for document in LEDGER_DOCUMENTS:
        for name, value, _ in leaves(document):
            kind = (
                ours[name]
                if name in ours
                else (field_of(name) or pytest.fail(f"{name} is unknown"))[0]
            )
            assert fits(kind, value), name
    counts, *reasons = [one["ids_plugin"]["ledger"] for one in LEDGER_DOCUMENTS]
    assert (counts["read"], counts["rejected"], counts["suppressed"]) == (5, 2, 1)
    assert [(one["counter"], one["reason"], one["count"]) for one in reasons] == [
        ("rejected", "no_ts", 2),
        ("suppressed", "a.b", 1),
    ]
    ids = [one["event"]["id"] for one in LEDGER_DOCUMENTS]
    assert len(set(ids)) == len(ids)
    assert ids == [
        one["event"]["id"] for one in ledger_documents.documents(increment(), "ids.ledger/0/17")
    ]


if __name__ == "__main__":
    for stem, made in MADE.items():
        (FOLDER / f"component_template/{stem}.json").write_text(json.dumps(made, indent=2) + "\n")
