"""Trains `tiny_cnn`: labelled uniflows → a bundle of three fp32 networks, from which compression
makes the rest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from ids_plugin.bundle import Bundle, seal
from ids_plugin.datasets import labelled_flows
from ids_plugin.errors import InputError, UsageError
from ids_plugin.features.unit_vectors import FINE, unit
from ids_plugin.models import tiny_cnn
from ids_plugin.models.tiny_cnn import TinyCnnShape
from ids_plugin.schema import uniflow
from ids_plugin.schema.uniflow import CLASSES, FEATURES
from ids_plugin.training.options import Progress, quiet

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
View = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""what training works on → the weights that the network computes with"""
KIND = "uniflow"
TASK = "class of one direction of a connection"
VERSION = "1"
NETWORKS = {
    "original": tiny_cnn.ORIGINAL,
    "pre_optimised": tiny_cnn.PRE_OPTIMISED,
    "optimised": tiny_cnn.OPTIMISED,
}
PAPER = tiny_cnn.PLUGIN.paper
RECIPE = ("epochs", "batch", "rate", "rate_original", "dropout", "balance")
"""options that the manifest repeats"""


@dataclass(frozen=True)
class Run:
    """The uniflows of one recording."""

    name: str
    counts: Ints
    """(n, 16) schema.uniflow.FEATURES"""
    label: Ints
    """(n) indices into schema.uniflow.CLASSES"""
    detail: tuple[str | None, ...]
    """(n) the activity, where there is one"""
    sha256: str
    duplicates: int = 0
    """rows left out, since an equal one was there"""


@dataclass(frozen=True)
class Options:
    """What a training is told."""

    data: tuple[str, ...]
    """`uniflow:PATH`, a Parquet file, folder or glob"""
    val: tuple[str, ...] = ()
    """runs that measure the rungs of the ladder; by default every third of `data`, never trained
    on"""
    seed: int = 1
    epochs: int = 10
    batch: int = 32
    rate: float = 5e-3
    """of Adam for the networks of five layers, at first; it falls to 0 along half a cosine"""
    rate_original: float = 2e-3
    """for the original of seven layers"""
    dropout: float = 0.2
    """of the original"""
    balance: float = 0.5
    """power of a class's share by which it counts less: 0 as often as it comes, 1 all classes
    alike"""
    licence: str = "Apache-2.0"


def load(specs: Sequence[str]) -> list[Run]:
    """The runs of `uniflow:PATH`s, in the order of their names; equal rows of a run are one.

    Raises:
        UsageError: another kind of data.
        InputError: a file is absent, no Parquet, or lacks a column; a class is none of the five; a
            number isn't one.
    """
    runs = []
    for spec in specs:
        kind, _, path = spec.partition(":")
        if kind != KIND or not path:
            raise UsageError(
                f"tiny_cnn learns from uniflows, not from {spec!r}", hint="--data uniflow:PATH"
            )
        files = labelled_flows.files(spec)
        if not files:
            raise InputError("no Parquet file there", location=path)
        runs += [_run(file) for file in files]
    return runs


def _run(file: Path) -> Run:
    data = file.read_bytes()
    try:
        rows = pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError as error:
        raise InputError("is no Parquet file that can be read", location=str(file)) from error
    absent = [name for name in ("class", *FEATURES) if name not in rows.columns]
    if absent:
        raise InputError(f"column {absent[0]!r} is missing", location=str(file))
    unknown = rows.filter(~pl.col("class").is_in(CLASSES).fill_null(value=False))["class"]
    if len(unknown):
        what = f"class {unknown[0]!r} is none of {', '.join(CLASSES)}"
        raise InputError(what, location=f"{file}, column 'class'")
    for name in FEATURES:
        if not rows.schema[name].is_integer() or rows[name].null_count() or (rows[name] < 0).any():
            raise InputError(
                "whole numbers from 0 on are wanted in every row",
                location=f"{file}, column {name!r}",
            )
    distinct = rows.unique(subset=["class", *FEATURES], keep="first", maintain_order=True)
    label = distinct["class"].replace_strict(
        list(CLASSES), range(len(CLASSES)), return_dtype=pl.Int64
    )
    detail = (
        distinct["detail"].to_list() if "detail" in distinct.columns else [None] * len(distinct)
    )
    counts = distinct.select(pl.col(FEATURES).cast(pl.Int64)).to_numpy()
    digest = hashlib.sha256(data).hexdigest()
    return Run(
        file.stem, counts, label.to_numpy(), tuple(detail), digest, len(rows) - len(distinct)
    )


