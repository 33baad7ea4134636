"""Where the state of a partition of `ids.flows` is kept: in pieces on `ids.state`, found through the committed offset.

A pointer to the pieces stands in the metadata of the partition's committed offset. Pieces, alerts and offset are
written in one transaction, so that they always fit each other; those of a very large state partly in transactions
before it. Two states take turns in their keys: the one before outlives the one that isn't committed yet.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson
from kafka import TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener

from ids_plugin import checkpoint, kafka
from ids_plugin.config import Config
from ids_plugin.errors import CheckpointError, ServiceError

from .detector import Detector
from .transactions import Outgoing, Places, TransactionalLoop

if TYPE_CHECKING:
    from kafka import KafkaConsumer
    from kafka.consumer.fetcher import ConsumerRecord
    from kafka.producer.future import RecordMetadata

PIECE = 900_000
"""bytes of a piece: below what a broker takes by default"""
AT_ONCE = 20
"""pieces in a transaction at most: the broker aborts one that takes more than 10 s"""
SILENT = 4_096
"""flows that are taken up again between two looks at whether to stop, about"""
PATIENCE = 10.0
"""seconds without a record after which the broker is taken to be away"""


@dataclass(frozen=True)
class Pointer:
    """What is known of a partition's state."""

    offset: int
    """of the partition: the first message that the state doesn't know"""
    bundle: str
    """id of the bundle that judges from there on"""
    partition: int = 0
    """of the topic of states"""
    slot: int = 0
    """which of the two keys its pieces have"""
    first: int = 0
    last: int = 0
    """offsets of the first and the last piece"""
    pieces: int = 0
    """0: nothing is known yet"""
    sha256: str = ""

    def __str__(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def parse(cls, text: str) -> Pointer | None:
        """The pointer that stands in an offset's metadata; None where none does."""
        try:
            return cls(**orjson.loads(text)) if text else None
        except (TypeError, ValueError):
            return None


class Revoked(ConsumerRebalanceListener):  # type: ignore[misc]
    """Does something while partitions that go to others are still ours."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do = do

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Before a rebalance, within `poll`."""
        self._do()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """`TransactionalLoop.forget` tells of it."""

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """They are others' already."""


@dataclass
class Keeping:
    """A state on its way to the topic of states."""

    pointer: Pointer
    data: bytes
    rest: list[Outgoing]
    """pieces that weren't sent yet"""
    sent: list[RecordMetadata] = field(default_factory=list)

    @classmethod
    def of(
        cls, pointer: Pointer, before: Pointer, topic: str, flows_partition: int, data: bytes
    ) -> Keeping:
        """`pointer` says where it will lie, `before` where the last one does."""
        told = replace(
            pointer,
            slot=1 - before.slot,
            pieces=-(-len(data) // PIECE),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        rest = [
            Outgoing(
                topic, data[number * PIECE : (number + 1) * PIECE], key, partition=pointer.partition
            )
            for number, key in enumerate(_keys(told, flows_partition))
        ]
        return cls(told, data, rest)

    def send_most(self, exchange: TransactionalLoop) -> None:
        """Sends all but the last pieces, when they are more than a transaction has time for.

        Raises:
            TransactionAborted: they couldn't be sent.
        """
        while len(self.rest) > AT_ONCE:
            some, self.rest = self.rest[:AT_ONCE], self.rest[AT_ONCE:]
            exchange.commit(some, self._note)

    def kept(self, sent: Sequence[RecordMetadata]) -> Pointer:
        """The pointer, once the rest was sent: `sent` begins with it."""
        self._note(sent[: len(self.rest)])
        return replace(self.pointer, first=self.sent[0].offset, last=self.sent[-1].offset)

    def _note(self, sent: Sequence[RecordMetadata]) -> Places:
        self.sent += sent
        return {}


def read(reader: KafkaConsumer, topic: str, pointer: Pointer, flows_partition: int) -> Any:
    """The state that a pointer names. `reader` is in no group, and is assigned anew.

    Raises:
        CheckpointError: it isn't there any more, or damaged.
        ServiceError: the broker doesn't answer.
    """
    place = TopicPartition(topic, pointer.partition)
    keys = _keys(pointer, flows_partition)
    found = {
        one.key: one.value
        for one in between(reader, place, pointer.first, pointer.last + 1)
        if one.key in keys
    }
    data = b"".join(found.get(key) or b"" for key in keys)
    if hashlib.sha256(data).hexdigest() != pointer.sha256:
        raise CheckpointError(
            "the state isn't there any more", location=f"{topic}/{place.partition}/{pointer.first}"
        )
    return checkpoint.load(data)


def between(
    reader: KafkaConsumer, place: TopicPartition, start: int, stop: int
) -> Iterator[ConsumerRecord]:
    """The records of a partition from offset `start` to before `stop`.

    Raises:
        ServiceError: the broker doesn't answer.
    """
    reader.assign([place])
    reader.seek(place, start)
    last = time.monotonic()
    while reader.position(place) < stop:
        records = reader.poll(500).get(place, ())
        yield from (record for record in records if record.offset < stop)
        if records:
            last = time.monotonic()
        elif time.monotonic() - last > PATIENCE:
            raise ServiceError(
                "no answer from Kafka", location=f"{place.topic}/{place.partition}/{start}"
            )


def go_on(
    detector: Detector, config: Config, place: TopicPartition, at: Pointer, stop: int
) -> Iterator[str]:
    """Brings a partition's state to where it was before offset `stop`: the snapshot `at`, then what came behind it,
    silently. Yields now and then, and what is to be said.

    Raises:
        ServiceError: the broker doesn't answer.
    """
    detector.forget(place.partition)
    with kafka.consumer(config) as reader:
        begin = int(reader.beginning_offsets([place])[place])
        start = at.offset
        if at.pieces:
            try:
                anew = detector.restore(
                    place.partition, read(reader, config.topics.state, at, place.partition)
                )
                yield (
                    f"windows begin anew, another version kept them: {', '.join(anew)}"
                    if anew
                    else ""
                )
            except CheckpointError as error:
                start = begin
                yield f"{error}: everything that {place.topic}/{place.partition} still has is read again"
        if start < min(begin, stop) and at.pieces:
            yield f"{place.topic}/{place.partition} has lost offsets {start} to {begin - 1}, which the state needs"
        for record in between(reader, place, max(start, begin), stop):
            detector.take(record)
            if detector.waiting >= SILENT:
                detector.step()
                yield ""
    detector.step()


def _keys(pointer: Pointer, flows_partition: int) -> list[bytes]:
    return [
        f"{flows_partition}/{pointer.slot}/{number}".encode() for number in range(pointer.pieces)
    ]
