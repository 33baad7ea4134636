"""Which topics there are, looked up beside the work: kafka-python's own look-out for new ones isn't to be relied on."""

from __future__ import annotations

import contextlib
import threading

from ids_plugin import kafka
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError

SECONDS = 5.0
"""Between two looks."""


def partitions(config: Config) -> dict[str, int]:
    """Topic → number of its partitions, of all topics that we may see.

    Raises:
        ServiceError: the broker doesn't answer, or refuses us.
    """
    with kafka.reaching(config), contextlib.closing(kafka.admin(config)) as admin:
        return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}


class Lookout:
    """Looks every few seconds, in a thread that ends with the process or when it is closed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._closed = threading.Event()
        self._found: dict[str, int] = {}
        threading.Thread(target=self._look, daemon=True, name="topics").start()

    @property
    def partitions(self) -> dict[str, int]:
        """What `partitions` gave last; empty before the first look."""
        return self._found

    def close(self) -> None:
        """Ends looking."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(SECONDS):
            with contextlib.suppress(ServiceError):
                self._found = partitions(self._config)
