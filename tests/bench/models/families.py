"""Families and rules on flows: trained, calibrated, judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from ids_plugin.bundle import Bundle, seal
from ids_plugin.schema.score import CLASSES, Scores, joined
from ids_plugin.scoring import Doubles
from ids_plugin.scoring.scorer import Scorer
from ids_plugin.training import combination
from ids_plugin.training.evaluate import (
    LOOKUP,
    JudgedNetwork,
    by_class,
    figures,
    likeliest,
    of_network,
    total,
)
from ids_plugin.training.run import assemble, combine
from tests.bench.models.flows import Network, Training, relabelled, say
from tests.bench.models.settings import Settings

Opinion = Callable[[Network], Scores]
_ROWS = 4096
_ALL = tuple(range(len(CLASSES)))


def trained(
    settings: Settings, family: str, seed: int, data: Training, calibrating: Sequence[Network]
) -> Bundle:
    """A bundle of one family alone, its thresholds fitted on the calibration networks."""
    began = time.process_time()
    bundle = assemble(settings.options(family, seed), data.split, data.train, data.stop, say)
    if family == "behaviour":
        seen = sorted(set(np.unique(data.train.label).tolist()))
        bundle = _with_training(bundle, classes=[CLASSES[number] for number in seen])
    bundle = _with_training(bundle, cpu_s=round(time.process_time() - began, 1))
    return finished(settings, bundle, data, calibrating)


def together(
    settings: Settings, parts: Sequence[Bundle], data: Training, calibrating: Sequence[Network]
) -> Bundle:
    """The members of trained bundles with a combination of their own."""
    first = parts[0]
    members = [member for part in parts for member in part.manifest.members]
    manifest = first.manifest.replaced(members=members)
    files = {name: contents for part in parts for name, contents in part.files.items()}
    return finished(settings, seal(manifest, files), data, calibrating)


def finished(
    settings: Settings, bundle: Bundle, data: Training, calibrating: Sequence[Network]
) -> Bundle:
    """The bundle with combination and thresholds."""
    classes = known(bundle)
    bundle = combine(bundle, replace(data.combine, label=relabelled(data.combine.label, classes)))
    thresholds = fit(of_bundle(bundle), calibrating, classes, settings.false_per_day)
    return seal(bundle.manifest.replaced(thresholds=thresholds), bundle.files)


def known(bundle: Bundle) -> list[int]:
    """Class numbers that a bundle was taught."""
    return [CLASSES.index(name) for name in bundle.manifest.trained_classes]


def fit(
    opinion: Opinion, networks: Sequence[Network], classes: Sequence[int], per_day: float
) -> dict[str, float]:
    """Thresholds as training fits them."""
    judged = []
    for network in networks:
        numbers = (
            network.flows["label"]
            .replace_strict(list(CLASSES), list(_ALL), return_dtype=pl.Int64)
            .to_numpy()
        )
        label = pl.Series("label", np.array(CLASSES)[relabelled(numbers, classes)])
        judged.append(
            combination.ScoredNetwork(
                network.name, network.flows.with_columns(label), opinion(network)
            )
        )
    return combination.fit_thresholds(judged, list(classes), per_day)


def of_bundle(bundle: Bundle) -> Opinion:
    """Every flow scored by every member."""
    scorer = Scorer(bundle, cascade=False)

    def opinion(network: Network) -> Scores:
        cuts = [slice(start, start + _ROWS) for start in range(0, len(network.table), _ROWS)]
        return joined(
            [scorer.score_arrays(network.steps[c], network.mask[c], network.table[c]) for c in cuts]
        )

    return opinion


def lookup(seen: pl.DataFrame) -> Opinion:
    """A table on (proto, conn_state, history): class shares of the flows it was taught; of all
    where the key is new."""
    counted = seen.group_by(*LOOKUP, "label").agg(pl.col("flows").sum())
    wide = counted.pivot(
        "label", index=list(LOOKUP), values="flows", aggregate_function="sum"
    ).fill_null(0)
    names = [name for name in CLASSES if name in wide.columns]
    everything = wide.select(names).sum().row(0)

    def opinion(network: Network) -> Scores:
        keys = network.flows.select(LOOKUP)
        found = keys.join(
            wide, on=list(LOOKUP), how="left", nulls_equal=True, maintain_order="left"
        ).select(names)
        filled = found.with_columns(
            pl.when(pl.col(names[0]).is_null()).then(share).otherwise(name).alias(name)
            for name, share in zip(names, everything, strict=True)
        )
        counts = np.zeros((len(keys), len(CLASSES)))
        counts[:, [CLASSES.index(name) for name in names]] = filled.to_numpy()
        return scores_of(counts / counts.sum(axis=1, keepdims=True))

    return opinion


def tcp_is_malicious(network: Network) -> Scores:
    """What it says: every TCP flow is an attack of a class nobody knows, everything else is
    benign."""
    probability = np.zeros((len(network.flows), len(CLASSES)))
    tcp = (network.flows["proto"] == "tcp").to_numpy()
    probability[:, 0], probability[:, CLASSES.index("other")] = ~tcp, tcp
    return scores_of(probability)


def scores_of(probability: Doubles) -> Scores:
    """Scores with thresholds still to be fitted."""
    label = probability[:, 1:].argmax(axis=1) + 1
    size = len(label)
    return Scores(
        1 - probability[:, 0],
        label,
        probability,
        {},
        np.zeros(size, np.bool_),
        np.full(size, np.inf),
    )


def judge(
    opinion: Opinion, thresholds: dict[str, float], networks: Sequence[Network]
) -> list[JudgedNetwork]:
    """Every flow of every network."""
    judged = []
    for network in networks:
        one = combination.with_thresholds(
            combination.ScoredNetwork(network.name, network.flows, opinion(network)), thresholds
        )
        judged.append(
            JudgedNetwork(
                network.name, network.flows, one.scores, np.ones(len(network.flows), np.bool_)
            )
        )
    return judged


def told(judged: Sequence[JudgedNetwork], classes: Sequence[int]) -> dict[str, Any]:
    """All figures of one model on one set of networks; per class only where it tells classes
    apart."""
    by_flow = figures(judged, [one.scores.score for one in judged])
    networks = [of_network(one) for one in judged]
    result: dict[str, Any] = {
        "flows": by_flow,
        "total": total(networks),
        "by_kind": _by_kind(networks),
    }
    if len(classes) > 2:
        result |= by_class(*likeliest(judged))
    return result


def _by_kind(networks: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Class → (host, class) wanted, found in it, found in any."""
    found: dict[str, list[int]] = {}
    for one in (one for network in networks for one in network["wanted"]):
        counts = found.setdefault(one["class"], [0, 0, 0])
        for at, value in enumerate((True, one["found"], one["found_in_any_class"])):
            counts[at] += int(value)
    return found


def _with_training(bundle: Bundle, **more: Any) -> Bundle:
    training = bundle.manifest.training.replaced(**more)
    return seal(bundle.manifest.replaced(training=training), bundle.files)
