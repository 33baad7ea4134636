"""What a model costs: bytes, parameters, multiplications, memory and time, as trained and as
int8."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx

from ids_plugin.bundle import Bundle
from ids_plugin.compression.cost import as_row, deflated, macs, measured, parameters
from ids_plugin.compression.run import stages
from ids_plugin.scoring.lightgbm import Trees
from ids_plugin.training.examples import Examples

NETWORK, TREES = "model.onnx", "lightgbm.txt"
SHOWN, REPEATS = 2_000, 9


def of(bundle: Bundle, examples: Examples) -> dict[str, Any]:
    """Figures of the one model of a bundle; `int8` beside them where there is a network of the
    sequence."""
    shown = examples.take(
        np.random.default_rng(1).choice(len(examples), min(SHOWN, len(examples)), replace=False)
    )
    if TREES in bundle.files:
        return {"trees": _of_trees(bundle.file(TREES), shown)}
    models = {"fp32": bundle.file(NETWORK)}
    if any(given.name == "steps" for given in onnx.load_from_string(models["fp32"]).graph.input):
        *_, quantised = stages(bundle, ("int8",), shown)
        models["int8"] = quantised.bundle.file(NETWORK)
    found = measured(models)
    return {name: {**size(model), **as_row(found[name])} for name, model in models.items()}


def size(model: bytes) -> dict[str, Any]:
    """Bytes, parameters (nodes of a forest) and multiplications for one window (none in a forest)
    of an ONNX model."""
    nodes = [one for node in onnx.load_from_string(model).graph.node for one in node.attribute]
    forest = sum(len(one.floats) for one in nodes if one.name == "nodes_values")
    work = (
        {"parameters": forest, "macs": 0}
        if forest
        else {"parameters": parameters(model), "macs": macs(model)}
    )
    return {"bytes": len(model), "deflated": deflated(model), **work}


def _of_trees(text: bytes, shown: Examples) -> dict[str, Any]:
    """The same of LightGBM's text; its processor time by the least of several runs."""
    leaves = [
        int(line.partition(b"=")[2])
        for line in text.splitlines()
        if line.startswith(b"num_leaves=")
    ]
    trees = Trees(text)
    least = {1: np.inf, 1000: np.inf}
    for count in least:
        rows = np.resize(shown.table, (count, shown.table.shape[1]))
        for _ in range(REPEATS):
            began = time.thread_time()
            trees.probabilities(rows)
            least[count] = min(least[count], time.thread_time() - began)
    return {
        "bytes": len(text), "deflated": deflated(text), "parameters": sum(2 * count - 1 for count in leaves), "macs": 0,
        "batch_1_us": round(least[1] * 1e6, 1), "batch_1000_us": round(least[1000] * 1e3, 3),
    }  # fmt: skip
