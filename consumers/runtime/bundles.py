"""Which bundle judges: the configured one, one that took its place in its directory, or a signed one on `ids.bundles`.

Whatever came last is taken; what can't be used is told of and passed over, so that the one in use goes on. An empty
message on `ids.bundles` takes back what was sent before: the configured bundle is taken again.
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

LOOK = 2.0
"""Seconds between two looks at the directory and the topic."""


class _Sent(NamedTuple):
    """The last message for us on the topic of bundles."""

    at: float
    """seconds since the epoch"""
    data: bytes


class Bundles:
    """Watches a directory (or file) and a topic for another bundle."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        """
        Raises:
            BundleError, ConfigError: the configured bundle, or the key that must have signed it, can't be used.
        """
        self._config, self._warn = config, warn
        self.name = Path(config.detect.bundle or "default").stem
        """under which bundles are sent to us"""
        self._path = find(str(config.detect.bundle or "default"))
        self._key = read_key(config.detect.public_key)
        self._seen = _signature(self._path)
        self._reader: Any = None
        self._next = 0.0
        self.configured = self.current = self._read()

    def look_now(self) -> None:
        """The next `look` doesn't wait for its time."""
        self._next = 0.0

    def look(self) -> Bundle | None:
        """The bundle to judge with from now on, when it is another than before; None mostly."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + LOOK
        found = self._replaced() or self._sent()
        if found is None or found.id == self.current.id:
            return None
        return found

    def refuse(self, error: IdsPluginError) -> None:
        """What `look` gave can't be used after all."""
        self._warn(f"another bundle is refused, {self.current.id[:12]} goes on: {error}")

    def close(self) -> None:
        """Gives up the topic; the next look starts at its beginning."""
        if self._reader is not None:
            self._reader.close(timeout_ms=1_000)
        self._reader = None

    def _replaced(self) -> Bundle | None:
        """The bundle in the directory, if that isn't what it was."""
        seen = _signature(self._path)
        if not seen or seen == self._seen:
            return None
        self._seen = seen
        try:
            self.configured = self._read()
        except IdsPluginError as error:
            self.refuse(error)
            return None
        return self.configured

    def _sent(self) -> Bundle | None:
        """The bundle on the topic, if one came for us after the directory was written."""
        try:
            last = self._last()
        except (KafkaError, ServiceError):
            self.close()
            return None
        if last is None or last.at < max((one[1] for one in self._seen), default=0) / 1e9:
            return None
        if not last.data:
            return self.configured
        if self._key is None:
            self._warn(
                f"a bundle on {self._config.topics.bundles} is refused: detect.public_key isn't configured"
            )
            return None
        try:
            return read(
                last.data, spec=spec(), public_key=self._key, where=self._config.topics.bundles
            )
        except IdsPluginError as error:
            self.refuse(error)
            return None

    def _last(self) -> _Sent | None:
        """The last message for us among those that came since the last look."""
        topic = self._config.topics.bundles
        if self._reader is None:
            self._reader = kafka.consumer(
                self._config, max_partition_fetch_bytes=2 * kafka.LARGEST_BUNDLE
            )
            self._reader.assign(
                [
                    TopicPartition(topic, one)
                    for one in self._reader.partitions_for_topic(topic) or ()
                ]
            )
        found = None
        places = self._reader.assignment()
        ends = self._reader.end_offsets(list(places), timeout_ms=1_000) if places else {}
        while any(self._reader.position(place) < end for place, end in ends.items()):
            records = [one for some in self._reader.poll(1_000).values() for one in some]
            if not records:
                break
            ours = [one for one in records if one.key == self.name.encode()]
            found = _Sent(ours[-1].timestamp / 1000, ours[-1].value or b"") if ours else found
        return found

    def _read(self) -> Bundle:
        return read(self._path, spec=spec(), public_key=self._key)


def _signature(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, times (ns) and sizes of a bundle's files; empty while somebody is at it."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return tuple((one.name, (told := one.stat()).st_mtime_ns, told.st_size) for one in files)
    except OSError:
        return ()
