"""Zeek connections as documents of the Elastic Common Schema, in the four dialects that SIEMs
write.

They agree on addresses and ports and disagree on bytes and durations: `source.bytes` are IP bytes
in Elastic's integration and in Malcolm, payload in Corelight's mapping, and elsewhere in Security
Onion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import orjson
import polars as pl

from ids_plugin.errors import DialectError
from ids_plugin.sources import Input, Read, suricata, zeek
from ids_plugin.sources.readers import documents, ndjson
from ids_plugin.sources.readers.ndjson import Bad, Field, Layout, OutOfScope

SNIFFED = 20
NANO = 1e9
FRACTION = "_fraction"
"""Draft column: a duration that should be whole nanoseconds isn't."""


class Dialect(NamedTuple):
    """Where a dialect keeps what the others keep elsewhere: column → path, and what a unit of
    `duration` is."""

    name: str
    paths: dict[str, str]
    per_second: float


DIALECTS = (
    Dialect(
        "security_onion",
        {
            "uid": "log.id.uid",
            "duration": "event.duration",
            "orig_bytes": "client.bytes",
            "resp_bytes": "server.bytes",
            "orig_ip_bytes": "client.ip_bytes",
            "resp_ip_bytes": "server.ip_bytes",
            "orig_pkts": "client.packets",
            "resp_pkts": "server.packets",
            "conn_state": "connection.state",
            "history": "connection.history",
            "missed_bytes": "connection.bytes.missed",
            "local_orig": "connection.local.originator",
            "local_resp": "connection.local.responder",
            "tunnel_parents": "log.id.tunnel_parents",
        },
        1.0,
    ),
    Dialect(
        "corelight",
        {
            "uid": "log.id.uid",
            "duration": "event.duration",
            "orig_bytes": "source.bytes",
            "resp_bytes": "destination.bytes",
            "orig_ip_bytes": "source.ip_bytes",
            "resp_ip_bytes": "destination.ip_bytes",
            "orig_pkts": "source.packets",
            "resp_pkts": "destination.packets",
            "conn_state": "network.connection.state",
            "history": "network.connection.history",
            "missed_bytes": "network.missed_bytes",
            "local_orig": "conn.local_orig",
            "local_resp": "conn.local_resp",
            "tunnel_parents": "log.id.tunnel_parents",
        },
        NANO,
    ),
    Dialect(
        "malcolm",
        {
            "uid": "zeek.uid",
            "duration": "zeek.conn.duration",
            "orig_bytes": "client.bytes",
            "resp_bytes": "server.bytes",
            "orig_ip_bytes": "source.bytes",
            "resp_ip_bytes": "destination.bytes",
            "orig_pkts": "source.packets",
            "resp_pkts": "destination.packets",
            "conn_state": "zeek.conn.conn_state",
            "history": "zeek.conn.history",
            "missed_bytes": "zeek.conn.missed_bytes",
            "local_orig": "zeek.conn.local_orig",
            "local_resp": "zeek.conn.local_resp",
            "tunnel_parents": "zeek.conn.tunnel_parents",
        },
        1.0,
    ),
    Dialect(
        "elastic",
        {
            "uid": "zeek.session_id",
            "duration": "event.duration",
            "orig_ip_bytes": "source.bytes",
            "resp_ip_bytes": "destination.bytes",
            "orig_pkts": "source.packets",
            "resp_pkts": "destination.packets",
            "conn_state": "zeek.connection.state",
            "history": "zeek.connection.history",
            "missed_bytes": "zeek.connection.missed_bytes",
            "local_orig": "zeek.connection.local_orig",
            "local_resp": "zeek.connection.local_resp",
            "icmp_type": "zeek.connection.icmp.type",
            "icmp_code": "zeek.connection.icmp.code",
            "ip_proto": "zeek.connection.ip_proto",
        },
        NANO,
    ),
)
SHARED = {
    "ts": "@timestamp",
    "orig_h": "source.ip",
    "resp_h": "destination.ip",
    "source_port": "source.port",
    "destination_port": "destination.port",
    "proto": "network.transport",
    "service": "network.protocol",
    "community_id": "network.community_id",
    "sensor": "observer.name",
}
KINDS = {"ts": "iso", "duration": "float", "local_orig": "bool", "local_resp": "bool"}
ALSO = {
    "corelight": {"conn_state": "conn_state", "ip_proto": "ip_proto", "sensor": "observer.hostname"}
}
"""Other places where some versions of a dialect keep a column: asked after the first."""
BEFORE_PIPELINE = {"ts": ("time", "zeek.connection.ts"), "seconds": ("float", "temp.duration")}
"""What Filebeat's Zeek module sends and its ingest pipeline takes out: without that pipeline
`@timestamp` is when the line was read."""
DOTTED_BESIDE = ("event.dataset", "event.duration", "source.bytes", "destination.bytes")
"""Keys that some stacks write dotted beside nested objects."""
LISTS = ("service", "tunnel_parents", "uid", "proto")
TEXTS = ("orig_h", "resp_h", "community_id", "sensor", "conn_state", "history")
MARKS = {
    "security_onion": ("connection.state", "connection.history", "client.ip_bytes"),
    "corelight": ("network.connection.state", "network.connection.history", "source.ip_bytes"),
    "malcolm": ("zeek.uid", "zeek.conn.conn_state", "zeek.conn.history"),
    "elastic": ("zeek.session_id", "zeek.connection.state", "zeek.connection.history"),
}
"""What only this dialect has; a document is of the first of them that it has anything of."""
CONN = ("conn", "zeek.conn", "zeek.connection", "connection")
"""`event.dataset` of connections."""


