"""Fits one support vector machine a class and writes them as a network."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.svm import SVC

from ids_plugin.models import TreeFamily
from ids_plugin.models.layers import Normalise
from ids_plugin.models.svm_rbf import Machines
from ids_plugin.training import TrainedMember
from ids_plugin.training.examples import Examples
from ids_plugin.training.options import Options, Progress
from ids_plugin.training.torch_network import FittedNetwork, onnx_member, scaling

_SHARPNESS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def fit(
    parameters: dict[str, object], train: Examples, held_out: Examples, seed: int
) -> FittedNetwork:
    """Machines of the windows drawn by weight; how sharp their outputs are comes from
    `held_out`."""
    rng = np.random.default_rng(seed)
    drawn = train.take(rng.choice(len(train), int(str(parameters["windows"])), p=train.weight))
    table = Normalise(train.table.shape[1])
    means, scales = scaling(train, seed)
    table.mean.copy_(means[1])
    table.scale.copy_(scales[1])
    shown = table(torch.from_numpy(drawn.table)).numpy()
    classes = tuple(int(label) for label in np.unique(train.label))
    vectors = np.zeros((len(drawn), len(classes)))
    bias = np.zeros(len(classes))
    for column, label in enumerate(classes):
        machine = SVC(
            C=parameters["C"], gamma=parameters["gamma"], class_weight="balanced", random_state=seed
        )
        machine.fit(shown, drawn.label == label)
        vectors[machine.support_, column] = machine.dual_coef_[0]
        bias[column] = machine.intercept_[0]
    support = np.flatnonzero(vectors.any(axis=1))
    module = Machines(
        table,
        torch.from_numpy(shown[support]),
        torch.tensor(vectors[support], dtype=torch.float32),
        torch.tensor(bias, dtype=torch.float32),
        float(str(parameters["gamma"])),
    )
    return FittedNetwork(_sharpened(module.eval(), held_out, classes, rng), classes, [])


def _sharpened(
    module: Machines, held_out: Examples, classes: tuple[int, ...], rng: np.random.Generator
) -> Machines:
    known = np.flatnonzero(np.isin(held_out.label, classes))
    weight = held_out.weight[known] / held_out.weight[known].sum()
    some = held_out.take(known[rng.choice(len(known), 4_000, p=weight)])
    target = torch.from_numpy(np.searchsorted(classes, some.label))
    with torch.no_grad():
        logits, _, _ = module(torch.zeros(0), torch.zeros(0), torch.from_numpy(some.table))
    losses = [
        float(torch.nn.functional.cross_entropy(logits * sharp, target)) for sharp in _SHARPNESS
    ]
    module.sharpness = _SHARPNESS[int(np.argmin(losses))]
    return module


class SvmTrainer:
    """Kind `svm`."""

    name = "svm"

    def train(
        self,
        family: TreeFamily,
        train_set: Examples,
        stop_set: Examples,
        options: Options,
        progress: Progress,
    ) -> TrainedMember:
        """As training.Trainer; `stop_set` chooses how sharp the outputs are."""
        progress(f"{family.name}: looking for support vectors")
        parameters = family.build(train_set.spec, len(np.unique(train_set.label)))
        fitted = fit(parameters, train_set, stop_set, options.seed)
        return onnx_member(family, fitted, train_set)


PLUGIN = SvmTrainer()
