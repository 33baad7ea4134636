"""The transactional producer and consumer that `ship` works with."""

from __future__ import annotations

from ids_plugin import kafka
from ids_plugin.errors import ServiceError

from ..runtime.service import Service
from ..stream.transactions import TransactionalLoop


def connected(service: Service, group: str, topic: str) -> TransactionalLoop:
    """An exchange that can send to a topic.

    Raises:
        ServiceError: the broker doesn't answer, or the topic is missing.
    """
    exchange = TransactionalLoop(service, group, service.config.ship.instance)
    try:
        with kafka.reaching(service.config):
            there = exchange.consumer.topics()
        if topic not in there:
            hint = "make it, or check --topic"
            raise ServiceError(f"topic {topic} is missing", location="kafka", hint=hint)
    except BaseException:
        exchange.close()
        raise
    return exchange
