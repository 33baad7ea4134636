"""What every network family promises: padding is no evidence, the unknown has a value of its own,
every part learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ids_plugin import registry
from ids_plugin.models import l_tcn
from ids_plugin.schema.window import STEPS
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training.examples import Examples
from ids_plugin.training.torch_network import FittedNetwork, export
from ids_plugin.windows import spec

FAMILIES = [
    name for name in registry.names("models") if registry.load("models", name).kind == "torch"
]
PUBLISHED = {"cnn_lstm": (1_050_000, 1_300_000), "l_tcn": (800_000, 1_000_000)}
"""parameters before compression"""


@pytest.fixture(params=FAMILIES)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    made: nn.Module = registry.load("models", request.param).build(spec(), 8).eval()
    return made


def inputs(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    steps = torch.randn(rows, STEPS, len(spec().sequence), generator=generator)
    mask = torch.arange(STEPS).expand(rows, STEPS) >= torch.tensor([[0], [6], [STEPS - 1]])[:rows]
    return steps, mask, torch.randn(rows, len(spec().table), generator=generator)


def test_what_stands_in_the_padding_changes_nothing(net: nn.Module) -> None:
    steps, mask, table = inputs()
    other = torch.where(mask.unsqueeze(-1), steps, torch.nan)
    assert torch.equal(net(steps, mask, table)[0], net(other, mask, table)[0])


def test_every_flow_of_the_window_counts(net: nn.Module) -> None:
    steps, mask, table = inputs()
    for at in range(STEPS):
        other = steps.clone()
        other[:, at] += 1
        assert not torch.equal(net(steps, mask, table)[0][0], net(other, mask, table)[0][0])


def test_unknown_values_are_not_zeros(net: nn.Module) -> None:
    steps, mask, table = inputs()
    zero, unknown = steps.clone(), steps.clone()
    zero[:, -1, 3], unknown[:, -1, 3] = 0, torch.nan
    assert not torch.isnan(net(unknown, mask, table)[0]).any()
    assert not torch.equal(net(zero, mask, table)[0], net(unknown, mask, table)[0])


def test_every_part_learns(net: nn.Module) -> None:
    logits, _, extra = net.train()(*inputs())
    (logits.square().sum() + extra.sum()).backward()
    assert all(
        weight.grad is not None and weight.grad.abs().sum() > 0 for weight in net.parameters()
    )


def test_it_serves_what_it_computes(net: nn.Module) -> None:
    steps, mask, table = inputs()
    shown = (steps.numpy(), mask.numpy(), table.numpy())
    none = np.zeros(3, np.int64)
    model = export(
        FittedNetwork(net, tuple(range(8)), []), Examples(spec(), *shown, label=none, activity=none)
    )
    with torch.no_grad():
        expected = torch.softmax(net(steps, mask, table)[0], dim=-1).numpy()
    served = OnnxMember(model, tuple(range(8)), "here")
    once = served.probabilities(*shown)
    assert np.abs(once[:, :8] - expected).max() < 1e-5
    often = served.probabilities(*(np.concatenate([values] * 43) for values in shown))
    assert (often == np.concatenate([once] * 43)).all(), (
        "a window's bits depend on its place in the batch"
    )


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_its_size_before_compression_is_the_published_one(name: str) -> None:
    low, high = PUBLISHED[name]
    assert (
        low
        < sum(
            weight.numel() for weight in registry.load("models", name).build(spec(), 8).parameters()
        )
        < high
    )


def test_the_tree_form_of_the_tcn_gives_the_numbers_of_the_published_stack() -> None:
    torch.manual_seed(4)
    tree = l_tcn.PLUGIN.build(spec(), 8).eval()
    full = l_tcn.PLUGIN.build(spec(), 8, tree=False).eval()
    full.load_state_dict(tree.state_dict())
    assert torch.allclose(tree(*inputs())[0], full(*inputs())[0], atol=1e-6)
