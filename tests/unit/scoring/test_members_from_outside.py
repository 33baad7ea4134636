"""A member costs one file: named otherwise it changes nothing, and one of another package is
trained, loaded, scored and explained without a word about it in the product."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ids_plugin import bundle, registry
from ids_plugin.bundle import Bundle
from ids_plugin.explain import Explainer
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema.alert import Document
from ids_plugin.scoring.scorer import Scorer
from ids_plugin.sources.ordering import as_scanned
from ids_plugin.training import examples
from ids_plugin.training.run import train
from tests.support import toy, toy_bundle

MODULE = '''
"""A member of another package: class means over the table."""

import json

import numpy as np

from ids_plugin.schema.score import CLASSES
from ids_plugin.training import TrainedMember


def shown(table):
    return np.nan_to_num(np.tanh(table.astype(np.float64)))


class ToyFamily:
    name = "class_means"
    kind = "class_means"
    paper = "none"

    def build(self, spec, classes):
        return {"sharpness": 4.0}


class ToyTrainer:
    name = "class_means"

    def train(self, family, train_set, stop_set, options, progress):
        labels = np.unique(train_set.label).tolist()
        values = shown(train_set.table)
        means = [values[train_set.label == label].mean(axis=0) for label in labels]
        sharpness = family.build(train_set.spec, len(labels))["sharpness"]
        model = json.dumps([(sharpness * (mean - means[0])).tolist() for mean in means])
        return TrainedMember("class_means", "means.json", model.encode(), tuple(labels), {})


class ToyMember:
    contribution_method = "class_means"

    def __init__(self, weights, classes):
        self.weights, self.classes = np.array(weights), [CLASSES.index(name) for name in classes]

    def probabilities(self, steps, mask, table):
        logits = shown(table) @ self.weights.T
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        out = np.zeros((len(table), len(CLASSES)))
        out[:, self.classes] = odds / odds.sum(axis=1, keepdims=True)
        return out

    def contributions(self, table, label):
        shares = np.zeros((len(table), table.shape[1] + 1))
        if label in self.classes:
            shares[:, :-1] = shown(table) * self.weights[self.classes.index(label)]
        return shares


class ToyKind:
    name = "class_means"

    def open(self, bundle, entry):
        return ToyMember(json.loads(bundle.file(entry.require_file())), entry.classes)


FAMILY, TRAINER, MEMBER = ToyFamily(), ToyTrainer(), ToyKind()
'''
ENTRY_POINTS = """
[ids_plugin.models]
class_means = class_means_plugin:FAMILY
[ids_plugin.trainers]
class_means = class_means_plugin:TRAINER
[ids_plugin.members]
class_means = class_means_plugin:MEMBER
"""


@pytest.fixture
def _class_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another package with a model family, its trainer and its kind of member."""
    (tmp_path / "class_means_plugin.py").write_text(MODULE)
    described = tmp_path / "class_means_plugin-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: class-means\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    registry._entries.cache_clear()
    yield
    monkeypatch.undo()
    importlib.invalidate_caches()
    registry._entries.cache_clear()


def renamed(made: Bundle, old: str, new: str) -> Bundle:
    """The bundle with a member of another name."""
    manifest: dict[str, Any] = json.loads(json.dumps(made.manifest.document))
    for member in manifest["members"]:
        member["name"] = new if member["name"] == old else member["name"]
    weights = manifest["combination"]["weights"]
    manifest["combination"]["weights"] = {
        new if name == old else name: weight for name, weight in weights.items()
    }
    return bundle.seal(manifest, made.files)


def alerts(made: Bundle) -> list[Document]:
    """Documents of a toy network, without what names the bundle: its id is part of theirs."""
    flows = toy.network(5, minutes=15)
    ordered = as_scanned(flows)
    pipeline = Pipeline(made)
    documents = pipeline.step(ordered) + pipeline.finish()
    for document in documents:
        document["ids_plugin"].pop("bundle")
        document["ids_plugin"]["fold"].pop("id")
        document.pop("event")
    return documents


def test_a_members_name_changes_nothing_but_the_name() -> None:
    shipped = bundle.read(bundle.find("anomaly_net"))
    before = alerts(shipped)
    after = alerts(renamed(shipped, "lightgbm", "trees"))
    assert before
    assert any("tree_shap" in text for text in map(json.dumps, before))
    for document in after:
        scores = document["ids_plugin"]["scores"]
        scores["lightgbm"] = scores.pop("trees")
    assert before == after


def test_a_members_name_changes_no_explanation() -> None:
    shipped = bundle.read(bundle.find("anomaly_net"))
    windows = next(examples.windows(toy.network(99, minutes=15)))
    evidence = []
    for made in (shipped, renamed(shipped, "lightgbm", "trees")):
        scorer = Scorer(made, cascade=False)
        scores = scorer.score(windows)
        explainer = Explainer(scorer, windows.spec, made.baseline)
        rows = np.flatnonzero(scores.over)[::20][:30].tolist()
        evidence.append([explainer.explain(windows, row, int(scores.label[row])) for row in rows])
    assert len(evidence[0]) > 5
    assert evidence[0] == evidence[1]


@pytest.mark.usefixtures("_class_means")
@pytest.mark.slow
def test_a_member_of_another_package_is_trained_loaded_scored_and_explained(
    tmp_path: Path,
) -> None:
    options = toy_bundle.options(beside=("class_means",), family="lightgbm")
    made = train(options)
    bundle.write(made, tmp_path / "made")
    loaded = bundle.read(tmp_path / "made")
    scorer = Scorer(loaded)
    assert list(scorer.members) == ["lightgbm", "class_means"]
    windows = toy_bundle.batch()
    assert {"lightgbm", "class_means"} == scorer.score(windows).models.keys()
    table = windows.table(np.arange(2))
    assert scorer.contributions(table, 1).keys() == {"lightgbm", "class_means"}
    methods = {
        document["ids_plugin"]["evidence"]["method"].partition("+")[2]
        for document in alerts(loaded)
        if "evidence" in document["ids_plugin"]
    }
    assert methods == {"tree_shap+class_means"}
