"""The transactional consume–produce loop: records are read, processed and written exactly once.

The offsets of the records that were read are committed in the transaction that holds the records
produced from them. An error in a transaction ends the loop: both clients are discarded, the broker
aborts what was not committed, and the next loop reads again from the last committed offsets.
Recovery after an error is therefore the same as recovery after `kill -9`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.admin import MemberToRemove
from kafka.errors import FencedInstanceIdError, KafkaError, ProducerFencedError
from kafka.producer.future import RecordMetadata
from kafka.structs import OffsetAndMetadata

from ids_plugin import kafka
from ids_plugin.errors import ServiceError, UsageError

from ..runtime.service import Service, StopRequested

Offsets = Mapping[TopicPartition, OffsetAndMetadata]
"""Partition → the next offset to read, with the metadata that is committed beside it."""
OffsetsAfterSend = Callable[[Sequence[RecordMetadata]], Offsets]
"""Makes the offsets once it is known where the produced records lie."""
TRANSACTION_WARN_S = 3.0
"""A transaction that takes longer is reported: the broker is probably unreachable."""
TRANSACTION_TIMEOUT_S = kafka.TRANSACTION_MS / 1000 + 5.0
"""A transaction that takes longer is given up: the broker has aborted it by then, and a client
whose broker was killed may never notice."""
COMMITTED_OFFSET_TIMEOUT_MS = 5_000
"""How long the broker may take to return a committed offset; half of a member's session."""
LEAVE_GROUP_TIMEOUT_S = 2.0
"""How long the broker may take to remove us from the group when the process ends."""
RESTART_DELAY_S = 0.5
"""Pause before a new loop begins after an aborted transaction."""
STOP_GRACE_S = 5.0
"""How long an open transaction may go on after a stop was requested; then it is aborted."""
PRODUCER_OPTIONS = {"linger_ms": 5, "batch_size": 1 << 20, "max_request_size": 1 << 20}
"""One request carries a whole transaction in most cases; 1 MiB is what brokers accept by
default."""


class TransactionAborted(Exception):
    """The transaction was not committed: everything read since the last one has to be read
    again."""


class ProducerRecord(NamedTuple):
    """A record to produce."""

    topic: str
    value: bytes
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