def divide(options: Options) -> tuple[list[Run], list[Run]]:
    """Runs to train on, and runs that measure.

    Raises:
        UsageError: too few to have both.
        InputError: as `load`; or the runs to train on lack one of the classes.
    """
    data, held = load(options.data), load(options.val)
    if not held:
        order = np.random.default_rng(options.seed).permutation(len(data)).tolist()
        held_numbers = set(order[: len(data) // 3])
        held = [data[number] for number in sorted(held_numbers)]
        data = [run for number, run in enumerate(data) if number not in held_numbers]
    if not data or not held:
        raise UsageError(
            "three runs are needed at least, one of them to measure on", hint="--val SPEC"
        )
    present = set(np.concatenate([run.label for run in data]).tolist())
    absent = [name for number, name in enumerate(CLASSES) if number not in present]
    if absent:
        raise InputError(f"no row to train on is of class {absent[0]!r}")
    return data, held


def rows_of(runs: Sequence[Run]) -> tuple[Ints, Ints]:
    """Counts (n, 16) and classes (n) of all runs."""
    return np.concatenate([run.counts for run in runs]), np.concatenate([run.label for run in runs])


def vectors(counts: Ints) -> Floats:
    """Unit vectors as a network in floating point reads them."""
    units: Floats = unit(counts, FINE).astype(np.float32) / np.float32(FINE)
    return units


def chi_square(values: Floats, label: Ints) -> npt.NDArray[np.float64]:
    """Per feature the chi-square statistic between its sums by class and those that independence
    expects: (F).

    Liu and Setiono, Chi2: Feature Selection and Discretization of Numeric Attributes, 1995; for
    sums of non-negative values as in text classification (Yang and Pedersen 1997)."""
    values, classes = values.astype(np.float64), np.unique(label)
    seen = np.stack([values[label == number].sum(axis=0) for number in classes])
    share = np.array([(label == number).mean() for number in classes])
    expected = share[:, None] * values.sum(axis=0)
    statistic: npt.NDArray[np.float64] = ((seen - expected) ** 2 / np.maximum(expected, 1e-12)).sum(
        axis=0
    )
    return statistic


def select(counts: Ints, label: Ints, keep: int) -> tuple[int, ...]:
    """The `keep` features of greatest chi-square, in their own order: over vectors of length one of
    the counts as they are, as published. (Over those of the logarithms it takes four of a kind: the
    times between packets.)"""
    length = np.sqrt((counts.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    ranked = np.argsort(-chi_square((counts / length).astype(np.float32), label), kind="stable")
    return tuple(sorted(ranked[:keep].tolist()))


def as_is(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The view of plain training."""
    return named


def fit(
    shape: TinyCnnShape,
    rows: tuple[Floats, Ints],
    options: Options,
    start: Mapping[str, Tensor] | None = None,
    view: View = as_is,
) -> dict[str, Tensor]:
    """Weights by name after `options.epochs`, as the network computes with them; bit for bit the
    same on one machine.

    Args:
        start: what is trained (default: fresh weights); `view` makes the network's weights of it at
            every step.
    """
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    module = tiny_cnn.network(shape, options.dropout if shape is tiny_cnn.ORIGINAL else 0.0)
    trained = {
        name: value.detach().clone().requires_grad_()
        for name, value in (start or module.state_dict()).items()
    }
    optimiser = torch.optim.Adam(
        trained.values(), lr=options.rate if start is None else options.rate / 2, fused=True
    )
    values, label = torch.from_numpy(rows[0]), torch.from_numpy(rows[1])
    weight = _class_weights(rows[1], options.balance)
    steps = options.epochs * -(-len(label) // options.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(options.epochs):
        order = torch.randperm(len(label))
        for start_row in range(0, len(order), options.batch):
            batch = order[start_row : start_row + options.batch]
            logits = torch.func.functional_call(module, view(trained), values[batch])
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(logits, label[batch], weight))
            nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimiser.step()
            schedule.step()
    return {name: value.detach().clone() for name, value in view(trained).items()}


def _class_weights(label: Ints, balance: float) -> Tensor:
    share = np.bincount(label, minlength=len(CLASSES)) / len(label)
    weight = np.maximum(share, 1e-6) ** -balance
    return torch.tensor(weight / (weight * share).sum(), dtype=torch.float32)


def export(shape: TinyCnnShape, weights: Mapping[str, Tensor]) -> bytes:
    """ONNX: `unit` (m, inputs) → `logits` (m, classes), any m; the initialisers have the layers'
    names."""
    module = tiny_cnn.network(shape)
    module.load_state_dict(dict(weights))
    made = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        (torch.zeros(1, shape.inputs),),
        cast(Any, made),
        dynamo=False,
        opset_version=20,
        do_constant_folding=False,
        input_names=["unit"],
        output_names=["logits"],
        dynamic_axes={"unit": {0: "batch"}, "logits": {0: "batch"}},
    )
    return made.getvalue()


def train(options: Options, progress: Progress = quiet) -> Bundle:
    """Labelled uniflows → a bundle of the three fp32 networks; the same bytes for the same options,
    data, machine.

    Raises:
        UsageError, InputError: as `divide`.
    """
    data, held = divide(options)
    counts, label = rows_of(data)
    every = tuple(range(len(FEATURES)))
    chosen = select(counts, label, tiny_cnn.OPTIMISED.inputs)
    names = ", ".join(FEATURES[number] for number in chosen)
    progress(f"{len(label):,} uniflows of {len(data)} runs; chi-square keeps {names}")
    files, networks = {}, []
    for name, shape in NETWORKS.items():
        used = chosen if shape.inputs < len(FEATURES) else every
        rate = options.rate_original if shape is tiny_cnn.ORIGINAL else options.rate
        weights = fit(shape, (vectors(counts[:, used]), label), replace(options, rate=rate))
        files[f"{name}.onnx"] = export(shape, weights)
        networks.append(
            {
                "name": name,
                "kind": KIND,
                "file": f"{name}.onnx",
                "shape": shape._asdict(),
                "features": [FEATURES[number] for number in used],
            }
        )
        progress(f"{name}: {shape.parameters:,} parameters after {options.epochs} epochs")
    manifest = {
        "family": "tiny_cnn",
        "version": VERSION,
        "task": TASK,
        "classes": list(CLASSES),
        "licence": options.licence,
        "schema": uniflow.describe(),
        "members": networks,
        "metrics": {},
        "training": {
            "data": {"train": _named(data), "measure": _named(held)},
            "flows": len(label),
            "windows": len(label),
            "seed": options.seed,
            "paper": PAPER,
            "options": {name: getattr(options, name) for name in RECIPE},
        },
    }
    return seal(manifest, files)


def _named(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [
        {
            "file": f"{run.name}.parquet",
            "sha256": run.sha256,
            "flows": len(run.label),
            "duplicates": run.duplicates,
        }
        for run in runs
    ]
