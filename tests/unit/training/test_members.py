"""How families that aren't networks of classes are trained, and that what serves is what was
trained."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from ids_plugin import bundle, registry
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.schema.score import CLASSES
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.training import normal_traffic
from ids_plugin.training.evaluate import Options as Judging
from ids_plugin.training.evaluate import evaluate
from ids_plugin.training.examples import Examples, Sampling, sample
from ids_plugin.training.options import Fit, Options, quiet
from ids_plugin.training.run import train, train_member
from tests.support import toy_bundle

FIT = Fit(epochs=2, windows=2_000)


@cache
def examples(seed: int) -> Examples:
    return sample(load(toy_bundle.folder()), Sampling(attack=60, benign=200, look_alike=30), seed)


def served(name: str) -> tuple[OnnxMember, Examples]:
    made = train_member(
        registry.load("models", name), Options(data=(), fit=FIT), examples(1), examples(2), quiet
    )
    return OnnxMember(made.data, made.classes, name), examples(2)


@pytest.mark.parametrize("name", ["ae_lstm", "random_forest", "svm_rbf"])
def test_a_member_tells_attacks_from_benign_flows_it_never_saw(name: str) -> None:
    asked, shown = served(name)
    likely = 1 - asked.probabilities(shown.steps, shown.mask, shown.table)[:, 0]
    assert np.median(likely[shown.label > 0]) > np.quantile(likely[shown.label == 0], 0.9)


@pytest.mark.parametrize("classes", [2, 9])
def test_the_forest_serves_what_scikit_learn_computes_with_unknown_values_too(classes: int) -> None:
    taught, shown = (
        replace(one, label=np.minimum(one.label, classes - 1)) for one in (examples(1), examples(2))
    )
    family = registry.load("models", "random_forest")
    made = train_member(family, Options(data=(), fit=FIT), taught, shown, quiet)
    asked = OnnxMember(made.data, made.classes, "here")
    forest = RandomForestClassifier(**family.build(shown.spec, 4), random_state=1)
    forest.fit(taught.table, taught.label, sample_weight=taught.weight * len(taught))
    table = shown.table.copy()
    table[np.random.default_rng(3).random(table.shape) < 0.2] = np.nan
    expected = forest.predict_proba(table)
    got = asked.probabilities(shown.steps, shown.mask, table)[:, forest.classes_]
    assert np.abs(got - expected).max() < 1e-5


def test_the_autoencoder_alone_has_no_prediction() -> None:
    network = registry.load("models", "ae_lstm").build(examples(1).spec, 2)
    fitted = normal_traffic.fit(
        network, examples(1), examples(2), FIT, 1, quiet, training="autoencoder"
    )
    assert isinstance(fitted.module, normal_traffic.Scored)
    assert fitted.module.beta == 0


def test_errors_of_normal_traffic_are_about_1_in_their_own_units() -> None:
    network = registry.load("models", "ae_lstm").build(examples(1).spec, 2)
    normal_traffic.fit(network, examples(1), examples(2), FIT, 1, quiet)
    normal = examples(1).take(np.flatnonzero(examples(1).label == 0))
    again, ahead = normal_traffic._errors(network, normal)
    assert 0.2 < np.average(again, weights=normal.weight) < 1.5
    assert 0.2 < np.average(ahead, weights=normal.weight) < 1.5


def test_min_max_scaling_puts_normal_values_between_0_and_1() -> None:
    network = registry.load("models", "ae_lstm").build(examples(1).spec, 2)
    normal_traffic.fit(
        network, examples(1), examples(2), Fit(epochs=1, windows=100), 1, quiet, errors="plain"
    )
    normal = examples(1).take(np.flatnonzero(examples(1).label == 0))
    scaled = network.table(torch.from_numpy(normal.table)).chunk(2, dim=-1)[0].numpy()
    assert np.quantile(scaled, 0.001) >= -0.01
    assert np.quantile(scaled, 0.999) <= 1.01


@pytest.mark.slow
def test_a_bundle_of_what_knows_only_normal_traffic_alerts_without_naming_a_class() -> None:
    options = Options(
        data=toy_bundle.options().data, family="ae_lstm", beside=(), fit=FIT, false_per_day=1_000
    )
    made = train(options)
    assert made.manifest.trained_classes == ("benign", "other")
    assert made.id == bundle.seal(made.manifest, made.files).id
    judged = evaluate(made, load(toy_bundle.folder()), Judging(explained=5), quiet)
    assert judged["total"]["found_in_any_class"] > 0
    assert set(judged["confusion"]["scan"]) <= {"benign", CLASSES[-1]}


@pytest.mark.parametrize("name", ["cnn", "ae_lstm", "lightgbm", "random_forest", "svm_rbf"])
@pytest.mark.slow
def test_a_member_of_every_kind_is_the_same_to_the_last_bit(name: str) -> None:
    options = Options(data=(), rounds=5, fit=Fit(epochs=1, windows=1_000))
    first, again = (
        train_member(registry.load("models", name), options, examples(1), examples(2), quiet)
        for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("name", ["ae_lstm", "random_forest", "svm_rbf"])
def test_a_window_has_the_same_bits_wherever_in_the_batch_it_stands(name: str) -> None:
    asked, shown = served(name)
    whole = asked.probabilities(shown.steps, shown.mask, shown.table)
    order = np.random.default_rng(4).permutation(len(shown))
    assert (
        asked.probabilities(shown.steps[order], shown.mask[order], shown.table[order])
        == whole[order]
    ).all()
