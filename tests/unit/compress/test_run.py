"""Compression: smaller, nearly the same scores, and a manifest that says what it cost."""

from __future__ import annotations

import onnx
import pytest

from ids_plugin import bundle
from ids_plugin.compress._run import Options, compress
from ids_plugin.errors import UsageError
from tests import toy_bundle


def test_the_network_is_smaller_and_the_cost_is_stated() -> None:
    before, after = toy_bundle.trained(), toy_bundle.small()
    plain, small = after.manifest["compression"]
    assert (plain["step"], small["step"]) == ("fp32", "int8")
    assert small["bytes"] == len(after.files["model.onnx"]) < 0.75 * len(before.files["model.onnx"])
    assert small["macro_f1"] > plain["macro_f1"] - 0.02
    assert small["moved_mean"] < 0.02


def test_nothing_in_it_scales_over_a_batch() -> None:
    model = onnx.load_from_string(toy_bundle.small().files["model.onnx"])
    kinds = {node.op_type for node in model.graph.node}
    assert "QuantizeLinear" in kinds
    assert not kinds & {"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "MatMulInteger", "ConvInteger"}


def test_compressing_again_gives_the_same_bytes() -> None:
    again = compress(toy_bundle.trained(), Options(data=(toy_bundle.folder(),), sampling=toy_bundle.SAMPLING))
    assert again.id == toy_bundle.small().id


def test_refusals() -> None:
    made = toy_bundle.trained()
    without = bundle.seal({**made.manifest, "members": []}, {"lightgbm.txt": made.files["lightgbm.txt"]})
    with pytest.raises(UsageError, match="no network"):
        compress(without, Options(data=(toy_bundle.folder(),)))
    with pytest.raises(UsageError, match="magic"):
        compress(made, Options(data=(toy_bundle.folder(),), steps=("magic",)))
