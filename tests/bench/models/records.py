"""Tables of records: sets of ready-made features, and the lab's windows row by row.

A record is a window of one step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ids_plugin import registry
from ids_plugin.bundle import describe, seal
from ids_plugin.datasets.feature_tables import Table, load_table
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import STEPS, Feature, Ints, Spec
from ids_plugin.scoring import Doubles
from ids_plugin.training import evaluate
from ids_plugin.training.examples import Examples
from ids_plugin.training.run import train_member
from tests.bench.models.flows import Training, say
from tests.bench.models.settings import LEARNERS, Settings
from tests.support.shared_data import ROOT as SHARED

FAMILIES = ("lookup", "tcp_is_malicious", *LEARNERS)
OUTCOME = ("tcp", "udp", "icmp", "failed", "refused", "completed", "reset", "still_open")
"""of a window: what the lookup table knows it by"""
BINS = 20
"""of a number, in the lookup table of a set without categories"""


@dataclass(frozen=True)
class Published:
    """A set of ready-made features as it lies in the shared data."""

    folder: str
    train: str
    test: str = ""
    """a file of its own; otherwise rows at random"""
    protocol: str = ""
    """name of the column that says tcp"""


SETS = {
    "nslkdd": Published("nsl-kdd", "KDDTrain+_20Percent.txt", "KDDTest+.txt", "protocol_type"),
    "iotid20": Published("iotid20-sample", "."),
    "cicids2017": Published("cicids2017-sample", "."),
    "unsw": Published("unsw-nb15", ".", protocol="proto"),
}


class Rows(Examples):
    """Examples that all weigh the same: as the set has them."""

    @property
    def weight(self) -> Doubles:
        """(n) sums to 1."""
        return np.full(len(self.label), 1 / len(self.label))


@dataclass(frozen=True)
class Parts:
    """A set cut in three, and what the two rules need of it."""

    train: Rows
    stop: Rows
    test: Rows
    keys: tuple[Ints, Ints]
    """of the records to train on and of those that judge: what the lookup table knows a record
    by"""
    tcp: np.ndarray[tuple[int], np.dtype[np.bool_]] | None
    """of the records that judge"""
    split: str
    summary: str


def of(name: str, family: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Figures of one family on one set of ready-made features."""
    return judged(parts(name), family, seed, settings)


def judged(data: Parts, family: str, seed: int, settings: Settings) -> dict[str, Any]:
    """A family trained on the first part and judged on the last; the class is the likeliest."""
    began = time.process_time()
    if family == "lookup":
        probability = _lookup(data)
    elif family == "tcp_is_malicious":
        if data.tcp is None:
            return {"inapplicable": "the set has no protocol"}
        probability = np.zeros((len(data.tcp), len(CLASSES)))
        probability[:, 0], probability[:, CLASSES.index("other")] = ~data.tcp, data.tcp
    else:
        probability = _trained(data, family, seed, settings)
    taught = [0, CLASSES.index("other")] if family in ("tcp_is_malicious", "ae_lstm") else []
    return {**_figures(data.test, probability, taught), "split": data.split, "summary": data.summary,
            "rows": [len(data.train), len(data.stop), len(data.test)],
            "cpu_s": round(time.process_time() - began, 1)}  # fmt: skip


def _figures(test: Rows, probability: Doubles, taught: Sequence[int]) -> dict[str, Any]:
    """By class where the model tells classes apart, and malicious against benign."""
    bad, score = test.label != 0, 1 - probability[:, 0]
    said = probability.argmax(axis=1)
    result: dict[str, Any] = {
        "binary_accuracy": round(float(((said != 0) == bad).mean()), 4),
        "flows": evaluate.binary(bad, said != 0, score),
    }
    if not taught or set(np.unique(test.label).tolist()) <= set(taught):
        result |= evaluate.by_class(test.label, said)
    return result


def _trained(data: Parts, family: str, seed: int, settings: Settings) -> Doubles:
    made = train_member(
        registry.load("models", family),
        settings.options(family, seed, records=True),
        data.train,
        data.stop,
        say,
    )
    manifest = {
        "family": family,
        "version": "1",
        "classes": list(CLASSES),
        "schema": describe(data.train.spec),
        "members": [
            {
                "name": family,
                "kind": made.kind,
                "file": made.file,
                "classes": [CLASSES[label] for label in made.classes],
            }
        ],
    }
    bundle = seal(manifest, {made.file: made.data})
    opened = registry.load("members", made.kind).open(bundle, bundle.manifest.members[0])
    test = data.test
    cuts = [slice(start, start + 4096) for start in range(0, len(test), 4096)]
    return np.concatenate(
        [opened.probabilities(test.steps[c], test.mask[c], test.table[c]) for c in cuts]
    )


def _lookup(data: Parts) -> Doubles:
    """Class shares of the records to train on with the same key; of all of them where the key is
    new."""
    taught, asked = data.keys
    count = int(max(taught.max(), asked.max())) + 1
    table = np.zeros((count, len(CLASSES)))
    np.add.at(table, (taught, data.train.label), 1)
    new = table.sum(axis=1) == 0
    table[new] = np.bincount(data.train.label, minlength=len(CLASSES))
    found: Doubles = (table / table.sum(axis=1, keepdims=True))[asked]
    return found


