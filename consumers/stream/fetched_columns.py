"""Fetched messages by columns instead of one object each: a fraction of the time kafka-python takes for them.

kafka-python unpacks a record batch (message format 2) record by record in Python. Here a batch goes through it as one
record whose value is the batch's body, and all bodies of a poll are unpacked together. What belongs to whole batches,
checksums, aborted transactions and offsets, stays with kafka-python. Batches of older formats come record by record.
https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError

Int64s = npt.NDArray[np.int64]
Header = tuple[str, bytes]


@dataclass(slots=True)
class Columns:
    """Messages of one partition, one entry a message in each."""

    offsets: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    """ms since the epoch, -1 for none"""
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Sequence[Header]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)

    def extend(self, more: Columns) -> None:
        """Puts other messages behind these."""
        self.offsets += more.offsets
        self.times += more.times
        self.values += more.values
        self.headers += more.headers

    def only(self, chosen: Sequence[int]) -> Columns:
        """Some of them, by their indices."""
        return Columns(
            [self.offsets[at] for at in chosen],
            [self.times[at] for at in chosen],
            [self.values[at] for at in chosen],
            [self.headers[at] for at in chosen],
        )


class Body(NamedTuple):
    """A batch that isn't unpacked."""

    data: bytes
    """its records, one after the other"""
    records: int
    offset: int
    """of the first record it once had"""
    first_time: int
    time: int | None
    """ms, of all records, where the broker's own is kept"""
    wanted: int
    """offset before which records were read already"""


def by_columns(consumer: KafkaConsumer) -> None:
    """Has a consumer's `poll` give one record a batch, for `columns` to unpack."""
    consumer._fetcher.PartitionRecords = _Fetched


def columns(records: Iterable[Any]) -> Columns:
    """The messages of one partition in what `poll` gave.

    Raises:
        CorruptRecordError: lengths in a batch don't fit each other.
    """
    whole = Columns()
    for packed, some in groupby(records, lambda record: isinstance(record.value, Body)):
        if packed:
            whole.extend(unpacked([record.value for record in some]))
            continue
        for one in some:
            whole.extend(Columns([one.offset], [one.timestamp], [one.value], [one.headers]))
    return whole


def count(records: Iterable[Any]) -> int:
    """How many messages there are in what `poll` gave, at most."""
    return sum(one.value.records if isinstance(one.value, Body) else 1 for one in records)


