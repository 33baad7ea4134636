"""The contacts family: captures → a bundle with detectors, the same for the same seed."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from ids_plugin import api
from ids_plugin.bundle import Bundle, seal
from ids_plugin.compression.contact_network import with_small_networks
from ids_plugin.datasets import real_captures
from ids_plugin.detectors.contact_profile.evidence import flow_weights
from ids_plugin.detectors.contact_profile.model import ContactModel, network_inputs_of
from ids_plugin.detectors.contact_profile.network import ContactNetwork
from ids_plugin.detectors.contacts import ContactDetector
from ids_plugin.engines.detectors import DetectorEngine
from ids_plugin.errors import InputError
from ids_plugin.training.contacts import bundle as training
from ids_plugin.training.contacts.bundle import ContactOptions, Trained
from ids_plugin.training.contacts.examples import (
    BENIGN,
    CONTROL,
    ContactExamples,
    examples,
    judge,
    smallest_threshold,
)
from ids_plugin.training.contacts.network import NetworkFit
from ids_plugin.training.contacts.voters import ContactFit, sample, training_rows, weights
from tests.support.made_captures import CONTROLLER, write_captures

FIT = ContactFit(trees=8, rows_of_leaf=2, network=NetworkFit(epochs=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("captures")
    write_captures(made, attacked=4, quiet=4)
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> ContactExamples:
    return examples(real_captures.load(f"real:{folder}"))


@pytest.fixture(scope="module")
def trained(folder: Path) -> Trained:
    return training.train(ContactOptions((f"real:{folder}",), fit=FIT), lambda text: None)


@pytest.fixture(scope="module")
def small(trained: Trained) -> Bundle:
    return with_small_networks(trained.bundle, trained.shown)


def model_of(bundle: Bundle) -> ContactModel:
    detector = DetectorEngine(bundle).detectors["control"]
    assert isinstance(detector, ContactDetector)
    return detector.model


def test_profiles_have_labels_and_normal_days(data: ContactExamples) -> None:
    assert set(data.label.tolist()) == {CONTROL, BENIGN}
    assert set(data.case[data.label == CONTROL].tolist()) == {"10.0.0.5"}
    quiet = [capture for capture in data.captures if capture.is_benign]
    assert data.benign_days() == pytest.approx(sum(capture.hours for capture in quiet) / 24)
    assert (data.flows >= 5).all()


def test_rows_of_held_out_sources_and_their_malware_are_not_trained_on(
    data: ContactExamples,
) -> None:
    is_held = data.source == "set0"
    rows = training_rows(data, is_held, FIT)
    assert "set0" not in set(data.source[rows].tolist())
    excluded = training_rows(data, is_held, ContactFit(excluded=("set1",)))
    assert not ((data.source[excluded] == "set1") & (data.label[excluded] == CONTROL)).any()


def test_both_classes_weigh_alike_and_contacts_bring_a_bounded_number(
    data: ContactExamples,
) -> None:
    weight = weights(data, FIT)
    assert weight[data.label == CONTROL].sum() == pytest.approx(len(data) / 2)
    chosen = sample(data.contact, np.arange(len(data)), 3, np.random.default_rng(1))
    assert np.unique(data.contact[chosen], return_counts=True)[1].max() == 3
    assert (np.diff(chosen) > 0).all()


def test_alert_groups_are_counted_and_thresholds_keep_the_budget(data: ContactExamples) -> None:
    everything = judge(data, np.ones(len(data), np.bool_))
    assert len(everything.cases) == 4
    assert everything.false_groups >= 4
    score = np.where(data.label == CONTROL, 0.9, 0.1)
    rows = np.ones(len(data), np.bool_)
    threshold = smallest_threshold(data, score, rows, 0.0)
    assert judge(data, score >= threshold).false_groups == 0


def test_without_facts_only_connections_are_left(data: ContactExamples) -> None:
    blind = data.without_facts()
    assert np.isnan(blind.features[:, 34:]).all()
    np.testing.assert_array_equal(blind.features[:, :34], data.features[:, :34])


def test_the_bundle_names_its_sources_and_opens(trained: Trained, folder: Path) -> None:
    manifest = trained.bundle.manifest
    named = {data.file for data in manifest.training.data["train"]}
    assert named == {path.name for path in (folder / "captures").iterdir()}
    assert all(len(data.sha256) == 64 for data in manifest.training.data["train"])
    assert manifest.training.seed == 1
    assert manifest.metrics["out_of_fold_with_logs"]["cases"] == 4
    assert [entry.kind for entry in manifest.detectors] == ["counters", "contacts"]
    assert model_of(trained.bundle).network is not None


def test_a_seed_gives_the_same_bytes(trained: Trained, folder: Path) -> None:
    again = training.train(ContactOptions((f"real:{folder}",), fit=FIT), lambda text: None)
    assert again.bundle.id == trained.bundle.id


def test_a_bundle_without_a_network_opens(trained: Trained) -> None:
    bundle = trained.bundle
    files = {name: text for name, text in bundle.files.items() if not name.endswith(".onnx")}
    entries = [dict(entry.document) for entry in bundle.manifest.detectors]
    entries[1]["files"] = {n: f for n, f in entries[1]["files"].items() if n != "network"}
    plain = seal(bundle.manifest.replaced(detectors=entries), files)
    assert model_of(plain).network is None
    assert model_of(plain).network_weight == 0


def test_int8_is_smaller_and_near(trained: Trained, small: Bundle) -> None:
    name = training.NETWORK
    assert len(small.files[name]) < 0.8 * len(trained.bundle.files[name])
    (step,) = small.manifest.compression
    assert step["step"] == "int8"
    assert step["largest_change"] < 0.2
    before = ContactNetwork(trained.bundle.files[name], name).probability(trained.shown)
    after = ContactNetwork(small.files[name], name).probability(trained.shown)
    np.testing.assert_allclose(before, after, atol=0.2)


def test_scores_and_attention_do_not_depend_on_the_batch(
    small: Bundle, data: ContactExamples
) -> None:
    model = model_of(small)
    profiles = data.profiles()
    whole, attention = model.score(profiles), model.attention(profiles)
    assert attention is not None
    for size in (1, 7, 65):
        rows = np.random.default_rng(size).choice(len(data), size, replace=False)
        part = profiles.take(rows)
        np.testing.assert_array_equal(model.score(part), whole[rows])
        np.testing.assert_array_equal(model.attention(part), attention[rows])


def test_attention_sums_to_one_over_the_flows_there(small: Bundle, data: ContactExamples) -> None:
    profiles = data.profiles()
    attention = model_of(small).attention(profiles)
    assert attention is not None
    np.testing.assert_allclose(attention.sum(axis=1), 1, atol=1e-5)
    assert (attention[~network_inputs_of(profiles).mask] == 0).all()


def test_attention_is_evidence_only_where_deletion_shows_it(
    small: Bundle, data: ContactExamples
) -> None:
    model = model_of(small)
    profiles = data.profiles()
    scores = model.score(profiles)
    weighed = [
        flow_weights(model, profiles.take(np.array([row])), float(scores[row]))
        for row in range(0, len(data), 9)
    ]
    assert any(weight is None for weight in weighed)
    bare = profiles.take(np.array([0]))._replace(flows=np.array([1]))
    assert flow_weights(model, bare, 1.0) is None


def test_the_front_door_trains_a_bundle_that_finds_the_beacon(folder: Path) -> None:
    bundle = api.train([f"real:{folder}"], family="contacts", epochs=1, false_alerts_per_day=1e3)
    log = folder / "captures" / "set0__made-0" / "conn.log"
    alerts = api.scan(log, bundle=bundle).alerts
    found = alerts.filter(alerts["class"] == "command_and_control")
    assert set(found["destination"]) == {CONTROLLER}
    assert json.loads(bundle.files[training.SETTINGS])["network"] > 0


def test_data_without_control_is_refused(tmp_path: Path) -> None:
    write_captures(tmp_path, attacked=0, quiet=1)
    captures = chain(real_captures.load(f"real:{tmp_path}"))
    assert not (examples(captures).label == CONTROL).any()
    with pytest.raises(InputError, match="no remote control"):
        training.train(ContactOptions((f"real:{tmp_path}",), fit=FIT), lambda text: None)
