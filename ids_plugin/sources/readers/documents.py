"""Documents of an Elasticsearch index → JSON lines that the readers of files and messages read.

A document may hold the sensor's own record as text (`message`, `event.original`): then that is
taken, since nothing of it is lost. Otherwise the document itself is, with dotted keys turned into
objects; Suricata's flows as Elastic's integration maps them become EVE records again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from ids_plugin.sources.readers.ndjson import (
    ENVELOPE_SENSORS,
    TRUTHS,
    Bad,
    Layout,
    OutOfScope,
    as_number,
)
from ids_plugin.sources.readers.zeek_json import messages

Classify = Callable[[dict[str, Any]], Layout | OutOfScope | Bad]
RECORD_SENSOR_KEYS = ("_system_name", "host")
"""What Zeek's and Suricata's own records call it."""
ORIGINALS = (("message",), ("event", "original"))
NUMBERS = {"bytes", "packets", "ip_bytes", "port", "duration", "missed", "missed_bytes"}
FLAGS = {"local_orig", "local_resp", "originator", "responder"}
"""Last names of fields that some stacks write as text, since Elasticsearch converts it when it
indexes."""
DOTTED = re.compile(rb'\.[\w@-]+":')
VALUE_AS_TEXT = re.compile(
    rb'"(?:%s)":"' % b"|".join(sorted(name.encode() for name in NUMBERS | FLAGS))
)
"""What documents that have to be put right have in them, and perhaps others: looking is cheaper
than putting right."""
SIDES = (("source", "src", "toserver"), ("destination", "dest", "toclient"))


class Line(NamedTuple):
    """A document as the readers read it."""

    text: bytes
    """a JSON object on one line"""
    sensor: str | None
    """what the record calls its sensor, else what the document does"""


def line(document: dict[str, Any], classify: Classify) -> Line:
    """A document's record; `classify` says what the readers make of an object."""
    text = orjson.dumps(document)
    nested = document
    if DOTTED.search(text) or VALUE_AS_TEXT.search(text):
        nested = _nested(document)
        text = orjson.dumps(nested)
    text, record = _original(nested, classify) or (_eve(nested) or text, nested)
    own = (record.get(name) for name in RECORD_SENSOR_KEYS)
    outer = (value_at(nested, *path) for path in ENVELOPE_SENSORS)
    return Line(
        text, next((name for name in (*own, *outer) if isinstance(name, str) and name), None)
    )


def value_at(document: object, *path: str) -> Any:
    """What stands at a path of objects, None if nothing does."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _nested(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same with `{"a.b": 1}` as `{"a": {"b": 1}}` at every level, and numbers that were written
    as text; of fields that stand twice the first value stays."""
    nested: dict[str, Any] = {}
    for name, value in document.items():
        inner = _nested(value) if isinstance(value, dict) else value
        *parents, last = name.split(".") if "." in name else (name,)
        if isinstance(inner, str) and (last in NUMBERS or last in FLAGS):
            inner = _typed(inner, last)
        into = nested
        for parent in parents:
            below = into.setdefault(parent, {})
            if not isinstance(below, dict):
                into, last = nested, name
                break
            into = below
        present = into.get(last)
        if isinstance(present, dict) and isinstance(inner, dict):
            _merge(present, inner)
        else:
            into.setdefault(last, inner)
    return nested


def _typed(text: str, name: str) -> object:
    """The number or truth that a text stands for; the text if it is none."""
    if name in FLAGS:
        return TRUTHS.get(text, text)
    return as_number(text)


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        present = into.setdefault(name, value)
        if present is not value and isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)


def _original(document: dict[str, Any], classify: Classify) -> tuple[bytes, dict[str, Any]] | None:
    """The sensor's own record of a flow, as it was written; Zeek's with its log's name if the
    document says which."""
    for path in ORIGINALS:
        text = value_at(document, *path)
        if not isinstance(text, str) or not text.startswith("{"):
            continue
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError:
            continue
        raw = text.strip().replace("\n", " ").encode("utf-8", "replace")
        file = value_at(document, "log", "file", "path")
        tagged = next(messages(file if isinstance(file, str) else "", b"", [raw]))
        envelope = record if tagged == raw else orjson.loads(tagged)
        if isinstance(record, dict) and isinstance(classify(envelope), Layout):
            return tagged, record
    return None


def _eve(document: dict[str, Any]) -> bytes | None:
    """Suricata's record of a flow out of Elastic's fields for it."""
    eve = value_at(document, "suricata", "eve")
    if not isinstance(eve, dict) or eve.get("event_type") != "flow":
        return None
    event, network = document.get("event"), document.get("network")
    flow = dict(value_at(eve, "flow") or {})
    record: dict[str, Any] = {**eve, "timestamp": document.get("@timestamp"), "flow": flow}
    for name in ("start", "end"):
        flow.setdefault(name, value_at(event, name))
    for side, short, direction in SIDES:
        end = document.get(side)
        record.setdefault(f"{short}_ip", value_at(end, "ip") or value_at(end, "address"))
        record.setdefault(f"{short}_port", value_at(end, "port"))
        flow.setdefault(f"pkts_{direction}", value_at(end, "packets"))
        flow.setdefault(f"bytes_{direction}", value_at(end, "bytes"))
    for name, field in (
        ("proto", "transport"),
        ("app_proto", "protocol"),
        ("community_id", "community_id"),
    ):
        record.setdefault(name, value_at(network, field))
    return orjson.dumps({name: value for name, value in record.items() if value is not None})
