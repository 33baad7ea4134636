"""The Numenta Anomaly Benchmark's scoring, on cases worked out by hand."""

from __future__ import annotations

import json
from math import exp
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.bench import _nab, nab
from tests.bench._nab import PROFILES, Doubles, Series
from tests.shared_data import shared

STANDARD = PROFILES["standard"]
ROWS, FIRST, LAST = 100, 40, 49


def sigmoid(place: float) -> float:
    return 2 / (1 + exp(5 * place)) - 1


def series(name: str = "a/one.csv", windows: tuple[tuple[int, int], ...] = ((FIRST, LAST),)) -> Series:
    return Series(name, pl.Series([str(row) for row in range(ROWS)]), np.zeros(ROWS), windows)


def said(*rows: int, score: float = 1.0) -> Doubles:
    scores = np.zeros(ROWS)
    scores[list(rows)] = score
    return scores


def raw(*rows: int, profile: str = "standard") -> float:
    return _nab.raw([series()], {"a/one.csv": said(*rows)}, PROFILES[profile], 0.5)


def test_probation_is_15_percent_and_at_most_750_rows() -> None:
    assert series().probation == 15
    assert Series("a", pl.Series(["0"]), np.zeros(6000), ()).probation == 750


@pytest.mark.parametrize(("profile", "missed"), [("standard", 1), ("reward_low_FP_rate", 1), ("reward_low_FN_rate", 2)])
def test_silence_is_0_and_every_window_at_once_is_100(profile: str, missed: float) -> None:
    assert raw(profile=profile) == -missed
    assert raw(FIRST, profile=profile) == pytest.approx(1.0)
    corpus = [series()]
    assert _nab.normalised(corpus, PROFILES[profile], raw(profile=profile)) == 0
    assert _nab.normalised(corpus, PROFILES[profile], raw(FIRST, profile=profile)) == pytest.approx(100)


def test_a_window_counts_once_by_its_earliest_detection() -> None:
    late = sigmoid(-(LAST - 45 + 1) / 10) / sigmoid(-1)
    assert raw(45) == pytest.approx(late)
    assert raw(45, 47, 49) == pytest.approx(late)
    assert raw(40, 45) == pytest.approx(1.0)


def test_false_detections_cost_by_their_distance_past_a_window() -> None:
    """Rows are 1, 9 and 27 (three widths less one) past the last row of a window of ten."""
    assert raw(50) == pytest.approx(-1 + 0.11 * sigmoid(1 / 9))
    assert raw(58) == pytest.approx(-1 + 0.11 * sigmoid(1))
    assert raw(76) == raw(99) == pytest.approx(-1 - 0.11)
    assert raw(30) == pytest.approx(-1 - 0.11)
    assert raw(30, profile="reward_low_FP_rate") == pytest.approx(-1 - 0.22)
    assert raw(30, 31, 40) == pytest.approx(1 - 0.22)


def test_what_is_said_in_probation_is_not_judged() -> None:
    assert raw(3, 14) == -1
    assert raw(15) == pytest.approx(-1.11)


def test_one_threshold_is_optimised_over_all_series() -> None:
    corpus = [series(), series("a/two.csv", ((20, 29), (60, 69))), series("b/none.csv", ())]
    scores = {
        "a/one.csv": said(FIRST, score=0.9),
        "a/two.csv": said(20, score=0.6) + said(80, score=0.4),
        "b/none.csv": said(30, score=0.7),
    }
    thresholds, totals = _nab.by_threshold(corpus, scores, STANDARD)
    silent, found, wrong = -3.0, 2.0, -0.11
    assert thresholds.tolist() == [np.inf, 0.9, 0.7, 0.6, 0.4, 0.0]
    assert totals[:4] == pytest.approx([silent, silent + found, silent + found + wrong, silent + 2 * found + wrong])
    row = _nab.figures(corpus, scores, fixed=0.8)["standard"]
    assert row["threshold"] == 0.6
    assert row["optimised"] == pytest.approx(100 * (2 * found + wrong) / 6, abs=0.01)
    assert row["fixed"] == pytest.approx(100 * found / 6, abs=0.01)


def test_result_files_have_the_names_and_columns_of_the_benchmark(tmp_path: Path) -> None:
    _nab.write([series()], {"a/one.csv": said(41)}, "mine", tmp_path)
    table = pl.read_csv(tmp_path / "results" / "mine" / "a" / "mine_one.csv")
    assert table.columns == ["timestamp", "value", "anomaly_score", "label"]
    assert table["label"].to_list() == series().label.tolist()
    assert table["anomaly_score"].arg_max() == 41


def test_a_corpus_is_read_as_it_is_published(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "data" / "a").mkdir(parents=True)
    times = [f"2014-04-01 00:{minute:02}:00" for minute in range(10)]
    (tmp_path / "data" / "a" / "one.csv").write_text(
        "timestamp,value\n" + "".join(f"{time},{row}\n" for row, time in enumerate(times))
    )
    windows = {"a/one.csv": [[times[3] + ".000000", times[5] + ".000000"]]}
    (tmp_path / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    (one,) = _nab.corpus(tmp_path)
    assert (one.name, one.windows, one.probation) == ("a/one.csv", ((3, 5),), 1)
    assert one.value.tolist() == list(range(10))


def test_the_published_corpus_has_116_windows() -> None:
    corpus = _nab.corpus(shared("nab"))
    assert (len(corpus), sum(len(one.value) for one in corpus)) == (58, 365_558)
    assert sum(len(one.windows) for one in corpus) == 116


def test_a_jump_is_found_by_a_network_that_saw_the_beginning_alone() -> None:
    rows = np.arange(800)
    value = np.sin(rows / 6) + np.random.default_rng(1).normal(0, 0.05, len(rows))
    value[600:] += 4
    one = Series("a/jump.csv", pl.Series(map(str, rows)), value, ((600, 650),))
    start, errors = nab.detect(one, seed=1)
    for name, found in nab.variants(errors, start, one.probation).items():
        assert found[: one.probation].max() == 0
        assert found[600:620].max() > found[:600].max(), name
    seen = Series(one.name, one.timestamp, np.where(rows < 700, value, 0), one.windows)
    assert np.array_equal(nab.detect(seen, seed=1)[1][:, :700], errors[:, :700])


def test_folded_scores_are_said_once() -> None:
    score = np.array([0.0, 0.2, 0.5, 0.4, 0.5, 0.3, 0.1, 0.4, 0.6])
    assert nab.folded(score, 3).tolist() == [0.0, 0.2, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.6]


def test_a_windowed_gaussian_moves_its_window_in_steps() -> None:
    value = np.array([0.0, 2, 0, 2, 0, 2, 9, 9])
    one = Series("a/g.csv", pl.Series(map(str, value)), value, ())
    deviations = [0, 2 / 1e-6, 1, 2**0.5, 1, 1, 8, 8]
    found = nab.windowed_gaussian(one, width=4, step=4)
    assert found[1:] == pytest.approx([z / (z + nab.QUANTILE) for z in deviations[1:]])
