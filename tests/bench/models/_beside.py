"""Sections of other benches and of `compress`: they are run, and their results kept as cells."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from ids_plugin.compress._cost import as_row, measured
from ids_plugin.compress._run import MODEL, stages
from tests.bench.models._families import judge, known, of_bundle, told
from tests.bench.models._flows import say
from tests.bench.models._store import Cell

if TYPE_CHECKING:
    from tests.bench.models._sections import Bench

RECIPES = {
    "l_tcn": (
        "int8",
        "prune=0.9 tune int8",
        "prune=0.9 distil int8",
        "magnitude=0.6",
        "magnitude=0.8",
        "magnitude=0.4",
    ),
    "cnn_lstm": ("int8", "prune=0.9 tune int8", "prune=0.9 distil int8"),
    "anomaly_net": ("int8",),
}
"""family → steps, as `ids-plugin compress --steps` has them"""
COMPRESSED = tuple(f"{family}: {recipe}" for family, recipes in RECIPES.items() for recipe in recipes)


def compression(bench: Bench, cell: Cell) -> dict[str, Any]:
    """A family trained on the lab, after every step of a recipe: what it costs, and what it is worth where nothing
    chose anything, on the lab's unseen runs."""
    family, _, recipe = cell.family.partition(": ")
    data, settings = bench.data.lab, bench.settings
    bundle = bench.lab_bundle(family, cell.seed)
    fit = settings.options(family, cell.seed).fit
    rows: list[dict[str, Any]] = []
    models: dict[str, bytes] = {}
    for stage in stages(bundle, recipe.split(), data.stop, data.train, fit=fit, seed=cell.seed, progress=say):
        name = f"{len(rows)} {stage.step}"
        judged = told(judge(of_bundle(stage.bundle), {}, bench.data.judged("lab")), known(bundle))
        rows.append({**stage.row, "test_macro_f1": judged["macro_f1"]})
        models[name] = stage.bundle.file(MODEL)
    for row, one in zip(rows, measured(models).values(), strict=True):
        row |= as_row(one)
    return {"rows": rows}


def nab(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The Numenta Anomaly Benchmark."""
    return _bench("nab", "--seed", str(cell.seed))


def devices(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The ladder of tiny_cnn."""
    return _bench("devices")


def _bench(name: str, *arguments: str) -> dict[str, Any]:
    say(f"python -m tests.bench.{name} --json {' '.join(arguments)}")
    command = [sys.executable, "-m", f"tests.bench.{name}", "--json", *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found
