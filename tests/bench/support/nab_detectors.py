"""Detectors for the Numenta Anomaly Benchmark: each sees a value once, in order, and learns from
what it has seen.

All give surprise: minus the decimal logarithm of the chance of the value among those before it; 5
is one in 100,000.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ids_plugin.models.ae_lstm import AeLstm
from tests.bench.support.nab_corpus import Doubles, Series

STEPS, PAST, UNITS, LATENT, EPOCHS, BATCH = 12, 24, 32, 8, 20, 64
"""values that the LSTM reads, values that the autoencoder sees, and sizes: one small network for
150 to 750 rows"""
LEARNT = 0.8
"""share of the probationary rows that the network is trained on; errors on the rest are the first
normal ones"""
CHUNK, UPDATES, RECENT = 64, 4, 16
"""adapting: after so many rows so many batches of rows seen, of each so many out of the last four
chunks"""
SHORT = 3
"""rows whose mean error is compared with all before them"""
CONTEXTS = ((1, 0.5), (8, 0.0), (24, 0.0))
"""values that are compared with earlier ones, and what the time of day weighs beside them"""
SETTLED = 0.3
"""share of the probationary rows after which a distance to earlier values says something"""
ROWS = 512


def scaled(series: Series) -> Doubles:
    """(n) values in standard deviations of the probationary ones from their mean, the far ones by
    their logarithm."""
    known = series.value[: series.probation]
    return np.asarray(np.arcsinh((series.value - known.mean()) / (known.std() or 1.0)))


def time_of_day(series: Series) -> Doubles:
    """(n, 2) sine and cosine."""
    time = series.timestamp.str.to_datetime("%Y-%m-%d %H:%M:%S")
    angle = (time.dt.epoch("s") % 86_400).to_numpy() * (2 * np.pi / 86_400)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def surprise(values: Doubles, short: int, start: int) -> Doubles:
    """(n) of the mean of the last `short` against the normal distribution of all before these since
    `start`."""
    sums, squares = (np.concatenate([[0.0], np.cumsum(one)]) for one in (values, values**2))
    at = np.arange(len(values))
    begin = np.maximum(at - short + 1, 0)
    recent = (sums[at + 1] - sums[begin]) / (at + 1 - begin)
    since = np.minimum(start, begin)
    count = np.maximum(begin - since, 1)
    mean = (sums[begin] - sums[since]) / count
    deviation = np.sqrt(np.maximum((squares[begin] - squares[since]) / count - mean**2, 0))
    far = (recent - mean) / (deviation + 1e-6 * (1 + np.abs(mean)))
    return np.asarray(-torch.special.log_ndtr(torch.from_numpy(-far)).numpy() / np.log(10))


def rested(score: Doubles, threshold: float, rows: int) -> Doubles:
    """(n) the score where it reaches the threshold for the first time in `rows` rows, else 0: an
    anomaly is said once, as alerts are folded."""
    found = np.zeros(len(score))
    free = 0
    for row in np.flatnonzero(score >= threshold).tolist():
        if row >= free:
            found[row] = score[row]
            free = row + rows + 1
    return found


def windowed_gaussian(series: Series, width: int = 6400, step: int = 100) -> Doubles:
    """(n) the benchmark's own simple detector: distance from the mean of all rows before, of the
    last `width` once there are so many, these moved on every `step` rows. To the 12 digits that its
    result files have."""
    values = series.value - series.value[0]
    sums, squares = (np.concatenate([[0.0], np.cumsum(one)]) for one in (values, values**2))
    at = np.arange(1, len(values))
    first = np.where(at <= width, 0, (at - width) // step * step)
    count = np.where(at <= width, at, width)
    mean = (sums[first + count] - sums[first]) / count
    deviation = np.sqrt(np.maximum((squares[first + count] - squares[first]) / count - mean**2, 0))
    deviation[deviation == 0] = 1e-6
    tail = (
        0.5
        * torch.special.erfc(
            torch.from_numpy(np.abs(values[1:] - mean) / deviation / np.sqrt(2))
        ).numpy()
    )
    written = 1 - np.array([float(f"{1 - one:.12g}") for one in tail])
    return np.concatenate([[0.0], -np.log10(np.maximum(written, 1e-13))])


def nearest(series: Series) -> Doubles:
    """(n) surprise at how far the last values are from the nearest earlier ones, mean over
    CONTEXTS."""
    found = [
        surprise(_distance(series, *context), 1, int(SETTLED * series.probation))
        for context in CONTEXTS
    ]
    return np.asarray(np.mean(found, axis=0))


def _distance(series: Series, width: int, daily: float) -> Doubles:
    """(n) Euclidean, from the last `width` values, and the time of day, to the nearest that end
    before these begin."""
    windows = np.lib.stride_tricks.sliding_window_view(scaled(series), width)
    shown = np.concatenate(
        [windows, daily * np.sqrt(width) * time_of_day(series)[width - 1 :]], 1
    ).astype(np.float32)
    squares = (shown * shown).sum(axis=1)
    found = np.zeros(len(series.value))
    for start in range(width, len(shown), ROWS):
        rows = np.arange(start, min(len(shown), start + ROWS))
        earlier = np.arange(rows[-1])
        far = squares[rows][:, None] + squares[None, earlier] - 2 * shown[rows] @ shown[earlier].T
        far[earlier[None] > (rows - width)[:, None]] = np.inf
        found[rows + width - 1] = np.sqrt(np.maximum(far.min(axis=1), 0))
    return found


def of_errors(series: Series, errors: Doubles, share: float) -> Doubles:
    """(n) surprise at A(t) = (1 - share) · reconstruction error + share · prediction error, each
    (2, n) of `errors` in units of its mean on the first normal rows."""
    start = int(LEARNT * series.probation)
    units = np.maximum(errors[:, start : series.probation].mean(axis=1), 1e-6)
    again, ahead = errors / units[:, None]
    return surprise((1 - share) * again + share * ahead, SHORT, start)


def learned(series: Series, seed: int) -> tuple[Doubles, Doubles]:
    """(2, n) reconstruction and prediction errors of a network that was trained on the first rows
    alone, and of the same one as it adapts: it learns from rows after it has judged them. Rows with
    too little before them have 0."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    values = torch.tensor(
        np.concatenate([scaled(series)[:, None], time_of_day(series)], 1), dtype=torch.float32
    )
    network = AeLstm(values.shape[1], PAST, UNITS, LATENT)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    first, held, count = max(STEPS, PAST) - 1, int(LEARNT * series.probation), len(values)
    for _ in range(EPOCHS):
        rows = rng.permutation(np.arange(first, held))
        for batch in np.array_split(rows, max(1, len(rows) // BATCH)):
            _learn(network, optimiser, values, batch)
    still = _errors(network, values, first, count)
    adapting = still.copy()
    for group in optimiser.param_groups:
        group["lr"] = 1e-3
    for start in range(series.probation, count, CHUNK):
        for _ in range(UPDATES):
            recent = rng.integers(max(first, start - 4 * CHUNK), start, RECENT)
            _learn(
                network,
                optimiser,
                values,
                np.concatenate([rng.integers(first, start, BATCH - RECENT), recent]),
            )
        end = min(count, start + CHUNK)
        adapting[:, start:end] = _errors(network, values, start, end)[:, start:]
    return still, adapting


def _windows(values: Tensor, rows: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Steps, mask and table of the rows, as the family takes them: nothing is unknown."""
    at = torch.from_numpy(rows)
    steps = values[at[:, None] + torch.arange(1 - STEPS, 1)]
    past = values[at[:, None] + torch.arange(1 - PAST, 1), 0]
    return steps, torch.ones(len(rows), STEPS, dtype=torch.bool), past


def _learn(
    network: AeLstm, optimiser: torch.optim.Optimizer, values: Tensor, rows: np.ndarray[Any, Any]
) -> None:
    again, ahead = network(*_windows(values, rows))
    optimiser.zero_grad()
    (again + ahead).mean().backward()
    optimiser.step()


def _errors(network: AeLstm, values: Tensor, first: int, end: int) -> Doubles:
    """(2, end) reconstruction and prediction error from row `first` on."""
    found = np.zeros((2, end))
    with torch.no_grad():
        for rows in np.array_split(np.arange(first, end), (end - first) // 4096 + 1):
            found[:, rows] = torch.stack(network(*_windows(values, rows))).numpy()
    return found
