"""AnomalyNet: padding is no evidence, what is unknown has a value of its own, and it is small."""

from __future__ import annotations

import pytest
import torch

from ids_plugin.models.anomaly_net import PLUGIN, AnomalyNet
from ids_plugin.schema.window import STEPS
from ids_plugin.windows import spec


@pytest.fixture
def net() -> AnomalyNet:
    torch.manual_seed(1)
    return PLUGIN.build(spec(), 8).eval()


def inputs(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    steps = torch.randn(rows, STEPS, len(spec().sequence), generator=generator)
    mask = torch.arange(STEPS).expand(rows, STEPS) >= torch.tensor([[0], [6], [STEPS - 1]])[:rows]
    return steps, mask, torch.randn(rows, len(spec().table), generator=generator)


def test_what_stands_in_the_padding_changes_nothing(net: AnomalyNet) -> None:
    steps, mask, table = inputs()
    other = torch.where(mask.unsqueeze(-1), steps, torch.nan)
    for one, two in zip(net(steps, mask, table), net(other, mask, table), strict=True):
        assert torch.equal(one, two)


def test_attention_is_over_flows_only(net: AnomalyNet) -> None:
    _, weights, _ = net(*inputs())
    assert torch.allclose(weights.sum(1), torch.ones(3))
    assert not weights[~inputs()[1]].any()
    assert weights[2, -1] == 1


def test_unknown_values_are_not_zeros(net: AnomalyNet) -> None:
    steps, mask, table = inputs()
    zero, unknown = table.clone(), table.clone()
    zero[:, 3], unknown[:, 3] = 0, torch.nan
    assert not torch.isnan(net(steps, mask, unknown)[0]).any()
    assert not torch.equal(net(steps, mask, zero)[0], net(steps, mask, unknown)[0])


def test_every_part_learns(net: AnomalyNet) -> None:
    logits, _, error = net(*inputs())
    (logits.square().sum() + error.sum()).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in net.parameters())


def test_it_is_small(net: AnomalyNet) -> None:
    assert 20_000 <= sum(weight.numel() for weight in net.parameters()) <= 60_000
