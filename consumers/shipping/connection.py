"""The transactional loop that `ship` works with."""

from __future__ import annotations

from ids_plugin import kafka
from ids_plugin.errors import ServiceError

from ..runtime.service import Service
from ..stream.transactions import TransactionalLoop


def connect(service: Service, group: str, topic: str) -> TransactionalLoop:
    """A loop that can produce to a topic.

    Raises:
        ServiceError: the broker does not answer, or the topic is missing.
    """
    loop = TransactionalLoop(service, group, service.config.ship.instance)
    try:
        with kafka.reaching(service.config):
            topics = loop.consumer.topics()
        if topic not in topics:
            hint = "make it, or check --topic"
            raise ServiceError(f"topic {topic} is missing", location="kafka", hint=hint)
    except BaseException:
        loop.close()
        raise
    return loop
