"""Fits a random forest and writes it as an ONNX TreeEnsembleClassifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier

from ids_plugin.models import TreeFamily
from ids_plugin.training import TrainedMember
from ids_plugin.training.examples import Examples
from ids_plugin.training.options import Options, Progress

OPSETS = (("", 20), ("ai.onnx.ml", 3))


def fit(parameters: dict[str, object], train: Examples, seed: int) -> tuple[bytes, tuple[int, ...]]:
    """The model as ONNX (input table, output probability), and the classes of its outputs."""
    forest = RandomForestClassifier(**parameters, random_state=seed, n_jobs=1)
    forest.fit(train.table, train.label, sample_weight=train.weight * len(train))
    return _onnx(forest, train), tuple(int(label) for label in forest.classes_)


def _onnx(forest: RandomForestClassifier, train: Examples) -> bytes:
    attributes = _attributes(forest)
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["table"],
        ["label", "probability"],
        domain="ai.onnx.ml",
        post_transform="NONE",
        classlabels_int64s=[int(label) for label in forest.classes_],
        **attributes,
    )
    table = helper.make_tensor_value_info(
        "table", TensorProto.FLOAT, ["batch", train.table.shape[1]]
    )
    output = helper.make_tensor_value_info(
        "probability", TensorProto.FLOAT, ["batch", len(forest.classes_)]
    )
    graph = helper.make_graph([node], "random_forest", [table], [output])
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _attributes(forest: RandomForestClassifier) -> dict[str, Any]:
    """Nodes and leaves of all trees as the operator lists them; of two classes both, also where one
    has nothing: ONNX Runtime takes a lone score for the second one's."""
    nodes: dict[str, list[Any]] = {
        name: []
        for name in (
            "treeids",
            "nodeids",
            "featureids",
            "values",
            "truenodeids",
            "falsenodeids",
            "modes",
            "missing_value_tracks_true",
        )
    }
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for number, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        leaf = tree.children_left < 0
        count, share = (
            tree.node_count,
            tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True),
        )
        nodes["treeids"] += [number] * count
        nodes["nodeids"] += range(count)
        nodes["featureids"] += np.where(leaf, 0, tree.feature).tolist()
        nodes["values"] += np.where(leaf, 0.0, _float_below(tree.threshold)).tolist()
        nodes["truenodeids"] += np.where(leaf, 0, tree.children_left).tolist()
        nodes["falsenodeids"] += np.where(leaf, 0, tree.children_right).tolist()
        nodes["modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
        nodes["missing_value_tracks_true"] += (
            np.where(leaf, 0, tree.missing_go_to_left).astype(int).tolist()
        )
        for node in np.flatnonzero(leaf).tolist():
            outputs = np.flatnonzero(share[node]) if share.shape[1] > 2 else np.arange(2)
            leaves["treeids"] += [number] * len(outputs)
            leaves["nodeids"] += [node] * len(outputs)
            leaves["ids"] += outputs.tolist()
            leaves["weights"] += (share[node][outputs] / len(forest.estimators_)).tolist()
    return {f"nodes_{k}": v for k, v in nodes.items()} | {
        f"class_{k}": v for k, v in leaves.items()
    }


def _float_below(
    thresholds: np.ndarray[Any, np.dtype[np.float64]],
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The largest 32-bit numbers that aren't above: a 32-bit x is ≤ one exactly when it is ≤ the
    other."""
    near = thresholds.astype(np.float32)
    below: np.ndarray[Any, np.dtype[np.float32]] = np.nextafter(near, np.float32(-np.inf))
    return np.where(near > thresholds, below, near)


class RandomForestTrainer:
    """Kind `forest`."""

    name = "forest"

    def train(
        self,
        family: TreeFamily,
        train_set: Examples,
        stop_set: Examples,
        options: Options,
        progress: Progress,
    ) -> TrainedMember:
        """As training.Trainer; the number of trees is fixed, so nothing stops early."""
        progress(f"{family.name}: growing trees")
        parameters = family.build(train_set.spec, len(np.unique(train_set.label)))
        model, classes = fit(parameters, train_set, options.seed)
        return TrainedMember("onnx", "model.onnx", model, classes, {"paper": family.paper})


PLUGIN = RandomForestTrainer()
