"""One training run: networks → windows → members → combination → thresholds → bundle."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl

from ids_plugin import registry
from ids_plugin.bundle import Bundle, PrefilterEntry, describe, seal
from ids_plugin.datasets.labelled_flows import Labelled, load
from ids_plugin.errors import BundleError, InputError, UsageError
from ids_plugin.models import ModelFamily
from ids_plugin.schema.score import CLASSES, joined
from ids_plugin.scoring import Doubles
from ids_plugin.scoring.lightgbm import Trees
from ids_plugin.scoring.scorer import Scorer, prefilter_columns
from ids_plugin.training import TrainedMember, Trainer, boosted_trees, combination
from ids_plugin.training.examples import Examples, sample, windows
from ids_plugin.training.options import Options, Progress, quiet
from ids_plugin.training.torch_network import MODEL, WEIGHTS

VERSION = "1"
PREFILTER = "gate.txt"
"""what a bundle calls the trees of its prefilter"""
CONFIDENT = 0.8
"""Score that the gate learns to foresee: below every threshold that calibration gives."""
_LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime", "polars", "torch")


@dataclass(frozen=True)
class Split:
    """Networks by what they are used for."""

    train: list[Labelled]
    stop: list[Labelled]
    """stops the training of the network early"""
    calibrate: list[Labelled]
    """fits combination, thresholds and gate"""


def train(options: Options, progress: Progress = quiet) -> Bundle:
    """Labelled flows → an fp32 bundle; the same bytes for the same options, data and machine.

    Raises:
        UsageError: an unknown family or data set.
        InputError: data that can't be read, or without benign flows or without attacks.
    """
    split = divide(options)
    progress(
        f"networks: {len(split.train)} train, {len(split.stop)} stop early,"
        f" {len(split.calibrate)} calibrate"
    )
    _check(split)
    train_set = sample(split.train, options.sampling, options.seed)
    stop_set = sample(split.stop, options.sampling, options.seed + 1)
    progress(f"windows: {len(train_set)} to train, {len(stop_set)} to stop early")
    bundle = assemble(options, split, train_set, stop_set, progress)
    calibrating = [
        known_as(network, bundle.manifest.trained_classes) for network in split.calibrate
    ]
    bundle = combine(bundle, sample(calibrating, options.sampling, options.seed + 2))
    bundle = add_prefilter(bundle, train_set, options)
    return calibrate(bundle, calibrating, options, progress)


def assemble(
    options: Options,
    split: Split,
    train_set: Examples,
    stop_set: Examples,
    progress: Progress = quiet,
) -> Bundle:
    """The bundle of members trained on windows that are sampled already; combination and thresholds
    are still empty.

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
        held_numbers = set(order[: max(2, len(data) // 3)])
        held = [data[number] for number in sorted(held_numbers)]
        data = [network for number, network in enumerate(data) if number not in held_numbers]
    if len(held) < 2 or not data:
        raise UsageError(
            "three networks are needed at least: one to train on, two to hold out",
            hint="--val SPEC",
        )
    return Split(data, held[::2], held[1::2])


def combine(bundle: Bundle, held_out: Examples) -> Bundle:
    """The bundle with the members' combination fitted on windows of networks they never saw."""
    known = [CLASSES.index(name) for name in bundle.manifest.trained_classes]
    probabilities = Scorer(bundle).member_probabilities(
        held_out.steps, held_out.mask, held_out.table
    )
    fitted = combination.fit_combination(probabilities, held_out, known)
    return seal(bundle.manifest.replaced(combination=fitted), bundle.files)


def add_prefilter(bundle: Bundle, train_set: Examples, options: Options) -> Bundle:
    """The bundle with a gate that guesses which windows it scores at CONFIDENT or more; it lets all
    pass as yet."""
    score = (
        Scorer(bundle, cascade=False)
        .score_arrays(train_set.steps, train_set.mask, train_set.table)
        .score
    )
    text, names = boosted_trees.fit_prefilter(
        train_set, score >= CONFIDENT, options.prefilter_rounds, options.seed
    )
    prefilter = {"file": PREFILTER, "features": names, "threshold": 0.0}
    manifest = bundle.manifest.replaced(prefilter=prefilter)
    return seal(manifest, {**bundle.files, PREFILTER: text})


def calibrate(
    bundle: Bundle, networks: Sequence[Labelled], options: Options, progress: Progress
) -> Bundle:
    """The bundle with its thresholds and its gate's fitted on all flows of networks its members
    never saw."""
    known = [CLASSES.index(name) for name in bundle.manifest.trained_classes]
    judged, passed = _judge(bundle, networks)
    thresholds = combination.fit_thresholds(judged, known, options.false_per_day)
    judged = [combination.with_thresholds(network_scores, thresholds) for network_scores in judged]
    threshold = combination.fit_prefilter_threshold(passed, judged, options.prefilter_missed)
    benign = np.concatenate(
        [network_scores.flows["label"].to_numpy() == "benign" for network_scores in judged]
    )
    spared = float(np.mean(np.concatenate(passed)[benign] < threshold))
    metrics = combination.report(judged)
    progress(f"thresholds {thresholds}, gate spares {spared:.1%} of the benign calibration flows")
    progress(f"on the calibration networks: {metrics}")
    manifest = bundle.manifest.replaced(
        thresholds=thresholds,
        prefilter=_prefilter(bundle).replaced(
            threshold=threshold, spares_of_benign=round(spared, 4)
        ),
        metrics={"calibration": metrics},
    )
    return seal(manifest, bundle.files)


def _judge(
    bundle: Bundle, networks: Sequence[Labelled]
) -> tuple[list[combination.ScoredNetwork], list[Doubles]]:
    """Every flow of the networks scored by the members; what the gate gives it."""
    prefilter, scorer = _prefilter(bundle), Scorer(bundle, cascade=False)
    trees = Trees(bundle.file(prefilter.file))
    judged, passed = [], []
    for network in networks:
        flows, scores, of_gate = [], [], []
        for batch in windows(network.flows):
            flows.append(batch.flows)
            scores.append(scorer.score(batch))
            columns = prefilter_columns(batch, prefilter.features)
            of_gate.append(trees.probabilities(columns)[:, 0])
        judged.append(combination.ScoredNetwork(network.name, pl.concat(flows), joined(scores)))
        passed.append(np.concatenate(of_gate))
    return judged, passed


def _prefilter(bundle: Bundle) -> PrefilterEntry:
    entry = bundle.manifest.prefilter
    if entry is None:
        raise BundleError("manifest.json: gate is missing", location=bundle.location)
    return entry


def _members(
    options: Options, train_set: Examples, stop_set: Examples, progress: Progress
) -> tuple[dict[str, bytes], list[dict[str, Any]], dict[str, Any]]:
    """Files, manifest entries and the record of their training."""
    files: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    record: dict[str, Any] = {}
    for name in options.members:
        if not _is_trained(name):
            entries.append({"name": name, "kind": name})
            continue
        trained = train_member(
            registry.load("models", name), options, train_set, stop_set, progress
        )
        file = trained.file
        if file in files:
            file = f"{name}.{trained.file.rpartition('.')[2]}"
        files[file] = trained.data
        if file == MODEL and trained.weights is not None:
            files[WEIGHTS] = trained.weights
        record[name] = trained.record
        classes = [CLASSES[label] for label in trained.classes]
        entries.append({"name": name, "kind": trained.kind, "file": file, "classes": classes})
    return files, entries, record


def _is_trained(name: str) -> bool:
    """Whether a member is a model family; otherwise it is a kind of member that needs no training.

    Raises:
        UsageError: there is neither.
    """
    families, kinds = registry.names("models"), registry.names("members")
    if name not in families and name not in kinds:
        raise UsageError(
            f"no model family and no kind of member is called {name!r}",
            hint=f"there are: {', '.join(sorted({*families, *kinds}))}",
        )
    return name in families


def train_member(
    family: ModelFamily,
    options: Options,
    train_set: Examples,
    stop_set: Examples,
    progress: Progress,
) -> TrainedMember:
    """The model family fitted by the trainer of its kind.

    Raises:
        UsageError: there is no such trainer.
    """
    trainer: Trainer = registry.load("trainers", family.kind)
    return trainer.train(family, train_set, stop_set, options, progress)


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
                {name for member in members for name in member.get("classes", ())},
                key=CLASSES.index,
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
    baseline = {}
    for column, feature in enumerate(examples.spec.table):
        values = benign[:, column]
        values = values[~np.isnan(values)]
        if len(values):
            low, middle, high = (
                round(float(value), 6) for value in np.quantile(values, [0.05, 0.5, 0.95])
            )
            baseline[feature.name] = {"low": low, "median": middle, "high": high}
    return baseline


def _named(networks: Sequence[Labelled]) -> list[dict[str, Any]]:
    """The files behind the networks: SHA-256, how many networks and flows of each are used."""
    entries: dict[str, dict[str, Any]] = {}
    for network in networks:
        entry = entries.setdefault(
            network.sha256, {"file": network.file, "networks": 0, "flows": 0}
        )
        entry["networks"] += 1
        entry["flows"] += network.flows.height
    return [{"sha256": digest, **entry} for digest, entry in entries.items()]


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
