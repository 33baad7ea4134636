"""A bundle with detectors is evaluated by the code of a scan, and what it has no figures for is
said."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any

import polars as pl
import pytest

from ids_plugin import cli
from ids_plugin.bundle import write
from ids_plugin.bundle.card import judgement_of
from ids_plugin.datasets.labelled_flows import Labelled
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema.alert import Document
from ids_plugin.training.evaluate import Options, evaluate
from ids_plugin.training.examples import ordered_batches
from tests.support import toy, toy_detectors


@cache
def networks() -> tuple[Labelled, ...]:
    return tuple(
        Labelled(f"toy-{seed}", toy.network(seed, minutes=20), f"toy-{seed}", "00")
        for seed in (5, 6)
    )


@cache
def result(protocol: Any = "leave-one-out") -> dict[str, Any]:
    return evaluate(
        toy_detectors.bundle(), networks(), Options(protocol), progress=lambda message: None
    )


def scanned(network: Labelled) -> list[Document]:
    """Opening documents of a scan."""
    pipeline = Pipeline(toy_detectors.bundle())
    documents = [
        document for batch in ordered_batches(network.flows) for document in pipeline.step(batch)
    ]
    return [document for document in documents if document["event"]["kind"] == "alert"]


def test_the_alerts_are_those_of_a_scan() -> None:
    for network, figures in zip(networks(), result()["networks"], strict=True):
        alerts = scanned(network)
        assert figures["alerts"] == len(alerts) > 0
        by_detector = Counter(document["ids_plugin"]["detector"] for document in alerts)
        assert {name: of["alerts"] for name, of in figures["detectors"].items()} == by_detector
        assert by_detector.keys() == {"counters", "control"}


def test_hosts_are_found_in_their_class() -> None:
    for network in result()["networks"]:
        found = {(one["host"], one["class"]): one["found"] for one in network["wanted"]}
        assert found[("192.168.1.66", "scan")]
        assert found[("192.168.1.67", "brute_force")]
        assert found[("192.168.1.5", "command_and_control")]
    assert result()["total"]["false_alerts"] == 0


@pytest.mark.parametrize("protocol", ["leave-one-out", "time", "random"])
def test_every_detector_has_figures_beside_the_rules(protocol: str) -> None:
    models = result(protocol)["models"]
    assert list(models) == ["lookup", "tcp_is_malicious", "bundle", "counters", "control"]
    assert models["bundle"]["auc"] > 0.8
    assert models["bundle"]["f1"] == pytest.approx(result(protocol)["models"]["bundle"]["f1"])


def test_flows_over_the_threshold_are_what_the_bundle_calls_malicious() -> None:
    confusion, classes = result()["confusion"], result()["classes"]["confusion"]
    assert confusion["benign"] == classes["benign"] == {"benign": confusion["benign"]["benign"]}
    assert sum(confusion["scan"].values()) == 800
    assert confusion == classes


def test_what_needs_members_is_left_out_and_said() -> None:
    assert result()["alone"] == {}
    assert result()["deletion"]["tested"] == 0
    (said,) = result()["left_out"]
    assert "member" in said
    assert "deletion test" in said


def test_the_card_takes_the_figures() -> None:
    judgement = judgement_of(result())
    assert judgement["classes"]["scan"] == [2, 2, 2]
    assert judgement["false_alerts"] == 0


def test_pauses_are_no_time_in_which_something_was_watched() -> None:
    flows = toy.network(5, minutes=20)
    later = flows.with_columns(
        ts=pl.col("ts") + pl.duration(days=400), uid=pl.concat_str("uid", pl.lit("x"))
    )
    both = Labelled("both", pl.concat([flows, later]), "both", "00")
    (network,) = evaluate(toy_detectors.bundle(), [both], Options(), lambda message: None)[
        "networks"
    ]
    assert network["hours"] == pytest.approx(2 * 20 / 60, rel=0.05)


def test_people_get_tables(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(toy_detectors.bundle(), tmp_path / "bundle")
    toy.write(tmp_path / "flows", 1)
    options = ["--bundle", str(tmp_path / "bundle"), "--data", f"lab:{tmp_path}/flows"]
    assert cli.main(["evaluate", *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("192.168.1.66", "lookup", "confusion", "control", "left out: what each member"):
        assert part in shown
    assert "tested" not in shown
    assert cli.main(["evaluate", *options, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["detectors"]["counters"]["alerts"] > 0
