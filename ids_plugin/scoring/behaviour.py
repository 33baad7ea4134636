"""Named behaviours: transparent scores that a person can check against the flows.

A behaviour is as strong as its strongest pattern, a pattern as weak as its weakest term (minimum
and maximum as fuzzy and/or, Zadeh 1965), and a term rises from 0 at `low` to 1 at `high`, falls
where `high` is the smaller one. Bounds are counts, bytes, seconds as they are; features on a log
scale are compared on that scale."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ids_plugin.bundle import Bundle, MemberEntry
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Bools, Floats
from ids_plugin.scoring import Doubles


class Term(NamedTuple):
    """One condition on one feature of `Windows.table`."""

    feature: str
    low: float
    high: float


class Behaviour(NamedTuple):
    """One named behaviour, the class it speaks for, and the patterns that show it."""

    name: str
    label: str
    patterns: tuple[tuple[Term, ...], ...]


_INSIDE = Term("orig_local", 0, 1)
_STRANGER = Term("orig_local", 1, 0)
_OUTBOUND = Term("outbound", 0, 1)
_FAILED = Term("failed", 0, 1)
_LOGIN = Term("login_service", 0, 1)
_NO_LOGIN = Term("login_service", 1, 0)
_PLUMBING = Term("infrastructure", 0, 1)
_NOT_PLUMBING = Term("infrastructure", 1, 0)
_ONE_HOST = Term("to_group", 1, 0)
_ONE_WAY = Term("upload_share", 0.8, 0.95)

BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour(
        "scan",
        "scan",
        (
            (_INSIDE, _FAILED, _ONE_HOST, _NO_LOGIN, Term("orig_acts_failed_peers_600s", 8, 40)),
            (_INSIDE, _FAILED, _ONE_HOST, Term("orig_acts_failed_services_600s", 20, 100)),
            (_FAILED, _ONE_HOST, Term("pair_failed_ports_600s", 8, 40)),
        ),
    ),
    Behaviour(
        "brute_force",
        "brute_force",
        (
            (
                _LOGIN,
                Term("failed", 1, 0),
                Term("pair_logins_600s", 8, 30),
                Term("pair_flows_60s", 2, 8),
            ),
            (
                _LOGIN,
                Term("failed", 1, 0),
                Term("orig_acts_logins_600s", 20, 60),
                Term("orig_acts_flows_60s", 4, 16),
            ),
        ),
    ),
    Behaviour(
        "flood",
        "flood",
        (
            (
                _ONE_HOST,
                _FAILED,
                Term("resp_acted_upon_failed_10s", 150, 800),
                Term("pair_failed_ports_600s", 200, 20),
            ),
            (
                _ONE_HOST,
                _ONE_WAY,
                Term("resp_acted_upon_packets_10s", 5_000, 30_000),
                Term("packet_rate", 200, 2_000),
            ),
            (_ONE_HOST, _FAILED, Term("orig_packets", 500, 5_000), Term("packet_rate", 200, 2_000)),
        ),
    ),
    Behaviour(
        "retrying",
        "command_and_control",
        (
            (
                _OUTBOUND,
                _FAILED,
                _NOT_PLUMBING,
                Term("pair_failed_3600s", 4, 20),
                Term("pair_failed_ports_600s", 6, 2),
            ),
        ),
    ),
    Behaviour(
        "persistence",
        "command_and_control",
        (
            (
                _OUTBOUND,
                Term("completed", 0, 1),
                _NOT_PLUMBING,
                Term("window_flows", 4, 10),
                Term("window_span", 300, 1_800),
                Term("same_size", 0.4, 0.9),
                Term("size_spread", 0.6, 0.1),
            ),
        ),
    ),
    Behaviour(
        "spreading",
        "spreading",
        (
            (_INSIDE, _LOGIN, Term("orig_acts_failed_peers_600s", 8, 40)),
            (_INSIDE, _LOGIN, Term("orig_acts_peers_600s", 12, 60)),
        ),
    ),
    Behaviour(
        "exfiltration",
        "exfiltration",
        (
            (
                _OUTBOUND,
                _ONE_WAY,
                _NOT_PLUMBING,
                Term("orig_acts_upload_3600s", 5e6, 1e8),
                Term("pair_sent_3600s", 5e6, 1e8),
            ),
            (
                _PLUMBING,
                _ONE_HOST,
                Term("pair_sent_600s", 1e5, 1e6),
                Term("orig_bytes_per_packet", 90, 160),
            ),
        ),
    ),
    Behaviour(
        "exposure",
        "inbound_noise",
        (
            (
                _STRANGER,
                Term("resp_local", 0, 1),
                Term("orig_packets", 40, 5),
                Term("pair_flows_600s", 60, 6),
            ),
        ),
    ),
)
"""All that decides; the names are what evidence says, the classes what an alert is called."""

_STRONGEST = 0.98
"""A behaviour never says more than 49 : 1, so that it can be outvoted."""


class BehaviourMember:
    """The behaviours over `Windows.table`."""

    def __init__(self, columns: dict[str, tuple[int, str]]) -> None:
        self._patterns = {
            behaviour.name: [
                [_bind(term, columns) for term in pattern] for pattern in behaviour.patterns
            ]
            for behaviour in BEHAVIOURS
        }

    def behaviours(self, table: Floats) -> dict[str, Doubles]:
        """Name → (m) how strongly each row shows it, 0–1; what can't be known shows nothing."""
        return {
            name: np.max(
                [np.min([term.of(table) for term in pattern], axis=0) for pattern in patterns],
                axis=0,
            )
            for name, patterns in self._patterns.items()
        }

    def probabilities(self, steps: Floats, mask: Bools, table: Floats) -> Doubles:
        """As scoring.Member: odds of each class against benign are those of its strongest
        behaviour."""
        odds = np.zeros((len(table), len(CLASSES)))
        odds[:, 0] = 1.0
        shown = self.behaviours(table)
        for behaviour in BEHAVIOURS:
            strength = np.minimum(shown[behaviour.name], _STRONGEST)
            label = CLASSES.index(behaviour.label)
            odds[:, label] = np.maximum(odds[:, label], strength / (1.0 - strength))
        total = odds[:, 0].copy()
        for label in range(1, len(CLASSES)):
            total += odds[:, label]
        return odds / total[:, None]


class _Bound(NamedTuple):
    column: int
    low: float
    high: float

    def of(self, table: Floats) -> Doubles:
        value = (table[:, self.column].astype(np.float64) - self.low) / (self.high - self.low)
        return np.asarray(np.fmin(np.fmax(value, 0.0), 1.0))


def _bind(term: Term, columns: dict[str, tuple[int, str]]) -> _Bound:
    column, unit = columns[term.feature]
    logarithmic = unit.startswith("log ")
    low, high = (
        float(np.log1p(bound)) if logarithmic else bound for bound in (term.low, term.high)
    )
    return _Bound(column, low, high)


class Behaviours:
    """Member kind `behaviour`: entry {name}; its parameters are this file's."""

    name = "behaviour"

    def open(self, bundle: Bundle, entry: MemberEntry) -> BehaviourMember:
        """As scoring.Plugin."""
        schema = bundle.manifest.schema
        table = [*schema.flow, *schema.context, *schema.summary]
        columns = {name: (index, unit) for index, (name, unit) in enumerate(table)}
        absent = {
            term.feature for b in BEHAVIOURS for pattern in b.patterns for term in pattern
        } - columns.keys()
        if absent:
            raise BundleError(
                f"no column {min(absent)} for the behaviours", location=bundle.location
            )
        return BehaviourMember(columns)


PLUGIN = Behaviours()
