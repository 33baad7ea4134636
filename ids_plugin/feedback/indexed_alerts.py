"""What Elasticsearch holds of alerts: the product's documents, and analysts' verdicts on them in
Elastic Security.

Elastic Security's alerts are copies of the product's documents with `kibana.alert.*` beside them:
status, tags, the reason for closing, and the id of the document that they stand for. Their names
may be nested or dotted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.elastic.client import asking
from ids_plugin.elastic.paging import HINTS, Hit, Pages, Target, connect
from ids_plugin.feedback.verdict_tables import Verdicts, moment
from ids_plugin.schema.alert import MODULE, Document
from ids_plugin.schema.reject import Reject
from ids_plugin.schema.verdict import BENIGN, FALSE, TRUE, Verdict

ALERTS = "logs-ids_plugin.alert"
"""data stream of the product's documents, without its namespace"""
SECURITY = ".alerts-security.alerts"
"""alias of Elastic Security's alerts, without its space"""
DOCUMENT_SIZE_BYTES = 3_000
"""bytes of a document, about, for the size of pages"""
MAX_TERMS = 10_000
REASONS: Mapping[str, str] = {
    "false_positive": FALSE,
    "true_positive": TRUE,
    "benign_positive": BENIGN,
}
"""Kibana's reasons for closing an alert that are verdicts; `duplicate`, `automated_closure` and
`other` aren't"""

_STATUS, _TAGS, _REASON, _USER, _SINCE = (
    f"kibana.alert.workflow_{name}"
    for name in ("status", "tags", "reason", "user", "status_updated_at")
)
_IDS = ("kibana.alert.original_event.id", "event.id", "kibana.alert.ancestors.id")
_SECURITY_FIELDS = ("kibana.alert", "event.id", "@timestamp")
_ALERT_FIELDS = (
    "event.id",
    "event.kind",
    "event.severity",
    "observer.name",
    "message",
    "ids_plugin.label",
    "ids_plugin.fold",
    "ids_plugin.bundle.id",
)
_EVIDENCE = "ids_plugin.evidence.flows"


@dataclass(frozen=True)
class Meanings:
    """What tags, and an alert that was closed without saying why, mean: verdicts, by lower-case
    tag."""

    tags: Mapping[str, str]
    closed: str | None = None


def security_verdicts(settings: Settings, space: str, meanings: Meanings) -> Verdicts:
    """Analysts' verdicts on the product's alerts in one space of Kibana.

    A tag counts whatever the alert's status; then the reason for closing; then, if `meanings` says
    so, being closed.

    Raises:
        MissingExtraError, ConfigError: Elasticsearch can't be asked as things are.
        InputError: it has no such alerts: there are no rules in that space, or no such space.
        ServiceError: it can't be reached, or refuses.
    """
    index = f"{SECURITY}-{space}"
    read = Verdicts()
    for hit in _hits(settings, index, _handled_alerts(), _SECURITY_FIELDS):
        read.records += 1
        try:
            verdict = _verdict(hit.document, meanings, index, hit.id)
        except ValueError as error:
            reason, detail = error.args
            read.rejects.append(Reject(index, hit.id, reason, detail, ""))
            continue
        if isinstance(verdict, Verdict):
            read.verdicts.append(verdict)
        else:
            read.silent[verdict] = read.silent.get(verdict, 0) + 1
    return read


def _handled_alerts() -> list[dict[str, Any]]:
    """Filters: alerts that stand for documents of the product and that an analyst has done
    something with."""
    of_this_product = [
        {"term": {field: MODULE}}
        for field in ("kibana.alert.original_event.module", "event.module")
    ]
    done: list[dict[str, Any]] = [{"exists": {"field": field}} for field in (_TAGS, _REASON)]
    done.append({"terms": {_STATUS: ["acknowledged", "closed"]}})
    return [{"bool": {"should": of_this_product}}, {"bool": {"should": done}}]


