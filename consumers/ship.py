"""`ids-consumer ship`: log files, or what arrives in an index → a sensor's topic, each line once, through kill -9."""

from __future__ import annotations

import argparse
import glob
import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ids_plugin import kafka
from ids_plugin.commands import Command, Console
from ids_plugin.errors import UsageError

from .runtime.service import Service, add_options, settings

if TYPE_CHECKING:
    from .shipping.file_checkpoint import Journal
    from .shipping.follow import Follower, Lines
    from .stream.transactions import Outgoing, TransactionalLoop

STAGE = "ship"
SCHEME = "elasticsearch:"
LIMIT = 4 << 20
"""bytes in one transaction, about"""
IDLE = 0.2
"""seconds between two looks for new lines"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `ship`."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="log that is written to, or a glob of such; or one elasticsearch:URL/INDEX, whose documents are followed",
    )
    parser.add_argument("--topic", required=True, help="where the lines go")
    parser.add_argument(
        "--rotated",
        action="append",
        default=[],
        metavar="GLOB",
        help="rotated files in other folders",
    )
    parser.add_argument(
        "--sensor",
        metavar="NAME",
        help="whose files these are (default: ship.sensor, else the host)",
    )
    parser.add_argument(
        "--from-end", action="store_true", help="leave out what is there at the very first start"
    )
    parser.add_argument(
        "--arrival",
        default="event.ingested",
        metavar="FIELD",
        help="of an index: the date at which a document was indexed (default: %(default)s)",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="of an index: how long after its arrival a document may become searchable (default: %(default)g)",
    )
    add_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        ConfigError: the configuration can't be used.
        UsageError: another process has our name; files and indices don't go together.
    """
    indices = [name for name in args.files if name.startswith(SCHEME)]
    if indices and len(args.files) > 1:
        raise UsageError(
            "an index is followed alone", hint="start one ship for each, and one for the files"
        )
    with Service(STAGE, settings(args, STAGE)) as service:
        if indices:
            from .shipping.index_shipper import IndexShipper

            IndexShipper(service, args).run()
        else:
            Shipper(service, args).run()
    return 0


class Shipper:
    """Takes lines from files, sends them with their places, and counts."""

    def __init__(self, service: Service, args: argparse.Namespace) -> None:
        from prometheus_client import Gauge

        told = service.config.ship
        self._service, self._topic, self._from_end = service, str(args.topic), bool(args.from_end)
        self._live = [os.path.abspath(path) for path in args.files]
        self._rotated = [os.path.abspath(path) for path in args.rotated]
        self._sensor = str(args.sensor or told.sensor or kafka.instance(told.instance))
        self._group = f"{told.group}-{self._topic}"
        self._who = f"{self._group}/{kafka.instance(told.instance)}"
        about = "Bytes in the files that were not sent yet"
        self._behind = Gauge("ids_ship_behind_bytes", about, registry=service.metrics.registry)

    def run(self) -> None:
        """Goes on until told to stop.

        Raises:
            UsageError: another process has our name.
        """
        from .stream.transactions import TransactionAborted

        while not self._service.stopping:
            with self._service.patiently(self._connected) as exchange:
                try:
                    self._follow(exchange)
                except TransactionAborted as error:
                    self._service.missing(str(error))
                    self._service.wait(0.5)

    def _connected(self) -> TransactionalLoop:
        """
        Raises:
            ServiceError: the broker doesn't answer, or the topic is missing.
        """
        from .shipping.connection import connected

        return connected(self._service, self._group, self._topic)

    def _follow(self, exchange: TransactionalLoop) -> None:
        """Goes on from the committed places.

        Raises:
            TransactionAborted: something was not committed; the next life begins from the places again.
        """
        from .shipping.file_checkpoint import load
        from .shipping.follow import Follower

        journal = self._service.patiently(lambda: load(exchange, self._service.config, self._who))
        new = [pattern for pattern in (*self._live, *self._rotated) if pattern not in journal.since]
        if new:
            journal.since |= dict.fromkeys(new, time.time())
            exchange.commit(journal.messages(self._service.config.topics.places, {}), {})
            for pattern in new:
                self._service.say(f"following {pattern}, {len(glob.glob(pattern))} there now")
        follower = Follower(
            {pattern: journal.since[pattern] for pattern in self._live},
            {pattern: journal.since[pattern] for pattern in self._rotated},
            journal.places.values(),
            from_end=self._from_end,
            complain=self._service.warn,
        )
        try:
            while not self._service.stopping:
                self._turn(exchange, journal, follower)
        finally:
            follower.close()

    def _turn(self, exchange: TransactionalLoop, journal: Journal, follower: Follower) -> None:
        self._service.turn()
        cut = follower.cut
        found, changes = follower.read(LIMIT), follower.changes()
        if not found and not changes:
            self._behind.set(follower.behind)
            self._service.wait(IDLE)
            return
        with self._service.timed():
            before = journal.sent
            messages = list(self._messages(found, journal))
            exchange.commit(
                [*messages, *journal.messages(self._service.config.topics.places, changes)], {}
            )
        metrics = self._service.metrics
        metrics.records.labels(STAGE, "sent").inc(journal.sent - before)
        metrics.records.labels(STAGE, "cut").inc(follower.cut - cut)
        self._behind.set(follower.behind)

    def _messages(self, found: Iterable[Lines], journal: Journal) -> Iterator[Outgoing]:
        from ids_plugin.sources.readers.zeek_json import messages

        from .stream.transactions import Outgoing

        sensor = ("ids-sensor", self._sensor.encode())
        for lines in found:
            for message in messages(lines.name, lines.header, lines.lines):
                number = ("ids-seq", f"{journal.run}:{journal.sent}".encode())
                yield Outgoing(self._topic, message, None, (sensor, number))
                journal.sent += 1


PLUGIN = Command(
    STAGE,
    "Follow log files of Zeek and Suricata onto the wire, through rotation and restarts.",
    "example: ids-consumer ship /var/log/suricata/eve.json --topic suricata --config ids.toml",
    configure,
    run,
)
