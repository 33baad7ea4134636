"""Which alert groups flows make, without documents or evidence: what evaluation counts.

The keys and the rule are those of AlertGrouper. Many sets of flows, as many thresholds choose
them, are grouped quickly: flows are sorted by their key once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ids_plugin.alerts.group_rule import Bools, Ints, opening_flows
from ids_plugin.alerts.policy import FlaggedFlows, GroupKey
from ids_plugin.alerts.totals import Totals


class CountedGroup(NamedTuple):
    """One alert group."""

    key: GroupKey
    members: Ints
    """positions in FlaggedFlows, ascending; the first one opened the group"""
    flows: int
    """as the closing document counts them: a growing connection once"""


@dataclass(frozen=True)
class FlowsByKey:
    """n flagged flows of one sensor, sorted by key and then in the order they were known."""

    keys: list[GroupKey]
    position: Ints
    """(n) in FlaggedFlows"""
    key: Ints
    """(n) index in `keys`, ascending"""
    clock: Ints
    """(n) µs since the epoch, ascending within a key"""
    quiet_us: Ints
    """(n) µs that a group stays open after each flow"""

    def group_numbers(self, chosen: Bools | None = None) -> Ints:
        """(m) number of the group of each chosen flow, from 0, ascending.

        Args:
            chosen: (n) the flows that are over the threshold; all where None.
        """
        if chosen is None:
            return np.cumsum(opening_flows(self.key, self.clock, None, self.quiet_us)) - 1
        opening = opening_flows(self.key[chosen], self.clock[chosen], None, self.quiet_us[chosen])
        return np.cumsum(opening) - 1

    def count_without(self, wanted: Bools, chosen: Bools | None = None) -> int:
        """How many groups of the chosen flows hold no wanted flow.

        Args:
            wanted: (n) by position in FlaggedFlows.
            chosen: (n) as for `group_numbers`.
        """
        group = self.group_numbers(chosen)
        if not len(group):
            return 0
        position = self.position if chosen is None else self.position[chosen]
        return int(np.sum(np.bincount(group, weights=wanted[position]) == 0))


def by_key(flagged: FlaggedFlows) -> FlowsByKey:
    """The flagged flows of one sensor sorted by their key."""
    keys, number = flagged.key_numbers()
    position = np.argsort(number, kind="stable")
    return FlowsByKey(
        keys, position, number[position], flagged.clock[position], flagged.quiet_us[position]
    )


def groups(flagged: FlaggedFlows) -> list[CountedGroup]:
    """The alert groups of one sensor's flagged flows, in the order they open."""
    flows = by_key(flagged)
    starts = np.flatnonzero(np.diff(flows.group_numbers(), prepend=-1))
    stops = [*starts[1:].tolist(), len(flows.position)]
    counted = []
    for start, stop in zip(starts.tolist(), stops, strict=False):
        members = flows.position[start:stop]
        totals = Totals()
        totals.add(flagged.flows, members)
        counted.append(CountedGroup(flows.keys[flows.key[start]], members, totals.count))
    return sorted(counted, key=lambda group: int(group.members[0]))
