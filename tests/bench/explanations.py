"""Bench `explanations`: does the evidence of every family name what matters? Writes
docs/results-explanations.md.

    python -m tests.bench.explanations [--family NAME …] [--explained N] [--json] [--out docs/results-explanations.md]

Every family is trained alone, small (3 epochs of 10,000 windows; cnn_lstm one of 5,000), on the
lab's training runs; flows of the lab's judging runs that it calls attacks are explained. Deletion
test: the log-odds of the class must fall further when what is named is taken away (features set to
what is usual, earlier flows to padding) than when as much is taken away at random, five draws.
Earlier flows are tested as attention gives them, by occlusion, and as evidence shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np

from ids_plugin.bundle import Bundle, find, read, seal
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.explain import Deletion, Explainer
from ids_plugin.explain.earlier_flows import Trust
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Ints, Windows
from ids_plugin.scoring.scorer import Scorer
from ids_plugin.training.examples import Examples, sample, windows
from ids_plugin.training.options import Fit, Options
from ids_plugin.training.run import Split, assemble, divide
from ids_plugin.windows import spec

FLOWS = Path(__file__).parents[1] / "lab" / "flows"
FAMILIES = (
    "anomaly_net", "cnn", "lstm", "cnn_lstm", "l_tcn", "ae_lstm", "random_forest", "svm_rbf", "lightgbm",
)  # fmt: skip
TRUST: dict[Trust, str] = {"always": "attention", "never": "occlusion", "tested": "as shown"}
EARLIER = 4
"""earlier flows that an explained flow has at least, so that there is a choice"""
OF_A_BATCH = 12
"""flows of one class and one batch that are explained"""


class Tried(NamedTuple):
    """One explained flow."""

    deletion: Deletion
    method: str
    seconds: float
    """of CPU for the whole explanation"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--family",
        nargs="+",
        default=["default", *FAMILIES],
        help="default: the shipped bundle and all",
    )
    parser.add_argument(
        "--explained", type=int, default=100, help="flows a family (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="write the table there (Markdown)")
    args = parser.parse_args()
    rows = [
        row
        for name, tried in tests(args.family, args.explained, args.seed).items()
        for row in summaries(name, tried)
    ]
    text = page(rows, args)
    if args.out:
        args.out.write_text(text)
    print(json.dumps(rows) if args.json else text)
    return 0


def tests(
    families: Sequence[str], explained: int, seed: int
) -> dict[str, dict[Trust, list[Tried]]]:
    """Family → how far attention is trusted → explained flows of the judging runs."""
    bundles = dict(made(families, seed))
    scorers = {name: Scorer(bundle, cascade=False) for name, bundle in bundles.items()}
    tried: dict[str, dict[Trust, list[Tried]]] = {
        name: {trust: [] for trust in TRUST} for name in bundles
    }
    for network in load(f"lab:{FLOWS / 'judge'}"):
        for batch in windows(network.flows):
            rows = drawn(batch, np.random.default_rng(seed))
            for name, scorer in scorers.items():
                _try(batch, rows, scorer, tried[name], explained, seed)
    return tried


def made(families: Sequence[str], seed: int) -> Iterator[tuple[str, Bundle]]:
    """The bundles: the shipped one as it is, families alone."""
    split, train_set, stop_set = None, None, None
    for name in families:
        if name == "default":
            yield name, read(find(name), spec=spec())
            continue
        if split is None or train_set is None or stop_set is None:
            split = divide(Options(data=(f"lab:{FLOWS / 'runs'}",), seed=seed))
            train_set, stop_set = (
                sample(part, Options(data=()).sampling, seed) for part in (split.train, split.stop)
            )
        yield name, trained(name, split, train_set, stop_set, seed)


def trained(name: str, split: Split, train_set: Examples, stop_set: Examples, seed: int) -> Bundle:
    """A family alone, whose opinion is the score."""
    fit = Fit(epochs=1, windows=5_000) if name == "cnn_lstm" else Fit(epochs=3, windows=10_000)
    options = Options(data=(), family=name, beside=(), seed=seed, fit=fit)
    bundle = assemble(
        options, split, train_set, stop_set, lambda text: print(text, file=sys.stderr)
    )
    classes = bundle.manifest.trained_classes
    alone = {"weights": {name: 1.0}, "bias": dict.fromkeys(classes, 0.0), "floor": 1e-6}
    return seal(bundle.manifest.replaced(combination=alone), bundle.files)


def drawn(batch: Windows, rng: np.random.Generator) -> Ints:
    """Attack flows with earlier ones, of every class as many."""
    label = batch.flows["label"].to_numpy()
    attacks = np.flatnonzero(label != "benign")
    long = attacks[batch.steps(attacks).mask.sum(axis=1) > EARLIER]
    chosen = [rng.permutation(long[label[long] == name])[:OF_A_BATCH] for name in CLASSES]
    return np.sort(np.concatenate(chosen))


def _try(
    batch: Windows,
    rows: Ints,
    scorer: Scorer,
    tried: dict[Trust, list[Tried]],
    explained: int,
    seed: int,
) -> None:
    steps = batch.steps(rows)
    scores = scorer.score_arrays(steps.values, steps.mask, batch.table(rows))
    silent = scorer.attention(steps.values[:1], steps.mask[:1], batch.table(rows[:1])) is None
    for trust, found in tried.items():
        if silent and trust != "tested":
            continue
        explainer = Explainer(scorer, spec(), scorer.bundle.baseline, trust)
        for at in np.flatnonzero(scores.score >= 0.5)[: explained - len(found)].tolist():
            row, label = int(rows[at]), int(scores.label[at])
            began = process_time()
            method = explainer.explain(batch, row, label).method
            took = process_time() - began
            found.append(
                Tried(
                    explainer.deletion(batch, row, label, np.random.default_rng([seed, row])),
                    method,
                    took,
                )
            )


def summaries(name: str, tried: dict[Trust, list[Tried]]) -> Iterator[dict[str, Any]]:
    """A row for each way to find the earlier flows, and one for the features."""
    for trust, found in tried.items():
        methods = {one.deletion.method for one in found}
        if not found:
            continue
        tested = [one.deletion.flows for one in found if one.deletion.flows]
        counts = {
            method: sum(one.deletion.method == method for one in found)
            for method in sorted(methods)
        }
        yield {
            "family": name, "evidence": "earlier flows", "method": TRUST[trust], "explained": len(found), "by": counts,
            "tested": len(tested), "passed": sum(falls.passed for falls in tested),
            "named": _median([falls.named for falls in tested]), "random": _median([falls.random for falls in tested]),
            "ms": round(1000 * float(np.mean([one.seconds for one in found])), 2) if found else None,
        }  # fmt: skip
    found = tried["tested"]
    features = [one.deletion.features for one in found]
    methods = {
        "+".join(part for part in one.method.split("+") if part in ("tree_shap", "occlusion"))
        for one in found
    }
    if not found:
        return
    yield {
        "family": name, "evidence": "features", "method": ", ".join(sorted(methods)), "explained": len(found), "by": {},
        "tested": len(features), "passed": sum(falls.passed for falls in features),
        "named": _median([falls.named for falls in features]), "random": _median([falls.random for falls in features]),
        "ms": None,
    }  # fmt: skip


def _median(values: Sequence[float]) -> float | None:
    return round(float(np.median(values)), 3) if values else None


def page(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """The table as Markdown."""
    lines = [
        "# Does the evidence name what matters?",
        "",
        "This page measures whether explanations are true, for those who rely on them or add a model.",
        "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        "*Attention*: untested, as the network gives it. *Occlusion*: never attention. *As shown*: attention where it",
        "passes its own test, occlusion otherwise, or none at all (none named). Tested are explanations that name some",
        "earlier flows and not all. Falls of the log-odds are medians, ms is the CPU time of one whole explanation.",
        f"`python -m tests.bench.explanations --explained {args.explained} --seed {args.seed}`",
        "",
        "| family | evidence | how found | explained | none named | tested | pass | log-odds fall | at random | ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = f"{row['passed'] / row['tested']:.0%}" if row["tested"] else "–"
        method = row["method"]
        if method == "as shown":
            kinds = [
                f"{kind} {count}" for kind, count in row["by"].items() if kind != "no_single_flow"
            ]
            method = f"as shown ({', '.join(kinds) or 'none'})"
        none = row["by"].get("no_single_flow", 0) if row["by"] else ""
        cells = (
            row["family"], row["evidence"], method, row["explained"], none, row["tested"], share,
            *("–" if row[name] is None else row[name] for name in ("named", "random", "ms")),
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
