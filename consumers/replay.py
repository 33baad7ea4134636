"""The process of `ids-consumer replay`: captures and logs → a topic, as sensors would send them.

Flows are sent in the order in which `scan` takes them, numbered by sensor, with the end of every
sensor's input behind them; so the alerts are those of scan. A record that Kafka didn't accept is
sent again under its number: readers drop repeated numbers.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from random import Random
from typing import Any, NamedTuple

from kafka.errors import KafkaError, KafkaTimeoutError

from ids_plugin import api, kafka
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError
from ids_plugin.schema.flow import known
from ids_plugin.sinks.flow_files import to_json
from ids_plugin.sources import Read

from .stream.topics import partition_counts

MAX_SLEEP_S = 0.05
"""Longest pause while a record is not due: Ctrl-C is noticed in between."""
MAX_BLOCK_MS = 1_000
"""How long one attempt to send waits for room in the producer before the wait is reported."""
DELIVERY_TIMEOUT_MS = 1 << 30
"""Twelve days: a record is retried until Kafka accepts it."""
MAX_IN_FLIGHT_RECORDS = 50_000
"""Records that Kafka may not have yet, about: the producer itself would fill the memory."""
SAMPLED_RECORDS = 997
"""One of so many records is watched; a prime, or all of them would be of the same partition."""
SLICE_ROWS = 10_000
"""Flows turned into JSON at once."""
PRODUCER_OPTIONS: dict[str, Any] = {
    "linger_ms": 10,
    "batch_size": 1 << 17,
    "delivery_timeout_ms": DELIVERY_TIMEOUT_MS,
    "max_block_ms": MAX_BLOCK_MS,
}


@dataclass(frozen=True)
class ReplayOptions:
    """What is replayed, and where its records go."""

    topic: str
    inputs: tuple[str, ...]
    reading: api.InputOptions
    speed: float | None = 1.0
    """how many times as fast as it was; None: as fast as possible"""
    seed: int | None = None
    """chooses partitions at random; None: in turns"""


class Replayed(NamedTuple):
    """What was sent."""

    run: str
    """of the sequence headers"""
    flows: dict[str, int]
    """sensor → number of its flows"""
    seconds: float


class FlowRecord(NamedTuple):
    """A flow as its sensor writes it."""

    sensor: str
    known: int
    """µs since the epoch"""
    value: bytes


class Message(NamedTuple):
    """A record as it is handed to the producer."""

    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int


def replay(
    options: ReplayOptions,
    settings: Config,
    watch: Callable[[Read], None],
    progress: Callable[[str, int], None],
    on_wait: Callable[[str], None],
) -> Replayed:
    """Sends all flows of the inputs, and the end of every sensor's input.

    Args:
        options: what is replayed, and where it goes.
        settings: where the broker is.
        watch: called with each step of reading.
        progress: called with a stage and how many records more it has done.
        on_wait: called with the reason while Kafka takes no records; with "" when it does.

    Raises:
        InputError: no input could be read at all.
        ServiceError: Kafka doesn't answer at the start, or takes no such records.
    """
    began = time.monotonic()
    pacer = Pacer(options.speed)
    with NumberedSender(settings, options.topic, options.seed, on_wait) as sender:
        for records in _flow_records(options, watch):
            for record in pacer.paced(records):
                sender.send(record.sensor, record.value)
            progress("sent", len(records))
        flows = dict(sender.next_numbers)
        sender.finish()
    return Replayed(sender.run, flows, time.monotonic() - began)


class Pacer:
    """Yields records when they are due: as they became known, so many times as fast; without a
    speed at once."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._start: tuple[float, int] | None = None
        """monotonic clock (s) and known time (µs) of the first record"""

    def paced(self, records: list[FlowRecord]) -> Iterator[FlowRecord]:
        """The same records, each not before its time."""
        if self._speed is None:
            yield from records
            return
        for record in records:
            self._start = self._start or (time.monotonic(), record.known)
            due = self._start[0] + (record.known - self._start[1]) / 1e6 / self._speed
            while (left := due - time.monotonic()) > 0:
                time.sleep(min(left, MAX_SLEEP_S))
            yield record


