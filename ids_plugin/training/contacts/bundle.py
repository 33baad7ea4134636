"""One training run of the contacts family: captures → a bundle with the detectors `counters` and
`control`."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.bundle import Bundle, describe, seal
from ids_plugin.datasets import real_captures
from ids_plugin.datasets.real_captures import Capture
from ids_plugin.detectors.contact_profile.model import NAMES, Logistic
from ids_plugin.detectors.contact_profile.network import NetworkInputs
from ids_plugin.errors import InputError
from ids_plugin.schema.score import CLASSES
from ids_plugin.training.contacts.counter_baselines import CounterBaselines, counters_file
from ids_plugin.training.contacts.examples import (
    BENIGN,
    CONTROL,
    ContactExamples,
    Doubles,
    examples,
    judge,
)
from ids_plugin.training.contacts.network import exported, inputs_of
from ids_plugin.training.contacts.voters import (
    ContactFit,
    OutOfFold,
    Voters,
    fit_voters,
    out_of_fold,
    training_rows,
)
from ids_plugin.training.options import Progress
from ids_plugin.windows import spec

VERSION = "1"
CONTROL_DETECTOR = "control"
COUNTERS, SETTINGS, LOGISTIC, TREES, BASELINES, NETWORK = (
    "counters.json",
    "contacts.json",
    "contacts.logistic.json",
    "contacts.lightgbm.txt",
    "contacts.baselines.json",
    "contacts.network.onnx",
)
BASELINE_PERCENTILES = (5, 50, 95)
MOST_CALIBRATED_GROUPS = 60
"""false alert groups up to which the rate of alerts is followed"""
TAIL_SCORES = (0.99, 0.98, 0.97, 0.96, 0.95, 0.94)
"""scores beyond the highest of normal traffic for which the rate is extended"""
TAIL_POINTS = 10
"""highest points whose slope extends it"""
EXPOSED_KIND = "exposed"
"""captures of hosts that outside hosts scan: their counters aren't those of a network's own
hosts"""
SIGNIFICANT_DIGITS = 9
SHOWN_ROWS = 4096
"""windows that fix the scales of a smaller network"""
_LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime", "polars", "scikit-learn", "torch")


@dataclass(frozen=True)
class ContactOptions:
    """What a training run is asked to do."""

    data: tuple[str, ...]
    """`real:DIR` or a set of labelled flows, see datasets.real_captures"""
    seed: int = 1
    calibration_seeds: int = 1
    """seeds over which scores out of fold are averaged, from `seed` on"""
    alerts_per_day: float = 0.3
    """false ones that the control detector may give on a benign day"""
    fit: ContactFit = field(default_factory=ContactFit)
    licence: str = "Apache-2.0"


class Trained(NamedTuple):
    """A bundle, and what a smaller one of it is made with."""

    bundle: Bundle
    shown: NetworkInputs
    """what its network may see, to fix scales"""


def train(options: ContactOptions, progress: Progress) -> Trained:
    """Captures → a bundle with an fp32 network; the same bytes for the same options, data and
    machine.

    Raises:
        UsageError, InputError: as datasets.real_captures; no remote control or no normal traffic.
    """
    baselines = CounterBaselines()
    data = examples(_watched(options.data, baselines))
    _check(data)
    progress(_amount(data))
    scores = []
    for seed in range(options.seed, options.seed + options.calibration_seeds):
        scores.append(out_of_fold(data, options.fit, seed))
        progress(f"scored out of fold, seed {seed}")
    modes = {
        name: np.mean([_score(part, name, data, options.fit) for part in scores], axis=0)
        for name in OutOfFold._fields
    }
    calibrations = {name: calibration(data, score) for name, score in modes.items()}
    nothing = np.zeros(len(data), np.bool_)
    rows = training_rows(data, nothing, options.fit)
    voters = fit_voters(data, rows, options.fit, options.seed)
    files, entry = _files(data, voters, calibrations, options)
    files[COUNTERS] = counters_file(baselines)
    metrics = {
        f"out_of_fold_{name}": _metrics(data, score, calibrations[name], options)
        for name, score in modes.items()
    }
    progress(f"out of fold: {metrics}")
    manifest = _manifest(data, options, entry, metrics)
    random = np.random.default_rng(options.seed)
    shown = random.choice(rows, min(SHOWN_ROWS, len(rows)), replace=False)
    return Trained(seal(manifest, files), inputs_of(data.take(np.sort(shown))))


def _watched(specs: Sequence[str], baselines: CounterBaselines) -> Iterator[Capture]:
    """The captures of all specs; normal ones are counted as they pass."""
    for data_spec in specs:
        for capture in real_captures.load(data_spec):
            is_normal = capture.is_certain and capture.kind not in (
                real_captures.ATTACK_KIND,
                EXPOSED_KIND,
            )
            if is_normal:
                baselines.add(capture.flows)
            yield capture


def _check(data: ContactExamples) -> None:
    if not (data.label == CONTROL).any():
        raise InputError("no remote control of five flows or more in the data")
    if not data.is_counted.any():
        raise InputError("no normal traffic for certain in the data")
    if len(set(data.fold[data.label == CONTROL].tolist())) < 2:
        raise InputError("all remote control is of one family of sources; two are needed")


def _amount(data: ContactExamples) -> str:
    contacts = len(np.unique(data.contact))
    control = len(np.unique(data.contact[data.label == CONTROL]))
    return (
        f"{len(data.captures)} captures, {len(data):,} profiles of {contacts:,} contacts,"
        f" {control} of control, {data.benign_days():.2f} benign days"
    )


def _score(part: OutOfFold, mode: str, data: ContactExamples, fit: ContactFit) -> Doubles:
    score: Doubles = getattr(part, mode).combined(data.peer_hosts, fit)
    return score


def calibration(data: ContactExamples, score: Doubles) -> list[list[float]]:
    """[score, false alert groups a benign day from that score on], falling; beyond the highest
    score of normal traffic it goes on with the slope of the highest points in log-odds."""
    days = data.benign_days()
    counted = data.is_counted & ~np.isnan(score)
    points: list[list[float]] = []
    groups = 0
    for threshold in np.unique(np.round(score[counted], 3))[::-1]:
        alerts = judge(data, counted & (score >= threshold)).false_groups
        if alerts > groups:
            points.append([float(threshold), alerts / days])
            groups = alerts
        if groups > MOST_CALIBRATED_GROUPS:
            break
    if not points:
        points = [[0.5, 1 / days]]
    return [[round(a, 4), round(b, 5)] for a, b in [*_tail(points), *points]]


def _tail(points: Sequence[Sequence[float]]) -> list[list[float]]:
    highest = np.array([point for point in points[:TAIL_POINTS] if 0 < point[0] < 1])
    slope = -1.0
    if len(highest) > 1:
        slope = float(np.polyfit(_log_odds(highest[:, 0]), np.log(highest[:, 1]), 1)[0])
    score, rate = points[0]
    steps = np.array([value for value in TAIL_SCORES if value > score])
    away = _log_odds(steps) - _log_odds(np.clip(score, 1e-6, 1 - 1e-6))
    return [
        [float(a), float(rate * np.exp(min(slope, 0.0) * b))]
        for a, b in zip(steps, away, strict=True)
    ]


def _log_odds(probability: Any) -> npt.NDArray[np.float64]:
    return np.asarray(np.log(probability / (1 - probability)), np.float64)


def _metrics(
    data: ContactExamples,
    score: Doubles,
    curve: Sequence[Sequence[float]],
    options: ContactOptions,
) -> dict[str, Any]:
    """What the bundle's budget finds and falsely alerts on, out of fold."""
    rates = np.array(curve)[::-1]
    rate = np.exp(np.interp(score, rates[:, 0], np.log(rates[:, 1])))
    judged = judge(data, ~np.isnan(score) & (rate <= options.alerts_per_day))
    cases = {
        (int(capture), str(case))
        for capture, case in zip(data.capture, data.case, strict=True)
        if case
    }
    return {
        "found": len(judged.cases),
        "cases": len(cases),
        "false_groups": judged.false_groups,
        "benign_days": round(data.benign_days(), 3),
    }


