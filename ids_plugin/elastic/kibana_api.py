"""Kibana's HTTP interface with our settings, and what its answers mean in one sentence.

Requests go through urllib3, which Elasticsearch's client brings with it.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from ids_plugin.config import Kibana as Settings
from ids_plugin.errors import ConfigError, MissingExtraError, ServiceError

if TYPE_CHECKING:
    import urllib3

DEFAULT_SPACE = "default"
SHOWN_CHARACTERS = 300
"""of Kibana's own words that are passed on"""

TAGS = re.compile(r"<(style|script).*?</\1>|<[^>]*>", re.DOTALL)

CHECK_TLS = "check the scheme (http or https)"
CHECK_CERTIFICATE = "check the CA file, and the host's name in the URL"
CHECK_LOAD = "is it overloaded, or does a firewall drop what is sent there?"
CHECK_PORT = "check the scheme (http or https) and the port"
CHECK_URL = "check the URL and whether Kibana runs"


class Answer(NamedTuple):
    """What Kibana, or a proxy before it, answers."""

    status: int
    body: Any
    """JSON, else text"""
    headers: Mapping[str, str]
    """by their names in small letters"""

    @property
    def message(self) -> str:
        """Its own words, in one line; a page's without its tags."""
        text = self.body.get("message", "") if isinstance(self.body, dict) else self.body
        return " ".join(TAGS.sub(" ", str(text)).split())[:SHOWN_CHARACTERS]


class Kibana:
    """Sends requests, each once.

    Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY). Redirects aren't
    followed: the key is for the address in the settings.
    """

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            ConfigError: the CA file can't be used.
            MissingExtraError: urllib3 isn't installed.
        """
        self.settings = settings
        self._pool = _pool(settings)
        self._headers = {
            "accept": "application/json",
            "kbn-xsrf": "ids-plugin",
            "user-agent": "ids-plugin",
            **_login(settings),
        }

    def request(
        self, method: str, path: str, body: Any = None, *, in_space: bool = True, **query: str
    ) -> Answer:
        """The answer to a request with JSON, whatever its status.

        Args:
            method, path: such as GET and /api/status.
            body: what is sent as JSON; None: nothing.
            in_space: whether it is about the space of the settings.
            query: the query string's parameters.

        Raises:
            ServiceError: there is no answer.
        """
        url = self._url(path, in_space, query)
        if body is None:
            return self._send(method, url)
        headers = {"content-type": "application/json"}
        return self._send(method, url, body=json.dumps(body).encode(), headers=headers)

    def upload(self, path: str, name: str, content: bytes, **query: str) -> Answer:
        """The answer to a form with one file in it, named `name`.

        Raises:
            ServiceError: there is no answer.
        """
        form = {"file": (name, content, "application/ndjson")}
        return self._send("POST", self._url(path, True, query), fields=form)

    def _url(self, path: str, in_space: bool, query: Mapping[str, str]) -> str:
        name = self.settings.space
        prefix = f"/s/{name}" if in_space and name != DEFAULT_SPACE else ""
        parameters = f"?{urlencode(query)}" if query else ""
        return f"{self.settings.url.rstrip('/')}{prefix}{path}{parameters}"

    def _send(self, method: str, url: str, **content: Any) -> Answer:
        from urllib3.exceptions import HTTPError, LocationValueError

        headers = self._headers | content.pop("headers", {})
        try:
            response = self._pool.request(
                method,
                url,
                headers=headers,
                timeout=self.settings.timeout_seconds,
                retries=False,
                redirect=False,
                **content,
            )
        except (LocationValueError, UnicodeError) as error:
            raise ConfigError(
                f"no request can be made: {error}", location=self.settings.url
            ) from error
        except (HTTPError, OSError) as error:
            problem, hint = explain_failure(error)
            proxy = _proxy(url)
            through = f", through the proxy {_host(proxy)}" if proxy else ""
            raise ServiceError(problem + through, location=self.settings.url, hint=hint) from error
        return _answer(response)


def _pool(settings: Settings) -> urllib3.PoolManager:
    """Connections, through the environment's proxy where there is one.

    Raises:
        ConfigError: the CA file can't be used.
        MissingExtraError: urllib3 isn't installed.
    """
    try:
        import urllib3
    except ImportError as error:
        raise MissingExtraError(
            "Kibana needs an HTTP client", hint="pip install 'ids-plugin[elastic]'"
        ) from error
    try:
        context = ssl.create_default_context(
            cafile=str(settings.ca_file) if settings.ca_file else None
        )
    except (OSError, ssl.SSLError) as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"the CA file can't be used: {reason}", location=str(settings.ca_file)
        ) from error
    proxy = _proxy(settings.url)
    if proxy is None:
        return urllib3.PoolManager(ssl_context=context)
    login = urlsplit(proxy).netloc.rpartition("@")[0]
    headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, ssl_context=context)


def _proxy(url: str) -> str | None:
    """The URL of the environment's proxy for `url`, with its login; None where it has none."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _host(proxy: str) -> str:
    """Host and port of a proxy, without its login."""
    return urlsplit(proxy).netloc.rpartition("@")[2]


