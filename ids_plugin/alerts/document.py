"""Alert group + flow + score + evidence → alert document.

The fields are described in schema/alert.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ids_plugin.alerts.classes import Class
from ids_plugin.alerts.severity import lowered, risk
from ids_plugin.schema.alert import DATASET, ECS_VERSION, MODULE, SEVERITIES, Document
from ids_plugin.schema.community_id import community_id, protocol_number
from ids_plugin.schema.evidence import Evidence, EvidenceFeature, EvidenceFlow

_DIGITS = 6


class BundleFacts(NamedTuple):
    """What an alert says of the bundle that raised it."""

    id: str
    family: str
    version: str
    severities: Mapping[str, str] = MappingProxyType({})
    """class → severity where the bundle's differs from classes.toml"""


class Verdict(NamedTuple):
    """One row of Scores."""

    score: float
    threshold: float
    models: Mapping[str, float]
    detector: str = ""
    """name of the detector that says so; "" where the bundle's members decide together"""


class GroupFacts(NamedTuple):
    """What both documents of a group say of it; times in µs since the epoch."""

    id: str
    sensor: str
    subject: str
    kind: Class
    role: str
    first: int
    last: int
    totals: Document
    """the counts of `ids_plugin.fold`"""
    doubt: int = 0
    """steps by which its severity stays below that of the class"""


def digest(*parts: object) -> str:
    """A deterministic id: 40 hex digits of SHA-256 over the parts."""
    return hashlib.sha256("\x00".join(str(part) for part in parts).encode()).hexdigest()[:40]


def instant(microseconds: int) -> str:
    """UTC with microseconds, ISO 8601."""
    return f"{np.datetime64(microseconds, 'us')}Z"


def exhibit(
    flow: Mapping[str, Any], verdict: Verdict, evidence: Evidence, bundle: BundleFacts
) -> Document:
    """The part of a document that is about one flow: JSON-able, so that an open group can be kept
    and restored.

    `flow` is a row of the Flow frame with times and durations in µs.
    """
    return {
        "duration": _nanoseconds(flow["duration"]),
        "source": _side(flow, "orig"),
        "destination": _side(flow, "resp"),
        "network": _network(flow),
        "zeek": _zeek(flow),
        "ids_plugin": {
            **({"detector": verdict.detector} if verdict.detector else {}),
            "score": _number(verdict.score),
            "threshold": _number(verdict.threshold),
            "scores": {name: _number(score) for name, score in verdict.models.items()},
            "evidence": _evidence(evidence),
            "bundle": {"id": bundle.id, "family": bundle.family, "version": bundle.version},
        },
    }


def opened(
    group: GroupFacts, shown: Document, bundle: BundleFacts, ingested: datetime | None
) -> Document:
    """The alert document, made when the group opens."""
    return _document(group, shown, bundle, ingested, {"state": "open"})


def closed(
    group: GroupFacts,
    shown: Document,
    bundle: BundleFacts,
    ingested: datetime | None,
    closed_by: str,
) -> Document:
    """The document with the totals, made when the group closes; `shown` is its strongest flow."""
    return _document(group, shown, bundle, ingested, {"state": "closed", "closed_by": closed_by})


