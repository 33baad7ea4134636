"""Bench `wire`: raw Zeek JSON in Kafka → alerts in Elasticsearch, all of it on this machine.

    python -m tests.bench.wire [--json] [--flows 1000000] [--seconds 120] [--rotation 600] [--fuzz 100000]

Speed: a backlog is drained; then records come at half of that speed for `seconds`, and each alert's
delay is the time from the Kafka timestamp of the record that opened it until deliver has committed
that Elasticsearch has it, asked for every 20 ms. Beside it, in the same run, kafka-python alone
reads the topic and discards it. CPU seconds are those of whole processes as the kernel counts them.
Rotation: a log that is rotated every second is followed by `ship`, which is killed every seven:
every line once.
Fuzz: mutated messages of all envelopes through normalise: no crash, each accounted for.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from tests.bench.support import fuzz, rotation
from tests.bench.support.sender import Sender, batches
from tests.bench.support.traffic import PIECE, piece
from tests.bench.support.whole_pipeline import VERBS, Wire, cpu, folder

SCANNER_FLOWS = 5_000
"""flows until another host begins to scan"""
SCAN_SHARE = 0.02
BATCH = 50
"""records a batch when they come at a set speed: what a sensor's librdkafka collects in a few
milliseconds"""
READER = """
import sys, time
from kafka import KafkaConsumer
consumer = KafkaConsumer(sys.argv[1], bootstrap_servers=sys.argv[2], auto_offset_reset="earliest",
    max_poll_records=10_000, fetch_max_bytes=1 << 26, max_partition_fetch_bytes=1 << 24)
wanted, count, begin = int(sys.argv[3]), 0, 0.0
while count < wanted:
    count += sum(map(len, consumer.poll(timeout_ms=500).values()))
    begin = begin or time.perf_counter()
