"""What the detection rules lift, on a real Elasticsearch: each open alert once, and nothing else.

The requests are those of Elastic Security's query rules: KQL, the time in `event.ingested`, alerts
by document.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ids_plugin.alerts.classes import classes
from ids_plugin.elastic.kibana_rules import rules
from ids_plugin.elastic.streams import LEDGER
from ids_plugin.sinks.elasticsearch import Elasticsearch
from tests import services
from tests.contract.test_ecs import DOCUMENTS
from tests.contract.test_templates import LEDGER_DOCUMENTS
from tests.support.elastic import Stream
from tests.support.kibana import to_dsl

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OPEN = {one["event"]["id"] for one in DOCUMENTS if one["ids_plugin"]["fold"]["state"] == "open"}


@pytest.fixture(scope="module")
def filled(elasticsearch: services.Elasticsearch) -> Stream:
    """Alerts of every class, written 10 minutes ago about flows of months ago, and the ledger
    beside them."""
    made = Stream(elasticsearch)
    made.sink.write(DOCUMENTS, ingested=NOW - timedelta(minutes=10))
    Elasticsearch(made.settings, LEDGER).write(LEDGER_DOCUMENTS)
    made.client.indices.refresh(index=f"*ids_plugin*-{made.namespace}")
    return made


def lifted(made: Stream, rule: dict[str, Any], now: datetime) -> list[dict[str, Any]]:
    """Hits of a run of the rule at a time."""
    at = rule["timestamp_override"]
    minutes = int(rule["from"].removeprefix("now-").removesuffix("m"))
    since = now - timedelta(minutes=minutes)
    within = {
        "gte": since.isoformat(),
        "lte": now.isoformat(),
        "format": "strict_date_optional_time",
    }
    fallback = {"must_not": {"exists": {"field": at}}, "filter": {"range": {"@timestamp": within}}}
    either = [{"range": {at: within}}, {"bool": fallback}]
    query = {
        "bool": {
            "filter": [
                to_dsl(rule["query"]),
                {"bool": {"should": either, "minimum_should_match": 1}},
            ]
        }
    }
    order = [
        {at: {"order": "asc", "unmapped_type": "date"}},
        {"@timestamp": {"order": "asc", "unmapped_type": "date"}},
    ]
    index = rule["index"][0].removesuffix("*") + made.namespace
    asked = {"query": query, "sort": order, "size": rule["max_signals"], "fields": [{"field": "*"}]}
    hits: list[dict[str, Any]] = made.client.search(index=index, **asked)["hits"]["hits"]
    return hits


def test_every_open_alert_is_lifted_by_one_rule_and_closed_ones_by_none(filled: Stream) -> None:
    found = Counter(hit["_id"] for rule in rules() for hit in lifted(filled, rule, NOW))
    assert OPEN
    assert found == dict.fromkeys(OPEN, 1)


def test_each_rule_lifts_its_class(filled: Stream) -> None:
    kinds = {kind.uuid: name for name, kind in classes().items()}
    for rule in rules():
        hits = lifted(filled, rule, NOW)
        assert {hit["_source"]["rule"]["uuid"] for hit in hits} == {rule["rule_id"]}
        assert {hit["_source"]["ids_plugin"]["label"] for hit in hits} == {kinds[rule["rule_id"]]}


def test_an_alert_is_lifted_when_it_is_written_however_old_its_flow(filled: Stream) -> None:
    scan = next(rule for rule in rules() if rule["rule_id"] == classes()["scan"].uuid)
    moments = {
        minutes: len(lifted(filled, scan, NOW + timedelta(minutes=minutes)))
        for minutes in (-11, -9, 19, 21)
    }
    assert moments == {-11: 0, -9: moments[-9], 19: moments[-9], 21: 0}
    assert moments[-9] > 0


def test_what_kibana_maps_is_in_every_hit(filled: Stream) -> None:
    """Severity, risk score and name of an alert are taken from the hit."""
    for rule in rules():
        levels = {one["value"] for one in rule["severity_mapping"]}
        for hit in lifted(filled, rule, NOW):
            event = hit["_source"]["event"]
            assert str(event["severity"]) in levels
            assert 0 <= event["risk_score"] <= 100
            assert hit["_source"][rule["rule_name_override"]]
            for field in rule["required_fields"]:
                assert hit["fields"].get(field["name"]), field["name"]
