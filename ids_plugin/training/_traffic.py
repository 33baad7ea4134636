"""Flows in the order in which they were known → windows and scores, sensor by sensor, as in the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from ids_plugin import features
from ids_plugin.schema.score import Scores
from ids_plugin.scoring._scorer import Scorer
from ids_plugin.windows._state import BatchWindows, Windower


def scored(batches: Iterable[pl.DataFrame], scorer: Scorer) -> Iterator[tuple[str, BatchWindows, Scores]]:
    """(sensor, windows, scores) batch by batch; `batches`: Flow frames with local flags filled.

    Use each before asking for the next.
    """
    windowers: dict[str, Windower] = {}
    for batch in batches:
        for (sensor,), part in batch.partition_by("sensor", as_dict=True, maintain_order=True).items():
            windower = windowers.setdefault(str(sensor), Windower())
            for windows in windower.step(features.add(part)):
                yield str(sensor), windows, scorer.score(windows)
