"""Which bundle scores: the configured one, its replacement on disk, or one on `ids.bundles`.

The latest of them is used; one on `ids.bundles` must be signed by the configured key. A bundle that
can't be used is reported and skipped, and the current one stays in use. An empty record on
`ids.bundles` withdraws the bundle sent before: the configured one is used again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaError

from ids_plugin import kafka
from ids_plugin.bundle import Bundle, find, read, read_key
from ids_plugin.config import Config
from ids_plugin.errors import IdsPluginError, ServiceError
from ids_plugin.windows import spec

BUNDLE_POLL_INTERVAL_S = 2.0
"""A new bundle is in use after this time; a poll is one `stat` and one request to the broker."""
END_OFFSETS_TIMEOUT_MS = 1_000
"""Short, since scoring waits meanwhile; the next poll asks again."""
FileStats = tuple[tuple[str, int, int], ...]
"""Names, modification times (ns) and sizes of a bundle's files."""


class _SentBundle(NamedTuple):
    """The last record for us on the topic of bundles."""

    sent_at: float
    """seconds since the epoch"""
    data: bytes


class BundleWatcher:
    """Watches a directory (or file) and a topic for another bundle."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        """
        Raises:
            BundleError, ConfigError: the configured bundle, or the key that must have signed it,
                can't be used.
        """
        configured = str(config.detect.bundle or "default")
        self._config, self._warn = config, warn
        self.name = Path(configured).stem
        """the key of the records that are for us"""
        self._path = find(configured)
        self._key = read_key(config.detect.public_key)
        self._file_stats = _file_stats(self._path)
        self._consumer: Any = None
        self._next_poll = 0.0
        self.configured = self.current = self._read()

    def expire(self) -> None:
        """Lets the next `poll` look at once."""
        self._next_poll = 0.0

    def poll(self) -> Bundle | None:
        """The bundle to score with from now on, where it is another one than before; else None."""
        if time.monotonic() < self._next_poll:
            return None
        self._next_poll = time.monotonic() + BUNDLE_POLL_INTERVAL_S
        bundle = self._replaced_on_disk() or self._sent_by_kafka()
        if bundle is None or bundle.id == self.current.id:
            return None
        return bundle

    def refuse(self, error: IdsPluginError) -> None:
        """Reports that a new bundle can't be used."""
        self._warn(f"another bundle is refused, {self.current.id[:12]} goes on: {error}")

    def close(self) -> None:
        """Closes the consumer of the topic; the next poll starts at the topic's beginning."""
        if self._consumer is not None:
            self._consumer.close(timeout_ms=1_000)
        self._consumer = None

    def _replaced_on_disk(self) -> Bundle | None:
        """The bundle in the directory, where its files have changed."""
        file_stats = _file_stats(self._path)
        if not file_stats or file_stats == self._file_stats:
            return None
        self._file_stats = file_stats
        try:
            self.configured = self._read()
        except IdsPluginError as error:
            self.refuse(error)
            return None
        return self.configured

    def _sent_by_kafka(self) -> Bundle | None:
        """The bundle on the topic, where it was sent after the directory was written."""
        topic = self._config.topics.bundles
        try:
            sent = self._last_sent()
        except (KafkaError, ServiceError):
            self.close()
            return None
        written_at = max((modified for _, modified, _ in self._file_stats), default=0) / 1e9
        if sent is None or sent.sent_at < written_at:
            return None
        if not sent.data:
            return self.configured
        if self._key is None:
            self._warn(f"a bundle on {topic} is refused: detect.public_key isn't configured")
            return None
        try:
            return read(sent.data, spec=spec(), public_key=self._key, where=topic)
        except IdsPluginError as error:
            self.refuse(error)
            return None

    def _last_sent(self) -> _SentBundle | None:
        """The last record for us among those that came since the last poll."""
        consumer = self._assigned_consumer()
        partitions = list(consumer.assignment())
        ends = {}
        if partitions:
            ends = consumer.end_offsets(partitions, timeout_ms=END_OFFSETS_TIMEOUT_MS)
        sent = None
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            records = [record for batch in consumer.poll(1_000).values() for record in batch]
            if not records:
                break
            for record in records:
                if record.key == self.name.encode():
                    sent = _SentBundle(record.timestamp / 1000, record.value or b"")
        return sent

    def _assigned_consumer(self) -> Any:
        """A consumer of all partitions of the topic, in no group."""
        if self._consumer is None:
            topic = self._config.topics.bundles
            self._consumer = kafka.consumer(
                self._config, max_partition_fetch_bytes=2 * kafka.LARGEST_BUNDLE
            )
            numbers = self._consumer.partitions_for_topic(topic) or ()
            self._consumer.assign([TopicPartition(topic, number) for number in numbers])
        return self._consumer

    def _read(self) -> Bundle:
        return read(self._path, spec=spec(), public_key=self._key)


def _file_stats(path: Path) -> FileStats:
    """The stats of a bundle's files; empty while its writer is at work."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in stats)
