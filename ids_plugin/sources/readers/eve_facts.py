"""Suricata's http, tls and dns events → fact tables.

Fields: https://docs.suricata.io/en/latest/output/eve/eve-json-format.html
An event that lacks what it takes to belong to a flow gives no fact; it is never a reject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from ids_plugin.schema.flow import DEFAULT_SENSOR
from ids_plugin.sources.facts import (
    FactTables,
    answer_table,
    certificate_table,
    http_table,
    tls_table,
)
from ids_plugin.sources.readers.flow_builder import canonical_address, text_times

DNS_PORT = 53
ADDRESS_TYPES = ("A", "AAAA")
ANSWER_TYPES = ("answer", "response")
Row = dict[str, Any]
TEXT, NUMBER, FLAG = pl.String(), pl.Float64(), pl.Boolean()
FLOW = {"sensor": TEXT, "uid": TEXT, "ts": TEXT}
COLUMNS: Mapping[str, Mapping[str, pl.DataType]] = {
    "http": FLOW
    | dict.fromkeys(("method", "host", "user_agent", "referrer"), TEXT)
    | {"status": NUMBER, "uri_bytes": NUMBER},
    "tls": FLOW
    | {"server_name": TEXT, "certificate": TEXT, "established": FLAG, "is_mismatch": FLAG},
    "certificate": {"sensor": TEXT, "certificate": TEXT, "ts": TEXT}
    | dict.fromkeys(("subject", "issuer", "not_before", "not_after"), TEXT)
    | {"has_alternative_name": FLAG},
    "answer": {"sensor": TEXT, "ts": TEXT}
    | dict.fromkeys(("host", "address", "name"), TEXT)
    | {"ttl": NUMBER},
}
"""Columns of the rows that an event of each kind gives, by the kind of table."""


def tables_of_eve(events: Iterable[tuple[str, Row]], sensor: str) -> FactTables:
    """Fact tables of (event type, event).

    Args:
        events: of the types in EVENTS.
        sensor: what the command says; DEFAULT_SENSOR leaves it to the events.
    """
    rows: dict[str, list[Row]] = {}
    for kind, event in events:
        for table, row in EVENTS[kind](event):
            named = _text(event.get("host")) if sensor == DEFAULT_SENSOR else None
            common = {"sensor": named or sensor, "ts": _text(event.get("timestamp"))}
            rows.setdefault(table, []).append(common | row)
    return {table: TABLES[table](_frame(table, members)) for table, members in rows.items()}


def _frame(table: str, rows: list[Row]) -> pl.DataFrame:
    columns = COLUMNS[table]
    frame = pl.DataFrame(
        {name: pl.Series([row.get(name) for row in rows], dtype=columns[name]) for name in columns}
    )
    return frame.with_columns(text_times(frame["ts"]).alias("time"))


def _http(event: Row) -> Iterator[tuple[str, Row]]:
    http = _object(event, "http")
    url = _text(http.get("url"))
    yield (
        "http",
        {
            "uid": _text(event.get("flow_id")),
            "method": _text(http.get("http_method")),
            "host": _text(http.get("hostname")),
            "user_agent": _text(http.get("http_user_agent")),
            "referrer": _text(http.get("http_refer")),
            "status": _number(http.get("status")),
            "uri_bytes": None if url is None else float(len(url.encode())),
        },
    )


def _tls(event: Row) -> Iterator[tuple[str, Row]]:
    """A handshake, and its certificate, which the event itself describes; whether the names fit it
    doesn't say."""
    tls, uid = _object(event, "tls"), _text(event.get("flow_id"))
    subject = _text(tls.get("subject"))
    key = (_text(tls.get("fingerprint")) or f"flow {uid}") if subject else None
    yield "tls", {"uid": uid, "server_name": _text(tls.get("sni")), "certificate": key}
    if key:
        names = tls.get("subjectaltname")
        yield (
            "certificate",
            {
                "certificate": key,
                "subject": subject,
                "issuer": _text(tls.get("issuerdn")),
                "not_before": _text(tls.get("notbefore")),
                "not_after": _text(tls.get("notafter")),
                "has_alternative_name": bool(names) if isinstance(names, list) else None,
            },
        )


def _dns(event: Row) -> Iterator[tuple[str, Row]]:
    """A row for each address in an answer; who asked is the end that isn't the DNS port's."""
    dns = _object(event, "dns")
    if dns.get("type") not in ANSWER_TYPES:
        return
    end = "dest_ip" if event.get("src_port") == DNS_PORT else "src_ip"
    queries = dns.get("queries")
    query = queries[0] if isinstance(queries, list) and queries else dns
    name = _text(query.get("rrname")) if isinstance(query, dict) else None
    host = canonical_address(_text(event.get(end)) or "")
    for address, ttl in _addresses(dns):
        canonical = canonical_address(address)
        yield "answer", {"host": host, "address": canonical, "name": name, "ttl": ttl}


def _addresses(dns: Row) -> Iterator[tuple[str, float | None]]:
    """Addresses and times to live of an answer: detailed, grouped by type, or one an event."""
    detailed = dns.get("answers")
    records = detailed if isinstance(detailed, list) else [dns]
    has_address = False
    for record in records:
        if isinstance(record, dict) and record.get("rrtype") in ADDRESS_TYPES:
            address = _text(record.get("rdata"))
            if address:
                has_address = True
                yield address, _number(record.get("ttl"))
    grouped = _object(dns, "grouped")
    for kind in () if has_address else ADDRESS_TYPES:
        members = grouped.get(kind)
        for member in members if isinstance(members, list) else ():
            yield str(member), None


def _object(record: Row, name: str) -> Row:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    """A text or a whole number as text; null for what is empty or something else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value or None if isinstance(value, str) else None


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except (ValueError, OverflowError):
        return None


def _http_table(rows: pl.DataFrame) -> pl.DataFrame:
    return http_table(rows.with_columns(pl.col("status", "uri_bytes").cast(pl.Int64, strict=False)))


def _certificate_table(rows: pl.DataFrame) -> pl.DataFrame:
    """Suricata writes times of certificates without an offset."""
    before, after = (
        pl.col(name).str.slice(0, 19).str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False)
        for name in ("not_before", "not_after")
    )
    validity = (after - before).dt.total_seconds().cast(pl.Float64)
    return certificate_table(rows.with_columns(validity_s=validity))


EVENTS: Mapping[str, Callable[[Row], Iterator[tuple[str, Row]]]] = {
    "http": _http,
    "tls": _tls,
    "dns": _dns,
}
"""Types of events that have facts → (table, row) of an event."""
TABLES: Mapping[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "http": _http_table,
    "tls": tls_table,
    "certificate": _certificate_table,
    "answer": answer_table,
}
