"""Which behaviour of which host a flow over the threshold is: the key of its alert group.

The subject is the local host; where both or neither are local, the originator; for a flood always
the victim. What external originators do to every host that the internet can reach is inbound
noise, whatever class the models give it. A bundle's detectors say by themselves whose behaviour
they found.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.alerts.group_rule import QUIET_GAP_US
from ids_plugin.alerts.totals import Flows
from ids_plugin.schema.alert import ACTOR, TARGET
from ids_plugin.schema.score import CLASSES, Scores

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BENIGN, _FLOOD, _NOISE = (CLASSES.index(name) for name in ("benign", "flood", "inbound_noise"))
_NOISE_CLASSES = [
    CLASSES.index(name) for name in ("scan", "brute_force", "spreading", "inbound_noise")
]
"""classes that are noise when an external originator does them"""
_PACKET_COLUMNS = ("orig_ip_bytes", "resp_ip_bytes", "orig_pkts", "resp_pkts")
_COLUMNS = [
    "source",
    "open",
    "replaces",
    "ts",
    "known",
    "clock",
    "uid",
    "orig_h",
    "resp_h",
    "resp_p",
    "proto",
    "local_orig",
    "local_resp",
    "orig_bytes",
    "resp_bytes",
    *_PACKET_COLUMNS,
]


class GroupKey(NamedTuple):
    """What makes two flows of one sensor the same behaviour of the same host."""

    subject: str
    role: str
    kind: str
    """class"""


class FlaggedFlows(NamedTuple):
    """The n flows of a batch that are over the threshold, as columns, in the order in which they
    were known. A position is an index into these columns, a row one of the whole batch."""

    rows: Ints
    """of the whole batch"""
    clock: Ints
    """µs since the epoch"""
    score: npt.NDArray[np.float64]
    source: list[str]
    orig_h: list[str]
    resp_h: list[str]
    is_target: Bools
    """the subject is the responder, and the role `target`"""
    label: Ints
    """index of the class, after policy"""
    flows: Flows
    quiet_us: Ints
    """µs that a group stays open after the flow"""
    doubt: Ints
    """steps by which the severity stays below that of the class"""

    def key(self, position: int) -> GroupKey:
        """Key of the group that a flow belongs to."""
        is_target = bool(self.is_target[position])
        subject = self.resp_h[position] if is_target else self.orig_h[position]
        return GroupKey(subject, TARGET if is_target else ACTOR, CLASSES[self.label[position]])

    def key_numbers(self, positions: Ints | None = None) -> tuple[list[GroupKey], Ints]:
        """The keys in the order of their first flow, and (m) the index of each flow's key in them.

        Args:
            positions: (m) the flows asked for, ascending; all where None.
        """
        if positions is None:
            positions = np.arange(len(self.rows))
        is_target, label = self.is_target.tolist(), self.label.tolist()
        first_positions: list[int] = []
        number_of: dict[tuple[str, bool, int], int] = {}
        numbers = []
        for position in positions.tolist():
            targeted = is_target[position]
            subject = self.resp_h[position] if targeted else self.orig_h[position]
            number = number_of.setdefault((subject, targeted, label[position]), len(number_of))
            if number == len(first_positions):
                first_positions.append(position)
            numbers.append(number)
        return [self.key(position) for position in first_positions], np.array(numbers, np.int64)


def flag(flows: pl.DataFrame, scores: Scores, over: Ints) -> FlaggedFlows:
    """The flows of rows `over` with the class and the subject that policy gives them.

    Args:
        flows: (n) Flow frame in the order in which flows were known, with `known`, `clock` and
            `replaces`.
        scores: (n) of these flows.
        over: rows over the threshold, ascending.
    """
    chosen = flows[over, _COLUMNS]
    if scores.is_target is None:
        is_external = has_external_originator(chosen)
        label = _policy_labels(scores.label[over], scores.probability[over], is_external)
        is_target = is_external | (label == _FLOOD)
    else:
        label, is_target = scores.label[over], scores.is_target[over]
    quiet_us = np.full(len(over), QUIET_GAP_US, np.int64)
    if scores.quiet_us is not None:
        quiet_us = np.maximum(quiet_us, scores.quiet_us[over])
    orig_h, resp_h = chosen["orig_h"].to_list(), chosen["resp_h"].to_list()
    peers = _sides(orig_h, resp_h, ~is_target)
    return FlaggedFlows(
        rows=over,
        clock=micros(chosen, "clock"),
        score=scores.score[over],
        source=[source or "" for source in chosen["source"].to_list()],
        orig_h=orig_h,
        resp_h=resp_h,
        is_target=is_target,
        label=label,
        flows=_totals_columns(chosen, peers),
        quiet_us=quiet_us,
        doubt=np.zeros(len(over), np.int64) if scores.doubt is None else scores.doubt[over],
    )


def labelled_keys(flows: pl.DataFrame, label: Ints) -> tuple[list[str], Ints]:
    """(n) subjects and (n) classes of flows whose class is known, as `flag` gives them to flows.

    Args:
        flows: (n) Flow frame with local flags filled.
        label: (n) index of the class that each flow really is.
    """
    is_external = has_external_originator(flows)
    kind = _noise_labels(label, is_external)
    is_target = is_external | (kind == _FLOOD)
    return _sides(flows["orig_h"].to_list(), flows["resp_h"].to_list(), is_target), kind


def has_external_originator(flows: pl.DataFrame) -> Bools:
    """(n) flows from outside to a local host."""
    return ~_is_true(flows["local_orig"]) & _is_true(flows["local_resp"])


def micros(frame: pl.DataFrame, name: str) -> Ints:
    """(n) a time column in µs since the epoch."""
    return frame[name].to_numpy().astype("datetime64[us]").astype(np.int64)


def _policy_labels(label: Ints, probability: npt.NDArray[np.float64], is_external: Bools) -> Ints:
    """(n) classes after policy: external originators make noise, and nobody else does; an insider
    whom the models call noise gets the next likeliest class."""
    other_classes = probability.copy()
    other_classes[:, [_BENIGN, _NOISE]] = -1.0
    insiders = np.where(label == _NOISE, other_classes.argmax(axis=1), label)
    return np.where(is_external, _noise_labels(label, is_external), insiders).astype(np.int64)


def _noise_labels(label: Ints, is_external: Bools) -> Ints:
    """(n) classes, with inbound noise for what external originators do to every host."""
    is_noise = is_external & np.isin(label, _NOISE_CLASSES)
    return np.where(is_noise, _NOISE, label).astype(np.int64)


def _sides(orig_h: list[str], resp_h: list[str], is_responder: Bools) -> list[str]:
    """(n) the responder's address where `is_responder`, else the originator's."""
    return [
        resp if responder else orig
        for orig, resp, responder in zip(orig_h, resp_h, is_responder.tolist(), strict=True)
    ]


def _totals_columns(chosen: pl.DataFrame, peers: list[str]) -> Flows:
    """The columns that the totals of a group add up."""
    orig_ip, resp_ip, orig_pkts, resp_pkts = (chosen[name] for name in _PACKET_COLUMNS)
    sums = [chosen["orig_bytes"], chosen["resp_bytes"], orig_ip + resp_ip, orig_pkts + resp_pkts]
    numbers, known = zip(*map(_values_and_known, sums), strict=True)
    ports = [
        None if proto == "icmp" else port
        for port, proto in zip(chosen["resp_p"].to_list(), chosen["proto"].to_list(), strict=True)
    ]
    return Flows(
        ts=micros(chosen, "ts"),
        known=micros(chosen, "known"),
        uid=chosen["uid"].to_list(),
        peer=peers,
        port=ports,
        sums=np.column_stack(numbers),
        has=np.column_stack(known),
        open=_is_true(chosen["open"]),
        replaces=_is_true(chosen["replaces"]),
    )


def _values_and_known(column: pl.Series) -> tuple[Ints, Bools]:
    """(n) values, 0 where unknown; (n) where they are known.

    Without Polars' engine, which takes 0.2 ms to start.
    """
    if column.null_count() == 0:
        return column.to_numpy(), np.ones(len(column), np.bool_)
    values = column.to_list()
    return np.array([value or 0 for value in values], np.int64), np.array(
        [value is not None for value in values]
    )


def _is_true(column: pl.Series) -> Bools:
    """(n) where a nullable column is true."""
    return np.array([value is True for value in column.to_list()], np.bool_)
