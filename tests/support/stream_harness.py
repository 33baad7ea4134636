"""Consumers as processes on a real broker, each test with topics of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import polars as pl
from kafka import KafkaProducer

from consumers.stream.reorder_buffer import Released, ReorderBuffer
from ids_plugin.schema.ledger import Ledger
from ids_plugin.sources.flow_batches import NOTHING, Batch, Watermarks, decode
from tests.services import Kafka, unique

OWN_TOPICS = ("flows", "alerts", "rejects", "ledger", "state", "bundles")
TIMEOUT_S = 240.0
"""Seconds that a test waits for what has to come."""


class StreamHarness:
    """Topics, a configuration for them, and the processes that were started with it."""

    def __init__(
        self, kafka: Kafka, folder: Path, *, partitions: int = 4, flows: int = 2, **sections: Any
    ) -> None:
        """`sections`: further settings, `detect={"bundle": …}`; `partitions` are the source
        topic's."""
        self.kafka, self.folder = kafka, folder
        self.source = kafka.topic("zeek", partitions)
        several = {"flows": flows, "alerts": 2}
        self.topics = {
            name: kafka.topic(f"ids.{name}", several.get(name, 1)) for name in OWN_TOPICS
        }
        group = unique("group")
        settings: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap": [kafka.bootstrap]},
            "topics": self.topics,
            "normalise": {"topics": [self.source], "group": f"normalise-{group}"},
            "detect": {"group": f"detect-{group}"},
            "deliver": {"group": f"deliver-{group}"},
        }
        for section, values in sections.items():
            settings[section] = settings.get(section, {}) | values
        self.config = folder / f"{group}.toml"
        self.config.write_text(
            "".join(_toml(section, values) for section, values in settings.items())
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> StreamHarness:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        if kind is not None:
            print(self.logs())

    def command(self, verb: str, *arguments: str) -> list[str]:
        """How a verb is called with this configuration."""
        program = str(Path(sys.executable).with_name("ids-consumer"))
        return [program, verb, *arguments, "--config", str(self.config)]

    def start(self, verb: str, instance: str = "a", *arguments: str) -> subprocess.Popen[bytes]:
        """A running consumer."""
        named = [] if verb == "replay" else ["--instance", instance]
        with (self.folder / f"{verb}-{instance}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(verb, *arguments, *named),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._processes.append(process)
        return process

    def run(self, verb: str, *arguments: str) -> dict[str, Any]:
        """A verb that ends by itself; its `--json` result."""
        done = subprocess.run(
            self.command(verb, *arguments, "--json"), capture_output=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr.decode()
        return dict(orjson.loads(done.stdout))

    def logs(self) -> str:
        """What the processes wrote."""
        return "\n".join(
            f"== {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log"))
        )

    def send(
        self,
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[tuple[str, bytes]]] | None = None,
        partition: int | None = None,
    ) -> None:
        """Messages of a sensor: null keys, partitions in turn unless one is named."""
        count = len(self.partitions())
        with contextlib.closing(
            KafkaProducer(bootstrap_servers=self.kafka.bootstrap, linger_ms=20)
        ) as producer:
            for number, value in enumerate(values):
                record_headers = list(headers[number]) if headers else []
                where = number % count if partition is None else partition
                key = b"k" if value is None else None
                producer.send(self.source, value, key=key, headers=record_headers, partition=where)

    def partitions(self) -> set[int]:
        """Of the source topic."""
        with contextlib.closing(KafkaProducer(bootstrap_servers=self.kafka.bootstrap)) as producer:
            return set(producer.partitions_for(self.source))

    def messages(self) -> Iterator[Batch | Watermarks]:
        """What stands on ids.flows, partition by partition."""
        for record in self.kafka.read(self.topics["flows"]):
            yield decode(
                record.value, record.headers, f"{record.topic}/{record.partition}/{record.offset}"
            )

    def flows(self) -> pl.DataFrame:
        """All flows that stand there, as they arrived."""
        batches = [message for message in self.messages() if isinstance(message, Batch)]
        return pl.concat([NOTHING, *(batch.rows for batch in batches)])

    def released(self) -> list[Released]:
        """What detect gets to see, partition by partition."""
        released: list[Released] = []
        buffers: dict[int, ReorderBuffer] = {}
        for record in self.kafka.read(self.topics["flows"]):
            buffer = buffers.setdefault(record.partition, ReorderBuffer())
            released += buffer.add(decode(record.value, record.headers, "flows"))
        return released

    def ledger(self, stage: str) -> Ledger:
        """What a stage has counted so far, all its instances and lives together."""
        whole = Ledger()
        for record in self.kafka.read(self.topics["ledger"]):
            entry = orjson.loads(record.value)
            if entry["stage"] == stage:
                whole.add(Ledger.from_dict(entry["ledger"]))
        return whole

    def json(self, topic: str) -> list[Any]:
        """The documents of a topic of ours."""
        return [orjson.loads(record.value) for record in self.kafka.read(self.topics[topic])]

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Waits for something.

        Raises:
            AssertionError: it doesn't come, or a process died.
        """
        end = time.monotonic() + TIMEOUT_S
        while not done():
            gone = time.monotonic() > end or "a defect of ours" in self.logs()
            assert not gone, f"{what} doesn't come\n{self.logs()}"
            time.sleep(0.2)

    def until_read(self, count: int) -> None:
        """Waits until normalise has read so many records."""
        self.until(lambda: self.ledger("normalise").total.read >= count, f"reading {count} records")

    def stop(self, process: subprocess.Popen[bytes], seconds: float = 60) -> int:
        """Asks a process to end; its exit code."""
        process.send_signal(signal.SIGTERM)
        return process.wait(seconds)


def _toml(section: str, values: dict[str, Any]) -> str:
    plain = "".join(
        f"{key} = {orjson.dumps(value).decode()}\n"
        for key, value in values.items()
        if not _table(value)
    )
    tables = "".join(
        _toml(f"{section}.{key}", value) for key, value in values.items() if _table(value)
    )
    return f"[{section}]\n{plain}{tables}"


def _table(value: object) -> bool:
    return isinstance(value, dict)
