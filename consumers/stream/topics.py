"""Which topics exist. A thread asks for them, since kafka-python does not reliably find new
topics."""

from __future__ import annotations

import contextlib
import threading

from ids_plugin import kafka
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError

TOPIC_POLL_INTERVAL_S = 5.0
"""A new topic or partition is read after this time; one metadata request is all it costs."""


def partition_counts(config: Config) -> dict[str, int]:
    """Topic → number of its partitions, of all topics that we may see.

    Raises:
        ServiceError: the broker does not answer, or refuses access.
    """
    with kafka.reaching(config), contextlib.closing(kafka.admin(config)) as admin:
        return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}


class TopicWatcher:
    """Polls the topics in a thread that ends with the process, or when the watcher is closed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._closed = threading.Event()
        self._partition_counts: dict[str, int] = {}
        threading.Thread(target=self._poll_until_closed, daemon=True, name="topics").start()

    @property
    def partition_counts(self) -> dict[str, int]:
        """What `partition_counts` returned last; empty before the first poll."""
        return self._partition_counts

    def close(self) -> None:
        """Ends polling."""
        self._closed.set()

    def _poll_until_closed(self) -> None:
        while not self._closed.wait(TOPIC_POLL_INTERVAL_S):
            with contextlib.suppress(ServiceError):
                self._partition_counts = partition_counts(self._config)
