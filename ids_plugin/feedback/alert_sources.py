"""Alerts to be judged: those of scans, or those in Elasticsearch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from ids_plugin.errors import InputError

if TYPE_CHECKING:
    from ids_plugin.config import Elasticsearch
    from ids_plugin.feedback.case import Case
    from ids_plugin.schema.alert import Document

ALERTS = "alerts.ndjson"


class Alerts(Protocol):
    """Where alert documents are.

    Raises, whatever it is asked:
        InputError: a file can't be read, or holds what is no alert document.
        MissingExtraError, ConfigError, ServiceError: Elasticsearch can't be asked, or doesn't
        answer.
    """

    def judged(self, ids: Collection[str]) -> dict[str, Case]:
        """`event.id` → the alert of that document, with evidence; those that aren't there are left
        out."""
        ...

    def newest(self) -> datetime | None:
        """Time of the newest document."""
        ...

    def since(self, moment: datetime, hosts: Collection[str]) -> Iterator[Case]:
        """Alerts of that time and later; those that can't have to do with any of the hosts may be
        left out."""
        ...


class Scans:
    """Files that `scan --out DIR` made; each is read several times, and never kept as a whole."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [path / ALERTS if path.is_dir() else path for path in map(Path, paths)]

    def judged(self, ids: Collection[str]) -> dict[str, Case]:
        """See Alerts."""
        wanted = {
            document["event"]["id"]: _group(document)
            for document in self._documents()
            if document["event"]["id"] in ids
        }
        groups = set(wanted.values())
        cases = _cases(document for document in self._documents() if _group(document) in groups)
        return {event: cases[group] for event, group in wanted.items()}

    def newest(self) -> datetime | None:
        """See Alerts."""
        return max((_time(document) for document in self._documents()), default=None)

    def since(self, moment: datetime, hosts: Collection[str]) -> Iterator[Case]:
        """See Alerts."""
        from ids_plugin.feedback.case import case

        for document in self._documents():
            if _time(document) >= moment:
                document["ids_plugin"]["evidence"] = {}
                yield case(document)

    def _documents(self) -> Iterator[dict[str, Any]]:
        from ids_plugin.feedback.case import case

        for path in self._paths:
            try:
                with path.open("rb") as lines:
                    for number, line in enumerate(lines, 1):
                        try:
                            document = orjson.loads(line)
                            case(document)
                        except ValueError as error:
                            raise InputError(
                                str(error), location=f"{path}:{number}", hint="scan again"
                            ) from error
                        yield document
            except OSError as error:
                why = f"the alerts can't be read: {(error.strerror or str(error)).lower()}"
                raise InputError(
                    why, location=str(path), hint="scan INPUT… --out DIR makes them"
                ) from error


class Stream:
    """The data stream of alerts in Elasticsearch."""

    def __init__(self, settings: Elasticsearch) -> None:
        self._settings = settings

    def judged(self, ids: Collection[str]) -> dict[str, Case]:
        """See Alerts."""
        from ids_plugin.feedback.indexed_alerts import alerts_by

        wanted = {
            document["event"]["id"]: _group(document)
            for document in alerts_by(self._settings, "event.id", sorted(ids))
        }
        groups = sorted(set(wanted.values()))
        cases = _cases(alerts_by(self._settings, "ids_plugin.fold.id", groups, evidence=True))
        return {event: cases[group] for event, group in wanted.items()}

    def newest(self) -> datetime | None:
        """See Alerts."""
        from ids_plugin.feedback.indexed_alerts import newest_alert

        time = newest_alert(self._settings)
        return None if time is None else datetime.fromisoformat(time)

    def since(self, moment: datetime, hosts: Collection[str]) -> Iterator[Case]:
        """See Alerts."""
        from ids_plugin.feedback.indexed_alerts import alerts_since

        for document in alerts_since(self._settings, moment.isoformat(), sorted(hosts)):
            yield _case(document)


def _cases(documents: Iterable[Document]) -> dict[str, Case]:
    """Alert group → the case that all its documents make."""
    cases: dict[str, Case] = {}
    for document in documents:
        case = _case(document)
        earlier = cases.get(case.group)
        cases[case.group] = case if earlier is None else case.merged(earlier)
    return cases


def _case(document: Document) -> Case:
    from ids_plugin.feedback.case import case

    try:
        return case(document)
    except ValueError as error:
        raise InputError(
            str(error), location=str(document.get("event", {}).get("id", "an alert"))
        ) from error


def _group(document: Document) -> str:
    return str(document["ids_plugin"]["fold"]["id"])


def _time(document: Document) -> datetime:
    time = datetime.fromisoformat(document["@timestamp"])
    return time if time.tzinfo else time.replace(tzinfo=UTC)
