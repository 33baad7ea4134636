"""What `--all` runs, section by section: which cells there are, and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ids_plugin.bundle import Bundle
from ids_plugin.schema.score import CLASSES
from ids_plugin.training.evaluate import JudgedNetwork
from tests.bench.models import beside
from tests.bench.models import cost as costs
from tests.bench.models import records as tables
from tests.bench.models.families import (
    Opinion,
    fit,
    judge,
    known,
    lookup,
    of_bundle,
    tcp_is_malicious,
    together,
    told,
    trained,
)
from tests.bench.models.flows import IOT23, JUDGE, SAMPLE, Data, Training, digest, iot23, say
from tests.bench.models.settings import FAMILIES, LEARNERS, RULES, Settings
from tests.bench.models.store import Cell, Store
from tests.support.shared_data import ROOT as SHARED

TOGETHER = ("lightgbm+behaviour", "anomaly_net+lightgbm+behaviour")
"""the default combination without and with its network"""
SOURCES = ("suricata", "elastic")
LEFT_OUT = (
    *RULES,
    "lightgbm",
    "random_forest",
    "cnn",
    "lstm",
    "anomaly_net",
    "svm_rbf",
    "ae_lstm",
    "l_tcn",
    "cnn_lstm",
)
"""cheap ones first"""


@dataclass
class Bench:
    """One run: what it is told, what was finished before it, and the flows."""

    settings: Settings
    store: Store
    corpus: Path
    _thresholds: dict[str, dict[str, float]] = field(default_factory=dict)

    @cached_property
    def data(self) -> Data:
        return Data(self.settings, self.store, self.corpus)

    def made_from(self, section: Section) -> list[str]:
        """Digests of the data behind a section's cells; of what is absent nothing."""
        if section.name in tables.SETS or section.name == "nab":
            return [digest(path for path in (SHARED / section.public).rglob("*") if path.is_file())]
        if not (self.corpus / "train.parquet").exists():
            return []
        public = iot23() if section.public or section.name == "together" else []
        return [self.data.made_from, digest(public, [*SAMPLE.glob("*"), *JUDGE.glob("*.parquet")])]

    def lab_bundle(self, family: str, seed: int) -> Bundle:
        """A family trained on the lab, from the store where it is there."""
        return self._bundle(f"lab/{family}-{seed}", family, seed, lambda: self.data.lab)

    def left_out_bundle(self, family: str, seed: int, scenario: str) -> Bundle:
        """A family trained on the lab and on every IoT-23 scenario but one."""
        return self._bundle(
            f"without-{scenario}/{family}-{seed}", family, seed, lambda: self.data.without(scenario)
        )

    def combined(self, name: str, seed: int) -> Bundle:
        """Members joined by `+`, each trained on the lab, with a combination of their own."""
        kept = self.store.bundle(f"together/{name}-{seed}", self.data.made_from)
        if kept is None:
            parts = [self.lab_bundle(part, seed) for part in name.split("+")]
            kept = together(self.settings, parts, self.data.lab, self.data.calibrating)
            self.store.keep(f"together/{name}-{seed}", kept, self.data.made_from)
        return kept

    def rule(self, family: str, training: Training) -> tuple[Opinion, dict[str, float], list[int]]:
        """The lookup table or `tcp_is_malicious`, its thresholds, and the classes that it tells
        apart."""
        opinion, _ = _rule(family, training)
        return opinion, *self._of_rule(family)

    def _of_rule(self, family: str) -> tuple[dict[str, float], list[int]]:
        """Thresholds and classes of the rule as the lab's networks teach it: the same wherever it
        judges."""
        opinion, classes = _rule(family, self.data.lab)
        if family not in self._thresholds:
            fitted = fit(opinion, self.data.calibrating, classes, self.settings.false_per_day)
            self._thresholds[family] = fitted
        return self._thresholds[family], classes

    def _bundle(
        self, name: str, family: str, seed: int, training: Callable[[], Training]
    ) -> Bundle:
        kept = self.store.bundle(name, self.data.made_from)
        if kept is None:
            say(f"{name}: training")
            kept = trained(self.settings, family, seed, training(), self.data.calibrating)
            self.store.keep(name, kept, self.data.made_from)
        return kept


def _rule(family: str, training: Training) -> tuple[Opinion, list[int]]:
    if family == "tcp_is_malicious":
        return tcp_is_malicious, [0, CLASSES.index("other")]
    taught = training.seen["label"].unique().to_list()
    return lookup(training.seen), sorted(CLASSES.index(name) for name in taught)


