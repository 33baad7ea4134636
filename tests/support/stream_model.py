"""A small model of a topic and of who reads it: records spread over partitions, read in any order, cut anywhere."""

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
    at: int
    kind: str = "flow"

    @property
    def uid(self) -> str:
        """Names the flow."""
        return f"{self.sensor}/{self.run}/{self.at if self.number is None else self.number}"


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
            taken += [(self.topic.partitions[number][at], number, at) for at in range(start, stop)]
            self.position[number] = stop
        return list(_batches(taken))

    def marks(self, now: int) -> Watermarks:
        """How far it has read: the last record's time, the wall clock at the end."""
        found = {}
        for number in self.owned:
            records, position = self.topic.partitions[number], self.position.get(number, 0)
            if position == len(records):
                found[f"{TOPIC}/{number}"] = now
            elif position:
                found[f"{TOPIC}/{number}"] = max(record.at for record in records[:position])
        return Watermarks(now, {TOPIC: len(self.topic.partitions)}, found)

    @property
    def done(self) -> bool:
        """Everything is read."""
        return all(
            self.position.get(number, 0) == len(self.topic.partitions[number])
            for number in self.owned
        )


def messages(topic: Topic, readers: int, chance: Random, now: int) -> Iterator[Batch | Watermarks]:
    """What `readers` processes write while they read all of a topic, each at its own pace; last the marks of all."""
    owned = [list(range(first, len(topic.partitions), readers)) for first in range(readers)]
    group = [Reader(topic, numbers) for numbers in owned]
    while busy := [reader for reader in group if not reader.done]:
        reader = chance.choice(busy)
        yield from reader.poll(chance, chance.choice([1, 3, 50]))
        if chance.random() < 0.5:
            yield reader.marks(now)
    for reader in group:
        yield reader.marks(now)


def _batches(taken: list[tuple[Record, int, int]]) -> Iterator[Batch]:
    groups: dict[tuple[str, str], list[tuple[Record, int, int]]] = {}
    for one in taken:
        groups.setdefault((one[0].sensor, one[0].run), []).append(one)
    for (sensor, run), mine in groups.items():
        flows = [one for one in mine if one[0].kind == "flow"]
        numbers = {
            kind: [r.number for r, _, _ in mine if r.kind == kind and r.number is not None]
            for kind in KINDS
        }
        since = min(record.at for record, _, _ in mine)
        holes = [(number, number) for number in numbers["hole"]]
        yield Batch(
            sensor, TOPIC, run, rows(flows), since, holes, max(numbers["end"], default=None)
        )


KINDS = ("flow", "hole", "end")


def rows(records: Sequence[tuple[Record, int, int]]) -> pl.DataFrame:
    """Flows of (record, partition, offset), with the columns of WIRE."""
    made = []
    for record, partition, offset in records:
        flow = factories.flow(record.at / 1000, sensor=record.sensor, uid=record.uid)
        made.append(
            flow | {"seq": record.number, "at": record.at, "partition": partition, "offset": offset}
        )
    frame = pl.DataFrame(
        [{name: one[name] for name in (*SCHEMA, *EXTRA)} for one in made], infer_schema_length=None
    )
    return (
        frame.select(pl.col(name).cast(dtype) for name, dtype in WIRE.items())
        if made
        else pl.DataFrame(schema=WIRE)
    )
