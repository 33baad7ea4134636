"""Thresholds from normal traffic: time divides it, the budget holds on what was held back, the card
names no host."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from ids_plugin.alerts import AllowList, parse
from ids_plugin.bundle import Bundle, seal
from ids_plugin.errors import UsageError
from ids_plugin.pipeline import Pipeline
from ids_plugin.sources.ordering import as_scanned
from ids_plugin.training.calibrate import (
    Options,
    Traffic,
    alerts,
    calibrate,
    lowest_threshold,
    observe,
)
from tests.support import toy, toy_bundle

DATA = [{"file": "conn.log", "sha256": "00"}]


def batches(flows: pl.DataFrame, size: int = 4000) -> Iterator[pl.DataFrame]:
    """The flows as `scan` would give them."""
    return as_scanned(flows).iter_slices(size)


@pytest.fixture(scope="module")
def normal() -> pl.DataFrame:
    """Four hours of a toy network on which nothing happens: 14,400 flows, 86,400 a day."""
    return toy.network(5, minutes=240).filter(pl.col("label") == "benign")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return toy_bundle.trained()


@pytest.fixture(scope="module")
def nervous(bundle: Bundle) -> Bundle:
    """A bundle that takes normal traffic for attacks: every flow scores high, and 8 % are over."""
    combination = bundle.manifest.combination
    assert combination is not None
    bias = {**combination.bias, "benign": combination.bias["benign"] - 6.0}
    manifest = bundle.manifest.replaced(prefilter=None, combination=combination.replaced(bias=bias))
    return seal(manifest, bundle.files)


def test_thresholds_keep_the_budget_on_traffic_held_back(
    normal: pl.DataFrame, nervous: Bundle
) -> None:
    made, report = calibrate(batches(normal), nervous, Options(2000), DATA)
    held = report["held_back"]
    assert held["before"]["over"] > 2 * held["after"]["over"] > 0
    assert held["after"]["over"] / held["flows"] <= report["alpha"]
    assert report["as_it_was"]["over"] > report["may_be_over"] > 0
    assert report["flows"] + held["flows"] == len(normal)
    assert report["flows"] == pytest.approx(0.7 * len(normal), abs=1)
    assert report["alpha"] == pytest.approx(2000 / 86_400, rel=0.02)
    assert report["needed"] <= report["flows"]
    assert held["after"]["alerts"] <= held["after"]["over"]
    assert held["after"]["alerts_per_day"] <= 2000
    assert made.manifest.thresholds == report["thresholds"] != nervous.manifest.thresholds


def test_the_pipeline_gives_the_alerts_that_the_report_says(
    normal: pl.DataFrame, nervous: Bundle
) -> None:
    made, report = calibrate(batches(normal), nervous, Options(500), DATA)
    traffic = observe(
        batches(normal), nervous, lowest_threshold(nervous, nervous.manifest.thresholds)
    )
    pipeline = Pipeline(made)
    documents = [
        one for batch in batches(normal) for one in pipeline.step(batch)
    ] + pipeline.finish()
    closed = [one for one in documents if one["event"]["kind"] == "event"]
    over, found = alerts(traffic, report["thresholds"], AllowList())
    assert len(found) == len(closed) > 0
    assert over == pipeline.ledger.total.over_threshold
    fitting, _ = alerts(traffic, report["thresholds"], AllowList(), stop=traffic.split)
    assert fitting == report["may_be_over"]
    assert fitting + report["held_back"]["after"]["over"] == over


def test_the_earlier_flows_fit_and_the_later_ones_check(
    normal: pl.DataFrame, bundle: Bundle
) -> None:
    """Attacks in the later part change nothing but what the check says."""
    attack = toy.network(6).filter(pl.col("label") == "scan").with_columns(sensor=pl.lit("toy-5"))
    moved = normal["ts"].max() - attack["ts"].max()  # type: ignore[operator]
    later = pl.concat([normal, attack.with_columns(pl.col("ts") + moved)])
    calm, quiet = calibrate(batches(normal), bundle, Options(100), DATA)
    attacked, report = calibrate(batches(later), bundle, Options(100), DATA)
    assert report["held_back"]["flows"] + report["flows"] == len(normal) + len(attack)
    assert report["held_back"]["after"]["over"] > quiet["held_back"]["after"]["over"] + 100
    few = {
        name: value
        for name, value in report["thresholds"].items()
        if value > quiet["thresholds"][name] + 0.01
    }
    assert few == {}
    assert attacked.id != calm.id


def test_the_same_traffic_gives_the_same_bundle_however_it_is_cut(
    normal: pl.DataFrame, bundle: Bundle
) -> None:
    first, _ = calibrate(batches(normal), bundle, Options(100), DATA)
    second, _ = calibrate(batches(normal, 1111), bundle, Options(100), DATA)
    again, _ = calibrate(batches(normal), first, Options(100), DATA)
    assert first.id == second.id == again.id != bundle.id
    assert first.manifest.document["calibration"]["of"] == bundle.id
    assert first.signature is None


def test_too_few_flows_are_refused_with_the_number_needed(
    normal: pl.DataFrame, bundle: Bundle
) -> None:
    with pytest.raises(UsageError) as caught:
        calibrate(batches(normal.sort("ts").head(2000)), bundle, Options(20), DATA)
    said = str(caught.value)
    assert "too few flows for 20 alerts a day: at 8" in said
    assert "there are 1,400" in said
    wanted = int(said.partition("(give ")[2].partition(" flows")[0].replace(",", ""))
    assert wanted == pytest.approx(86_400 / 20 / 0.7, rel=0.1)
    made, _ = calibrate(
        batches(normal.sort("ts").head(int(1.1 * wanted))), bundle, Options(20), DATA
    )
    assert made.id != bundle.id
    with pytest.raises(UsageError, match="no flows"):
        calibrate(batches(normal.head(0)), bundle, Options(20), DATA)


def test_what_the_allow_list_hides_costs_nothing(bundle: Bundle) -> None:
    """A scanner of one's own is taken for an attack to be tolerated, unless it is on the list."""
    scanned = toy.network(7, minutes=240).filter(pl.col("label").is_in(["benign", "scan"]))
    allow = parse('[[allow]]\nhost = "192.168.1.66"', "allow.toml")
    _, with_scan = calibrate(batches(scanned), bundle, Options(100), DATA)
    _, allowed_over = calibrate(batches(scanned), bundle, Options(100, allow), DATA)
    assert any("192.168.1.66" in message for message in with_scan["as_it_was"]["largest"])
    assert not any("192.168.1.66" in message for message in allowed_over["as_it_was"]["largest"])
    assert allowed_over["flows"] == with_scan["flows"]
    assert allowed_over["thresholds"]["scan"] < with_scan["thresholds"]["scan"]


