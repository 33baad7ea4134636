"""Counts → vectors of length one, in whole numbers alone, so that a device without floating point
makes the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ids_plugin.schema.uniflow import LARGEST

Ints = npt.NDArray[np.int64]
FINE = 32_767
"""What length one is for a network that computes in floating point."""


def logs(counts: Ints) -> Ints:
    """256 · log2(1 + count), its fraction taken linearly between powers of two: (n, F), 0 to 8,191.

    Mitchell, Computer Multiplication and Division Using Binary Logarithms, 1962. Counts over
    LARGEST are LARGEST.
    """
    one_more = np.clip(counts, 0, LARGEST) + 1
    exponent = np.frexp(one_more.astype(np.float64))[1].astype(np.int64) - 1
    logarithms: Ints = 256 * exponent + ((one_more << 8) >> exponent) - 256
    return logarithms


def unit(counts: Ints, unit_length: int) -> Ints:
    """Logarithms of each row's counts, scaled to length `unit_length` and rounded.

    Args:
        counts: (n, F).
        unit_length: what length one is in whole numbers.

    Returns:
        (n, F) from 0 to `unit_length`. The row's length is a square root rounded down; a row of
        zeros stays a row of zeros.
    """
    logarithms = logs(counts)
    length = np.sqrt((logarithms**2).sum(axis=1)).astype(np.int64)
    scaled = (unit_length * logarithms + (length // 2)[:, None]) // np.maximum(length, 1)[:, None]
    rounded: Ints = np.minimum(scaled, unit_length)
    return rounded