def of_flows(bench: Bench, family: str, seed: int, sets: Sequence[str]) -> dict[str, Any]:
    """A family trained on the lab, judged on each of `sets`."""
    if family in ("lookup", "tcp_is_malicious"):
        opinion, thresholds, classes = bench.rule(family, bench.data.lab)
    else:
        bundle = bench.combined(family, seed) if "+" in family else bench.lab_bundle(family, seed)
        opinion, thresholds, classes = (
            of_bundle(bundle),
            dict(bundle.manifest.thresholds),
            known(bundle),
        )
    return {
        name: told(judge(opinion, thresholds, bench.data.judged(name)), classes) for name in sets
    }


def lab(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The lab's unseen runs."""
    result: dict[str, Any] = of_flows(bench, cell.family, cell.seed, ("lab",))["lab"]
    if cell.family in LEARNERS:
        training = bench.lab_bundle(cell.family, cell.seed).manifest.training
        result["training"] = {"cpu_s": training.document["cpu_s"], "fit": training.options["fit"]}
    return {**result, "made_from": bench.data.lab.record()}


def lab_to_iot23(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Nothing of IoT-23 in training."""
    found: dict[str, Any] = of_flows(bench, cell.family, cell.seed, ("iot23",))["iot23"]
    return found


def sources(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The lab's unseen runs as poorer sources give them."""
    return of_flows(bench, cell.family, cell.seed, [f"lab/{source}" for source in SOURCES])


def pair(bench: Bench, cell: Cell) -> dict[str, Any]:
    """A combination on the lab's unseen runs and on IoT-23."""
    sets = ("lab", "iot23") if iot23() else ("lab",)
    manifest = bench.combined(cell.family, cell.seed).manifest
    weights = manifest.document["combination"]["weights"]
    return {**of_flows(bench, cell.family, cell.seed, sets), "weights": weights}


def left_out(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Each IoT-23 scenario judged by what was trained on the lab and on the others; all of them
    pooled."""
    judged: list[JudgedNetwork] = []
    classes: list[int] = []
    networks = {network.name: network for network in bench.data.judged("iot23")}
    for scenario in IOT23:
        here = [network for name, network in networks.items() if scenario in name]
        if cell.family in ("lookup", "tcp_is_malicious"):
            opinion, thresholds, classes = bench.rule(cell.family, bench.data.without(scenario))
        else:
            bundle = bench.left_out_bundle(cell.family, cell.seed, scenario)
            opinion, thresholds, classes = (
                of_bundle(bundle),
                dict(bundle.manifest.thresholds),
                known(bundle),
            )
        judged += judge(opinion, thresholds, here)
    return told(judged, classes)


def cost(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Size, parameters, operations, memory and time, as trained and as int8."""
    return costs.of(bench.lab_bundle(cell.family, cell.seed), bench.data.lab.train)


def records(bench: Bench, cell: Cell) -> dict[str, Any]:
    """A set of ready-made features."""
    return tables.of(cell.section, cell.family, cell.seed, bench.settings)


def lab_rows(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Rows of the lab's training runs split at random, as published figures are."""
    return tables.of_rows(bench.data.lab, cell.family, cell.seed, bench.settings)


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    families: tuple[str, ...]
    run: Callable[[Bench, Cell], dict[str, Any]]
    seeds: bool = True
    """whether learners are trained with every seed"""
    public: str = ""
    """data set of the shared data that it needs"""

    def cells(self, seeds: int) -> Iterator[Cell]:
        """Seed by seed, rules once."""
        for seed in range(1, (seeds if self.seeds else 1) + 1):
            for family in self.families:
                if seed == 1 or family not in RULES:
                    yield Cell(self.name, family, seed)


SECTIONS = {
    section.name: section
    for section in (
        Section("lab", FAMILIES, lab),
        Section("lab-to-iot23", FAMILIES, lab_to_iot23, public="iot-23"),
        Section("together", TOGETHER, pair),
        *(
            Section(name, tables.FAMILIES, records, public=tables.SETS[name].folder)
            for name in ("nslkdd", "iotid20", "cicids2017", "unsw")
        ),
        Section("cost", LEARNERS, cost, seeds=False),
        Section("sources", FAMILIES, sources, seeds=False),
        Section("lab-random-rows", tables.FAMILIES, lab_rows),
        Section("iot23-left-out", LEFT_OUT, left_out, public="iot-23"),
        Section("compression", beside.COMPRESSED, beside.compression, seeds=False),
        Section("ae-lstm", ("ae_lstm",), beside.variants, seeds=False),
        Section("devices", ("tiny_cnn",), beside.devices, seeds=False),
        Section("nab", ("ae_lstm",), beside.nab, seeds=False, public="nab"),
    )
}
"""In the order in which a run with little time makes them."""


def cells(seeds: int) -> list[Cell]:
    """Every cell; the first seed of every section before the second of any."""
    found = [cell for section in SECTIONS.values() for cell in section.cells(seeds)]
    return sorted(found, key=lambda cell: cell.seed)
