"""Read, work, write, exactly once: what was read is committed in the transaction that holds what became of it.

Anything that goes wrong in a transaction ends the exchange: both clients are thrown away, the broker aborts what wasn't
committed, and the next exchange reads again from the last committed place. So there is one way to go on after an error,
and it is the same as after kill -9.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from kafka import TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import FencedInstanceIdError, KafkaError, ProducerFencedError
from kafka.producer.future import RecordMetadata
from kafka.structs import OffsetAndMetadata

from ids_plugin import kafka
from ids_plugin.errors import ServiceError, UsageError

from ..runtime.service import Service, Stopping

T = TypeVar("T")
Places = Mapping[TopicPartition, OffsetAndMetadata]
AfterSending = Callable[[Sequence[RecordMetadata]], Places]
SLOW = 3.0
"""Seconds after which a transaction that isn't through is told of: the broker must be away."""
LOST = kafka.TRANSACTION_MS / 1000 + 5.0
"""Seconds after which a transaction is given up: the broker has aborted it by then, and a client whose broker was
killed may never notice."""
ANSWER_MS = 5_000
"""How long the broker may take to say what is committed."""
LEAVING = 2.0
"""Seconds that the broker may take to let us go."""
GRACE = 5.0
"""Seconds that a transaction under way is waited for when we are told to stop; it is aborted then."""
PRODUCER = {"linger_ms": 5, "batch_size": 1 << 20, "max_request_size": 1 << 20}


class TransactionAborted(Exception):
    """The transaction wasn't committed: all that was read since the last one has to be read again."""


class Outgoing(NamedTuple):
    """A message to send."""

    topic: str
    value: bytes
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


