"""`ids-consumer replay`: captures and logs onto the wire as their sensors would have sent them.

Flows go out in the order in which `scan` takes them, numbered by sensor, with the end of every sensor's input behind
them; so the alerts are scan's. A number that Kafka didn't take is sent again: whoever reads drops repeated numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from ids_plugin import api, config, kafka
from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.options.inputs import (
    InputTally,
    add_input_options,
    exit_code,
    input_options,
    interrupt_reads,
)
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError, UsageError

from .stream.topics import partitions

if TYPE_CHECKING:
    pass

SPEED = re.compile(r"(\d+(?:\.\d+)?|\.\d+)x?")
SLEEP = 0.05
"""Seconds slept at most between two looks at the clock."""
FOREVER_MS = 1 << 30
BLOCKED_MS = 1_000
"""How long one attempt to send waits for room before it is told that Kafka doesn't take more."""
MOST, EACH = 50_000, 997
"""Records under way at most, about, and of how many one is looked at: a prime, or all would be of one partition."""
OPTIONS: dict[str, Any] = {
    "linger_ms": 10,
    "batch_size": 1 << 17,
    "delivery_timeout_ms": FOREVER_MS,
    "max_block_ms": BLOCKED_MS,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `replay`."""
    add_input_options(parser)
    parser.add_argument(
        "--topic", required=True, help="where the records go: one that normalise reads"
    )
    parser.add_argument(
        "--speed",
        default="1x",
        metavar="NX",
        help="1x: as it was, 10x: ten times as fast, max (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, help="partitions at random, the same for the same number; else in turn"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        InputError: no input could be read at all.
        UsageError: an option isn't what it should be.
        ServiceError: Kafka doesn't answer at the start, or takes no such records.
    """
    pace = Pace(_speed(args.speed))
    told = Told(console)
    began = time.monotonic()
    try:
        with Sender(
            config.load(Path(args.config) if args.config else None),
            args.topic,
            args.seed,
            told.waiting,
        ) as sender:
            for batch in _records(args, told):
                for record in pace.given(batch):
                    sender.send(record.sensor, record.value)
                told.progress("sent", len(batch))
            sender.end()
    finally:
        told.progress.close()
    seconds = time.monotonic() - began
    _report(args, console, told, sender, seconds)
    return exit_code(told.unread, args.inputs, console)


class Record(NamedTuple):
    """A flow as its sensor writes it."""

    sensor: str
    known: int
    """µs since the epoch"""
    value: bytes


class Told(InputTally):
    """What the inputs gave beside flows, and what the person who waits is told."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "replay")
        self.console = console
        self._waits = False

    def waiting(self, why: str) -> None:
        """Kafka takes nothing more just now, or again if `why` is empty: said once."""
        if bool(why) != self._waits:
            self.console.complain(f"waiting: {why}" if why else "sending again")
        self._waits = bool(why)


class Pace:
    """Gives records when they are due: as they became known, so many times as fast; at once without a speed."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._start: tuple[float, int] | None = None

    def given(self, records: list[Record]) -> Iterator[Record]:
        """The same records, each not before its time."""
        if self._speed is None:
            yield from records
            return
        for record in records:
            self._start = self._start or (time.monotonic(), record.known)
            due = self._start[0] + (record.known - self._start[1]) / 1e6 / self._speed
            while (left := due - time.monotonic()) > 0:
                time.sleep(min(left, SLEEP))
            yield record


class Sender:
    """Sends numbered records and sees to it that all arrive; waits while Kafka is away."""

    def __init__(
        self, settings: Config, topic: str, seed: int | None, waiting: Callable[[str], None]
    ) -> None:
        """
        Raises:
            ServiceError: Kafka doesn't answer, or there is no such topic.
        """
        self.run = secrets.token_hex(8)
        self.sent: Counter[str] = Counter()
        """numbers given so far, by sensor"""
        self._settings, self._topic, self._waiting = settings, topic, waiting
        self._failed: deque[tuple[Any, Exception]] = deque()
        number = partitions(settings).get(topic)
        if not number:
            raise ServiceError(
                f"there is no topic {topic}", location="kafka", hint="make it, or name another one"
            )
        self._under_way: deque[Any] = deque()
        """every EACHth record that Kafka may not have yet"""
        self._producer = kafka.producer(settings, **OPTIONS)
        chance = Random(seed)
        self._places = (at % number if seed is None else chance.randrange(number) for at in count())

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=0)

    def send(self, sensor: str, value: bytes, *more: tuple[str, bytes]) -> None:
        """One record of a sensor, under its next number."""
        number = self.sent[sensor]
        self.sent[sensor] = number + 1
        headers = [
            ("ids-sensor", sensor.encode()),
            ("ids-seq", f"{self.run}:{number}".encode()),
            *more,
        ]
        future = self._send((value, headers, next(self._places)))
        if number % EACH == 0:
            self._under_way.append(future)
            self._wait_for_room()
        if self._failed:
            self._again()

    def end(self) -> None:
        """Ends the input of every sensor and waits until Kafka has everything."""
        for sensor in sorted(self.sent):
            self.send(sensor, b"", ("ids-end", b"1"))
        while not self._flushed() or self._failed:
            self._again()
        self._waiting("")

    def _wait_for_room(self) -> None:
        """Until few enough records are under way: the client itself takes as many as memory holds."""
        from kafka.errors import KafkaError

        while len(self._under_way) > MOST // EACH:
            with contextlib.suppress(KafkaError):  # it is among those that failed
                self._under_way[0].get(timeout=BLOCKED_MS / 1000)
            self._waiting("" if self._under_way[0].is_done else "Kafka takes no records")
            if self._under_way[0].is_done:
                self._under_way.popleft()

    def _send(self, message: tuple[bytes, list[tuple[str, bytes]], int]) -> Any:
        from kafka.errors import KafkaTimeoutError

        value, headers, partition = message
        while True:
            try:
                future = self._producer.send(
                    self._topic, value, headers=headers, partition=partition
                )
            except KafkaTimeoutError:
                self._waiting("Kafka takes no records")
                continue
            future.add_errback(partial(self._lost, message))
            return future

    def _lost(self, message: Any, error: Exception) -> None:
        self._failed.append((message, error))

    def _again(self) -> None:
        """Sends once more what wasn't taken.

        Raises:
            ServiceError: Kafka will never take it.
        """
        while self._failed:
            message, error = self._failed.popleft()
            if not getattr(error, "retriable", True):
                with kafka.reaching(self._settings):
                    raise error
            self._send(message)

    def _flushed(self) -> bool:
        from kafka.errors import KafkaTimeoutError

        try:
            self._producer.flush(timeout=BLOCKED_MS / 1000)
        except KafkaTimeoutError:
            self._waiting("Kafka takes no records")
            return False
        return True


