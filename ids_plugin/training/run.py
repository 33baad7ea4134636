"""One training run: networks → windows → members → combination → thresholds → bundle."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch

from ids_plugin import registry
from ids_plugin.bundle import Bundle, describe, seal
from ids_plugin.datasets.labelled_flows import Labelled, load
from ids_plugin.errors import InputError, UsageError
from ids_plugin.models import Family, NormalFamily, TorchFamily, TreeFamily
from ids_plugin.models.ae_lstm import AeLstm
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring import Doubles
from ids_plugin.scoring.lightgbm import Trees
from ids_plugin.scoring.scorer import Scorer, gate_rows
from ids_plugin.training import (
    boosted_trees,
    combination,
    normal_traffic,
    random_forest,
    rbf_svm,
    torch_network,
)
from ids_plugin.training.evaluate import joined
from ids_plugin.training.examples import Examples, Sampling, sample, windows

Progress = Callable[[str], None]
VERSION = "1"
MODEL = "model.onnx"
CONFIDENT = 0.8
"""Score that the gate learns to foresee: below every threshold that calibration gives."""
_LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime", "polars", "torch")


@dataclass(frozen=True)
class Options:
    """What a training run is told."""

    data: tuple[str, ...]
    """`KIND:PATH` of labelled flows, see sources._datasets"""
    val: tuple[str, ...] = ()
    """networks held out of the members' training: every other one stops it early, the rest calibrates; by default a
    third of `data`, drawn by seed"""
    labels: Path | None = None
    """of `zeek:` logs, see sources._labels"""
    family: str = "anomaly_net"
    beside: tuple[str, ...] = ("lightgbm", "behaviour")
    """members that vote beside the family"""
    seed: int = 1
    rounds: int = 40
    """trees per class"""
    gate_rounds: int = 40
    gate_missed: float = 0.001
    """share of the flows over a threshold that the gate may hold back on the calibration networks"""
    false_per_day: float = 1.0
    """folds without an attack that the thresholds may cause a day on the calibration networks"""
    licence: str = "Apache-2.0"
    fit: torch_network.Fit = field(default_factory=torch_network.Fit)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Split:
    """Networks by what they are used for."""

    train: list[Labelled]
    stop: list[Labelled]
    """stops the training of the network early"""
    calibrate: list[Labelled]
    """fits combination, thresholds and gate"""


def quiet(message: str) -> None:
    """Progress that nobody wants."""


def train(options: Options, progress: Progress = quiet) -> Bundle:
    """Labelled flows → an fp32 bundle; the same bytes for the same options, data and machine.

    Raises:
        UsageError: an unknown family or data set.
        InputError: data that can't be read, or without benign flows or without attacks.
    """
    split = divide(options)
    progress(
        f"networks: {len(split.train)} train, {len(split.stop)} stop early, {len(split.calibrate)} calibrate"
    )
    _check(split)
    train_set = sample(split.train, options.sampling, options.seed)
    stop_set = sample(split.stop, options.sampling, options.seed + 1)
    progress(f"windows: {len(train_set)} to train, {len(stop_set)} to stop early")
    bundle = assemble(options, split, train_set, stop_set, progress)
    calibrating = [
        known_as(network, bundle.manifest["training"]["classes"]) for network in split.calibrate
    ]
    bundle = combine(bundle, sample(calibrating, options.sampling, options.seed + 2))
    bundle = with_gate(bundle, train_set, options)
    return calibrate(bundle, calibrating, options, progress)


def assemble(
    options: Options,
    split: Split,
    train_set: Examples,
    stop_set: Examples,
    progress: Progress = quiet,
) -> Bundle:
    """The bundle of members trained on windows that are sampled already; combination and thresholds are still empty.

    Args:
        options: family, members beside it, seed and fit; `data` and `val` are not read.
        split: the networks behind the windows, for the record.
        train_set: windows to train on.
        stop_set: windows that stop it early.
        progress: told of every epoch.
    """
    files, members, record = _members(options, train_set, stop_set, progress)
    return seal(_manifest(options, train_set, members, record, split), files)


def known_as(network: Labelled, classes: Sequence[str]) -> Labelled:
    """The network as members see it that know no class of attack: what isn't benign is `other`."""
    if "other" not in classes:
        return network
    label = pl.when(pl.col("label").is_in(classes)).then("label").otherwise(pl.lit("other"))
    return replace(network, flows=network.flows.with_columns(label=label))


