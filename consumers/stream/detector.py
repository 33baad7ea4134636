"""What `detect` does between reading and committing: records of `ids.flows` in, alert documents out, and its state."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from ids_plugin.alerts import read_allow_list
from ids_plugin.bundle import Bundle
from ids_plugin.config import Config
from ids_plugin.errors import InputError
from ids_plugin.pipeline import BATCH, Pipeline
from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Ledger
from ids_plugin.sources.flow_batches import decode
from ids_plugin.sources.local_networks import LocalRule, networks

from .reorder_buffer import Released, ReorderBuffer, ReorderLimits

FLOWS = 65_536
"""Flows scored between two commits, about."""


class Unreadable(NamedTuple):
    """A record of ids.flows that is none of normalise's, or damaged."""

    record: Any
    detail: str


class Detector:
    """Any number of partitions of `ids.flows` through one pipeline. What it gives depends on the records alone, in the
    order of each partition, wherever batches end and whoever went on from a `state`."""

    def __init__(self, config: Config, bundle: Bundle) -> None:
        """
        Raises:
            BundleError, ConfigError: the bundle, the allow-list or the local networks can't be used.
        """
        told = config.detect
        self.pipeline = Pipeline(bundle, allow=read_allow_list(told.allow))
        self._patience = ReorderLimits(
            told.buffer_ms, round(told.stale_seconds * 1000), held=told.held
        )
        self.local_rule = LocalRule(networks(told.local_nets))
        self._arrivals: dict[int, ReorderBuffer] = {}
        self._sensors: dict[int, set[str]] = {}
        self._released: list[Released] = []
        self.waiting = 0
        """flows that can be scored"""
        self.unreadable: list[Unreadable] = []

    @property
    def held(self) -> int:
        """Flows that wait for those that stand before them."""
        return sum(arrival.held for arrival in self._arrivals.values())

    def take(self, record: Any) -> None:
        """The next record (kafka-python's ConsumerRecord) of its partition."""
        place = f"{record.topic}/{record.partition}/{record.offset}"
        try:
            message = decode(record.value or b"", record.headers, place)
        except InputError as error:
            self.unreadable.append(Unreadable(record, str(error)))
            return
        for released in self._arrivals.setdefault(
            record.partition, ReorderBuffer(self._patience)
        ).take(message):
            self._sensors.setdefault(record.partition, set()).add(released.sensor)
            self._released.append(released)
            self.waiting += max(1, released.flows.height)

    def step(self, now: datetime | None = None) -> list[Document]:
        """Documents of all flows that can be scored; `now` is what they carry as `event.ingested`."""
        released, self._released, self.waiting = self._released, [], 0
        documents: list[Document] = []
        for sensor in dict.fromkeys(one.sensor for one in released):
            for flows, ended in _inputs([one for one in released if one.sensor == sensor]):
                for start in range(0, len(flows), BATCH):
                    part = self.local_rule.judge(flows[start : start + BATCH])
                    documents += self.pipeline.step(part, now)
                documents += self.pipeline.end(sensor, now) if ended else []
        for one in released:
            for source, count in one.duplicates.items():
                self.pipeline.ledger.of(source, one.sensor).duplicate += count
        return documents

    def counted(self) -> Ledger:
        """The ledger since the last call."""
        ledger, self.pipeline.ledger = self.pipeline.ledger, Ledger()
        return ledger

    def state(self, partition: int) -> dict[str, Any]:
        """What a partition's records left behind, once `step` was called; as `snapshot.dump` takes it."""
        arrival = self._arrivals.get(partition) or ReorderBuffer(self._patience)
        return {
            "arrival": arrival.state(),
            "sensors": self.pipeline.state(self._sensors.get(partition, ())),
        }

    def restore(self, partition: int, state: dict[str, Any]) -> list[str]:
        """Goes on where `state` was taken; returns the sensors whose windows begin anew (`Pipeline.restore`)."""
        self.forget(partition)
        self._arrivals[partition] = arrival = ReorderBuffer(self._patience)
        arrival.restore(state["arrival"])
        self._sensors[partition] = set(state["sensors"])
        return self.pipeline.restore(state["sensors"])

    def forget(self, partition: int) -> None:
        """Drops the state of a partition."""
        self._arrivals.pop(partition, None)
        self.pipeline.forget(self._sensors.pop(partition, set()))

    def undo(self) -> None:
        """Drops what was taken in since the last `step`, and all counts; its partitions have to be restored."""
        self._released, self.waiting, self.unreadable = [], 0, []
        self.counted()

    def clear(self) -> None:
        """Drops everything."""
        self.undo()
        for partition in list(self._arrivals):
            self.forget(partition)


def _inputs(released: list[Released]) -> Iterator[tuple[pl.DataFrame, bool]]:
    """Flows of one sensor up to each end of its input, and whether it ended there."""
    frames: list[pl.DataFrame] = []
    for one in released:
        frames.append(one.flows)
        if one.ended:
            yield pl.concat(frames), True
            frames = []
    if frames:
        yield pl.concat(frames), False
