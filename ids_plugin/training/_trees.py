"""Fits LightGBM: the member that sees the table, and the gate that sees only what costs nothing."""

from __future__ import annotations

import lightgbm
import numpy as np

from ids_plugin.models import TreeFamily
from ids_plugin.schema.window import Spec
from ids_plugin.training._examples import Examples

GATE_COLUMNS = 12
_GATE = {"objective": "binary", "num_leaves": 8, "learning_rate": 0.3, "min_data_in_leaf": 40, "max_bin": 63}
_ALWAYS = {"verbosity": -1, "deterministic": True, "force_row_wise": True, "num_threads": 2}


def fit(family: TreeFamily, train: Examples, rounds: int, seed: int) -> tuple[bytes, tuple[int, ...]]:
    """The model as text, and the classes of its outputs."""
    classes = tuple(int(label) for label in np.unique(train.label))
    weight = train.weight * len(train)
    data = lightgbm.Dataset(train.table, np.searchsorted(classes, train.label), weight=weight, params={"max_bin": 63})
    parameters = {**family.build(train.spec, len(classes)), **_ALWAYS, "seed": seed}
    return _text(lightgbm.train(parameters, data, rounds)), classes


def fit_gate(train: Examples, rounds: int, seed: int) -> tuple[bytes, list[str]]:
    """A yes/no model over the most useful of the flow and context features, and their names."""
    cheap = len(train.spec.flow) + len(train.spec.context)
    first = _binary(train, np.arange(cheap), rounds, seed)
    gain = first.feature_importance("gain")
    columns = np.sort(np.argsort(-gain, kind="stable")[:GATE_COLUMNS])
    return _text(_binary(train, columns, rounds, seed)), gate_names(train.spec, columns)


def gate_names(spec: Spec, columns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    """Names of the table's columns."""
    return [spec.table[column].name for column in columns.tolist()]


def _binary(
    train: Examples, columns: np.ndarray[tuple[int], np.dtype[np.int64]], rounds: int, seed: int
) -> lightgbm.Booster:
    data = lightgbm.Dataset(
        train.table[:, columns], train.label > 0, weight=train.weight * len(train), params={"max_bin": 63}
    )
    return lightgbm.train({**_GATE, **_ALWAYS, "seed": seed}, data, rounds)


def _text(booster: lightgbm.Booster) -> bytes:
    return booster.model_to_string().encode()
