"""Evaluation, calibration and threshold fitting count the alerts that a scan gives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin.alerts import AlertGrouper, AllowList, policy
from ids_plugin.alerts.group_counts import groups
from ids_plugin.bundle import Bundle, find, read, seal
from ids_plugin.datasets.labelled_flows import Labelled
from ids_plugin.pipeline import Pipeline, Scan, scan
from ids_plugin.schema import flow as schema
from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.sources import Read
from ids_plugin.sources.local_networks import Locality
from ids_plugin.sources.ordering import ordered
from ids_plugin.training import calibrate
from ids_plugin.training.combination import ScoredNetwork, count_false_alerts, false_alerts
from ids_plugin.training.evaluate import Options, evaluate
from tests.property.test_groups import inputs
from tests.support.factories import BUNDLE, SENSOR, Row, behaviour, flow, fold, unanswered

MINUTE, HOUR = 60, 3600
Alert = tuple[str, str, int]
"""subject, class, flows"""


def with_an_hours_gap() -> list[Row]:
    rows = behaviour("scan")
    return [row | {"ts": row["ts"] + timedelta(hours=h), "uid": f"{row['uid']}-{h}"}
            for h in range(3) for row in rows]  # fmt: skip


def longer_than_a_day() -> list[Row]:
    return [
        unanswered(quarter * HOUR / 4, "10.0.0.31", "203.0.113.9", 4975) for quarter in range(130)
    ]


def growing_connections() -> list[Row]:
    """Connections 20 minutes apart, each with three open records before the last one."""
    return [
        flow(
            number * 20 * MINUTE,
            "10.0.0.20",
            "203.0.113.80",
            uid=f"Cgrows{number}",
            orig_p=50_000 + number,
            duration=timedelta(minutes=minutes),
            orig_bytes=minutes * 1_000_000,
            open=minutes < 80,
        )
        for number in range(12)
        for minutes in (1, 6, 45, 80)
    ]


def noise_in_several_classes() -> list[Row]:
    """Scans and log-in attempts from outside towards an exposed host, 20 minutes apart in turns."""
    rows = []
    for turn in range(8):
        start = turn * 20 * MINUTE
        for second in range(40):
            stranger = f"192.0.2.{10 * turn + second % 5}"
            if turn % 2:
                rows.append(flow(start + second, stranger, "10.0.0.80", resp_p=22, service="ssh"))
            else:
                rows.append(unanswered(start + second, stranger, "10.0.0.80", 20 + second))
    return rows


TRAFFIC: dict[str, Callable[[], list[Row]]] = {
    "an hour's gap": with_an_hours_gap,
    "longer than a day": longer_than_a_day,
    "growing connections": growing_connections,
    "noise of several classes": noise_in_several_classes,
    **{name: lambda name=name: behaviour(name) for name in CLASSES[1:]},  # type: ignore[misc]
}


@cache
def easily_alarmed(threshold: float) -> Bundle:
    """The default bundle with low thresholds, and no prefilter in the way."""
    bundle = read(find("anomaly_net"))
    thresholds = dict.fromkeys(bundle.manifest.thresholds, threshold)
    return seal(bundle.manifest.replaced(thresholds=thresholds, prefilter=None), bundle.files)


def traffic(kind: str) -> pl.DataFrame:
    """A labelled Flow frame without attacks: whatever alerts is false."""
    rows = [{name: row[name] for name in schema.SCHEMA} for row in TRAFFIC[kind]()]
    flows = pl.DataFrame(rows, schema=schema.SCHEMA, orient="row")
    return flows.with_columns(label=pl.lit("benign"))


def scanned(flows: pl.DataFrame, bundle: Bundle) -> list[Document]:
    """Documents of `scan`."""
    reads = [Read(flows, len(flows), source="zeek", sensor=SENSOR)]
    return [document for step in scan(reads, Pipeline(bundle), Scan()) for document in step]


def alerts(documents: list[Document]) -> list[Alert]:
    """The alerts that closing documents sum up."""
    closing = [
        document["ids_plugin"] for document in documents if document["event"]["kind"] == "event"
    ]
    return sorted(
        (part["fold"]["subject"], part["label"], part["fold"]["count"]) for part in closing
    )


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("kind", TRAFFIC)
def test_evaluate_and_calibrate_count_the_alerts_of_a_scan(kind: str, threshold: float) -> None:
    flows, bundle = traffic(kind), easily_alarmed(threshold)
    wanted = alerts(scanned(flows, bundle))
    assert wanted or threshold

    network = Labelled("toy", flows, "toy.parquet", "00")
    result = evaluate(bundle, [network], Options(explained=0), lambda message: None)["networks"][0]
    assert result["alerts"] == result["false_alerts"] == len(wanted)
    assert sorted(result["false"]) == wanted

    reads = [Read(flows, len(flows), source="zeek", sensor=SENSOR)]
    batches = ordered(reads, batch_rows=100, locality=Locality())
    seen = calibrate.observe(batches, bundle, 0.0)
    _, documents = calibrate.alerts(seen, bundle.manifest.thresholds, AllowList())
    assert alerts(documents) == wanted


@settings(max_examples=60, deadline=None)
@given(inputs())
def test_groups_are_those_of_the_grouper(drawn: tuple[pl.DataFrame, Scores, list[int]]) -> None:
    flows, scored, cuts = drawn
    documents, _ = fold(flows, scored, batches=cuts)
    flagged = policy.flag(flows, scored, np.flatnonzero(scored.over))
    counted = groups(flagged)
    assert sorted((group.key.subject, group.key.kind, group.flows) for group in counted) == alerts(
        documents
    )
    opened = [document for document in documents if document["event"]["kind"] == "alert"]
    openers = [flagged.flows.uid[group.members[0]] for group in counted]
    assert openers == [document["zeek"]["session_id"] for document in opened]


@settings(max_examples=60, deadline=None)
@given(inputs(), st.randoms(use_true_random=False))
def test_threshold_fitting_counts_the_alerts_of_the_grouper(
    drawn: tuple[pl.DataFrame, Scores, list[int]], random: st.DataObject
) -> None:
    flows, scored, _ = drawn
    labels = [random.choice(["benign", "benign", "benign", "scan"]) for _ in range(len(flows))]  # type: ignore[attr-defined]
    network = ScoredNetwork("toy", flows.with_columns(label=pl.Series(labels)), scored)
    thresholds = np.array([0.2, 0.5, 0.65, 0.8, 0.95])
    for label in np.unique(scored.label).tolist():
        counts = count_false_alerts(network, label, thresholds)
        for threshold, count in zip(thresholds.tolist(), counts.tolist(), strict=True):
            over = (scored.label == label) & (scored.score >= threshold)
            assert count == without_attack(network, scored._replace(over=over))
    assert false_alerts(network) == without_attack(network, scored)


def without_attack(network: ScoredNetwork, scored: Scores) -> int:
    """Alerts of the grouper that hold no attack flow."""
    plan = AlertGrouper(SENSOR, BUNDLE).plan(network.flows, scored)
    if plan.flagged is None:
        return 0
    is_attack = network.is_attack(plan.flagged.rows)
    parts = [part for of_key in plan.parts.values() for part in of_key]
    assert all(part.is_opening for part in parts)
    return sum(not is_attack[part.positions].any() for part in parts)
