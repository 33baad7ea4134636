"""Every field of every document is ECS 8.11's, with its type and allowed values, or described in
schema/alert.py."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ids_plugin.alerts import AlertGrouper
from ids_plugin.schema import alert
from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import CLASSES
from tests.support.factories import (
    BUNDLE,
    SENSOR,
    alerts_of,
    behaviour,
    evidence,
    flow,
    frame,
    scores,
)

ECS = json.loads((Path(__file__).parent / "ecs-8.11.json").read_text())["fields"]
OURS = {field.name: field for field in alert.FIELDS}
EVENT_TYPES = {"network": {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"},  # noqa: E501
               "intrusion_detection": {"allowed", "denied", "info"}}  # fmt: skip
"""event.type values that ECS expects with our categories"""


def richest() -> list[Document]:
    """Documents of a fold in which everything is known, with the wall clock, an ICMP one, and one
    over IPv6."""
    rows = [
        flow(0, service="ssl,http", duration=timedelta(minutes=3)),
        flow(900, proto="icmp", orig_p=8, resp_p=0, orig_h="10.0.0.8"),
        flow(901, orig_h="2001:db8::1", resp_h="2001:db8::2"),
    ]
    flows = frame(rows)
    folder = AlertGrouper(SENSOR, BUNDLE)
    voted = scores(["scan"] * 3, [0.9] * 3)
    voted = voted._replace(
        models=dict.fromkeys(
            ("control", "counters", "anomaly_net", "lightgbm", "behaviour"), voted.score
        ),
        detector=np.array(["counters"] * 3),
    )
    plan = folder.plan(flows, voted)
    named = {row: evidence(flows.row(row, named=True)) for row in plan.rows.tolist()}
    now = datetime(2026, 4, 1, tzinfo=UTC)
    return folder.commit(plan, named, now).documents + folder.finish(now).documents


DOCUMENTS = [*(one for name in CLASSES[1:] for one in alerts_of(name)), *richest()]
IDS = [f"{one['ids_plugin']['label']}-{one['ids_plugin']['fold']['state']}" for one in DOCUMENTS]


def leaves(value: Any, name: str = "", in_array: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """(dotted name, value, whether a list held it) of everything that is neither a mapping nor a
    list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else key, in_array)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name, in_array=not isinstance(inner, dict))
    else:
        yield name, value, in_array


def field_of(name: str) -> tuple[str, bool, list[str] | None] | None:
    """(type, whether it is an array, allowed values) of a field; None where nobody knows it."""
    if name in ECS:
        return tuple(ECS[name])
    ours = OURS.get(name) or OURS.get(f"{name.rpartition('.')[0]}.*")
    return None if ours is None else (ours.type, ours.array, None)


def fits(kind: str, value: Any) -> bool:
    """Whether a JSON value is what an Elasticsearch field type stands for."""
    if kind in ("keyword", "constant_keyword", "wildcard", "text", "match_only_text"):
        return isinstance(value, str) and value != ""
    if kind == "ip":
        return bool(ipaddress.ip_address(value))
    if kind == "date":
        return value.endswith("Z") and bool(datetime.fromisoformat(value))
    if kind == "long":
        return type(value) is int and -(2**63) <= value < 2**63
    if kind in ("float", "double", "scaled_float"):
        return isinstance(value, float | int) and not isinstance(value, bool)
    return kind == "boolean" and isinstance(value, bool)


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_every_field_is_known_and_of_its_type(document: Document) -> None:
    for name, value, in_array in leaves(document):
        known = field_of(name)
        assert known is not None, f"{name} is neither ECS nor in schema/alert.py"
        kind, is_array, allowed = known
        assert fits(kind, value), f"{name}: {value!r} is no {kind}"
        assert in_array == is_array, f"{name} is {'no' if not is_array else 'an'} array"
        assert allowed is None or value in allowed, f"{name}: {value!r} is none of {allowed}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_event_types_are_those_expected_of_the_categories(document: Document) -> None:
    for category in document["event"]["category"]:
        assert set(document["event"]["type"]) <= EVENT_TYPES[category]


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_what_queues_need_is_there(document: Document) -> None:
    """Elastic Security's External Alerts rule and Security Onion's queue."""
    event = document["event"]
    is_alert = document["ids_plugin"]["fold"]["state"] == "open"
    assert (event["kind"] == "alert") is is_alert
    assert ("alert" in document["tags"]) is is_alert
    assert event["severity"] in (21, 47, 73, 99)
    assert 0 <= event["risk_score"] <= 100
    assert (event["dataset"], event["module"]) == ("ids_plugin.alert", "ids_plugin")
    for part, name in (
        ("rule", "name"),
        ("rule", "uuid"),
        ("observer", "name"),
        ("network", "community_id"),
    ):
        assert document[part][name]
    assert {document["source"]["ip"], document["destination"]["ip"]} & set(
        document["related"]["ip"]
    )
    assert document["message"]


def test_evidence_weights_sum_to_1() -> None:
    for document in DOCUMENTS:
        weights = [one["weight"] for one in document["ids_plugin"]["evidence"]["flows"]]
        assert sum(weights) == pytest.approx(1, abs=1e-5)


def test_every_field_that_is_described_is_written_by_some_document() -> None:
    written = {name for document in DOCUMENTS for name, _, _ in leaves(document)}
    written |= {f"{name.rpartition('.')[0]}.*" for name in written}
    assert not [name for name in OURS if name not in written]


def test_our_fields_stand_under_our_prefix() -> None:
    assert {name.split(".")[0] for name in OURS} == {"ids_plugin", "zeek"}
    assert not set(OURS) & set(ECS)


def test_the_rules_of_classes_are_distinct() -> None:
    rules = {name: alerts_of(name)[0]["rule"] for name in CLASSES[1:]}
    assert (
        len({rule["uuid"] for rule in rules.values()})
        == len({rule["name"] for rule in rules.values()})
        == len(rules)
    )


@pytest.mark.parametrize("name", CLASSES[1:])
def test_every_behaviour_of_the_factories_is_one_fold(name: str) -> None:
    assert len(behaviour(name)) > 5
    assert [one["ids_plugin"]["fold"]["state"] for one in alerts_of(name)] == ["open", "closed"]
