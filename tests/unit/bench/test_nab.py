"""The Numenta Anomaly Benchmark's scoring, on cases worked out by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from math import erfc, exp
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.bench import nab
from tests.bench.support import nab_corpus
from tests.bench.support import nab_detectors as detectors
from tests.bench.support.nab_corpus import PROFILES, Doubles, Series
from tests.support.shared_data import shared

STANDARD = PROFILES["standard"]
ROWS, FIRST, LAST = 100, 40, 49


def sigmoid(place: float) -> float:
    return 2 / (1 + exp(5 * place)) - 1


def series(
    name: str = "a/one.csv", windows: tuple[tuple[int, int], ...] = ((FIRST, LAST),)
) -> Series:
    return Series(name, times(ROWS), np.zeros(ROWS), windows)


def times(rows: int) -> pl.Series:
    """Every five minutes, as the benchmark writes them."""
    start = datetime(2014, 4, 1, tzinfo=UTC)
    return pl.Series(
        [f"{start + timedelta(minutes=5 * row):%Y-%m-%d %H:%M:%S}" for row in range(rows)]
    )


def said(*rows: int, score: float = 1.0) -> Doubles:
    scores = np.zeros(ROWS)
    scores[list(rows)] = score
    return scores


def raw(*rows: int, profile: str = "standard") -> float:
    return nab_corpus.raw(series(), said(*rows), PROFILES[profile], 0.5)


def test_probation_is_15_percent_and_at_most_750_rows() -> None:
    assert series().probation == 15
    assert Series("a", pl.Series(["0"]), np.zeros(6000), ()).probation == 750


@pytest.mark.parametrize(
    ("profile", "missed"), [("standard", 1), ("reward_low_FP_rate", 1), ("reward_low_FN_rate", 2)]
)
def test_silence_is_0_and_every_window_at_once_is_100(profile: str, missed: float) -> None:
    assert raw(profile=profile) == -missed
    assert raw(FIRST, profile=profile) == pytest.approx(1.0)
    corpus = [series()]
    assert nab_corpus.normalised(corpus, PROFILES[profile], raw(profile=profile)) == 0
    assert nab_corpus.normalised(
        corpus, PROFILES[profile], raw(FIRST, profile=profile)
    ) == pytest.approx(100)


def test_a_window_counts_once_by_its_earliest_detection() -> None:
    late = sigmoid(-(LAST - 45 + 1) / 10) / sigmoid(-1)
    assert raw(45) == pytest.approx(late)
    assert raw(45, 47, 49) == pytest.approx(late)
    assert raw(40, 45) == pytest.approx(1.0)


def test_false_detections_cost_by_their_distance_past_a_window() -> None:
    """Rows are 1, 9 and 27 (three widths less one) past the last row of a window of ten."""
    assert raw(50) == pytest.approx(-1 + 0.11 * sigmoid(1 / 9))
    assert raw(58) == pytest.approx(-1 + 0.11 * sigmoid(1))
    assert raw(76) == pytest.approx(raw(99)) == pytest.approx(-1 - 0.11)
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
    thresholds, totals = nab_corpus.by_threshold(corpus, scores, STANDARD)
    silent, found, wrong = -3.0, 2.0, -0.11
    assert thresholds.tolist() == [np.inf, 0.9, 0.7, 0.6, 0.4, 0.0]
    assert totals[:4] == pytest.approx(
        [silent, silent + found, silent + found + wrong, silent + 2 * found + wrong]
    )
    for threshold, total in zip(thresholds, totals, strict=True):
        alone = sum(nab_corpus.raw(one, scores[one.name], STANDARD, threshold) for one in corpus)
        assert alone == pytest.approx(total)


def test_result_files_have_the_names_and_columns_of_the_benchmark(tmp_path: Path) -> None:
    nab_corpus.write([series()], {"a/one.csv": said(41)}, "mine", tmp_path)
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
    (one,) = nab_corpus.corpus(tmp_path)
    assert (one.name, one.windows, one.probation) == ("a/one.csv", ((3, 5),), 1)
    assert one.value.tolist() == list(range(10))


def test_the_published_corpus_has_116_windows() -> None:
    corpus = nab_corpus.corpus(shared("nab"))
    assert (len(corpus), sum(len(one.value) for one in corpus)) == (58, 365_558)
    assert sum(len(one.windows) for one in corpus) == 116


def test_published_scores_of_the_windowed_gaussian_come_out() -> None:
    """39.65, 20.87 and 47.41: results/final_results.json of the benchmark."""
    corpus = nab_corpus.corpus(shared("nab"))
    scores = {one.name: detectors.windowed_gaussian(one) for one in corpus}
    best = [
        nab_corpus.normalised(corpus, kind, nab_corpus.by_threshold(corpus, scores, kind)[1].max())
        for kind in PROFILES.values()
    ]
    assert best == pytest.approx([39.6495, 20.8680, 47.4100], abs=0.001)


def jump(end: int) -> Series:
    """A sine that is lifted at row 300; the same rows whatever `end` is."""
    rows = np.arange(480)
    value = np.sin(rows / 6) + np.random.default_rng(1).normal(0, 0.05, len(rows))
    value[300:] += 4
    value[end:] = 0
    return Series("a/jump.csv", times(len(rows)), value, ((300, 350),))


def test_a_jump_is_found_and_no_detector_sees_the_future() -> None:
    whole, cut = dict(nab.detectors(jump(480), seed=1)), dict(nab.detectors(jump(360), seed=1))
    for name, score in whole.items():
        judged = nab._judgeable(score, jump(480))
        assert judged[:72].max() == 0
        assert judged[300:304].max() > judged[:300].max(), name
        assert np.array_equal(score[:360], cut[name][:360]), name


def test_a_detector_rests_after_it_spoke() -> None:
    score = np.array([0.0, 2, 5, 6, 5, 3, 1, 4, 6])
    assert detectors.rested(score, 4, 3).tolist() == [0, 0, 5, 0, 0, 0, 0, 4, 0]
    assert detectors.rested(score, 4, 0).tolist() == [0, 0, 5, 6, 5, 0, 0, 4, 6]


def test_surprise_is_what_the_normal_distribution_says_of_the_rows_before() -> None:
    values = np.array([9.0, 0, 2, 0, 2, 4])
    found = detectors.surprise(values, 1, 1)
    assert found[5] == pytest.approx(-np.log10(0.5 * erfc(3 / 2**0.5)), rel=1e-4)
    mean = detectors.surprise(values, 2, 1)
    assert mean[5] == pytest.approx(
        -np.log10(0.5 * erfc((3 - 2 / 3) / (8 / 9) ** 0.5 / 2**0.5)), rel=1e-4
    )


def test_a_value_seen_before_is_near_and_one_at_another_time_of_day_less() -> None:
    value = np.tile(np.repeat([0.0, 1.0], 144), 5)
    value[1300] = 0.0 if value[1300] else 1.0
    one = Series("a/day.csv", times(len(value)), value, ())
    for context in detectors.CONTEXTS:
        distance = detectors._distance(one, *context)
        assert distance[1300] > 3 * distance[1200:1300].max()


def test_thresholds_are_chosen_by_some_folders_and_judged_on_the_others() -> None:
    corpus = [series("realKnownCause/a.csv"), series("realTweets/b.csv")]
    scores = {
        "realKnownCause/a.csv": said(30, score=4) + said(FIRST, score=8),
        "realTweets/b.csv": said(FIRST, score=4.5),
    }
    found = nab.judge(corpus, scores, STANDARD, "any")
    assert (found.threshold, found.choosing, found.chosen, found.unseen) == (5.0, 100.0, 50.0, 0.0)
    assert found.best > 90
    assert found.fixed == 50.0


def test_a_windowed_gaussian_moves_its_window_in_steps() -> None:
    value = np.array([0.0, 2, 0, 2, 0, 2, 9, 9])
    one = Series("a/g.csv", times(len(value)), value, ())
    deviations = [2 / 1e-6, 1, 2**0.5, 1, 1, 8, 8]
    found = detectors.windowed_gaussian(one, width=4, step=4)
    assert found[1:] == pytest.approx(
        [-np.log10(max(0.5 * erfc(z / 2**0.5), 1e-13)) for z in deviations], rel=1e-3
    )
