"""Scoring: bundle + windows → Scores. ONNX Runtime and LightGBM's C library; torch is never imported here.

A file here that defines `PLUGIN` is a kind of member: something in a bundle that has an opinion of its own.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ids_plugin.bundle import Bundle
from ids_plugin.schema.window import Bools, Floats

Doubles = npt.NDArray[np.float64]


class Member(Protocol):
    """One opinion: window arrays → class probabilities. A row depends on its own window alone, to the last bit."""

    def probabilities(self, steps: Floats, mask: Bools, table: Floats) -> Doubles:
        """(m, len(CLASSES)) from steps (m, STEPS, F), mask (m, STEPS), table (m, T); 0 for classes it doesn't know."""
        ...


class Plugin(Protocol):
    """A kind of member."""

    name: str

    def open(self, bundle: Bundle, entry: dict[str, Any]) -> Member:
        """The member that `entry` of the manifest's `members` describes.

        Raises:
            BundleError: its file doesn't load.
        """
        ...
