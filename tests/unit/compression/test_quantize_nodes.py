"""Quantising earlier gives the same numbers with fewer of them in floating point."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ids_plugin import registry
from ids_plugin.compression import int8
from ids_plugin.compression.quantize_nodes import move_quantize_nodes_up
from ids_plugin.schema.window import STEPS
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training.examples import Examples
from ids_plugin.training.torch_network import FittedNetwork, export
from ids_plugin.windows import spec

CLASSES = tuple(range(8))


def examples(rows: int, seed: int = 0) -> Examples:
    """Random windows with padding and unknown values."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((rows, STEPS, len(spec().sequence)), np.float32) * 3
    table = rng.standard_normal((rows, len(spec().table)), np.float32) * 3
    for values in (steps, table):
        values[rng.random(values.shape) < 0.1] = np.nan
    mask = np.arange(STEPS) >= rng.integers(0, STEPS, (rows, 1))
    none = np.zeros(rows, np.int64)
    return Examples(spec(), steps, mask, table, none, none)


@cache
def exported(name: str) -> bytes:
    torch.manual_seed(1)
    network = registry.load("models", name).build(spec(), 8).eval()
    return export(FittedNetwork(network, CLASSES, []), examples(3))


@pytest.mark.parametrize("name", ["anomaly_net", "cnn", "lstm", "l_tcn"])
def test_a_network_scores_as_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = int8.quantised(exported(name), examples(64))
    monkeypatch.setattr(int8, "move_quantize_nodes_up", lambda model: model)
    left = int8.quantised(exported(name), examples(64))
    shown = examples(200, seed=5)
    first, second = (
        OnnxMember(model, CLASSES, name).probabilities(shown.steps, shown.mask, shown.table)
        for model in (moved, left)
    )
    assert np.abs(first - second).max() < 1e-3
    assert np.mean(first == second) > 0.9


@pytest.mark.parametrize("name", ["anomaly_net", "l_tcn"])
def test_scores_are_the_same_bits_in_any_batch(name: str) -> None:
    member, shown = (
        OnnxMember(int8.quantised(exported(name), examples(64)), CLASSES, name),
        examples(150, seed=6),
    )
    whole = member.probabilities(shown.steps, shown.mask, shown.table)
    for rows in (slice(0, 1), slice(70, 75), slice(1, 150)):
        part = member.probabilities(shown.steps[rows], shown.mask[rows], shown.table[rows])
        assert np.array_equal(part, whole[rows])


def chain(*between: onnx.NodeProto, zero: int) -> bytes:
    """x (2, 3) → the nodes, the last of which gives `y` → QuantizeLinear → DequantizeLinear."""
    constants = {
        "scale": np.float32(0.1),
        "zero": np.uint8(zero),
        "low": np.float32(-2),
        "high": np.float32(2),
    }
    nodes = [
        *between,
        helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "chain", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("between", "zero", "moves"),
    [
        ([helper.make_node("Relu", ["x"], ["y"])], 0, True),
        ([helper.make_node("Relu", ["x"], ["y"])], 128, True),
        ([helper.make_node("Clip", ["x", "low", "high"], ["y"])], 128, True),
        ([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], 128, True),
        ([helper.make_node("Tanh", ["x"], ["y"])], 128, False),
    ],
)
def test_rules_are_exact_or_not_applied(
    between: list[onnx.NodeProto], zero: int, moves: bool
) -> None:
    import onnxruntime as ort

    model = chain(*between, zero=zero)
    moved = move_quantize_nodes_up(model)
    values = np.linspace(-4, 30, 30, dtype=np.float32).reshape(10, 3)
    before, after = (
        ort.InferenceSession(one, providers=["CPUExecutionProvider"]).run(None, {"x": values})[0]
        for one in (model, moved)
    )
    assert np.array_equal(before, after)
    first = onnx.load_from_string(moved).graph.node[0].op_type
    assert (first == "QuantizeLinear") == moves
