"""An HTTP proxy that makes trouble between a client and a real server, at the requests that a test
names."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.support.kibana_server import Local


class Trouble(NamedTuple):
    """What happens at the next request whose method and path hold `at`: first `before`, and then it
    is passed on."""

    at: str
    before: Callable[[], object] = lambda: None
    lose_answer: bool = False
    """the server does it, and the client never hears of it"""


class Troublemaker(Local):
    """Passes requests on from `url`; `next` holds the troubles to come, `seen` methods, paths and
    bodies."""

    def __init__(self, server: str) -> None:
        self.next: list[Trouble] = []
        self.seen: list[tuple[str, bytes]] = []
        self._server = urlsplit(server)
        super().__init__(self._handler())

    @property
    def url(self) -> str:
        """Where to ask instead."""
        return f"http://127.0.0.1:{self.port}"

    def _due(self, request: str) -> Trouble:
        for trouble in self.next:
            if trouble.at in request:
                self.next.remove(trouble)
                return trouble
        return Trouble("")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        maker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                maker.seen.append((f"{self.command} {self.path}", body))
                trouble = maker._due(f"{self.command} {self.path}")
                trouble.before()
                server = http.client.HTTPConnection(
                    maker._server.hostname or "", maker._server.port, timeout=60
                )
                server.request(self.command, self.path, body, dict(self.headers))
                answer = server.getresponse()
                content = answer.read()
                server.close()
                if trouble.lose_answer:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = pass_on

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        return Handler
