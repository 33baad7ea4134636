"""ONNX Runtime on one core: the same bits for a window whatever stands beside it.

Matrix kernels are chosen by the number of rows, so every run has exactly BLOCK of them, the last
one padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from ids_plugin.bundle import Bundle, MemberEntry
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Bools, Floats
from ids_plugin.scoring import Doubles

REFUSALS = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)
"""what ONNX Runtime raises when it can't load a model, or run it"""

BLOCK = 64
"""Rows of one run: a lone flow costs this many, and beyond it the time per flow falls no
further."""


class OnnxMember:
    """A model with inputs `steps`, `mask`, `table`, or some of them; outputs `probability` and,
    maybe, `attention`."""

    def __init__(self, model: bytes, classes: tuple[int, ...], location: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except REFUSALS as error:
            raise BundleError(
                f"ONNX Runtime can't load it: {str(error).splitlines()[0]}", location=location
            ) from error
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._widths = {output.name: output.shape[-1] for output in self._session.get_outputs()}
        self._classes = list(classes)
        self._location = location

    def probabilities(self, steps: Floats, mask: Bools, table: Floats) -> Doubles:
        """As scoring.Member."""
        out = np.zeros((len(table), len(CLASSES)))
        out[:, self._classes] = self._run("probability", len(self._classes), steps, mask, table)
        return out

    def attention(self, steps: Floats, mask: Bools, table: Floats) -> Doubles | None:
        """As scoring.AttentiveMember; None where the model has no such output."""
        if "attention" not in self._widths:
            return None
        return self._run("attention", self._widths["attention"], steps, mask, table)

    def _run(self, output: str, width: int, steps: Floats, mask: Bools, table: Floats) -> Doubles:
        out = np.empty((len(table), width))
        for start in range(0, len(table), BLOCK):
            part = slice(start, start + BLOCK)
            window_arrays = {"steps": steps[part], "mask": mask[part], "table": table[part]}
            size, inputs = (
                len(window_arrays["table"]),
                {name: window_arrays[name] for name in self._inputs},
            )
            if size < BLOCK:
                inputs = {name: _pad(values) for name, values in inputs.items()}
            try:
                out[part] = self._session.run([output], inputs)[0][:size]
            except REFUSALS as error:
                raise BundleError(
                    f"can't judge windows: {str(error).splitlines()[0]}", location=self._location
                ) from error
        return out


def _pad(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    padded = np.zeros((BLOCK, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded


class Onnx:
    """Member kind `onnx`: entry {name, file, classes}."""

    name = "onnx"

    def open(self, bundle: Bundle, entry: MemberEntry) -> OnnxMember:
        """As scoring.Plugin."""
        classes = tuple(CLASSES.index(name) for name in entry.classes)
        file = entry.require_file()
        return OnnxMember(bundle.file(file), classes, f"{bundle.location}/{file}")


PLUGIN = Onnx()
