"""The ladder of `tiny_cnn`: from a bundle's fp32 networks to rungs that ever smaller devices hold,
each measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from ids_plugin.bundle import Bundle, MemberEntry, TrainingRecord, seal
from ids_plugin.compression.tiny import integer_network
from ids_plugin.compression.tiny.c_header import header
from ids_plugin.compression.tiny.cluster import cluster, prune
from ids_plugin.compression.tiny.integer_network import (
    Network,
    classify,
    from_json,
    of_floats,
    quantise,
    to_json,
)
from ids_plugin.errors import BundleError, UsageError
from ids_plugin.models.tiny_cnn import TinyCnnShape
from ids_plugin.schema import uniflow
from ids_plugin.schema.uniflow import CLASSES, FEATURES
from ids_plugin.training.options import Progress, quiet
from ids_plugin.training.tiny import Ints, Options, Run, load, rows_of, vectors

PRUNED = 0.5
"""Share of each layer's weights that pruning makes zero."""
CODE_WHOLE, CODE_FLOAT = 2_048, 4_096
"""Bytes of a header's code, more than avr-gcc (ATmega328P) and arm-none-eabi-gcc (Cortex-M0+, M4)
make of it by -Os; floating point includes what the compiler brings along for it. `python -m
tests.bench.devices` measures them."""
STACK = 128
"""Bytes of stack that a classification needs beside the arena; what measures it is the same."""
HELD_OUT = "runs held out"
PUBLISHED = {
    "original": (99.74, 343_000),
    "original_int8": (99.74, 106_000),
    "pre_optimised": (98.75, 120_000),
    "optimised": (97.21, 4_237),
    "optimised_int8": (96.69, 2_704),
}
"""Accuracy in % and bytes of the five variants as published, on other data and by a random split of
rows."""


def ladder(
    bundle: Bundle, data: Sequence[str], seed: int = 1, progress: Progress = quiet
) -> Bundle:
    """The bundle with its five rungs, each with its C header (`NAME.h`) and measured on the runs
    held out of training.

    Args:
        data: `uniflow:PATH`s with the runs that the bundle names, which are told apart by their
            hashes.

    Raises:
        UsageError: it is no bundle of tiny_cnn's networks, or the data aren't those it was trained
            with.
        InputError: data that can't be read.
    """
    training = bundle.manifest.training
    is_uniflow = bundle.manifest.schema.fingerprint == uniflow.fingerprint()
    if not is_uniflow or "optimised.onnx" not in bundle.files:
        raise UsageError(
            "has no fp32 networks of tiny_cnn",
            location=bundle.location,
            hint="train --family tiny_cnn",
        )
    train, held = _by_use(bundle, training, load(data))
    counts, label = rows_of(train)
    options = Options((), seed=seed, **training.options)
    floats = {member.name: network_of(bundle, member) for member in bundle.manifest.members}
    progress(f"ladder: retraining with {len(label):,} uniflows")
    steps = _optimised(floats["optimised"], (counts, label), options)
    rungs = {
        "original": floats["original"],
        "original_int8": quantise(floats["original"], counts),
        "pre_optimised": floats["pre_optimised"],
        "optimised": floats["optimised"],
        "optimised_int8": steps["pruned, clustered, int8"],
    }
    files = {name: data for name, data in bundle.files.items() if name.endswith(".onnx")}
    files |= {f"{name}.json": to_json(network) for name, network in rungs.items() if network.whole}
    files |= {
        f"{name}.h": header(network, title(bundle, name)).encode()
        for name, network in rungs.items()
    }
    rows = [describe(name, network, held) for name, network in rungs.items()]
    for row in rows:
        progress(
            f"{row['name']}: {row['flash']:,} bytes of flash, {row['ram']:,} of RAM,"
            f" accuracy {row['accuracy']:.2%}"
        )
    taken = [{"step": name, **_cost(network, held)} for name, network in steps.items()]
    manifest = bundle.manifest.replaced(
        members=rows,
        compression=taken,
        metrics={HELD_OUT: {row["name"]: figures(row) for row in rows}},
    )
    return seal(manifest, files)


def title(bundle: Bundle, rung: str) -> str:
    """First line of a rung's header."""
    return f"ids-plugin: tiny_cnn, {rung}, from bundle {bundle.id[:12]}"


