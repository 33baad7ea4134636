"""What a consumer counts, in Prometheus' terms, and where it is read: /metrics, /healthz, /readyz."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
DELAYS = (0.1, 0.3, 1, 2, 5, 10, 30, 60, 300, 900, 3600)


class Metrics:
    """The metrics of one process. Counters are since it started; exact sums over restarts are the ledger's."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.records = Counter(
            "ids_records", "Records by what became of them", ("stage", "outcome"), registry=registry
        )
        self.alerts = Counter(
            "ids_alerts", "Alerts opened", ("severity", "model"), registry=registry
        )
        self.lag = Gauge(
            "ids_lag_records", "Records not read yet", ("topic", "partition"), registry=registry
        )
        self.seconds = Histogram(
            "ids_stage_seconds", "Time of a batch", ("stage",), buckets=SECONDS, registry=registry
        )
        self.event_delay = Histogram(
            "ids_event_delay_seconds",
            "From the event to its document",
            buckets=DELAYS,
            registry=registry,
        )
        self.record_delay = Histogram(
            "ids_record_delay_seconds", "From a record in Kafka to its acknowledged document", buckets=DELAYS,
            registry=registry,
        )  # fmt: skip
        self.snapshot = Gauge(
            "ids_snapshot_timestamp_seconds", "When a partition's state was last kept", ("partition",),
            registry=registry,
        )  # fmt: skip
        self.pairs = Gauge(
            "ids_window_pairs", "Pairs of hosts in the windows' memory", registry=registry
        )
        self.rejects = Counter(
            "ids_rejects", "Records that could not be read", ("reason",), registry=registry
        )
        self.bundle = Gauge(
            "ids_bundle_info", "The bundle in use", ("id", "family"), registry=registry
        )
        self.sensor = Gauge(
            "ids_sensor_records", "What sensors say they wrote and lost", ("sensor", "node", "stream", "what"),
            registry=registry,
        )  # fmt: skip
        self.sensor_read = Counter(
            "ids_sensor_read",
            "Records of connections that arrived, readable or not",
            ("sensor",),
            registry=registry,
        )
        self.sensor_seen = Gauge(
            "ids_sensor_last_record_timestamp_seconds", "When a record of the sensor, of any kind, was last read",
            ("sensor",), registry=registry,
        )  # fmt: skip
        self.ready = Gauge("ids_ready", "1 while the services it needs answer", registry=registry)
        self._behind: set[tuple[str, int]] = set()

    def behind(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Records not read yet by topic and partition, of all partitions that are ours now and of no other."""
        for gone in self._behind - lags.keys():
            self.lag.remove(*gone)
        for place, lag in lags.items():
            self.lag.labels(*place).set(lag)
        self._behind = set(lags)


class Endpoint:
    """Serves the metrics and the process's health until closed; an answer never waits for the process's work."""

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        alive: Callable[[], str],
        ready: Callable[[], str],
    ) -> None:
        """`alive` and `ready` say what is wrong, nothing if all is well.

        Raises:
            OSError: the port can't be had.
        """
        pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)),
            "/healthz": lambda: _page(alive()),
            "/readyz": lambda: _page(ready()),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(
                    self.path.partition("?")[0], lambda: (404, "text/plain", b"no such page\n")
                )
                status, kind, body = page()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True, name="health").start()

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()


def _page(wrong: str) -> tuple[int, str, bytes]:
    return (503 if wrong else 200), "text/plain; charset=utf-8", f"{wrong or 'ok'}\n".encode()
