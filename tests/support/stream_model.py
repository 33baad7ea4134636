"""A small model of a topic and of who reads it: records spread over partitions, read in any order,
cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import polars as pl

from ids_plugin.schema.flow import SCHEMA
from ids_plugin.sources.flow_batches import EXTRA, WIRE, Batch, Watermarks
from tests.support import factories

TOPIC = "zeek"


@dataclass(frozen=True)
class Record:
    """What a sensor sent; a hole gives no flow, an end mark ends the run."""

    sensor: str
    run: str
    number: int | None
    time: int
    """ms"""
    kind: str = "flow"

    @property
    def uid(self) -> str:
        """Names the flow."""
        return f"{self.sensor}/{self.run}/{self.time if self.number is None else self.number}"


@dataclass
class Topic:
    """Partitions of records; an offset is an index."""

    partitions: list[list[Record]]

    @classmethod
    def spread(cls, records: Sequence[Record], partitions: int, chance: Random) -> Topic:
        """Records, in the order they were sent, over partitions at random."""
        topic = cls([[] for _ in range(partitions)])
        for record in records:
            topic.partitions[chance.randrange(partitions)].append(record)
        return topic


@dataclass
class Reader:
    """One process that reads some of the partitions."""

    topic: Topic
    owned: list[int]
    position: dict[int, int] = field(default_factory=dict)

    def poll(self, chance: Random, most: int) -> list[Batch]:
        """Batches of the next records of some of its partitions."""
        taken: list[tuple[Record, int, int]] = []
        for number in self.owned:
            start = self.position.get(number, 0)
            stop = min(len(self.topic.partitions[number]), start + chance.randint(0, most))
            taken += [
                (self.topic.partitions[number][offset], number, offset)
                for offset in range(start, stop)
            ]
            self.position[number] = stop
        return list(_batches(taken))

    def watermarks(self, now: int) -> Watermarks:
        """How far it has read: the last record's time, the wall clock at the end."""
        read_up_to = {}
        for number in self.owned:
            records, position = self.topic.partitions[number], self.position.get(number, 0)
            if position == len(records):
                read_up_to[f"{TOPIC}/{number}"] = now
            elif position:
                read_up_to[f"{TOPIC}/{number}"] = max(record.time for record in records[:position])
        return Watermarks(now, {TOPIC: len(self.topic.partitions)}, read_up_to)

    @property
    def done(self) -> bool:
        """Everything is read."""
        return all(
            self.position.get(number, 0) == len(self.topic.partitions[number])
            for number in self.owned
        )


def messages(topic: Topic, readers: int, chance: Random, now: int) -> Iterator[Batch | Watermarks]:
    """What `readers` processes write while they read all of a topic, each at its own pace; last the
    watermarks of all."""
    owned = [list(range(first, len(topic.partitions), readers)) for first in range(readers)]
    group = [Reader(topic, numbers) for numbers in owned]
    while busy := [reader for reader in group if not reader.done]:
        reader = chance.choice(busy)
        yield from reader.poll(chance, chance.choice([1, 3, 50]))
        if chance.random() < 0.5:
            yield reader.watermarks(now)
    for reader in group:
        yield reader.watermarks(now)


def _batches(taken: list[tuple[Record, int, int]]) -> Iterator[Batch]:
    groups: dict[tuple[str, str], list[tuple[Record, int, int]]] = {}
    for record, partition, offset in taken:
        group = groups.setdefault((record.sensor, record.run), [])
        group.append((record, partition, offset))
    for (sensor, run), members in groups.items():
        flows = [member for member in members if member[0].kind == "flow"]
        numbers = {
            kind: [r.number for r, _, _ in members if r.kind == kind and r.number is not None]
            for kind in KINDS
        }
        since = min(record.time for record, _, _ in members)
        holes = [(number, number) for number in numbers["hole"]]
        yield Batch(
            sensor, TOPIC, run, rows(flows), since, holes, max(numbers["end"], default=None)
        )


KINDS = ("flow", "hole", "end")


def rows(records: Sequence[tuple[Record, int, int]]) -> pl.DataFrame:
    """Flows of (record, partition, offset), with the columns of WIRE."""
    made = []
    for record, partition, offset in records:
        flow = factories.flow(record.time / 1000, sensor=record.sensor, uid=record.uid)
        made.append(
            flow
            | {"seq": record.number, "at": record.time, "partition": partition, "offset": offset}
        )
    frame = pl.DataFrame(
        [{name: row[name] for name in (*SCHEMA, *EXTRA)} for row in made], infer_schema_length=None
    )
    return (
        frame.select(pl.col(name).cast(dtype) for name, dtype in WIRE.items())
        if made
        else pl.DataFrame(schema=WIRE)
    )
