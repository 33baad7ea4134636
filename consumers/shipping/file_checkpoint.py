"""How far `ship` has sent its files, on a compacted topic.

The offsets of the files are written in the transaction that holds their lines.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from kafka import TopicPartition

from ids_plugin import kafka
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError

from ..stream.transactions import ProducerRecord, TransactionalLoop
from .tail import FileOffset

READ_TIMEOUT_S = 30.0
"""How long the topic may take to be read to its end: open transactions of others end within ten
seconds."""


@dataclass
class FileCheckpoint:
    """What one instance remembers of the files that it sends to one topic."""

    owner: str
    """group and instance; the key of its records begins with it"""
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    """of the sequence headers"""
    sent: int = 0
    """messages so far, over all restarts: the next one's number"""
    since: dict[str, float] = field(default_factory=dict)
    """glob → since when it is followed, seconds since 1970"""
    offsets: dict[int, FileOffset] = field(default_factory=dict)

    def records(self, topic: str, changes: Mapping[int, FileOffset | None]) -> list[ProducerRecord]:
        """The records that store the checkpoint, after these changes of offsets (None:
        forgotten)."""
        header = {"run": self.run, "sent": self.sent, "since": self.since}
        records = [ProducerRecord(topic, orjson.dumps(header), self.owner.encode())]
        for number, offset in changes.items():
            value = asdict(offset) if offset else None
            key = f"{self.owner}#{number}".encode()
            records.append(ProducerRecord(topic, orjson.dumps(value), key))
        return records

    def apply(self, key: str, value: dict[str, Any] | None) -> None:
        """Takes a record of the topic; those of other instances are ignored."""
        owner, _, number = key.rpartition("#") if "#" in key else (key, "", "")
        if owner != self.owner:
            return
        if not number and value:
            self.run, self.sent, self.since = value["run"], value["sent"], value["since"]
        elif value:
            self.offsets[int(number)] = FileOffset(**value)
        elif number:
            self.offsets.pop(int(number), None)


def load_file_checkpoint(loop: TransactionalLoop, config: Config, owner: str) -> FileCheckpoint:
    """What was committed. The loop's producer has ended any transaction of the process before.

    Raises:
        ServiceError: the topic is missing, or the broker does not answer.
    """
    stored = FileCheckpoint(owner)
    replay_checkpoints(loop, config, stored.apply)
    return stored


def replay_checkpoints(
    loop: TransactionalLoop, config: Config, apply: Callable[[str, dict[str, Any] | None], None]
) -> None:
    """Gives the key and the value of every record of the topic to `apply`, in order.

    Raises:
        ServiceError: the topic is missing, or can't be read to its end.
    """
    topic, consumer = config.topics.places, loop.consumer
    with kafka.reaching(config):
        numbers = consumer.partitions_for_topic(topic) or set()
        if not numbers:
            raise ServiceError(
                f"topic {topic} is missing",
                location="kafka",
                hint="ids-plugin setup kafka makes it",
            )
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        with kafka.consumer(config, isolation_level="read_uncommitted") as uncommitted:
            ends = uncommitted.end_offsets(partitions)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        deadline = time.monotonic() + READ_TIMEOUT_S
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            if time.monotonic() > deadline:
                raise ServiceError(f"topic {topic} can't be read to its end", location="kafka")
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    apply(record.key.decode(), orjson.loads(record.value))
        consumer.unsubscribe()
