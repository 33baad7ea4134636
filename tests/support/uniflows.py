"""Uniflows that tests make: five classes that two or three numbers tell apart, with noise in the
others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ids_plugin.schema.uniflow import CLASSES, FEATURES


def runs(folder: Path, number: int = 3, rows: int = 120) -> Path:
    """Writes `number` Parquet files of `rows` each into `folder`; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(number):
        made(rows, seed).write_parquet(folder / f"run-{seed}.parquet")
    return folder


def made(rows: int, seed: int) -> pl.DataFrame:
    """`class` and the sixteen numbers."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(CLASSES), rows)
    values = rng.integers(40, 60, (rows, len(FEATURES)))
    at = {name: index for index, name in enumerate(FEATURES)}
    values[:, at["prt_src"]] = rng.integers(32_768, 61_000, rows)
    values[:, at["prt_dst"]] = np.array([443, 9, 9, 22, 1883])[label]
    values[:, at["max_iat"]] = np.array([5_000_000, 1, 2, 30_000, 900])[label] + rng.integers(
        0, 50, rows
    )
    values[:, at["num_bytes"]] = np.array([90_000, 44, 28, 4_000, 700])[label] + rng.integers(
        0, 20, rows
    )
    columns = {name: values[:, index].astype(np.uint32) for name, index in at.items()}
    return pl.DataFrame(
        {"class": [CLASSES[one] for one in label.tolist()], "detail": None, **columns}
    )
