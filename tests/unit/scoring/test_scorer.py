"""Scores: the same bits in any batch, every member's opinion beside the whole's, and a gate that
changes no alert."""

from __future__ import annotations

import numpy as np
import pytest

from ids_plugin import bundle
from ids_plugin.bundle import Bundle
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring.lightgbm import Trees
from ids_plugin.scoring.scorer import Scorer
from tests.support import toy_bundle


@pytest.fixture(params=["trained", "small", "default"])
def any_bundle(request: pytest.FixtureRequest) -> Bundle:
    if request.param == "default":
        return bundle.read(bundle.find("anomaly_net"))
    return toy_bundle.trained() if request.param == "trained" else toy_bundle.small()


@pytest.mark.parametrize("size", [1, 7, 64, 100])
def test_a_row_has_the_same_bits_in_any_batch(any_bundle: Bundle, size: int) -> None:
    scorer, windows = Scorer(any_bundle), toy_bundle.batch()
    rows = np.arange(0, len(windows), 9)[:200]
    steps, table = windows.steps(rows), windows.table(rows)
    whole = scorer.score_arrays(steps.values, steps.mask, table)
    attention = scorer.attention(steps.values, steps.mask, table)
    assert attention is not None
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        alone = scorer.score_arrays(steps.values[part], steps.mask[part], table[part])
        assert (alone.probability == whole.probability[part]).all()
        for name, values in alone.models.items():
            assert (values == whole.models[name][part]).all(), name
        again = scorer.attention(steps.values[part], steps.mask[part], table[part])
        assert again is not None
        assert np.array_equal(again, attention[part])


def test_a_row_does_not_depend_on_its_neighbours(any_bundle: Bundle) -> None:
    scorer, windows = Scorer(any_bundle), toy_bundle.batch()
    rows = np.arange(130)
    steps, table = windows.steps(rows), windows.table(rows)
    before = scorer.score_arrays(steps.values, steps.mask, table)
    table[1::2] *= 1e6
    after = scorer.score_arrays(steps.values, steps.mask, table)
    assert (before.probability[::2] == after.probability[::2]).all()


def test_probabilities_are_probabilities(any_bundle: Bundle) -> None:
    scores = Scorer(any_bundle).score(toy_bundle.batch())
    assert np.allclose(scores.probability.sum(axis=1), 1)
    assert ((scores.score >= 0) & (scores.score <= 1)).all()
    assert (scores.label > CLASSES.index("benign")).all()
    assert (scores.over == (scores.score >= scores.threshold)).all()


def test_the_gate_spares_most_flows_and_changes_no_score_it_lets_pass() -> None:
    windows = toy_bundle.batch()
    gated, asked = (Scorer(toy_bundle.trained(), cascade=on).score(windows) for on in (True, False))
    passed = ~np.isnan(gated.models["anomaly_net"])
    assert 0 < passed.mean() < 0.5
    assert (gated.probability[passed] == asked.probability[passed]).all()
    assert not np.isnan(asked.models["anomaly_net"]).any()
    lost = asked.over & ~gated.over
    assert lost.sum() <= 0.01 * asked.over.sum()


def test_every_attack_is_found_by_the_whole_and_by_the_network_alone() -> None:
    windows = toy_bundle.batch()
    scores = Scorer(toy_bundle.trained(), cascade=False).score(windows)
    label = windows.flows["label"].to_numpy()
    for name in ("scan", "brute_force", "command_and_control"):
        mine = label == name
        assert (scores.over[mine] & (scores.label[mine] == CLASSES.index(name))).any(), name
        assert np.median(scores.models["anomaly_net"][mine]) > 0.5, name
    assert scores.over[label == "benign"].mean() < 0.02


def test_attention_weighs_flows_and_never_padding() -> None:
    windows = toy_bundle.batch()
    rows = np.arange(100)
    steps = windows.steps(rows)
    weights = Scorer(toy_bundle.small()).attention(steps.values, steps.mask, windows.table(rows))
    assert weights is not None
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert not weights[~steps.mask].any()


def test_contributions_sum_to_the_trees_raw_score() -> None:
    made, windows = toy_bundle.trained(), toy_bundle.batch()
    table = windows.table(np.arange(50))
    trees = Trees(made.file("lightgbm.txt"))
    shares = Scorer(made).contributions(table, CLASSES.index("scan"))["lightgbm"].values
    at = made.manifest.members[1].classes.index("scan")
    assert shares.shape == (50, len(windows.spec.table) + 1)
    assert np.allclose(shares.sum(axis=1), trees.raw(table)[:, at])


def test_an_empty_batch() -> None:
    windows = toy_bundle.batch()
    none = np.zeros(0, np.int64)
    steps = windows.steps(none)
    assert (
        len(
            Scorer(toy_bundle.small())
            .score_arrays(steps.values, steps.mask, windows.table(none))
            .score
        )
        == 0
    )


@pytest.mark.parametrize("name", ["model.onnx", "lightgbm.txt", "gate.txt"])
def test_a_model_that_does_not_load_is_refused(name: str) -> None:
    made = toy_bundle.trained()
    broken = bundle.seal(made.manifest, {**made.files, name: b"not a model"})
    with pytest.raises(BundleError, match=name.split(".")[0]):
        Scorer(broken)