print(count / (time.perf_counter() - begin), count / time.process_time())
"""
"""records a second, and a CPU second, of kafka-python that reads and discards"""
STUCK_SECONDS = 120


def main() -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--flows", type=int, default=1_000_000, help="backlog; 0: no measurement of speed"
    )
    parser.add_argument("--seconds", type=float, default=120, help="at half the speed")
    parser.add_argument("--rotation", type=float, default=600, metavar="SECONDS", help="0: none")
    parser.add_argument("--fuzz", type=int, default=100_000, metavar="MESSAGES", help="0: none")
    parser.add_argument("--partitions", type=int, default=4, help="of the source topic")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="leave configuration and logs there")
    args = parser.parse_args()
    home = args.keep or folder()
    result: dict[str, Any] = {
        "repeat": f"python -m tests.bench.wire --flows {args.flows} --seed {args.seed}"
    }
    if args.flows:
        with Wire(home / "speed", partitions=args.partitions) as wire:
            result["speed"] = speed(wire, args.flows, args.seconds, args.seed)
    if args.fuzz:
        result["fuzz"] = fuzz.run(home / "fuzz", args.fuzz, args.seed)
    if args.rotation:
        result["rotation"] = rotation.run(home / "rotation", args.rotation)
    if not args.keep:
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(result) if args.json else "\n".join(_lines(result)))
    return int(any(part.get("problems") for part in result.values() if isinstance(part, dict)))


def _lines(result: Any, path: str = "") -> Iterator[str]:
    if isinstance(result, dict):
        for name, value in result.items():
            yield from _lines(value, f"{path}.{name}" if path else str(name))
    else:
        yield f"{path:<48} {result}"


def traffic(flows: int, seed: int) -> Iterator[bytes]:
    """Lines of a gateway's log, where now and then another host scans a server's ports."""
    rng = np.random.default_rng(seed)
    for first in range(0, flows, PIECE):
        rows = min(PIECE, flows - first)
        number = pl.Series(np.arange(first, first + rows)) // SCANNER_FLOWS
        host = pl.format("10.9.{}.{}", number // 250, number % 250 + 1)
        probe = (pl.col("id.resp_h") == "198.18.0.4") & (pl.col("conn_state") == "S0")
        moved = pl.when(probe).then(host).otherwise("id.orig_h").alias("id.orig_h")
        yield from (
            piece(rng, first, rows, SCAN_SHARE)
            .with_columns(moved)
            .write_ndjson()
            .encode()
            .splitlines()
        )


def speed(wire: Wire, flows: int, seconds: float, seed: int) -> dict[str, Any]:
    """Backlog, then half of that speed."""
    lines = traffic(flows * 3, seed)
    with Sender(wire.kafka.bootstrap, wire.topic, wire.partitions) as sender:
        for batch in batches(islice(lines, flows), 1_000):
            sender.send([batch])
        reader = [sys.executable, "-c", READER, wire.topic, wire.kafka.bootstrap, str(flows)]
        alone = subprocess.run(reader, check=True, capture_output=True, text=True).stdout.split()
        backlog = drain(wire, flows)
        rate = backlog["flows_per_s"] / 2
        half = steady(
            wire, sender, [*batches(islice(lines, round(rate * seconds)), BATCH)], rate, flows
        )
    return {
        "flows": flows,
        "kafka_python_alone_flows_per_s": round(float(alone[0])),
        "kafka_python_alone_flows_per_cpu_s": round(float(alone[1])),
        "backlog": backlog,
        "at_half": half,
        "problems": [f"{one.process} ended with {one.code}: {one.log}" for one in wire.exits],
    }


def drain(wire: Wire, flows: int) -> dict[str, Any]:
    """How fast the backlog goes, and what it costs whom. A stage's first commit only starts its
    clock."""
    meter = Meter(wire)
    for verb in VERBS:
        wire.run(verb)
    _until(wire, lambda: wire.watch.done("detect") >= flows and _delivered(wire))
    steps = {
        verb: [step for step in wire.watch.steps if step.stage == verb and step.done]
        for verb in VERBS
    }
    begin, first = steps["normalise"][0].at, steps["normalise"][0].done
    stages = {
        verb: round(sum(step.done for step in own[1:]) / max(own[-1].at - own[0].at, 1e-3))
        for verb, own in steps.items()
        if verb != "deliver"
    }
    return {
        "flows_per_s": round((flows - first) / (steps["detect"][-1].at - begin)),
        "stages_flows_per_s": stages,
        "alerts": wire.watch.total.total.opened,
        **meter.costs(flows),
    }


def steady(
    wire: Wire, sender: Sender, prepared: list[bytearray], rate: float, before: int
) -> dict[str, Any]:
    """Delays of alerts while `rate` records come a second; `before` records came earlier."""
    meter, acks, sent = Meter(wire), Acks(wire), list[int]()
    acks.start()
    begin = time.monotonic()
    while len(sent) < len(prepared):
        due = int((time.monotonic() - begin) * rate / BATCH) + 1
        some = prepared[len(sent) : due]
        sent += [sender.send(some)] * len(some) if some else []
        time.sleep(0.002)
    took = time.monotonic() - begin
    behind = before + len(sent) * BATCH - wire.watch.done("detect")
    _until(
        wire,
        lambda: wire.watch.done("detect") >= before + (len(sent) - 1) * BATCH and _delivered(wire),
    )
    time.sleep(1)
    acks.stop()
    delays = np.array(list(_delays(wire, acks, sent, before)))
    return {
        "flows_per_s": round(len(sent) * BATCH / took),
        "flows_behind_at_the_end": behind,
        "alerts": len(delays),
        **{
            f"p{share}_s": round(float(np.percentile(delays, share)), 3)
            for share in (50, 99)
            if len(delays)
        },
        **meter.costs(len(sent) * BATCH),
    }


def _delays(wire: Wire, acks: Acks, sent: list[int], before: int) -> Iterator[float]:
    """Seconds from record to acknowledgement, of every fold that a record of `sent` opened."""
    for record in wire.kafka.read("ids.alerts"):
        document = orjson.loads(record.value)
        row = int(document["zeek"]["session_id"][1:]) - before
        if document["ids_plugin"]["fold"]["state"] == "open" and row >= 0:
            yield acks.at(record.partition, record.offset) - sent[row // BATCH] / 1000


class Meter:
    """CPU seconds from now on, of the services and of every consumer."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._before = wire, dict[str, float]()
        self._before = self._now()

    def costs(self, flows: int) -> dict[str, Any]:
        """CPU seconds for 1,000 flows by process, and flows per CPU second."""
        spent = {name: used - self._before.get(name, 0.0) for name, used in self._now().items()}
        return {
            "cpu_s_per_1000_flows": {
                name: round(used / flows * 1000, 4) for name, used in spent.items()
            },
            "flows_per_cpu_s": round(flows / sum(spent.values())),
        }

    def _now(self) -> dict[str, float]:
        servers = {"kafka": self._wire.kafka.pid, "elasticsearch": self._wire.elasticsearch.pid}
        found = {name: cpu(pid) for name, pid in servers.items()}
        return found | {name: process.cpu() for name, process in self._wire.processes.items()}


class Acks(threading.Thread):
    """When deliver's group had committed which offsets of ids.alerts."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(daemon=True)
        self._seen = dict[int, list[tuple[int, float]]]()
        self._where, self._group, self._end = (
            wire.kafka.bootstrap,
            wire.group("deliver"),
            threading.Event(),
        )

    def run(self) -> None:
        with KafkaAdminClient(bootstrap_servers=self._where) as admin:
            while not self._end.wait(0.02):
                found = admin.list_group_offsets({self._group: None})[self._group]
                now = time.time()
                for place, committed in found.items():
                    self._add(place, committed.offset, now)

    def at(self, partition: int, offset: int) -> float:
        """Seconds since the epoch when it was first seen to be behind."""
        return next(at for committed, at in self._seen[partition] if committed > offset)

    def stop(self) -> None:
        self._end.set()
        self.join()

    def _add(self, place: TopicPartition, offset: int, now: float) -> None:
        seen = self._seen.setdefault(place.partition, [])
        if not seen or seen[-1][0] != offset:
            seen.append((offset, now))


def _delivered(wire: Wire) -> bool:
    total = wire.watch.total.total
    return total.documents == total.delivered + total.value("refused")


def _until(wire: Wire, done: Callable[[], bool]) -> None:
    """
    Raises:
        RuntimeError: nothing moves any more.
    """
    while not done():
        if time.monotonic() - wire.watch.moved > STUCK_SECONDS:
            logs = "\n".join(process.log()[-2000:] for process in wire.processes.values())
            raise RuntimeError(f"stuck at {wire.watch.total.total}\n{logs}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
