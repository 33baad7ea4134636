"""An alert document: ECS 8.11 fields, those of Elastic's Zeek integration, and ours under
`ids_plugin.`.

An alert group gives two documents: `open` (`event.kind: alert`) at once and `closed` (`event.kind:
event`) with its totals. The ECS flow fields (`source`, `destination`, `network`, `zeek`) are those
of one flow: the one that opened the group in the open document, the strongest one in the closed
document. `ids_plugin.fold` is about all flows of the group so far. What isn't known is left out,
never 0 or null. Times are UTC with microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

Document = dict[str, Any]
"""JSON-able, nested; the names of its leaves are ECS's or in FIELDS"""

ECS_VERSION = "8.11.0"
DATASET = "ids_plugin.alert"
MODULE = "ids_plugin"

SEVERITIES: Mapping[str, int] = MappingProxyType(
    {"low": 21, "medium": 47, "high": 73, "critical": 99}
)
"""name → event.severity, Elastic Security's own numbers"""

ACTOR = "actor"
TARGET = "target"
"""`fold.role`: the subject acts, or others act on it"""


class Field(NamedTuple):
    """A leaf that ECS doesn't have; `*` stands for one name that the data gives (a model, a
    behaviour)."""

    name: str
    type: str
    """Elasticsearch's field type"""
    array: bool
    text: str


