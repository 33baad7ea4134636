"""What every process of the wire is: told to stop by a signal, watched from outside, patient with other services."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import itertools
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from ids_plugin import config
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError, UsageError

from .logs import logger
from .metrics import Endpoint, Metrics

T = TypeVar("T")
STUCK = 300.0
"""Seconds without a turn of its loop after which a process says it isn't well."""
SHARING = ("normalise", "detect", "deliver")
"""Processes whose instances can take each other's place: any name will do that no other one has."""
PATIENCE = (0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts to reach a service; the last goes on."""


class Stopping(Exception):
    """We were told to stop while waiting for a service."""


class Service:
    """One process. Within its `with` block SIGTERM and SIGINT set `stopping`; what is under way is to be finished."""

    def __init__(self, stage: str, settings: Config) -> None:
        self.stage, self.config = stage, settings
        self.metrics = Metrics()
        self.port = 0
        """of the health endpoint, 0 without one"""
        self._log = logger(stage, sys.stderr, settings.secrets())
        self._stopping, self._signal = False, ""
        self._ear, self._mouth = socket.socketpair()
        """what ends a wait: unlike a lock it can be used wherever a signal comes in; open as long as anybody has it"""
        self._missing = "starting"
        self._turn = time.monotonic()
        self._endpoint: Endpoint | None = None
        self._before: dict[int, Any] = {}

    @property
    def stopping(self) -> bool:
        """We were told to stop."""
        return self._stopping

    def stop(self) -> None:
        """As a SIGTERM."""
        self._stopping = True
        self._mouth.send(b".")

    def wait(self, seconds: float) -> None:
        """Sleeps, less when we are told to stop."""
        select.select([self._ear], [], [], seconds)

    def turn(self) -> None:
        """The loop goes round: the process is alive."""
        self._turn = time.monotonic()

    def say(self, message: str, **fields: Any) -> None:
        """A log line."""
        self._log.info(message, extra={"fields": fields})

    def warn(self, message: str, **fields: Any) -> None:
        """A log line about something to look at."""
        self._log.warning(message, extra={"fields": fields})

    def working(self) -> None:
        """The services we need answer."""
        if self._missing:
            self.say(
                "working"
                if self._missing == "starting"
                else f"working again after: {self._missing}"
            )
        self._missing = ""
        self.metrics.ready.set(1)

    def missing(self, error: ServiceError | str) -> None:
        """A service we need doesn't answer: said once, however often it is found so."""
        if self._missing != str(error):
            self.warn(str(error))
        self._missing = str(error)
        self.metrics.ready.set(0)

    def patiently(self, do: Callable[[], T]) -> T:
        """What `do` gives once the service it needs answers.

        Raises:
            Stopping: we were told to stop before.
        """
        attempt = 0
        while not self.stopping:
            self.turn()
            try:
                given = do()
            except ServiceError as error:
                self.missing(error)
                self.wait(PATIENCE[min(attempt, len(PATIENCE) - 1)])
                attempt += 1
            else:
                self.working()
                return given
        raise Stopping

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """A batch: how long it takes."""
        began = time.monotonic()
        yield
        self.metrics.seconds.labels(self.stage).observe(time.monotonic() - began)

    def __enter__(self) -> Service:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                one: signal.signal(one, self._told) for one in (signal.SIGTERM, signal.SIGINT)
            }
        health = self.config.health
        if health.port:
            try:
                self._endpoint = Endpoint(
                    health.host, health.port, self.metrics, self._stuck, lambda: self._missing
                )
            except OSError as error:
                where, why = f"{health.host}:{health.port}", (error.strerror or str(error)).lower()
                raise UsageError(
                    f"can't serve health: {why}", location=where, hint="another health.port"
                ) from error
            self.port = self._endpoint.port
        self.say("started", **{"service.version": _version()})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> bool:
        if self._endpoint:
            self._endpoint.close()
        for one, before in self._before.items():
            signal.signal(one, before)
        if kind is None or kind is Stopping:
            self.say(f"ended: {self._signal}" if self._signal else "ended")
        else:
            self._log.error("ended: %s", error, extra={"fields": {"error.type": kind.__name__}})
        return kind is Stopping

    def _told(self, number: int, _frame: FrameType | None) -> None:
        """Writes nothing: it may come in the middle of a line that is being written."""
        self._signal = signal.Signals(number).name
        self.stop()

    def _stuck(self) -> str:
        idle = time.monotonic() - self._turn
        return f"no turn of the loop for {idle:.0f} s" if idle > STUCK else ""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of every process."""
    parser.add_argument(
        "--config", metavar="FILE", help="settings (TOML); the environment's IDS_SECTION_KEY win"
    )
    parser.add_argument(
        "--instance", metavar="NAME", help="name of this instance, steady and unique in its group"
    )


def settings(args: argparse.Namespace, section: str) -> Config:
    """The configuration that the options name; an instance that shares a group's work has a name in it.

    Raises:
        ConfigError: it can't be used as it is.
    """
    found = config.load(Path(args.config) if args.config else None)
    told = getattr(found, section)
    name = (
        args.instance or told.instance or (_free_name(told.group) if section in SHARING else None)
    )
    return dataclasses.replace(found, **{section: dataclasses.replace(told, instance=name)})


def _free_name(group: str) -> str:
    """`HOST-1`, or with the next number that no other process of the group on this host has: it is the same again after
    a restart. Held by a socket, since that is gone with the process however it ends."""
    host = socket.gethostname()
    for number in itertools.count(1):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0ids-consumer/{group}/{number}")
        except OSError as error:
            held.close()
            if error.errno != errno.EADDRINUSE:
                return host
        else:
            _HELD.append(held)
            return f"{host}-{number}"
    raise AssertionError("numbers have no end")


_HELD: list[socket.socket] = []


def _version() -> str:
    from ids_plugin import __version__

    return __version__
