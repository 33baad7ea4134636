"""An Elasticsearch like a site's: alerts of every class, the ledger, scored flows, the sample;
asked as Kibana asks."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import elasticsearch as client

from ids_plugin import cli
from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Counts, Ledger
from ids_plugin.schema.score import CLASSES
from ids_plugin.sinks import ledger_documents
from tests import services
from tests.support.elastic import Stream
from tests.support.factories import START, alerts_of
from tests.support.kibana.dashboard import Request
from tests.support.kibana.judge import Mapped
from tests.support.kibana.saved import Objects

SAMPLE = Path(__file__).parents[2] / "lab/sample/capture.pcap.gz"
SENSORS = ("gateway", "warehouse")
EVERYTHING = ("2026-03-01T00:00:00Z", "2026-03-09T00:00:00Z")
"""time range of the alerts of every class"""
FLOW_FIELDS = ("@timestamp", "ecs", "observer", "source", "destination", "network", "zeek")


class Filled(Stream):
    """A namespace with documents of every kind."""

    def __init__(self, server: services.Elasticsearch, *, empty: bool = False) -> None:
        super().__init__(server)
        self.server = server
        self.documents: list[Document] = []
        self.sent: dict[str, list[Document]] = {}
        """data stream without its namespace → documents, those of one sensor"""
        if not empty:
            self._fill()

    def _fill(self) -> None:
        self.documents = [one for name in CLASSES[1:] for one in _alerts(name)]
        self.add("logs-ids_plugin.alert", self.documents)
        self.add("metrics-ids_plugin.ledger", _ledger_documents())
        self.add("logs-ids_plugin.flow", [_flow(one) for one in self.documents])

    def add(self, stream: str, documents: Iterable[Document]) -> None:
        """Indexes documents under ids of their own."""
        documents = list(documents)
        self.sent[stream] = [one for one in documents if one["observer"]["name"] == SENSORS[0]]
        lines: list[Any] = []
        for one in documents:
            lines += [{"create": {"_id": one["event"]["id"]}}, one]
        answer = self.client.bulk(
            index=f"{stream}-{self.namespace}", operations=lines, refresh=True
        )
        refused = [item["create"]["error"] for item in answer["items"] if "error" in item["create"]]
        assert not refused, refused[0]

    def ask(self, request: Request) -> dict[str, Any]:
        """The answer to a request of Kibana's, and to the second that it may need.

        Raises:
            elasticsearch.ApiError: Elasticsearch refuses it.
        """
        answer = self._search(request)
        rest = request.rest(answer)
        return (
            answer
            if rest is None or request.layer is None
            else request.layer.completed(answer, self._search(rest))
        )

    def _search(self, request: Request) -> dict[str, Any]:
        patient = {name: value for name, value in request.body.items() if name != "timeout"}
        return dict(
            self.client.search(index=request.index, body=patient, ignore_unavailable=True).body
        )

    def mapped(self, objects: Objects) -> dict[str, Mapped]:
        """A data view's pattern → fields of its indices, as Kibana learns of them."""
        patterns = [view.title for view in objects.of("index-pattern")]
        return {
            pattern: self.fields(pattern.replace("-*", f"-{self.namespace}"))
            for pattern in patterns
        }

    def fields(self, index: str) -> Mapped:
        """Field → type → what it can do."""
        answer: Mapped = self.client.field_caps(index=index, fields="*")["fields"]
        return answer


def trouble(there: Filled, every: Iterable[Request]) -> list[str]:
    """What Elasticsearch refuses of the requests, or answers with unexpected emptiness."""
    found = []
    for request in every:
        try:
            found += list(request.empty(there.ask(request)))
        except client.ApiError as error:
            found.append(f"{request.name}: {error.info['error']['root_cause'][0]['reason']}")
    return found


def export_sample(there: Filled, folder: Path) -> list[Document]:
    """Scans the sample and exports its alerts and its ledger into the namespace; the alerts as they
    are there."""
    assert cli.main(["scan", str(SAMPLE), "--out", str(folder), "--quiet"]) == 0
    options = ["--elasticsearch", there.server.url, "--namespace", there.namespace, "--quiet"]
    assert cli.main(["export", str(folder), *options]) == 0
    there.client.indices.refresh(index=f"*-{there.namespace}")
    return [json.loads(line) for line in (folder / "alerts.ndjson").read_text().splitlines()]


def _alerts(name: str) -> list[Document]:
    """Alerts of a class at every sensor, with ids of their own, ingested when they happened, after
    all models voted."""
    made = []
    for original in alerts_of(name):
        for sensor in SENSORS:
            one = copy.deepcopy(original)
            one["observer"]["name"] = sensor
            one["event"]["id"] += sensor
            one["event"]["ingested"] = one["@timestamp"]
            one["ids_plugin"]["fold"]["id"] += sensor
            one["ids_plugin"]["scores"] |= {"control": 0.75, "counters": 0.6}
            for side in ("source", "destination"):
                one[side] |= {
                    "as": {"organization": {"name": "Example"}},
                    "geo": {"country_name": "Utopia"},
                }
            made.append(one)
    return made


def _flow(alert: Mapping[str, Any]) -> Document:
    """The flow of an alert, as a site that keeps scored flows has it."""
    ours = {
        name: alert["ids_plugin"][name]
        for name in ("score", "threshold", "label", "scores", "bundle")
    }
    event = {
        name: alert["event"][name]
        for name in ("id", "start", "end", "duration", "ingested")
        if name in alert["event"]
    }
    event |= {
        "kind": "event",
        "category": ["network"],
        "module": "ids_plugin",
        "dataset": "ids_plugin.flow",
    }
    return {**{name: alert[name] for name in FLOW_FIELDS}, "event": event, "ids_plugin": ours}


def _ledger_documents() -> list[Document]:
    """Increments in which every counter counts, of every stage and sensor."""
    made = []
    for hour in range(3):
        for stage in ("normalise", "detect", "deliver"):
            ledger = Ledger()
            for sensor in SENSORS:
                ledger.of("zeek", sensor).add(_counts())
            at = round(START.timestamp() * 1000) + hour * 3_600_000
            increment = {
                "stage": stage,
                "instance": f"{stage}-1",
                "at": at,
                "ledger": ledger.to_dict(),
            }
            made += ledger_documents.documents(increment, f"ids.ledger/{stage}/{hour}")
    return made


def _counts() -> Counts:
    counts = Counts()
    for one in fields(Counts):
        setattr(
            counts, one.name, {"a reason": 2} if isinstance(getattr(counts, one.name), dict) else 7
        )
    return counts
