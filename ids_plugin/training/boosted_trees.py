"""Fits LightGBM: the member that sees the table, and the prefilter that sees only what costs
nothing."""

from __future__ import annotations

import lightgbm
import numpy as np

from ids_plugin.models import TreeFamily
from ids_plugin.schema.window import Bools, Ints
from ids_plugin.training import TrainedMember
from ids_plugin.training.examples import Examples
from ids_plugin.training.options import Options, Progress

PREFILTER_COLUMNS = 32
_PREFILTER = {
    "objective": "binary",
    "num_leaves": 16,
    "learning_rate": 0.3,
    "min_data_in_leaf": 40,
    "max_bin": 63,
}
_ALWAYS = {"verbosity": -1, "deterministic": True, "force_row_wise": True, "num_threads": 1}


def fit(
    family: TreeFamily, train: Examples, rounds: int, seed: int
) -> tuple[bytes, tuple[int, ...]]:
    """The model as text, and the classes of its outputs."""
    classes = tuple(int(label) for label in np.unique(train.label))
    weight = train.weight * len(train)
    data = lightgbm.Dataset(
        train.table, np.searchsorted(classes, train.label), weight=weight, params={"max_bin": 63}
    )
    parameters = {**family.build(train.spec, len(classes)), **_ALWAYS, "seed": seed}
    return _text(lightgbm.train(parameters, data, rounds)), classes


def fit_prefilter(
    train: Examples, confident: Bools, rounds: int, seed: int
) -> tuple[bytes, list[str]]:
    """A yes/no model that guesses from a few flow and context features which windows the others are
    `confident` about, and the features' names. Most flows it never has to be right about: it is
    asked what an alert would be."""
    cheap = len(train.spec.flow) + len(train.spec.context)
    first = _binary(train, confident, np.arange(cheap), rounds, seed)
    columns = np.sort(
        np.argsort(-first.feature_importance("gain"), kind="stable")[:PREFILTER_COLUMNS]
    )
    names = [train.spec.table[column].name for column in columns.tolist()]
    return _text(_binary(train, confident, columns, rounds, seed)), names


def _binary(
    train: Examples, confident: Bools, columns: Ints, rounds: int, seed: int
) -> lightgbm.Booster:
    share = np.where(confident, train.weight, 0.0)
    weight = np.where(confident, share * confident.sum() / max(share.sum(), 1e-12), 1.0)
    rows = np.ascontiguousarray(train.table[:, columns])
    data = lightgbm.Dataset(rows, confident, weight=weight, params={"max_bin": 63})
    return lightgbm.train({**_PREFILTER, **_ALWAYS, "seed": seed}, data, rounds)


def _text(booster: lightgbm.Booster) -> bytes:
    return booster.model_to_string().encode()


class BoostedTreesTrainer:
    """Kind `lightgbm`."""

    name = "lightgbm"

    def train(
        self,
        family: TreeFamily,
        train_set: Examples,
        stop_set: Examples,
        options: Options,
        progress: Progress,
    ) -> TrainedMember:
        """As training.Trainer; the number of trees is fixed, so nothing stops early."""
        text, classes = fit(family, train_set, options.rounds, options.seed)
        progress(f"{family.name}: {options.rounds} trees a class")
        record = {"rounds": options.rounds, "paper": family.paper}
        return TrainedMember("lightgbm", "lightgbm.txt", text, classes, record)


PLUGIN = BoostedTreesTrainer()
