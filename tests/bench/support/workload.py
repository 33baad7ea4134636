"""Traffic of eight sensors with every kind of attack in it, as Zeek would log it, and what a scan
says of it.

Made of the flow simulator's networks (ids_plugin/simulation) and the packet lab's runs
(tests/lab/flows), moved in time so that each sensor watches several networks at once; some
connections are also reported while they are open, and some records come twice. Lines stand in
Zeek's own order. Kept under the system's temporary folder by what they were made from and, for the
documents, by the product that made them.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from ids_plugin.schema.alert import Document
from ids_plugin.schema.flow import SCHEMA, known, with_facts, with_sensor_flags
from ids_plugin.simulation import generate
from ids_plugin.simulation.networks import Ranges
from ids_plugin.sinks.flow_files import to_json

ROOT = Path(__file__).parents[3]
LAB = ROOT / "tests/lab/flows"
SCANNING = ("alerts", "bundles", "explain", "features", "schema", "scoring", "sources", "windows")
"""rooms of the product that decide what a scan says"""
SENSORS = 8
START = datetime(2026, 3, 2, 6, tzinfo=UTC)
HOURS = 6.0
"""most hours of one network"""
APART = timedelta(minutes=40)
"""between the beginnings of a sensor's networks: several are always under way"""
ATTACKS = Ranges(attacks=(3, 7))
OPEN_AFTER = timedelta(minutes=5)
"""connections that last longer are also reported once while they are open"""
TWICE = 0.001
"""share of the records that come twice"""
LATE = timedelta(seconds=60)
"""Zeek writes what isn't TCP a minute after its last packet"""


@dataclass(frozen=True)
class Workload:
    """Logs of sensors and the scan of them."""

    folder: Path
    scan: Path

    @property
    def logs(self) -> dict[str, Path]:
        """Sensor → its conn.log in JSON."""
        return {path.stem: path for path in sorted(self.folder.glob("*.log"))}

    @property
    def inputs(self) -> list[str]:
        """Arguments that name every log and its sensor."""
        sensors = [
            text for name, path in self.logs.items() for text in ("--sensor", f"{name}={path}")
        ]
        return [*map(str, self.logs.values()), *sensors]

    @cached_property
    def about(self) -> dict[str, Any]:
        """records, seconds (of the sensors' clocks), and by class of the scan's opening documents
        how many."""
        made = json.loads((self.folder / "about.json").read_text())
        opened = [
            one for one in self.documents.values() if one["ids_plugin"]["fold"]["state"] == "open"
        ]
        labels = [one["ids_plugin"]["label"] for one in opened]
        return {**made, "folds": {label: labels.count(label) for label in sorted(set(labels))}}

    @cached_property
    def documents(self) -> dict[str, Document]:
        """The scan's documents by event id."""
        lines = (self.scan / "alerts.ndjson").read_bytes().splitlines()
        return {one["event"]["id"]: one for one in map(orjson.loads, lines)}

    @cached_property
    def ledger(self) -> dict[str, Any]:
        """The scan's ledger."""
        found: dict[str, Any] = orjson.loads((self.scan / "ledger.json").read_bytes())
        return found


def workload(records: int, seed: int = 1) -> Workload:
    """At least so many records, an eighth from each sensor; made when it isn't there yet."""
    code = [
        *Path(generate.__file__).parent.rglob("*.py"),
        *LAB.rglob("*.parquet"),
        Path(__file__),
    ]
    folder = _home(f"logs-{records}-{seed}-{_digest(code)}")
    if not (folder / "about.json").exists():
        _write(folder, records, seed)
    product = [
        path
        for part in SCANNING
        for path in (ROOT / "ids_plugin" / part).rglob("*.*")
        if path.suffix != ".pyc"
    ]
    scan = _home(f"scan-{folder.name}-{_digest([ROOT / 'ids_plugin/pipeline.py', *product])}")
    made = Workload(folder, scan)
    if not (scan / "ledger.json").exists():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "ids_plugin.cli",
                "scan",
                *made.inputs,
                "--out",
                str(scan),
                "--quiet",
            ],
            check=True,
        )
    return made


def _home(name: str) -> Path:
    folder = Path(tempfile.gettempdir()) / "ids-plugin-bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(paths: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(f"{path.name}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def _write(folder: Path, records: int, seed: int) -> None:
    count, last = 0, START
    for number in range(SENSORS):
        flows = _sensor(np.random.default_rng([seed, number]), -(-records // SENSORS), seed, number)
        count += flows.height
        last = max(last, flows.select(known().max()).item())
        with (folder / f"sensor-{number}.log").open("wb") as log:
            for piece in flows.iter_slices(250_000):
                log.write(to_json(piece))
    about = {
        "records": count,
        "sensors": SENSORS,
        "seed": seed,
        "seconds": (last - START).total_seconds(),
    }
    (folder / "about.json").write_text(json.dumps(about))


def _sensor(rng: np.random.Generator, records: int, seed: int, number: int) -> pl.DataFrame:
    """What one sensor writes, in the order it does, as Flow frame."""
    parts: list[pl.DataFrame] = []
    for at, flows in enumerate(_networks(seed, number)):
        moved = START + at * APART - flows["ts"].min()  # type: ignore[operator]
        parts.append(flows.with_columns(ts=pl.col("ts") + moved))
        if sum(part.height for part in parts) >= records:
            break
    flows = pl.concat(parts)
    written = known() + pl.when(pl.col("proto") == "tcp").then(timedelta(0)).otherwise(LATE)
    flows = flows.with_columns(written=written)
    more = [_open(flows), flows.filter(pl.Series(rng.random(flows.height) < TWICE))]
    return (
        pl.concat([flows, *more])
        .sort("written", "uid", "open", descending=[False, False, True])
        .drop("written")
    )


def _networks(seed: int, number: int) -> Iterator[pl.DataFrame]:
    """Flow frames: the lab's runs of this sensor, then simulated networks without end."""
    columns = [pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()]
    ours = {
        "sensor": f"sensor-{number}",
        "source": "zeek",
        "label": None,
        "label_detail": None,
        "origin": None,
    }
    renamed = [pl.lit(value, pl.String).alias(name) for name, value in ours.items()]
    for path in sorted(LAB.rglob("*.parquet"))[number::SENSORS]:
        yield (
            with_facts(with_sensor_flags(pl.read_parquet(path)))
            .select(columns)
            .with_columns(renamed)
        )
    count = 0
    while True:
        flows = generate.simulate_network(seed, number + SENSORS * count, HOURS, ATTACKS, "")
        yield flows.select(columns).with_columns(renamed)
        count += 1


def _open(flows: pl.DataFrame) -> pl.DataFrame:
    """What a sensor says of long connections half way: half of everything, and open."""
    counters = [name for name, dtype in SCHEMA.items() if dtype == pl.Int64()]
    return flows.filter(pl.col("duration") > OPEN_AFTER).with_columns(
        *(pl.col(name) // 2 for name in counters),
        open=pl.lit(True),
        duration=pl.col("duration") / 2,
        written=pl.col("ts") + pl.col("duration") / 2,
    )
