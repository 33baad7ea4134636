"""Sections that other benches make: they are run, and their results kept as cells."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.bench.models._flows import say
from tests.bench.models._store import Cell

if TYPE_CHECKING:
    from tests.bench.models._sections import Bench


def nab(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The Numenta Anomaly Benchmark."""
    return _bench("nab", "--seed", str(cell.seed))


def _bench(name: str, *arguments: str) -> dict[str, Any]:
    say(f"python -m tests.bench.{name} --json {' '.join(arguments)}")
    command = [sys.executable, "-m", f"tests.bench.{name}", "--json", *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found
