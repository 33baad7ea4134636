"""Checkpoints of `detect`: where the state of a partition of `ids.flows` is stored, and recovery.

The state lies in pieces on `ids.state`. A pointer to the pieces is the metadata of the partition's
committed offset. Pieces, alerts and offset are written in one transaction, so that they always fit
each other; the first pieces of a very large state are written in transactions before it. Two sets
of keys (slots) are used in turns: compaction can remove a checkpoint only after its successor was
committed.
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
from .transactions import Offsets, ProducerRecord, TransactionalLoop

if TYPE_CHECKING:
    from kafka import KafkaConsumer
    from kafka.consumer.fetcher import ConsumerRecord
    from kafka.producer.future import RecordMetadata

PIECE_BYTES = 900_000
"""Below the 1 MiB of a record that brokers accept by default."""
MAX_TRANSACTION_PIECES = 20
"""Pieces in one transaction: the broker aborts a transaction that takes more than 10 s."""
RECOVERY_STEP_FLOWS = 4_096
"""Flows processed between two checks for a stop request, about: one batch of the pipeline."""
RECOVERY_READ_TIMEOUT_S = 10.0
"""Time without a record after which the broker is taken to be unreachable."""


@dataclass(frozen=True)
class CheckpointPointer:
    """Where a partition's checkpoint lies. Its JSON is the metadata of the committed offset."""

    offset: int
    """in the partition of flows: the first record that the state doesn't include"""
    bundle: str
    """id of the bundle that scores from there on"""
    partition: int = 0
    """of the topic of states"""
    slot: int = 0
    """which of the two sets of keys the pieces have"""
    first: int = 0
    last: int = 0
    """offsets of the first and the last piece"""
    pieces: int = 0
    """0: there is no checkpoint yet"""
    sha256: str = ""

    def __str__(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def parse(cls, text: str) -> CheckpointPointer | None:
        """The pointer in an offset's metadata; None where there is none."""
        try:
            return cls(**orjson.loads(text)) if text else None
        except (TypeError, ValueError):
            return None


class RevokeListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Calls a function before partitions are revoked, while their offsets can still be
    committed."""

    def __init__(self, on_revoke: Callable[[], None]) -> None:
        self._on_revoke = on_revoke

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Before a rebalance, within `poll`."""
        self._on_revoke()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """`TransactionalLoop.on_reassigned` handles assignments."""

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Lost partitions belong to others already: nothing can be committed for them."""


@dataclass
class PendingCheckpoint:
    """A checkpoint that is being written to the topic of states."""

    pointer: CheckpointPointer
    unsent: list[ProducerRecord]
    """pieces that weren't produced yet"""
    sent: list[RecordMetadata] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        pointer: CheckpointPointer,
        previous: CheckpointPointer,
        topic: str,
        flows_partition: int,
        data: bytes,
    ) -> PendingCheckpoint:
        """Cuts `data` into pieces.

        Args:
            pointer: with the offset, the bundle and the partition of the topic of states.
            previous: where the last checkpoint lies; the new one takes the other slot.
            topic: the topic of states.
            flows_partition: the partition whose state it is.
            data: the state, as `checkpoint.dump` gives it.
        """
        pointer = replace(
            pointer,
            slot=1 - previous.slot,
            pieces=-(-len(data) // PIECE_BYTES),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        pieces = []
        for number, key in enumerate(_piece_keys(pointer, flows_partition)):
            piece = data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
            pieces.append(ProducerRecord(topic, piece, key, partition=pointer.partition))
        return cls(pointer, pieces)

    def send_excess(self, loop: TransactionalLoop) -> None:
        """Produces all but the last pieces, where there are more than a transaction has time for.

        Raises:
            TransactionAborted: they couldn't be produced.
        """
        while len(self.unsent) > MAX_TRANSACTION_PIECES:
            pieces = self.unsent[:MAX_TRANSACTION_PIECES]
            self.unsent = self.unsent[MAX_TRANSACTION_PIECES:]
            loop.commit(pieces, self._note_sent)

    def final_pointer(self, sent: Sequence[RecordMetadata]) -> CheckpointPointer:
        """The pointer to commit, once the last pieces were produced: `sent` begins with them."""
        self._note_sent(sent[: len(self.unsent)])
        return replace(self.pointer, first=self.sent[0].offset, last=self.sent[-1].offset)

    def _note_sent(self, sent: Sequence[RecordMetadata]) -> Offsets:
        self.sent += sent
        return {}


def load_state(
    consumer: KafkaConsumer, topic: str, pointer: CheckpointPointer, flows_partition: int
) -> Any:
    """The state that a pointer names, as `Detector.restore` takes it.

    Args:
        consumer: a consumer in no group; it is assigned the partition of the pieces.
        topic: the topic of states.
        pointer: where the checkpoint lies.
        flows_partition: the partition whose state it is.

    Raises:
        CheckpointError: a piece is missing or damaged.
        ServiceError: the broker does not answer.
    """
    partition = TopicPartition(topic, pointer.partition)
    keys = _piece_keys(pointer, flows_partition)
    pieces = {
        record.key: record.value
        for record in read_range(consumer, partition, pointer.first, pointer.last + 1)
        if record.key in keys
    }
    data = b"".join(pieces.get(key) or b"" for key in keys)
    if hashlib.sha256(data).hexdigest() != pointer.sha256:
        raise CheckpointError(
            "the state isn't there any more",
            location=f"{topic}/{partition.partition}/{pointer.first}",
        )
    return checkpoint.load(data)


def read_range(
    consumer: KafkaConsumer, partition: TopicPartition, start: int, stop: int
) -> Iterator[ConsumerRecord]:
    """The records of a partition from offset `start` to before `stop`.

    Raises:
        ServiceError: the broker does not answer.
    """
    consumer.assign([partition])
    consumer.seek(partition, start)
    last_answer = time.monotonic()
    while consumer.position(partition) < stop:
        records = consumer.poll(500).get(partition, ())
        yield from (record for record in records if record.offset < stop)
        if records:
            last_answer = time.monotonic()
        elif time.monotonic() - last_answer > RECOVERY_READ_TIMEOUT_S:
            raise ServiceError(
                "no answer from Kafka", location=f"{partition.topic}/{partition.partition}/{start}"
            )


def recover(
    detector: Detector,
    config: Config,
    partition: TopicPartition,
    pointer: CheckpointPointer,
    stop: int,
) -> Iterator[str]:
    """Brings a partition's state to where it was before offset `stop`.

    1. The state of the checkpoint is restored. Where it is missing or damaged, everything that the
       partition still holds is read again instead.
    2. The records behind the checkpoint are processed, and their alerts are discarded: they were
       committed before.

    Yields now and then, so that the caller can stop; a text that is not empty is a warning to log.

    Raises:
        ServiceError: the broker does not answer.
    """
    name = f"{partition.topic}/{partition.partition}"
    detector.forget(partition.partition)
    with kafka.consumer(config) as consumer:
        beginning = int(consumer.beginning_offsets([partition])[partition])
        start = pointer.offset
        if pointer.pieces:
            try:
                state = load_state(consumer, config.topics.state, pointer, partition.partition)
                restarted = detector.restore(partition.partition, state)
                if restarted:
                    sensors = ", ".join(restarted)
                    yield f"windows begin anew, another version kept them: {sensors}"
                yield ""
            except CheckpointError as error:
                start = beginning
                yield f"{error}: everything that {name} still has is read again"
        if start < min(beginning, stop) and pointer.pieces:
            yield f"{name} has lost offsets {start} to {beginning - 1}, which the state needs"
        for record in read_range(consumer, partition, max(start, beginning), stop):
            detector.add(record)
            if detector.ready_flows >= RECOVERY_STEP_FLOWS:
                detector.step()
                yield ""
    detector.step()


def _piece_keys(pointer: CheckpointPointer, flows_partition: int) -> list[bytes]:
    return [
        f"{flows_partition}/{pointer.slot}/{number}".encode() for number in range(pointer.pieces)
    ]