def baseline_percentiles(data: ContactExamples) -> dict[str, list[float]]:
    """Column → BASELINE_PERCENTILES over normal contacts, each at its last profile."""
    last = len(data) - 1 - np.unique(data.contact[::-1], return_index=True)[1]
    normal = last[(data.label[last] == BENIGN) & data.is_counted[last]]
    table = {}
    for column, name in enumerate(NAMES):
        values = data.features[normal, column]
        values = values[~np.isnan(values)]
        if len(values):
            numbers = np.percentile(values, BASELINE_PERCENTILES)
            table[name] = [round(float(number), 4) for number in numbers]
    return table


def _files(
    data: ContactExamples,
    voters: Voters,
    calibrations: Mapping[str, Any],
    options: ContactOptions,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The control detector's files, and its entry in the manifest."""
    fit = options.fit
    settings = {
        "linear": fit.linear_weight,
        "network": fit.network_weight,
        "network_floor": fit.network_floor,
        "shared": fit.shared_penalty,
        "calibration": calibrations,
        "benign_days": data.benign_days(),
    }
    files = {
        SETTINGS: _json(settings),
        LOGISTIC: _json(_logistic_document(voters.logistic)),
        TREES: voters.trees.model_to_string().encode(),
        BASELINES: _json(baseline_percentiles(data)),
    }
    names = {
        "settings": SETTINGS,
        "logistic": LOGISTIC,
        "trees": TREES,
        "baselines": BASELINES,
    }
    if voters.network is not None:
        files[NETWORK] = exported(voters.network, inputs_of(data))
        names["network"] = NETWORK
    entry = {
        "kind": "contacts",
        "name": CONTROL_DETECTOR,
        "files": names,
        "days_between": round(1 / options.alerts_per_day, 4),
    }
    return files, entry


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1, allow_nan=False).encode()


def _logistic_document(logistic: Logistic) -> dict[str, Any]:
    columns = {
        name: [_short(value) for value in getattr(logistic, name)]
        for name in ("low", "high", "mean", "scale", "coefficients")
    }
    return {"features": list(NAMES), **columns, "intercept": logistic.intercept}


def _short(value: float) -> float | None:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if np.isfinite(value) else None


def _manifest(
    data: ContactExamples,
    options: ContactOptions,
    entry: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    fit = {name: value for name, value in asdict(options.fit).items() if name != "network"}
    return {
        "family": "detectors",
        "version": VERSION,
        "task": "a detector for each class",
        "classes": list(CLASSES),
        "schema": describe(spec()),
        "members": [],
        "detectors": [{"kind": "counters", "name": "counters", "file": COUNTERS}, dict(entry)],
        "licence": options.licence,
        "metrics": dict(metrics),
        "training": {
            "data": {
                "train": [
                    {"file": capture.name, "sha256": capture.sha256, "flows": capture.flows}
                    for capture in data.captures
                ]
            },
            "classes": ["benign", real_captures.CONTROL],
            "flows": sum(capture.flows for capture in data.captures),
            "windows": len(data),
            "seed": options.seed,
            "options": {
                **fit,
                "network_fit": asdict(options.fit.network),
                "alerts_per_day": options.alerts_per_day,
                "calibration_seeds": options.calibration_seeds,
            },
        },
        "libraries": {
            "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
        },
    }
