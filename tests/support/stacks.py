"""What existing stacks make of a Zeek connection: their documents, and what of the record is lost
in them.

Written from the stacks' public mappings (docs/stacks names them); none of the stacks runs here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

Record = dict[str, Any]
Document = dict[str, Any]


def moment(seconds: float) -> str:
    """A time as `date` processors write it: whole milliseconds."""
    return (
        datetime.fromtimestamp(floor(seconds), UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def floor(seconds: float) -> float:
    return math.floor(round(seconds * 1e6) / 1e3) / 1e3


def without(record: Record, *names: str) -> Record:
    return {name: value for name, value in record.items() if name not in names}


def known(document: Document) -> Document:
    """Without what the record doesn't have."""
    parts = {
        name: known(value) if isinstance(value, dict) else value for name, value in document.items()
    }
    return {name: value for name, value in parts.items() if value is not None and value != {}}


def nanoseconds(record: Record) -> int | None:
    return round(record["duration"] * 1_000_000_000) if "duration" in record else None


def ends(record: Record, orig: Document, resp: Document) -> Document:
    """`source` and `destination` with their addresses and ports."""
    return {
        "source": {"ip": record["id.orig_h"], "port": record.get("id.orig_p"), **orig},
        "destination": {"ip": record["id.resp_h"], "port": record.get("id.resp_p"), **resp},
    }


def counts(record: Record, **names: str) -> tuple[Document, Document]:
    """Both ends' counters: name in the document → name in the record without its side."""
    sides = (
        {name: record.get(f"{side}_{column}") for name, column in names.items()}
        for side in ("orig", "resp")
    )
    orig, resp = sides
    return orig, resp


def network(record: Record) -> Document:
    return {"transport": record["proto"], "protocol": record.get("service")}


def elastic(record: Record) -> Document:
    """Elastic's Zeek integration."""
    sides = counts(record, bytes="ip_bytes", packets="pkts")
    ports = {name: record.get(f"id.{name}") for name in ("orig_p", "resp_p")}
    icmp = record["proto"] == "icmp"
    made = ends(without(record, "id.orig_p", "id.resp_p") if icmp else record, *sides)
    kept = {
        name: record.get(name)
        for name in ("history", "local_orig", "local_resp", "missed_bytes", "ip_proto")
    }
    kept |= {"state": record.get("conn_state")}
    kept |= {"icmp": {"type": ports["orig_p"], "code": ports["resp_p"]}} if icmp else {}
    event = {
        "dataset": "zeek.connection",
        "kind": "event",
        "category": ["network"],
        "id": record["uid"],
    }
    return known(
        {
            "@timestamp": moment(record["ts"]),
            "agent": {"name": "sensor-1", "type": "filebeat"},
            "data_stream": {"type": "logs", "dataset": "zeek.connection", "namespace": "default"},
            "event": {**event, "duration": nanoseconds(record)},
            "network": network(record),
            "zeek": {"session_id": record["uid"], "connection": kept},
            **made,
        }
    )


def elastic_losses(record: Record) -> Record:
    kept = without(record, "orig_bytes", "resp_bytes", "tunnel_parents")
    return {**kept, "ts": floor(record["ts"])}


def security_onion(record: Record) -> Document:
    """Security Onion's pipeline `zeek.conn`, without the text of the record that it also keeps."""
    client, server = counts(record, bytes="bytes", ip_bytes="ip_bytes", packets="pkts")
    local = {"originator": record.get("local_orig"), "responder": record.get("local_resp")}
    state = {"state": record.get("conn_state"), "history": record.get("history"), "local": local}
    return known(
        {
            "@timestamp": moment(record["ts"]),
            "event": {"module": "zeek", "dataset": "zeek.conn", "duration": record.get("duration")},
            "observer": {"name": "sensor-1"},
            "network": network(record),
            "client": client,
            "server": server,
            "connection": {**state, "bytes": {"missed": record.get("missed_bytes")}},
            "log": {"id": {"uid": record["uid"], "tunnel_parents": record.get("tunnel_parents")}},
            **ends(record, {}, {}),
        }
    )


def security_onion_whole(record: Record) -> Document:
    """As Security Onion keeps it: with the record's text."""
    return {**security_onion(record), "message": orjson.dumps(record).decode()}


def corelight(record: Record) -> Document:
    """Corelight's ECS mapping."""
    state = {"state": record.get("conn_state"), "history": record.get("history")}
    return known(
        {
            "@timestamp": moment(record["ts"]),
            "event": {"module": "corelight", "dataset": "conn", "duration": nanoseconds(record)},
            "observer": {"vendor": "Corelight", "hostname": "sensor-1"},
            "network": {
                **network(record),
                "connection": state,
                "missed_bytes": record.get("missed_bytes"),
            },
            "conn": {
                "local_orig": record.get("local_orig"),
                "local_resp": record.get("local_resp"),
            },
            "log": {"id": {"uid": record["uid"], "tunnel_parents": record.get("tunnel_parents")}},
            "ip_proto": record.get("ip_proto"),
            **ends(record, *counts(record, bytes="bytes", ip_bytes="ip_bytes", packets="pkts")),
        }
    )


def malcolm(record: Record) -> Document:
    """Malcolm's Logstash: numbers out of Zeek's TSV stay texts, services become lists."""
    client, server = counts(record, bytes="bytes")
    text = {name: str(record[name]) for name in ("duration", "missed_bytes") if name in record}
    kept = {
        name: record.get(name) for name in ("conn_state", "history", "local_orig", "local_resp")
    }
    orig, resp = counts(record, bytes="ip_bytes", packets="pkts")
    made: Document = {
        "@timestamp": moment(record["ts"]),
        "event": {"provider": "zeek", "dataset": "conn"},
        "observer": {"name": "sensor-1"},
        "network": {
            "transport": record["proto"],
            "protocol": record["service"].split(",") if "service" in record else None,
        },
        "client": client,
        "server": server,
        "zeek": {
            "uid": record["uid"],
            "conn": {**kept, **text, "tunnel_parents": record.get("tunnel_parents")},
        },
        **ends(record, orig, resp),
    }
    for side in ("source", "destination", "client", "server"):
        made[side] = {
            name: str(value) if value is not None else None for name, value in made[side].items()
        }
    return known(made)


def milliseconds(record: Record) -> Record:
    """What all but the protocol number survives."""
    return {**without(record, "ip_proto"), "ts": floor(record["ts"])}


def corelight_losses(record: Record) -> Record:
    return {**record, "ts": floor(record["ts"])}


def flattened(document: Document, prefix: str = "") -> Document:
    """The same with dotted keys, as an index without objects has it."""
    found: Document = {}
    for name, value in document.items():
        found |= (
            flattened(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        )
    return found


STACKS: dict[str, tuple[Callable[[Record], Document], Callable[[Record], Record]]] = {
    "elastic": (elastic, elastic_losses),
    "security_onion": (security_onion, milliseconds),
    "security_onion_whole": (security_onion_whole, dict),
    "corelight": (corelight, corelight_losses),
    "malcolm": (malcolm, milliseconds),
}
"""Name → what writes its documents, and what is left of a record in them."""
