"""What all that writes to Elasticsearch shares: the version of our templates, backing indices,
hints for writers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ids_plugin.elastic import client as plain
from ids_plugin.elastic.client import JSON
from ids_plugin.errors import ConfigError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

MANAGED_BY = "ids-plugin"
VERSION = 3
"""of the templates in dashboards/elasticsearch: `_meta.version` of mappings that have all fields we
write"""

NEEDED = "create_doc, auto_configure, read, view_index_metadata and delete"
"""index privileges that whoever writes documents needs; `delete` takes away the newer of two
copies"""


ALERTS = "logs-ids_plugin.alert"
LEDGER = "metrics-ids_plugin.ledger"
"""data streams, without their namespace"""

NAMESPACE = re.compile(r"[^A-Z\\/*?\"<>| ,#:-]{1,100}")
"""what Elasticsearch takes as the last part of a data stream's name"""


def stream(name: str, namespace: str) -> str:
    """The full name of a data stream.

    Raises:
        ConfigError: the namespace can't be part of it.
    """
    if not NAMESPACE.fullmatch(namespace):
        raise ConfigError(
            f"{namespace!r} is no namespace", hint='lower case, no -, no \\/*?"<>|,#: and no space'
        )
    return f"{name}-{namespace}"


class Backing(NamedTuple):
    """A backing index of a data stream."""

    name: str
    created: int
    """ms since the epoch"""
    version: int | None
    """of our mapping; None where it isn't ours"""


def backing(client: Elasticsearch, stream: str) -> list[Backing]:
    """The backing indices of a data stream, oldest first; the last is written to. Empty where there
    is no such stream.

    Raises:
        ApiError, TransportError: the client's.
    """
    from elasticsearch import NotFoundError

    wanted = "*.settings.index.creation_date,*.mappings._meta"
    try:
        answer = client.perform_request(
            "GET", f"/{stream}?features=mappings,settings&filter_path={wanted}", headers=JSON
        )
    except NotFoundError:
        return []
    return sorted(
        (_backing(name, index) for name, index in answer.body.items()),
        key=lambda index: _generation(index.name),
    )


def _backing(name: str, index: Mapping[str, Any]) -> Backing:
    meta = index.get("mappings", {}).get("_meta", {})
    version = meta.get("version", 0) if meta.get("managed_by") == MANAGED_BY else None
    return Backing(name, int(index["settings"]["index"]["creation_date"]), version)


def _generation(index: str) -> int:
    """The number at the end of a backing index's name: its place in the stream, also where it was
    shrunk or mounted."""
    number = index.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


_HINTS = {
    403: f"this user or key may not: documents need {NEEDED} "
    "on their data streams; setup needs manage_ilm, "
    "manage_index_templates, manage_ingest_pipelines and, on the data streams, manage",
    404: "run: ids-plugin setup elasticsearch",
}
asking = partial(plain.asking, hints=_HINTS)
explain = partial(plain.explain, hints=_HINTS)
refusal = partial(plain.refusal, hints=_HINTS)