def divide(options: Options) -> Split:
    """Networks by use; whole networks, never flows of one on two sides.

    Raises:
        UsageError: too few networks to hold some out.
    """
    data = [network for spec in options.data for network in load(spec, options.labels)]
    held = [network for spec in options.val for network in load(spec, options.labels)]
    if not held:
        order = np.random.default_rng(options.seed).permutation(len(data)).tolist()
        out = set(order[: max(2, len(data) // 3)])
        held = [data[at] for at in sorted(out)]
        data = [network for at, network in enumerate(data) if at not in out]
    if len(held) < 2 or not data:
        raise UsageError(
            "three networks are needed at least: one to train on, two to hold out",
            hint="--val SPEC",
        )
    return Split(data, held[::2], held[1::2])


def combine(bundle: Bundle, held_out: Examples) -> Bundle:
    """The bundle with the members' combination fitted on windows of networks they never saw."""
    known = [CLASSES.index(name) for name in bundle.manifest["training"]["classes"]]
    opinions = Scorer(bundle).member_probabilities(held_out.steps, held_out.mask, held_out.table)
    fitted = combination.fit_combination(opinions, held_out, known)
    return seal({**bundle.manifest, "combination": fitted}, bundle.files)


def with_gate(bundle: Bundle, train_set: Examples, options: Options) -> Bundle:
    """The bundle with a gate that guesses which windows it scores at CONFIDENT or more; it lets all pass as yet."""
    score = (
        Scorer(bundle, cascade=False)
        .score_arrays(train_set.steps, train_set.mask, train_set.table)
        .score
    )
    text, names = boosted_trees.fit_gate(
        train_set, score >= CONFIDENT, options.gate_rounds, options.seed
    )
    gate = {"file": "gate.txt", "features": names, "threshold": 0.0}
    return seal({**bundle.manifest, "gate": gate}, {**bundle.files, "gate.txt": text})


def calibrate(
    bundle: Bundle, networks: Sequence[Labelled], options: Options, progress: Progress
) -> Bundle:
    """The bundle with its thresholds and its gate's fitted on all flows of networks its members never saw."""
    known = [CLASSES.index(name) for name in bundle.manifest["training"]["classes"]]
    judged = judge(bundle, networks, cascade=False)
    thresholds = combination.fit_thresholds(judged, known, options.false_per_day)
    judged = [combination.with_thresholds(one, thresholds) for one in judged]
    passed = [_gate_values(bundle, network) for network in networks]
    threshold = combination.fit_gate_threshold(passed, judged, options.gate_missed)
    benign = np.concatenate([one.flows["label"].to_numpy() == "benign" for one in judged])
    spared = float(np.mean(np.concatenate(passed)[benign] < threshold))
    metrics = combination.report(judged)
    progress(f"thresholds {thresholds}, gate spares {spared:.1%} of the benign calibration flows")
    progress(f"on the calibration networks: {metrics}")
    changed = {
        "thresholds": thresholds,
        "gate": {
            **bundle.manifest["gate"],
            "threshold": threshold,
            "spares_of_benign": round(spared, 4),
        },
        "metrics": {"calibration": metrics},
    }
    return seal({**bundle.manifest, **changed}, bundle.files)


def judge(
    bundle: Bundle, networks: Sequence[Labelled], *, cascade: bool = True
) -> list[combination.Judged]:
    """Every flow of the networks scored."""
    scorer = Scorer(bundle, cascade=cascade)
    judged = []
    for network in networks:
        batches = [(batch.flows, scorer.score(batch)) for batch in windows(network.flows)]
        judged.append(
            combination.Judged(
                network.name,
                pl.concat([flows for flows, _ in batches]),
                joined([one for _, one in batches]),
            )
        )
    return judged


def _gate_values(bundle: Bundle, network: Labelled) -> Doubles:
    trees, names = Trees(bundle.file("gate.txt")), bundle.manifest["gate"]["features"]
    return np.concatenate(
        [trees.probabilities(gate_rows(batch, names))[:, 0] for batch in windows(network.flows)]
    )


def _members(
    options: Options, train_set: Examples, stop_set: Examples, progress: Progress
) -> tuple[dict[str, bytes], list[dict[str, Any]], dict[str, Any]]:
    """Files, manifest entries and the record of their training."""
    files: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    record: dict[str, Any] = {}
    for name in (options.family, *options.beside):
        if name == "behaviour":
            entries.append({"name": name, "kind": "behaviour"})
            continue
        made = member(registry.load("models", name), options, train_set, stop_set, progress)
        files[made.file] = made.data
        if made.weights is not None:
            files[torch_network.WEIGHTS] = made.weights
        record[name] = made.record
        classes = [CLASSES[label] for label in made.classes]
        entries.append({"name": name, "kind": made.kind, "file": made.file, "classes": classes})
    return files, entries, record


@dataclass(frozen=True)
class Member:
    """A trained family as a bundle has it."""

    kind: str
    """of scoring"""
    file: str
    data: bytes
    classes: tuple[int, ...]
    record: dict[str, Any]
    weights: bytes | None = None
    """arrays of a network that compression can rebuild"""


def member(
    family: Family, options: Options, train_set: Examples, stop_set: Examples, progress: Progress
) -> Member:
    """A family trained as its kind is; whatever isn't LightGBM serves through ONNX."""
    seed = options.seed
    if family.kind == "lightgbm":
        trees, classes = boosted_trees.fit(
            cast(TreeFamily, family), train_set, options.rounds, seed
        )
        progress(f"{family.name}: {options.rounds} trees a class")
        return Member(
            "lightgbm",
            "lightgbm.txt",
            trees,
            classes,
            {"rounds": options.rounds, "paper": family.paper},
        )
    count = len(np.unique(train_set.label))
    if family.kind == "forest":
        progress(f"{family.name}: growing trees")
        forest, classes = random_forest.fit(
            cast(TreeFamily, family).build(train_set.spec, count), train_set, seed
        )
        return Member("onnx", MODEL, forest, classes, {"paper": family.paper})
    if family.kind == "svm":
        progress(f"{family.name}: looking for support vectors")
        fitted = rbf_svm.fit(
            cast(TreeFamily, family).build(train_set.spec, count), train_set, stop_set, seed
        )
    elif family.kind == "normal":
        torch.manual_seed(seed)
        network = cast(NormalFamily, family).build(train_set.spec, count)
        fitted = normal_traffic.fit(
            cast(AeLstm, network), train_set, stop_set, options.fit, seed, progress
        )
    else:
        fitted = torch_network.fit(
            cast(TorchFamily, family), train_set, stop_set, options.fit, seed, progress
        )
    record = {"parameters": fitted.parameters, "losses": fitted.losses, "paper": family.paper}
    weights = torch_network.weights(fitted.module) if family.kind == "torch" else None
    return Member(
        "onnx", MODEL, torch_network.export(fitted, train_set), fitted.classes, record, weights
    )


def _manifest(
    options: Options,
    train_set: Examples,
    members: list[dict[str, Any]],
    record: dict[str, Any],
    split: Split,
) -> dict[str, Any]:
    return {
        "family": options.family,
        "version": VERSION,
        "task": "class of a flow from its window",
        "classes": list(CLASSES),
        "schema": describe(train_set.spec),
        "members": members,
        "combination": {"weights": {}, "bias": {}, "floor": combination.FLOOR},
        "thresholds": {},
        "reference": reference(train_set),
        "training": {
            "classes": sorted(
                {name for one in members for name in one.get("classes", ())}, key=CLASSES.index
            ),
            "windows": len(train_set),
            "flows": sum(network.flows.height for network in split.train),
            "data": {use: _named(networks) for use, networks in vars(split).items()},
            "seed": options.seed,
            "options": {"fit": asdict(options.fit), "sampling": asdict(options.sampling)},
            "members": record,
        },
        "compression": None,
        "libraries": {"python": platform.python_version()}
        | {name: version(name) for name in _LIBRARIES},
        "licence": options.licence,
    }


def reference(examples: Examples) -> dict[str, dict[str, float]]:
    """Per table feature what benign windows have: 5 %, median and 95 %, unknown values left out."""
    benign = examples.table[examples.label == 0]
    found = {}
    for column, feature in enumerate(examples.spec.table):
        values = benign[:, column]
        values = values[~np.isnan(values)]
        if len(values):
            low, middle, high = (
                round(float(value), 6) for value in np.quantile(values, [0.05, 0.5, 0.95])
            )
            found[feature.name] = {"low": low, "median": middle, "high": high}
    return found


def _named(networks: Sequence[Labelled]) -> list[dict[str, Any]]:
    """The files behind the networks: SHA-256, how many networks and flows of each are used."""
    found: dict[str, dict[str, Any]] = {}
    for network in networks:
        entry = found.setdefault(network.sha256, {"file": network.file, "networks": 0, "flows": 0})
        entry["networks"] += 1
        entry["flows"] += network.flows.height
    return [{"sha256": digest, **entry} for digest, entry in found.items()]


def _check(split: Split) -> None:
    """Every part has benign flows and attacks."""
    for networks, use in (
        (split.train, "train on"),
        (split.stop, "stop early by"),
        (split.calibrate, "calibrate on"),
    ):
        labels = {label for network in networks for label in network.flows["label"].unique()}
        absent = "attacks" if labels == {"benign"} else "" if "benign" in labels else "benign flows"
        if absent:
            files = list(dict.fromkeys(network.file for network in networks))
            where = f"{', '.join(files[:3])}{', …' if len(files) > 3 else ''}, column 'label'"
            raise InputError(
                f"the networks to {use} have no {absent}",
                location=where,
                hint="see --data and --val",
            )