class _Fetched(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The messages of one answer; batches count as many records as they have."""

    def __init__(
        self, fetch_offset: int, partition: Any, records: Any, *more: Any, **options: Any
    ) -> None:
        super().__init__(fetch_offset, partition, _Batches(records, fetch_offset), *more, **options)

    def take(self, n: int | None = None) -> list[Any]:
        """Batches that hold `n` messages together, or a few more."""
        found: list[Any] = []
        left = n
        while (left is None or left > 0) and self:
            one = super().take(1)
            if not one:
                break
            found += one
            if left is not None:
                left -= count(one)
        return found


class _Batches:
    """The batches of an answer; data in format 2 comes as one record a batch."""

    def __init__(self, records: Any, wanted: int) -> None:
        self._records, self._wanted = records, wanted

    def next_batch(self) -> Any:
        """The next batch, None at the end."""
        batch = self._records.next_batch()
        whole = batch is not None and batch.magic == 2 and not batch.is_control_batch
        return _Batch(batch, self._wanted) if whole else batch


class _Batch:
    """A batch that has one record: its body."""

    def __init__(self, batch: Any, wanted: int) -> None:
        self._batch, self._wanted = batch, wanted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[_Record]:
        if self._batch.records_count:
            yield _Record(body(self._batch, self._wanted), self._batch)


class _Record:
    """What kafka-python asks of a record."""

    key = None
    headers: Sequence[Header] = ()
    checksum = None
    size_in_bytes = 0

    def __init__(self, value: Body, batch: Any) -> None:
        self.value, self.offset = value, batch.last_offset
        self.timestamp, self.timestamp_type = batch.max_timestamp, batch.timestamp_type

    def validate_crc(self) -> bool:
        """The batch's is checked."""
        return True


def body(batch: Any, wanted: int) -> Body:
    """The records of a kafka-python DefaultRecordBatch, decompressed."""
    iter(batch)
    time = batch.max_timestamp if batch.timestamp_type else None
    data = bytes(memoryview(batch._buffer)[batch._pos :])
    return Body(data, batch.records_count, batch.base_offset, batch.first_timestamp, time, wanted)


def unpacked(bodies: Sequence[Body]) -> Columns:
    """The messages of some batches.

    Raises:
        CorruptRecordError: lengths in a batch don't fit each other.
    """
    try:
        return _unpacked(bodies)
    except (IndexError, ValueError) as error:
        raise CorruptRecordError(
            f"a damaged batch from offset {bodies[0].offset} on: {error}"
        ) from error


def _unpacked(bodies: Sequence[Body]) -> Columns:
    data = b"".join(one.data for one in bodies)
    starts, ends = _records(data, bodies)
    numbers = np.frombuffer(data, np.uint8)
    records = [one.records for one in bodies]
    later, at = _varints(numbers, starts + 1)
    further, at = _varints(numbers, at)
    length, at = _varints(numbers, at)
    length, begin = _varints(numbers, at + np.maximum(length, 0))
    stop = begin + np.maximum(length, 0)
    values: list[bytes | None] = [
        data[a:b] for a, b in zip(begin.tolist(), stop.tolist(), strict=True)
    ]
    for nothing in np.flatnonzero(length < 0).tolist():
        values[nothing] = None
    headers, at = _headers(data, numbers, stop)
    if not np.array_equal(at, ends):
        raise ValueError("a record isn't as long as it says")
    times = np.repeat([one.first_time for one in bodies], records) + later
    own = np.repeat([-1 if one.time is None else one.time for one in bodies], records)
    offsets = np.repeat([one.offset for one in bodies], records) + further
    found = Columns(offsets.tolist(), np.where(own < 0, times, own).tolist(), values, headers)
    read = offsets < np.repeat([one.wanted for one in bodies], records)
    return found.only(np.flatnonzero(~read).tolist()) if read.any() else found


def _records(data: bytes, bodies: Sequence[Body]) -> tuple[Int64s, Int64s]:
    """Where the records begin, behind their length, and end."""
    starts: list[int] = []
    ends: list[int] = []
    at = end = 0
    for one in bodies:
        end += len(one.data)
        for _ in range(one.records):
            length, shift = data[at] & 127, 7
            while data[at] > 127:
                at += 1
                length |= (data[at] & 127) << shift
                shift += 7
            at += 1
            starts.append(at)
            at += length >> 1
            ends.append(at)
        if at != end:
            raise ValueError(f"{end - at} bytes behind the last record")
    return np.array(starts, np.int64), np.array(ends, np.int64)


def _varints(data: npt.NDArray[np.uint8], at: Int64s) -> tuple[Int64s, Int64s]:
    """Zigzag numbers of variable length at some places, and where what follows begins."""
    byte = data[at].astype(np.int64)
    found, at = byte & 127, at + 1
    open_ = np.flatnonzero(byte > 127)
    for shift in range(7, 70, 7):
        if not len(open_):
            break
        byte = data[at[open_]].astype(np.int64)
        found[open_] |= (byte & 127) << shift
        at[open_] += 1
        open_ = open_[byte > 127]
    if len(open_):
        raise ValueError("a number of more than ten bytes")
    return (found >> 1 & (1 << 63) - 1) ^ -(found & 1), at


def _headers(
    data: bytes, numbers: npt.NDArray[np.uint8], at: Int64s
) -> tuple[list[Sequence[Header]], Int64s]:
    """Headers of all records, and where they end."""
    count, at = _varints(numbers, at)
    if count.min(initial=0) < 0:
        raise ValueError("fewer than no headers")
    if not count.any():
        return [()] * len(count), at
    names: dict[bytes, str] = {}
    found: list[list[Header]] = [[] for _ in range(len(count))]
    for number in range(int(count.max())):
        rows = np.flatnonzero(count > number)
        length, begin = _varints(numbers, at[rows])
        if length.min(initial=0) < 0:
            raise ValueError("a header without a name")
        size, start = _varints(numbers, begin + length)
        at[rows] = stop = start + np.maximum(size, 0)
        cuts = zip(
            *(one.tolist() for one in (rows, begin, begin + length, start, stop)), strict=True
        )
        for row, a, b, c, d in cuts:
            name = data[a:b]
            if name not in names:
                names[name] = name.decode()
            found[row].append((names[name], data[c:d]))
    return list(found), at
