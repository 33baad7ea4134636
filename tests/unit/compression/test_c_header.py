"""The C headers give the reference's scores bit for bit, compiled by a real compiler with every
warning an error."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ids_plugin.compression.tiny.c_header import header
from ids_plugin.compression.tiny.integer_network import (
    Layer,
    Network,
    biggest_sum,
    classify,
    from_json,
    quantise,
    scores,
    to_json,
)
from ids_plugin.models.tiny_cnn import OPTIMISED, ORIGINAL, TinyCnnShape
from ids_plugin.schema.uniflow import LARGEST

CC = shutil.which("cc") or shutil.which("gcc")
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"]
PROGRAM = """
#include <stdio.h>
#include "ids_model.h"
int main(void)
{
    uint32_t counts[IDS_INPUTS];
    ids_value unit[IDS_INPUTS];
    int i;
    while (fread(counts, sizeof counts, 1, stdin) == 1) {
        int32_t said;
        ids_prepare(counts, unit);
        said = ids_classify(unit);
        fwrite(&said, sizeof said, 1, stdout);
        for (i = 0; i < IDS_CLASSES; i++)
            fwrite(ids_scores + i, 4, 1, stdout);
    }
    return 0;
}
"""
FEATURES = {16: tuple(range(16)), 7: (0, 1, 4, 5, 6, 7, 12)}


def random_network(shape: TinyCnnShape, seed: int = 1) -> Network:
    rng = np.random.default_rng(seed)

    def layer(*sizes: int) -> Layer:
        weight = rng.normal(size=sizes).astype(np.float32) / np.float32(np.sqrt(sizes[-1]))
        return Layer(weight, rng.normal(size=sizes[0]).astype(np.float32) / np.float32(4))

    widths = shape.widths
    dense = [layer(outputs, inputs) for inputs, outputs in pairwise(widths)]
    return Network(shape, FEATURES[shape.inputs], (layer(shape.filters, shape.kernel), *dense))


def coarse(network: Network) -> Network:
    """With at most 16 different weights a layer."""
    layers = [
        one._replace(weight=(np.rint(one.weight / np.abs(one.weight).max() * 7) / 7))
        for one in network.layers
    ]
    return Network(network.shape, network.features, tuple(layers))


def counts(rows: int, seed: int = 2) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    rng = np.random.default_rng(seed)
    drawn = np.exp2(rng.uniform(0, 32, (rows, 16))).astype(np.int64) - 1
    edges = np.array(
        [
            np.zeros(16),
            np.full(16, LARGEST),
            np.full(16, LARGEST + 1),
            np.eye(16)[0],
            2 ** np.arange(16),
        ]
    )
    return np.concatenate([edges.astype(np.int64), drawn])


def in_c(network: Network, rows: np.ndarray, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the compiled header says of `rows` (n, 16): classes (n), scores (n, classes)."""
    if CC is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    (folder / "ids_model.h").write_text(header(network, "test"))
    (folder / "main.c").write_text(PROGRAM)
    subprocess.run([CC, *FLAGS, "main.c", "-o", "main"], cwd=folder, check=True)
    told = rows[:, network.features].astype("<u4").tobytes()
    said = subprocess.run([folder / "main"], input=told, capture_output=True, check=True).stdout
    table = np.frombuffer(said, "<i4").reshape(len(rows), 1 + network.shape.classes)
    found = np.ascontiguousarray(table[:, 1:])
    return table[:, 0], found if network.whole else found.view("<f4")


SHAPES = [
    ORIGINAL,
    OPTIMISED,
    TinyCnnShape(7, 5, 3, False),
    TinyCnnShape(7, 6, 4, True, (9, 8, 7), pool=3),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["float", "whole", "shared"])
def test_c_computes_what_the_reference_does(shape: TinyCnnShape, kind: str, tmp_path: Path) -> None:
    network, rows = random_network(shape), counts(200)
    if kind != "float":
        network = quantise(coarse(network) if kind == "shared" else network, rows)
    assert (network.whole, network.shared) == (kind != "float", kind == "shared")
    said, found = in_c(network, rows, tmp_path)
    assert np.array_equal(found, scores(network, rows))
    assert np.array_equal(said, classify(network, rows))
    assert len(np.unique(found[:, 0])) > 20


def test_a_whole_network_is_close_to_the_one_it_came_from() -> None:
    network, rows = random_network(OPTIMISED), counts(500)
    whole = quantise(network, rows)
    assert (classify(whole, rows) == classify(network, rows)).mean() > 0.9
    assert biggest_sum(whole) < 2**31


def test_a_layer_that_hands_on_nothing_is_still_the_same_in_c(tmp_path: Path) -> None:
    network, rows = random_network(OPTIMISED), counts(100)
    conv, hidden, last = network.layers
    dead = hidden._replace(bias=np.full_like(hidden.bias, -1e6))
    for at, layers in enumerate(
        [(conv, dead, last), (conv._replace(weight=conv.weight * 1e-9), hidden, last)]
    ):
        whole, place = (
            quantise(Network(OPTIMISED, network.features, layers), rows),
            tmp_path / str(at),
        )
        place.mkdir()
        assert biggest_sum(whole) < 2**31
        assert all(16 <= layer.shift <= 61 for layer in whole.layers[:-1])
        assert np.array_equal(in_c(whole, rows, place)[1], scores(whole, rows))


def test_a_whole_network_survives_being_text() -> None:
    whole, rows = quantise(random_network(OPTIMISED), counts(50)), counts(50)
    again = from_json(to_json(whole))
    assert np.array_equal(scores(again, rows), scores(whole, rows))
    assert to_json(again) == to_json(whole)
