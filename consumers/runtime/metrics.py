"""What a consumer counts, as Prometheus metrics, and where it is read: /metrics, /healthz,
/readyz."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

STAGE_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
"""A batch takes milliseconds; 10 s is when the broker aborts its transaction."""
DELAY_BUCKETS_S = (0.1, 0.3, 1, 2, 5, 10, 30, 60, 300, 900, 3600)
"""Zeek alone delays records by up to an hour: it writes a connection when it is over."""


class Metrics:
    """The metrics of one process. Counters start at 0 with the process; exact sums over restarts
    are the ledger's."""

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
            "ids_stage_seconds",
            "Time of a batch",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self.event_delay = Histogram(
            "ids_event_delay_seconds",
            "From the event to its document",
            buckets=DELAY_BUCKETS_S,
            registry=registry,
        )
        self.record_delay = Histogram(
            "ids_record_delay_seconds",
            "From a record in Kafka to its acknowledged document",
            buckets=DELAY_BUCKETS_S,
            registry=registry,
        )
        self.checkpoint_time = Gauge(
            "ids_snapshot_timestamp_seconds",
            "When a partition's state was last kept",
            ("partition",),
            registry=registry,
        )
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
            "ids_sensor_records",
            "What sensors say they wrote and lost",
            ("sensor", "node", "stream", "what"),
            registry=registry,
        )
        self.sensor_read = Counter(
            "ids_sensor_read",
            "Records of connections that arrived, readable or not",
            ("sensor",),
            registry=registry,
        )
        self.sensor_seen = Gauge(
            "ids_sensor_last_record_timestamp_seconds",
            "When a record of the sensor, of any kind, was last read",
            ("sensor",),
            registry=registry,
        )
        self.ready = Gauge("ids_ready", "1 while the services it needs answer", registry=registry)
        self._lag_partitions: set[tuple[str, int]] = set()

    def set_lags(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Sets the lag of the assigned partitions, by (topic, partition), and removes all
        others."""
        for unassigned in self._lag_partitions - lags.keys():
            self.lag.remove(*unassigned)
        for partition, lag in lags.items():
            self.lag.labels(*partition).set(lag)
        self._lag_partitions = set(lags)


class HealthServer:
    """Serves the metrics and the health of the process until it is closed.

    A thread answers, so that an answer never waits for the work of the process.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        why_not_alive: Callable[[], str],
        why_not_ready: Callable[[], str],
    ) -> None:
        """`why_not_alive` and `why_not_ready` return a reason, or nothing where all is well.

        Raises:
            OSError: the port can't be bound.
        """
        pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)),
            "/healthz": lambda: _health_page(why_not_alive()),
            "/readyz": lambda: _health_page(why_not_ready()),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0], _missing_page)
                status, content_type, body = page()
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True, name="health").start()

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()


def _health_page(problem: str) -> tuple[int, str, bytes]:
    status = 503 if problem else 200
    return status, "text/plain; charset=utf-8", f"{problem or 'ok'}\n".encode()


def _missing_page() -> tuple[int, str, bytes]:
    return 404, "text/plain", b"no such page\n"
