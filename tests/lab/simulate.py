"""Labelled flows of simulated networks: `python -m tests.lab.simulate --seed 7 --networks 4 --hours 6 --out flows.parquet`.

Hours and days of many networks at the level of flow records, which the packet lab's minutes can't give. The same seed
gives the same flows. `--corpus` writes the training, validation and calibration shards; `--check` shows how far
trivial rules get. What is simulated, from which ranges, and what this can't be: docs/lab-simulated.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from tests.lab import _sim_attacks, _sim_benign
from tests.lab._sim_net import Ranges, draw, one
from tests.lab._sim_wire import before, render

CORPUS: dict[str, tuple[int, int, float, Ranges]] = {
    "train": (11, 240, 24.0, Ranges()),
    "validation": (1201, 60, 24.0, Ranges(period=(8.0, 5000.0), jitter=(0.05, 0.9), rate=(1 / 90, 3e3), size=(80, 9000))),
    "calibration": (2301, 80, 24.0, Ranges(period=(4.0, 9000.0), jitter=(0.0, 0.7), attacks=(1, 4), size=(30, 5000))),
}
"""shard → seed, networks, most hours of one, ranges to draw from"""


FLOWS = (1500, 12000)
"""Fewest and most benign flows of one network; a recording ends when it has as many as drawn"""


def network(seed: int, number: int, hours: float, ranges: Ranges, name: str) -> pl.DataFrame:
    """Flow frame of one network, in known order. Depends on its arguments alone."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
    net = draw(rng, name, hours, number, ranges)
    batches = [b for activity in _sim_benign.ACTIVITIES for b in activity(net, rng)]
    times = np.sort(np.concatenate([b.t for b in batches]))
    budget = int(one(rng, *FLOWS))
    net.seconds = float(min(net.seconds, times[min(budget, len(times) - 1)]))
    batches = [before(b, net.seconds) for b in batches]
    attacks = _sim_attacks.campaign(net, rng)
    batches += _sim_benign.noise(net, rng)
    batches += _sim_benign.resolve(net, rng, [*batches, *attacks])
    batches = [b for b in [*batches, *attacks] if len(b.t)]
    return render(rng, batches, net.sensor)


def networks(seed: int, count: int, hours: float, ranges: Ranges, prefix: str) -> Iterator[pl.DataFrame]:
    """Flow frames of `count` networks, each a sensor of its own."""
    for number in range(count):
        yield network(seed, number, hours, ranges, f"{prefix}-{number:03d}")


def digest(frame: pl.DataFrame) -> str:
    """SHA-256 over a frame's rows, whatever wrote the file."""
    text = frame.with_columns(pl.col("ts", "duration").to_physical()).write_csv(None)
    return hashlib.sha256(text.encode()).hexdigest()


def write(frames: Iterator[pl.DataFrame], path: Path) -> dict[str, object]:
    """One Parquet file of all frames; says what is in it."""
    begin = time.perf_counter()
    frame = pl.concat(list(frames))
    made = time.perf_counter() - begin
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path, compression="zstd", compression_level=7)
    counts = dict(frame.group_by("label").len().sort("label").iter_rows())
    return {"file": path.name, "flows": len(frame), "flows_per_second": round(len(frame) / made), "bytes": path.stat().st_size, "labels": counts, "sha256": digest(frame)}


def corpus(out: Path) -> list[dict[str, object]]:
    """The default corpus under `out`, with its record."""
    record = []
    for name, (seed, count, hours, ranges) in CORPUS.items():
        record.append(write(networks(seed, count, hours, ranges, name), out / f"{name}.parquet"))
        print(json.dumps(record[-1]), flush=True)
    (out / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--hours", type=float, default=24.0, help="most hours of one network; how many it gets is drawn")
    parser.add_argument("--out", type=Path, required=True, help="a Parquet file; a folder with --corpus")
    parser.add_argument("--corpus", action="store_true", help="write the training, validation and calibration shards")
    options = parser.parse_args(arguments)
    if options.corpus:
        corpus(options.out)
        return 0
    frames = networks(options.seed, options.networks, options.hours, Ranges(), f"simulated-{options.seed}")
    print(json.dumps(write(frames, options.out), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
