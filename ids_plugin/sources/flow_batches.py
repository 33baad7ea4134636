"""Messages of `ids.flows`: flows of one sensor as an Arrow IPC stream, and marks of how far the
source topics are read.

A message says in its headers what it is. `kind` is `flows` or `marks`. With `flows` the headers are
`sensor`, `topic`, `run` (empty where the sender doesn't number its records), `since` (ms, the
earliest record of the message), `holes` (JSON, ranges of numbers that were read and gave no flow),
`end` (number of the run's end mark) and `crc` (CRC-32 of the value, so that damage is noticed
before anything is parsed); the value has the columns of WIRE. With `marks` the value is JSON.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import orjson
import polars as pl

from ids_plugin.errors import InputError
from ids_plugin.schema.flow import CONN_SCHEMA, with_sensor_flags

LIMIT = 900_000
"""Bytes of a message's value: below what a broker takes by default, 1 MiB with headers and
framing."""
EXTRA: dict[str, pl.DataType] = {
    "seq": pl.Int64(),
    "at": pl.Int64(),
    "partition": pl.Int32(),
    "offset": pl.Int64(),
}
"""Beside the flow: its number in the run (null where there are none), the record's time (ms), and
where it stood."""
WIRE: dict[str, pl.DataType] = {**CONN_SCHEMA, **EXTRA}
"""Columns of a message. A stream carries no facts of other logs."""
NOTHING = pl.DataFrame(schema=WIRE)
Headers = list[tuple[str, bytes]]
Range = tuple[int, int]
"""First and last number of a range."""


@dataclass(frozen=True)
class Batch:
    """Flows of one sensor and run, read from one topic."""

    sensor: str
    topic: str
    run: str
    """16 hex digits; empty where the sender doesn't number its records"""
    rows: pl.DataFrame
    """columns of WIRE"""
    since: int = 0
    """ms: time of the earliest record, also of those that gave no flow"""
    holes: Sequence[Range] = ()
    end: int | None = None


@dataclass(frozen=True)
class Watermarks:
    """How far one process has read its part of the source topics."""

    now: int
    """ms: wall clock of who wrote it"""
    topics: dict[str, int] = field(default_factory=dict)
    """topic → number of its partitions"""
    read_up_to: dict[str, int] = field(default_factory=dict)
    """`topic/partition` → ms: all records up to this time were read; the wall clock once the
    partition is read to its end"""


def encode(batch: Batch, limit: int = LIMIT) -> Iterator[tuple[bytes, Headers]]:
    """Value and headers of the messages that carry a batch: one, or several where one would be over
    `limit` bytes."""
    value, holes = _stream(batch.rows), orjson.dumps(list(batch.holes)).decode()
    if len(value) + len(holes) > limit and batch.rows.height + len(batch.holes) > 1:
        rows, ranges = batch.rows.height // 2, len(batch.holes) // 2
        yield from encode(
            replace(batch, rows=batch.rows[:rows], holes=batch.holes[:ranges], end=None), limit
        )
        yield from encode(replace(batch, rows=batch.rows[rows:], holes=batch.holes[ranges:]), limit)
        return
    headers = {"kind": "flows", "sensor": batch.sensor, "topic": batch.topic, "run": batch.run}
    headers |= {"since": str(batch.since), "crc": str(zlib.crc32(value))}
    if batch.holes:
        headers["holes"] = holes
    if batch.end is not None:
        headers["end"] = str(batch.end)
    yield value, [(name, text.encode()) for name, text in headers.items()]


def encode_watermarks(watermarks: Watermarks) -> tuple[bytes, Headers]:
    """Value and headers of the message that carries watermarks; its kind is `marks`."""
    value = {
        "now": watermarks.now,
        "topics": watermarks.topics,
        "marks": watermarks.read_up_to,
    }
    return orjson.dumps(value), [("kind", b"marks")]


def decode(value: bytes, headers: Sequence[tuple[str, bytes]], place: str) -> Batch | Watermarks:
    """What a message carries; `place` (topic/partition/offset) is what an error names.

    Raises:
        InputError: the message is damaged or none of ours.
    """
    try:
        header_texts = {name: bytes(text).decode("utf-8") for name, text in headers}
        kind = header_texts.get("kind")
        if kind == "marks":
            return _watermarks(value)
        if kind == "flows":
            return _batch(value, header_texts)
    except (ValueError, TypeError, KeyError, OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"a damaged message: {error}", location=place) from error
    raise InputError(
        f"no message of ours: its kind is {kind!r}",
        location=place,
        hint="who else writes this topic?",
    )


def _stream(rows: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    rows.rechunk().write_ipc_stream(out, compression="lz4", compat_level=pl.CompatLevel.oldest())
    return out.getvalue()


def _batch(value: bytes, header_texts: dict[str, str]) -> Batch:
    if zlib.crc32(value) != int(header_texts["crc"]):
        raise ValueError("its checksum doesn't fit")
    rows = with_sensor_flags(pl.read_ipc_stream(value))
    if dict(rows.schema) != WIRE:
        raise ValueError(f"its columns aren't a flow's: {_difference(rows)}")
    return Batch(
        sensor=header_texts["sensor"],
        topic=header_texts["topic"],
        run=header_texts["run"],
        rows=rows,
        since=int(header_texts["since"]),
        holes=[_range(pair) for pair in orjson.loads(header_texts.get("holes", "[]"))],
        end=int(header_texts["end"]) if "end" in header_texts else None,
    )


def _range(pair: list[int]) -> Range:
    first, last = pair
    if not 0 <= int(first) <= int(last):
        raise ValueError(f"{pair} is no range of numbers")
    return int(first), int(last)


def _difference(rows: pl.DataFrame) -> str:
    wrong = [name for name in {**WIRE, **rows.schema} if WIRE.get(name) != rows.schema.get(name)]
    return ", ".join(wrong) or "their order differs"


def _watermarks(value: bytes) -> Watermarks:
    document = orjson.loads(value)
    tables = [
        {str(name): int(number) for name, number in document[table].items()}
        for table in ("topics", "marks")
    ]
    return Watermarks(int(document["now"]), *tables)
