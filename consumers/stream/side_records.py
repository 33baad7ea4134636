"""Records that every stage produces beside its results: ledger entries and rejects."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from ids_plugin.schema.ledger import Ledger
from ids_plugin.schema.reject import MAX_REJECT_BYTES

from .transactions import ProducerRecord


def ledger_record(
    topic: str,
    stage: str,
    instance: str,
    time_ms: int,
    ledger: Ledger,
    further: Mapping[str, Any] | None = None,
) -> ProducerRecord:
    """An increment of the ledger, keyed by the instance.

    Args:
        topic: where it goes.
        stage: the verb that counted.
        instance: name of the process that counted.
        time_ms: wall clock.
        ledger: the counts since the last increment.
        further: further fields of the entry.
    """
    entry = {"stage": stage, "instance": instance, "at": time_ms, "ledger": ledger.to_dict()}
    return ProducerRecord(topic, orjson.dumps(entry | dict(further or {})), instance.encode())


def reject_record(
    topic: str,
    *,
    source_topic: str,
    partition: int,
    offset: int,
    reason: str,
    detail: str,
    shown: str,
    sensor: str,
    data: bytes,
) -> ProducerRecord:
    """A reject: the fields of rejects.ndjson, the place of the record in numbers, and its bytes.

    Args:
        topic: where it goes.
        source_topic: where the unusable record lies, with its `partition` and `offset`.
        partition: of the source topic.
        offset: in the partition.
        reason: the category, as the ledger counts it.
        detail: what exactly is wrong.
        shown: the beginning of the record as text.
        sensor: who wrote the record; empty where that is not known.
        data: bytes of the record; the reject keeps MAX_REJECT_BYTES of them.
    """
    reject = {
        "input": source_topic,
        "place": f"partition {partition} offset {offset}",
        "reason": reason,
        "detail": detail,
        "data": shown,
        "topic": source_topic,
        "partition": partition,
        "offset": offset,
        "sensor": sensor,
        "bytes": base64.b64encode(data[:MAX_REJECT_BYTES]).decode(),
    }
    return ProducerRecord(topic, orjson.dumps(reject))
