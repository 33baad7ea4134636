"""The whole wire on loopback: its own broker and Elasticsearch, consumers as supervised processes,
and their ledger.

    with Wire(folder, partitions=4) as wire:
        wire.run("normalise"), wire.run("detect"), wire.run("deliver")
        wire.replay(["conn.log", "--speed", "max"])
        wire.watch.total, wire.documents(), wire.messages("ids.rejects")

Consumers are reached through the command line, their topics and their metrics alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson
from elasticsearch import Elasticsearch as Client
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Ledger
from tests.services import Elasticsearch, Kafka

VERBS = ("normalise", "detect", "deliver")
STREAM = "logs-ids_plugin.alert-default"
DONE = {
    "normalise": ("read",),
    "detect": ("scored", "duplicate", "replaced"),
    "deliver": ("delivered", "refused"),
}
"""what shows that a stage got on"""
RESTART_SECONDS = 0.5
"""as a supervisor waits before it starts a process again that has ended"""
TICKS = os.sysconf("SC_CLK_TCK")


def command(name: str) -> str:
    """Path of one of our two commands, of the installation that runs the tests."""
    return str(Path(sys.executable).with_name(name))


class Exit(NamedTuple):
    """An end of a process that nobody asked for."""

    process: str
    code: int
    log: str


class Process:
    """One consumer that is started again whenever it ends, until it is stopped."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name, self.exits = name, list[Exit]()
        self._command, self._environment, self._log = (
            list(arguments),
            {**os.environ, **environment},
            log,
        )
        self._spent, self._again = 0.0, 0.0
        self._child = self._start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def log(self) -> str:
        """What it and those before it wrote."""
        return self._log.read_text(errors="replace")

    def cpu(self) -> float:
        """CPU seconds, of those before it too."""
        return self._spent + cpu(self.pid)

    def kill9(self) -> None:
        """Ends it at once; starts it again."""
        self._spent = self.cpu()
        self._child.kill()
        self._child.wait()
        self._child = self._start()

    def keep(self) -> None:
        """Starts it again if it has ended, after a moment."""
        code = self._child.poll()
        if code is None:
            return
        if not self._again:
            self.exits.append(Exit(self.name, code, self.log()[-2000:]))
            self._again = time.monotonic() + RESTART_SECONDS
        elif time.monotonic() > self._again:
            self._again = 0.0
            self._child = self._start()

    def stop(self, seconds: float = 30) -> float:
        """Asks it to end; returns how long it took. Killed, and counted as an exit, when it doesn't
        or complains."""
        begin = time.monotonic()
        self._spent = self.cpu()
        self._child.send_signal(signal.SIGTERM)
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        if code:
            self.exits.append(Exit(self.name, code, self.log()[-2000:]))
        return time.monotonic() - begin

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def cpu(pid: int) -> float:
    """CPU seconds of a process so far, all threads; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


class Step(NamedTuple):
    """An entry of ids.ledger: seconds since the epoch, who wrote it, and how many records or
    documents it got on."""

    at: float
    stage: str
    instance: str
    done: int


class Watch(threading.Thread):
    """Follows ids.ledger and adds it up."""

    def __init__(self, bootstrap: str, topic: str = "ids.ledger") -> None:
        super().__init__(daemon=True)
        self.total, self.steps, self.moved = Ledger(), list[Step](), time.monotonic()
        self._where, self._topic, self._end = bootstrap, topic, threading.Event()

    def run(self) -> None:
        consumer = KafkaConsumer(bootstrap_servers=self._where, isolation_level="read_committed")
        parts = [
            TopicPartition(self._topic, number)
            for number in consumer.partitions_for_topic(self._topic) or ()
        ]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        while not self._end.is_set():
            try:
                polled = consumer.poll(timeout_ms=200)
            except KafkaError:
                time.sleep(0.2)
                continue
            for records in polled.values():
                for record in records:
                    self._add(record.timestamp / 1000, orjson.loads(record.value))
        consumer.close()

    def done(self, stage: str) -> int:
        """How many records (documents) a stage is through with."""
        return sum(step.done for step in tuple(self.steps) if step.stage == stage)

    def stop(self) -> None:
        self._end.set()
        self.join(30)

    def _add(self, at: float, entry: Mapping[str, Any]) -> None:
        ledger = Ledger.from_dict(entry["ledger"])
        stage, total = entry["stage"], ledger.total
        self.total = self.total + ledger
        self.steps.append(
            Step(at, stage, entry["instance"], sum(total.value(name) for name in DONE[stage]))
        )
        self.moved = time.monotonic()


class Wire:
    """Services, topics, templates and configuration in `folder`; consumers are added by `run`.

    `partitions` are those of the source topic and of others with other numbers; `settings` (section
    → key → value) are added to the configuration file. Without `elastic` there is no Elasticsearch.
    """

    def __init__(
        self,
        folder: Path,
        *,
        partitions: int = 4,
        others: Sequence[int] = (),
        flows_partitions: int = 4,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        elastic: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config = folder, folder / "wire.toml"
        self.partitions, self._others, self._flows_partitions = partitions, others, flows_partitions
        self.kafka, self.elasticsearch = Kafka(), Elasticsearch()
        self._servers = (self.kafka, self.elasticsearch) if elastic else (self.kafka,)
        self.processes: dict[str, Process] = {}
        self._settings = {section: dict(values) for section, values in (settings or {}).items()}
        self._ended: list[Process] = []
        self._stopped, self._lock = threading.Event(), threading.RLock()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.start(), self._servers))
        self.topics = [
            self.kafka.topic("zeek", partitions=count) for count in (self.partitions, *self._others)
        ]
        self.topic = self.topics[0]
        self.config.write_text(_toml(self._configuration()))
        self.ids_plugin(
            "setup",
            "kafka",
            "--config",
            str(self.config),
            "--partitions",
            str(self._flows_partitions),
        )
        if self.elasticsearch in self._servers:
            self.ids_plugin("setup", "elasticsearch", "--url", self.elasticsearch.url)
        self.watch = Watch(self.kafka.bootstrap)
        self.watch.start()
        self._keeper.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for name in tuple(self.processes):
            self.end(name)
        self._stopped.set()
        self.watch.stop()
        self._keeper.join(10)
        for server in (self.kafka, self.elasticsearch):
            server.close()

    def ids_plugin(self, *arguments: str) -> None:
        """Runs a command of ours to its end; its output is shown when it fails."""
        done = subprocess.run(
            [command("ids-plugin"), *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"ids-plugin {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )

    def run(self, verb: str, number: int = 1) -> Process:
        """Starts one instance of a consumer, which is started again whenever it ends."""
        name = f"{verb}-{number}"
        environment = {
            f"IDS_{verb.upper()}_INSTANCE": name,
            "POLARS_MAX_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        arguments = [command("ids-consumer"), verb, "--config", str(self.config)]
        with self._lock:
            self.processes[name] = Process(
                name, arguments, environment, self.folder / f"{name}.log"
            )
        return self.processes[name]

    def end(self, name: str) -> float:
        """Stops an instance for good; seconds it took."""
        with self._lock:
            process = self.processes.pop(name)
        self._ended.append(process)
        return process.stop()

    def replay(self, arguments: Sequence[str], topic: str = "") -> subprocess.Popen[bytes]:
        """Starts `ids-consumer replay` onto a topic, the first one if it isn't named."""
        whole = [command("ids-consumer"), "replay", *arguments, "--topic", topic or self.topic]
        whole += ["--config", str(self.config)]
        with (self.folder / "replay.log").open("ab") as log:
            return subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def group(self, verb: str) -> str:
        """Consumer group of a verb."""
        return f"soak-{verb}"

    def committed(self, verb: str, topic: str) -> dict[int, int]:
        """Partition → offset that a verb's group has committed; nothing while the broker can't
        say."""
        with KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap) as admin:
            try:
                found = admin.list_group_offsets({self.group(verb): None})[self.group(verb)]
            except KafkaError:
                return {}
        return {place.partition: one.offset for place, one in found.items() if place.topic == topic}

    def kill9(self, name: str) -> None:
        """Ends an instance at once; it is started again."""
        with self._lock:
            self.processes[name].kill9()

    @property
    def exits(self) -> list[Exit]:
        """Ends of processes that nobody asked for."""
        return [
            one for process in (*self._ended, *self.processes.values()) for one in process.exits
        ]

    def documents(self) -> Iterator[Document]:
        """What Elasticsearch has, with every copy of it."""
        with Client(self.elasticsearch.url, request_timeout=60) as client:
            client.indices.refresh(index=STREAM)
            place, after = client.open_point_in_time(index=STREAM, keep_alive="5m")["id"], None
            while True:
                page = client.search(
                    pit={"id": place, "keep_alive": "5m"},
                    sort=[{"_shard_doc": "asc"}],
                    size=1000,
                    search_after=after,
                    track_total_hits=False,
                )["hits"]["hits"]
                if not page:
                    return
                yield from (hit["_source"] for hit in page)
                after = page[-1]["sort"]

    def rollover(self) -> str:
        """From now on another backing index is written; its name."""
        with Client(self.elasticsearch.url) as client:
            return str(client.indices.rollover(alias=STREAM)["new_index"])

    def messages(self, topic: str) -> list[dict[str, Any]]:
        """What was committed to a topic of JSON."""
        return [orjson.loads(record.value) for record in self.kafka.read(topic)]

    def _keep(self) -> None:
        while not self._stopped.wait(0.1):
            with self._lock:
                for process in self.processes.values():
                    process.keep()

    def _configuration(self) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = {
            "kafka": {"bootstrap": [self.kafka.bootstrap]},
            **{verb: {"group": self.group(verb)} for verb in VERBS},
            "elasticsearch": {"url": self.elasticsearch.url},
        }
        found["normalise"]["topics"] = self.topics
        for section, values in self._settings.items():
            found.setdefault(section, {}).update(values)
        return found


def _toml(settings: Mapping[str, Mapping[str, object]]) -> str:
    """JSON's texts, numbers, booleans and lists are TOML's."""
    lines = []
    for section, values in settings.items():
        lines += [
            f"[{section}]",
            *(f"{key} = {orjson.dumps(value).decode()}" for key, value in values.items()),
        ]
    return "\n".join(lines) + "\n"


def folder() -> Path:
    """A new folder for configuration and logs."""
    return Path(tempfile.mkdtemp(prefix="ids-wire-"))
