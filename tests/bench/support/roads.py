"""The roads from a sensor's records to alerts, in process: a scan, and a stream without a broker.

The stream's road is the consumers' own code (MessageReader, the messages of ids.flows, reorder
buffer, detector) with lists in place of topics.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
import polars as pl

from consumers.stream.detector import Detector
from ids_plugin.bundle import Bundle
from ids_plugin.config import Config
from ids_plugin.pipeline import BATCH, Pipeline
from ids_plugin.schema.alert import Document
from ids_plugin.sources.flow_batches import Headers, Watermarks, encode, encode_watermarks
from ids_plugin.sources.local_networks import LocalRule
from ids_plugin.sources.messages import Fetched, MessageReader
from ids_plugin.sources.ordering import as_scanned, in_order
from ids_plugin.sources.readers.zeek_json import messages

TOPIC, PARTITIONS = "zeek", 4
POLL_RECORDS = 1_000
RUN = "0123456789abcdef"
EPOCH_MS = 1_800_000_000_000
ENVELOPE_KEYS = ("_path", "_system_name", "_write_ts", "_node")
"""What Zeek's JSON streaming adds, and zeek-kafka doesn't"""


class Record(NamedTuple):
    """A record of ids.flows, as kafka-python gives it."""

    topic: str
    partition: int
    offset: int
    value: bytes
    headers: Headers


def scanned(bundle: Bundle, flows: pl.DataFrame) -> list[Document]:
    """What a scan gives: in known order, local hosts as the whole input shows them."""
    return _piped(bundle, as_scanned(flows))


def as_written(bundle: Bundle, flows: pl.DataFrame) -> list[Document]:
    """What a stream gives for flows in the order in which they were written."""
    return _piped(bundle, LocalRule().judge(flows))


def in_known_order(bundle: Bundle, flows: pl.DataFrame) -> list[Document]:
    """As a stream, but in known order: what differs from `scanned` is due to who is local alone."""
    return _piped(bundle, LocalRule().judge(in_order(flows).drop("_known")))


def _piped(bundle: Bundle, flows: pl.DataFrame) -> list[Document]:
    pipeline = Pipeline(bundle)
    documents = [
        document for batch in flows.iter_slices(BATCH) for document in pipeline.step(batch)
    ]
    return [*documents, *pipeline.finish()]


def shipped(bundle: Bundle, path: Path) -> list[Document]:
    """What `ids-consumer ship` makes of a log: numbered records that name their sensor."""
    values = list(messages("conn.log", b"", lines_of(path)))
    headers: list[Headers] = [
        [("ids-sensor", b"sensor"), ("ids-seq", f"{RUN}:{number}".encode())]
        for number in range(len(values))
    ]
    return _streamed(bundle, values, headers)


def zeek_kafka(bundle: Bundle, path: Path, *, is_tagged: bool) -> list[Document]:
    """What zeek-kafka's plugin sends for a JSON log: no headers; in an object that is named as the
    log where tagged."""
    values = []
    for line in lines_of(path):
        record = {
            name: value for name, value in orjson.loads(line).items() if name not in ENVELOPE_KEYS
        }
        values.append(orjson.dumps({"conn": record} if is_tagged else record))
    return _streamed(bundle, values, [[] for _ in values])


def lines_of(path: Path) -> list[bytes]:
    """The lines of a log, gzipped or not."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()


def _streamed(
    bundle: Bundle, values: Sequence[bytes], headers: Sequence[Headers]
) -> list[Document]:
    """Documents of messages that went to the partitions in turn, ten in a millisecond."""
    detector = Detector(Config(), bundle)
    documents: list[Document] = []
    for record in _flow_records(values, headers):
        detector.add(record)
        documents += detector.step()
    return [*documents, *detector.pipeline.finish()]


def _flow_records(values: Sequence[bytes], headers: Sequence[Headers]) -> Iterator[Record]:
    """What normalise writes: flows of every poll, then how far it read."""
    reader, offset = MessageReader(), 0
    for start in range(0, len(values), POLL_RECORDS):
        numbers = range(start, min(start + POLL_RECORDS, len(values)))
        fetched = [
            _fetched(numbers[partition::PARTITIONS], partition, values, headers)
            for partition in range(PARTITIONS)
        ]
        now = EPOCH_MS + numbers[-1] // 10 + 1
        written = [part for batch in reader.read(fetched, now).batches for part in encode(batch)]
        is_last = numbers[-1] + 1 == len(values)
        read_until = now + 60_000 * is_last
        read_up_to = {f"{TOPIC}/{number}": read_until for number in range(PARTITIONS)}
        written.append(encode_watermarks(Watermarks(read_until, {TOPIC: PARTITIONS}, read_up_to)))
        for value, value_headers in written:
            yield Record("ids.flows", 0, offset, value, value_headers)
            offset += 1


def _fetched(
    numbers: Sequence[int], partition: int, values: Sequence[bytes], headers: Sequence[Headers]
) -> Fetched:
    return Fetched(
        TOPIC,
        partition,
        [number // PARTITIONS for number in numbers],
        [EPOCH_MS + number // 10 for number in numbers],
        [values[number] for number in numbers],
        [headers[number] for number in numbers],
    )
