"""Profiles of contacts written for reading: one contact, one flow, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np

from ids_plugin.windows.contacts import (
    FEATURE_NAMES,
    FORGET_AFTER_US,
    GAP_UNIT_S,
    LOG_STEP,
    SIZE_UNIT_B,
    WEB_PORTS,
    WINDOW_FLOWS,
    ContactFlows,
    is_due,
)

Contact = tuple[int, int, int, int]


class Profile(NamedTuple):
    """What the reference says of one flow that is due."""

    row: int
    flows: int
    features: dict[str, float]
    peer_hosts: int


def profiles(flows: ContactFlows) -> list[Profile]:
    """Profiles of all flows that are due, in order; some of the features."""
    contacts = _contacts(flows)
    made = []
    for row, contact in enumerate(contacts):
        own = _since_the_pause(flows, [r for r in range(row + 1) if contacts[r] == contact])
        if not is_due(np.array([len(own)]))[0]:
            continue
        known = set(contacts[: row + 1])
        host, peer, port, proto = contact
        features = _features(flows, own)
        others = [c for c in known if c[0] == host and c[2:] == (port, proto)]
        is_web = port in WEB_PORTS
        features["port_peers"] = math.nan if is_web else math.log1p(len(others))
        made.append(
            Profile(
                row, len(own), features, len({c[0] for c in known if c[1:] == (peer, port, proto)})
            )
        )
    return made


def _contacts(flows: ContactFlows) -> list[Contact]:
    columns = (flows.host, flows.peer, flows.port, flows.proto)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _since_the_pause(flows: ContactFlows, rows: list[int]) -> list[int]:
    start = 0
    for index in range(1, len(rows)):
        if flows.clock_us[rows[index]] - flows.clock_us[rows[index - 1]] > FORGET_AFTER_US:
            start = index
    return rows[start:]


def _features(flows: ContactFlows, rows: list[int]) -> dict[str, float]:
    start = flows.start_us[rows].tolist()
    count, span = len(rows), max(start[-1] - start[0], 0) / 1e6
    gaps = [abs(later - earlier) / 1e6 for earlier, later in pairwise(start)]
    window = rows[-WINDOW_FLOWS:]
    window_gaps = gaps[-WINDOW_FLOWS:] if count > WINDOW_FLOWS else gaps
    sent = [value for value in flows.up[window].tolist() if not math.isnan(value)]
    no_reply = (flows.outcome & 1 > 0)[rows]
    features = {
        "flows": math.log1p(count),
        "span": math.log1p(span),
        "rate": math.log1p((count - 1) / max(span, 1.0) * 3600),
        "no_reply_ever": float(no_reply.mean()),
        "no_reply": float(no_reply[-WINDOW_FLOWS:].mean()),
        "gap_median": _median(window_gaps, GAP_UNIT_S),
        "up_median": _median(sent, SIZE_UNIT_B),
        "external": float(flows.is_external[rows[-1]]),
    }
    assert features.keys() <= set(FEATURE_NAMES)
    return features


def _median(values: Sequence[float], unit: float) -> float:
    """Median of quantised logarithms."""
    if not values:
        return math.nan
    return median(math.floor(math.log1p(value / unit) / LOG_STEP + 0.5) for value in values) * (
        LOG_STEP
    )
