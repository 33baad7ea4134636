"""Records of Zeek's http, ssl, x509 and dns logs → fact tables, out of TSV and out of JSON.

A record that lacks what it takes to belong to a flow gives no fact; it is never a reject.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import polars as pl

from ids_plugin.schema.flow import DEFAULT_SENSOR
from ids_plugin.sources.facts import (
    FactTables,
    answer_table,
    certificate_table,
    http_table,
    tls_table,
)
from ids_plugin.sources.readers.flow_builder import IPV4, canonical_address, text_times, times

SYSTEM_NAME = "_system_name"
PATH = re.compile(r"(dns|http|ssl|x509)(-\d+)?")
TEXT, TEXTS = pl.String(), pl.List(pl.String())


class _Log(NamedTuple):
    """A log that has facts."""

    fields: dict[str, pl.DataType]
    """what is read of it: texts, and sets of texts"""
    marks: tuple[tuple[str, ...], ...]
    """fields one of which each group names, where a record doesn't say of which log it is"""
    table: Callable[[pl.DataFrame], pl.DataFrame]
    """a frame with `fields` and `sensor` → fact table"""
    kind: str
    """of the fact table"""


def _time(name: str) -> pl.Expr:
    """A field with a time → Int64 µs."""
    numeric = times(pl.col(name).cast(pl.Float64, strict=False))
    return pl.coalesce(numeric, pl.col(name).map_batches(text_times, return_dtype=pl.Int64))


def _seconds(name: str) -> pl.Expr:
    """A field with a time of any century → Float64 s."""
    iso = pl.col(name).str.replace(r"Z$", "+0000").str.replace(r"\.\d+([+-]\d\d:?\d\d)$", "${1}")
    instant = iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%z", time_unit="us", strict=False)
    return pl.coalesce(
        pl.col(name).cast(pl.Float64, strict=False), instant.dt.epoch("us") / 1_000_000
    )


def _http(records: pl.DataFrame) -> pl.DataFrame:
    return http_table(
        records.select(
            "sensor",
            "uid",
            _time("ts").alias("time"),
            "method",
            "host",
            "user_agent",
            "referrer",
            pl.col("status_code").cast(pl.Int64, strict=False).alias("status"),
            pl.col("uri").str.len_bytes().cast(pl.Int64).alias("uri_bytes"),
        )
    )


def _ssl(records: pl.DataFrame) -> pl.DataFrame:
    chain = pl.coalesce("cert_chain_fps", "cert_chain_fuids")
    return tls_table(
        records.select(
            "sensor",
            "uid",
            _time("ts").alias("time"),
            _is_true("established").alias("established"),
            "server_name",
            chain.list.first().alias("certificate"),
            (~_is_true("sni_matches_cert")).alias("is_mismatch"),
        )
    )


def _is_true(name: str) -> pl.Expr:
    return pl.col(name).replace_strict(
        {"T": True, "F": False, "true": True, "false": False}, default=None
    )


def _x509(records: pl.DataFrame) -> pl.DataFrame:
    validity = _seconds("certificate.not_valid_after") - _seconds("certificate.not_valid_before")
    return certificate_table(
        records.select(
            "sensor",
            pl.coalesce("fingerprint", "id").alias("certificate"),
            _time("ts").alias("time"),
            pl.col("certificate.subject").alias("subject"),
            pl.col("certificate.issuer").alias("issuer"),
            validity.alias("validity_s"),
            pl.col("san.dns").is_not_null().alias("has_alternative_name"),
        )
    )


def _dns(records: pl.DataFrame) -> pl.DataFrame:
    """A row an element of an answer. Its time is the query's and the time that it took; its time to
    live is the last one of the answer: those before it are aliases'."""
    took_us = (pl.col("rtt").cast(pl.Float64, strict=False).fill_null(0).clip(0) * 1e6).round()
    answers = records.filter(pl.col("answers").is_not_null()).select(
        "sensor",
        pl.col("id.orig_h").alias("host"),
        pl.col("answers").alias("address"),
        pl.col("query").alias("name"),
        pl.col("TTLs").list.last().cast(pl.Float64, strict=False).alias("ttl"),
        (_time("ts") + took_us.cast(pl.Int64)).alias("time"),
    )
    rows = answer_table(answers.explode("address"))
    return rows.with_columns(_canonical(rows[name]) for name in ("host", "address"))


