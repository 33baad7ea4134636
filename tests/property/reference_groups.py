"""Folds written for reading: one flow after the other, every rule a line. What the vectorised ones
must equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from ids_plugin.schema.score import CLASSES, Scores

Fact = tuple[Any, ...]


@dataclass
class Open:
    """A fold in the making."""

    opener: str
    opened: datetime
    latest: datetime
    score: float
    strongest: str
    flows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """uid → the record that holds; records without a successor get a name of their own"""


def facts(flows: pl.DataFrame, scores: Scores) -> list[Fact]:
    """What documents must say, in order: state, subject, role, class, flow shown, count, peers,
    bytes."""
    return list(_walk(flows, scores))


def _walk(flows: pl.DataFrame, scores: Scores) -> Iterator[Fact]:
    folds: dict[tuple[str, str, str], Open] = {}
    for row, flow in enumerate(flows.iter_rows(named=True)):
        due = [item for item in folds.items() if flow["clock"] >= _deadline(item[1])]
        for key, fold in sorted(due, key=lambda item: item[1].opened):
            yield _closed(key, fold)
            del folds[key]
        if not scores.over[row]:
            continue
        key = _key(flow, CLASSES[scores.label[row]])
        score = float(scores.score[row])
        if key not in folds:
            folds[key] = Open(flow["uid"], flow["clock"], flow["clock"], score, flow["uid"])
            yield ("open", *key, flow["uid"], 1, 1, flow["orig_bytes"])
        fold = folds[key]
        fold.latest = flow["clock"]
        if score > fold.score:
            fold.score, fold.strongest = score, flow["uid"]
        earlier = fold.flows.get(flow["uid"])
        if earlier is not None and not (flow["replaces"] and earlier["open"]):
            fold.flows[f"{flow['uid']} before row {row}"] = earlier
        fold.flows[flow["uid"]] = flow
    for key, fold in sorted(folds.items(), key=lambda item: item[1].opened):
        yield _closed(key, fold)


def _deadline(fold: Open) -> datetime:
    return min(fold.latest + timedelta(minutes=30), fold.opened + timedelta(hours=24))


def _key(flow: dict[str, Any], label: str) -> tuple[str, str, str]:
    stranger = flow["local_resp"] and not flow["local_orig"]
    if stranger and label in ("scan", "brute_force", "spreading", "inbound_noise"):
        return flow["resp_h"], "target", "inbound_noise"
    if label == "flood" or stranger:
        return flow["resp_h"], "target", label
    return flow["orig_h"], "actor", label


def _closed(key: tuple[str, str, str], fold: Open) -> Fact:
    side = "orig_h" if key[1] == "target" else "resp_h"
    peers = {flow[side] for flow in fold.flows.values()}
    known = [flow["orig_bytes"] for flow in fold.flows.values() if flow["orig_bytes"] is not None]
    return (
        "closed",
        *key,
        fold.strongest,
        len(fold.flows),
        len(peers),
        sum(known) if known else None,
    )
