"""Static int8: U8 activations with fixed scales, S8 weights per channel; a narrow LSTM stays fp32,
see _unroll.

Scales are fixed, so a row doesn't depend on its batch. Weights use 7 bits (`reduce_range`): on
processors without VNNI two products of 8-bit numbers may overflow the 16 bits they are summed in.
What a layer reads is quantised as early as that changes nothing, see _hoist.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from ids_plugin.compression import NetworkInProgress, StepContext
from ids_plugin.compression.quantize_nodes import move_quantize_nodes_up
from ids_plugin.compression.retrain import exported
from ids_plugin.compression.unroll_lstm import unrolled
from ids_plugin.errors import UsageError
from ids_plugin.schema.window import Bools, Floats

_QUANTISED = ["Conv", "Gemm", "MatMul"]
_READING = ["Gemm", "MatMul"]
"""by what they read: what they give is quantised where something reads it that is quantised too"""
LARGEST_WEIGHT = 64
"""7 bits"""
_BATCH = 256


@dataclass(frozen=True)
class Scale:
    """How an activation becomes a byte: round(value / step) + zero, saturating."""

    step: np.float32
    zero: np.uint8

    @classmethod
    def between(cls, low: float, high: float) -> Scale:
        """The one that has `low` and `high` as its ends, and 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = np.float32((high - low) / 255 if high > low else 1.0)
        return cls(step, np.uint8(np.clip(np.rint(-low / step), 0, 255)))


class Scales(NamedTuple):
    """How layers round, by their names in torch."""

    read: dict[str, Scale]
    written: dict[str, Scale]
    """what convolutions give, batch normalisation included"""


_NONE = Scales({}, {})


class Int8:
    """Step `int8`."""

    name = "int8"
    value = "none"

    def apply(
        self, work: NetworkInProgress, material: StepContext, value: float | None
    ) -> NetworkInProgress:
        """As compress.Step."""
        if value is not None:
            raise UsageError("int8 takes no value")
        written = None if work.module is None else unrolled(work.module)
        model = work.model if written is None else exported(written, material).model
        return NetworkInProgress(quantised(model, material.shown))


class ShownInputs(Protocol):
    """What a network reads, n rows of each."""

    @property
    def steps(self) -> Floats: ...

    @property
    def mask(self) -> Bools: ...

    @property
    def table(self) -> Floats: ...


def quantised(model: bytes, shown: ShownInputs, scales: Scales = _NONE) -> bytes:
    """The ONNX model in int8; `shown` are windows like those it will see, they fix what `scales`
    doesn't."""
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, small = (
            Path(folder) / name for name in ("plain.onnx", "prepared.onnx", "small.onnx")
        )
        plain.write_bytes(model)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        overrides = _by_tensor(onnx.load(prepared), scales)
        quantize_static(
            prepared,
            small,
            _Shown(shown),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "OpTypesToExcludeOutputQuantization": _READING,
                "TensorQuantOverrides": overrides,
            },
        )
        return bare(move_quantize_nodes_up(small.read_bytes()))


def _by_tensor(model: onnx.ModelProto, scales: Scales) -> dict[str, list[dict[str, Any]]]:
    """The scales by tensor, as ONNX Runtime's quantiser takes them."""
    read, written = ({_scope(name): scale for name, scale in part.items()} for part in scales)
    overrides = {}
    for node in model.graph.node:
        scope = node.name.rpartition("/")[0]
        for tensor, part in (
            (node.input[0] if node.input else "", read),
            (node.output[0], written),
        ):
            if scope in part and node.op_type in _QUANTISED:
                step, zero = np.array(part[scope].step), np.array(part[scope].zero)
                overrides[tensor] = [
                    {"quant_type": QuantType.QUInt8, "scale": step, "zero_point": zero}
                ]
    return overrides


def _scope(name: str) -> str:
    """What the exporter calls a layer: `a.b.0` is `/module/a/b/b.0`."""
    parts = name.split(".")
    named = [
        f"{before}.{part}" if part.isdigit() else part
        for before, part in zip(["", *parts], parts, strict=False)
    ]
    return "/".join(["", "module", *named])


class _Shown(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, shown: ShownInputs) -> None:
        self._batches = self._cut(shown)

    def get_next(self) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] | None:
        """The next batch of inputs, None after the last."""
        return next(self._batches, None)

    def _cut(
        self, shown: ShownInputs
    ) -> Iterator[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]]:
        for start in range(0, len(shown.steps), _BATCH):
            part = slice(start, start + _BATCH)
            yield {"steps": shown.steps[part], "mask": shown.mask[part], "table": shown.table[part]}


def bare(model: bytes) -> bytes:
    """The model without what only people read: doc strings, metadata, shapes of inner values."""
    loaded = onnx.load_from_string(model)
    del loaded.graph.value_info[:]
    del loaded.metadata_props[:]
    loaded.graph.doc_string = loaded.doc_string = ""
    for node in loaded.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*loaded.graph.input, *loaded.graph.output, *loaded.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    return bytes(loaded.SerializeToString())


PLUGIN = Int8()
