"""What a model costs: bytes, parameters, multiply-accumulates, memory and time, as trained and as int8."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ids_plugin import registry
from ids_plugin.bundle import Bundle
from ids_plugin.scoring.lightgbm import Trees
from ids_plugin.training._examples import Examples

NETWORK, TREES = "model.onnx", "lightgbm.txt"
REPEATS = 7
"""of each time, interleaved; the best counts"""
Run = Callable[[int], object]


def of(bundle: Bundle, examples: Examples) -> dict[str, Any]:
    """Figures of the one model of a bundle; `int8` beside them where there is a network to quantise."""
    made = {"fp32": bundle.file(NETWORK if NETWORK in bundle.files else TREES)}
    if NETWORK in bundle.files and _reads_steps(made["fp32"]):
        shown = examples.take(np.sort(np.random.default_rng(1).choice(len(examples), min(2000, len(examples)), False)))
        made["int8"] = registry.load("compress", "int8").apply(made["fp32"], shown)
    times = _times({name: _runner(model, examples) for name, model in made.items()})
    return {
        name: {**_size(model, examples), **times[name], "peak_mb": peak(model, examples)}
        for name, model in made.items()
    }


def _reads_steps(model: bytes) -> bool:
    """Whether it is a network of the sequence: trees and machines of the table have little to quantise."""
    return any(given.name == "steps" for given in onnx.load_from_string(model).graph.input)


def _size(model: bytes, examples: Examples) -> dict[str, Any]:
    if _is_trees(model):
        text = model.decode()
        leaves = [int(line.partition("=")[2]) for line in text.splitlines() if line.startswith("num_leaves=")]
        return {"bytes": len(model), "parameters": 2 * sum(leaves), "macs": None}
    graph = onnx.load_from_string(model)
    ensembles = [node for node in graph.graph.node if node.domain == "ai.onnx.ml"]
    if ensembles:
        nodes = sum(len(one.floats) for node in ensembles for one in node.attribute if one.name == "nodes_values")
        return {"bytes": len(model), "parameters": nodes, "macs": None}
    return {"bytes": len(model), "parameters": _parameters(graph), "macs": macs(graph)}


def _parameters(graph: onnx.ModelProto) -> int:
    """Numbers in tensors of one dimension or more, shapes and indices left out."""
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32}
    return sum(int(np.prod(one.dims)) for one in graph.graph.initializer if one.dims and one.data_type in kinds)


def macs(graph: onnx.ModelProto) -> int:
    """Multiply-accumulates for one window, counted in the graph: convolutions, dense layers and LSTMs."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(graph)
    for given in fixed.graph.input:
        given.type.tensor_type.shape.dim[0].dim_value = 1
    for value in fixed.graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {
        value.name: [one.dim_value for one in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    shapes |= {one.name: list(one.dims) for one in inferred.initializer}
    shapes |= {
        node.output[0]: list(node.attribute[0].t.dims) for node in inferred.node if node.op_type == "Constant"
        and node.attribute[0].HasField("t")
    }  # fmt: skip
    return sum(_of_node(node, shapes) for node in inferred.node)


def _of_node(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    if node.op_type == "Conv":
        _, inside, *kernel = shapes[node.input[1]]
        return int(np.prod(shapes[node.output[0]]) * inside * np.prod(kernel))
    if node.op_type in ("Gemm", "MatMul"):
        inside = shapes[node.input[0]][-1]
        if node.op_type == "Gemm" and any(one.name == "transA" and one.i for one in node.attribute):
            inside = shapes[node.input[0]][0]
        return int(np.prod(shapes[node.output[0]]) * inside)
    if node.op_type == "LSTM":
        directions, gates, inside = shapes[node.input[1]]
        steps = shapes[node.input[0]][0]
        return directions * steps * gates * (inside + gates // 4)
    return 0


def _inputs(names: list[str], examples: Examples, rows: int) -> dict[str, np.ndarray[Any, Any]]:
    at = np.arange(rows) % len(examples)
    given = {"steps": examples.steps[at], "mask": examples.mask[at], "table": examples.table[at]}
    return {name: given[name] for name in names}


def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _runner(model: bytes, examples: Examples) -> Run:
    if _is_trees(model):
        trees = Trees(model)
        tables = {rows: examples.table[:rows] for rows in (1, 1000)}
        return lambda rows: trees.probabilities(tables[rows])
    session = _session(model)
    names = [given.name for given in session.get_inputs()]
    inputs = {rows: _inputs(names, examples, rows) for rows in (1, 1000)}
    return lambda rows: session.run(["probability"], inputs[rows])


def _times(runs: Mapping[str, Run]) -> dict[str, dict[str, float]]:
    """Best of REPEATS of each, the models taking turns: µs for one window alone, and for 1,000 windows."""
    best: dict[str, dict[str, float]] = {name: {} for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            for rows, again in ((1, 50), (1000, 1)):
                run(rows)
                began = time.perf_counter()
                for _ in range(again):
                    run(rows)
                took = 1e6 * (time.perf_counter() - began) / again
                key = f"batch_{rows}_us"
                best[name][key] = round(min(took, best[name].get(key, np.inf)), 1)
    return best


def peak(model: bytes, examples: Examples) -> float:
    """MB of resident memory, at most, of a fresh process that scores 1,000 windows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(model)
        shapes = (str(examples.steps.shape[2]), str(examples.table.shape[1]))
        command = [sys.executable, "-m", "tests.bench.models._peak", str(path), *shapes]
        return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def _is_trees(model: bytes) -> bool:
    return model.startswith(b"tree\n")
