"""Training: whole networks held out, the same bytes for the same seed, clear refusals, no half a
bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ids_plugin.datasets.labelled_flows import load
from ids_plugin.errors import InputError, UsageError
from ids_plugin.training import combination
from ids_plugin.training.examples import Sampling, as_seen_by, sample, windows
from ids_plugin.training.options import Options
from ids_plugin.training.run import divide, train
from tests.support import toy, toy_bundle


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes() -> None:
    again = train(toy_bundle.options())
    assert again.id == toy_bundle.trained().id
    assert dict(again.files) == dict(toy_bundle.trained().files)


def test_whole_networks_are_held_out() -> None:
    split = divide(toy_bundle.options())
    named = [{network.name for network in networks} for networks in vars(split).values()]
    assert sum(len(names) for names in named) == len(set.union(*named)) == 4
    assert all(named)


def test_the_manifest_says_what_it_was_trained_on() -> None:
    training = toy_bundle.trained().manifest.training
    assert training.classes == ("benign", "scan", "brute_force", "command_and_control")
    assert {len(file.sha256) for files in training.data.values() for file in files} == {64}
    assert training.seed == 1


def test_no_activity_drowns_the_others() -> None:
    examples = sample(
        load(toy_bundle.folder()), Sampling(attack=50, benign=200, look_alike=50), seed=1
    )
    assert np.bincount(examples.activity).max() <= 200
    assert examples.weight.sum() == pytest.approx(1)
    assert examples.weight[examples.label == 0].sum() == pytest.approx(0.5)


def test_poorer_sources_lack_what_they_cannot_know() -> None:
    flows = toy.network(1)
    for source in ("suricata", "elastic"):
        poorer = as_seen_by(source, flows)
        assert poorer["orig_bytes"].null_count() == poorer.height
        assert poorer["orig_ip_bytes"].null_count() == 0
        batch = next(windows(poorer))
        assert np.isnan(batch.table(np.arange(5))).any()
    assert (as_seen_by("elastic", flows)["ts"].dt.microsecond() % 1000 == 0).all()


def test_thresholds_keep_to_the_budget() -> None:
    rng = np.random.default_rng(1)
    judged = [_judged(rng) for _ in range(4)]
    days = sum(one.days for one in judged)
    for budget in (0.0, 2.0 / days, 20.0 / days):
        thresholds = combination.fit_thresholds(judged, [0, 1], budget)
        after = [combination.with_thresholds(one, thresholds) for one in judged]
        false = sum(map(combination.false_alerts, after))
        assert false <= budget * days + 1e-9


def test_the_gate_keeps_what_is_found_but_not_at_any_price() -> None:
    rng = np.random.default_rng(2)
    one = _judged(rng)
    benign, guessed = (
        (one.flows["label"] == label).to_numpy() for label in ("benign", "brute_force")
    )
    score = np.where(benign, 0.5, one.scores.score)
    one = combination.with_thresholds(
        combination.ScoredNetwork(one.network, one.flows, one.scores._replace(score=score)),
        {"scan": 0.9},
    )
    gate = np.where(benign, rng.random(len(benign)) * 0.5, 0.8)
    assert combination.fit_prefilter_threshold([gate], [one], 0.001) == 0.8
    assert combination.fit_prefilter_threshold([np.where(guessed, 0.6, gate)], [one], 0.5) == 0.6
    odd = combination.fit_prefilter_threshold([np.where(guessed, 0.01, gate)], [one], 0.5)
    assert np.mean(gate[benign] >= odd) == pytest.approx(0.1, abs=0.02)


def _judged(rng: np.random.Generator) -> combination.ScoredNetwork:
    from ids_plugin.schema.score import CLASSES, Scores

    flows = pl.concat([batch.flows for batch in windows(toy.network(int(rng.integers(1000))))])
    size = flows.height
    scores = Scores(
        score=rng.random(size), label=np.ones(size, np.int64), probability=np.zeros((size, len(CLASSES))), models={},  # noqa: E501
        over=np.zeros(size, np.bool_), threshold=np.ones(size),
    )  # fmt: skip
    return combination.ScoredNetwork("toy", flows, scores)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data set"):
        train(Options(data=("nothing:here",)))
    with pytest.raises(InputError, match="no such file"):
        train(Options(data=(f"lab:{tmp_path}/none.parquet",)))
    with pytest.raises(UsageError, match="three networks"):
        train(Options(data=(f"lab:{toy.write(tmp_path / 'one', 1)}",)))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match="Parquet"):
        load(f"lab:{tmp_path / 'bad.parquet'}")
    toy.network(1).drop("proto").write_parquet(tmp_path / "lacks.parquet")
    with pytest.raises(InputError, match="column proto is missing"):
        load(f"lab:{tmp_path / 'lacks.parquet'}")
    toy.network(1).with_columns(label=pl.lit("martian")).write_parquet(tmp_path / "strange.parquet")
    with pytest.raises(InputError, match="martian"):
        load(f"lab:{tmp_path / 'strange.parquet'}")


@pytest.mark.parametrize(("kept", "said"), [("benign", "no attacks"), ("scan", "no benign")])
def test_one_sided_data_is_refused(tmp_path: Path, kept: str, said: str) -> None:
    for seed in range(3):
        toy.network(seed).filter(pl.col("label") == kept).write_parquet(
            tmp_path / f"{seed}.parquet"
        )
    with pytest.raises(
        InputError, match=rf"\d\.parquet, column 'label': the networks to train on have {said}"
    ):
        train(Options(data=(f"lab:{tmp_path}",)))
    with pytest.raises(
        InputError, match=rf"0\.parquet, 2\.parquet, column 'label': .* stop early by have {said}"
    ):
        train(Options(data=toy_bundle.options().data, val=(f"lab:{tmp_path}",)))
