"""The Numenta Anomaly Benchmark: its corpus, its result files and its scoring.

Scoring as in "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark"
(Lavin and Ahmad, 2015) and its version 1.1: a window counts once, by its earliest detection; a
detection outside costs more the further it is past the last window; 0 is a detector that says
nothing, 100 one that finds every window at its first row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One file of the corpus."""

    name: str
    """folder/file.csv"""
    timestamp: pl.Series
    """(n) text as published"""
    value: Doubles
    windows: tuple[tuple[int, int], ...]
    """first and last row of every anomaly window"""

    @property
    def probation(self) -> int:
        """Rows at the start that a detector may learn from and that aren't judged: 15 %, at most
        750."""
        return min(int(0.15 * len(self.value)), 750)

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """(n) 1 in windows."""
        label = np.zeros(len(self.value), dtype=np.int64)
        for first, last in self.windows:
            label[first : last + 1] = 1
        return label


@dataclass(frozen=True)
class Profile:
    """What a window found is worth, and what a false detection and a window missed cost."""

    found: float
    false: float
    missed: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward_low_FP_rate": Profile(1.0, 0.22, 1.0),
    "reward_low_FN_rate": Profile(1.0, 0.11, 2.0),
}


def corpus(folder: Path) -> list[Series]:
    """All series of the benchmark's folder (`data`, `labels`), sorted by name."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
    return [
        _series(folder / "data" / name, name, windows) for name, windows in sorted(labels.items())
    ]


def _series(path: Path, name: str, windows: Sequence[tuple[str, str]]) -> Series:
    table = pl.read_csv(path, schema={"timestamp": pl.String, "value": pl.Float64})
    rows: dict[str, int] = {}
    for row, text in enumerate(table["timestamp"]):
        rows.setdefault(text, row)
    found = tuple((rows[first.split(".")[0]], rows[last.split(".")[0]]) for first, last in windows)
    return Series(name, table["timestamp"], table["value"].to_numpy(), found)


def worth(series: Series, profile: Profile) -> Doubles:
    """(n) what a detection at each row adds: in a window up to `found`, outside down to minus
    `false`."""
    at = np.arange(len(series.value))
    place = np.full(len(at), np.inf)
    for number, (first, last) in enumerate(series.windows):
        end = series.windows[number + 1][0] if number + 1 < len(series.windows) else len(at)
        width = last - first + 1
        place[first : last + 1] = -(last - at[first : last + 1] + 1) / width
        place[last + 1 : end] = (at[last + 1 : end] - last) / (width - 1)
    value = np.where(place > 3.0, -1.0, _sigmoid(np.minimum(place, 3.0)))
    return np.where(
        series.label == 1, value * profile.found / _sigmoid(np.float64(-1.0)), value * profile.false
    )


def _sigmoid(place: npt.NDArray[np.float64] | np.float64) -> Doubles:
    return np.asarray(2 / (1 + np.exp(5 * place)) - 1)


def by_threshold(
    corpus: Sequence[Series], scores: Mapping[str, Doubles], profile: Profile
) -> tuple[Doubles, Doubles]:
    """Thresholds, falling, the first above all scores; and the raw score of the whole corpus at
    each."""
    parts = [_judged(series, scores[series.name], profile) for series in corpus]
    counts = np.cumsum([0, *(len(series.windows) for series in corpus)])
    said = np.concatenate([part[0] for part in parts])
    adds = np.concatenate([part[1] for part in parts])
    window = np.concatenate(
        [
            np.where(part[2] >= 0, part[2] + base, -1)
            for part, base in zip(parts, counts, strict=False)
        ]
    )
    order = np.argsort(-said, kind="stable")
    said, adds, window = said[order], adds[order], window[order]
    best = {int(number): -profile.missed for number in np.unique(window[window >= 0])}
    base = sum(best.values())
    for row in np.flatnonzero(window >= 0):
        number, value = int(window[row]), float(adds[row])
        adds[row] = max(0.0, value - best[number])
        best[number] = max(best[number], value)
    total = base + np.cumsum(adds)
    last = np.append(said[1:] != said[:-1], True)
    return np.append(np.inf, said[last]), np.append(base, total[last])


def _judged(
    series: Series, said: Doubles, profile: Profile
) -> tuple[Doubles, Doubles, npt.NDArray[np.int64]]:
    """Score, worth and window (-1: none) of the rows after probation."""
    window = np.full(len(said), -1)
    for number, (first, last) in enumerate(series.windows):
        window[first : last + 1] = number
    judged = slice(series.probation, None)
    return said[judged], worth(series, profile)[judged], window[judged]


def raw(series: Series, said: Doubles, profile: Profile, threshold: float) -> float:
    """Raw score of one series when a score of `threshold` or more is a detection."""
    score, adds, window = _judged(series, said, profile)
    found = score >= threshold
    total = float(adds[found & (window < 0)].sum())
    for number in np.unique(window[window >= 0]):
        total += float(adds[found & (window == number)].max(initial=-profile.missed))
    return total


def normalised(corpus: Sequence[Series], profile: Profile, score: float) -> float:
    """0: says nothing; 100: finds every window at once and nothing else."""
    windows = sum(len(series.windows) for series in corpus)
    null = -profile.missed * windows
    return 100 * (score - null) / (profile.found * windows - null)


def write(
    corpus: Sequence[Series], scores: Mapping[str, Doubles], detector: str, folder: Path
) -> None:
    """Result files as the benchmark's own scorer reads them:
    results/DETECTOR/FOLDER/DETECTOR_FILE.csv."""
    for series in corpus:
        parent, _, file = series.name.partition("/")
        path = folder / "results" / detector / parent / f"{detector}_{file}"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {
            "timestamp": series.timestamp,
            "value": series.value,
            "anomaly_score": scores[series.name],
            "label": series.label,
        }
        pl.DataFrame(columns).write_csv(path)
