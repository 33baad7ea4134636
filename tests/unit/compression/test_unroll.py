"""An LSTM written out gives what the LSTM gives, and its products become int8."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from ids_plugin import registry
from ids_plugin.compression import StepContext
from ids_plugin.compression.int8 import PLUGIN
from ids_plugin.compression.retrain import exported, probabilities
from ids_plugin.compression.unroll_lstm import WIDEST, unrolled
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training.options import Fit
from ids_plugin.windows import spec
from tests.unit.compression.test_quantize_nodes import CLASSES, examples


def test_a_wide_lstm_is_written_out_and_becomes_int8() -> None:
    torch.manual_seed(3)
    family, shown = registry.load("models", "lstm"), examples(150, seed=4)
    network = family.build(spec(), 8).eval()
    written = unrolled(network)
    assert written is not None
    expected = probabilities(network, shown, CLASSES)
    assert np.abs(probabilities(written, shown, CLASSES) - expected).max() < 1e-5
    material = StepContext(family, CLASSES, shown, shown, Fit(), 1, lambda _: None)
    work = exported(network, material)
    small = PLUGIN.apply(work, material, None).model
    assert not {"LSTM", "DynamicQuantizeLinear"} & {
        node.op_type for node in onnx.load_from_string(small).graph.node
    }
    assert len(small) < 0.6 * len(work.model)
    member = OnnxMember(small, CLASSES, "lstm")
    served = member.probabilities(shown.steps, shown.mask, shown.table)
    assert np.abs(served - expected).max() < 0.02
    assert np.array_equal(
        member.probabilities(shown.steps[7:9], shown.mask[7:9], shown.table[7:9]), served[7:9]
    )


def test_a_narrow_lstm_stays() -> None:
    network = registry.load("models", "anomaly_net").build(spec(), 8)
    assert network.lstm.hidden_size <= WIDEST
    assert unrolled(network) is None
