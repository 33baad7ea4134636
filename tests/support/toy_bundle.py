"""A bundle trained on toy networks in seconds: once as trained, once as int8. Kept per test
session."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from ids_plugin.bundle import Bundle
from ids_plugin.compression import run as compressing
from ids_plugin.schema.window import Windows
from ids_plugin.training.examples import Sampling, windows
from ids_plugin.training.options import Fit, Options
from ids_plugin.training.run import train
from tests.support import toy

SAMPLING = Sampling(attack=120, benign=400)


@cache
def folder() -> str:
    """Spec of four toy networks."""
    return f"lab:{toy.write(Path(tempfile.mkdtemp(prefix='toy-')), 4)}"


def options(
    seed: int = 1,
    *,
    family: str = "anomaly_net",
    beside: tuple[str, ...] = ("lightgbm", "behaviour"),
) -> Options:
    """A training run of seconds."""
    return Options(
        data=(folder(),), seed=seed, family=family, beside=beside, rounds=8, prefilter_rounds=6, sampling=SAMPLING,  # noqa: E501
        fit=Fit(epochs=3, windows=3000, threads=1),
    )  # fmt: skip


@cache
def trained() -> Bundle:
    """As training leaves it."""
    return train(options())


@cache
def small() -> Bundle:
    """Compressed to int8."""
    return compressing.compress(trained(), compressing.Options(data=(folder(),), sampling=SAMPLING))


@cache
def batch() -> Windows:
    """Windows of a toy network that no training saw."""
    return next(windows(toy.network(99)))
