"""`tiny_cnn` as a device computes it: the same numbers in the same order, in numpy, float32 or
whole.

Whole numbers are Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, 2018 (section 2.2): int8 weights and activations, int32 sums, and
between layers one multiplication by a 31-bit fixed-point number and a rounding shift. All zero
points are 0: inputs are positive, and so is what ReLU leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.features.unit_vectors import FINE, unit
from ids_plugin.models.tiny_cnn import TinyCnnShape

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
TOP = 127
CENTROIDS = 16
BIAS = 2**30
"""Most that a whole bias is, so that no sum exceeds 31 bits."""


class Layer(NamedTuple):
    """A convolution (filters, kernel) or dense layer (outputs, inputs); float32 throughout or int64
    throughout."""

    weight: Array
    bias: Array
    """(filters) or (outputs)"""
    multiplier: int = 0
    """of a whole layer's positive sums, before `shift`; the last layer's are left as they are"""
    shift: int = 0

    @property
    def centroids(self) -> Array:
        """The values that occur among the weights, ascending."""
        return np.unique(self.weight)


@dataclass(frozen=True)
class Network:
    """One rung of the ladder, ready to compute."""

    shape: TinyCnnShape
    features: tuple[int, ...]
    """of schema.uniflow.FEATURES, in order"""
    layers: tuple[Layer, ...]
    """the convolution, then the dense ones"""
    unit_length: int = FINE
    """what a vector's length is in whole numbers: FINE where the network computes in floating
    point"""

    @property
    def whole(self) -> bool:
        """Whether it computes in whole numbers alone."""
        return self.layers[0].weight.dtype == np.int64

    @property
    def shared(self) -> bool:
        """Whether every layer gets by with CENTROIDS weights, so that four bits say which."""
        return self.whole and all(len(layer.centroids) <= CENTROIDS for layer in self.layers)


def of_floats(
    shape: TinyCnnShape, features: Sequence[int], weights: Mapping[str, Array]
) -> Network:
    """The network of a module's weights by name (models.tiny_cnn)."""
    conv = Layer(
        weights["conv.weight"][:, 0, :].astype(np.float32), weights["conv.bias"].astype(np.float32)
    )
    dense = [
        Layer(
            weights[f"dense{number}.weight"].astype(np.float32),
            weights[f"dense{number}.bias"].astype(np.float32),
        )
        for number in range(len(shape.widths) - 1)
    ]
    return Network(shape, tuple(features), (conv, *dense))


def inputs(network: Network, counts: Ints) -> Array:
    """What the network reads of counts (n, 16): (n, shape.inputs), float32 or whole numbers up to
    TOP."""
    vectors = unit(counts[:, network.features], network.unit_length)
    return (
        np.minimum(vectors, TOP) if network.whole else vectors.astype(np.float32) / np.float32(FINE)
    )


def scores(network: Network, counts: Ints) -> Array:
    """What the last layer gives for counts (n, 16): (n, classes), float32 or int64."""
    return activations(network, inputs(network, counts))[-1]


def classify(network: Network, counts: Ints) -> Ints:
    """The class of greatest score, the first of equal ones: (n)."""
    classes: Ints = scores(network, counts).argmax(axis=1)
    return classes


def activations(network: Network, values: Array) -> list[Array]:
    """What each layer hands on, (n, outputs): one term after the other is added, as a device
    does."""
    shape, conv = network.shape, network.layers[0]
    width = shape.positions + shape.kernel - 1
    padded = np.zeros((len(values), max(width, shape.before + shape.inputs)), values.dtype)
    padded[:, shape.before : shape.before + shape.inputs] = values
    sums = (
        np.zeros((len(values), shape.filters, shape.positions), values.dtype) + conv.bias[:, None]
    )
    for tap in range(shape.kernel):
        sums = sums + conv.weight[:, tap, None] * padded[:, None, tap : tap + shape.positions]
    pooled = sums.reshape(len(values), shape.filters, shape.pooled, shape.pool).max(axis=3)
    outputs = [_handed_on(conv, pooled.reshape(len(values), -1))]
    for layer in network.layers[1:]:
        total = np.zeros((len(values), len(layer.bias)), values.dtype) + layer.bias
        for column in range(layer.weight.shape[1]):
            total = total + layer.weight[:, column] * outputs[-1][:, column, None]
        outputs.append(_handed_on(layer, total) if layer is not network.layers[-1] else total)
    return outputs


