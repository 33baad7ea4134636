"""The processing step of `detect`: records of `ids.flows` in, alert documents and state out."""

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


class UnreadableRecord(NamedTuple):
    """A record of ids.flows that normalise did not write, or that is damaged."""

    record: Any
    """kafka-python's ConsumerRecord"""
    detail: str


class Detector:
    """Any number of partitions of `ids.flows` through one pipeline.

    The documents depend on the records alone, in the order of each partition, wherever batches end
    and whichever process continues from a `state`.
    """

    def __init__(self, config: Config, bundle: Bundle) -> None:
        """
        Raises:
            BundleError, ConfigError: the bundle, the allow-list or the local networks can't be
                used.
        """
        settings = config.detect
        self.pipeline = Pipeline(bundle, allow=read_allow_list(settings.allow))
        self._limits = ReorderLimits(
            visibility_ms=settings.buffer_ms,
            idle_partition_ms=round(settings.stale_seconds * 1000),
            max_held_records=settings.held,
        )
        self.local_rule = LocalRule(networks(settings.local_nets))
        self._buffers: dict[int, ReorderBuffer] = {}
        self._sensors: dict[int, set[str]] = {}
        """partition → sensors whose flows came from it"""
        self._released: list[Released] = []
        self.ready_flows = 0
        """flows that the next `step` scores"""
        self.unreadable: list[UnreadableRecord] = []

    @property
    def held_flows(self) -> int:
        """Flows that wait in a reorder buffer for flows before them."""
        return sum(buffer.held_records for buffer in self._buffers.values())

    def add(self, record: Any) -> None:
        """Takes the next record (kafka-python's ConsumerRecord) of its partition."""
        place = f"{record.topic}/{record.partition}/{record.offset}"
        try:
            message = decode(record.value or b"", record.headers, place)
        except InputError as error:
            self.unreadable.append(UnreadableRecord(record, str(error)))
            return
        buffer = self._buffers.setdefault(record.partition, ReorderBuffer(self._limits))
        for released in buffer.add(message):
            self._sensors.setdefault(record.partition, set()).add(released.sensor)
            self._released.append(released)
            self.ready_flows += max(1, released.flows.height)

    def step(self, now: datetime | None = None) -> list[Document]:
        """Scores all released flows; their documents carry `now` as `event.ingested`."""
        released, self._released, self.ready_flows = self._released, [], 0
        documents: list[Document] = []
        for sensor in dict.fromkeys(part.sensor for part in released):
            of_sensor = [part for part in released if part.sensor == sensor]
            for flows, is_end in _joined_until_end(of_sensor):
                for start in range(0, len(flows), BATCH):
                    batch = self.local_rule.judge(flows[start : start + BATCH])
                    documents += self.pipeline.step(batch, now)
                if is_end:
                    documents += self.pipeline.end(sensor, now)
        for part in released:
            for source, count in part.duplicates.items():
                self.pipeline.ledger.of(source, part.sensor).duplicate += count
        return documents

    def take_ledger(self) -> Ledger:
        """The ledger since the last call."""
        ledger, self.pipeline.ledger = self.pipeline.ledger, Ledger()
        return ledger

    def state(self, partition: int) -> dict[str, Any]:
        """The state of a partition, as `checkpoint.dump` takes it; to be called after `step`."""
        buffer = self._buffers.get(partition) or ReorderBuffer(self._limits)
        return {
            "arrival": buffer.state(),
            "sensors": self.pipeline.state(self._sensors.get(partition, ())),
        }

    def restore(self, partition: int, state: dict[str, Any]) -> list[str]:
        """Continues where `state` was taken; returns the sensors whose windows begin anew, because
        another version wrote them (`Pipeline.restore`)."""
        self.forget(partition)
        self._buffers[partition] = buffer = ReorderBuffer(self._limits)
        buffer.restore(state["arrival"])
        self._sensors[partition] = set(state["sensors"])
        return self.pipeline.restore(state["sensors"])

    def forget(self, partition: int) -> None:
        """Drops the state of a partition."""
        self._buffers.pop(partition, None)
        self.pipeline.forget(self._sensors.pop(partition, set()))

    def discard_pending(self) -> None:
        """Drops what was released since the last `step`, and all counts; the partitions that it
        came from have to be restored."""
        self._released, self.ready_flows, self.unreadable = [], 0, []
        self.take_ledger()

    def clear(self) -> None:
        """Drops the state of all partitions."""
        self.discard_pending()
        for partition in list(self._buffers):
            self.forget(partition)


def _joined_until_end(released: list[Released]) -> Iterator[tuple[pl.DataFrame, bool]]:
    """Flows of one sensor up to each end of its input, and whether it ended there."""
    frames: list[pl.DataFrame] = []
    for part in released:
        frames.append(part.flows)
        if part.is_end:
            yield pl.concat(frames), True
            frames = []
    if frames:
        yield pl.concat(frames), False