@cache
def parts(name: str) -> Parts:
    """A set of the shared data: its own test file, or 70/15/15 of the rows at random, every class
    alike."""
    published = SETS[name]
    folder = SHARED / published.folder
    first = load_table(f"{name}:{folder / published.train}")
    if published.test:
        last = load_table(f"{name}:{folder / published.test}")
        train, stop, _ = _stratified(first.numbers(), (0.85, 0.15, 0.0))
        test = np.arange(len(last.label))
        split, summary = "the set's own test file", f"{first.summary}; test: {last.summary}"
    else:
        last = first
        train, stop, test = _stratified(first.numbers(), (0.7, 0.15, 0.15))
        split, summary = "rows at random, 70/15/15, stratified", first.summary
    made = {
        part: _examples(table, first, rows)
        for part, table, rows in (
            ("train", first, train),
            ("stop", first, stop),
            ("test", last, test),
        )
    }
    tcp = (
        None
        if not published.protocol
        else (last.features[published.protocol] == "tcp").to_numpy()[test]
    )
    keys = _keys(first, last, train)
    return Parts(
        **made, keys=(keys[0][train], keys[1][test]), tcp=tcp, split=split, summary=summary
    )


def of_rows(training: Training, family: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Windows of the lab's own runs, row by row at random: flows of one attack on both sides."""
    return judged(_lab_rows(training), family, seed, settings)


_KEPT: dict[int, Parts] = {}


def _lab_rows(training: Training) -> Parts:
    if id(training) in _KEPT:
        return _KEPT[id(training)]
    examples = training.train
    train, stop, test = _stratified(examples.label, (0.7, 0.15, 0.15))
    made = {
        part: _rows(examples, rows)
        for part, rows in (("train", train), ("stop", stop), ("test", test))
    }
    names = [feature.name for feature in examples.spec.table]
    columns = [names.index(name) for name in OUTCOME if name in names]
    keys = np.unique(np.nan_to_num(examples.table[:, columns]), axis=0, return_inverse=True)[
        1
    ].reshape(-1)
    tcp = examples.table[test, names.index("tcp")] > 0.5 if "tcp" in names else None
    split = "rows of the lab's networks at random, 70/15/15, stratified: flows of one attack on both sides"
    found = Parts(
        **made,
        keys=(keys[train], keys[test]),
        tcp=tcp,
        split=split,
        summary=f"{len(examples):,} windows",
    )
    _KEPT[id(training)] = found
    return found


def _rows(examples: Examples, rows: Ints) -> Rows:
    label = examples.label[rows]
    return Rows(
        examples.spec, examples.steps[rows], examples.mask[rows], examples.table[rows], label, label
    )


def _stratified(labels: Ints, shares: tuple[float, float, float]) -> tuple[Ints, Ints, Ints]:
    """Rows of each part; seed 1 whatever the model's seed, so that every model is judged by the
    same rows."""
    rng = np.random.default_rng(1)
    found: tuple[list[Ints], list[Ints], list[Ints]] = ([], [], [])
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(shares)[:2] * len(rows)).astype(int)
        for part, some in zip(found, np.split(rows, cuts), strict=True):
            part.append(some)
    return tuple(np.sort(np.concatenate(part)) for part in found)  # type: ignore[return-value]


def _examples(table: Table, known: Table, rows: Ints) -> Rows:
    """Each number's signed logarithm; the features are the last step, after padding, and they are
    the table too."""
    names, values = table.matrix(known)
    features = tuple(Feature(name, "", name) for name in names)
    spec = Spec(flow=features, step=(), context=(), summary=())
    flat = (np.sign(values[rows]) * np.log1p(np.abs(values[rows]))).astype(np.float32)
    steps = np.zeros((len(rows), STEPS, len(names)), np.float32)
    steps[:, -1] = flat
    mask = np.zeros((len(rows), STEPS), np.bool_)
    mask[:, -1] = True
    label = table.numbers()[rows]
    return Rows(spec, steps, mask, flat, label, label)


def _keys(first: Table, last: Table, train: Ints) -> tuple[Ints, Ints]:
    """The categories of a record; of a set without any, the one number that, cut in BINS, tells
    classes apart best."""
    texts = [name for name, dtype in first.features.schema.items() if dtype == pl.String]
    if texts:
        both = pl.concat([first.features.select(texts), last.features.select(texts)])
        numbers = (
            both.select(pl.struct(texts).rank("dense")).to_series().to_numpy().astype(np.int64)
        )
        return numbers[: len(first.label)], numbers[len(first.label) :]
    labels = first.numbers()
    best: tuple[int, str, Doubles] | None = None
    for name in first.features.columns:
        values = first.features[name].to_numpy()
        edges = np.unique(np.quantile(values[train], np.linspace(0, 1, BINS + 1)[1:-1]))
        counted = np.zeros((len(edges) + 1, len(CLASSES)), np.int64)
        np.add.at(counted, (np.searchsorted(edges, values[train]), labels[train]), 1)
        right = int(counted.max(axis=1).sum())
        if best is None or right > best[0]:
            best = right, name, edges
    if best is None:
        raise ValueError("a table without features")
    _, name, edges = best
    return tuple(
        np.searchsorted(edges, one.features[name].to_numpy()).astype(np.int64)
        for one in (first, last)
    )  # type: ignore[return-value]


def absent(folder: str) -> bool:
    """Whether a folder of the shared data isn't there."""
    return not Path(SHARED / folder).exists()
