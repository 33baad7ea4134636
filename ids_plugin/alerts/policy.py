"""Which behaviour of which host a flow over the threshold is: the key under which it folds.

The subject is the local host; where both or neither are local, the originator; for a flood the victim. What strangers
do to every host that the internet can reach is noise, whatever the models call it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.alerts.totals import Flows
from ids_plugin.schema.alert import ACTOR, TARGET
from ids_plugin.schema.score import CLASSES, Scores

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BENIGN, _FLOOD, _NOISE = (CLASSES.index(name) for name in ("benign", "flood", "inbound_noise"))
_NOISY = [CLASSES.index(name) for name in ("scan", "brute_force", "spreading", "inbound_noise")]
_HALVES = ("orig_ip_bytes", "resp_ip_bytes", "orig_pkts", "resp_pkts")
_NEEDED = ["source", "open", "replaces", "ts", "known", "clock", "uid", "orig_h", "resp_h", "resp_p", "proto",
           "local_orig", "local_resp", "orig_bytes", "resp_bytes", *_HALVES]  # fmt: skip


class Key(NamedTuple):
    """What makes two flows of one sensor the same behaviour of the same host."""

    subject: str
    role: str
    kind: str
    """class"""


class Judged(NamedTuple):
    """The flows of a batch that are over the threshold, as columns, in the order in which they were known."""

    rows: Ints
    """of the whole batch"""
    clock: Ints
    """µs since the epoch"""
    score: npt.NDArray[np.float64]
    source: list[str]
    orig_h: list[str]
    resp_h: list[str]
    target: Bools
    """the subject is the responder, and acted upon"""
    label: Ints
    """index of the class, after policy"""
    flows: Flows

    def keys(self, chosen: Ints) -> dict[Key, Ints]:
        """Fold keys of the chosen flows in the order of their first one → their places, ascending."""
        places: dict[tuple[str, bool, int], list[int]] = {}
        target, label = self.target.tolist(), self.label.tolist()
        for at in chosen.tolist():
            subject = self.resp_h[at] if target[at] else self.orig_h[at]
            places.setdefault((subject, target[at], label[at]), []).append(at)
        return {
            Key(subject, TARGET if acted_upon else ACTOR, CLASSES[number]): np.array(
                found, np.int64
            )
            for (subject, acted_upon, number), found in places.items()
        }


def judge(flows: pl.DataFrame, scores: Scores, over: Ints) -> Judged:
    """The flows of rows `over` (ascending) with the class and the subject that policy gives them."""
    chosen = flows[over, _NEEDED]
    stranger = ~_true(chosen["local_orig"]) & _true(chosen["local_resp"])
    label = _labels(scores.label[over], scores.probability[over], stranger)
    target = stranger | (label == _FLOOD)
    orig_h, resp_h = chosen["orig_h"].to_list(), chosen["resp_h"].to_list()
    return Judged(
        rows=over,
        clock=micros(chosen, "clock"),
        score=scores.score[over],
        source=[source or "" for source in chosen["source"].to_list()],
        orig_h=orig_h,
        resp_h=resp_h,
        target=target,
        label=label,
        flows=_columns(
            chosen, [o if t else r for o, r, t in zip(orig_h, resp_h, target.tolist(), strict=True)]
        ),
    )


def micros(frame: pl.DataFrame, name: str) -> Ints:
    """A time column in µs since the epoch."""
    return frame[name].to_numpy().astype("datetime64[us]").astype(np.int64)


def _labels(label: Ints, probability: npt.NDArray[np.float64], stranger: Bools) -> Ints:
    """Classes by policy: strangers make noise, and nobody else does (the next likeliest class is taken)."""
    rest = probability.copy()
    rest[:, [_BENIGN, _NOISE]] = -1.0
    of_insiders = np.where(label == _NOISE, rest.argmax(axis=1), label)
    return np.where(stranger, np.where(np.isin(label, _NOISY), _NOISE, label), of_insiders).astype(
        np.int64
    )


def _columns(chosen: pl.DataFrame, peer: list[str]) -> Flows:
    orig_ip, resp_ip, orig_pkts, resp_pkts = (chosen[name] for name in _HALVES)
    sums = [chosen["orig_bytes"], chosen["resp_bytes"], orig_ip + resp_ip, orig_pkts + resp_pkts]
    numbers, known = zip(*map(_numbers, sums), strict=True)
    icmp = (proto == "icmp" for proto in chosen["proto"].to_list())
    return Flows(
        ts=micros(chosen, "ts"),
        known=micros(chosen, "known"),
        uid=chosen["uid"].to_list(),
        peer=peer,
        port=[
            None if no_port else port
            for port, no_port in zip(chosen["resp_p"].to_list(), icmp, strict=True)
        ],
        sums=np.column_stack(numbers),
        has=np.column_stack(known),
        open=_true(chosen["open"]),
        replaces=_true(chosen["replaces"]),
    )


def _numbers(column: pl.Series) -> tuple[Ints, Bools]:
    """(n) values, 0 where unknown; (n) where they are known. Without Polars' engine, which takes 0.2 ms to start."""
    if column.null_count() == 0:
        return column.to_numpy(), np.ones(len(column), np.bool_)
    values = column.to_list()
    return np.array([value or 0 for value in values], np.int64), np.array(
        [value is not None for value in values]
    )


def _true(column: pl.Series) -> Bools:
    """(n) where a nullable column says yes."""
    return np.array([value is True for value in column.to_list()], np.bool_)
