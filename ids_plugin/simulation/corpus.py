"""The corpus that the bundle `anomaly_net` is trained on: three Parquet files and a record of
them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ids_plugin.simulation.generate import simulate_networks
from ids_plugin.simulation.networks import Ranges


class Shard(NamedTuple):
    """One file of the corpus and the networks in it."""

    name: str
    seed: int
    network_count: int
    max_hours: float
    """most hours of one network"""
    ranges: Ranges


CORPUS = (
    Shard("train", 11, 480, 30.0, Ranges()),
    Shard(
        "validation",
        1201,
        96,
        30.0,
        Ranges(period=(8, 5000), jitter=(0.05, 0.9), rate=(1 / 90, 3e3), size=(80, 9000)),
    ),
    Shard(
        "calibration",
        2301,
        120,
        30.0,
        Ranges(period=(4, 9000), jitter=(0, 0.7), attacks=(1, 5), size=(30, 5000)),
    ),
)
RECORD_FILE = "record.json"


def rows_digest(flows: pl.DataFrame) -> str:
    """SHA-256 over the rows of a Flow frame, whichever program wrote the file."""
    text = flows.with_columns(pl.col("ts", "duration").to_physical()).write_csv(None)
    return hashlib.sha256(text.encode()).hexdigest()


def write_shard(frames: Iterable[pl.DataFrame], path: Path) -> dict[str, Any]:
    """Writes the flows of all networks to one Parquet file, and returns its record.

    The record has the keys `file`, `flows`, `labels` (class → flows) and `sha256` (of the rows).

    Raises:
        OSError: the file can't be written.
    """
    flows = pl.concat(list(frames))
    path.parent.mkdir(parents=True, exist_ok=True)
    flows.write_parquet(path, compression="zstd", compression_level=7)
    labels = dict(flows.group_by("label").len().sort("label").iter_rows())
    return {"file": path.name, "flows": len(flows), "labels": labels, "sha256": rows_digest(flows)}


def write_corpus(folder: Path) -> Iterator[dict[str, Any]]:
    """Writes the corpus into `folder`, and yields the record of each shard as soon as it is
    written.

    The rows are the same on every run, whatever the speed of the machine. `record.json` follows the
    last shard; it also holds the versions of NumPy and Polars, because others may draw or round
    otherwise.

    Raises:
        OSError: a file can't be written.
    """
    records = []
    for name, seed, network_count, max_hours, ranges in CORPUS:
        frames = simulate_networks(seed, network_count, max_hours, ranges, name)
        records.append(write_shard(frames, folder / f"{name}.parquet"))
        yield records[-1]
    versions = {"numpy": np.__version__, "polars": pl.__version__}
    record = {"shards": records, "made_with": versions}
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n")
