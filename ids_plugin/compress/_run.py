"""One compression: bundle → smaller bundle whose manifest says what each step cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ids_plugin import registry
from ids_plugin.bundle import Bundle, seal
from ids_plugin.errors import UsageError
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring import Doubles
from ids_plugin.scoring._scorer import Scorer
from ids_plugin.sources._datasets import load
from ids_plugin.training._examples import Examples, Sampling, sample
from ids_plugin.training._network import WEIGHTS
from ids_plugin.training._run import Progress, quiet

MODEL = "model.onnx"


@dataclass(frozen=True)
class Options:
    """What a compression is told."""

    data: tuple[str, ...]
    """networks like those the bundle will see, best those that calibrated it: they fix the scales and show the cost"""
    steps: tuple[str, ...] = ("int8",)
    shown: int = 2_000
    """windows that fix the scales"""
    seed: int = 1
    labels: Path | None = None
    """of `zeek:` logs"""
    sampling: Sampling = field(default_factory=lambda: Sampling(attack=60, benign=200, look_alike=30))


def compress(bundle: Bundle, options: Options, progress: Progress = quiet) -> Bundle:
    """A smaller bundle; `manifest["compression"]` has size, macro-F1 and score differences after every step.

    Raises:
        UsageError: the bundle has no network, or a step is unknown.
        InputError: data that can't be read.
    """
    if MODEL not in bundle.files:
        raise UsageError("has no network that could be compressed", location=bundle.location)
    networks = [network for spec in options.data for network in load(spec, options.labels)]
    examples = sample(networks, options.sampling, options.seed)
    shown = examples.take(_drawn(examples, options))
    files = {name: data for name, data in bundle.files.items() if name != WEIGHTS}
    before = Scorer(bundle).member_probabilities(examples.steps, examples.mask, examples.table)
    record: list[dict[str, Any]] = [{"step": "fp32", **_cost(bundle, examples, before[bundle.family], None)}]
    manifest = dict(bundle.manifest)
    for name in options.steps:
        files[MODEL] = registry.load("compress", name).apply(files[MODEL], shown)
        made = seal(manifest, files)
        after = Scorer(made).member_probabilities(examples.steps, examples.mask, examples.table)
        record.append({"step": name, **_cost(made, examples, after[bundle.family], before[bundle.family])})
        progress(f"{name}: {record[-1]}")
    manifest["compression"] = record
    return seal(manifest, files)


def _drawn(examples: Examples, options: Options) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    rng = np.random.default_rng(options.seed)
    return np.sort(rng.choice(len(examples), min(options.shown, len(examples)), replace=False))


def _cost(bundle: Bundle, examples: Examples, now: Doubles, then: Doubles | None) -> dict[str, Any]:
    cost = {"bytes": len(bundle.files[MODEL]), "macro_f1": round(macro_f1(examples, now), 5)}
    if then is None:
        return cost
    moved = np.abs(now - then).max(axis=1)
    return cost | {"moved_mean": round(float(moved.mean()), 6), "moved_most": round(float(moved.max()), 6)}


def macro_f1(examples: Examples, probability: Doubles) -> float:
    """Mean over the classes that occur of F1, windows weighted so that no activity drowns the others."""
    said, weight = probability.argmax(axis=1), examples.weight
    scores = []
    for label in np.unique(examples.label).tolist():
        hit = weight[(said == label) & (examples.label == label)].sum()
        scores.append(2 * hit / max(weight[said == label].sum() + weight[examples.label == label].sum(), 1e-12))
    return float(np.mean(scores))


def per_class(examples: Examples, probability: Doubles) -> Mapping[str, float]:
    """Recall of each class that occurs, windows weighted as in macro_f1."""
    said, weight = probability.argmax(axis=1), examples.weight
    labels = np.unique(examples.label).tolist()
    hit = {label: weight[(said == label) & (examples.label == label)].sum() for label in labels}
    return {CLASSES[label]: round(float(hit[label] / weight[examples.label == label].sum()), 4) for label in labels}
