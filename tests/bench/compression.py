"""What compressing the two published networks costs: `python -m tests.bench.compression --corpus
DIR --work DIR`.

DIR of the corpus is what `ids-plugin simulate --corpus --out DIR` makes. The networks are trained,
compressed by several recipes, step by step, and judged on windows of the lab's judge runs, which
choose nothing. What is finished is kept in the work folder, so that a second run goes on where the
first stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ids_plugin import registry
from ids_plugin.bundle import Bundle, describe, pack, read, seal
from ids_plugin.compression.cost import as_row, macro_f1, macs, measured
from ids_plugin.compression.int8 import quantised
from ids_plugin.compression.run import stages
from ids_plugin.compression.unroll_lstm import unrolled
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.models import l_tcn, lstm
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training.examples import Examples, Sampling, sample
from ids_plugin.training.options import Fit, Options
from ids_plugin.training.run import divide
from ids_plugin.training.torch_network import (
    MODEL,
    WEIGHTS,
    FittedNetwork,
    export,
    fit,
    restore,
    weights,
)
from tests.bench.support.page import between

ROOT = Path(__file__).resolve().parents[2]
FLOWS = ROOT / "tests" / "lab" / "flows"
SEED = 1
FULL = "published form"


class Plan(NamedTuple):
    """How a family is trained, and the recipes that are compared."""

    fit: Fit
    again: Fit
    """how it is trained again"""
    recipes: dict[str, tuple[str, ...]]


RECIPES = {
    "quantisation alone": ("int8",),
    "pruning alone": ("prune=0.9", "tune"),
    "pruning, distillation, int8": ("prune=0.9", "distil", "int8"),
    "pruning, distillation, quantisation-aware": ("prune=0.9", "distil", "qat"),
}
PLANS = {
    "l_tcn": Plan(
        Fit(epochs=12, windows=40_000),
        Fit(epochs=24, windows=20_000),
        {
            **RECIPES,
            "magnitude 40 %": ("magnitude=0.4",),
            "magnitude 60 %": ("magnitude=0.6",),
            "magnitude 80 %": ("magnitude=0.8",),
        },
    ),
    "cnn_lstm": Plan(
        Fit(epochs=7, windows=20_000),
        Fit(epochs=12, windows=20_000),
        RECIPES,
    ),
}


class Data:
    """Windows, each made when first asked for."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus
        runs = f"lab:{FLOWS}/runs/*-[13].parquet"
        held = [f"lab:{corpus}/{name}.parquet" for name in ("validation", "calibration")]
        self._options = Options(
            (f"lab:{corpus}/train.parquet", runs, runs, runs),
            (*held, f"lab:{FLOWS}/runs/*-2.parquet"),
        )

    @cached_property
    def train(self) -> Examples:
        """Simulated networks and the lab's training runs."""
        return sample(divide(self._options).train, Sampling(), SEED)

    @cached_property
    def _stop(self) -> Examples:
        return sample(divide(self._options).stop, Sampling(), SEED + 1)

    def stop(self) -> Examples:
        """Windows of networks held out that stop the training of the fp32 network."""
        drawn = np.random.default_rng(5).choice(len(self._stop), 12_000, replace=False)
        return self._stop.take(np.sort(drawn))

    def held_out(self) -> Examples:
        """Windows of networks held out that steps choose by."""
        return self._stop.take(
            np.sort(np.random.default_rng(5).permutation(len(self._stop))[:20_000])
        )

    @cached_property
    def judge(self) -> Examples:
        """Windows of the lab's judge runs."""
        return sample(
            load(f"lab:{FLOWS}/judge/*.parquet"),
            Sampling(attack=600, benign=4000, look_alike=600),
            SEED,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the corpus to train on."""
        return hashlib.sha256((self.corpus / "train.parquet").read_bytes()).hexdigest()


def trained(family: str, data: Data, work: Path, say: Callable[[str], None]) -> Bundle:
    """The fp32 bundle of a family, from the work folder where it is there."""
    path = work / f"{family}.idsb"
    if path.exists():
        return read(path)
    made = fit(
        registry.load("models", family), data.train, data.stop(), PLANS[family].fit, SEED, say
    )
    bundle = sealed(family, made, data.train)
    path.write_bytes(pack(bundle))
    return bundle


def sealed(family: str, made: FittedNetwork, shown: Examples) -> Bundle:
    """A bundle of one network."""
    classes = [CLASSES[label] for label in made.classes]
    member = {"name": family, "kind": "onnx", "file": MODEL, "classes": classes}
    manifest = {
        "family": family,
        "version": "1",
        "classes": list(CLASSES),
        "schema": describe(shown.spec),
    }
    files = {MODEL: export(made, shown), WEIGHTS: weights(made.module)}
    return seal({**manifest, "members": [member]}, files)


def compressed(
    family: str, recipe: str, bundle: Bundle, data: Data, work: Path, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of a recipe's steps; the networks stay in the work folder."""
    folder = work / family / recipe.replace(" ", "_").replace(",", "")
    kept = folder / "rows.json"
    if kept.exists():
        found: list[dict[str, Any]] = json.loads(kept.read_text())
        return found
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    steps = PLANS[family].recipes[recipe]
    for stage in stages(
        bundle, steps, data.held_out(), data.train, fit=PLANS[family].again, seed=SEED, progress=say
    ):  # fmt: skip
        (folder / f"{stage.step}.onnx").write_bytes(stage.bundle.files[MODEL])
        rows.append({**stage.row, "model": str((folder / f"{stage.step}.onnx").relative_to(work))})
    kept.write_text(json.dumps(rows, indent=1))
    return rows


def judged(rows: list[dict[str, Any]], bundle: Bundle, data: Data, work: Path) -> None:
    """Adds macro-F1 on the judge runs to every row."""
    classes = tuple(CLASSES.index(name) for name in bundle.manifest.members[0].classes)
    judge = data.judge
    for row in rows:
        member = OnnxMember((work / row["model"]).read_bytes(), classes, row["model"])
        row["judge"] = round(
            macro_f1(judge, member.probabilities(judge.steps, judge.mask, judge.table)), 5
        )


def timed(
    family: str, recipes: dict[str, list[dict[str, Any]]], work: Path, data: Data
) -> dict[str, Any]:
    """Time and memory of every network of a family, in one run against its published form; adds
    them to the rows, and gives the row of that form."""
    first = next(iter(recipes.values()))[0]
    models = {FULL: (work / first["model"]).read_bytes()}
    if family == "l_tcn":
        models[FULL] = _full(work, data)
    models |= {
        row["model"]: (work / row["model"]).read_bytes()
        for rows in recipes.values()
        for row in rows
    }
    figures = {name: as_row(one) for name, one in measured(models).items()}
    for rows in recipes.values():
        for row in rows:
            row |= figures[row["model"]]
    return {
        **first,
        "step": FULL,
        "bytes": len(models[FULL]),
        "macs": macs(models[FULL]),
        **figures[FULL],
    }


def _full(work: Path, data: Data) -> bytes:
    """The fp32 network with every step of every layer computed."""
    bundle = read(work / "l_tcn.idsb")
    classes = tuple(CLASSES.index(name) for name in bundle.manifest.members[0].classes)
    spec = data.held_out().spec
    module = l_tcn.PLUGIN.build(spec, len(classes), tree=False)
    module.load_state_dict(
        restore(
            registry.load("models", "l_tcn"), spec, len(classes), bundle.files[WEIGHTS]
        ).state_dict()
    )
    return export(FittedNetwork(module.eval(), classes, []), data.held_out())


def by_width(shown: Examples) -> str:
    """Markdown: what writing an LSTM out for int8 buys, by its units; random weights."""
    lines = [
        "| units | fp32 µs | int8, the LSTM fp32, µs | int8, written out, µs | kB | kB | kB |",
        "|---" * 7 + "|",
    ]
    for units in (16, 32, 64, 128, 320):
        torch.manual_seed(SEED)
        module = lstm.PLUGIN.build(shown.spec, 8, widths=lstm.LstmWidths(units)).eval()
        written = unrolled(module, widest=0)
        assert written is not None
        plain, wide = (
            export(FittedNetwork(one, tuple(range(8)), []), shown) for one in (module, written)
        )
        models = {"fp32": plain, "node": quantised(plain, shown), "written": quantised(wide, shown)}
        times = [f"{one.batch_1000_us:.2f}" for one in measured(models).values()]
        lines.append(
            f"| {units} | {' | '.join(times)} | {' | '.join(_kb(model) for model in models.values())} |"
        )
    return "\n".join(lines)


def _kb(model: bytes) -> str:
    return f"{len(model) / 1000:.0f}"


def main(arguments: list[str] | None = None) -> int:
    """Runs what isn't finished and prints or writes everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compression", description=__doc__)
    parser.add_argument(
        "--corpus",
        type=Path,
        required=True,
        metavar="DIR",
        help="of ids-plugin simulate --corpus",
    )
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="where finished parts are kept"
    )
    parser.add_argument(
        "--families", nargs="+", default=list(PLANS), choices=PLANS, help="default: all"
    )
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="only these (default: all)")
    parser.add_argument(
        "--lstm", action="store_true", help="only: what writing an LSTM out buys, by width"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write the tables here, between its two marks"
    )
    parser.add_argument("--json", action="store_true", help="everything on stdout")
    args = parser.parse_args(arguments)
    args.work.mkdir(parents=True, exist_ok=True)
    data = Data(args.corpus)

    def say(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    if args.lstm:
        print(by_width(data.judge.take(np.arange(500))))
        return 0
    found: dict[str, Any] = {}
    for family in args.families:
        bundle = trained(family, data, args.work, say)
        names = [name for name in PLANS[family].recipes if not args.recipes or name in args.recipes]
        recipes = {name: compressed(family, name, bundle, data, args.work, say) for name in names}
        for rows in recipes.values():
            judged(rows, bundle, data, args.work)
        found[family] = {FULL: timed(family, recipes, args.work, data), **recipes}
    if args.json:
        print(json.dumps({"corpus": data.digest, "seed": SEED, "families": found}, indent=1))
    text = tables(found, data)
    if args.page:
        between(args.page, "<!-- tables -->", "<!-- end of tables -->", f"\n{text}")
    elif not args.json:
        print(text)
    return 0


COLUMNS = (
    "recipe", "step", "weights", "MACs", "kB", "deflated kB", "macro-F1 validation", "macro-F1 judge runs",
    "one flow µs", "of 1,000 µs", "times faster", "peak MB", "own MB",
)  # fmt: skip


def tables(found: dict[str, Any], data: Data) -> str:
    """Markdown: a table a family."""
    lines = [
        f"Corpus {data.digest[:12]}, seed {SEED}, {len(data.judge)} windows of the judge runs.",
        "",
    ]
    for family, recipes in found.items():
        lines += [
            f"### {family}",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---" * len(COLUMNS) + "|",
        ]
        full = recipes[FULL]
        lines.append(_line("", full))
        first = next(rows for name, rows in recipes.items() if name != FULL)
        lines.append(_line("", {**first[0], "step": "fp32, as trained"}))
        for name, rows in recipes.items():
            if name != FULL:
                lines += [_line(name, row) for row in rows[1:]]
        left = [name for name in PLANS[family].recipes if name not in recipes]
        lines += ["", f"Not run: {'; '.join(left)}.", ""] if left else [""]
    return "\n".join(lines)


def _line(recipe: str, row: dict[str, Any]) -> str:
    sparse = f" (sparse {row['sparse_bytes'] / 1000:.0f})" if "sparse_bytes" in row else ""
    cells = (
        recipe, row["step"], f"{row['parameters']:,}", f"{row['macs']:,}", f"{row['bytes'] / 1000:.1f}",
        f"{row['deflated'] / 1000:.1f}{sparse}", f"{row['macro_f1']:.4f}", f"{row['judge']:.4f}",
        f"{row['batch_1_us']:.0f}", f"{row['batch_1000_us']:.2f}", f"{row['times_faster']:.1f}",
        f"{row['peak_mb']:.1f}", f"{row['own_mb']:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
