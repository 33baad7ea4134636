"""Kibana's HTTP interface with our settings, and what its answers mean in one sentence."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from ids_plugin.config import Kibana as Settings
from ids_plugin.errors import ConfigError, ServiceError

DEFAULT_SPACE = "default"
SHOWN = 300
"""characters of what Kibana says that are passed on"""


class Answer(NamedTuple):
    """What Kibana, or whoever stands before it, says."""

    status: int
    body: Any
    """JSON, else text"""
    headers: Mapping[str, str]

    @property
    def said(self) -> str:
        """Its own words, in one line; a page's without its tags."""
        told = self.body.get("message", "") if isinstance(self.body, dict) else self.body
        return " ".join(
            re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", str(told), flags=re.S).split()
        )[:SHOWN]


class _Stay(urllib.request.HTTPRedirectHandler):
    """Doesn't go where it is sent: our key is for the address that was given."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Kibana:
    """Asks once; proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)."""

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            ConfigError: the CA file can't be what it is meant to be.
        """
        self.settings = settings
        try:
            context = ssl.create_default_context(
                cafile=str(settings.ca_file) if settings.ca_file else None
            )
        except (OSError, ssl.SSLError) as error:
            why = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"the CA file can't be used: {why}", location=str(settings.ca_file)
            ) from error
        self._opener = urllib.request.build_opener(
            _Stay, urllib.request.HTTPSHandler(context=context)
        )
        self._headers = {
            "accept": "application/json",
            "kbn-xsrf": "ids-plugin",
            "user-agent": "ids-plugin",
        }
        if login := _login(settings):
            self._headers["authorization"] = login

    def ask(
        self, method: str, path: str, body: Any = None, *, space: bool = True, **query: str
    ) -> Answer:
        """The answer to a request with JSON, whatever its status.

        Args:
            method, path: such as GET and /api/status.
            body: what is sent as JSON.
            space: whether it is about our space.
            query: the query string's.

        Raises:
            ServiceError: there is no answer.
        """
        data = None if body is None else json.dumps(body).encode()
        return self._send(method, self._url(path, space, query), data, "application/json")

    def upload(self, path: str, name: str, content: bytes, **query: str) -> Answer:
        """The answer to a form with one file in it, named `name`.

        Raises:
            ServiceError: there is no answer.
        """
        boundary = hashlib.sha256(content).hexdigest()
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/ndjson\r\n\r\n"
        )
        form = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        return self._send(
            "POST", self._url(path, True, query), form, f"multipart/form-data; boundary={boundary}"
        )

    def _url(self, path: str, space: bool, query: Mapping[str, str]) -> str:
        name = self.settings.space
        prefix = f"/s/{name}" if space and name != DEFAULT_SPACE else ""
        asked = f"?{urlencode(query)}" if query else ""
        return f"{self.settings.url.rstrip('/')}{prefix}{path}{asked}"

    def _send(self, method: str, url: str, data: bytes | None, kind: str) -> Answer:
        headers = self._headers | ({"content-type": kind} if data is not None else {})
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - config takes only http(s)
        try:
            with self._opener.open(request, timeout=self.settings.timeout_seconds) as answer:
                return _answer(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.read(), error.headers)
        except (OSError, http.client.HTTPException) as error:
            what, then = _missing(error)
            raise ServiceError(what + _way(url), location=self.settings.url, hint=then) from error
        except ValueError as error:
            raise ConfigError(
                f"no request can be made: {error}", location=self.settings.url
            ) from error


def _login(settings: Settings) -> str:
    if settings.api_key:
        key = settings.api_key.reveal()
        return "ApiKey " + (base64.b64encode(key.encode()).decode() if ":" in key else key)
    if settings.username and settings.password:
        pair = f"{settings.username}:{settings.password.reveal()}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    return ""


def _answer(status: int, body: bytes, headers: Any) -> Answer:
    text = body.decode("utf-8", "replace")
    try:
        told: Any = json.loads(text)
    except ValueError:
        told = text
    return Answer(status, told, {name.lower(): value for name, value in headers.items()})


def _missing(error: Exception) -> tuple[str, str]:
    """Why there is no answer, and what to do about it."""
    cause: Any = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message.rstrip(".")
        return (
            f"its certificate isn't trusted: {why}",
            "check the CA file, and the host's name in the URL",
        )
    if isinstance(cause, ssl.SSLError):
        return f"no TLS connection: {cause.reason or cause}", "check the scheme (http or https)"
    if isinstance(cause, TimeoutError):
        return "no answer in time", "is it overloaded, or does a firewall drop what is sent there?"
    if isinstance(cause, http.client.HTTPException | ConnectionResetError):
        return (
            f"it hangs up: {type(cause).__name__}",
            "check the scheme (http or https) and the port",
        )
    if isinstance(cause, OSError):
        why = (cause.strerror or str(cause)).lower()
        return f"can't be reached: {why}", "check the URL and whether Kibana runs"
    return f"can't be reached: {cause}", "check the URL and whether Kibana runs"


def _way(url: str) -> str:
    """That a proxy stands between us, where one does; without its login."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    host = urlsplit(proxy if "://" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
    return f", through the proxy {host}"


def refusal(answer: Answer) -> tuple[str, str]:
    """What an answer with an error status means, and what to do about it."""
    said = f"{answer.status}: {answer.said}".rstrip(": ")
    if "cluster_block_exception" in said or "blocked by:" in said:
        return (
            said,
            "Elasticsearch is read-only: free disk space, or take the block (cluster.blocks.*) away",
        )
    if answer.status in (502, 504):
        return f"{said}: a proxy answers in its place", "check the proxy and whether Kibana runs"
    otherwise = "see Kibana's log" if answer.status >= 500 else "check the URL and Kibana's version"
    return said, _HINTS.get(answer.status, otherwise)


_HINTS = {
    401: "check the API key, or user name and password",
    403: "its role in this space needs the Kibana privileges that docs/kibana.md names",
    409: "somebody changes it at the same time: run it again",
    413: "raise savedObjects.maxImportPayloadBytes in kibana.yml, or the limit of the proxy before it",
    429: "it is overloaded: run it again later",
    503: "it starts, or can't reach Elasticsearch: run it again when GET /api/status says available",
}
