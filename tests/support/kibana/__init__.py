"""Judges Kibana's saved objects where no Kibana is: what they would ask Elasticsearch, and whether
they hold together.

    for request in requests("Triage", filters={"observer.name": "gateway"}, time=("now-7d", "now")):
        answer = client.search(index=request.index, body=request.body)

Panels of Lens, saved searches, options lists and Vega's data blocks are translated as Kibana 8 does
it; what the translators don't know they refuse. `complaints` says what is wrong with a set of
objects by itself, `misfits` what doesn't fit the mapping of the indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.kibana import dashboard as dashboards
from tests.support.kibana.context import Time
from tests.support.kibana.dashboard import Panel, Request, markdown, panels
from tests.support.kibana.judge import complaints, misfits, used
from tests.support.kibana.kql import KqlError, to_dsl
from tests.support.kibana.saved import BrokenError, Objects, Saved

__all__ = [
    "BrokenError",
    "KqlError",
    "Objects",
    "Panel",
    "Request",
    "Saved",
    "Time",
    "complaints",
    "markdown",
    "misfits",
    "ours",
    "panels",
    "requests",
    "to_dsl",
    "used",
]


def ours() -> Objects:
    """The product's own objects."""
    from ids_plugin.elastic import kibana_objects

    return Objects(kibana_objects.objects())


def requests(
    dashboard: str,
    filters: Mapping[str, Any] | None = None,
    time: tuple[str, str] | None = None,
    *,
    namespace: str = "*",
    query: str = "",
    objects: Objects | None = None,
) -> list[Request]:
    """Every request that opening a dashboard sends: its controls' and its panels'.

    Args:
        dashboard: id, title, or a word of the title.
        filters: field → value or values, as if chosen in controls or carried along by a drill-down.
        time: start and end, ISO 8601 or date math; otherwise the range that the dashboard opens
            with.
        namespace: of the data streams; all of them by default.
        query: KQL in the search bar, as a link carries it along; otherwise the dashboard's own.
        objects: the set with the dashboard; otherwise the product's.

    Raises:
        BrokenError, KqlError: something can't be read.
    """
    every = ours() if objects is None else objects
    shown, within = every.dashboard(dashboard), Time(*time) if time else None
    return list(dashboards.requests(every, shown, filters, within, namespace, query))
