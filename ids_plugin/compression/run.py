"""One compression: bundle → smaller bundle whose manifest says what each step cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from ids_plugin import registry
from ids_plugin.bundle import Bundle, MemberEntry, seal
from ids_plugin.compression import NetworkInProgress, Step, StepContext
from ids_plugin.compression.cost import deflated, macro_f1, macs, parameters
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.errors import UsageError
from ids_plugin.models import WidthsFamily
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring import Doubles
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training.examples import Examples, Sampling, sample
from ids_plugin.training.options import Fit, Progress, quiet
from ids_plugin.training.run import known_as
from ids_plugin.training.torch_network import MODEL, WEIGHTS, restore

_SHOWN = 2_000


@dataclass(frozen=True)
class Options:
    """What a compression is told."""

    data: tuple[str, ...]
    """networks like those the bundle will see, best those that calibrated it: they fix the scales,
    choose where something is to be chosen, and show the cost"""
    steps: tuple[str, ...] = ("int8",)
    """`name` or `name=value`"""
    train: tuple[str, ...] = ()
    """labelled flows from which steps learn again that do"""
    shown: int = _SHOWN
    """windows that fix the scales"""
    seed: int = 1
    labels: Path | None = None
    """of `zeek:` logs"""
    fit: Fit = field(default_factory=lambda: Fit(epochs=24, windows=20_000))
    sampling: Sampling = field(
        default_factory=lambda: Sampling(attack=60, benign=200, look_alike=30)
    )


@dataclass(frozen=True)
class Stage:
    """A bundle after one step."""

    step: str
    bundle: Bundle
    row: dict[str, Any]
    """what it cost: the row of `manifest.compression`"""


def compress(bundle: Bundle, options: Options, progress: Progress = quiet) -> Bundle:
    """A smaller bundle; `manifest.compression` has size, work, macro-F1 and score differences after
    every step.

    Raises:
        UsageError: the bundle has no network, a step is unknown, or something is missing that it
            needs.
        InputError: data that can't be read.
    """
    *_, last = run(bundle, options, progress)
    return last.bundle


def run(bundle: Bundle, options: Options, progress: Progress = quiet) -> Iterator[Stage]:
    """As `stages`, with windows of the data that the options name."""
    _member(bundle)
    recipe(options.steps)
    known = bundle.manifest.trained_classes

    def windows(specs: tuple[str, ...], sampling: Sampling) -> Examples:
        networks = [
            known_as(network, known) for spec in specs for network in load(spec, options.labels)
        ]
        return sample(networks, sampling, options.seed)

    held_out = windows(options.data, options.sampling)
    train = windows(options.train, Sampling()) if options.train else None
    yield from stages(
        bundle,
        options.steps,
        held_out,
        train,
        fit=options.fit,
        seed=options.seed,
        progress=progress,
        shown=options.shown,
    )


def stages(
    bundle: Bundle,
    steps: Sequence[str],
    held_out: Examples,
    train: Examples | None = None,
    *,
    fit: Fit | None = None,
    seed: int = 1,
    progress: Progress = quiet,
    shown: int = _SHOWN,
) -> Iterator[Stage]:
    """The bundle as it is, `fp32`, and after every step.

    Args:
        bundle: with a network; with its weights too where steps change them.
        steps: `name` or `name=value`.
        held_out: windows that choose, and show what each step costs.
        train: windows to learn again from.
        fit: how networks learn again.
        seed: of everything random.
        progress: told of every step and epoch.
        shown: how many of the held-out windows fix scales.
    Raises:
        UsageError: as `compress`.
    """
    entry, planned = _member(bundle), recipe(steps)
    files = {name: data for name, data in bundle.files.items() if name != WEIGHTS}
    material, work = _material(
        bundle, entry, held_out, train, fit or Options(()).fit, seed, progress, shown
    )
    before: Doubles | None = None
    record: list[dict[str, Any]] = []
    for name, step, value in [("fp32", None, None), *planned]:
        if step is not None:
            progress(f"step {name}")
            work = step.apply(work, material, value)
        now = _asked(work, material)
        record.append({"step": name, **_cost(work, material, before, now)})
        before = now if before is None else before
        progress(f"{name}: {record[-1]}")
        manifest = bundle.manifest.replaced(compression=record)
        yield Stage(name, seal(manifest, {**files, MODEL: work.model}), record[-1])


def recipe(steps: Sequence[str]) -> list[tuple[str, Step, float | None]]:
    """What was written, the step that it names, and its value.

    Raises:
        UsageError: no step is named, or one that there isn't, or a value is no number.
    """
    planned = []
    for written in steps:
        name, equals, value = written.partition("=")
        try:
            planned.append(
                (
                    written,
                    registry.load("compression_steps", name),
                    float(value) if equals else None,
                )
            )
        except ValueError as error:
            raise UsageError(f"{written}: {value!r} is no number") from error
    if not planned:
        raise UsageError(
            "no step is named", hint=f"there are: {', '.join(registry.names('compression_steps'))}"
        )
    return planned


def _member(bundle: Bundle) -> MemberEntry:
    """The manifest's entry of the network."""
    networks = [entry for entry in bundle.manifest.members if entry.file == MODEL]
    if not networks or MODEL not in bundle.files:
        raise UsageError("has no network that could be compressed", location=bundle.location)
    return networks[0]


def _material(
    bundle: Bundle,
    entry: MemberEntry,
    held_out: Examples,
    train: Examples | None,
    fit: Fit,
    seed: int,
    progress: Progress,
    shown: int,
) -> tuple[StepContext, NetworkInProgress]:
    classes = tuple(CLASSES.index(name) for name in entry.classes)
    is_family = entry.name in registry.names("models")
    family = registry.load("models", entry.name if is_family else bundle.family)
    module: nn.Module | None = None
    if WEIGHTS in bundle.files:
        try:
            module = restore(
                cast(WidthsFamily, family), held_out.spec, len(classes), bundle.files[WEIGHTS]
            )
        except ValueError as error:
            raise UsageError(str(error), location=f"{bundle.location}/{WEIGHTS}") from error
    rows = np.random.default_rng(seed).choice(
        len(held_out), min(shown, len(held_out)), replace=False
    )
    if train is not None:
        train = train.take(np.flatnonzero(np.isin(train.label, classes)))
    material = StepContext(
        family, classes, held_out, held_out.take(np.sort(rows)), fit, seed, progress, train, module
    )
    return material, NetworkInProgress(bundle.files[MODEL], module)


def _asked(work: NetworkInProgress, material: StepContext) -> Doubles:
    windows = material.held_out
    return OnnxMember(work.model, material.classes, MODEL).probabilities(
        windows.steps, windows.mask, windows.table
    )


def _cost(
    work: NetworkInProgress, material: StepContext, then: Doubles | None, now: Doubles
) -> dict[str, Any]:
    """What the network takes, and how far its answers `now` are from those of `then`."""
    cost = {
        "bytes": len(work.model),
        "deflated": deflated(work.model),
        "parameters": parameters(work.model),
        "macs": macs(work.model),
        "macro_f1": round(macro_f1(material.held_out, now), 5),
        **work.notes,
    }
    if then is None:
        return cost
    moved = np.abs(now - then).max(axis=1)
    return cost | {
        "moved_mean": round(float(moved.mean()), 6),
        "moved_most": round(float(moved.max()), 6),
    }


def with_fit(options: Options, epochs: int | None) -> Options:
    """The options with so many epochs of retraining, where a number is given."""
    return options if epochs is None else replace(options, fit=replace(options.fit, epochs=epochs))