FIELDS: tuple[Field, ...] = (
    Field(
        "ids_plugin.detector",
        "keyword",
        False,
        "the detector that says so; left out where a bundle's members decide together",
    ),
    Field(
        "ids_plugin.score",
        "double",
        False,
        "calibrated 0–1: how sure the bundle is that the flow isn't benign",
    ),
    Field("ids_plugin.threshold", "double", False, "the score it had to reach"),
    Field("ids_plugin.label", "keyword", False, "class"),
    Field(
        "ids_plugin.severity",
        "keyword",
        False,
        "event.severity in a word: low, medium, high or critical",
    ),
    Field("ids_plugin.scores.*", "double", False, "every model that voted: its own score 0–1"),
    Field("ids_plugin.scores.control", "double", False, "the default bundle's control detector"),
    Field("ids_plugin.scores.counters", "double", False, "its counters"),
    Field(
        "ids_plugin.scores.anomaly_net", "double", False, "the network of the bundle anomaly_net"
    ),
    Field("ids_plugin.scores.lightgbm", "double", False, "its trees"),
    Field("ids_plugin.scores.behaviour", "double", False, "its named behaviours"),
    Field("ids_plugin.bundle.id", "keyword", False, "SHA-256 of the bundle that said so"),
    Field("ids_plugin.bundle.family", "keyword", False, "model family of the bundle"),
    Field("ids_plugin.bundle.version", "keyword", False, "version of the bundle"),
    Field("ids_plugin.fold.id", "keyword", False, "the same in both documents of a group"),
    Field("ids_plugin.fold.state", "keyword", False, "open or closed"),
    Field(
        "ids_plugin.fold.closed_by",
        "keyword",
        False,
        "quiet (30 min without a flow), day (24 h) or end (of input)",
    ),
    Field("ids_plugin.fold.subject", "ip", False, "the host whose behaviour this is"),
    Field(
        "ids_plugin.fold.role",
        "keyword",
        False,
        "actor: the subject acts; target: others act on it",
    ),
    Field(
        "ids_plugin.fold.count",
        "long",
        False,
        "flows over the threshold; a growing connection counts once",
    ),
    Field("ids_plugin.fold.first", "date", False, "first packet of the earliest flow"),
    Field("ids_plugin.fold.last", "date", False, "latest time at which a flow was known (its end)"),
    Field("ids_plugin.fold.peers", "long", False, "distinct hosts on the other side"),
    Field(
        "ids_plugin.fold.peers_relation",
        "keyword",
        False,
        "eq, or gte where there were too many to count them all",
    ),
    Field("ids_plugin.fold.top_peers.ip", "ip", False, "a peer with most flows"),
    Field("ids_plugin.fold.top_peers.count", "long", False, "its flows"),
    Field("ids_plugin.fold.ports", "long", False, "distinct ports of the responders, ICMP aside"),
    Field("ids_plugin.fold.top_ports.port", "long", False, "a responder's port with most flows"),
    Field("ids_plugin.fold.top_ports.count", "long", False, "its flows"),
    Field("ids_plugin.fold.orig_bytes", "long", False, "payload bytes from the originators"),
    Field("ids_plugin.fold.resp_bytes", "long", False, "payload bytes from the responders"),
    Field("ids_plugin.fold.ip_bytes", "long", False, "IP bytes both ways"),
    Field("ids_plugin.fold.packets", "long", False, "packets both ways"),
    Field("ids_plugin.evidence.flows.uid", "keyword", False, "a flow the decision looked at"),
    Field("ids_plugin.evidence.flows.ts", "date", False, "its first packet"),
    Field(
        "ids_plugin.evidence.flows.lag", "long", False, "0 is the flow itself, 1 the one before it"
    ),
    Field(
        "ids_plugin.evidence.flows.weight",
        "double",
        False,
        "its weight in the decision; they sum to 1",
    ),
    Field("ids_plugin.evidence.flows.orig_h", "ip", False, "originator"),
    Field("ids_plugin.evidence.flows.orig_p", "long", False, "originator's port, ICMP type"),
    Field("ids_plugin.evidence.flows.resp_h", "ip", False, "responder"),
    Field("ids_plugin.evidence.flows.resp_p", "long", False, "responder's port, ICMP code"),
    Field("ids_plugin.evidence.flows.proto", "keyword", False, "transport"),
    Field("ids_plugin.evidence.flows.conn_state", "keyword", False, "Zeek's connection state"),
    Field("ids_plugin.evidence.flows.duration", "double", False, "seconds"),
    Field(
        "ids_plugin.evidence.flows.orig_bytes", "long", False, "payload bytes from the originator"
    ),
    Field(
        "ids_plugin.evidence.flows.resp_bytes", "long", False, "payload bytes from the responder"
    ),
    Field(
        "ids_plugin.evidence.flows.reverse",
        "boolean",
        False,
        "it goes the other way than the flow itself",
    ),
    Field("ids_plugin.evidence.features.name", "keyword", False, "what was unusual about them"),
    Field("ids_plugin.evidence.features.value", "double", False, "seen"),
    Field("ids_plugin.evidence.features.expected", "double", False, "expected"),
    Field(
        "ids_plugin.evidence.features.contribution", "double", False, "how much it moved the score"
    ),
    Field("ids_plugin.evidence.features.text", "text", False, "the same in words"),
    Field("ids_plugin.evidence.features.label", "keyword", False, "what it measures, in words"),
    Field("ids_plugin.evidence.features.unit", "keyword", False, "unit of value and expected"),
    Field(
        "ids_plugin.evidence.features.value_text", "keyword", False, "value in words, with its unit"
    ),
    Field(
        "ids_plugin.evidence.features.expected_text",
        "keyword",
        False,
        "expected in words, with its unit",
    ),
    Field("ids_plugin.evidence.method", "keyword", False, "how it was explained, joined with +"),
    Field(
        "ids_plugin.evidence.faithfulness",
        "double",
        False,
        "how far the score falls without the named evidence",
    ),
    Field(
        "ids_plugin.evidence.behaviours.*",
        "double",
        False,
        "named behaviours of the acting host, each 0–1",
    ),
    Field(
        "ids_plugin.evidence.summary",
        "text",
        False,
        "one sentence: what, who, how often, compared with what",
    ),
    Field("zeek.session_id", "keyword", False, "uid of the flow"),
    Field("zeek.connection.state", "keyword", False, "Zeek's connection state"),
    Field("zeek.connection.history", "keyword", False, "Zeek's letters of what happened"),
    Field("zeek.connection.icmp.type", "long", False, "ICMP type"),
    Field("zeek.connection.icmp.code", "long", False, "ICMP code"),
)


def happened(document: Any) -> float | None:
    """Seconds since the epoch of a document's `@timestamp`; None where there is none that can be
    read."""
    try:
        time = datetime.fromisoformat(document["@timestamp"])
        return time.replace(tzinfo=time.tzinfo or UTC).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
