"""Sensors on a flows topic as `normalise` would write them, `detect` processes, and what these have
to say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import orjson
import polars as pl
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from ids_plugin import bundle
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema.alert import Document
from ids_plugin.schema.flow import SCHEMA, known, with_facts, with_sensor_flags
from ids_plugin.schema.ledger import Ledger
from ids_plugin.sources.flow_batches import WIRE, Batch, Watermarks, encode, encode_watermarks
from ids_plugin.sources.local_networks import LocalRule
from tests.services import Kafka, unique

LAB = Path(__file__).parents[1] / "lab/flows/runs"
SENSORS = {"branch": "train-c-2", "office": "train-f-1", "plant": "train-e-2"}
START = 1_790_000_000_000
TOPICS = ("flows", "alerts", "rejects", "ledger", "state", "bundles")


@cache
def flows(sensor: str) -> pl.DataFrame:
    """What a sensor saw, in known order: a lab run with attacks of most classes."""
    columns = [pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()]
    constants = {"sensor": sensor, "source": "zeek", "label": None, "label_detail": None}
    named = [pl.lit(value, pl.String).alias(name) for name, value in constants.items()]
    run = (
        with_facts(with_sensor_flags(pl.read_parquet(LAB / f"{SENSORS[sensor]}.parquet")))
        .select(columns)
        .with_columns(named)
    )
    return LocalRule().judge(run.sort(known(), "uid"))


@cache
def expected(name: str = "default") -> tuple[dict[str, bytes], Ledger]:
    """Documents of all sensors by their ids, and the ledger, as one process makes them that never
    stops."""
    pipeline = Pipeline(bundle.read(bundle.find(name)))
    documents = [
        document
        for sensor in SENSORS
        for document in pipeline.step(flows(sensor)) + pipeline.end(sensor)
    ]
    return {document["event"]["id"]: plain(document) for document in documents}, pipeline.ledger


def plain(document: Document) -> bytes:
    """The document without the time at which it was made."""
    event = {name: value for name, value in document["event"].items() if name != "ingested"}
    return orjson.dumps(document | {"event": event})


def messages(sensor: str, run: str, chance: Random, rows: int = 60) -> Iterator[Batch]:
    """A run of a sensor in batches, some of which change places with their neighbours or come
    twice."""
    frame, batches = flows(sensor), []
    numbered = frame.with_columns(
        seq=pl.int_range(frame.height, dtype=pl.Int64),
        at=pl.int_range(START, START + frame.height, dtype=pl.Int64),
        partition=pl.lit(0, pl.Int32),
        offset=pl.int_range(frame.height, dtype=pl.Int64),
    ).select(list(WIRE))
    start = 0
    while start < frame.height:
        stop = min(frame.height, start + chance.randint(1, 2 * rows))
        end = frame.height if stop == frame.height else None
        batches.append(Batch(sensor, "zeek", run, numbered[start:stop], START, end=end))
        start = stop
    batches += [batch for batch in batches if chance.random() < 0.02]
    placed = sorted(
        enumerate(batches), key=lambda numbered_batch: numbered_batch[0] + chance.random() * 4
    )
    return iter([batch for _, batch in placed])


class DetectHarness:
    """Topics of one's own on the session's broker, a sender to them, and `detect` processes."""

    def __init__(
        self,
        kafka: Kafka,
        folder: Path,
        settings: dict[str, str] | None = None,
        partitions: int = 3,
    ) -> None:
        self.kafka, self.folder, self.partitions = kafka, folder, partitions
        self.topics = {name: unique(f"ids_{name}") for name in TOPICS}
        self.group = unique("detect")
        self._settings, self._sent = settings or {}, 0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        """all of them, also those whose name another process has since"""
        self._producer = KafkaProducer(
            bootstrap_servers=kafka.bootstrap, linger_ms=5, max_request_size=33 << 20
        )
        compact = {"cleanup.policy": "compact"}
        made = [
            NewTopic(self.topics["flows"], partitions, 1),
            NewTopic(self.topics["alerts"], 2, 1),
            NewTopic(self.topics["rejects"], 1, 1),
            NewTopic(self.topics["ledger"], 1, 1),
            NewTopic(self.topics["state"], 2, 1, topic_configs=compact),
            NewTopic(
                self.topics["bundles"],
                1,
                1,
                topic_configs=compact | {"max.message.bytes": str(33 << 20)},
            ),
        ]
        with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
            admin.create_topics(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        self._producer.close()

    def environment(self, name: str) -> dict[str, str]:
        """Settings of an instance."""
        settings = {f"IDS_TOPICS_{name.upper()}": topic for name, topic in self.topics.items()}
        settings |= {"IDS_KAFKA_BOOTSTRAP": self.kafka.bootstrap, "IDS_DETECT_GROUP": self.group}
        settings |= {"IDS_DETECT_INSTANCE": name, "IDS_DETECT_SNAPSHOT_SECONDS": "0.5"}
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
            **settings,
            **self._settings,
        }

    def start(self, name: str = "one") -> subprocess.Popen[bytes]:
        """Starts an instance."""
        command = [str(Path(sys.executable).with_name("ids-consumer")), "detect"]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, env=self.environment(name), stdout=log, stderr=log)
        self._processes[name] = process
        self._started.append(process)
        return process

    def kill(self, name: str = "one") -> None:
        """kill -9."""
        self._processes[name].kill()
        self._processes[name].wait()

    def stop(self, name: str = "one") -> None:
        """SIGTERM, at which it ends in order."""
        self._processes[name].terminate()
        assert self._processes[name].wait(60) == 0, self.log(name)

    def log(self, name: str = "one") -> str:
        """What an instance wrote."""
        return (self.folder / f"{name}.log").read_text()

    def send(self, batches: Sequence[Batch]) -> None:
        """Batches, each to its sensor's partition, and marks to all."""
        for batch in batches:
            partition = list(SENSORS).index(batch.sensor) % self.partitions
            for value, headers in encode(batch):
                self._producer.send(
                    self.topics["flows"], value, batch.sensor.encode(), headers, partition
                )
        self._sent += 1
        now = START + 60_000 + 1_000 * self._sent
        value, headers = encode_watermarks(Watermarks(now, {"zeek": 1}, {"zeek/0": now}))
        for partition in range(self.partitions):
            self._producer.send(self.topics["flows"], value, None, headers, partition)
        self._producer.flush()

    def raw(
        self, topic: str, value: bytes | None, key: bytes | None = None, headers: Any = None
    ) -> None:
        """Any message to one of the topics."""
        self._producer.send(self.topics[topic], value, key, headers).get(10)

    def alerts(self) -> list[Document]:
        """The committed documents."""
        return [orjson.loads(record.value) for record in self.kafka.read(self.topics["alerts"])]

    def ledger(self) -> Ledger:
        """Sum of the committed increments."""
        total = Ledger()
        for record in self.kafka.read(self.topics["ledger"]):
            total += Ledger.from_dict(orjson.loads(record.value)["ledger"])
        return total

    def until(self, true: Callable[[], bool], seconds: float = 240) -> None:
        """Waits until something is so."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, {
                name: self.log(name)[-3000:] for name in self._processes
            }
            time.sleep(0.1)

    def wait(self, documents: int, seconds: float = 240) -> list[Document]:
        """The documents, once there are so many."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            alerts = self.alerts()
            if len(alerts) >= documents:
                return alerts
            time.sleep(0.2)
        logs = {name: self.log(name)[-3000:] for name in self._processes}
        raise AssertionError(f"{len(alerts)} of {documents} documents: {logs}")


def pieces(chance: Random, count: int) -> list[list[Batch]]:
    """Runs of all sensors mixed, in so many portions; each sensor keeps its order."""
    waiting = [
        list(messages(sensor, f"{number:016x}", chance)) for number, sensor in enumerate(SENSORS, 1)
    ]
    mixed = []
    while any(waiting):
        mixed.append(chance.choice([batches for batches in waiting if batches]).pop(0))
    size = -(-len(mixed) // count)
    return [mixed[start : start + size] for start in range(0, len(mixed), size)]


def check(stream: DetectHarness, documents: Sequence[Document]) -> None:
    """The documents are those of one process, each once, and the ledger says the same."""
    wanted, ledger = expected()
    ids = [document["event"]["id"] for document in documents]
    assert len(ids) == len(set(ids))
    assert {document["event"]["id"]: plain(document) for document in documents} == wanted
    counted, total = stream.ledger().total, ledger.total
    counted.duplicate = 0  # batches that were sent twice
    assert counted.to_dict() == total.to_dict()
