"""What every consumer is as a process: signals, liveness, readiness, retries of other services."""

from __future__ import annotations

import contextlib
import itertools
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

from ids_plugin import __version__
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError, UsageError

from .logs import consumer_logger
from .metrics import HealthServer, Metrics

T = TypeVar("T")
LIVENESS_TIMEOUT_S = 300.0
"""A process whose loop made no step for so long reports itself as not alive. Recovery and bulk
requests can take as long, so they send heartbeats in between."""
RETRY_DELAYS_S = (0.5, 1.0, 2.0, 5.0)
"""Pauses between attempts to reach a service; the last one repeats."""


class StopRequested(Exception):
    """A stop was requested while the process waited for a service."""


class Service:
    """One process. Within its `with` block SIGTERM and SIGINT set `is_stopping`; the step that is
    under way is to be finished."""

    def __init__(self, stage: str, settings: Config) -> None:
        self.stage, self.config = stage, settings
        self.metrics = Metrics()
        self.port = 0
        """of the health server, 0 without one"""
        self._log = consumer_logger(stage, sys.stderr, settings.secrets())
        self._is_stopping, self._signal_name = False, ""
        self._wake_reader, self._wake_writer = socket.socketpair()
        """what ends a wait; unlike a lock, a socket can be used inside a signal handler"""
        self._unready_reason = "starting"
        self._last_heartbeat = time.monotonic()
        self._health_server: HealthServer | None = None
        self._previous_handlers: dict[int, Any] = {}

    @property
    def is_stopping(self) -> bool:
        """A stop was requested."""
        return self._is_stopping

    def stop(self) -> None:
        """Requests a stop, as SIGTERM does."""
        self._is_stopping = True
        self._wake_writer.send(b".")

    def wait(self, seconds: float) -> None:
        """Sleeps; a stop request ends the sleep."""
        select.select([self._wake_reader], [], [], seconds)

    def heartbeat(self) -> None:
        """The loop makes progress: the process is alive."""
        self._last_heartbeat = time.monotonic()

    def info(self, message: str, **fields: Any) -> None:
        """Logs a line with further fields."""
        self._log.info(message, extra={"fields": fields})

    def warn(self, message: str, **fields: Any) -> None:
        """Logs a warning with further fields."""
        self._log.warning(message, extra={"fields": fields})

    def mark_ready(self) -> None:
        """All services that the process needs answer."""
        if self._unready_reason == "starting":
            self.info("working")
        elif self._unready_reason:
            self.info(f"working again after: {self._unready_reason}")
        self._unready_reason = ""
        self.metrics.ready.set(1)

    def mark_unready(self, reason: ServiceError | str) -> None:
        """A service that the process needs does not answer; the same reason is logged once."""
        if self._unready_reason != str(reason):
            self.warn(str(reason))
        self._unready_reason = str(reason)
        self.metrics.ready.set(0)

    def retry(self, attempt: Callable[[], T]) -> T:
        """The result of `attempt`, which is repeated while it raises ServiceError.

        Raises:
            StopRequested: a stop was requested before an attempt succeeded.
        """
        delays = itertools.chain(RETRY_DELAYS_S, itertools.repeat(RETRY_DELAYS_S[-1]))
        while not self.is_stopping:
            self.heartbeat()
            try:
                result = attempt()
            except ServiceError as error:
                self.mark_unready(error)
                self.wait(next(delays))
            else:
                self.mark_ready()
                return result
        raise StopRequested

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Observes in the metrics how long a batch takes."""
        began = time.monotonic()
        yield
        self.metrics.seconds.labels(self.stage).observe(time.monotonic() - began)

    def __enter__(self) -> Service:
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {
                number: signal.signal(number, self._on_signal)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
        self._start_health_server()
        self.info("started", **{"service.version": __version__})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._health_server:
            self._health_server.close()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        if kind is None or kind is StopRequested:
            self.info(f"ended: {self._signal_name}" if self._signal_name else "ended")
        else:
            self._log.error("ended: %s", error, extra={"fields": {"error.type": kind.__name__}})
        return kind is StopRequested

    def _start_health_server(self) -> None:
        """
        Raises:
            UsageError: the configured port can't be used.
        """
        health = self.config.health
        if not health.port:
            return
        try:
            self._health_server = HealthServer(
                health.host,
                health.port,
                self.metrics,
                self._why_not_alive,
                lambda: self._unready_reason,
            )
        except OSError as error:
            raise UsageError(
                f"can't serve health: {(error.strerror or str(error)).lower()}",
                location=f"{health.host}:{health.port}",
                hint="another health.port",
            ) from error
        self.port = self._health_server.port

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Logs nothing: the signal may come in the middle of a log line."""
        self._signal_name = signal.Signals(number).name
        self.stop()

    def _why_not_alive(self) -> str:
        idle = time.monotonic() - self._last_heartbeat
        return f"no turn of the loop for {idle:.0f} s" if idle > LIVENESS_TIMEOUT_S else ""
