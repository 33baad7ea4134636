"""What Kibana documents of its HTTP interface, and no more: a stand-in that records what it is
asked.

Kibana itself can't be had for tests. What is answered here follows its API reference (status,
spaces, saved objects' import and export, detection rules) and what its own tests expect of error
answers; that a whole Kibana takes our objects isn't shown by it.
"""

from __future__ import annotations

import email.parser
import email.policy
import http.client
import json
import select
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

JSON = dict[str, Any]
VERSION = "8.19.2"
NOT_FOUND = {"statusCode": 404, "error": "Not Found", "message": "Not Found"}


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, tuple[str, bytes]]:
        """Name → file name and content of a form's parts."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + self.body)
        parts = {}
        for part in message.iter_parts():
            name = str(part.get_param("name", header="content-disposition"))
            parts[name] = (str(part.get_filename()), bytes(part.get_payload(decode=True)))
        return parts


class Said(NamedTuple):
    """An answer."""

    status: int
    body: Any = ""
    headers: dict[str, str] = {}  # noqa: RUF012


Answering = Callable[[Asked], Said]


class Local:
    """An HTTP server on loopback while its `with` block lasts."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()


class Kibana(Local):
    """A server with spaces, saved objects by space, type and id, and rules by space and rule_id.

    `instead` maps `METHOD /path` (without base path and space) to what is answered in place of the
    usual.
    """

    def __init__(self, base_path: str = "", certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(self._handler())
        self.base_path, self.version = base_path, VERSION
        self.spaces = ["default", "soc"]
        self.objects: dict[str, dict[tuple[str, str], JSON]] = {}
        self.rules: dict[str, dict[str, JSON]] = {}
        self.asked: list[Asked] = []
        self.instead: dict[str, Said | Answering] = {}
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            self.scheme = "https"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{self.scheme}://127.0.0.1:{self.port}{self.base_path}"

    def changes(self) -> list[str]:
        """Requests that change something."""
        reads = ("/api/saved_objects/_export",)
        return [
            f"{request.method} {request.path}"
            for request in self.asked
            if request.method != "GET" and not request.path.endswith(reads)
        ]

    def answer(self, asked: Asked) -> Said:
        """What Kibana says."""
        space, path = "default", asked.path.removeprefix(self.base_path)
        if not asked.path.startswith(f"{self.base_path}/"):
            return Said(404, NOT_FOUND, {"kbn-name": "stand-in"})
        if path.startswith("/s/"):
            _, _, space, path = path.split("/", 3)
            path = f"/{path}"
        if instead := self.instead.get(f"{asked.method} {path}"):
            return instead(asked) if callable(instead) else instead
        if asked.method != "GET" and "kbn-xsrf" not in asked.headers:
            return Said(
                400, {"statusCode": 400, "message": "Request must contain a kbn-xsrf header."}
            )
        usual = {
            "GET /api/status": self._status,
            "GET /api/spaces/space": self._spaces,
            "POST /api/saved_objects/_export": self._export,
            "POST /api/saved_objects/_import": self._import,
            "GET /api/detection_engine/privileges": self._privileges,
            "GET /api/detection_engine/rules": self._rule,
            "POST /api/detection_engine/rules": self._create,
            "PATCH /api/detection_engine/rules": self._patch,
        }.get(f"{asked.method} {path}")
        return usual(asked, space) if usual else Said(404, NOT_FOUND, {"kbn-name": "stand-in"})

    def _status(self, _asked: Asked, _space: str) -> Said:
        overall = {"level": "available", "summary": "All services and plugins are available"}
        status = {
            "name": "stand-in",
            "version": {"number": self.version},
            "status": {"overall": overall},
        }
        return Said(200, status, {"kbn-name": "stand-in"})

    def _spaces(self, _asked: Asked, _space: str) -> Said:
        return Said(
            200,
            [{"id": name, "name": name.title(), "disabledFeatures": []} for name in self.spaces],
        )

    def _export(self, asked: Asked, space: str) -> Said:
        saved, lines, failed = self.objects.setdefault(space, {}), [], []
        for key_part in asked.json["objects"]:
            key = (key_part["type"], key_part["id"])
            message = f"Saved object [{key_part['type']}/{key_part['id']}] not found"
            error = {"statusCode": 404, "error": "Not Found", "message": message}
            if key in saved:
                lines.append(json.dumps(saved[key]))
            else:
                failed.append({**key_part, "error": error})
        if failed:
            message = "Error fetching objects to export"
            attributes = {"objects": failed}
            return Said(400, {"statusCode": 400, "message": message, "attributes": attributes})
        return Said(200, "\n".join(lines), {"content-type": "application/ndjson"})

    def _import(self, asked: Asked, space: str) -> Said:
        saved, results, errors = self.objects.setdefault(space, {}), [], []
        for line in asked.form["file"][1].splitlines():
            item = json.loads(line)
            key, known = (
                (item["type"], item["id"]),
                {"type": item["type"], "id": item["id"], "meta": {}},
            )
            if key in saved and asked.query.get("overwrite") != "true":
                errors.append({**known, "error": {"type": "conflict"}})
                continue
            results.append({**known, **({"overwrite": True} if key in saved else {})})
            saved[key] = {**item, "updated_at": "2026-11-21T10:00:00.000Z", "managed": False}
        result = {
            "success": not errors,
            "successCount": len(results),
            "successResults": results,
            "warnings": [],
        }
        return Said(200, result | ({"errors": errors} if errors else {}))

    def _privileges(self, _asked: Asked, _space: str) -> Said:
        return Said(200, {"is_authenticated": True, "has_encryption_key": True})

    def _rule(self, asked: Asked, space: str) -> Said:
        name = asked.query["rule_id"]
        rule = self.rules.setdefault(space, {}).get(name)
        return Said(200, rule) if rule else _no_rule(name)

    def _create(self, asked: Asked, space: str) -> Said:
        rule, rules = asked.json, self.rules.setdefault(space, {})
        if rule["rule_id"] in rules:
            return Said(
                409, {"message": f'rule_id: "{rule["rule_id"]}" already exists', "status_code": 409}
            )
        added = {
            "immutable": False,
            "exceptions_list": [],
            "actions": [],
            "revision": 0,
            "id": rule["rule_id"][::-1],
        }
        rules[rule["rule_id"]] = added | rule
        return Said(200, rules[rule["rule_id"]])

    def _patch(self, asked: Asked, space: str) -> Said:
        rules = self.rules.setdefault(space, {})
        rule = rules.get(asked.json["rule_id"])
        if rule is None:
            return _no_rule(asked.json["rule_id"])
        rule.update({"version": rule["version"] + 1, **asked.json})
        return Said(200, rule)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        kibana = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, parts.path, query, headers, body)
                kibana.asked.append(asked)
                answer = kibana.answer(asked)
                content = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content.encode())))
                self.end_headers()
                self.wfile.write(content.encode())

            do_GET = do_POST = do_PATCH = serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _no_rule(name: str) -> Said:
    return Said(404, {"message": f'rule_id: "{name}" not found', "status_code": 404})


class Proxy(Local):
    """An HTTP proxy on loopback: passes requests on, tunnels CONNECT, and keeps what it was asked
    for."""

    def __init__(self) -> None:
        super().__init__(self._handler())
        self.asked: list[tuple[str, str, str]] = []
        """method, target, Proxy-Authorization"""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                proxy.asked.append(
                    (self.command, self.path, self.headers.get("Proxy-Authorization", ""))
                )
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
                asked = f"{parts.path}?{parts.query}" if parts.query else parts.path
                server.request(self.command, asked, body, dict(self.headers))
                answer = server.getresponse()
                content = answer.read()
                server.close()
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = pass_on

            def do_CONNECT(self) -> None:
                proxy.asked.append(
                    (self.command, self.path, self.headers.get("Proxy-Authorization", ""))
                )
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port))) as server:
                    self.send_response(200)
                    self.end_headers()
                    _tunnel(self.connection, server)
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _tunnel(client: socket.socket, server: socket.socket) -> None:
    """Passes bytes both ways until one side has ended."""
    other = {client: server, server: client}
    while True:
        for ready in select.select([client, server], [], [])[0]:
            data = ready.recv(1 << 16)
            if not data:
                return
            other[ready].sendall(data)