class TransactionalLoop:
    """A member of a consumer group and the transactional producer that commits for it."""

    def __init__(self, service: Service, group: str, name: str | None, **options: Any) -> None:
        """
        Args:
            service: its configuration, log and stop signal are used.
            group: the consumer group; with the instance's name also the transactional id.
            name: name of this instance; None for the host's name.
            options: options of the KafkaConsumer, over the usual ones.

        Raises:
            ServiceError: the broker does not answer, or refuses access.
        """
        self._service, self._member_name = service, f"{kafka.instance(name)} of {group}"
        self.on_reassigned: Callable[[], None] = lambda: None
        """called when partitions were assigned anew: records that were read and are not committed
        will be read again"""
        self._group_metadata: Any = None
        """our membership when we read: with another one these records must not be committed"""
        self._assignment: Any = None
        """generation, member id and partitions; partitions can change after the generation did"""
        self.consumer = kafka.consumer(service.config, group, name, **options)
        try:
            self.producer = kafka.producer(service.config, group, name, **PRODUCER_OPTIONS)
        except BaseException:
            self.consumer.close(timeout_ms=0)
            raise

    def __enter__(self) -> TransactionalLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes both clients. An open transaction is aborted, here or by the broker."""
        with contextlib.suppress(KafkaError):
            self.producer.close(timeout=0)
        with contextlib.suppress(KafkaError):
            self.consumer.close(timeout_ms=1_000)

    def leave_group(self) -> None:
        """Leaves the consumer group for good; afterwards the loop can only be closed.

        Other members take over at once, and a later process of the same name is assigned partitions
        anew. (A static member that is only closed keeps its partitions until the session ends; if
        it rejoins in time it keeps them even where it subscribes to other topics.) A broker that
        does not answer within LEAVE_GROUP_TIMEOUT_S is not waited for.
        """
        if self._group_metadata and self._group_metadata.member_id:
            thread = threading.Thread(target=self._remove_member, daemon=True, name="leave")
            thread.start()
            thread.join(LEAVE_GROUP_TIMEOUT_S)

    def _remove_member(self) -> None:
        member = MemberToRemove(
            member_id=self._group_metadata.member_id,
            group_instance_id=self._group_metadata.group_instance_id,
        )
        config = self._service.config
        with (
            contextlib.suppress(ServiceError),
            kafka.reaching(config),
            contextlib.closing(kafka.admin(config)) as admin,
        ):
            admin.remove_group_members(self._group_metadata.group_id, [member])

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        """The next records by partition, in the order of their offsets.

        Raises:
            UsageError: another process took our place in the group.
            TransactionAborted: the group can't be read at the moment.
        """
        try:
            records = dict(self.consumer.poll(timeout_ms=timeout_ms, max_records=max_records))
            return {} if self._reset_if_reassigned() else records
        except FencedInstanceIdError as error:
            raise self._name_taken() from error
        except KafkaError as error:
            raise TransactionAborted(f"can't read: {error or type(error).__name__}") from error

    def _reset_if_reassigned(self) -> bool:
        """Whether partitions were assigned anew since the last poll.

        kafka-python may rebalance between two polls, and leaves the position of partitions that
        stay ours where it was. Here all of them go back to their committed offset, and records that
        were read and are not committed are dropped.
        """
        self._group_metadata = member = self.consumer.group_metadata()
        assignment = (member.generation_id, member.member_id, self.consumer.assignment())
        if assignment == self._assignment:
            return False
        self._assignment = assignment
        self.on_reassigned()
        for partition in self.consumer.assignment():
            committed = self.consumer.committed(partition, timeout_ms=COMMITTED_OFFSET_TIMEOUT_MS)
            if committed is None:
                self.consumer.seek_to_beginning(partition)
            else:
                self.consumer.seek(partition, committed)
        return True

    def commit(
        self, records: Iterable[ProducerRecord], offsets: Offsets | OffsetsAfterSend
    ) -> None:
        """Produces records and commits offsets in one transaction: all of it, or nothing.

        The order of the steps:

        1. The transaction begins.
        2. All records are handed to the producer, which sends them in the background.
        3. Where `offsets` is a function, the producer is flushed and the function is called with
           the places of the records: a checkpoint's pointer names the offsets of its pieces.
        4. The consumer's offsets are added to the transaction, under the membership with which the
           records were read. Offsets come last: an error in any step before leaves them where they
           were, and the records are read again.
        5. The transaction is committed: readers of `read_committed` see everything at once.

        Raises:
            TransactionAborted: nothing was committed.
            StopRequested: a stop was requested and the broker does not answer; nothing was
                committed.
            UsageError: another process took our place.
        """
        began = time.monotonic()
        try:
            self._run_with_timeout(lambda: self._commit(records, offsets))
        except KafkaError as error:
            # the error of a later request names the one that ended the transaction in its args
            causes = {type(cause) for cause in (error, *error.args)}
            is_outlived = time.monotonic() - began > kafka.TRANSACTION_MS / 1000
            is_fenced = ProducerFencedError in causes and not is_outlived
            if FencedInstanceIdError in causes or is_fenced:
                raise self._name_taken() from error
            raise TransactionAborted(
                f"a transaction was aborted: {error or type(error).__name__}"
            ) from error

    def _commit(
        self, records: Iterable[ProducerRecord], offsets: Offsets | OffsetsAfterSend
    ) -> None:
        """The steps of `commit`."""
        self.producer.begin_transaction()
        futures = [
            self.producer.send(
                record.topic, record.value, record.key, list(record.headers), record.partition
            )
            for record in records
        ]
        if callable(offsets):
            self.producer.flush()
            offsets = offsets([future.get(timeout=0) for future in futures])
        if offsets:
            self.producer.send_offsets_to_transaction(dict(offsets), self._group_metadata)
        self.producer.commit_transaction()
        for future in futures:
            future.get(timeout=0)

    def _run_with_timeout(self, transaction: Callable[[], None]) -> None:
        """Runs a transaction in a thread, because waits of kafka-python's producer have no end.

        A slow transaction is reported; it is abandoned after TRANSACTION_TIMEOUT_S, or when the
        process has to stop.
        """
        errors: list[BaseException] = []

        def run() -> None:
            try:
                transaction()
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True, name="transaction")
        thread.start()
        began, stop_seen = time.monotonic(), 0.0
        thread.join(TRANSACTION_WARN_S)
        is_slow = thread.is_alive()
        while thread.is_alive():
            self._service.mark_unready(f"no answer from Kafka within {TRANSACTION_WARN_S:.0f} s")
            if self._service.is_stopping and not stop_seen:
                stop_seen = time.monotonic()
            if stop_seen and time.monotonic() - stop_seen > STOP_GRACE_S - TRANSACTION_WARN_S:
                raise StopRequested
            if time.monotonic() - began > TRANSACTION_TIMEOUT_S:
                raise TransactionAborted(
                    f"no answer from Kafka within {TRANSACTION_TIMEOUT_S:.0f} s"
                )
            thread.join(0.2)
        if errors:
            raise errors[0]
        if is_slow:
            self._service.mark_ready()

    def _name_taken(self) -> UsageError:
        """Only a process of the same name fences a transaction that has not timed out."""
        return UsageError(
            f"another process calls itself {self._member_name}",
            hint="give every instance a name of its own",
        )


def run_until_stopped(
    service: Service,
    connect: Callable[[], TransactionalLoop],
    consume: Callable[[TransactionalLoop], None],
) -> None:
    """Gives `consume` one loop after the other until a stop is requested.

    Args:
        service: whose stop signal ends it.
        connect: makes a loop; it is repeated while it raises ServiceError.
        consume: works until a stop is requested, or raises TransactionAborted, after which it is
            called with a new loop.

    Raises:
        StopRequested: a stop was requested while a service was waited for.
        UsageError: another process took our place.
    """
    while not service.is_stopping:
        with service.retry(connect) as loop:
            try:
                consume(loop)
            except TransactionAborted as error:
                service.mark_unready(str(error))
                service.wait(RESTART_DELAY_S)


def next_offsets(records: Mapping[TopicPartition, Sequence[Any]]) -> Offsets:
    """The offsets to commit once these records (kafka-python's ConsumerRecords) were processed."""
    return {
        partition: OffsetAndMetadata(of_partition[-1].offset + 1, "", of_partition[-1].leader_epoch)
        for partition, of_partition in records.items()
    }


def require_topics(existing: Iterable[str], needed: Iterable[str]) -> None:
    """
    Raises:
        ServiceError: topics are missing; `ids-plugin setup kafka` makes them.
    """
    missing = sorted(set(needed) - set(existing))
    if missing:
        raise ServiceError(
            f"topics are missing: {', '.join(missing)}",
            location="kafka",
            hint="ids-plugin setup kafka makes them",
        )
