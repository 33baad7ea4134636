"""A window: a flow as the last step, up to k earlier flows of its pair before it, and what its
hosts did of late.

Feature values are float32, NaN where the source can't know them. Everything a model sees has a name
here or in a feature file; addresses, uids, absolute times and raw port numbers are not among them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

EARLIER = 10
"""k: how many earlier flows of the same pair a window holds at most, as in all five
published systems."""
STEPS = EARLIER + 1
"""Steps of a window: the earlier flows, then the flow itself."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Feature(NamedTuple):
    """One number a model sees: its name, unit, and how a sentence calls it ("failed connections in
    10 min")."""

    name: str
    unit: str
    text: str


@dataclass(frozen=True)
class Spec:
    """Names and order of everything in a window; its fingerprint ties a bundle to the code that
    computes them."""

    flow: tuple[Feature, ...]
    """of every step: columns of the Flow frame that `features/` adds"""
    step: tuple[Feature, ...]
    """of every step, after `flow`: what only a sequence has (interval, direction)"""
    context: tuple[Feature, ...]
    """of the flow: rolling behaviour of its pair and of both hosts, always computed"""
    summary: tuple[Feature, ...]
    """of the flow: statistics over the window, computed on demand"""

    @property
    def sequence(self) -> tuple[Feature, ...]:
        """Features of one step of `Windows.steps`, in order."""
        return self.flow + self.step

    @property
    def table(self) -> tuple[Feature, ...]:
        """Features of one row of `Windows.table`, in order."""
        return self.flow + self.context + self.summary

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the names, units and order."""
        parts = ("flow", "step", "context", "summary")
        named = {part: [feature[:2] for feature in getattr(self, part)] for part in parts}
        return hashlib.sha256(json.dumps({"earlier": EARLIER, **named}).encode()).hexdigest()


class Steps(NamedTuple):
    """The sequence part of m windows; the flow itself is the last step, missing steps stand first
    and are masked."""

    values: Floats
    """(m, STEPS, len(spec.sequence))"""
    mask: Bools
    """(m, STEPS), True where there is a flow"""


class Windows(Protocol):
    """The windows of one batch of n flows of one sensor, in the order in which they were known.

    Parts that cost time are computed for the rows asked for. Valid until the next batch is taken.
    """

    spec: Spec
    flows: pl.DataFrame
    """(n) Flow frame with the columns `features/` added and `known`, `clock`, `replaces`"""
    context: Floats
    """(n, len(spec.context)), in column order (Fortran)"""

    def __len__(self) -> int: ...

    def steps(self, rows: Ints) -> Steps:
        """The sequences of the windows of `rows`."""
        ...

    def summary(self, rows: Ints) -> Floats:
        """(m, len(spec.summary)): statistics over the windows of `rows`."""
        ...

    def table(self, rows: Ints) -> Floats:
        """(m, len(spec.table)): flow, context and summary features of `rows`, what a tree sees."""
        ...

    def earlier(self, row: int) -> list[EarlierFlow]:
        """The earlier flows of the pair in the window of `row`, oldest first."""
        ...

    def flow(self, row: int) -> EarlierFlow:
        """The flow of `row` itself."""
        ...

    def host_flows(self, row: int, limit: int) -> list[EarlierFlow]:
        """Latest flows of the originator of `row` that made its rolling features, newest last."""
        ...


class EarlierFlow(NamedTuple):
    """What evidence says of an earlier flow; times in µs since the epoch, durations in µs, None
    where unknown."""

    uid: str
    ts: int
    known: int
    orig_h: str
    orig_p: int | None
    resp_h: str
    resp_p: int | None
    proto: str
    conn_state: str | None
    duration: int | None
    orig_bytes: int | None
    resp_bytes: int | None
    reverse: bool
    """its originator is the responder of the flow it stands before"""
