"""Steps that change weights: what is removed is gone, what is zero stays zero, and the same seed
gives the same."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from ids_plugin import registry
from ids_plugin.compression.prune import FEWEST, cut, groups
from ids_plugin.compression.run import Stage, stages
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.schema.score import CLASSES
from ids_plugin.training.examples import Examples, Sampling, sample
from ids_plugin.training.options import Fit
from ids_plugin.training.torch_network import rebuilt, restore
from ids_plugin.windows import spec
from tests.support import toy_bundle
from tests.unit.compression.test_quantize_nodes import examples

FAMILIES = [
    name for name in registry.names("models") if registry.load("models", name).kind == "torch"
]
FIT = Fit(epochs=2, windows=1_000)


@cache
def windows(seed: int) -> Examples:
    return sample(load(toy_bundle.folder()), Sampling(attack=40, benign=120, look_alike=20), seed)


@cache
def compressed(*steps: str) -> tuple[Stage, ...]:
    return tuple(stages(toy_bundle.trained(), steps, windows(1), windows(2), fit=FIT))


@pytest.mark.parametrize("name", FAMILIES)
def test_units_that_say_nothing_can_be_removed_without_a_difference(name: str) -> None:
    torch.manual_seed(1)
    family = registry.load("models", name)
    network = family.build(spec(), 8).eval()
    state = network.state_dict()
    kept = {}
    for group in groups(family, state):
        silent = torch.arange(0, group.units, 3)
        kept[group.name] = torch.tensor([unit for unit in range(group.units) if unit % 3])
        for part in group.parts:
            made = part.dim == 0 and not part.tensor.endswith(("running_mean", "running_var"))
            if made and "depthwise" not in part.tensor:
                for block in range(part.blocks):
                    state[part.tensor][part.start + block * group.units + silent] = 0
    network.load_state_dict(state)
    smaller = rebuilt(family, spec(), 8, cut(family, state, kept))
    assert sum(one.numel() for one in smaller.parameters()) < 0.75 * sum(
        one.numel() for one in network.parameters()
    )
    shown = examples(20)
    given = (
        torch.from_numpy(shown.steps),
        torch.from_numpy(shown.mask),
        torch.from_numpy(shown.table),
    )
    with torch.no_grad():
        assert torch.allclose(network(*given)[0], smaller(*given)[0], atol=1e-5)


def test_pruning_makes_tensors_smaller_and_every_step_has_its_row() -> None:
    plain, pruned, distilled, small = compressed("prune=0.7", "distil", "qat=1")
    assert [stage.step for stage in (plain, pruned, distilled, small)] == [
        "fp32",
        "prune=0.7",
        "distil",
        "qat=1",
    ]
    assert pruned.row["parameters"] < 0.6 * plain.row["parameters"]
    assert pruned.row["macs"] < 0.6 * plain.row["macs"]
    assert pruned.row["bytes"] == distilled.row["bytes"] > 1.2 * small.row["bytes"]
    assert [row["step"] for row in small.bundle.manifest.compression] == [
        "fp32",
        "prune=0.7",
        "distil",
        "qat=1",
    ]
    assert small.row["macro_f1"] > 0.5


def test_pruning_by_the_held_out_windows_loses_no_more_than_it_may() -> None:
    plain, pruned = stages(toy_bundle.trained(), ("prune",), windows(1), windows(2), fit=FIT)
    assert pruned.row["macro_f1"] >= plain.row["macro_f1"] - 0.002 - 1e-5
    assert FEWEST == 16


def test_what_is_zero_stays_zero_through_the_steps_after() -> None:
    _, zeroed, tuned = compressed("magnitude=0.4", "tune=1")
    assert zeroed.row["zeros"] == pytest.approx(0.4, abs=0.02)
    assert zeroed.row["sparse_bytes"] < 0.75 * 4 * zeroed.row["parameters"]
    assert (
        tuned.row["deflated"]
        < 1.02 * zeroed.row["deflated"]
        < 0.85 * compressed("tune=1")[0].row["deflated"]
    )


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again = (
        tuple(
            stages(toy_bundle.trained(), ("prune=0.7", "qat=1"), windows(1), windows(2), fit=FIT)
        )[-1].bundle
        for _ in range(2)
    )
    assert first.id == again.id


def test_arrays_give_the_network_back() -> None:
    bundle = toy_bundle.trained()
    known = [CLASSES.index(name) for name in bundle.manifest.members[0].classes]
    network = restore(
        registry.load("models", bundle.family), spec(), len(known), bundle.files["weights.npz"]
    )
    shown = windows(1).take(np.arange(50))
    with torch.no_grad():
        logits = network(
            *(torch.from_numpy(values) for values in (shown.steps, shown.mask, shown.table))
        )[0]
    expected = torch.softmax(logits, dim=-1).numpy()
    from ids_plugin.scoring.onnx import OnnxMember

    served = OnnxMember(bundle.files["model.onnx"], tuple(known), "here").probabilities(
        shown.steps, shown.mask, shown.table
    )
    assert np.abs(served[:, known] - expected).max() < 1e-5
    with pytest.raises(ValueError, match="aren't the weights"):
        restore(registry.load("models", "cnn"), spec(), len(known), bundle.files["weights.npz"])
