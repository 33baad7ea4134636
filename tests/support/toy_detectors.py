"""A bundle with both kinds of detectors, made in a moment from numbers that are made up."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import lightgbm
import numpy as np

from ids_plugin.bundle import Bundle, seal
from ids_plugin.detectors.contact_profile.model import NAMES
from ids_plugin.detectors.counters import rule_key
from ids_plugin.detectors.counting.rules import DETECTORS
from ids_plugin.schema.score import CLASSES
from ids_plugin.windows import spec

DAYS_BETWEEN = 1.5
COUNTER_BASELINE = (0.0, 1.0, 3.0, 5.0, 9.0)
CALIBRATION = ((0.95, 0.01), (0.9, 0.1), (0.8, 0.5), (0.5, 2.0), (0.2, 10.0), (0.0, 100.0))
"""score, alerts a day"""
CONTACT_BASELINE = (0.0, 1.0, 4.0)


@cache
def bundle() -> Bundle:
    """Counters with the thresholds of their rules; a model of contacts that likes regular ones."""
    manifest: dict[str, Any] = {
        "family": "detectors",
        "version": "1",
        "classes": list(CLASSES),
        "schema": {"fingerprint": spec().fingerprint},
        "members": [],
        "detectors": [
            {"kind": "counters", "name": "counters", "file": "counters.json"},
            {
                "kind": "contacts",
                "name": "control",
                "files": {
                    "settings": "contacts.json",
                    "logistic": "contacts.logistic.json",
                    "trees": "contacts.lightgbm.txt",
                    "baselines": "contacts.baselines.json",
                },
                "days_between": DAYS_BETWEEN,
            },
        ],
    }
    return seal(manifest, _files())


def _files() -> dict[str, bytes]:
    rules = {
        rule_key(detector, index): rule.threshold
        for detector in DETECTORS
        for index, rule in enumerate(detector.rules)
    }
    columns = {rule.column for detector in DETECTORS for rule in detector.rules}
    documents: dict[str, Any] = {
        "counters.json": {
            "thresholds": rules,
            "baselines": dict.fromkeys(sorted(columns), COUNTER_BASELINE),
        },
        "contacts.json": {
            "linear": 0.5,
            "shared": 1.5,
            "calibration": {"with_logs": CALIBRATION, "conn_only": CALIBRATION},
        },
        "contacts.logistic.json": _logistic(),
        "contacts.baselines.json": dict.fromkeys(NAMES, CONTACT_BASELINE),
    }
    files = {name: json.dumps(document).encode() for name, document in documents.items()}
    return {**files, "contacts.lightgbm.txt": _trees()}


def _logistic() -> dict[str, Any]:
    """Irregular gaps speak against control."""
    size = len(NAMES)
    coefficients = [-4.0 if name == "gap_cv" else 0.0 for name in NAMES]
    return {
        "features": NAMES,
        "low": [0.0] * size,
        "high": [2.0] * size,
        "mean": [0.5] * size,
        "scale": [1.0] * size,
        "coefficients": coefficients,
        "intercept": 1.0,
    }


def _trees() -> bytes:
    """Two classes by the same column."""
    rng = np.random.default_rng(1)
    rows = rng.uniform(0, 2, (400, len(NAMES)))
    labels = (rows[:, NAMES.index("gap_cv")] < 0.3).astype(int)
    options = {"objective": "binary", "num_leaves": 3, "num_threads": 1, "verbose": -1, "seed": 1}
    booster = lightgbm.train(options, lightgbm.Dataset(rows, labels), num_boost_round=12)
    return booster.model_to_string().encode()
