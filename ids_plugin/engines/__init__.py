"""Engines: the flows of a sensor → what a bundle makes of them, and why.

There are two kinds. A bundle with `detectors` is judged by them (`detectors.py`): each class has a
detector with inputs and a threshold of its own. Any other bundle is judged by its members together
(`windows.py`): they score the window of every flow. The pipeline knows only the protocols below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import polars as pl

from ids_plugin.detectors import Findings
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import Scores
from ids_plugin.windows.state import BatchWindows


class JudgedBatch(NamedTuple):
    """The flows of one step, judged."""

    flows: pl.DataFrame
    """(n) Flow frame without duplicates, with `known`, `clock` (Datetime, µs) and `replaces`
    (Boolean)"""
    scores: Scores
    """(n)"""
    explain: Callable[[int], Evidence]
    """row over the threshold → its evidence; valid until the next step"""
    windows: BatchWindows
    """(n) what members or detectors look at; valid until the next step"""
    findings: Mapping[str, Findings] = MappingProxyType({})
    """detector → its findings, also those below the threshold; none where members decide"""


class SensorEngine(Protocol):
    """The state of one sensor. It takes flows in the order in which they were known."""

    @property
    def delayed(self) -> int:
        """Flows that came behind the clock."""
        ...

    @property
    def left_early(self) -> int:
        """Flows that left the memory before their time because a limit was reached."""
        ...

    @property
    def pairs(self) -> int:
        """Pairs of hosts that are remembered."""
        ...

    def step(self, flows: pl.DataFrame) -> Iterator[JudgedBatch]:
        """Judges a Flow frame with local flags filled, in one batch or several; use each before the
        next."""
        ...

    def state(self) -> dict[str, Any]:
        """A tree for `checkpoint.dump`; the same after the same flows, wherever batches ended."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own.

        Raises:
            CheckpointError: another version or another kind of engine made it.
        """
        ...


class Engine(Protocol):
    """A bundle, ready to judge."""

    def sensor(self, before: SensorEngine | None = None) -> SensorEngine:
        """The state of a sensor judged by this engine; it goes on with that of `before` where it
        can."""
        ...
