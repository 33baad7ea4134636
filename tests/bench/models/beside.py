"""Sections that other benches make: they are run, what they keep is kept with the rest, and their
results are cells."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.bench.models.flows import say
from tests.bench.models.store import Cell

if TYPE_CHECKING:
    from tests.bench.models.sections import Bench

COMPRESSED = ("l_tcn", "cnn_lstm")


def compression(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Recipes of `compress`, step by step."""
    found = _bench("compression", "--families", cell.family, *_folders(bench, "compression"))
    return {"corpus": found["corpus"], "recipes": found["families"][cell.family]}


def variants(bench: Bench, cell: Cell) -> dict[str, Any]:
    """AE-LSTM co-trained, trained apart, without its prediction."""
    return _bench("ae_lstm", "--seeds", "3", *_folders(bench, "ae_lstm"))


def devices(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The ladder of tiny_cnn."""
    return _bench("devices", "--work", str(bench.store.root / "devices"))


def nab(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The Numenta Anomaly Benchmark."""
    return _bench("nab", "--seed", str(cell.seed))


def _folders(bench: Bench, name: str) -> tuple[str, ...]:
    return "--corpus", str(bench.corpus), "--work", str(bench.store.root / name)


def _bench(name: str, *arguments: str) -> dict[str, Any]:
    say(f"python -m tests.bench.{name} --json {' '.join(arguments)}")
    command = [sys.executable, "-m", f"tests.bench.{name}", "--json", *arguments]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    )
    return found
