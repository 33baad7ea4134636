"""Part `rotation` of the bench `wire`: a log rotated every second, followed by `ship`, which is
killed now and then."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from tests.bench.support.whole_pipeline import Process, command
from tests.services import Kafka

KILL_SECONDS = 7.0
LINES = 500
"""a second"""
KEPT = 60
"""rotated files, the younger half as they are, the others compressed: more than come while `ship`
is away"""
PATIENCE = 60


def run(home: Path, seconds: float) -> dict[str, Any]:
    """Writes for so long and counts what arrived; `problems` says what isn't there once."""
    home.mkdir(parents=True, exist_ok=True)
    with Kafka() as kafka:
        topic = kafka.topic("rotation", partitions=2)
        config = home / "ship.toml"
        places = kafka.topic("places", cleanup_policy="compact")
        config.write_text(
            f'[kafka]\nbootstrap = ["{kafka.bootstrap}"]\n[topics]\nplaces = "{places}"\n'
        )
        log = home / "conn.log"
        log.write_bytes(b"0\n")
        arguments = [
            command("ids-consumer"),
            "ship",
            str(log),
            "--topic",
            topic,
            "--config",
            str(config),
        ]
        ship = Process("ship", arguments, {}, home / "ship.log")
        while "following" not in ship.log():
            time.sleep(0.1)
        deadline = time.monotonic() + PATIENCE
        while not kafka.read(topic) and time.monotonic() < deadline:
            time.sleep(0.2)
        written, kills = _write(log, seconds, ship)
        stopped = _settle(kafka, topic, ship, written)
        arrived = Counter(record.value for record in kafka.read(topic) if record.value)
    lost = sum(not arrived[b"%d" % number] for number in range(written))
    twice = sum(count - 1 for count in arrived.values())
    problems = [f"{lost} lost"] * bool(lost) + [f"{twice} twice"] * bool(twice)
    problems += [f"{one.process} ended with {one.code}: {one.log}" for one in ship.exits]
    return {
        "seconds": seconds,
        "lines": written,
        "rotations": int(seconds),
        "kills": kills,
        "lost": lost,
        "twice": twice,
        "stopped_after_s": round(stopped, 2),
        "problems": problems,
    }


def _write(log: Path, seconds: float, ship: Process) -> tuple[int, int]:
    """Numbers from 1 on as lines, a new file every second; how many lines and kills there were, 0
    included."""
    begin, written, kills = time.monotonic(), 1, 0
    stream: BinaryIO = log.open("ab", buffering=0)
    for second in range(int(seconds)):
        while (now := time.monotonic() - begin) < second + 1:
            due = 1 + int(min(now, second + 1) * LINES)
            stream.write(b"".join(b"%d\n" % number for number in range(written, due)))
            written = max(written, due)
            time.sleep(0.01)
        stream.close()
        _rotate(log, second)
        stream = log.open("ab", buffering=0)
        if begin + KILL_SECONDS * (kills + 1) < time.monotonic():
            ship.kill9()
            kills += 1
        ship.keep()
    stream.close()
    return written, kills


def _rotate(log: Path, second: int) -> None:
    """By rename, as logrotate and zeekctl do; older ones are compressed, and the oldest removed."""
    os.rename(log, log.with_name(f"conn.{second:06}.log"))
    plain = log.with_name(f"conn.{second - KEPT // 2:06}.log")
    if plain.exists():
        with plain.open("rb") as source, gzip.open(f"{plain}.gz.part", "wb") as packed:
            shutil.copyfileobj(source, packed)
        os.rename(f"{plain}.gz.part", f"{plain}.gz")
        plain.unlink()
    log.with_name(f"conn.{second - KEPT:06}.log.gz").unlink(missing_ok=True)


def _settle(kafka: Kafka, topic: str, ship: Process, written: int) -> float:
    """Waits until everything has arrived, or nothing more does, and stops `ship`; seconds that took
    it."""
    deadline, before = time.monotonic() + PATIENCE, -1
    while time.monotonic() < deadline:
        ship.keep()
        arrived = len(kafka.read(topic))
        if arrived >= written and arrived == before:
            break
        before = arrived
        time.sleep(1)
    return ship.stop()
