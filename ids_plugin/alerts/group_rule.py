"""The rule that divides the flows of one key into alert groups, by the sensor's clock alone.

A group opens with the first flow of its key. It closes when the clock reaches QUIET_GAP_US after
its latest flow (later where the flow was judged by a longer look back: `quiet_us`), and at the
latest MAX_GROUP_SPAN_US after its first one; the next flow of the key then opens another group.
Everything that groups flows, counts alerts or fits thresholds to a number of alerts uses this
module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

QUIET_GAP_US = 30 * 60 * 1_000_000
"""µs of the sensor's clock without a flow after which a group closes"""
MAX_GROUP_SPAN_US = 24 * 3600 * 1_000_000
"""µs of the sensor's clock after which a group closes in any case"""


class GroupTimes(NamedTuple):
    """Clock times of an open group, in µs since the epoch."""

    opened: int
    """at its first flow"""
    latest: int
    """at its latest flow"""
    quiet_us: int = QUIET_GAP_US
    """how long it waits for another flow, as its latest flow says"""

    @property
    def deadline(self) -> int:
        """Clock at which the group closes unless a flow comes before."""
        return min(self.latest + self.quiet_us, self.opened + MAX_GROUP_SPAN_US)

    @property
    def closed_by(self) -> str:
        """Why the group closes at its deadline: `quiet` or `day`."""
        is_quiet = self.latest + self.quiet_us <= self.opened + MAX_GROUP_SPAN_US
        return "quiet" if is_quiet else "day"


def opening_flows(
    key: Ints,
    clock: Ints,
    open_groups: Mapping[int, GroupTimes] | None = None,
    quiet_us: Ints | None = None,
) -> Bools:
    """(n) which flows open a group; all others join the group of the flow before them.

    Args:
        key: (n) number of each flow's key, ascending.
        clock: (n) µs since the epoch, ascending within a key.
        open_groups: key number → the group that earlier flows of the key left open.
        quiet_us: (n) µs that a group waits after each flow; QUIET_GAP_US where None.
    """
    is_opening = np.ones(len(key), np.bool_)
    if not len(key):
        return is_opening
    gap = QUIET_GAP_US if quiet_us is None else quiet_us[:-1]
    is_opening[1:] = (np.diff(key) != 0) | (np.diff(clock) >= gap)
    run_starts = np.flatnonzero(is_opening)
    opened = clock[run_starts]
    for number, times in (open_groups or {}).items():
        first = int(np.searchsorted(key, number))
        if first < len(key) and key[first] == number and clock[first] < times.deadline:
            is_opening[first] = False
            opened[np.searchsorted(run_starts, first)] = times.opened
    run_stops = np.append(run_starts[1:], len(key))
    is_long = clock[run_stops - 1] - opened >= MAX_GROUP_SPAN_US
    for run in np.flatnonzero(is_long).tolist():
        start, stop = int(run_starts[run]), int(run_stops[run])
        _divide_long_run(is_opening, clock, start, stop, int(opened[run]))
    return is_opening


def _divide_long_run(is_opening: Bools, clock: Ints, start: int, stop: int, opened: int) -> None:
    """Marks the flows of a run without quiet gaps that open a group because the last one closed."""
    while True:
        start += int(np.searchsorted(clock[start:stop], opened + MAX_GROUP_SPAN_US))
        if start >= stop:
            return
        is_opening[start] = True
        opened = int(clock[start])
