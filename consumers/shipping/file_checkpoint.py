"""Where `ship` is in its files, kept on a compacted topic: written in the transaction that holds the lines."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from ids_plugin import kafka
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError

from ..stream.transactions import Outgoing, TransactionalLoop
from .tail import Place

SECONDS = 30.0
"""how long the topic may take to be read to its end: others' open transactions end within ten seconds"""


@dataclass
class Journal:
    """What one instance remembers of one topic it sends to."""

    who: str
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    """of the numbers in the headers"""
    sent: int = 0
    """messages so far, all lives together: the next one's number"""
    since: dict[str, float] = field(default_factory=dict)
    """glob → time since when it is followed, seconds since 1970"""
    places: dict[int, Place] = field(default_factory=dict)

    def messages(self, topic: str, changes: Mapping[int, Place | None]) -> list[Outgoing]:
        """How it stands, after these changes of places."""
        whole = {"run": self.run, "sent": self.sent, "since": self.since}
        told = [Outgoing(topic, orjson.dumps(whole), self.who.encode())]
        for number, place in changes.items():
            value = asdict(place) if place else None
            told.append(Outgoing(topic, orjson.dumps(value), f"{self.who}#{number}".encode()))
        return told

    def take(self, key: str, value: dict[str, Any] | None) -> None:
        """One message of the topic, another instance's too."""
        who, _, number = key.rpartition("#") if "#" in key else (key, "", "")
        if who != self.who:
            return
        if not number and value:
            self.run, self.sent, self.since = value["run"], value["sent"], value["since"]
        elif value:
            self.places[int(number)] = Place(**value)
        elif number:
            self.places.pop(int(number), None)


def load(exchange: TransactionalLoop, config: Config, who: str) -> Journal:
    """What was committed, however the last life ended: the exchange's producer has settled that.

    Raises:
        ServiceError: the topic is missing or doesn't answer.
    """
    journal = Journal(who)
    recall(exchange, config, journal.take)
    return journal


def recall(
    exchange: TransactionalLoop, config: Config, take: Callable[[str, dict[str, Any] | None], None]
) -> None:
    """Gives every message of the topic, its key and value, to `take`.

    Raises:
        ServiceError: the topic is missing or doesn't answer.
    """
    from kafka import TopicPartition

    topic, consumer = config.topics.places, exchange.consumer
    with kafka.reaching(config):
        numbers = consumer.partitions_for_topic(topic) or set()
        if not numbers:
            raise ServiceError(
                f"topic {topic} is missing",
                location="kafka",
                hint="ids-plugin setup kafka makes it",
            )
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        with kafka.consumer(config, isolation_level="read_uncommitted") as other:
            ends = other.end_offsets(partitions)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        deadline = time.monotonic() + SECONDS
        while any(consumer.position(one) < ends[one] for one in partitions):
            if time.monotonic() > deadline:
                raise ServiceError(f"topic {topic} can't be read to its end", location="kafka")
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    take(record.key.decode(), orjson.loads(record.value))
        consumer.unsubscribe()