def _verdict(alert: Document, meanings: Meanings, source: str, place: str) -> Verdict | str:
    """The verdict, or what the alert says instead of one.

    Raises:
        ValueError: (reason, detail) why it can't be used.
    """
    values = {
        name: _values(alert, name)
        for name in (_STATUS, _TAGS, _REASON, _USER, _SINCE, "@timestamp", *_IDS)
    }
    event_id = next((values[name][0] for name in _IDS if values[name]), None)
    if event_id is None:
        raise ValueError("no_alert", f"it names no document: none of {', '.join(_IDS)} is there")
    tags = values[_TAGS]
    tag_verdicts = {meanings.tags[tag.lower()]: tag for tag in tags if tag.lower() in meanings.tags}
    if len(tag_verdicts) > 1:
        raise ValueError(
            "contradicting_tags",
            f"its tags contradict each other: {', '.join(sorted(tag_verdicts.values()))}",
        )
    reason, status = (next(iter(values[name]), "") for name in (_REASON, _STATUS))
    closed = meanings.closed if status == "closed" and not reason else None
    verdict = next(iter(tag_verdicts), None) or REASONS.get(reason) or closed
    if verdict is None:
        how = f" as {reason}" if reason else ""
        return f"{status or 'open'}{how}, without a tag that is a verdict"
    note = ", ".join(tags) or reason.replace("_", " ")
    when = next((values[name][0] for name in (_SINCE, "@timestamp") if values[name]), "")
    return Verdict(
        event_id, verdict, note, next(iter(values[_USER]), ""), moment(when), source, place
    )


def _values(document: object, name: str) -> list[str]:
    """What a document holds under a dotted name, however much of the name is nested; lists are
    taken apart."""
    if isinstance(document, list):
        return [value for element in document for value in _values(element, name)]
    if not name:
        return [] if document is None or isinstance(document, Mapping) else [str(document)]
    if not isinstance(document, Mapping):
        return []
    values = _values(document[name], "") if name in document else []
    parts = name.split(".")
    for length in range(1, len(parts)):
        if (head := ".".join(parts[:length])) in document:
            values += _values(document[head], ".".join(parts[length:]))
    return values


def alerts_by(
    settings: Settings, field: str, values: Sequence[str], *, evidence: bool = False
) -> Iterator[Document]:
    """Alert documents in which a keyword is one of `values`; their evidence flows only where
    asked for.

    Raises:
        MissingExtraError, ConfigError, InputError, ServiceError: as `security_verdicts`.
    """
    for start in range(0, len(values), MAX_TERMS):
        query = {"terms": {field: list(values[start : start + MAX_TERMS])}}
        yield from _alerts(
            settings, [query], (*_ALERT_FIELDS, _EVIDENCE) if evidence else _ALERT_FIELDS
        )


def alerts_since(settings: Settings, since: str, hosts: Sequence[str]) -> Iterator[Document]:
    """Alert documents of that time (ISO 8601) and later that name one of the hosts, without
    evidence.

    Raises:
        MissingExtraError, ConfigError, InputError, ServiceError: as `security_verdicts`.
    """
    filters: list[dict[str, Any]] = [{"range": {"@timestamp": {"gte": since}}}]
    if len(hosts) <= MAX_TERMS:
        filters.append({"terms": {"related.ip": list(hosts)}})
    yield from _alerts(settings, filters, _ALERT_FIELDS)


def newest_alert(settings: Settings) -> str | None:
    """Time (ISO 8601) of the newest alert document; None where there is none.

    Raises:
        MissingExtraError, ConfigError, InputError, ServiceError: as `security_verdicts`.
    """
    stream = f"{ALERTS}-{settings.namespace}"
    client = connect(settings)
    with asking(settings, f"reading {stream}", HINTS):
        answer = client.search(
            index=stream,
            size=1,
            sort=[{"@timestamp": {"order": "desc"}}],
            source={"includes": ["@timestamp"]},
            allow_partial_search_results=False,
        )
    hits = answer["hits"]["hits"]
    return str(hits[0]["_source"]["@timestamp"]) if hits else None


def _alerts(
    settings: Settings, filters: Sequence[Mapping[str, Any]], fields: Sequence[str]
) -> Iterator[Document]:
    for hit in _hits(settings, f"{ALERTS}-{settings.namespace}", filters, fields):
        yield hit.document


def _hits(
    settings: Settings, index: str, filters: Sequence[Mapping[str, Any]], fields: Sequence[str]
) -> Iterator[Hit]:
    pages = Pages(
        connect(settings),
        settings,
        Target(index, settings.url, index, None),
        filters,
        documents=fields,
    )
    for page in pages:
        pages.resize(len(page), DOCUMENT_SIZE_BYTES * len(page))
        yield from page