def figures(rung: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy and macro-F1 of a rung's row in the manifest."""
    return {key: rung[key] for key in ("accuracy", "macro_f1")}


def has_ladder(bundle: Bundle) -> bool:
    """Whether it is one of tiny_cnn's whose rungs were measured."""
    is_uniflow = bundle.manifest.schema.fingerprint == uniflow.fingerprint()
    return is_uniflow and all(rung.flash is not None for rung in bundle.manifest.members)


def _by_use(
    bundle: Bundle, training: TrainingRecord, runs: list[Run]
) -> tuple[list[Run], list[Run]]:
    """The runs to train on and those to measure on, as the bundle's training used them."""
    parts = []
    for use in ("train", "measure"):
        wanted = {data.sha256: data.file for data in training.data.get(use, ())}
        parts.append([run for run in runs if run.sha256 in wanted])
        absent = wanted.keys() - {run.sha256 for run in runs}
        if absent:
            what = f"{wanted[min(absent)]} isn't among the data, with which the bundle was made"
            raise UsageError(
                what, location=bundle.location, hint="--data with what was given to train"
            )
    return parts[0], parts[1]


def _optimised(network: Network, rows: tuple[Ints, Ints], options: Options) -> dict[str, Network]:
    """The seven-feature network after each step alone and after all: pruning, clustering, whole
    numbers."""
    counts, label = rows
    shape, seen = network.shape, (vectors(counts[:, network.features]), label)
    start = weights_of(network)

    def made(weights: dict[str, torch.Tensor]) -> Network:
        return of_floats(
            shape, network.features, {name: value.numpy() for name, value in weights.items()}
        )

    pruned = prune(shape, start, seen, PRUNED, options)
    both = cluster(shape, pruned, seen, options)
    return {
        "fp32": network,
        "pruned": made(pruned),
        "clustered": made(cluster(shape, start, seen, options)),
        "int8": quantise(network, counts),
        "pruned, clustered": made(both),
        "pruned, clustered, int8": quantise(made(both), counts),
    }


def weights_of(network: Network) -> dict[str, torch.Tensor]:
    """A network in floating point as its module's weights by name."""
    conv, *dense = network.layers
    weights = {
        "conv.weight": torch.from_numpy(conv.weight[:, None, :]),
        "conv.bias": torch.from_numpy(conv.bias),
    }
    for number, layer in enumerate(dense):
        weights |= {
            f"dense{number}.weight": torch.from_numpy(layer.weight),
            f"dense{number}.bias": torch.from_numpy(layer.bias),
        }
    return {name: value.clone() for name, value in weights.items()}


def network_of(bundle: Bundle, member: MemberEntry) -> Network:
    """A member of a tiny_cnn bundle, ready to compute."""
    file = member.require_file()
    data = bundle.file(file)
    if file.endswith(".json"):
        return from_json(data)
    if member.shape is None:
        raise BundleError(f"member {member.name}: shape is missing", location=bundle.location)
    shape = TinyCnnShape(**{**member.shape, "hidden": tuple(member.shape["hidden"])})
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(data).graph.initializer
    }
    return of_floats(shape, [FEATURES.index(name) for name in member.features], arrays)


def describe(name: str, network: Network, held: Sequence[Run]) -> dict[str, Any]:
    """A rung's row in the manifest: what it is, what it needs, how good it is on runs held out."""
    storage = "float32"
    if network.whole:
        storage = "4-bit indices of int8 centroids" if network.shared else "int8"
    return {
        "name": name,
        "file": f"{name}.{'json' if network.whole else 'onnx'}",
        "kind": "uniflow",
        "shape": network.shape._asdict(),
        "features": [FEATURES[number] for number in network.features],
        "weights": storage,
        "parameters": network.shape.parameters,
        "macs": network.shape.macs,
        **need(network),
        **_cost(network, held),
    }


def need(network: Network) -> dict[str, int]:
    """`flash`: constants and code. `ram`: arena and stack. In bytes, of the rung alone."""
    code = CODE_WHOLE if network.whole else CODE_FLOAT
    return {
        "flash": integer_network.constants(network) + code,
        "ram": integer_network.arena(network) + STACK,
    }


def _cost(network: Network, held: Sequence[Run]) -> dict[str, Any]:
    return {"bytes": integer_network.constants(network), **measure(network, held)}


def measure(network: Network, runs: Sequence[Run]) -> dict[str, Any]:
    """Accuracy, macro-F1 over the classes that occur, and F1 of each, on runs."""
    counts, label = rows_of(runs)
    return judged(classify(network, counts), label)


def judged(predicted: Ints, label: Ints) -> dict[str, Any]:
    """Accuracy, macro-F1 over the classes that occur, and F1 of each."""
    f1 = {}
    for number in np.unique(label).tolist():
        hit = int(((predicted == number) & (label == number)).sum())
        f1[CLASSES[number]] = round(
            2 * hit / int((predicted == number).sum() + (label == number).sum()), 5
        )
    accuracy = round(float((predicted == label).mean()), 5)
    return {"accuracy": accuracy, "macro_f1": round(float(np.mean(list(f1.values()))), 5), "f1": f1}
