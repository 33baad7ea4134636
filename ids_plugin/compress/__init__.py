"""Compression: bundle → smaller bundle, and what it cost.

`_run.compress` is the whole of it; a file here that defines `PLUGIN` is a step of its recipe.
"""

from __future__ import annotations

from typing import Protocol

from ids_plugin.training._examples import Examples


class Step(Protocol):
    """One way of making an ONNX model smaller."""

    name: str

    def apply(self, model: bytes, shown: Examples) -> bytes:
        """The smaller model; `shown` are windows like those it will see."""
        ...
