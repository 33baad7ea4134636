"""Traffic over time for the report's timeline, in bounded memory whatever the input's length."""

from __future__ import annotations

import polars as pl

from ids_plugin.sinks import TrafficBucket

MAX_BUCKETS = 240
"""of a timeline: one bar every five pixels of a wide screen"""
SMALLEST_BUCKET_US = 1_000_000


class Traffic:
    """Counts flows and bytes by interval; intervals double in width when there are too many."""

    def __init__(self) -> None:
        self._width = SMALLEST_BUCKET_US
        self._counts: dict[int, tuple[int, int]] = {}

    def see(self, flows: pl.DataFrame) -> None:
        """Takes in a Flow frame, in any order."""
        volume = pl.sum_horizontal("orig_ip_bytes", "resp_ip_bytes").fill_null(0)
        counted = (
            flows.lazy()
            .group_by((pl.col("ts").dt.epoch("us") // self._width).alias("at"))
            .agg(pl.len(), volume.sum().alias("bytes"))
            .collect()
        )
        for slot, count, size in counted.iter_rows():
            before = self._counts.get(slot, (0, 0))
            self._counts[slot] = before[0] + count, before[1] + int(size or 0)
        while len(self._counts) > MAX_BUCKETS:
            self._coarsen()

    def _coarsen(self) -> None:
        self._width *= 2
        coarse: dict[int, tuple[int, int]] = {}
        for slot, (count, size) in self._counts.items():
            before = coarse.get(slot // 2, (0, 0))
            coarse[slot // 2] = before[0] + count, before[1] + size
        self._counts = coarse

    def buckets(self) -> list[TrafficBucket]:
        """Stretches of equal width with traffic, oldest first; times in µs since the epoch."""
        return [
            TrafficBucket(t=slot * self._width, flows=count, bytes=size)
            for slot, (count, size) in sorted(self._counts.items())
        ]
