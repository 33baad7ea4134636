"""Quantisation-aware fine-tuning: what serves is what the rounding in training promised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ids_plugin import registry
from ids_plugin.compression import StepContext
from ids_plugin.compression.int8 import Scale, quantised
from ids_plugin.compression.qat import Rounding, observed
from ids_plugin.compression.retrain import exported, probabilities
from ids_plugin.models import cnn_lstm
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training.options import Fit
from ids_plugin.windows import spec
from tests.unit.compression.test_quantize_nodes import CLASSES, examples


@pytest.mark.parametrize("name", ["anomaly_net", "cnn", "cnn_lstm", "l_tcn"])
def test_int8_gives_what_the_rounding_promised(name: str) -> None:
    torch.manual_seed(2)
    family, shown = registry.load("models", name), examples(300, seed=3)
    small = {"widths": cnn_lstm.CnnLstmWidths(24, 16, 16)} if name == "cnn_lstm" else {}
    network = family.build(spec(), 8, **small).eval()
    material = StepContext(family, CLASSES, shown, shown, Fit(), 1, lambda _: None)
    scales = observed(network, material)
    rounding = Rounding(network, scales)
    promised = probabilities(network, shown, CLASSES)
    rounding.settle()
    assert np.abs(probabilities(network, shown, CLASSES) - promised).max() > 0
    served = OnnxMember(
        quantised(exported(network, material).model, shown, scales), CLASSES, name
    ).probabilities(shown.steps, shown.mask, shown.table)
    assert np.abs(served - promised).max() < 2e-3
    assert np.abs(served - promised).mean() < 3e-4


def test_a_scale_has_its_ends_and_zero_exactly() -> None:
    scale = Scale.between(-1.0, 3.0)
    assert scale.zero == 64
    assert (0 - int(scale.zero)) * scale.step == pytest.approx(-1.0, abs=0.02)
    assert (255 - int(scale.zero)) * scale.step == pytest.approx(3.0, abs=0.02)
    assert Scale.between(2.0, 5.0).zero == 0
    assert Scale.between(0.0, 0.0).step == 1
