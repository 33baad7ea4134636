"""Zeek's conn.log and open_conn.log, as TSV and as JSON in every envelope it travels in; and what
its http, ssl, x509 and dns logs say of connections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import polars as pl

from ids_plugin.sources import Input, Read
from ids_plugin.sources.readers import ndjson, zeek_facts
from ids_plugin.sources.readers import zeek_tsv as tsv
from ids_plugin.sources.readers.flow_builder import COUNTS
from ids_plugin.sources.readers.ndjson import Bad, Field, Layout, OutOfScope

CONN = re.compile(r"conn(-\d+)?")
OPEN = re.compile(r"(open[-_]conn|conn[-_]long)(-\d+)?")
"""Paths of logs about connections that have not ended: Zeek's open-connections and long-connections
packages."""
MARKS = ("conn_state", "orig_pkts", "orig_ip_bytes", "orig_bytes")
"""Fields that a record about a connection has and other logs have not."""
TEXTS = ("uid", "proto", "conn_state", "history", "community_id")
ENDPOINTS = (("orig_h", "text"), ("orig_p", "int"), ("resp_h", "text"), ("resp_p", "int"))
SNIFFED = 20


class Zeek:
    """Reads what Zeek writes about connections."""

    name = "zeek"

    def sniff(self, head: bytes) -> float:
        """Sure of a TSV header; of JSON by how many of the first lines are Zeek's."""
        if tsv.is_header(head):
            return 0.99
        lines = [line for line in head.split(b"\n")[:SNIFFED] if line.strip()]
        zeek_lines = sum(_is_zeek(line) for line in lines)
        return 0.4 + 0.5 * zeek_lines / len(lines) if zeek_lines else 0.0

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """TSV or JSON, by the first bytes."""
        if tsv.is_header(source.head):
            yield from tsv.read(source, batch_rows)
            return
        open_named = bool(OPEN.search(source.name.rsplit("/", 1)[-1]))
        classify_record = partial(classify, open_named=open_named, with_facts=True)
        ndjson.probe(source, classify_record, self.name)
        yield from ndjson.read(
            source, batch_rows, classify_record, self.name, zeek_facts.tables_of_json
        )


def _is_zeek(line: bytes) -> bool:
    return ndjson.is_record(line, classify)


def classify(
    record: dict[str, Any], open_named: bool = False, *, with_facts: bool = False
) -> Layout | OutOfScope | Bad:
    """The layout of a Zeek record in any of its envelopes, or why it isn't one; `with_facts`:
    records of logs that say facts of flows come along."""
    if "ts" in record:
        return _plain(record, "", open_named, with_facts)
    for tag, inner in record.items():
        mapped = tag == "zeek" and "@timestamp" in record
        if (
            isinstance(inner, dict)
            and "ts" in inner
            and not isinstance(inner["ts"], dict)
            and not mapped
        ):
            return _plain(inner, tag, False, with_facts)
    return ndjson.envelope(record) or Bad("not_zeek", "no ts: not a Zeek record")


def _plain(
    record: dict[str, Any], tag: str, open_named: bool, with_facts: bool
) -> Layout | OutOfScope | Bad:
    path = tag or record.get("_path", "")
    if not isinstance(path, str):
        return Bad("bad_value", "_path is not text")
    ended, opened = (
        bool(CONN.fullmatch(path)),
        bool(OPEN.fullmatch(path)) or (open_named and not path),
    )
    if not (ended or opened) and not any(mark in record for mark in MARKS):
        log = zeek_facts.log_of(path, record) if with_facts else None
        if log is not None:
            return OutOfScope(f"facts_{log}", (log, record))
        return OutOfScope(f"zeek_{path or 'other'}")
    text = isinstance(record["ts"], str)
    if isinstance(record.get("id"), dict):
        return layout(tag, "nested", text, opened)
    for style, key in (("dotted", "id.orig_h"), ("underscore", "id_orig_h")):
        if key in record:
            return layout(tag, style, text, opened)
    return Bad("no_address", "no id.orig_h, id_orig_h or id: not a connection")


@cache
def layout(tag: str, style: str, text: bool, opened: bool) -> Layout:
    """Layout of a conn record: inside `tag` or bare, style of its id fields, whether `ts` is
    text."""
    root = (tag,) if tag else ()
    fields = [Field("ts", "iso" if text else "time", (*root, "ts"))]
    fields += [Field(name, kind, (*root, *_id_path(style, name))) for name, kind in ENDPOINTS]
    fields += [Field(name, "text", (*root, name)) for name in TEXTS]
    fields += [Field(name, "list", (*root, name)) for name in ("service", "tunnel_parents")]
    fields += [Field("duration", "float", (*root, "duration"))]
    fields += [Field(name, "bool", (*root, name)) for name in ("local_orig", "local_resp")]
    fields += [Field(name, "int", (*root, name)) for name in (*COUNTS, "ip_proto")]
    fields += [Field("label", "text", (*root, "label"))]
    fields += [
        Field("label_detail", "text", (*root, name)) for name in ("detailed-label", "label_detail")
    ]
    fields += [
        Field("_path", "text", (*root, "_path")),
        Field("sensor", "text", (*root, "_system_name")),
    ]
    path = pl.col("_path")
    marked = pl.any_horizontal(pl.col(name).is_not_null() for name in MARKS)
    named = path.str.contains(f"^(?:{(OPEN if opened else CONN).pattern})$").fill_null(False)
    is_ours = pl.col("orig_h").is_not_null() & pl.col("resp_h").is_not_null()
    is_ours &= pl.col("ts_text" if text else "ts").is_not_null()
    is_ours &= (marked & path.is_null()) | named if not tag else marked
    tidy = (
        pl.lit(opened).alias("open"),
        pl.col("tunnel_parents", "service").replace("", None),
        pl.col("label").str.to_lowercase(),
    )
    return Layout(tuple(fields), tidy, is_ours=is_ours)


def _id_path(style: str, name: str) -> tuple[str, ...]:
    return (
        ("id", name)
        if style == "nested"
        else (f"id.{name}" if style == "dotted" else f"id_{name}",)
    )


PLUGIN = Zeek()