def _document(
    group: GroupFacts,
    shown: Document,
    bundle: BundleFacts,
    ingested: datetime | None,
    state: dict[str, str],
) -> Document:
    is_alert = state["state"] == "open"
    exhibit_fields = shown["ids_plugin"]
    of_class = bundle.severities.get(group.kind.name, group.kind.severity)
    severity = lowered(of_class, group.doubt)
    event = {
        "id": digest(group.id, state["state"]),
        "kind": "alert" if is_alert else "event",
        "category": ["network", "intrusion_detection"],
        "type": ["info"],
        "module": MODULE,
        "dataset": DATASET,
        "severity": SEVERITIES[severity],
        "risk_score": risk(severity, exhibit_fields["score"]),
        "start": instant(group.first),
        "end": instant(group.last),
        "duration": shown["duration"] if is_alert else (group.last - group.first) * 1000,
        "ingested": None
        if ingested is None
        else ingested.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    document = {
        "@timestamp": instant(group.last),
        "ecs": {"version": ECS_VERSION},
        "message": message(group, is_alert),
        "tags": ["alert", MODULE] if is_alert else [MODULE],
        "event": event,
        "rule": _rule(group.kind, exhibit_fields["bundle"]["version"]),
        "threat": group.kind.threat,
        "observer": {"name": group.sensor, "type": "ids", "product": "ids-plugin"},
        **{part: shown[part] for part in ("source", "destination", "network", "zeek")},
        "related": {"ip": _related(group)},
        "ids_plugin": {
            "label": group.kind.name,
            "severity": severity,
            **exhibit_fields,
            "fold": _group(group, state),
        },
    }
    return _without_unknown(document)


def message(group: GroupFacts, is_alert: bool) -> str:
    """One line that becomes the alert's name: who does what to whom, and in a closed group how much
    of it."""
    totals = group.totals
    peers = totals["top_peers"]
    more = "more than " if totals["peers_relation"] == "gte" else ""
    whom = peers[0]["ip"] if totals["peers"] == 1 and peers else f"{more}{totals['peers']:,} hosts"
    text = getattr(group.kind, group.role).format(subject=group.subject, peers=whom)
    if totals["ports"] == 1:
        text += f", port {totals['top_ports'][0]['port']}"
    elif totals["ports"] > 1:
        text += f", {totals['ports']:,} ports"
    if is_alert:
        return str(text)
    count = totals["count"]
    return (
        f"{text}: 1 flow"
        if count == 1
        else f"{text}: {count:,} flows in {span(group.last - group.first)}"
    )


def span(microseconds: int) -> str:
    """A length of time for a person: `45 s`, `12 min`, `3.5 h`."""
    seconds = microseconds / 1e6
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _rule(kind: Class, version: str) -> Document:
    return {
        "name": kind.title,
        "uuid": kind.uuid,
        "category": kind.name,
        "description": kind.description,
        "ruleset": MODULE,
        "version": version,
    }


def _related(group: GroupFacts) -> list[str]:
    return list(dict.fromkeys([group.subject, *(peer["ip"] for peer in group.totals["top_peers"])]))


def _group(group: GroupFacts, state: dict[str, str]) -> Document:
    return {
        "id": group.id,
        **state,
        "subject": group.subject,
        "role": group.role,
        "first": instant(group.first),
        "last": instant(group.last),
        **group.totals,
    }


def _side(flow: Mapping[str, Any], side: str) -> Document:
    """ECS `source` or `destination`; as in Elastic's Zeek integration its bytes are IP bytes and
    ICMP has no ports."""
    address = flow[f"{side}_h"]
    return {
        "address": address,
        "ip": address,
        "port": None if flow["proto"] == "icmp" else flow[f"{side}_p"],
        "bytes": flow[f"{side}_ip_bytes"],
        "packets": flow[f"{side}_pkts"],
    }


def _network(flow: Mapping[str, Any]) -> Document:
    protocol = protocol_number(flow["proto"], flow["ip_proto"], flow["orig_h"])
    return {
        "transport": "ipv6-icmp" if protocol == 58 else flow["proto"],
        "iana_number": None if protocol is None else str(protocol),
        "type": "ipv6" if ":" in flow["orig_h"] else "ipv4",
        "protocol": _service(flow["service"]),
        "direction": _direction(flow["local_orig"], flow["local_resp"]),
        "bytes": _sum(flow["orig_ip_bytes"], flow["resp_ip_bytes"]),
        "packets": _sum(flow["orig_pkts"], flow["resp_pkts"]),
        "community_id": flow["community_id"] or _community(flow, protocol),
    }


def _community(flow: Mapping[str, Any], protocol: int | None) -> str | None:
    if protocol is None:
        return None
    return community_id(flow["orig_h"], flow["orig_p"], flow["resp_h"], flow["resp_p"], protocol)


def _service(service: str | None) -> str | None:
    """The first application protocol; Zeek puts a minus before one whose analyzer gave up."""
    names = (
        name for name in (service or "").lower().split(",") if name and not name.startswith("-")
    )
    return next(names, None)


def _direction(local_orig: bool | None, local_resp: bool | None) -> str:
    if local_orig is None or local_resp is None:
        return "unknown"
    if local_orig:
        return "internal" if local_resp else "outbound"
    return "inbound" if local_resp else "external"


def _zeek(flow: Mapping[str, Any]) -> Document:
    icmp = {"type": flow["orig_p"], "code": flow["resp_p"]} if flow["proto"] == "icmp" else None
    return {
        "session_id": flow["uid"],
        "connection": {"state": flow["conn_state"], "history": flow["history"], "icmp": icmp},
    }


def _evidence(evidence: Evidence) -> Document:
    return {
        "summary": evidence.summary,
        "method": evidence.method,
        "faithfulness": _number(evidence.faithfulness),
        "behaviours": {name: _number(value) for name, value in evidence.behaviours.items()},
        "flows": [_evidence_flow(entry) for entry in evidence.flows],
        "features": [_evidence_feature(entry) for entry in evidence.features],
    }


def _evidence_flow(entry: EvidenceFlow) -> Document:
    flow = entry.flow._asdict()
    del flow["known"]
    seconds = None if entry.flow.duration is None else _number(entry.flow.duration / 1e6)
    return {
        "lag": entry.lag,
        "weight": _number(entry.weight),
        **flow,
        "ts": instant(entry.flow.ts),
        "duration": seconds,
    }


def _evidence_feature(feature: EvidenceFeature) -> Document:
    return {
        "name": feature.name,
        "value": _number(feature.value),
        "expected": _number(feature.expected),
        "contribution": _number(feature.contribution),
        "text": feature.text,
        "label": feature.label,
        "unit": feature.unit,
        "value_text": feature.value_text,
        "expected_text": feature.expected_text,
    }


def _number(value: float | None) -> float | None:
    """Six digits after the point, so that another processor's last bits don't show; None where it
    isn't a number."""
    return None if value is None or not math.isfinite(value) else round(float(value), _DIGITS)


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def _nanoseconds(microseconds: int | None) -> int | None:
    return None if microseconds is None else microseconds * 1000


def _without_unknown(document: Document) -> Document:
    """The same without None and without what is empty because of it; lists stay, empty or not."""
    known = {name: _known(value) for name, value in document.items()}
    return {name: value for name, value in known.items() if value is not None and value != {}}


def _known(value: object) -> object:
    if isinstance(value, dict):
        return _without_unknown(value)
    return [_known(element) for element in value] if isinstance(value, list) else value
