"""Increments of the ledger as documents of the data stream `metrics-ids_plugin.ledger-*`.

An entry (one source and sensor) gives one document with all its counters, and one for each reason
or rule behind them: sums over counters and tables by reason are both one plain aggregation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from ids_plugin.schema.alert import ECS_VERSION, MODULE, Document, Field
from ids_plugin.schema.ledger import Counts, Ledger, tally
from ids_plugin.sinks import Delivered

DATASET = "ids_plugin.ledger"

COUNTERS = tuple(entry.name for entry in fields(Counts))

FOREIGN = frozenset({"no_document", "no_id", "not_json"})
"""reasons of refusal that no document of ours gives"""

FIELDS: tuple[Field, ...] = (
    Field(
        "ids_plugin.ledger.stage",
        "keyword",
        False,
        "which process counted: normalise, detect or deliver",
    ),
    Field("ids_plugin.ledger.instance", "keyword", False, "which one of them"),
    Field("ids_plugin.ledger.source", "keyword", False, "kind of input"),
    *(
        Field(f"ids_plugin.ledger.{name}", "long", False, "counter of schema/ledger.py")
        for name in COUNTERS
    ),
    Field(
        "ids_plugin.ledger.counter",
        "keyword",
        False,
        "the counter that `reason` and `count` are about",
    ),
    Field("ids_plugin.ledger.reason", "keyword", False, "reason or rule"),
    Field("ids_plugin.ledger.count", "long", False, "how many for this reason"),
)


def documents(increment: Mapping[str, Any], name: str) -> list[Document]:
    """The documents of a message of the ledger's topic; `name` is its place there: with its time it
    gives their ids.

    Raises:
        KeyError, TypeError, ValueError: it is no such message.
    """
    timestamp = datetime.fromtimestamp(increment["at"] / 1000, UTC).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )
    who = {"stage": increment["stage"], "instance": increment["instance"]}
    made: list[Document] = []
    for (source, sensor), counts in Ledger.from_dict(increment["ledger"]).items():
        for what in _parts(counts):
            own = f"{name}/{increment['at']}/{len(made)}"
            made.append(
                {
                    "@timestamp": timestamp,
                    "ecs": {"version": ECS_VERSION},
                    "event": {"kind": "metric", "module": MODULE, "dataset": DATASET, "id": own},
                    "observer": {"name": sensor, "type": "ids", "product": "ids-plugin"},
                    "ids_plugin": {"ledger": {**who, "source": source, **what}},
                }
            )
    return made


def settled(documents: Sequence[Any], sources: Sequence[str], answer: Delivered) -> Ledger:
    """What became of alert documents: `delivered` and `refused` per source (given) and sensor (the
    document's); what nobody counted as a document was `read` and `rejected`."""
    ledger = Ledger()
    refused = {refusal.position: refusal.reason for refusal in answer.refusals}
    for place, (document, source) in enumerate(zip(documents, sources, strict=True)):
        counts = ledger.of(source, _sensor(document))
        if refused.get(place) in FOREIGN:
            counts.read += 1
            tally(counts.rejected, refused[place])
        elif place in refused:
            tally(counts.refused, refused[place])
        else:
            counts.delivered += 1
    return ledger


def _sensor(document: Any) -> str:
    observer = document.get("observer") if isinstance(document, Mapping) else None
    name = observer.get("name") if isinstance(observer, Mapping) else None
    return name if isinstance(name, str) else ""


def _parts(counts: Counts) -> Iterator[dict[str, Any]]:
    yield {name: counts.value(name) for name in COUNTERS if counts.value(name)}
    for counter in COUNTERS:
        reasons = getattr(counts, counter)
        if isinstance(reasons, dict):
            for reason, count in reasons.items():
                yield {"counter": counter, "reason": reason, "count": count}