class NumberedSender:
    """Sends numbered records until Kafka has accepted all of them; waits while it does not
    answer."""

    def __init__(
        self, settings: Config, topic: str, seed: int | None, on_wait: Callable[[str], None]
    ) -> None:
        """
        Raises:
            ServiceError: Kafka doesn't answer, or there is no such topic.
        """
        self.run = secrets.token_hex(8)
        self.next_numbers: Counter[str] = Counter()
        """sensor → number of its next record"""
        self._settings, self._topic, self._on_wait = settings, topic, on_wait
        self._failed: deque[tuple[Message, Exception]] = deque()
        partitions = partition_counts(settings).get(topic)
        if not partitions:
            raise ServiceError(
                f"there is no topic {topic}", location="kafka", hint="make it, or name another one"
            )
        self._in_flight: deque[Any] = deque()
        """futures of the watched records that Kafka may not have yet"""
        self._producer = kafka.producer(settings, **PRODUCER_OPTIONS)
        self._partitions = _partitions(partitions, seed)

    def __enter__(self) -> NumberedSender:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=0)

    def send(self, sensor: str, value: bytes, *further_headers: tuple[str, bytes]) -> None:
        """Sends one record of a sensor, under its next number."""
        number = self.next_numbers[sensor]
        self.next_numbers[sensor] = number + 1
        headers = [
            ("ids-sensor", sensor.encode()),
            ("ids-seq", f"{self.run}:{number}".encode()),
            *further_headers,
        ]
        future = self._produce(Message(value, headers, next(self._partitions)))
        if number % SAMPLED_RECORDS == 0:
            self._in_flight.append(future)
            self._wait_for_room()
        if self._failed:
            self._resend_failed()

    def finish(self) -> None:
        """Ends the input of every sensor, and waits until Kafka has everything."""
        for sensor in sorted(self.next_numbers):
            self.send(sensor, b"", ("ids-end", b"1"))
        while not self._flush() or self._failed:
            self._resend_failed()
        self._on_wait("")

    def _wait_for_room(self) -> None:
        """Waits until few enough records are in flight."""
        while len(self._in_flight) > MAX_IN_FLIGHT_RECORDS // SAMPLED_RECORDS:
            oldest = self._in_flight[0]
            with contextlib.suppress(KafkaError):  # a failed record is in self._failed
                oldest.get(timeout=MAX_BLOCK_MS / 1000)
            self._on_wait("" if oldest.is_done else "Kafka takes no records")
            if oldest.is_done:
                self._in_flight.popleft()

    def _produce(self, message: Message) -> Any:
        """Hands a message to the producer; its future."""
        while True:
            try:
                future = self._producer.send(
                    self._topic,
                    message.value,
                    headers=message.headers,
                    partition=message.partition,
                )
            except KafkaTimeoutError:
                self._on_wait("Kafka takes no records")
                continue
            future.add_errback(partial(self._note_failure, message))
            return future

    def _note_failure(self, message: Message, error: Exception) -> None:
        self._failed.append((message, error))

    def _resend_failed(self) -> None:
        """Sends what wasn't accepted once more.

        Raises:
            ServiceError: Kafka will never accept it.
        """
        while self._failed:
            message, error = self._failed.popleft()
            if not getattr(error, "retriable", True):
                with kafka.reaching(self._settings):
                    raise error
            self._produce(message)

    def _flush(self) -> bool:
        """Whether everything was answered within MAX_BLOCK_MS."""
        try:
            self._producer.flush(timeout=MAX_BLOCK_MS / 1000)
        except KafkaTimeoutError:
            self._on_wait("Kafka takes no records")
            return False
        return True


def _partitions(partitions: int, seed: int | None) -> Iterator[int]:
    """Partitions in turns; at random with a seed."""
    random = Random(seed)
    for number in count():
        yield number % partitions if seed is None else random.randrange(partitions)


def _flow_records(
    options: ReplayOptions, watch: Callable[[Read], None]
) -> Iterator[list[FlowRecord]]:
    """All flows of the inputs in the order of scan."""
    steps = api.watched(api.read_steps(options.inputs, options.reading), watch)
    for flows in api.iter_flows(steps, options.reading):
        for part in flows.iter_slices(SLICE_ROWS):
            times = part.select(known().dt.epoch("us")).to_series()
            lines = to_json(part).split(b"\n")[: part.height]
            yield list(map(FlowRecord, part["sensor"], times, lines))
