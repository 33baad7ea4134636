"""Labelled networks → windows, kept on disk so that every family reads the same ones and none is
made twice."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ids_plugin.datasets.labelled_flows import Labelled, load
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Bools, Floats, Ints
from ids_plugin.training.evaluate import LOOKUP
from ids_plugin.training.examples import Examples, as_seen_by, sample, windows
from ids_plugin.training.run import Split
from ids_plugin.windows import spec
from tests.bench.models.settings import Settings
from tests.bench.models.store import Store
from tests.lab import metering
from tests.support.shared_data import ROOT as SHARED

REPOSITORY = Path(__file__).parents[3]
RUNS = REPOSITORY / "tests/lab/flows/runs"
JUDGE = REPOSITORY / "tests/lab/flows/judge"
SAMPLE = REPOSITORY / "tests/lab/sample"
IOT23 = (
    "8-1-hakai",
    "20-1-torii",
    "34-1-mirai",
    "44-1-mirai",
    "honeypot-4-1-philips-hue",
    "honeypot-7-1-somfy-lock",
)
KEPT = ("source", "open", "replaces", "ts", "duration", "known", "clock", "uid", "orig_h", "resp_h", "resp_p", "proto",
        "conn_state", "history", "local_orig", "local_resp", "orig_bytes", "resp_bytes", "orig_ip_bytes",
        "resp_ip_bytes", "orig_pkts", "resp_pkts", "label", "label_detail")  # fmt: skip
"""columns that judging reads"""


@dataclass(frozen=True)
class Network:
    """All n windows of one network."""

    name: str
    flows: pl.DataFrame
    """(n) KEPT"""
    steps: Floats
    mask: Bools
    table: Floats


@dataclass(frozen=True)
class Training:
    """Windows to train on, and everything that is fitted beside them."""

    split: Split
    """networks without their flows' columns"""
    train: Examples
    stop: Examples
    combine: Examples
    """windows of the calibration networks"""
    seen: pl.DataFrame
    """LOOKUP, label and how many flows of the networks to train on are so"""

    def record(self) -> dict[str, Any]:
        """What it was made from, in numbers."""
        return {
            "networks": {use: len(networks) for use, networks in vars(self.split).items()},
            "flows": int(self.seen["flows"].sum()),
            "windows": {
                "train": len(self.train),
                "stop": len(self.stop),
                "combine": len(self.combine),
            },
        }


def say(message: str) -> None:
    """Progress, on stderr."""
    print(message, file=sys.stderr, flush=True)


