"""Thresholds of detectors from normal traffic: the union keeps the budget, and no class pays for
another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ids_plugin import bundle as bundles
from ids_plugin import cli
from ids_plugin.alerts import parse
from ids_plugin.bundle import Bundle
from ids_plugin.detectors.contacts import NOTABLE_SCORE, ContactKind
from ids_plugin.detectors.counters import SCORE_AT_THRESHOLD
from ids_plugin.engines.detectors import DetectorEngine
from ids_plugin.errors import UsageError
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema import flow
from ids_plugin.sinks.flow_files import write
from ids_plugin.sources.ordering import as_scanned
from ids_plugin.training.calibrate import Options, calibrate
from ids_plugin.training.calibrate.detectors import (
    Share,
    Unit,
    UnitFlows,
    alerts,
    observe_findings,
    share_out,
)
from ids_plugin.training.calibrate.traffic import FIRST, LAST
from tests.support import toy, toy_detectors

DATA = [{"file": "conn.log", "sha256": "00"}]
SCAN = Unit("counters", "scan")
NOISE = Unit("counters", "inbound_noise")
CONTROL = Unit("control", "command_and_control")
HOURS = 48


@cache
def traffic() -> pl.DataFrame:
    """Two days that count as normal: a scan, guessed passwords and a beacon every four hours."""
    days = []
    for number in range(HOURS // 4):
        part = toy.network(number, minutes=40).with_columns(
            pl.col("ts") + pl.duration(hours=4 * number),
            uid=pl.concat_str("uid", pl.lit(f"-{number}")),
            sensor=pl.lit("toy"),
        )
        calm = pl.col("label") == "benign"
        days.append(part.filter(calm | (pl.col("label") == "scan") | (number % 2 == 0)))
        days.append(_heartbeat(part, number))
    return pl.concat(days)


def _heartbeat(part: pl.DataFrame, number: int) -> pl.DataFrame:
    """One look-up every half hour, so that no pause is as long as an hour."""
    one = part.filter(pl.col("resp_p") == 53).head(1)
    start = part["ts"].min()
    return pl.concat(
        [
            one.with_columns(
                ts=pl.lit(start) + pl.duration(minutes=30 * half),
                uid=pl.lit(f"heartbeat-{number}-{half}"),
            )
            for half in range(8)
        ]
    ).with_columns(pl.col("ts").cast(part.schema["ts"]))


def batches(flows: pl.DataFrame, size: int = 4000) -> Iterator[pl.DataFrame]:
    """The flows as `scan` would give them."""
    return as_scanned(flows).iter_slices(size)


@cache
def calibrated(budget: float, **options: Any) -> tuple[Bundle, dict[str, Any]]:
    made, report = calibrate(
        batches(traffic()), toy_detectors.bundle(), Options(budget, **options), DATA
    )
    return made, report


def alerts_of(made: Bundle, flows: pl.DataFrame) -> int:
    """Alerts of a scan."""
    pipeline = Pipeline(made)
    documents = [document for batch in batches(flows) for document in pipeline.step(batch)]
    return sum(document["event"]["kind"] == "alert" for document in documents)


@pytest.mark.parametrize("budget", [1.0, 2.0, 5.0, 12.0, 50.0])
def test_the_union_keeps_the_budget(budget: float) -> None:
    _, report = calibrated(budget)
    days = report["hours"] / 24
    assert report["as_it_was"]["alerts"] > 10
    assert report["alerts_allowed"] == int(budget * days) > 0
    shown = sum(share["allowed"] for share in report["shares"].values())
    assert shown <= report["alerts_allowed"]


def test_a_budget_that_is_lax_lowers_thresholds_to_what_detectors_can_judge() -> None:
    made, report = calibrated(500.0)
    thresholds = report["thresholds"]
    assert thresholds["counters/scan"] == SCORE_AT_THRESHOLD
    assert thresholds["control/command_and_control"] == pytest.approx(NOTABLE_SCORE, abs=1e-5)
    assert DetectorEngine(made).detectors["control"].thresholds["command_and_control"] >= (
        NOTABLE_SCORE
    )


def test_thresholds_may_be_told_only_to_rise() -> None:
    _, report = calibrated(500.0, only_raise=True)
    assert report["thresholds"] == report["thresholds_before"]
    _, strict = calibrated(1.0, only_raise=True)
    before = strict["thresholds_before"]
    assert all(strict["thresholds"][name] >= value for name, value in before.items())
    assert strict["thresholds"] != before


def test_the_scan_of_the_calibrated_bundle_gives_the_alerts_that_the_report_counts() -> None:
    made, report = calibrated(5.0)
    observed = observe_findings(batches(traffic()), DetectorEngine(toy_detectors.bundle()))
    after = {Unit(*name.split("/")): threshold for name, threshold in report["thresholds"].items()}
    _, documents = alerts(observed, after, Options(5.0).allow, start=FIRST, stop=LAST)
    assert len(documents) == alerts_of(made, traffic()) > 0


def test_the_same_traffic_gives_the_same_bundle_however_it_is_cut() -> None:
    first, _ = calibrated(2.0)
    second, _ = calibrate(batches(traffic(), 777), toy_detectors.bundle(), Options(2.0), DATA)
    again, _ = calibrate(batches(traffic()), first, Options(2.0), DATA)
    assert first.id == second.id == again.id != toy_detectors.bundle().id
    assert again.manifest.document["calibration"]["of"] == toy_detectors.bundle().id


def test_the_traffic_of_others_gets_a_fifth_of_the_budget() -> None:
    own, report = calibrated(2.0)
    others, fitted = calibrated(10.0, others_traffic=True)
    assert fitted["thresholds"] == report["thresholds"]
    assert (fitted["budget_per_day"], fitted["fitted_budget_per_day"]) == (10.0, 2.0)
    assert others.manifest.document["calibration"]["others_traffic"]
    assert own.id != others.id


def test_too_little_traffic_is_refused_with_what_is_needed() -> None:
    with pytest.raises(UsageError) as caught:
        calibrated(0.25)
    said = str(caught.value)
    assert "too little traffic for 0.25 alerts a day: it takes 4 days to fit" in said
    assert "give 5.71 days or more in all" in said
    with pytest.raises(UsageError, match="no flows"):
        calibrate(iter([]), toy_detectors.bundle(), Options(1.0), DATA)


def test_what_the_allow_list_hides_costs_nothing() -> None:
    allow = parse('[[allow]]\nhost = "192.168.1.66"', "allow.toml")
    _, report = calibrate(batches(traffic()), toy_detectors.bundle(), Options(2.0, allow), DATA)
    assert report["thresholds"]["counters/scan"] == SCORE_AT_THRESHOLD
    assert calibrated(2.0)[1]["thresholds"]["counters/scan"] > SCORE_AT_THRESHOLD


def test_the_card_names_no_host() -> None:
    made, report = calibrated(2.0)
    card = made.manifest.document["calibration"]
    assert "192.168.1." not in json.dumps(card)
    assert any("192.168.1." in message for message in report["as_it_was"]["largest"])
    assert card["thresholds_before"] == report["thresholds_before"]


@pytest.mark.parametrize(
    ("needed", "affordable", "allowed"),
    [
        ((0, 0, 0), 3, (0, 0, 0)),
        ((1, 1, 1), 3, (1, 1, 1)),
        ((1, 90, 1), 10, (1, 7, 1)),
        ((50, 90, 50), 30, (9, 9, 9)),
        ((50, 90, 50), 31, (9, 9, 10)),
        ((50, 90, 50), 2, (0, 0, 0)),
    ],
)
def test_no_class_pays_for_another(
    needed: tuple[int, int, int], affordable: int, allowed: tuple[int, int, int]
) -> None:
    units = (SCAN, NOISE, CONTROL)
    shares = share_out(dict(zip(units, needed, strict=True)), affordable)
    assert tuple(shares[unit].allowed for unit in units) == allowed
    assert [shares[unit].needed for unit in units] == list(needed)


def test_a_class_that_is_cut_short_counts_as_one_alert_more() -> None:
    assert Share(needed=9, allowed=3).cost == 4
    assert Share(needed=3, allowed=3).cost == 3


@pytest.mark.parametrize("allowed", range(6))
def test_a_threshold_stands_just_above_the_alert_that_is_one_too_many(allowed: int) -> None:
    score = np.array([0.9, 0.5, 0.7, 0.6, 0.8])
    number = np.arange(5)
    flows = UnitFlows(number, number * 10, np.full(5, 1), score)
    threshold = flows.threshold(allowed, 0.3)
    assert flows.alerts(threshold) == min(allowed, 5)
    expected = [0.9, 0.8, 0.7, 0.6, 0.5][allowed] if allowed < 5 else 0.3
    assert threshold == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("days", [0.25, 1.5, 3.3, 10.0, 400.0])
def test_days_between_alerts_come_back_from_their_threshold(days: float) -> None:
    threshold = days / (1 + days)
    entry = ContactKind().with_thresholds({"name": "control"}, {"command_and_control": threshold})
    assert entry == {"name": "control", "days_between": days}


def test_the_command_fits_detectors_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ordered = traffic().sort(flow.known(), "uid")
    with (tmp_path / "conn.log").open("wb") as stream:
        write([ordered], "json", stream)
    bundles.write(toy_detectors.bundle(), tmp_path / "trained")
    arguments = ["--bundle", str(tmp_path / "trained"), "--budget", "5/day", "--others-traffic"]
    paths = [str(tmp_path / "conn.log"), "--out", str(tmp_path / "mine")]
    assert cli.main(["calibrate", *arguments, *paths]) == 0
    said = capsys.readouterr().err
    assert "1 alerts a day are 1 in that time" in said
    assert "control/command_and_control" in said
    made = bundles.read(tmp_path / "mine")
    assert made.manifest.document["detectors"][0]["thresholds"]["scan"] > SCORE_AT_THRESHOLD
