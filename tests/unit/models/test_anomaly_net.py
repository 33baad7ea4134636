"""AnomalyNet: attention is over flows alone, and it is small."""

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


def test_attention_is_over_flows_only(net: AnomalyNet) -> None:
    _, weights, _ = net(*inputs())
    assert torch.allclose(weights.sum(1), torch.ones(3))
    assert not weights[~inputs()[1]].any()
    assert weights[2, -1] == 1


def test_it_is_small(net: AnomalyNet) -> None:
    assert 20_000 <= sum(weight.numel() for weight in net.parameters()) <= 60_000
