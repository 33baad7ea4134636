"""Compression: smaller, nearly the same scores, and a manifest that says what it cost."""

from __future__ import annotations

import onnx
import pytest

from ids_plugin import bundle
from ids_plugin.compression.run import Options, compress
from ids_plugin.errors import UsageError
from tests.support import toy_bundle


def test_the_network_is_smaller_and_the_cost_is_stated() -> None:
    before, after = toy_bundle.trained(), toy_bundle.small()
    plain, small = after.manifest.compression
    assert (plain["step"], small["step"]) == ("fp32", "int8")
    assert small["bytes"] == len(after.files["model.onnx"]) < 0.75 * len(before.files["model.onnx"])
    assert small["deflated"] < small["bytes"]
    assert small["macs"] == plain["macs"]
    assert abs(small["parameters"] - plain["parameters"]) < 0.01 * plain["parameters"]
    assert small["macro_f1"] > plain["macro_f1"] - 0.02
    assert small["moved_mean"] < 0.02


def test_what_ships_has_no_arrays_that_only_training_needs() -> None:
    assert "weights.npz" in toy_bundle.trained().files
    assert "weights.npz" not in toy_bundle.small().files


def test_nothing_in_it_scales_over_a_batch() -> None:
    model = onnx.load_from_string(toy_bundle.small().files["model.onnx"])
    kinds = {node.op_type for node in model.graph.node}
    assert "QuantizeLinear" in kinds
    assert not kinds & {
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "MatMulInteger",
        "ConvInteger",
    }


def test_compressing_again_gives_the_same_bytes() -> None:
    again = compress(
        toy_bundle.trained(), Options(data=(toy_bundle.folder(),), sampling=toy_bundle.SAMPLING)
    )
    assert again.id == toy_bundle.small().id


def test_refusals() -> None:
    made = toy_bundle.trained()
    without = bundle.seal(
        made.manifest.replaced(members=[]), {"lightgbm.txt": made.files["lightgbm.txt"]}
    )
    data = (toy_bundle.folder(),)
    with pytest.raises(UsageError, match="no network"):
        compress(without, Options(data=data))
    for step, told in (
        ("magic", "magic"),
        ("prune=much", "no number"),
        ("", "no compression_steps plugin"),
    ):
        with pytest.raises(UsageError, match=told):
            compress(made, Options(data=data, steps=(step,)))
    with pytest.raises(UsageError, match="no step"):
        compress(made, Options(data=data, steps=()))


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (("prune=0.5",), "labelled flows to learn from"),
        (("int8", "tune"), "only|weights"),
        (("prune=1.5",), "between 0 and 1"),
        (("magnitude=0",), "between 0 and 1"),
        (("distil=-1",), "above 0"),
    ],
)
def test_steps_say_what_they_need(steps: tuple[str, ...], told: str) -> None:
    options = Options(data=(toy_bundle.folder(),), steps=steps, sampling=toy_bundle.SAMPLING)
    with pytest.raises(UsageError, match=told):
        compress(toy_bundle.trained(), options)


def test_a_bundle_that_shipped_has_no_weights_to_change() -> None:
    options = Options(data=(toy_bundle.folder(),), steps=("tune",), train=(toy_bundle.folder(),))
    with pytest.raises(UsageError, match="only those of ONNX"):
        compress(toy_bundle.small(), options)
