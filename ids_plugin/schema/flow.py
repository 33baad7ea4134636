"""A flow: Zeek's conn.log record, with Zeek's meaning of every column, and columns of ours.

Eight of ours stand among Zeek's. Behind them stand the facts of a flow: what other logs (http, ssl,
x509, dns) say of the same connection. `sources.facts` joins them to flows; no window holds them.

What a source can't know is null, never 0. Column names are Zeek's with `id.` left off.
https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import polars as pl

DEFAULT_SENSOR = "default"
"""Name of the sensor when neither the command nor the record says one: all inputs of a command are
one sensor."""


class Column(NamedTuple):
    """One column of the Flow frame; `zeek` is its name in a conn.log, None where the column is
    ours."""

    name: str
    dtype: pl.DataType
    zeek: str | None
    text: str


CONN_COLUMNS: tuple[Column, ...] = (
    Column(
        "sensor",
        pl.String(),
        None,
        "name of the sensor, observer.name; state is never shared between sensors",
    ),
    Column(
        "source",
        pl.String(),
        None,
        "name of the sources plugin that read it: zeek, suricata, capture, ...",
    ),
    Column(
        "open",
        pl.Boolean(),
        None,
        "record of a connection that had not ended; a later one of the uid replaces it",
    ),
    Column("ts", pl.Datetime("us", "UTC"), "ts", "time of the first packet"),
    Column("uid", pl.String(), "uid", "unique id of the connection"),
    Column("orig_h", pl.String(), "id.orig_h", "originator's address, canonical text form"),
    Column(
        "orig_p", pl.UInt16(), "id.orig_p", "originator's port; ICMP type; null where there is none"
    ),
    Column("resp_h", pl.String(), "id.resp_h", "responder's address, canonical text form"),
    Column(
        "resp_p", pl.UInt16(), "id.resp_p", "responder's port; ICMP code; null where there is none"
    ),
    Column("proto", pl.String(), "proto", "tcp, udp, icmp or unknown_transport"),
    Column("service", pl.String(), "service", "application protocols, comma-separated"),
    Column(
        "duration",
        pl.Duration("us"),
        "duration",
        "last packet minus first; null when there was one packet",
    ),
    Column("orig_bytes", pl.Int64(), "orig_bytes", "payload bytes from the originator"),
    Column("resp_bytes", pl.Int64(), "resp_bytes", "payload bytes from the responder"),
    Column(
        "conn_state",
        pl.String(),
        "conn_state",
        "S0 S1 SF REJ S2 S3 RSTO RSTR RSTOS0 RSTRH SH SHR OTH",
    ),
    Column(
        "local_orig",
        pl.Boolean(),
        "local_orig",
        "the originator is local (sources.local_networks); null until that is judged",
    ),
    Column(
        "local_resp",
        pl.Boolean(),
        "local_resp",
        "the responder is local (sources.local_networks); null until that is judged",
    ),
    Column("sensor_local_orig", pl.Boolean(), None, "the sensor calls the originator local"),
    Column("sensor_local_resp", pl.Boolean(), None, "the sensor calls the responder local"),
    Column("missed_bytes", pl.Int64(), "missed_bytes", "bytes missing in content gaps"),
    Column(
        "history",
        pl.String(),
        "history",
        "Zeek's letters of what happened; upper case is the originator",
    ),
    Column("orig_pkts", pl.Int64(), "orig_pkts", "packets from the originator"),
    Column(
        "orig_ip_bytes",
        pl.Int64(),
        "orig_ip_bytes",
        "IP bytes from the originator, headers included",
    ),
    Column("resp_pkts", pl.Int64(), "resp_pkts", "packets from the responder"),
    Column(
        "resp_ip_bytes",
        pl.Int64(),
        "resp_ip_bytes",
        "IP bytes from the responder, headers included",
    ),
    Column(
        "tunnel_parents",
        pl.String(),
        "tunnel_parents",
        "uids of the enclosing tunnels, comma-separated",
    ),
    Column("ip_proto", pl.UInt8(), "ip_proto", "IP protocol number"),
    Column("community_id", pl.String(), "community_id", "Community ID v1; null until asked for"),
    Column(
        "label",
        pl.String(),
        None,
        "class given by a labelled data set (lower case); null elsewhere",
    ),
    Column(
        "label_detail",
        pl.String(),
        None,
        "the data set's own detailed label or technique; null elsewhere",
    ),
    Column(
        "origin",
        pl.String(),
        None,
        "where it was read: file:line, file#packet, topic/partition/offset",
    ),
)

FACT_COLUMNS: tuple[Column, ...] = tuple(
    Column(name, dtype, None, text)
    for name, dtype, text in (
        ("http_method", pl.String(), "distinct methods of its requests, sorted, joined by commas"),
        ("http_host", pl.String(), "host that the first request with one names"),
        ("http_host_is_address", pl.Boolean(), "a request names an IP address as its host"),
        ("http_user_agent", pl.String(), "user agent of the first request that has one"),
        ("http_is_tool_agent", pl.Boolean(), "a request's user agent isn't a browser's"),
        ("http_has_referrer", pl.Boolean(), "a request has a referrer"),
        ("http_status", pl.UInt16(), "smallest status of its responses; null without a response"),
        ("http_uri_bytes", pl.UInt32(), "bytes of the longest URI"),
        ("http_requests", pl.UInt16(), "requests, 65,535 at most; null: http.log has none of it"),
        ("tls_established", pl.Boolean(), "a handshake ended well; null: ssl.log has none of it"),
        ("tls_server_name", pl.String(), "name of the server that the client asked for"),
        ("tls_has_certificate", pl.Boolean(), "the server's certificate is known"),
        ("tls_is_self_signed", pl.Boolean(), "the certificate's subject is its issuer"),
        (
            "tls_validity_days",
            pl.Float32(),
            "days for which the first certificate of the server's chain is valid",
        ),
        ("tls_is_name_mismatch", pl.Boolean(), "the server's name isn't one of the certificate's"),
        ("tls_has_alternative_name", pl.Boolean(), "the certificate has an alternative DNS name"),
        (
            "resp_name",
            pl.String(),
            "first name for which the originator got the responder's address in an answer, "
            "before the flow's first packet",
        ),
        ("resp_name_ttl", pl.Float32(), "time to live of that answer, seconds"),
    )
)
COLUMNS: tuple[Column, ...] = (*CONN_COLUMNS, *FACT_COLUMNS)

CONN_SCHEMA: dict[str, pl.DataType] = {column.name: column.dtype for column in CONN_COLUMNS}
FACT_SCHEMA: dict[str, pl.DataType] = {column.name: column.dtype for column in FACT_COLUMNS}
SCHEMA: dict[str, pl.DataType] = CONN_SCHEMA | FACT_SCHEMA
SENSOR_FLAGS: dict[str, str] = {
    "sensor_local_orig": "local_orig",
    "sensor_local_resp": "local_resp",
}
"""What the sensor says about an address → what we judge about it."""
ZEEK_NAMES: dict[str, str] = {column.zeek: column.name for column in COLUMNS if column.zeek}


def empty() -> pl.DataFrame:
    """A Flow frame without rows."""
    return _empty().clone()


@cache
def _empty() -> pl.DataFrame:
    """Made once: it takes longer than reading a small capture."""
    return pl.DataFrame(schema=SCHEMA)


def known() -> pl.Expr:
    """Time at which a flow is known, `ts + duration` (Datetime, µs): an absent duration counts as
    zero."""
    return pl.col("ts") + pl.col("duration").fill_null(pl.duration(microseconds=0))


def with_sensor_flags(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with `sensor_local_orig` and `sensor_local_resp` behind `local_resp`.

    Frames written before the sensor's flags and ours were kept apart have only `local_orig` and
    `local_resp`: these are taken for what the sensor says.
    """
    names = frame.columns
    if not set(SENSOR_FLAGS).isdisjoint(names) or not set(SENSOR_FLAGS.values()) <= set(names):
        return frame
    place = names.index("local_resp") + 1
    flags = [pl.col(judged).alias(flag) for flag, judged in SENSOR_FLAGS.items()]
    return frame.select(*names[:place], *flags, *names[place:])


def with_facts(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with every fact column, the absent ones null, behind `origin`."""
    names = frame.columns
    if set(FACT_SCHEMA) <= set(names):
        return frame
    place = names.index("origin") + 1
    facts = [
        pl.col(name) if name in names else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in FACT_SCHEMA.items()
    ]
    others = [name for name in names if name not in FACT_SCHEMA]
    return frame.select(*others[:place], *facts, *others[place:])
