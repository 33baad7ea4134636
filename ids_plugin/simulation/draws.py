"""Random draws that the whole simulator shares: addresses, log-uniform values, and times that
repeat.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

F64 = npt.NDArray[np.float64]

Bool = npt.NDArray[np.bool_]


def spread_bits(code: I64, salt: int) -> I64:
    """(n) well-spread non-negative numbers that depend on code and salt alone: habits that stay
    with an address.
    """
    z = code.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(2)).astype(np.int64)


Generator = np.random.Generator


def public_addresses(rng: Generator, n: int) -> I64:
    """n public IPv4 addresses."""
    first = rng.integers(1, 223, n)
    first = np.where(np.isin(first, (10, 100, 127, 169, 172, 192, 198, 203)), first + 1, first)
    return np.asarray((first << 24) + rng.integers(1, (1 << 24) - 1, n))


def log_uniform(rng: Generator, low: float, high: float, n: int) -> F64:
    """(n) draws whose logarithm is uniform."""
    return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), n)))


def log_uniform_value(rng: Generator, low: float, high: float) -> float:
    """One log-uniform draw."""
    return float(log_uniform(rng, low, high, 1)[0])


def log_uniform_integers(rng: Generator, low: float, high: float, n: int) -> I64:
    """(n) log-uniform whole numbers."""
    return log_uniform(rng, low, high, n).astype(np.int64)


def periodic_times(
    rng: Generator, begin: F64, end: F64, period: F64, jitter: F64
) -> tuple[I64, F64]:
    """Times of m subjects that repeat something: (subject numbers, times), both (n).

    Gaps are `period` · (1 ± `jitter`); above .95 they are exponential. All arguments have shape
    (m).
    """
    subject_count = len(begin)
    counts = np.ceil(np.maximum(end - begin, 0) / period * 1.1).astype(np.int64) + 4
    subject = np.repeat(np.arange(subject_count), counts)
    inbound_noise = 1 + jitter[subject] * rng.uniform(-1, 1, len(subject))
    inbound_noise = np.where(
        jitter[subject] > 0.95, rng.exponential(1.0, len(subject)), inbound_noise
    )
    gaps = np.maximum(period[subject] * inbound_noise, 1e-5)
    firsts = np.cumsum(counts) - counts
    gaps[firsts] *= rng.random(subject_count)
    total = np.cumsum(gaps)
    times = total - np.repeat(total[firsts] - gaps[firsts], counts) + begin[subject]
    keep = times < end[subject]
    return subject[keep], times[keep]


def burst_times(rng: Generator, times: F64, sizes: I64, spread: float) -> tuple[I64, F64]:
    """Every time becomes `sizes` times within about `spread` seconds: (number of the burst,
    times).
    """
    subject = np.repeat(np.arange(len(times)), sizes)
    return subject, times[subject] + rng.exponential(spread, len(subject))