class TransactionalLoop:
    """A consumer in a group and the transactional producer beside it."""

    def __init__(self, service: Service, group: str, name: str | None, **options: Any) -> None:
        """
        Args:
            service: whose configuration, log and signals these are.
            group: the consumer group; with the instance's name also the transactional id.
            name: this instance, None for the host's name.
            options: of the consumer, over the usual ones.

        Raises:
            ServiceError: the broker doesn't answer, or refuses us.
        """
        self._service, self._who = service, f"{kafka.instance(name)} of {group}"
        self.forget: Callable[[], None] = lambda: None
        """called when partitions were given out anew: what was read and isn't committed will be read again"""
        self._member: Any = None
        """who we were in the group when we read: as somebody else we must not commit it"""
        self._share: Any = None
        """generation, name and partitions: these may become ours after the generation has changed"""
        self.consumer = kafka.consumer(service.config, group, name, **options)
        try:
            self.producer = kafka.producer(service.config, group, name, **PRODUCER)
        except BaseException:
            self.consumer.close(timeout_ms=0)
            raise

    def __enter__(self) -> TransactionalLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the group. What isn't committed is aborted, here or by the broker."""
        with contextlib.suppress(KafkaError):
            self.producer.close(timeout=0)
        with contextlib.suppress(KafkaError):
            self.consumer.close(timeout_ms=1_000)

    def leave(self) -> None:
        """Leaves the group for good, after which the exchange can only be closed: others take over at once, and who
        comes back under our name gets partitions anew. (A static member that only closes keeps its place until the
        session ends; one that rejoins in time keeps its partitions, even if it now wants other topics.) A broker that
        doesn't answer isn't waited for.
        """
        if self._member and self._member.member_id:
            thread = threading.Thread(target=self._leave, daemon=True, name="leave")
            thread.start()
            thread.join(LEAVING)

    def _leave(self) -> None:
        from kafka.admin import MemberToRemove

        member = MemberToRemove(
            member_id=self._member.member_id, group_instance_id=self._member.group_instance_id
        )
        config = self._service.config
        with (
            contextlib.suppress(ServiceError),
            kafka.reaching(config),
            contextlib.closing(kafka.admin(config)) as admin,
        ):
            admin.remove_group_members(self._member.group_id, [member])

    def poll(self, milliseconds: int, most: int) -> dict[TopicPartition, list[Any]]:
        """The next records, at most `most`.

        Raises:
            UsageError: another process took our place in the group.
            TransactionAborted: the group can't be read just now.
        """
        try:
            found = dict(self.consumer.poll(timeout_ms=milliseconds, max_records=most))
            return {} if self._regrouped() else found
        except FencedInstanceIdError as error:
            raise self._taken() from error
        except KafkaError as error:
            raise TransactionAborted(f"can't read: {error or type(error).__name__}") from error

    def _regrouped(self) -> bool:
        """Whether partitions were given out anew since the last poll. kafka-python may do that between two polls, and
        leaves partitions that stay ours where they were read up to: all of them go back to their committed place, and
        what was read and isn't committed is forgotten.
        """
        self._member = self.consumer.group_metadata()
        before, self._share = (
            self._share,
            (self._member.generation_id, self._member.member_id, self.consumer.assignment()),
        )
        if before == self._share:
            return False
        self.forget()
        for partition in self.consumer.assignment():
            committed = self.consumer.committed(partition, timeout_ms=ANSWER_MS)
            if committed is None:
                self.consumer.seek_to_beginning(partition)
            else:
                self.consumer.seek(partition, committed)
        return True

    def commit(self, messages: Iterable[Outgoing], offsets: Places | AfterSending) -> None:
        """Sends messages and commits the places read up to, all of it or nothing; `offsets` may be a function of where
        the messages went.

        Raises:
            TransactionAborted: nothing of it was committed.
            Stopping: we were told to stop and the broker doesn't answer; nothing of it was committed.
            UsageError: another process took our place.
        """
        began = time.monotonic()
        try:
            self._within(lambda: self._commit(messages, offsets))
        except KafkaError as error:
            causes = {
                type(one) for one in (error, *error.args)
            }  # a later request names what an earlier one died of
            outlived = time.monotonic() - began > kafka.TRANSACTION_MS / 1000
            if FencedInstanceIdError in causes or (ProducerFencedError in causes and not outlived):
                raise self._taken() from error
            raise TransactionAborted(
                f"a transaction was aborted: {error or type(error).__name__}"
            ) from error

    def _commit(self, messages: Iterable[Outgoing], offsets: Places | AfterSending) -> None:
        self.producer.begin_transaction()
        sent = [
            self.producer.send(one.topic, one.value, one.key, list(one.headers), one.partition)
            for one in messages
        ]
        if callable(offsets):
            self.producer.flush()
            offsets = offsets([future.get(timeout=0) for future in sent])
        if offsets:
            self.producer.send_offsets_to_transaction(dict(offsets), self._member)
        self.producer.commit_transaction()
        for future in sent:
            future.get(timeout=0)

    def _within(self, do: Callable[[], None]) -> None:
        """Does it in a thread, since the client's waits have no end: told of when slow, left when we have to stop."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                do()
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True, name="transaction")
        thread.start()
        began, stopped = time.monotonic(), 0.0
        thread.join(SLOW)
        slow = thread.is_alive()
        while thread.is_alive():
            self._service.missing(f"no answer from Kafka within {SLOW:.0f} s")
            stopped = stopped or (time.monotonic() if self._service.stopping else 0.0)
            if stopped and time.monotonic() - stopped > GRACE - SLOW:
                raise Stopping
            if time.monotonic() - began > LOST:
                raise TransactionAborted(f"no answer from Kafka within {LOST:.0f} s")
            thread.join(0.2)
        if failed:
            raise failed[0]
        if slow:
            self._service.working()

    def _taken(self) -> UsageError:
        """Nobody else fences a transaction that hasn't outlived its time."""
        return UsageError(
            f"another process calls itself {self._who}",
            hint="give every instance a name of its own",
        )


class Watch(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells of partitions that are taken away; what of them wasn't committed is then somebody else's."""

    def __init__(self, gone: Callable[[Iterable[TopicPartition]], None]) -> None:
        self._gone = gone

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """They go to another member, or back to us from their committed place."""
        self._gone(revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """They are read from their committed place."""

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """We were thrown out of the group."""
        self._gone(lost)
