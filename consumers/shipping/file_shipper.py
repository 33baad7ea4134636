"""The process of `ids-consumer ship FILE…`: log files → a sensor's topic, each line once."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterable, Iterator

from prometheus_client import Gauge

from ids_plugin import kafka
from ids_plugin.sources.readers.zeek_json import messages

from ..runtime.service import Service
from ..stream.transactions import ProducerRecord, TransactionalLoop, run_until_stopped
from .connection import connect
from .file_checkpoint import FileCheckpoint, load_file_checkpoint
from .follow import Follower, Lines
from .options import ShipOptions

STAGE = "ship"
TRANSACTION_BYTES = 4 << 20
"""Bytes of lines in one transaction, about: so much is sent again after `kill -9`."""
POLL_INTERVAL_S = 0.2
"""Pause before files without new lines are read again."""


class FileShipper:
    """Reads lines of files, sends them with their offsets, and counts."""

    def __init__(self, service: Service, options: ShipOptions) -> None:
        settings = service.config.ship
        instance = kafka.instance(settings.instance)
        self._service, self._topic = service, options.topic
        self._is_from_end = options.is_from_end
        self._live = [os.path.abspath(path) for path in options.inputs]
        self._rotated = [os.path.abspath(path) for path in options.rotated]
        self._sensor = options.sensor or settings.sensor or instance
        self._group = f"{settings.group}-{self._topic}"
        self._checkpoint_owner = f"{self._group}/{instance}"
        self._behind_bytes = Gauge(
            "ids_ship_behind_bytes",
            "Bytes in the files that were not sent yet",
            registry=service.metrics.registry,
        )

    def run(self) -> None:
        """Works until a stop is requested.

        Raises:
            UsageError: another process has our name.
        """
        run_until_stopped(
            self._service,
            lambda: connect(self._service, self._group, self._topic),
            self._consume,
        )

    def _consume(self, loop: TransactionalLoop) -> None:
        """Continues from the committed checkpoint until a stop is requested.

        Raises:
            TransactionAborted: something was not committed; the next loop begins at the checkpoint.
        """
        config = self._service.config
        stored = self._service.retry(
            lambda: load_file_checkpoint(loop, config, self._checkpoint_owner)
        )
        new = [pattern for pattern in (*self._live, *self._rotated) if pattern not in stored.since]
        if new:
            stored.since |= dict.fromkeys(new, time.time())
            loop.commit(stored.records(config.topics.places, {}), {})
            for pattern in new:
                self._service.info(f"following {pattern}, {len(glob.glob(pattern))} there now")
        follower = Follower(
            {pattern: stored.since[pattern] for pattern in self._live},
            {pattern: stored.since[pattern] for pattern in self._rotated},
            stored.offsets.values(),
            is_from_end=self._is_from_end,
            warn=self._service.warn,
        )
        try:
            while not self._service.is_stopping:
                self._advance(loop, stored, follower)
        finally:
            follower.close()

    def _advance(self, loop: TransactionalLoop, stored: FileCheckpoint, follower: Follower) -> None:
        """One step: read lines, send them and commit the offsets of their files."""
        self._service.heartbeat()
        cut_before, sent_before = follower.cut_lines, stored.sent
        blocks, changes = follower.read(TRANSACTION_BYTES), follower.changes()
        if not blocks and not changes:
            self._behind_bytes.set(follower.behind_bytes)
            self._service.wait(POLL_INTERVAL_S)
            return
        with self._service.timed():
            lines = list(self._line_records(blocks, stored))
            checkpoint = stored.records(self._service.config.topics.places, changes)
            loop.commit([*lines, *checkpoint], {})
        metrics = self._service.metrics
        metrics.records.labels(STAGE, "sent").inc(stored.sent - sent_before)
        metrics.records.labels(STAGE, "cut").inc(follower.cut_lines - cut_before)
        self._behind_bytes.set(follower.behind_bytes)

    def _line_records(
        self, blocks: Iterable[Lines], stored: FileCheckpoint
    ) -> Iterator[ProducerRecord]:
        """One record a line, numbered."""
        sensor = ("ids-sensor", self._sensor.encode())
        for block in blocks:
            for message in messages(block.name, block.header, block.lines):
                number = ("ids-seq", f"{stored.run}:{stored.sent}".encode())
                yield ProducerRecord(self._topic, message, None, (sensor, number))
                stored.sent += 1