def _records(args: argparse.Namespace, told: Told) -> Iterator[list[Record]]:
    """All flows of the inputs in the order of scan."""
    from ids_plugin.schema.flow import known
    from ids_plugin.sinks.flow_files import to_json

    options = input_options(args)
    interrupt_reads()
    steps = api.watched(api.read_steps(args.inputs, options), told)
    for flows in api.iter_flows(steps, options):
        for part in flows.iter_slices(10_000):
            times = part.select(known().dt.epoch("us")).to_series()
            lines = to_json(part).split(b"\n")[: part.height]
            yield list(map(Record, part["sensor"], times, lines))


def _speed(text: str) -> float | None:
    """How many times as fast; None: as fast as possible.

    Raises:
        UsageError: it is no speed.
    """
    if text == "max":
        return None
    found = SPEED.fullmatch(text)
    if not found or not float(found[1]):
        raise UsageError(f"--speed {text!r} is no speed", hint="such as 1x, 10x or max")
    return float(found[1])


def _report(
    args: argparse.Namespace, console: Console, told: Told, sender: Sender, seconds: float
) -> None:
    flows = sum(sender.sent.values()) - len(sender.sent)
    if console.json:
        sensors = {sensor: number - 1 for sensor, number in sorted(sender.sent.items())}
        console.result(
            {
                "topic": args.topic,
                "run": sender.run,
                "read": told.records,
                "rejected": told.rejected,
                "out_of_scope": told.out_of_scope,
                "flows": flows,
                "sensors": sensors,
                "seconds": round(seconds, 3),
            }
        )
    sensors_told = counted(len(sender.sent), "sensor")
    console.say(
        f"{counted(flows, 'flow')} of {sensors_told} sent to {args.topic} in {seconds:,.1f} s"
    )


PLUGIN = Command(
    "replay",
    "Send captures and logs onto the wire as their sensors would.",
    "example: ids-consumer replay capture.pcap --topic zeek --speed max --config ids.toml",
    configure,
    run,
)
