"""Remote control laid over a busy benign host: what the size of a capture gives away.

Most public captures of infected hosts hold little else: a sandbox, some minutes. Here the flows of
each case of remote control are moved to the busiest host of an office, on its clock, into its
busiest hour, and nothing of the infected host's other traffic comes with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

import polars as pl

from ids_plugin.bundle import Bundle
from tests.bench.support.real_captures import Capture, Label, is_labelled, judge
from tests.bench.support.roads import scanned

OFFICE = "office"
CONTROL = "command_and_control"
HOUR_S = 3_600


class Overlay(NamedTuple):
    """One case of remote control."""

    capture: str
    host: str
    flows: int
    found_in_capture: bool
    found_by_itself: bool
    """its flows alone, without the host's other traffic"""
    found_in_office: bool
    false: int
    """alerts beside it in the office"""


def overlays(bundle: Bundle, captures: Sequence[Capture], *, has_logs: bool) -> Iterator[Overlay]:
    """Every case of remote control that is worth finding; nothing where there is no office.

    `has_logs`: with what the other logs say of the flows.
    """
    offices = [capture for capture in captures if capture.kind == OFFICE]
    for capture in captures if offices else ():
        labels: dict[str, list[Label]] = {}
        for label in capture.labels:
            if label["class"] == CONTROL:
                labels.setdefault(label["host"], []).append(label)
        if labels:
            verdict = judge(capture, scanned(bundle, _flows(capture, has_logs=has_logs)))
            found = {case.host for case in verdict.cases if case.found and case.label == CONTROL}
        for host, rows in labels.items():
            result = _overlay(bundle, capture, offices[0], (host, rows), has_logs=has_logs)
            if result is not None:
                yield result._replace(found_in_capture=host in found)


def _flows(capture: Capture, *, has_logs: bool) -> pl.DataFrame:
    return capture.flows_with_facts if has_logs else capture.flows


def _overlay(
    bundle: Bundle,
    capture: Capture,
    office: Capture,
    attacker: tuple[str, Sequence[Label]],
    *,
    has_logs: bool,
) -> Overlay | None:
    """None for a host with too few flows to be a case."""
    host, labels = attacker
    seconds = (pl.col("ts").dt.epoch("us") / 1e6).alias("second")
    port = pl.col("resp_p").fill_null(0).alias("port")
    attack = (
        _flows(capture, has_logs=has_logs)
        .with_columns(seconds, port)
        .filter(pl.any_horizontal([is_labelled(label) for label in labels]))
    )
    if not attack.height:
        return None
    target, begin_s = _busiest(office.flows)
    shift_s = begin_s - float(attack["second"].min() or 0.0)  # type: ignore[arg-type]
    moved = attack.drop("second", "port").with_columns(
        pl.col("ts") + timedelta(seconds=shift_s),
        pl.lit(office.flows["sensor"][0]).alias("sensor"),
        *(pl.col(end).replace(host, target) for end in ("orig_h", "resp_h")),
    )
    known = [_moved(label, target, shift_s) for label in labels]
    by_itself = replace(capture, labels=tuple(known), benign=None)
    by_itself.__dict__["flows"] = moved
    laid_over = replace(office, labels=tuple(known), benign=None)
    laid_over.__dict__["flows"] = pl.concat([_flows(office, has_logs=has_logs), moved])
    verdicts = [judge(one, scanned(bundle, one.flows)) for one in (by_itself, laid_over)]
    cases = [[case for case in verdict.cases if case.host == target] for verdict in verdicts]
    if not all(cases):
        return None
    return Overlay(
        capture=capture.name, host=host, flows=attack.height, found_in_capture=False,
        found_by_itself=cases[0][0].found, found_in_office=cases[1][0].found,
        false=len(verdicts[1].false),
    )  # fmt: skip


def _busiest(flows: pl.DataFrame) -> tuple[str, float]:
    """The host that opens most flows to the outside, and the second at which its busiest hour
    begins."""
    hosts = flows["orig_h"].value_counts().sort("count", "orig_h", descending=True)
    host = str(hosts["orig_h"][0])
    hours = flows.filter(pl.col("orig_h") == host).select(
        (pl.col("ts").dt.epoch("s") // HOUR_S).alias("hour")
    )
    busiest = hours["hour"].value_counts().sort("count", "hour", descending=True)["hour"][0]
    return host, float(busiest * HOUR_S)


def _moved(label: Label, host: str, shift_s: float) -> Label:
    times = {name: str(float(label[name]) + shift_s) for name in ("first", "last") if label[name]}
    return {**label, "host": host, **times}


def table(results: Sequence[Overlay]) -> Iterator[str]:
    """A line for each case that is found in one of the places, but not in all; then the sums."""
    yield "| case | flows | in its capture | its flows alone | in the office |"
    yield "|---|---|---|---|---|"
    for one in results:
        marks = (one.found_in_capture, one.found_by_itself, one.found_in_office)
        if len(set(marks)) > 1:
            cells = ("found" if mark else "–" for mark in marks)
            yield f"| {one.capture} {one.host} | {one.flows:,} | {' | '.join(cells)} |"
    sums = (
        sum(getattr(one, name) for one in results)
        for name in ("found_in_capture", "found_by_itself", "found_in_office")
    )
    yield f"| all {len(results)} cases | | {' | '.join(map(str, sums))} |"
    yield ""
    yield f"False alerts beside them in the office: {sum(one.false for one in results)}."