def _canonical(addresses: pl.Series) -> pl.Series:
    """Addresses in canonical text form; null for what is none."""
    old = addresses.filter(~addresses.str.contains(IPV4)).unique()
    if not old.len():
        return addresses
    return addresses.replace(
        old, pl.Series([canonical_address(text) for text in old], dtype=pl.String)
    )


LOGS: Mapping[str, _Log] = {
    "http": _Log(
        dict.fromkeys(
            ("ts", "uid", "method", "host", "user_agent", "referrer", "status_code", "uri"), TEXT
        ),
        (("trans_depth",), ("tags", "host", "version", "referrer")),
        _http,
        "http",
    ),
    "ssl": _Log(
        dict.fromkeys(("ts", "uid", "established", "server_name", "sni_matches_cert"), TEXT)
        | dict.fromkeys(("cert_chain_fps", "cert_chain_fuids"), TEXTS),
        (("established",), ("cipher", "version", "server_name", "ssl_history")),
        _ssl,
        "tls",
    ),
    "x509": _Log(
        dict.fromkeys(("ts", "fingerprint", "id"), TEXT)
        | {f"certificate.{name}": TEXT for name in ("subject", "issuer")}
        | {f"certificate.not_valid_{side}": TEXT for side in ("before", "after")}
        | {"san.dns": TEXTS},
        (("certificate.serial", "certificate_serial", "certificate"),),
        _x509,
        "certificate",
    ),
    "dns": _Log(
        dict.fromkeys(("ts", "id.orig_h", "query", "rtt"), TEXT)
        | dict.fromkeys(("answers", "TTLs"), TEXTS),
        (("query",), ("qtype", "qtype_name", "answers", "rcode", "trans_id")),
        _dns,
        "answer",
    ),
}
"""Logs by the path that Zeek gives them."""


def log_of(path: str, fields: Collection[str]) -> str | None:
    """The log with facts that a record is of: by its path, without one by its fields."""
    if path:
        match = PATH.fullmatch(path)
        return match[1] if match else None
    for name, log in LOGS.items():
        if all(any(mark in fields for mark in group) for group in log.marks):
            return name
    return None


def fields_of(log: str) -> Mapping[str, pl.DataType]:
    """What is read of a log: the names of its fields, with the type of a text or a set of texts."""
    return LOGS[log].fields


def tables(log: str, records: pl.DataFrame, sensor: str) -> FactTables:
    """Fact tables of records.

    Args:
        log: their log.
        records: some columns of `fields_of(log)`, null where a field is unset, and maybe
            `_system_name`; absent columns are unset.
        sensor: what the command says; DEFAULT_SENSOR leaves it to the records.
    """
    absent = [
        pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in (LOGS[log].fields | {SYSTEM_NAME: TEXT}).items()
        if name not in records.columns
    ]
    named = pl.lit(sensor) if sensor != DEFAULT_SENSOR else pl.col(SYSTEM_NAME).fill_null(sensor)
    whole = records.with_columns(absent).with_columns(named.alias("sensor"))
    return {LOGS[log].kind: LOGS[log].table(whole)}


def tables_of_json(records: Iterable[tuple[str, dict[str, Any]]], sensor: str) -> FactTables:
    """Fact tables of (log, record as its JSON says it)."""
    by_log: dict[str, list[dict[str, Any]]] = {}
    for log, record in records:
        by_log.setdefault(log, []).append(record)
    made: dict[str, pl.DataFrame] = {}
    for log, members in by_log.items():
        schema = LOGS[log].fields | {SYSTEM_NAME: TEXT}
        columns = {
            name: pl.Series(
                name,
                [_json_value(_value_at(record, name), dtype == TEXTS) for record in members],
                dtype=dtype,
            )
            for name, dtype in schema.items()
        }
        made |= tables(log, pl.DataFrame(columns), sensor)
    return made


def _value_at(record: dict[str, Any], name: str) -> object:
    """A field's value, whether its name has dots, underscores for them, or objects."""
    if name in record or "." not in name:
        return record.get(name)
    flat = name.replace(".", "_")
    if flat in record:
        return record[flat]
    value: Any = record
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _json_value(value: object, is_set: bool) -> str | list[str] | None:
    """A value as TSV would have it; null for what is empty and for objects."""
    if is_set:
        items = value if isinstance(value, list) else [value]
        texts = [text for item in items if isinstance(text := _json_value(item, False), str)]
        return texts or None
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, (int, float)):
        return str(value)
    return value or None if isinstance(value, str) else None