class Ecs:
    """Reads ECS documents, one a line, bare or as `_source` of a search hit, nested or with dotted
    keys."""

    name = "ecs"

    def sniff(self, head: bytes) -> float:
        """By how many of the first lines are documents; a raw Zeek record within is left to the
        Zeek reader."""
        lines = [line for line in head.split(b"\n")[:SNIFFED] if line.strip()]
        documents = sum(_is_document(line) for line in lines)
        return 0.3 + 0.5 * documents / len(lines) if documents else 0.0

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """Connections in the dialect each document shows; documents about other things are out of
        scope.

        Raises:
            DialectError: durations that should be whole nanoseconds have fractions.
        """
        refuse_fractions(ndjson.probe(source, classify_any, self.name), source.name)
        yield from ndjson.read(source, batch_rows, classify_any, self.name)


def refuse_fractions(draft: pl.DataFrame, name: str) -> None:
    """Refuses the draft of an input's first records if their durations can't be in the unit they
    claim.

    Raises:
        DialectError: durations that should be whole nanoseconds have fractions.
    """
    parts = (
        draft[FRACTION].drop_nulls() if FRACTION in draft.columns else pl.Series(dtype=pl.Boolean)
    )
    if int(parts.sum()) * 2 > parts.len():
        what = "event.duration can't be in nanoseconds: it has fractions"
        raise DialectError(what, location=name, hint="is it in seconds?")


def _is_document(line: bytes) -> bool:
    try:
        record = orjson.loads(line.strip(ndjson.BLANK))
    except orjson.JSONDecodeError:
        return False
    known = classify(record) if isinstance(record, dict) else Bad("not_ecs", "")
    return not isinstance(known, Bad) or known.reason == ndjson.TSV_WITHOUT_HEADER


def classify_any(record: dict[str, Any]) -> Layout | OutOfScope | Bad:
    """As `classify`, and of the sensors' own records that documents hold."""
    if "event_type" in record and "timestamp" in record:
        return suricata.classify(record, _EVE)
    known = classify(record)
    if isinstance(known, Bad) and known.reason == "not_ecs":
        of_zeek = zeek.classify(record)
        return known if isinstance(of_zeek, Bad) and of_zeek.reason == "not_zeek" else of_zeek
    return known


_EVE = replace(suricata.FLOW, derive=suricata.Link(ethernet=True).derive)


def _rewritten(record: dict[str, Any]) -> bytes:
    """The record that a document holds, or the document with its keys and numbers put right."""
    hit = record.get("_source")
    text, sensor = documents.line(hit if isinstance(hit, dict) else record, _without_rewriting)
    inner = orjson.loads(text)
    if "@timestamp" in inner:
        return orjson.dumps(_settled(inner))
    return text if sensor is None else orjson.dumps(ndjson.with_sensor(inner, sensor))


