"""Labels: what was done in the lab, when, by whom, to whom; and putting them on flows."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

SLACK = 0.5
"""Seconds by which a flow may begin before or after the labelled range: clocks of tcpdump and of
the lab differ."""


@dataclass(frozen=True)
class Activity:
    """One line of labels.jsonl. Addresses may be networks; None means any."""

    start: float
    end: float
    klass: str
    technique: str
    activity: str
    orig: tuple[str, ...] | None
    resp: tuple[str, ...] | None
    proto: str | None
    ports: tuple[int, ...] | None

    def to_json(self) -> str:
        """The line, with `class` as the name of `klass`."""
        fields = asdict(self)
        return json.dumps(
            {"class" if name == "klass" else name: value for name, value in fields.items()}
        )

    @classmethod
    def from_json(cls, line: str) -> Activity:
        """Reads a line; KeyError or ValueError when it isn't one."""
        raw = json.loads(line)
        return cls(
            start=float(raw["start"]),
            end=float(raw["end"]),
            klass=raw["class"],
            technique=raw["technique"],
            activity=raw["activity"],
            orig=None if raw["orig"] is None else tuple(raw["orig"]),
            resp=None if raw["resp"] is None else tuple(raw["resp"]),
            proto=raw["proto"],
            ports=None if raw["ports"] is None else tuple(raw["ports"]),
        )

    def vagueness(self) -> tuple[int, int, float]:
        """Sorts the most specific first: fewest ports, fewest address pairs, latest start."""
        pairs = _size(self.orig) * _size(self.resp)
        return (65536 if self.ports is None else len(self.ports), pairs, -self.start)


def read(path: Path) -> list[Activity]:
    """Reads labels.jsonl."""
    return [Activity.from_json(line) for line in path.read_text().splitlines() if line]


def write(path: Path, activities: Iterable[Activity]) -> None:
    """Writes labels.jsonl, in order of start."""
    lines = [
        activity.to_json()
        for activity in sorted(activities, key=lambda one: (one.start, one.activity))
    ]
    path.write_text("".join(line + "\n" for line in lines))


def label(flows: pl.DataFrame, labels: Sequence[Activity]) -> pl.DataFrame:
    """Fills `label` and `label_detail` of a Flow frame.

    A flow belongs to an activity when it begins within its time (plus SLACK), between its
    addresses, either way round, at one of its ports; of several the most specific, then the latest
    to start, wins. The rest is benign. `label_detail` is "technique activity", the activity alone
    where it is benign, null where there is none.
    """
    known = flows["orig_h"].append(flows["resp_h"]).unique().drop_nulls().to_list()
    addresses = {text: ipaddress.ip_address(text) for text in known}
    chosen = pl.lit(None, dtype=pl.UInt32)
    ordered = sorted(labels, key=Activity.vagueness)
    for number, activity in reversed(list(enumerate(ordered))):
        chosen = (
            pl.when(_matches(activity, addresses))
            .then(pl.lit(number, dtype=pl.UInt32))
            .otherwise(chosen)
        )
    numbers = flows.select(chosen.alias("n"))["n"]
    classes = dict(enumerate(activity.klass for activity in ordered))
    details = dict(
        enumerate(f"{activity.technique} {activity.activity}".strip() for activity in ordered)
    )
    return flows.with_columns(
        numbers.replace_strict(classes, default="benign", return_dtype=pl.String).alias("label"),
        numbers.replace_strict(details, default=None, return_dtype=pl.String).alias("label_detail"),
    )


def _matches(
    activity: Activity, addresses: dict[str, ipaddress.IPv4Address | ipaddress.IPv6Address]
) -> pl.Expr:
    begin = pl.col("ts").dt.epoch("us") / 1e6
    orig, resp = _members(activity.orig, addresses), _members(activity.resp, addresses)
    there = _among("orig_h", orig) & _among("resp_h", resp) & _at("resp_p", activity.ports)
    back = _among("orig_h", resp) & _among("resp_h", orig) & _at("orig_p", activity.ports)
    proto = pl.lit(True) if activity.proto is None else pl.col("proto") == activity.proto
    return begin.is_between(activity.start - SLACK, activity.end + SLACK) & proto & (there | back)


def _members(
    names: tuple[str, ...] | None,
    addresses: dict[str, ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> list[str] | None:
    if names is None:
        return None
    networks = [ipaddress.ip_network(name) for name in names]
    return [
        text
        for text, address in addresses.items()
        if any(address in network for network in networks)
    ]


def _among(column: str, members: list[str] | None) -> pl.Expr:
    return pl.lit(True) if members is None else pl.col(column).is_in(members)


def _at(column: str, ports: tuple[int, ...] | None) -> pl.Expr:
    return pl.lit(True) if ports is None else pl.col(column).is_in(list(ports)).fill_null(False)


def _size(names: tuple[str, ...] | None) -> int:
    return (
        2**32 if names is None else sum(ipaddress.ip_network(name).num_addresses for name in names)
    )