def _handed_on(layer: Layer, sums: Array) -> Array:
    values: Array = np.maximum(sums, sums.dtype.type(0))
    if layer.multiplier:
        values = np.minimum(
            (values * layer.multiplier + (1 << (layer.shift - 1))) >> layer.shift, TOP
        )
    return values


def quantise(network: Network, counts: Ints) -> Network:
    """The network in whole numbers; `counts` (n, 16), like those that it will see, fix the
    scales."""
    values = inputs(network, counts)
    unit_length = int(TOP / float(values.max()))
    seen = [
        1.0 / unit_length,
        *(max(float(array.max()), 1e-12) / TOP for array in activations(network, values)[:-1]),
    ]
    layers = []
    for number, layer in enumerate(network.layers):
        step = max(float(np.abs(layer.weight).max()), 1e-12) / TOP
        weight = np.rint(layer.weight.astype(np.float64) / step).astype(np.int64)
        bias = (
            np.rint(layer.bias.astype(np.float64) / (step * seen[number]))
            .clip(-BIAS, BIAS)
            .astype(np.int64)
        )
        last = number == len(network.layers) - 1
        layers.append(
            Layer(
                weight, bias, *((0, 0) if last else _fixed(step * seen[number] / seen[number + 1]))
            )
        )
    return Network(network.shape, network.features, tuple(layers), unit_length)


def _fixed(ratio: float) -> tuple[int, int]:
    """31-bit multiplier and shift from 16 to 61: ratio ≈ multiplier / 2**shift. Ratios beyond are
    of layers that hand on nothing, or all at once, where any will do."""
    mantissa, exponent = np.frexp(min(max(ratio, 2.0**-30), 2.0**14))
    multiplier = int(np.rint(float(mantissa) * 2**31))
    return (multiplier, 31 - int(exponent)) if multiplier < 2**31 else (2**30, 30 - int(exponent))


def to_json(network: Network) -> bytes:
    """A whole network as text."""
    layers = [
        {
            "weight": layer.weight.tolist(),
            "bias": layer.bias.tolist(),
            "multiplier": layer.multiplier,
            "shift": layer.shift,
        }
        for layer in network.layers
    ]
    document = {
        "shape": network.shape._asdict(),
        "features": network.features,
        "one": network.unit_length,
        "layers": layers,
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def from_json(text: bytes) -> Network:
    """What `to_json` wrote."""
    document = json.loads(text)
    shape = TinyCnnShape(**{**document["shape"], "hidden": tuple(document["shape"]["hidden"])})
    layers = tuple(
        Layer(
            np.array(layer["weight"], np.int64),
            np.array(layer["bias"], np.int64),
            layer["multiplier"],
            layer["shift"],
        )
        for layer in document["layers"]
    )
    return Network(shape, tuple(document["features"]), layers, document["one"])


def constants(network: Network) -> int:
    """Bytes that a device keeps of it: weights, biases, and in whole networks multipliers and
    shifts.

    float32 takes 4 each. A whole weight takes 1, or half of one where it is shared (and a layer's
    CENTROIDS centroids 1 each), a bias 4, a layer's multiplier 4 and shift 1."""
    if not network.whole:
        return sum(4 * (layer.weight.size + layer.bias.size) for layer in network.layers)
    weights = [
        (layer.weight.size + 1) // 2 + CENTROIDS if network.shared else layer.weight.size
        for layer in network.layers
    ]
    return (
        sum(weights)
        + sum(4 * layer.bias.size for layer in network.layers)
        + 5 * (len(network.layers) - 1)
    )


def arena(network: Network) -> int:
    """Bytes of the working memory: the counts and what the network reads of them, two buffers that
    layers write in turn, and the scores. The convolution, ReLU and pooling are one step and need no
    room between them."""
    size, widths = (1 if network.whole else 4), network.shape.widths
    first, second = max(widths[:-1][0::2]), max(widths[:-1][1::2], default=0)
    return (
        4 * network.shape.inputs
        + size * (network.shape.inputs + first + second)
        + 4 * network.shape.classes
    )


def biggest_sum(network: Network) -> int:
    """Greatest magnitude that a sum of a whole network can have, whatever the counts: it must fit
    in 31 bits."""
    return max(
        int((np.abs(layer.weight).sum(axis=1) * TOP + np.abs(layer.bias)).max())
        for layer in network.layers
    )