def test_thresholds_may_be_told_only_to_rise(normal: pl.DataFrame, bundle: Bundle) -> None:
    own = bundle.manifest.thresholds
    _, free = calibrate(batches(normal), bundle, Options(20_000), DATA)
    _, bound = calibrate(batches(normal), bundle, Options(20_000, only_raise=True), DATA)
    assert any(free["thresholds"][name] < limit for name, limit in own.items())
    assert all(bound["thresholds"][name] >= limit for name, limit in own.items())


def test_the_card_says_on_what_and_names_no_host(normal: pl.DataFrame, nervous: Bundle) -> None:
    made, report = calibrate(batches(normal), nervous, Options(2000), DATA)
    card = made.manifest.document["calibration"]
    assert (card["data"], card["budget_per_day"], card["flows"]) == (DATA, 2000, report["flows"])
    assert "192.168.1." not in json.dumps(card)
    assert any("192.168.1." in message for message in report["as_it_was"]["largest"])
    assert card["thresholds_before"] == nervous.manifest.thresholds


def test_pauses_are_no_time_in_which_something_was_watched(
    normal: pl.DataFrame, bundle: Bundle
) -> None:
    late = pl.col("ts") > normal["ts"].min() + pl.duration(minutes=80)
    paused = normal.with_columns(
        ts=pl.when(late).then(pl.col("ts") + pl.duration(days=3)).otherwise("ts")
    )
    _, report = calibrate(batches(paused), bundle, Options(100), DATA)
    assert report["flows_per_day"] == pytest.approx(86_400, rel=0.05)


def test_the_split_is_in_time() -> None:
    known = np.arange(10, dtype=np.int64)
    assert Traffic(known, (), 0.5).split == 6


def test_no_torch_is_needed() -> None:
    code = "import sys, ids_plugin.training.calibrate, ids_plugin.feedback.labels; print('torch' in sys.modules)"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
