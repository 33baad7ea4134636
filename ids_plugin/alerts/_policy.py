"""Which behaviour of which host a flow over the threshold is: the key under which it folds.

The subject is the local host; where both or neither are local, the originator; for a flood the victim. What strangers
do to every host that the internet can reach is noise, whatever the models call it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.alerts._totals import Flows
from ids_plugin.schema.alert import ACTOR, TARGET
from ids_plugin.schema.score import CLASSES, Scores

Ints = npt.NDArray[np.int64]

_BENIGN, _FLOOD, _NOISE = (CLASSES.index(name) for name in ("benign", "flood", "inbound_noise"))
_NOISY = [CLASSES.index(name) for name in ("scan", "brute_force", "spreading", "inbound_noise")]
_NEEDED = ["source", "open", "replaces", "ts", "known", "clock", "uid", "orig_h", "resp_h", "resp_p", "proto",
           "local_orig", "local_resp", "orig_bytes", "resp_bytes", "orig_ip_bytes", "resp_ip_bytes", "orig_pkts",
           "resp_pkts"]  # fmt: skip


class Key(NamedTuple):
    """What makes two flows of one sensor the same behaviour of the same host."""

    subject: str
    role: str
    kind: str
    """class"""


class Batch(NamedTuple):
    """The flows of a batch that fold, as columns."""

    rows: Ints
    """of the whole batch"""
    clock: Ints
    """µs since the epoch"""
    score: npt.NDArray[np.float64]
    flows: Flows
    source: pl.Series


def judge(flows: pl.DataFrame, scores: Scores, over: Ints) -> pl.DataFrame:
    """The flows of rows `over`, with `row`, `kind` (class), `role`, `subject` and `peer`."""
    chosen = flows.select(_NEEDED)[over].with_columns(pl.col("source").fill_null(""))
    orig, resp = (chosen[name].fill_null(value=False).to_numpy() for name in ("local_orig", "local_resp"))
    stranger = ~orig & resp
    label = _labels(scores.label[over], scores.probability[over], stranger)
    target = pl.Series("target", stranger | (label == _FLOOD), pl.Boolean)
    return chosen.with_columns(
        pl.Series("row", over, pl.Int64), pl.Series("kind", CLASSES).gather(label), target
    ).with_columns(
        pl.when("target").then(pl.lit(TARGET)).otherwise(pl.lit(ACTOR)).alias("role"),
        pl.when("target").then("resp_h").otherwise("orig_h").alias("subject"),
        pl.when("target").then("orig_h").otherwise("resp_h").alias("peer"),
    )


def _labels(label: Ints, probability: npt.NDArray[np.float64], stranger: npt.NDArray[np.bool_]) -> Ints:
    """Classes by policy: strangers make noise, and nobody else does (the next likeliest class is taken)."""
    rest = probability.copy()
    rest[:, [_BENIGN, _NOISE]] = -1.0
    of_insiders = np.where(label == _NOISE, rest.argmax(axis=1), label)
    return np.where(stranger, np.where(np.isin(label, _NOISY), _NOISE, label), of_insiders).astype(np.int64)


def keys(judged: pl.DataFrame) -> Iterator[tuple[Key, Ints]]:
    """Fold keys in the order of their first flow, with their rows of `judged`."""
    grouped = (
        judged.with_row_index("at")
        .group_by("subject", "role", "kind", maintain_order=True)
        .agg(pl.col("at").cast(pl.Int64))
    )
    for subject, role, kind, rows in grouped.iter_rows():
        yield Key(subject, role, kind), np.array(rows, np.int64)


def batch(judged: pl.DataFrame, scores: Scores) -> Batch:
    """Judged flows as columns."""
    numbers = judged.select(
        "orig_bytes",
        "resp_bytes",
        ip_bytes=pl.col("orig_ip_bytes") + pl.col("resp_ip_bytes"),
        packets=pl.col("orig_pkts") + pl.col("resp_pkts"),
    )
    flows = Flows(
        ts=micros(judged, "ts"),
        known=micros(judged, "known"),
        uid=judged["uid"].to_list(),
        peer=judged["peer"].to_list(),
        port=judged.select(pl.when(pl.col("proto") != "icmp").then("resp_p")).to_series().to_list(),
        sums=numbers.fill_null(0).to_numpy(),
        has=numbers.select(pl.all().is_not_null()).to_numpy(),
        open=judged["open"].fill_null(value=False).to_numpy(),
        replaces=judged["replaces"].fill_null(value=False).to_numpy(),
    )
    rows = judged["row"].to_numpy()
    return Batch(rows, micros(judged, "clock"), scores.score[rows], flows, judged["source"])


def micros(frame: pl.DataFrame, name: str) -> Ints:
    """A time column in µs since the epoch."""
    return frame[name].dt.cast_time_unit("us").cast(pl.Int64).to_numpy()