def _login(settings: Settings) -> dict[str, str]:
    """The header that says who we are."""
    if settings.api_key:
        key = settings.api_key.reveal()
        return {"authorization": f"ApiKey {_base64(key) if ':' in key else key}"}
    if settings.username and settings.password:
        pair = f"{settings.username}:{settings.password.reveal()}"
        return {"authorization": f"Basic {_base64(pair)}"}
    return {}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _answer(response: urllib3.BaseHTTPResponse) -> Answer:
    text = response.data.decode("utf-8", "replace")
    try:
        body: Any = json.loads(text)
    except ValueError:
        body = text
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, body, headers)


def explain_failure(error: Exception) -> tuple[str, str]:
    """Why a request got no answer, and what to do about it."""
    from urllib3.exceptions import (
        ConnectTimeoutError,
        NewConnectionError,
        ProtocolError,
        ReadTimeoutError,
    )

    cause = _first_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = cause.verify_message.rstrip(".")
        return f"its certificate isn't trusted: {reason}", CHECK_CERTIFICATE
    if isinstance(cause, ssl.SSLError):
        return f"no TLS connection: {cause.reason or cause}", CHECK_TLS
    is_timeout = isinstance(error, ConnectTimeoutError | ReadTimeoutError)
    if is_timeout and not isinstance(error, NewConnectionError):
        return "no answer in time", CHECK_LOAD
    if isinstance(error, ProtocolError):
        return f"it hangs up: {type(cause).__name__}", CHECK_PORT
    if isinstance(cause, OSError):
        return f"can't be reached: {(cause.strerror or str(cause)).lower()}", CHECK_URL
    return f"can't be reached: {cause}", CHECK_URL


def _first_cause(error: BaseException) -> BaseException:
    """The error of the socket or of TLS that urllib3's error is about."""
    inner = error.__cause__ or next(
        (argument for argument in error.args if isinstance(argument, BaseException)), None
    )
    return error if inner is None else _first_cause(inner)


def refusal(answer: Answer) -> tuple[str, str]:
    """What an answer with an error status means, and what to do about it."""
    problem = f"{answer.status}: {answer.message}".rstrip(": ")
    if "cluster_block_exception" in problem or "blocked by:" in problem:
        return (
            problem,
            "Elasticsearch is read-only: free disk space, "
            "or take the block (cluster.blocks.*) away",
        )
    if answer.status in (502, 504):
        hint = "check the proxy and whether Kibana runs"
        return f"{problem}: a proxy answers in its place", hint
    default = "see Kibana's log" if answer.status >= 500 else "check the URL and Kibana's version"
    return problem, _HINTS.get(answer.status, default)


_HINTS = {
    401: "check the API key, or user name and password",
    403: "its role in this space needs the Kibana privileges that docs/kibana.md names",
    409: "somebody changes it at the same time: run it again",
    413: "raise savedObjects.maxImportPayloadBytes in kibana.yml, "
    "or the limit of the proxy before it",
    429: "it is overloaded: run it again later",
    503: "it starts, or can't reach Elasticsearch: "
    "run it again when GET /api/status says available",
}
