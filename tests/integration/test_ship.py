"""Log files onto a topic: each line once, whatever the rotator, the broker and kill -9 do."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ids_plugin.sources.messages import Fetched, MessageReader
from ids_plugin.sources.meter_programs import FLOW_ONLY, PROGRAMS
from tests.services import Kafka, unique

ROOT = Path(__file__).resolve().parents[2]

LINES = 1000
"""a second"""
SECONDS = 8
PATIENCE = 240.0


class Ship:
    """One `ship` with a configuration of its own; started and killed as often as one likes."""

    def __init__(
        self, kafka: Kafka, folder: Path, *files: str, topic: str = "", places: str = ""
    ) -> None:
        self.kafka, self.folder = kafka, folder
        self.topic = topic or kafka.topic("ship", partitions=3)
        self.places = places or kafka.topic("places", cleanup_policy="compact")
        self.config = folder / "ship.toml"
        self.config.write_text(
            f'[kafka]\nbootstrap = ["{kafka.bootstrap}"]\n[topics]\nplaces = "{self.places}"\n'
        )
        program = str(Path(sys.executable).with_name("ids-consumer"))
        self.command = [
            program,
            "ship",
            *files,
            "--topic",
            self.topic,
            "--sensor",
            "edge",
            "--instance",
            unique("i"),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "ship.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--config", str(self.config)], stderr=log
            )

    def end(self, how: signal.Signals) -> int:
        assert self.process
        self.process.send_signal(how)
        return self.process.wait(60)

    def log(self) -> str:
        return (self.folder / "ship.log").read_text()

    def lines(self) -> list[bytes]:
        return [record.value for record in self.kafka.read(self.topic)]

    def until(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, f"{what} doesn't come\n{self.log()}"
            time.sleep(0.3)


@contextmanager
def shipping(kafka: Kafka, folder: Path, *files: str, **topics: str) -> Iterator[Ship]:
    ship = Ship(kafka, folder, *files, **topics)
    ship.start()
    try:
        yield ship
    finally:
        if ship.process:
            ship.process.kill()
            ship.process.wait()


class Writer(threading.Thread):
    """Writes numbered lines into a log and has it rotated every second; `remaining` are the lines
    that the rotator left."""

    def __init__(self, log: Path, rotate: Callable[[Path, int], None]) -> None:
        super().__init__()
        self.log, self.rotate = log, rotate

    def run(self) -> None:
        rotator = threading.Thread(target=self._rotate)
        rotator.start()
        number, begin, file = 0, time.monotonic(), self.log.open("ab", buffering=0)
        while (now := time.monotonic() - begin) < SECONDS:
            lines = [b'{"n": %d}\n' % line for line in range(number, int(now * LINES))]
            number += len(lines)
            file.write(b"".join(lines))
            time.sleep(0.002)
            if not self.log.exists():
                file.close()
                file = self.log.open("ab", buffering=0)
        file.close()
        rotator.join()

    def _rotate(self) -> None:
        for second in range(SECONDS - 1):
            time.sleep(1)
            self.rotate(self.log, second)

    def remaining(self) -> list[bytes]:
        files = sorted(self.log.parent.glob("eve*"))
        data = b"".join(
            gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            for file in files
        )
        return [line for line in data.splitlines() if line.endswith(b"}") and line.startswith(b"{")]


def shift(log: Path) -> Path:
    """Room for another rotated file; the name to give it."""
    for number in range(SECONDS, 0, -1):
        for end in ("", ".gz"):
            old = log.with_name(f"{log.name}.{number}{end}")
            if old.exists():
                old.rename(log.with_name(f"{log.name}.{number + 1}{end}"))
    return log.with_name(f"{log.name}.1")


def by_rename(log: Path, second: int) -> None:
    log.rename(log.with_name(f"eve-2026112110{second:02}.json"))


def by_compression(log: Path, second: int) -> None:
    old = shift(log)
    log.rename(old)
    time.sleep(0.2)  # as logrotate does with a program that is told to open its log again
    with old.open("rb") as plain, gzip.open(f"{old}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    shutil.copystat(old, f"{old}.gz")
    old.unlink()


def by_copy_and_truncation(log: Path, second: int) -> None:
    shutil.copy(log, shift(log))
    os.truncate(log, 0)


@pytest.mark.parametrize("rotate", [by_rename, by_compression, by_copy_and_truncation])
def test_each_line_once_through_rotation_and_kill_9(
    rotate: Callable[[Path, int], None], kafka: Kafka, tmp_path: Path
) -> None:
    chance = random.Random(7)
    (tmp_path / "logs").mkdir()
    writer = Writer(tmp_path / "logs/eve.json", rotate)
    kills = 0
    with shipping(kafka, tmp_path, str(writer.log)) as ship:
        ship.until(lambda: "following" in ship.log(), "the beginning")
        writer.start()
        while writer.is_alive():
            time.sleep(chance.uniform(0.8, 2.5))
            ship.end(signal.SIGKILL)
            kills += 1
            ship.start()
        remaining = Counter(writer.remaining())
        ship.until(lambda: not remaining - Counter(ship.lines()), "every line")
        time.sleep(1)
        assert ship.end(signal.SIGTERM) == 0
        shipped = Counter(ship.lines())
        whole = {line for line in shipped if line.endswith(b"}")}
        assert kills > 2
        assert max(shipped.values()) == 1
        assert set(remaining) <= whole
        if rotate is not by_copy_and_truncation:
            assert whole == set(remaining) == set(shipped)
            assert len(remaining) > 0.9 * LINES * SECONDS
        sequence = sorted(_number(record) for record in kafka.read(ship.topic))
        assert sequence == list(range(len(sequence)))
        assert len({_run(record) for record in kafka.read(ship.topic)}) == 1


def _header(record: Any, name: str) -> str:
    return bytes(dict(record.headers)[name]).decode()


def _number(record: Any) -> int:
    return int(_header(record, "ids-seq").partition(":")[2])


def _run(record: Any) -> str:
    return _header(record, "ids-seq").partition(":")[0]


def test_it_waits_for_the_broker_and_says_so(java: None, tmp_path: Path) -> None:
    log = tmp_path / "eve.json"
    log.write_text("1\n")
    with Kafka() as kafka, shipping(kafka, tmp_path, str(log)) as ship:
        ship.until(lambda: ship.lines() == [b"1"], "the first line")
        kafka.kill9()
        with log.open("a") as file:
            file.write("2\n")
        ship.until(lambda: "no answer from Kafka" in ship.log(), "the complaint")
        kafka.start()
        ship.until(lambda: sorted(ship.lines()) == [b"1", b"2"], "the second line")
        kafka.pause()
        with log.open("a") as file:
            file.write("3\n")
        time.sleep(1)
        assert ship.end(signal.SIGTERM) == 0
        kafka.resume()
        ship.start()
        ship.until(lambda: sorted(ship.lines()) == [b"1", b"2", b"3"], "the third line")
    levels = [json.loads(line)["log.level"] for line in ship.log().splitlines()]
    assert set(levels) == {"info", "warning"}


def test_a_missing_topic_is_named_and_waited_for(kafka: Kafka, tmp_path: Path) -> None:
    from kafka.admin import KafkaAdminClient, NewTopic

    (tmp_path / "eve.json").write_text("1\n")
    topic = unique("late")
    with shipping(kafka, tmp_path, str(tmp_path / "*.json"), topic=topic) as ship:
        ship.until(lambda: f"topic {topic} is missing" in ship.log(), "the complaint")
        with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
            admin.create_topics([NewTopic(topic, 1, 1)])
        ship.until(lambda: ship.lines() == [b"1"], "the line")


def test_two_of_one_name_do_not_send_twice(kafka: Kafka, tmp_path: Path) -> None:
    log = tmp_path / "eve.json"
    log.write_text("".join(f"{number}\n" for number in range(1000)))
    with shipping(kafka, tmp_path, str(log)) as ship:
        ship.until(lambda: len(ship.lines()) == 1000, "the lines")
        first, ship.process = ship.process, None
        assert first
        ship.start()
        written = 1000
        while first.poll() is None and written < 4000:
            with log.open("a") as file:
                file.write(f"{written}\n")
            written += 1
            time.sleep(0.02)
        assert first.wait() == 2
        assert "another process calls itself" in ship.log()
        ship.until(lambda: len(ship.lines()) >= written, "more lines")
        assert sorted(map(int, ship.lines())) == list(range(written))


def test_logs_of_zeek_say_what_they_are(kafka: Kafka, tmp_path: Path) -> None:
    (tmp_path / "open_conn.log").write_text('{"ts":1.5,"uid":"C1"}\n')
    (tmp_path / "conn.log").write_text(
        "#separator \\x09\n#path\tconn\n#fields\tts\tuid\n#types\ttime\tstring\n"
        "2.5\tC2\n#close\t2026\n"
    )
    with shipping(kafka, tmp_path, str(tmp_path / "*conn.log")) as ship:
        ship.until(lambda: len(ship.lines()) == 2, "two lines")
        assert sorted(map(json.loads, ship.lines()), key=str) == [
            {"conn": {"ts": 2.5, "uid": "C2"}},
            {"open_conn": {"ts": 1.5, "uid": "C1"}},
        ]
        assert {_header(record, "ids-sensor") for record in kafka.read(ship.topic)} == {"edge"}


def test_what_suricata_writes_arrives_as_flows_through_rotation(
    kafka: Kafka, tmp_path: Path
) -> None:
    if not shutil.which("suricata"):
        pytest.skip("needs suricata: apt-get install suricata")
    log = tmp_path / "eve.json"
    meter = PROGRAMS["suricata"]
    (tmp_path / "suricata.yaml").write_text(FLOW_ONLY)
    shutil.copy(ROOT / "testing/Traces/long.pcap", tmp_path / "capture.pcap")
    with shipping(kafka, tmp_path, str(log)) as ship:
        ship.until(lambda: "following" in ship.log(), "the beginning")
        subprocess.run(meter.command, cwd=tmp_path, check=True, capture_output=True)
        wanted = log.read_bytes().splitlines()
        by_compression(log, 0)
        subprocess.run(meter.command, cwd=tmp_path, check=True, capture_output=True)
        wanted += log.read_bytes().splitlines()
        ship.until(lambda: len(ship.lines()) >= len(wanted), "every line")
        records = kafka.read(ship.topic)
    assert sorted(record.value for record in records) == sorted(wanted)
    fetched = Fetched(ship.topic, 0, range(len(records)), [0] * len(records), *_columns(records))
    messages = MessageReader({}).read([fetched], 0)
    assert messages.rejects == []
    assert {batch.sensor for batch in messages.batches} == {"edge"}
    assert sum(batch.rows.height for batch in messages.batches) == len(wanted) > 4


def _columns(records: list[Any]) -> tuple[list[bytes], list[Any]]:
    ordered = sorted(records, key=_number)
    return [record.value for record in ordered], [record.headers for record in ordered]
