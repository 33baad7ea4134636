"""Elasticsearch and Kibana: the client, index set-up, paging, Kibana's API and objects."""

from ids_plugin.elastic.client import JSON, NO_HINTS, asking, connect, explain, refusal

__all__ = ["JSON", "NO_HINTS", "asking", "connect", "explain", "refusal"]
