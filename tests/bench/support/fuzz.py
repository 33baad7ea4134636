"""Part `fuzz` of the bench `wire`: mutated messages of all envelopes through Kafka and a running
normalise."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from ids_plugin.sources.flow_batches import Batch, decode
from tests.bench.support.whole_pipeline import Wire
from tests.support import message_fuzz

Place = tuple[int, int]
"""partition and offset"""
STUCK_SECONDS = 60


def run(home: Path, messages: int, seed: int) -> dict[str, Any]:
    """Sends them, waits until all are read, and looks for a trace of each; `problems` says what was
    wrong."""
    with Wire(home, elastic=False) as wire:
        sent, ends = _send(wire, messages, seed)
        began = time.monotonic()
        wire.run("normalise")
        while sum(wire.committed("normalise", wire.topic).values()) < len(sent):
            if time.monotonic() - wire.watch.moved > STUCK_SECONDS:
                break
            time.sleep(0.2)
        took = time.monotonic() - began
        wire.end("normalise-1")
        flows, rejected = (
            _flows(wire),
            [(one["partition"], one["offset"]) for one in wire.messages("ids.rejects")],
        )
        time.sleep(1)
        total = wire.watch.total.total
        problems = [f"{one.process} ended with {one.code}: {one.log}" for one in wire.exits]
    outside = total.value("out_of_scope")
    silent = len(sent - {*flows, *rejected})
    problems += [f"{silent} messages left no trace, {outside} records out of scope"] * (
        silent > outside + ends
    )
    problems += [f"read: {total.read} of which {total.parsed} parsed"] * (
        total.read != total.parsed + len(rejected)
    )
    problems += [f"parsed: {total.parsed} of which {len(flows)} flows"] * (
        total.parsed != len(flows) + outside
    )
    return {
        "messages": len(sent),
        "records": total.read,
        "flows": len(flows),
        "out_of_scope": outside,
        "rejected": total.rejected,
        "seconds": round(took, 1),
        "problems": problems,
    }


def _send(wire: Wire, messages: int, seed: int) -> tuple[set[Place], int]:
    """Where the messages lie, and how many end marks are among them."""
    futures, ends = [], 0
    with KafkaProducer(bootstrap_servers=wire.kafka.bootstrap, linger_ms=20) as producer:
        for partition in range(wire.partitions):
            for polled in message_fuzz.messages(
                messages // wire.partitions, seed + partition, partition
            ):
                for value, headers in zip(polled.values, polled.headers, strict=True):
                    futures.append(producer.send(wire.topic, value, b"k", list(headers), partition))
                    ends += not value and any(name == "ids-end" for name, _ in headers)
        lie = [future.get(timeout=60) for future in futures]
    return {(one.partition, one.offset) for one in lie}, ends


def _flows(wire: Wire) -> list[Place]:
    """Where the records of all flows lay."""
    found: list[Place] = []
    for record in wire.kafka.read("ids.flows"):
        batch = decode(record.value, record.headers, "ids.flows")
        if isinstance(batch, Batch):
            found += batch.rows.select("partition", "offset").iter_rows()
    return found
