"""Bench `balance`: rare classes by resampling, by class weights or by the focal loss. Writes
docs/results-balance.md.

    ids-plugin simulate --corpus --out corpus
    python -m tests.bench.balance --corpus corpus --store balance.jsonl [--json] [--out docs/results-balance.md]

Trains on the simulated corpus and the lab's training runs 1 and 3; every other validation network
stops training, the rest and the training runs 2 judge. As many windows and epochs for each way,
three seeds. Cells that the store has aren't run again; delete it when the corpus changes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from ids_plugin import registry
from ids_plugin.compression.cost import macro_f1, per_class
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training.balance import Balance
from ids_plugin.training.examples import Examples, Sampling, sample
from ids_plugin.training.options import Fit
from ids_plugin.training.torch_network import export, fit

RUNS = Path(__file__).parents[1] / "lab" / "flows" / "runs"
EPOCHS, WINDOWS, STOP = 8, 20_000, 12_000
WAYS = {
    "none": Balance("none"),
    "resample": Balance(),
    "weight": Balance("weight"),
    "focal": Balance("none", 2.0),
    "focal+weight": Balance("weight", 2.0),
    "focal+resample": Balance("resample", 2.0),
}
"""γ = 2 as Lin et al. found best"""
FAMILIES = {"cnn": tuple(WAYS), "anomaly_net": ("resample", "weight", "focal", "focal+resample")}
SEEDS = (1, 2, 3)
RAREST = ("flood", "command_and_control", "exfiltration", "other")
"""classes with the fewest windows to train on"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder of train.parquet and validation.parquet"
    )
    parser.add_argument(
        "--store", type=Path, default=Path("balance.jsonl"), help="finished cells, a line each"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="write the table there (Markdown)")
    args = parser.parse_args()
    done = stored(args.store)
    wanted = [cell for cell in cells() if cell not in done]
    if wanted:
        train, stop, judge = windows(args.corpus)
        with args.store.open("a") as store:
            for cell in wanted:
                done[cell] = measured(*cell, train, stop, judge)
                store.write(json.dumps(done[cell]) + "\n")
                store.flush()
                print(*cell, done[cell]["macro_f1"], file=sys.stderr)
    results = [done[cell] for cell in cells()]
    text = page(results)
    if args.out:
        args.out.write_text(text)
    print(json.dumps(results) if args.json else text)
    return 0


def cells() -> list[tuple[str, str, int]]:
    """Family, way, seed."""
    return [
        (family, way, seed) for family, ways in FAMILIES.items() for seed in SEEDS for way in ways
    ]


def stored(store: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The cells that were run before."""
    lines = store.read_text().splitlines() if store.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["family"], row["variant"], row["seed"]): row for row in rows}


def windows(corpus: Path) -> tuple[Examples, Examples, Examples]:
    """To train on, to stop by and to judge."""
    train = [*load(f"lab:{corpus / 'train.parquet'}"), *load(f"lab:{RUNS}/*-[13].parquet")]
    held = load(f"lab:{corpus / 'validation.parquet'}")
    stop = sample(held[::2], Sampling(), 2)
    judge = sample([*held[1::2], *load(f"lab:{RUNS}/*-2.parquet")], Sampling(), 3)
    some = np.sort(np.random.default_rng(5).choice(len(stop), min(STOP, len(stop)), replace=False))
    return sample(train, Sampling(), 1), stop.take(some), judge


def measured(
    family: str, way: str, seed: int, train: Examples, stop: Examples, judge: Examples
) -> dict[str, Any]:
    """One cell: figures of the network alone, on windows weighted so that no activity drowns the
    others, and plain."""
    began = process_time()
    options = Fit(epochs=EPOCHS, windows=WINDOWS, balance=WAYS[way])
    fitted = fit(registry.load("models", family), train, stop, options, seed, lambda text: None)
    member = OnnxMember(export(fitted, train), fitted.classes, family)
    probability = member.probabilities(judge.steps, judge.mask, judge.table)
    said, labels = probability.argmax(axis=1), np.unique(judge.label).tolist()
    hits = {label: int(((said == label) & (judge.label == label)).sum()) for label in labels}
    counts = {label: int((judge.label == label).sum()) for label in labels}
    plain = [2 * hits[label] / (int((said == label).sum()) + counts[label]) for label in labels]
    return {
        "family": family, "variant": way, "seed": seed, "macro_f1": macro_f1(judge, probability),
        "flow_f1": float(np.mean(plain)), "recall": dict(per_class(judge, probability)),
        "flow_recall": {CLASSES[label]: hits[label] / counts[label] for label in labels},
        "cpu": process_time() - began, "losses": fitted.losses,
    }  # fmt: skip


def page(results: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    return "\n".join([*_head(), *_rows(results), ""])


def _head() -> Iterator[str]:
    yield "# Rare classes: resampling, class weights, focal loss"
    yield ""
    yield "This page says which way of training finds rare classes best, for those who train."
    yield ""
    yield from (__doc__ or "").split("\n\n", 2)[2].strip().splitlines()
    yield ""
    yield f"{EPOCHS} epochs of {WINDOWS:,} windows; focal: γ = 2. Means over seeds {SEEDS}; in brackets the largest"
    yield "less the smallest. Macro-F1 once with windows weighted so that no activity drowns the others, once window by"
    yield "window; recall of the classes with the fewest windows to train on."
    yield ""


def _rows(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"| family | way | macro-F1, weighted | macro-F1, plain | {' | '.join(f'recall {name}' for name in RAREST)} |"
    yield "|" + "---|" * (4 + len(RAREST))
    for family, ways in FAMILIES.items():
        for way in ways:
            mine = [row for row in results if (row["family"], row["variant"]) == (family, way)]
            figures = [[row[name] for row in mine] for name in ("macro_f1", "flow_f1")]
            figures += [[row["recall"][name] for row in mine] for name in RAREST]
            yield f"| {family} | {way} | {' | '.join(map(_spread, figures))} |"


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({max(values) - min(values):.3f})"


if __name__ == "__main__":
    sys.exit(main())
