"""When the flows of a window came and how alike they are: repetition and rhythm, robustly.

Median absolute deviation and coefficient of variation of the intervals between the starts of
consecutive flows. Regularity alone is no sign of a controller, so sizes that repeat, failures and
the span of the contact stand beside it.
"""

from __future__ import annotations

import numpy as np

from ids_plugin.schema.window import Feature, Floats
from ids_plugin.windows import Sequences, Summary

FEATURES = (
    Feature("window_flows", "flows", "earlier flows of the pair in the window"),
    Feature("interval_median", "log s", "median interval between the pair's flows"),
    Feature("interval_cv", "ratio", "variation of the intervals"),
    Feature("interval_mad", "ratio", "median deviation of the intervals from their median"),
    Feature("window_span", "log s", "time from the first to the last flow of the window"),
    Feature("same_size", "0-1", "share of earlier flows that sent as much as this one"),
    Feature("window_failed", "0-1", "share of failed flows in the window"),
    Feature("window_upload", "log B", "mean volume that the originators sent in the window"),
    Feature("size_spread", "log B", "spread of the volumes sent in the window"),
)


def _mean(values: Floats, count: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            np.where(count > 0, np.nansum(values, axis=1) / count, np.nan), np.float32
        )


def _median(values: Floats, count: Floats) -> Floats:
    """Median of each row, NaN ignored: the mean of the two middle values of the sorted row."""
    ordered = np.sort(values, axis=1)
    last = np.maximum(count.astype(np.int64) - 1, 0)
    row = np.arange(len(values))
    middle = (ordered[row, last // 2] + ordered[row, (last + 1) // 2]) / 2
    return np.asarray(np.where(count > 0, middle, np.nan), np.float32)


def _compute(sequences: Sequences) -> list[Floats]:
    start = sequences.start
    intervals = np.abs(np.diff(start, axis=1))
    count = np.sum(~np.isnan(intervals), axis=1).astype(np.float32)
    median = _median(intervals, count)
    mean = _mean(intervals, count)
    scale = np.maximum(mean, 1e-3)
    deviation = np.sqrt(_mean((intervals - mean[:, None]) ** 2, count))
    spread = _median(np.abs(intervals - median[:, None]), count)
    sent = sequences.features["orig_volume"]
    flows = np.sum(~np.isnan(start), axis=1).astype(np.float32)
    known = np.sum(~np.isnan(sent), axis=1).astype(np.float32)
    level = _mean(sent, known)
    apart = np.abs(sent[:, 1:] - sent[:, :1])
    alike = np.where(np.isnan(apart), np.nan, apart < 0.02).astype(np.float32)
    several = count > 1
    return [
        count,
        np.log1p(median),
        np.where(several, deviation / scale, np.nan).astype(np.float32),
        np.where(several, spread / np.maximum(median, 1e-3), np.nan).astype(np.float32),
        np.log1p(np.nansum(intervals, axis=1)).astype(np.float32),
        _mean(alike, np.sum(~np.isnan(apart), axis=1).astype(np.float32)),
        _mean(sequences.features["failed"], flows),
        level,
        np.sqrt(_mean((sent - level[:, None]) ** 2, known)),
    ]


PLUGIN = Summary(FEATURES, _compute)
