"""Labelled flows → windows as arrays: no activity drowns the others, and flows are degraded as
sources degrade them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.datasets.labelled_flows import Labelled
from ids_plugin.pipeline import BATCH, windowed
from ids_plugin.schema import flow
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Bools, Floats, Ints, Spec, Windows
from ids_plugin.sources.ordering import as_scanned

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """n labelled windows."""

    spec: Spec
    steps: Floats
    """(n, STEPS, F)"""
    mask: Bools
    """(n, STEPS)"""
    table: Floats
    """(n, T)"""
    label: Ints
    """(n) index into CLASSES"""
    activity: Ints
    """(n) number of the (network, class, activity) it belongs to"""

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def weight(self) -> Doubles:
        """(n) sums to 1: half benign, the attack classes equal, activities of a class by the root
        of their size."""
        size = np.bincount(self.activity)
        raw = 1.0 / np.sqrt(size[self.activity])
        for label in np.unique(self.label):
            of_class = self.label == label
            raw[of_class] *= (max(1, len(np.unique(self.label)) - 1) if label == 0 else 1) / raw[
                of_class
            ].sum()
        return np.asarray(raw / raw.sum())

    def take(self, rows: Ints) -> Self:
        """The examples of `rows`."""
        return replace(
            self,
            steps=self.steps[rows],
            mask=self.mask[rows],
            table=self.table[rows],
            label=self.label[rows],
            activity=self.activity[rows],
        )


@dataclass(frozen=True)
class Sampling:
    """How many flows of each activity are kept, and how often a network is seen through a poorer
    source."""

    attack: int = 120
    benign: int = 800
    look_alike: int = 60
    """benign flows of a named activity: backup, monitoring, failed logins, ..."""
    poorer: float = 0.4


def windows(flows: pl.DataFrame) -> Iterator[Windows]:
    """Windows of the flows of one sensor, in the order and by the code of a scan."""
    for _, batch in windowed(ordered_batches(flows)):
        yield batch


def ordered_batches(flows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The flows of one sensor in batches, in the order and with the local flags of a scan."""
    yield from as_scanned(flows).iter_slices(BATCH)


def as_seen_by(source: str, flows: pl.DataFrame) -> pl.DataFrame:
    """The flows as a poorer source gives them: `suricata` (no payload bytes, no history), `elastic`
    (also whole ms)."""
    if source == "zeek":
        return flows
    poorer = flows.with_columns(
        pl.lit(None, flow.SCHEMA[name]).alias(name)
        for name in ("orig_bytes", "resp_bytes", "history", "missed_bytes")
    )
    if source == "suricata":
        return poorer
    whole = (pl.col("duration").dt.total_milliseconds() * 1000).cast(pl.Duration("us"))
    return poorer.with_columns(pl.col("ts").dt.truncate("1ms"), duration=whole)


def sample(networks: Sequence[Labelled], sampling: Sampling, seed: int) -> Examples:
    """Windows of a sample of each network's flows; the windows themselves see every flow."""
    rng = np.random.default_rng(seed)
    parts: list[Examples] = []
    activities = 0
    for network in networks:
        source = rng.choice(
            ["zeek", "suricata", "elastic"], p=[1 - sampling.poorer, *[sampling.poorer / 2] * 2]
        )
        flows, names = _marked(as_seen_by(str(source), network.flows), sampling, rng)
        for batch in windows(flows):
            rows = np.flatnonzero(batch.flows["taken"].to_numpy())
            if len(rows):
                parts.append(_examples(batch, rows, activities))
        activities += names
    return _joined(parts)


def _marked(
    flows: pl.DataFrame, sampling: Sampling, rng: np.random.Generator
) -> tuple[pl.DataFrame, int]:
    """The flows with `taken` (in the sample) and `activity` (its number in this network), and how
    many activities."""
    detail = pl.col("label_detail").fill_null("")
    flows = flows.with_columns(activity=pl.struct("label", detail).rank("dense").cast(pl.Int64) - 1)
    cap = (
        pl.when(pl.col("label") != "benign").then(sampling.attack)
        .when(detail == "").then(sampling.benign).otherwise(sampling.look_alike)
    )  # fmt: skip
    flows = flows.with_columns(dice=pl.Series(rng.permutation(len(flows))))
    taken = pl.col("dice").rank("ordinal").over("activity") <= cap
    return flows.with_columns(taken=taken), int(flows["activity"].n_unique())


def _examples(batch: Windows, rows: Ints, first_activity: int) -> Examples:
    steps = batch.steps(rows)
    label = batch.flows["label"].replace_strict(
        list(CLASSES), list(range(len(CLASSES))), return_dtype=pl.Int64
    )
    activity = batch.flows["activity"].to_numpy()[rows] + first_activity
    return Examples(
        batch.spec, steps.values, steps.mask, batch.table(rows), label.to_numpy()[rows], activity
    )


def _joined(parts: Sequence[Examples]) -> Examples:
    return Examples(
        parts[0].spec,
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.mask for part in parts]),
        np.concatenate([part.table for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.unique(np.concatenate([part.activity for part in parts]), return_inverse=True)[1],
    )