def _settled(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what asks for rewriting and can't be."""
    settled = {key: value for key, value in document.items() if "." not in key}
    event = settled.get("event")
    if isinstance(event, dict):
        settled["event"] = {key: value for key, value in event.items() if key != "original"}
    return settled


def _without_rewriting(record: dict[str, Any]) -> Layout | OutOfScope | Bad:
    """What holds of a record that was taken out of a document."""
    layout = classify_any(record)
    is_rewritten = isinstance(layout, Layout) and layout.rewrite is not None
    return Bad("not_ecs", "a document in a document") if is_rewritten else layout


REWRITTEN = Layout((), rewrite=_rewritten)
"""Documents that hold the sensor's record, Suricata's as Elastic's integration maps them, and those
with dotted and nested keys side by side."""


def _is_to_rewrite(document: dict[str, Any], dotted: bool) -> bool:
    if dotted and any(isinstance(value, dict) for value in document.values()):
        return True
    original = documents.value_at(document, "event", "original")
    holds_record = isinstance(original, str) and original.lstrip().startswith("{")
    return holds_record or documents.value_at(document, "suricata", "eve", "event_type") == "flow"


def classify(record: dict[str, Any]) -> Layout | OutOfScope | Bad:
    """The layout of a document, by its dialect and form."""
    hit = isinstance(record.get("_source"), dict)
    document = record["_source"] if hit else record
    if "@timestamp" not in document:
        return Bad("not_ecs", "no @timestamp: not an ECS document")
    dotted = any("." in key for key in document)
    if _is_to_rewrite(document, dotted):
        return REWRITTEN
    dataset = _at(document, "event.dataset", dotted)
    dialects = [
        name
        for name, marks in MARKS.items()
        if any(_at(document, mark, dotted) is not None for mark in marks)
    ]
    if dataset is not None and dataset not in CONN:
        return (
            OutOfScope(f"ecs_{dataset}"[:40])
            if isinstance(dataset, str)
            else Bad("bad_value", "event.dataset")
        )
    if not dialects:
        return ndjson.envelope(document) or OutOfScope("ecs_other")
    if (
        _at(document, "source.ip", dotted) is None
        or _at(document, "destination.ip", dotted) is None
    ):
        return Bad("no_address", "no source.ip and destination.ip: not a connection")
    return layout(dialects[0], hit, dotted)


def _at(document: dict[str, Any], path: str, dotted: bool) -> object:
    """What stands at a path."""
    if dotted:
        return document.get(path)
    return documents.value_at(document, *path.split("."))


@cache
def layout(dialect: str, hit: bool, dotted: bool) -> Layout:
    """Layout of a dialect's documents: under `_source` of a hit or bare, with dotted keys or
    nested."""
    chosen = next(candidate for candidate in DIALECTS if candidate.name == dialect)
    root = ("_source",) if hit else ()
    marks = {f"?{path}": path for paths in MARKS.values() for path in paths}
    fields = []
    places = {**SHARED, **chosen.paths, **marks, "dataset": "event.dataset"}
    places["?original"] = "event.original"
    for column, path in (*places.items(), *ALSO.get(dialect, {}).items()):
        fields.append(
            Field(column, _kind(column), (*root, *((path,) if dotted else path.split("."))))
        )
    is_ours = _is_ours(dialect)
    if dialect == "elastic":
        for column, (kind, path) in BEFORE_PIPELINE.items():
            fields.append(Field(column, kind, (*root, *((path,) if dotted else path.split(".")))))
    if not dotted:
        fields += [Field(f"?.{key}", "text", (*root, key)) for key in DOTTED_BESIDE]
        is_ours &= pl.all_horizontal(pl.col(f"?.{key}").is_null() for key in DOTTED_BESIDE)
    return Layout(tuple(fields), derive=lambda frame: _finish(frame, chosen), is_ours=is_ours)


def _kind(column: str) -> str:
    if column in KINDS:
        return KINDS[column]
    if column in LISTS or column == "?zeek.uid":
        return "list"
    text = column in (*TEXTS, "dataset") or (
        column.startswith("?") and not column.endswith("bytes")
    )
    return "text" if text else "int"


def _is_ours(dialect: str) -> pl.Expr:
    """Rows with addresses and a time, with a mark of the dialect and none of those asked before
    it."""
    is_ours = pl.all_horizontal(pl.col("orig_h", "resp_h", "ts_text").is_not_null())
    is_ours &= pl.col("dataset").is_in(CONN) | pl.col("dataset").is_null()
    is_ours &= pl.col("?original").is_null()
    for name, paths in MARKS.items():
        marked = pl.any_horizontal(pl.col(f"?{path}").is_not_null() for path in paths)
        if name == dialect:
            return is_ours & marked
        is_ours &= ~marked
    raise KeyError(dialect)


def _finish(frame: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    """Ports of ICMP, durations in seconds."""
    ports = {"orig_p": ["source_port", "icmp_type"], "resp_p": ["destination_port", "icmp_code"]}
    port_columns = [
        pl.coalesce(name for name in names if name in frame.columns).alias(column)
        for column, names in ports.items()
    ]
    return frame.with_columns(
        *port_columns,
        pl.when(dialect.per_second == NANO).then(pl.col("duration") % 1 != 0).alias(FRACTION),
        pl.coalesce(pl.col("duration") / dialect.per_second, *_seconds(frame)).alias("duration"),
        pl.col("proto").str.to_lowercase().replace("ipv6-icmp", "icmp"),
        pl.col("service").replace("", None),
    )


def _seconds(frame: pl.DataFrame) -> list[pl.Expr]:
    return [pl.col("seconds")] if "seconds" in frame.columns else []


PLUGIN = Ecs()
