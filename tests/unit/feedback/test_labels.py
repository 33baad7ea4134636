"""Judged alerts as flows that training reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ids_plugin.bundle import Bundle
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.feedback.case import Case, case
from ids_plugin.feedback.labels import Labels
from ids_plugin.feedback.proposals import Ruled
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema import flow as schema
from ids_plugin.schema.verdict import Verdict
from ids_plugin.sources.ordering import as_scanned
from tests.support import toy, toy_bundle, toy_detectors
from tests.support.factories import alerts_of


def batches() -> Iterator[pl.DataFrame]:
    """A toy network as the pipeline takes it."""
    network = toy.network(99).with_columns(
        label=pl.lit(None, pl.String), label_detail=pl.lit(None, pl.String)
    )
    return as_scanned(network).iter_slices(500)


@pytest.fixture(scope="module")
def alerts() -> list[Case]:
    return scanned(toy_bundle.trained())


def scanned(bundle: Bundle) -> list[Case]:
    """The alert groups of the toy network."""
    pipeline = Pipeline(bundle)
    documents = [
        document for batch in batches() for document in pipeline.step(batch)
    ] + pipeline.finish()
    return [case(document) for document in documents if document["event"]["kind"] == "event"]


def ruled(alert: Case, said: str) -> Ruled:
    return Ruled(alert, Verdict(alert.alert, said, "", "anna", None, "v.csv", "line 2"), ())


def test_all_flows_of_judged_alerts_are_found_in_the_traffic(
    alerts: list[Case], tmp_path: Path
) -> None:
    said = ["true" if number % 2 else "false" for number in range(len(alerts))]
    labels = Labels()
    labels.traffic(
        batches(), [ruled(*pair) for pair in zip(alerts, said, strict=True)], toy_bundle.trained()
    )
    flows, contradicting = labels.flows()
    counts = dict(flows["label_detail"].value_counts().iter_rows())
    assert contradicting == 0
    assert {
        f"judged {word} by anna, alert {one.alert}": one.count
        for one, word in zip(alerts, said, strict=True)
    } == (counts)
    assert len(set(said)) == 2
    assert set(flows.filter(pl.col("label_detail").str.contains("false"))["label"]) == {"benign"}
    assert flows["resp_ip_bytes"].null_count() == 0
    flows.write_parquet(tmp_path / "labelled.parquet")
    (network,) = load(f"lab:{tmp_path / 'labelled.parquet'}")
    assert network.flows.select("uid", "label").equals(flows.select("uid", "label"))


def test_alerts_of_detectors_are_found_by_them() -> None:
    bundle = toy_detectors.bundle()
    judged = [ruled(alert, "true") for alert in scanned(bundle)]
    labels = Labels()
    labels.traffic(batches(), judged, bundle)
    flows, contradicting = labels.flows()
    assert contradicting == 0
    assert len(flows) == sum(one.case.count for one in judged)
    assert set(flows["label"]) == {"scan", "brute_force", "command_and_control"}


def test_flows_that_were_not_judged_are_not_labelled(alerts: list[Case]) -> None:
    labels = Labels()
    labels.traffic(batches(), [ruled(alerts[0], "true")], toy_bundle.trained())
    flows, _ = labels.flows()
    assert (len(flows), set(flows["label"])) == (alerts[0].count, {alerts[0].kind})


def test_without_traffic_the_evidence_is_labelled() -> None:
    opened, closed = map(case, alerts_of("command_and_control"))
    labels = Labels()
    labels.evidence(
        [ruled(closed.merged(opened), "true"), ruled(case(alerts_of("brute_force")[0]), "benign")]
    )
    flows, _ = labels.flows()
    assert flows.schema == pl.Schema(schema.SCHEMA)
    by_label = {label: part for (label,), part in flows.partition_by("label", as_dict=True).items()}
    assert set(by_label) == {"command_and_control", "benign"}
    beacon = by_label["command_and_control"]
    assert set(beacon["resp_h"]) == {"203.0.113.9"}
    assert set(beacon["orig_bytes"]) == {91}
    assert set(beacon["duration"].dt.total_milliseconds()) == {500}
    assert beacon["resp_ip_bytes"].null_count() == len(beacon)
    assert flows["ts"].is_sorted()


def test_flows_that_alerts_label_differently_are_left_out(alerts: list[Case]) -> None:
    labels = Labels()
    labels.evidence([ruled(alerts[0], "true")])
    labels.traffic(batches(), [ruled(alerts[0], "false")], toy_bundle.trained())
    flows, contradicting = labels.flows()
    shown = {one["uid"] for one in alerts[0].evidence}
    assert contradicting > 0
    assert len(flows) == len(shown | set(flows["uid"])) - contradicting
    assert not shown & set(flows.filter(pl.col("label") == "benign")["uid"])