def digest(*groups: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, group by group in the order of their names: wherever the
    groups lie."""
    whole = hashlib.sha256()
    for path in (path for group in groups for path in sorted(group)):
        whole.update(path.read_bytes())
    return whole.hexdigest()


class Data:
    """Everything made of flows; each part is prepared when it is first asked for."""

    def __init__(self, settings: Settings, store: Store, corpus: Path) -> None:
        """`corpus`: shards that `ids-plugin simulate --corpus` writes."""
        self._settings, self._store, self._corpus = settings, store, corpus
        self._judged: dict[str, list[Network]] = {}

    @cached_property
    def made_from(self) -> str:
        """Digest of the flows to train on and of what windows are."""
        shards = [
            self._corpus / f"{name}.parquet" for name in ("train", "validation", "calibration")
        ]
        return f"{spec().fingerprint}-{digest(shards, RUNS.glob('*.parquet'))}"

    @cached_property
    def lab(self) -> Training:
        """Simulated networks and the lab's training runs; the runs three times so that real tools
        weigh more."""
        folder = self._store.folder("training", self.made_from)
        if not folder.exists():
            say("windows to train on: sampling")
            self._sample(folder)
        return _read_training(folder)

    @cached_property
    def calibrating(self) -> list[Network]:
        """All windows of the calibration networks."""
        folder = self._store.folder("calibrating", self.made_from)
        if not folder.exists():
            say("calibration networks: windows")
            _write_networks(folder, self._split().calibrate)
        return _read_networks(folder)

    def judged(self, name: str) -> list[Network]:
        """All windows of the networks that judge: `lab`, `iot23`, `lab/suricata` and
        `lab/elastic`."""
        if name not in self._judged:
            kind, _, source = name.partition("/")
            files = [*SAMPLE.glob("*"), *JUDGE.glob("*.parquet")] if kind == "lab" else iot23()
            folder = self._store.folder(f"judged-{name}", digest(files), spec().fingerprint)
            if not folder.exists():
                say(f"{name}: windows")
                networks = (
                    _lab()
                    if kind == "lab"
                    else [one for path in files for one in load(f"iot23:{path}")]
                )
                seen = [
                    replace(one, flows=as_seen_by(source or "zeek", one.flows)) for one in networks
                ]
                _write_networks(folder, seen)
            self._judged[name] = _read_networks(folder)
        return self._judged[name]

    def without(self, scenario: str) -> Training:
        """The lab's windows and those of every IoT-23 scenario but one."""
        others = [
            one for path in iot23() for one in load(f"iot23:{path}") if scenario not in path.name
        ]
        lab = self.lab
        folder = self._store.folder(f"without-{scenario}", digest(iot23()), spec().fingerprint)
        if not folder.exists():
            with _making(folder) as draft:
                _write_examples(draft / "train", sample(others, self._settings.sampling, seed=3))
        theirs = _read_examples(folder / "train")
        activity = np.concatenate(
            [lab.train.activity, theirs.activity + lab.train.activity.max() + 1]
        )
        train = Examples(
            lab.train.spec, np.concatenate([lab.train.steps, theirs.steps]),
            np.concatenate([lab.train.mask, theirs.mask]), np.concatenate([lab.train.table, theirs.table]),
            np.concatenate([lab.train.label, theirs.label]), activity,
        )  # fmt: skip
        split = replace(lab.split, train=[*lab.split.train, *map(_slim, others)])
        return replace(lab, split=split, train=train, seen=pl.concat([lab.seen, _seen(others)]))

    def _split(self) -> Split:
        """Every other validation network stops early, the rest calibrate, as docs/bundle.md has
        it."""
        held = self._settings.held_out
        shards = {
            name: load(f"lab:{self._corpus / name}.parquet")
            for name in ("train", "validation", "calibration")
        }
        simulated = [
            *shards["validation"][: 2 * held - held // 2],
            *shards["calibration"][: held // 2],
        ]
        runs = [load(f"lab:{path}") for path in sorted(glob(str(RUNS / "*-[134].parquet")))]
        last = [load(f"lab:{path}") for path in sorted(glob(str(RUNS / "*-2.parquet")))]
        held_out = [*simulated, *(one for run in last for one in run)]
        train = [
            *shards["train"][: self._settings.networks],
            *(one for run in runs * 3 for one in run),
        ]
        return Split(train, held_out[::2], held_out[1::2])

    def _sample(self, folder: Path) -> None:
        split, sampling = self._split(), self._settings.sampling
        stop = sample(split.stop, sampling, seed=2)
        rows = np.random.default_rng(2).permutation(len(stop))[: self._settings.stop]
        parts = {
            "train": sample(split.train, sampling, seed=1),
            "stop": stop.take(np.sort(rows)),
            "combine": sample(split.calibrate, sampling, seed=3),
        }
        with _making(folder) as draft:
            for name, examples in parts.items():
                _write_examples(draft / name, examples)
            _seen(split.train).write_parquet(draft / "seen.parquet")
            named = {
                use: [_named(one) for one in networks] for use, networks in vars(split).items()
            }
            (draft / "split.json").write_text(json.dumps(named))


def iot23() -> list[Path]:
    """The scenarios' files; empty where the data set is absent."""
    paths = [SHARED / "iot-23" / f"{name}.conn.log.labeled" for name in IOT23]
    return paths if all(path.exists() for path in paths) else []


def relabelled(labels: Ints, known: Sequence[int]) -> Ints:
    """Class numbers as a model has them that knows only `known` ones: everything else is `other`,
    if it knows that."""
    other = CLASSES.index("other")
    return np.where(np.isin(labels, known), labels, other) if other in known else labels


def _lab() -> list[Labelled]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.parquet"
        metering.read(SAMPLE).write_parquet(path)
        return [*load(f"lab:{path}"), *load(f"lab:{JUDGE}")]


def _seen(networks: Sequence[Labelled]) -> pl.DataFrame:
    flows = pl.concat([one.flows.select(*LOOKUP, "label") for one in networks])
    return (
        flows.group_by(*LOOKUP, "label").len("flows").with_columns(pl.col("flows").cast(pl.Int64))
    )


def _named(network: Labelled) -> dict[str, Any]:
    return {
        "name": network.name,
        "file": network.file,
        "sha256": network.sha256,
        "flows": len(network.flows),
    }


def _slim(network: Labelled) -> Labelled:
    return replace(network, flows=network.flows.select("label"))


class _making:
    """A folder that is there with everything in it, or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._draft = folder.with_name(f"{folder.name}.draft")

    def __enter__(self) -> Path:
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir(parents=True)
        return self._draft

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._draft.rename(self._folder)


def _write_examples(folder: Path, examples: Examples) -> None:
    folder.mkdir()
    for name in ("steps", "mask", "table", "label", "activity"):
        np.save(folder / f"{name}.npy", getattr(examples, name))


def _read_examples(folder: Path) -> Examples:
    names = ("steps", "mask", "table", "label", "activity")
    return Examples(spec(), *(np.load(folder / f"{name}.npy") for name in names))


def _read_training(folder: Path) -> Training:
    named = json.loads((folder / "split.json").read_text())
    split = Split(**{use: [_empty(one) for one in networks] for use, networks in named.items()})
    parts = {name: _read_examples(folder / name) for name in ("train", "stop", "combine")}
    return Training(split=split, **parts, seen=pl.read_parquet(folder / "seen.parquet"))


def _empty(one: dict[str, Any]) -> Labelled:
    return Labelled(
        one["name"],
        pl.DataFrame({"label": np.zeros(one["flows"], np.int8)}),
        one["file"],
        one["sha256"],
    )


def _write_networks(folder: Path, networks: Sequence[Labelled]) -> None:
    with _making(folder) as draft:
        for number, network in enumerate(networks):
            batches = list(_arrays(network))
            part = draft / f"{number:03d}"
            part.mkdir()
            (part / "name").write_text(network.name)
            pl.concat([flows for flows, *_ in batches]).write_parquet(part / "flows.parquet")
            for name, arrays in zip(
                ("steps", "mask", "table"), list(zip(*batches, strict=True))[1:], strict=True
            ):
                np.save(part / f"{name}.npy", np.concatenate(arrays))


def _arrays(network: Labelled) -> Iterable[tuple[pl.DataFrame, Floats, Bools, Floats]]:
    for batch in windows(network.flows):
        rows = np.arange(len(batch))
        steps = batch.steps(rows)
        yield (
            batch.flows.select(KEPT),
            steps.values.copy(),
            steps.mask.copy(),
            batch.table(rows).copy(),
        )


def _read_networks(folder: Path) -> list[Network]:
    return [
        Network(
            (part / "name").read_text(),
            pl.read_parquet(part / "flows.parquet"),
            *(np.load(part / f"{name}.npy", mmap_mode="r") for name in ("steps", "mask", "table")),
        )
        for part in sorted(folder.iterdir())
    ]
