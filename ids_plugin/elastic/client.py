"""Elasticsearch's client with our settings, and what its errors mean, in one sentence each.

It works with servers of versions 8 and 9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.errors import ConfigError, MissingExtraError, ServiceError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

JSON = {"accept": "application/json", "content-type": "application/json"}

NO_HINTS: Mapping[int, str] = {}


def connect(settings: Settings, **options: Any) -> Elasticsearch:
    """A client that sends each request once; the caller retries.

    `options` are passed to the client, in place of ours where both are given.

    Raises:
        MissingExtraError: the client isn't installed.
        ConfigError: the URL or the CA file can't be what they are meant to be.
    """
    try:
        from elasticsearch import Elasticsearch
    except ImportError as error:
        raise MissingExtraError(
            "Elasticsearch needs its client", hint="pip install 'ids-plugin[elastic]'"
        ) from error
    arguments: dict[str, Any] = {"max_retries": 0, "request_timeout": settings.timeout_seconds}
    if settings.ca_file:
        arguments["ca_certs"] = str(settings.ca_file)
    if settings.api_key:
        name, colon, key = settings.api_key.reveal().partition(":")
        arguments["api_key"] = (name, key) if colon else name
    if settings.username and settings.password:
        arguments["basic_auth"] = (settings.username, settings.password.reveal())
    try:
        return Elasticsearch(settings.url, **arguments | options)
    except (ValueError, OSError) as error:
        raise ConfigError(f"no client can be made: {error}", location=settings.url) from error


@contextlib.contextmanager
def asking(
    settings: Settings, step: str = "", hints: Mapping[int, str] = NO_HINTS
) -> Iterator[None]:
    """Turns errors of the client in the block into ServiceError.

    `step` says what the requests are for; `hints` says what to do about statuses that have a
    meaning of their own in this step.

    Raises:
        ServiceError: it can't be reached, or refuses; with the cause and what to do.
    """
    from elasticsearch import ApiError, TransportError

    try:
        yield
    except (ApiError, TransportError) as error:
        what, then = explain(error, hints)
        raise ServiceError(
            f"{step}: {what}" if step else what, location=settings.url, hint=then
        ) from error


def explain(error: Exception, hints: Mapping[int, str] = NO_HINTS) -> tuple[str, str]:
    """What a client's error means, and what to do about it."""
    from elastic_transport import TlsError
    from elasticsearch import ApiError, ConnectionTimeout, UnsupportedProductError

    if isinstance(error, ApiError):
        body = error.body.get("error", {}) if isinstance(error.body, Mapping) else {}
        return refusal(
            error.meta.status, body if isinstance(body, Mapping) else {"reason": str(body)}, hints
        )
    if isinstance(error, UnsupportedProductError):
        return (
            "what answers there isn't Elasticsearch",
            "check the URL; is it Kibana's, a proxy's, or OpenSearch's?",
        )
    cause = getattr(error, "message", None) or str(error)
    if isinstance(error, ConnectionTimeout):
        return (
            f"no answer in time: {cause}",
            "is it overloaded, or does a firewall drop what is sent there?",
        )
    if isinstance(error, TlsError):
        return f"no TLS connection: {cause}", "check the scheme (http or https) and the CA file"
    return f"can't be reached: {cause}", "check the URL and whether Elasticsearch runs"


def refusal(
    status: int, error: Mapping[str, Any], hints: Mapping[int, str] = NO_HINTS
) -> tuple[str, str]:
    """What an HTTP status with Elasticsearch's `error` object means, and what to do about it."""
    causes = error.get("root_cause") or [error]
    cause = causes[0] if error.get("type") == "search_phase_execution_exception" else error
    kind, reason = str(cause.get("type", "")), str(cause.get("reason", ""))
    problem = f"{status} {kind}: {reason}".rstrip(": ")
    if kind == "cluster_block_exception":
        return (
            problem,
            "it is read-only: free disk space, or take the "
            "block (index.blocks.*, cluster.blocks.*) away",
        )
    if kind == "index_closed_exception":
        return problem, "open the index"
    known = {**_HINTS, **hints}
    return problem, known.get(
        status, "see Elasticsearch's log" if status >= 500 else "check the URL and its version"
    )


_HINTS = {
    401: "check the API key, or user name and password",
    403: "this user or key may not",
    404: "check the name",
    413: "raise http.max_content_length, or the limit of the proxy before it",
    429: "it is overloaded; it will be asked again",
    503: "it starts, or a shard has no copy that runs: see GET _cluster/health",
}
