"""Alerts to send, and a namespace of one's own on an Elasticsearch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import elasticsearch as client

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.config import Secret
from ids_plugin.elastic.index_setup import install
from ids_plugin.elastic.streams import ALERTS, stream
from ids_plugin.schema.alert import Document
from ids_plugin.sinks.elasticsearch import Elasticsearch
from tests import services
from tests.support.factories import alerts_of

ALERT = alerts_of("scan")[0]


def documents(count: int, name: str = "one") -> list[Document]:
    """Alerts with ids of their own."""
    return [
        {**ALERT, "event": {**ALERT["event"], "id": f"{name}-{number}"}} for number in range(count)
    ]


class Stream:
    """A namespace of its own on a server: its sink, and what is in it."""

    def __init__(self, server: services.Elasticsearch, url: str | None = None) -> None:
        self.namespace = services.unique("n")
        self.settings = replace(access(server), namespace=self.namespace)
        self.client = asking(server)
        list(install(self.settings))
        self.name = stream(ALERTS, self.namespace)
        self.sink = self.asked_as(url=url or server.url)

    def asked_as(self, **changes: Any) -> Elasticsearch:
        """A sink for the same stream with other settings."""
        return Elasticsearch(replace(self.settings, **changes))

    def copies(self) -> dict[str, int]:
        """Id → how often it is there."""
        self.client.indices.refresh(index=self.name)
        hits = self.client.search(index=self.name, size=10_000, source=False)["hits"]["hits"]
        counts: dict[str, int] = {}
        for hit in hits:
            counts[hit["_id"]] = counts.get(hit["_id"], 0) + 1
        return counts

    def roll_over(self) -> None:
        self.client.indices.rollover(alias=self.name)


def access(server: services.Elasticsearch) -> Settings:
    if not server.tls:
        return Settings(server.url)
    secret = Secret(server.password)
    return Settings(
        server.url, username=server.user, password=secret, ca_file=server.certificates.ca
    )


def asking(server: services.Elasticsearch) -> client.Elasticsearch:
    if not server.tls:
        return client.Elasticsearch(server.url)
    login = (server.user, server.password)
    return client.Elasticsearch(server.url, basic_auth=login, ca_certs=str(server.certificates.ca))
