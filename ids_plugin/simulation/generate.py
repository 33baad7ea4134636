"""Labelled flows of simulated networks: `python -m ids_plugin.simulation.generate --seed 7 --networks 4 --hours 6 --out F.parquet`.

Hours and days of many networks at the level of flow records, which the packet lab's minutes can't give. The same seed
gives the same flows. `--corpus` writes the training, validation and calibration shards; `--check` shows what is in
them and how far trivial rules get. What is simulated, from which ranges, and what this can't be:
docs/lab-simulated.md.
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

from ids_plugin.schema.score import CLASSES
from ids_plugin.simulation import activities, attacks, check
from ids_plugin.simulation.lookalikes import LOOKALIKES, noise, unchecked
from ids_plugin.simulation.networks import Draw, Network, Ranges, draw, one
from ids_plugin.simulation.records import Batch, before, behind, outage, render, seen, widen

CORPUS: dict[str, tuple[int, int, float, Ranges]] = {
    "train": (11, 480, 30.0, Ranges()),
    "validation": (
        1201,
        96,
        30.0,
        Ranges(period=(8, 5000), jitter=(0.05, 0.9), rate=(1 / 90, 3e3), size=(80, 9000)),
    ),
    "calibration": (
        2301,
        120,
        30.0,
        Ranges(period=(4, 9000), jitter=(0, 0.7), attacks=(1, 5), size=(30, 5000)),
    ),
}
"""shard → seed, networks, most hours of one, ranges to draw from"""

FLOWS = (2000, 15000)
"""Fewest and most benign flows of one network; a recording ends when it has as many as drawn"""
VIOLENT = ("scan", "flood", "spreading", "brute_force", "inbound_noise")
"""Classes whose peers outside are never reached by IPv6: nobody guesses such addresses"""


def network(seed: int, number: int, hours: float, ranges: Ranges, name: str) -> pl.DataFrame:
    """Flow frame of one network, in known order. Depends on its arguments alone."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
    net = draw(rng, name, hours, seed % 4096 * 4096 + number % 4096, ranges)
    batches = [b for activity in (*activities.ACTIVITIES, *LOOKALIKES) for b in activity(net, rng)]
    times = np.sort(np.concatenate([b.t for b in batches]))
    budget = int(one(rng, *FLOWS))
    net.seconds = float(min(net.seconds, times[min(budget, len(times) - 1)]))
    batches = [before(b, net.seconds) for b in batches]
    if rng.random() < 0.1:
        batches = [unchecked(net, rng, b) for b in batches]
    active = np.intersect1d(net.hosts, np.concatenate([b.orig for b in batches]))
    attack_batches = attacks.campaign(net, rng, active)
    lookups = activities.resolve(net, rng, [*batches, *attack_batches])
    wired = [
        seen(b) for b in placed(net, rng, [*batches, *attack_batches, *lookups, *noise(net, rng)])
    ]
    return render(rng, [b for b in wired if len(b.t)], net.sensor)


def placed(net: Network, rng: Draw, batches: list[Batch]) -> list[Batch]:
    """The contacts as this network's line and the sensor's place on it let them be seen."""
    if rng.random() < 0.15:
        begin = rng.uniform(0, net.seconds)
        end = begin + one(rng, 30, 2400)
        batches = [outage(b, net.sensor, begin, end) for b in batches]
    if not net.public and rng.random() < 0.07:
        return [behind(b, net.sensor, net.gateway) for b in batches]
    if net.six:
        return [b if CLASSES[b.label] in VIOLENT else widen(b, net.sensor) for b in batches]
    return batches


def networks(
    seed: int, count: int, hours: float, ranges: Ranges, prefix: str
) -> Iterator[pl.DataFrame]:
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
    print(f"{path.name}: {len(frame)} flows, {len(frame) / made:.0f}/s", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path, compression="zstd", compression_level=7)
    counts = dict(frame.group_by("label").len().sort("label").iter_rows())
    return {"file": path.name, "flows": len(frame), "labels": counts, "sha256": digest(frame)}


def corpus(out: Path) -> None:
    """The default corpus under `out`, with its record: the same on every run, whatever the machine's speed."""
    record = [
        write(networks(seed, count, hours, ranges, name), out / f"{name}.parquet")
        for name, (seed, count, hours, ranges) in CORPUS.items()
    ]
    versions = {"numpy": np.__version__, "polars": pl.__version__}
    (out / "record.json").write_text(
        json.dumps({"shards": record, "made_with": versions}, indent=1) + "\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ids_plugin.simulation.generate", description=__doc__
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument(
        "--hours", type=float, default=24.0, help="most hours of one network; how many are drawn"
    )
    parser.add_argument("--out", type=Path, help="a Parquet file; a folder with --corpus")
    parser.add_argument(
        "--corpus",
        action="store_true",
        help="write the training, validation and calibration shards",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="say what is in the flows and how far trivial rules get",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.corpus and options.out:
        corpus(options.out)
        return 0
    frames = networks(
        options.seed, options.networks, options.hours, Ranges(), f"simulated-{options.seed}"
    )
    if options.check:
        print(
            check.report(pl.read_parquet(options.out) if options.out else pl.concat(list(frames)))
        )
    elif options.out:
        print(json.dumps(write(frames, options.out), indent=1))
    else:
        print("--out is missing", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
