"""Unstructured pruning by magnitude, a fifth of the weights at a time with retraining between (Han
et al., Learning both Weights and Connections, NeurIPS 2015): published for `l_tcn`. It makes files
smaller, not networks faster: zeros are multiplied like any other number."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from ids_plugin.compression import NetworkInProgress, StepContext
from ids_plugin.compression.retrain import exported, needed, retrain
from ids_plugin.errors import UsageError

SHARE = 0.6
_AT_A_TIME = 0.2


class Magnitude:
    """Step `magnitude`."""

    name = "magnitude"
    value = f"share of the weights that become 0 (default: {SHARE:g}, as published)"

    def apply(
        self, work: NetworkInProgress, material: StepContext, value: float | None
    ) -> NetworkInProgress:
        """As compress.Step."""
        share = SHARE if value is None else value
        if not 0 < share < 1:
            raise UsageError(f"magnitude={share:g}: a share is between 0 and 1")
        module = copy.deepcopy(needed(work, self.name))
        rounds = int(np.ceil(share / _AT_A_TIME - 1e-9))
        for number in range(1, rounds + 1):
            removed = min(share, number * _AT_A_TIME)
            _clear(module, removed)
            material.progress(f"magnitude: {removed:.0%} of the weights are 0")
            retrain(module, material, epochs=max(1, material.fit.epochs // 8))
        return exported(module, material, zeros=_zeros(module), sparse_bytes=_sparse_bytes(module))


def _matrices(module: nn.Module) -> list[Tensor]:
    return [weight for weight in module.parameters() if weight.dim() > 1]


def _clear(module: nn.Module, share: float) -> None:
    """Sets the smallest weights of each layer to 0, so that `share` of it is."""
    with torch.no_grad():
        for weight in _matrices(module):
            count = int(weight.numel() * share)
            if count:
                weight[weight.abs() <= weight.abs().flatten().kthvalue(count).values] = 0.0


def _zeros(module: nn.Module) -> float:
    """Share of the weights that are 0."""
    counts = [(int((weight == 0).sum()), weight.numel()) for weight in _matrices(module)]
    return round(sum(zero for zero, _ in counts) / sum(size for _, size in counts), 4)


def _sparse_bytes(module: nn.Module) -> float:
    """Bytes of a bit for every weight, saying whether it is there, and four for each that is."""
    return float(
        sum(
            -(-weight.numel() // 8) + 4 * int((weight != 0).sum()) for weight in module.parameters()
        )
    )


PLUGIN = Magnitude()
