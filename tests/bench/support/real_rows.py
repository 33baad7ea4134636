"""Judges on public captures of real networks: a bundle, its parts, and floors beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from ids_plugin.bundle import Bundle, find, read
from ids_plugin.engines import Engine
from ids_plugin.engines.opening import open_engine
from ids_plugin.pipeline import Scan, scan
from ids_plugin.schema.alert import Document
from ids_plugin.sources.inputs import read_inputs
from tests.bench.support import baselines
from tests.bench.support.real_captures import (
    Capture,
    Case,
    FalseAlert,
    Verdict,
    judge,
    labelled,
)

FACTORS = (0.5, 0.7, 1.4, 2.0)
"""by which the counters' thresholds are multiplied in the sweep"""


@dataclass(frozen=True)
class Row:
    """One judge."""

    name: str
    title: str
    engine_of: Callable[[Capture], Engine]
    key: str
    """names what is measured in a store; the same key, the same verdict"""
    has_logs: bool = False
    """reads the other logs of a capture too"""


def rows(bundle: Bundle, captures: Sequence[Capture]) -> list[Row]:
    """All judges; nothing is computed before a row is measured."""
    window_bundle = read(find("anomaly_net"))
    of_bundle = [
        Row(
            "bundle",
            "the bundle, conn.log alone",
            _same(lambda: open_engine(bundle)),
            bundle.id,
        ),
        Row(
            "bundle with logs",
            "the bundle, with dns, ssl, x509 and http logs",
            _same(lambda: open_engine(bundle)),
            f"{bundle.id} logs",
            has_logs=True,
        ),
    ]
    floors = [
        Row(
            "anomaly_net",
            "bundle anomaly_net (a network, trees and named behaviours over windows)",
            _same(lambda: open_engine(window_bundle)),
            window_bundle.id,
        ),
        Row(
            "beacons",
            "like RITA: regular contacts of 20 flows or more, score .8",
            _same(baselines.beacons),
            "beacons",
        ),
        Row(
            "lookup",
            "lookup of (proto, conn_state, history), taught on the other sets",
            _lookups(captures),
            "lookup",
        ),
        Row("tcp", '"TCP is remote control"', _same(baselines.tcp_is_malicious), "tcp"),
    ]
    return [*of_bundle, *_counters_rows(bundle), *floors]


def _counters_rows(bundle: Bundle) -> list[Row]:
    """The counters alone, and with other thresholds; none for a bundle without counters."""
    files = [entry.file for entry in bundle.manifest.detectors if entry.kind == baselines.COUNTERS]
    if not files or files[0] is None:
        return []
    digest = bundle.manifest.files[files[0]]
    return [_counters_row(bundle, digest, factor) for factor in (1.0, *FACTORS)]


def _counters_row(bundle: Bundle, digest: str, factor: float) -> Row:
    make = _same(lambda: baselines.counters_alone(bundle, factor))
    title = "its counters alone"
    if factor != 1:
        title += f", thresholds times {factor:g}"
    return Row(sweep_name(factor), title, make, f"{digest} {factor:g}")


def sweep_name(factor: float) -> str:
    """Name of the row of the counters with their thresholds times a factor."""
    return "counters" if factor == 1 else f"counters x {factor:g}"


def _same(make: Callable[[], Engine]) -> Callable[[Capture], Engine]:
    """One engine for all captures, made when the first is judged."""
    made: list[Engine] = []

    def engine_of(capture: Capture) -> Engine:
        if not made:
            made.append(make())
        return made[0]

    return engine_of


def _lookups(captures: Sequence[Capture]) -> Callable[[Capture], Engine]:
    """A table for each set, taught on all the others."""
    by_set: dict[str, pl.DataFrame] = {}
    engines: dict[str, Engine] = {}

    def engine_of(capture: Capture) -> Engine:
        if not by_set:
            parts: dict[str, list[pl.DataFrame]] = {}
            for one in captures:
                parts.setdefault(one.family, []).append(baselines.taught(labelled(one)))
            by_set.update({name: pl.concat(tables) for name, tables in parts.items()})
        if capture.family not in engines:
            others = [table for name, table in by_set.items() if name != capture.family]
            engines[capture.family] = baselines.lookup(pl.concat(others))
        return engines[capture.family]

    return engine_of


def measured(
    row: Row, captures: Sequence[Capture], bundle: Bundle, progress: Callable[[str], None]
) -> Verdict:
    """What a row is worth on all captures."""
    verdict = Verdict()
    counted = [capture for capture in captures if capture.is_counted]
    for number, capture in enumerate(counted, 1):
        engine = row.engine_of(capture)
        verdict.add(judge(capture, documents_of(bundle, engine, capture, has_logs=row.has_logs)))
        if number % 100 == 0:
            progress(f"{row.name}: {number} of {len(counted)}")
    return verdict


def documents_of(
    bundle: Bundle, engine: Engine, capture: Capture, *, has_logs: bool
) -> list[Document]:
    """What a scan of a capture gives."""
    pipeline = baselines.EnginePipeline(bundle, engine)
    path = capture.folder if has_logs else capture.conn_log
    reads = read_inputs([str(path)], batch_rows=50_000, stdin=BytesIO())
    return [document for step in scan(reads, pipeline, Scan()) for document in step]


class Store:
    """Verdicts of rows that were measured before, in a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._content: dict[str, Any] = {}
        if path is not None and path.exists():
            self._content = json.loads(path.read_text())

    def get(self, key: str) -> Verdict | None:
        """The verdict stored under a key; None where there is none."""
        return _verdict(self._content[key]) if key in self._content else None

    def put(self, key: str, verdict: Verdict) -> None:
        """Stores it."""
        self._content[key] = vars(verdict) | {
            "cases": [asdict(case) for case in verdict.cases],
            "false": [asdict(alert) for alert in verdict.false],
        }
        if self._path is not None:
            self._path.write_text(json.dumps(self._content))


def _verdict(content: dict[str, Any]) -> Verdict:
    cases = [Case(**{**case, "classes": tuple(case["classes"])}) for case in content["cases"]]
    false = [FalseAlert(**alert) for alert in content["false"]]
    return Verdict(cases, false, Counter(content["wrong"]), content["hours"], content["alerts"])
