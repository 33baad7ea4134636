"""What a network costs: weights, multiplications, bytes, time on one core, memory; and what it is
worth."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ids_plugin.models import Shape
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring import Doubles
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training.examples import Examples

_LAYERS = {"Conv", "Gemm", "MatMul", "LSTM"}
_SECONDS = 0.3
"""of processor time that each network and batch size is given"""


@dataclass(frozen=True)
class Measured:
    """Time and memory of one network on this machine."""

    batch_1_us: float
    """microseconds of processor time that a lone flow costs"""
    batch_1000_us: float
    """microseconds per flow among a thousand"""
    flows_per_second: float
    times_faster: float
    """against the first network of the same run, a thousand flows at a time"""
    peak_mb: float
    """peak resident memory of a fresh process that loads and runs it, ONNX Runtime included"""
    own_mb: float
    """of that, what came with the network"""


def parameters(model: bytes) -> int:
    """Numbers in the layers that multiply, biases included."""
    graph = onnx.load_from_string(model).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    passed = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type in {"DequantizeLinear", "Identity"}
    }
    read = {name for node in graph.node if node.op_type in _LAYERS for name in node.input[1:]}
    return sum(sizes.get(name, 0) for name in {passed.get(name, name) for name in read})


def macs(model: bytes) -> int:
    """Multiplications with a weight that one window takes."""
    loaded = onnx.load_from_string(model)
    layers = [node for node in loaded.graph.node if node.op_type in _LAYERS]
    sizes = {value.name: tuple(value.dims) for value in loaded.graph.initializer}
    read = {name for node in layers for name in (*node.input, node.output[0]) if name}
    wanted = sorted(read - sizes.keys())
    outputs = {value.name for value in loaded.graph.output}
    loaded.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in wanted if name not in outputs
    )
    session = ort.InferenceSession(loaded.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(wanted, {value.name: _nothing(value) for value in loaded.graph.input})
    shapes = sizes | {name: value.shape for name, value in zip(wanted, values, strict=True)}
    return sum(_work(node, shapes) for node in layers)


def _nothing(value: onnx.ValueInfoProto) -> np.ndarray[Any, Any]:
    """One window of zeros for an input."""
    kind = value.type.tensor_type
    shape = [1, *(dimension.dim_value for dimension in list(kind.shape.dim)[1:])]
    return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _work(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    weight = shapes[node.input[1]]
    if node.op_type == "LSTM":
        return int(shapes[node.input[0]][0] * (np.prod(weight) + np.prod(shapes[node.input[2]])))
    out = int(np.prod(shapes[node.output[0]]))
    return out * int(np.prod(weight[1:]) if node.op_type == "Conv" else shapes[node.input[0]][-1])


def deflated(model: bytes) -> int:
    """Bytes it takes in a bundle that is one file."""
    return len(zlib.compress(model, 9))


def macro_f1(examples: Examples, probability: Doubles) -> float:
    """Mean over the classes that occur of F1, windows weighted so that no activity drowns the
    others."""
    predicted, weight = probability.argmax(axis=1), examples.weight
    scores = []
    for label in np.unique(examples.label).tolist():
        hit = weight[(predicted == label) & (examples.label == label)].sum()
        scores.append(
            2
            * hit
            / max(weight[predicted == label].sum() + weight[examples.label == label].sum(), 1e-12)
        )
    return float(np.mean(scores))


def per_class(examples: Examples, probability: Doubles) -> Mapping[str, float]:
    """Recall of each class that occurs, windows weighted as in macro_f1."""
    predicted, weight = probability.argmax(axis=1), examples.weight
    labels = np.unique(examples.label).tolist()
    hit = {
        label: weight[(predicted == label) & (examples.label == label)].sum() for label in labels
    }
    return {
        CLASSES[label]: round(float(hit[label] / weight[examples.label == label].sum()), 4)
        for label in labels
    }


def measured(models: Mapping[str, bytes]) -> dict[str, Measured]:
    """Time and memory of networks that read the same windows, as the product runs them: one thread,
    the least of many runs in turn, processor time, so that what else the machine does counts
    little. Linux."""
    shown = _windows(next(iter(models.values())))
    members = {
        name: OnnxMember(model, tuple(range(_outputs(model))), name)
        for name, model in models.items()
    }
    least = {size: dict.fromkeys(models, np.inf) for size in (1, 1000)}
    for size, times in least.items():
        some = tuple(values[:size] for values in shown)
        for _ in range(3):
            for name, member in members.items():
                times[name] = min(times[name], _least(member, some))
    first = next(iter(models))
    results = {}
    for name, model in models.items():
        each = least[1000][name] / 1000
        faster = least[1000][first] / least[1000][name]
        own, peak = _memory(model)
        results[name] = Measured(
            round(least[1][name] * 1e6, 1),
            round(each * 1e6, 3),
            round(1 / each),
            round(faster, 2),
            peak,
            own,
        )
    return results


def as_row(measurement: Measured) -> dict[str, float]:
    """The figures by name."""
    return asdict(measurement)


def _least(member: OnnxMember, windows: tuple[Any, ...]) -> float:
    best, spent = np.inf, 0.0
    while spent < _SECONDS / 3:
        start = time.thread_time()
        member.probabilities(*windows)
        taken = time.thread_time() - start
        best, spent = min(best, taken), spent + taken
    return best


def _windows(model: bytes) -> tuple[Any, ...]:
    """A thousand windows of random numbers, full ones, as the model takes them: steps (of nothing
    where it asks for none), mask, table."""
    rng = np.random.default_rng(1)
    inputs = {
        value.name: value.type.tensor_type.shape.dim
        for value in onnx.load_from_string(model).graph.input
    }
    sizes = (
        [value.dim_value for value in list(inputs["steps"])[1:]] if "steps" in inputs else [1, 1]
    )
    steps = rng.standard_normal((1000, *sizes), np.float32)
    table = rng.standard_normal((1000, list(inputs["table"])[1].dim_value), np.float32)
    return steps, np.ones(steps.shape[:2], np.bool_), table


def _outputs(model: bytes) -> int:
    shape = onnx.load_from_string(model).graph.output[0].type.tensor_type.shape
    return int(shape.dim[1].dim_value)


_ALONE = """
import pathlib, sys
import numpy as np, onnxruntime
from ids_plugin.scoring.onnx import OnnxMember
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
path, outputs, steps, sequence, table = sys.argv[1], *map(int, sys.argv[2:])
mask = np.ones((1000, steps), bool)
windows = np.zeros((*mask.shape, sequence), np.float32), mask, np.zeros((1000, table), np.float32)
before = peak()
model = pathlib.Path(path).read_bytes()
OnnxMember(model, tuple(range(outputs)), path).probabilities(*windows)
print(peak() - before, peak())
"""


def _memory(model: bytes) -> tuple[float, float]:
    """Megabytes that came with the network, and of the whole process."""
    steps, mask, table = _windows(model)
    sizes = (_outputs(model), mask.shape[1], steps.shape[2], table.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        command = [sys.executable, "-c", _ALONE, str(path), *map(str, sizes)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    own, peak = (round(int(kilobytes) / 1024, 1) for kilobytes in printed)
    return own, peak
