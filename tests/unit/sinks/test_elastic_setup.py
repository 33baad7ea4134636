"""What `setup elasticsearch` asks of servers that can't be had here: other versions, without ILM,
with GeoIP.

The server is a look-alike that knows nothing but the documented API: it shows what is sent, not
what a real one makes of it. Against a real one: tests/integration/test_elasticsearch.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.elastic.index_setup import Step, install
from ids_plugin.elastic.streams import MANAGED_BY

TAG = "_geoip_database_unavailable_GeoLite2-City.mmdb"


@dataclass
class Server:
    """An Elasticsearch of some version; what is put there stays there."""

    version: str = "8.19.0"
    ilm: bool = True
    geoip: bool = True
    databases: bool = True
    put: dict[str, Any] = field(default_factory=dict)
    url: str = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/":
            return 200, {"version": {"number": self.version}}
        if path.startswith("/_ilm") and not self.ilm:
            return 410, {
                "error": {"type": "api_not_available_exception", "reason": "not on serverless"}
            }
        if path == "/_ingest/pipeline/_simulate":
            assert {"pipeline", "docs"} == body.keys()
            if not self.geoip:
                return 400, {
                    "error": {
                        "type": "parse_exception",
                        "reason": "No processor type exists with name [geoip]",
                    }
                }
            return 200, {"docs": [{"doc": {"_source": {} if self.databases else {"tags": [TAG]}}}]}
        if "_simulate_index" in path:
            return 200, {"template": {"mappings": {"_meta": {"managed_by": MANAGED_BY}}}}
        if method == "PUT":
            self.put[path] = body
            return 200, {"acknowledged": True}
        return self.kept(path)

    def kept(self, path: str) -> tuple[int, Any]:
        """As each API wraps what was put."""
        if path not in self.put:
            return 404, {"error": {"type": "resource_not_found_exception", "reason": path}}
        kind, name = path.rsplit("/", 1)
        if kind in ("/_component_template", "/_index_template"):
            return 200, {f"{kind[2:]}s": [{"name": name, kind[2:]: self.put[path]}]}
        return 200, {name: self.put[path]}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = made.answer(
                self.command, self.path.partition("?")[0], json.loads(body or b"null")
            )
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("X-elastic-product", "Elasticsearch")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield made
    http.shutdown()
    http.server_close()


def setup(server: Server, **options: bool) -> list[Step]:
    return list(install(Settings(server.url), **options))


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("8.10.4", set()),
        ("8.18.0", {"lifecycle"}),
        ("8.19.0", {"lifecycle", "data_stream_options"}),
        ("9.0.1", {"lifecycle"}),
        ("9.1.0", {"lifecycle", "data_stream_options"}),
        ("10.0.0-SNAPSHOT", {"lifecycle", "data_stream_options"}),
    ],
)
def test_a_server_is_given_what_it_knows(server: Server, version: str, parts: set[str]) -> None:
    server.version = version
    setup(server)
    templates = [
        body["template"] for path, body in server.put.items() if path.startswith("/_index_template")
    ]
    assert len(templates) == 3
    for template in templates:
        assert template.keys() & {"lifecycle", "data_stream_options"} == parts
        assert template["settings"]["index"]["lifecycle"]["name"].startswith("ids_plugin.")


def test_without_ilm_the_data_streams_keep_their_own_lifecycle(server: Server) -> None:
    server.ilm = False
    steps = setup(server)
    assert [step.action for step in steps if step.kind == "ilm_policy"] == ["skip"] * 3
    assert not [path for path in server.put if "_ilm" in path]
    kept = {
        path: body["template"]
        for path, body in server.put.items()
        if path.startswith("/_index_template")
    }
    assert {
        path.rpartition(".")[2]: one["lifecycle"]["data_retention"] for path, one in kept.items()
    } == {
        "alert": "365d",
        "flow": "30d",
        "ledger": "90d",
    }
    assert not [path for path, one in kept.items() if one["settings"]["index"].get("lifecycle")]
    assert {
        step.action for step in setup(server) if step.kind not in ("ilm_policy", "data_stream")
    } == {"keep"}


@pytest.mark.parametrize(
    ("databases", "why"), [(True, ""), (False, "its GeoIP databases aren't there yet")]
)
def test_addresses_are_looked_up_where_the_server_can(
    server: Server, databases: bool, why: str
) -> None:
    server.databases = databases
    (pipeline,) = [step for step in setup(server, dry_run=True) if step.kind == "ingest_pipeline"]
    assert (pipeline.action, pipeline.why, server.put) == ("create", why, {})
    assert pipeline in setup(server)
    sent = list(server.put)
    assert sent.index("/_ingest/pipeline/ids_plugin-geoip") < sent.index(
        "/_component_template/ids_plugin-alert"
    )
    settings = server.put["/_component_template/ids_plugin-alert"]["template"]["settings"]
    assert settings == {"index": {"default_pipeline": "ids_plugin-geoip"}}
    assert {step.action for step in setup(server) if step.kind == "ingest_pipeline"} == {"keep"}


def test_without_the_processor_no_pipeline_is_named(server: Server) -> None:
    server.geoip = False
    (pipeline,) = [step for step in setup(server) if step.kind == "ingest_pipeline"]
    assert (pipeline.action, pipeline.why) == ("skip", "this server has no GeoIP processor")
    assert "default_pipeline" not in json.dumps(server.put)
    server.geoip = True
    changed = {
        step.name: step.why
        for step in setup(server)
        if step.kind != "data_stream" and step.action != "keep"
    }
    assert changed == {
        "ids_plugin-geoip": "",
        "ids_plugin-alert": "it says something else: template.settings.index.default_pipeline",
    }
