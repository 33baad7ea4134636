"""Pruning with retraining and weight clustering of `tiny_cnn`: fewer different weights, zero one of
them.

Han, Mao and Dally, Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
Quantization and Huffman Coding, 2016: weights of least magnitude become zero for good; k-means then
shares the rest among a few centroids, which are trained by the sum of the gradients of the weights
that share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ids_plugin.compression.tiny.integer_network import CENTROIDS
from ids_plugin.models.tiny_cnn import TinyCnnShape
from ids_plugin.training.tiny import Floats, Ints, Options, fit

Weights = dict[str, Tensor]
ROUNDS = 2
_LLOYD = 30


def prune(
    shape: TinyCnnShape,
    weights: Mapping[str, Tensor],
    rows: tuple[Floats, Ints],
    share: float,
    options: Options,
) -> Weights:
    """The weights with `share` of each layer's zero, retrained after each of ROUNDS steps on the
    way there."""
    current = dict(weights)
    for step in range(1, ROUNDS + 1):
        mask = {
            name: _kept(value, share * step / ROUNDS)
            for name, value in current.items()
            if name.endswith("weight")
        }
        shorter = replace(options, epochs=max(1, options.epochs // 2))

        def view(named: Weights, mask: Weights = mask) -> Weights:
            return {
                name: value * mask[name] if name in mask else value for name, value in named.items()
            }

        current = fit(shape, rows, shorter, current, view)
    return current


def _kept(weight: Tensor, share: float) -> Tensor:
    """1 where a weight stays, 0 at the `share` of least magnitude."""
    order = weight.abs().flatten().argsort(stable=True)
    mask = torch.ones(weight.numel())
    mask[order[: round(share * weight.numel())]] = 0.0
    return mask.reshape(weight.shape)


def cluster(
    shape: TinyCnnShape, weights: Mapping[str, Tensor], rows: tuple[Floats, Ints], options: Options
) -> Weights:
    """The weights with at most CENTROIDS different values a layer, zero always one of them;
    centroids retrained."""
    index, start = {}, dict(weights)
    for name, value in weights.items():
        if name.endswith("weight"):
            centroids, index[name] = shared(value.numpy().astype(np.float64))
            start[name] = torch.tensor(centroids, dtype=torch.float32)
    places = {name: torch.from_numpy(which) for name, which in index.items()}
    moves = torch.ones(CENTROIDS)
    moves[0] = 0.0

    def view(named: Weights) -> Weights:
        return {
            name: (value * moves)[places[name]] if name in places else value
            for name, value in named.items()
        }

    return fit(shape, rows, replace(options, epochs=max(1, options.epochs // 2)), start, view)


def shared(
    weight: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Centroids (CENTROIDS), the first of them 0, and which each weight has: Lloyd's k-means from
    evenly spaced ones.

    Weights that are 0 stay so; a centroid that nothing is nearest to keeps its place.
    """
    centroids = np.concatenate([[0.0], np.linspace(weight.min(), weight.max(), CENTROIDS - 1)])
    free = weight != 0
    for _ in range(_LLOYD):
        index = np.abs(weight[..., None] - centroids).argmin(axis=-1)
        index[~free] = 0
        for number in range(1, CENTROIDS):
            if (index == number).any():
                centroids[number] = weight[index == number].mean()
    index = np.abs(weight[..., None] - centroids).argmin(axis=-1)
    index[~free] = 0
    return centroids, index.astype(np.int64)
