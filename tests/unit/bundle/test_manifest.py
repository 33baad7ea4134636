"""The manifest: what is read is typed, what is wrong is refused by its path, what is unknown is
kept."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ids_plugin import bundle
from ids_plugin.bundle import Manifest
from ids_plugin.errors import BundleError


def shipped() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (bundle.find("anomaly_net") / "manifest.json").read_text()
    )
    return document


def changed(path: str, value: object) -> dict[str, Any]:
    """The shipped manifest with another value at a path of keys and indices; without it for
    `...`."""
    document = copy.deepcopy(shipped())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner: Any = document
    for part in parents:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


def test_what_the_shipped_bundle_says_is_typed() -> None:
    manifest = Manifest.read(shipped())
    assert [member.kind for member in manifest.members] == ["onnx", "lightgbm", "behaviour"]
    assert manifest.members[0].classes == manifest.classes == manifest.trained_classes
    assert manifest.prefilter is not None
    assert len(manifest.prefilter.features) == 32
    assert manifest.training.data["train"][0].flows > 0
    assert manifest.baseline["failed"].median == 0
    assert manifest.combination is not None
    assert manifest.combination.weights.keys() == {member.name for member in manifest.members}


def test_sealing_it_again_gives_the_same_id_and_the_same_bytes() -> None:
    made = bundle.read(bundle.find("anomaly_net"))
    assert bundle.seal(made.manifest, made.files).id == made.id == shipped()["id"]
    assert made.manifest.document == shipped()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", ..., "version is missing"),
        ("version", 1, "version has to be a text, not 1"),
        ("classes", "benign", "classes has to be a list"),
        ("members.1.kind", ..., r"members\[1\]\.kind is missing"),
        ("members.0.classes.2", 7, r"members\[0\]\.classes\[2\] has to be a text, not 7"),
        ("members.0", [], r"members\[0\] has to be an object"),
        ("schema.fingerprint", None, "schema.fingerprint is missing"),
        ("schema.flow.0", ["duration"], r"schema\.flow\[0\] has to have 2 items"),
        ("schema.earlier", True, "schema.earlier has to be a whole number, not True"),
        ("combination.bias.scan", "high", "combination.bias.scan has to be a number, not 'high'"),
        ("gate.threshold", ..., "gate.threshold is missing"),
        ("reference.failed.low", "0", "reference.failed.low has to be a number, not '0'"),
        ("thresholds", [], "thresholds has to be an object"),
        ("training.data.train.0.flows", 1.5, r"training\.data\.train\[0\]\.flows has to be a whole"),  # noqa: E501
        ("judged.0.hours", "1", r"judged\[0\]\.hours has to be a number"),
        ("compression.0", 3, r"compression\[0\] has to be an object"),
    ],
)  # fmt: skip
def test_a_key_that_is_missing_or_wrong_is_refused_by_its_path(
    path: str, value: object, message: str
) -> None:
    document = changed(path, value)
    with pytest.raises(BundleError, match=f"somewhere: manifest.json: {message}"):
        Manifest.read(document, location="somewhere")
    with pytest.raises(BundleError, match=message):
        bundle.seal(document, {})


@pytest.mark.parametrize("path", ["note", "members.0.note", "training.note", "gate.note"])
def test_unknown_keys_are_kept(path: str) -> None:
    document = changed(path, {"by": ["somebody", 1, None]})
    manifest = bundle.seal(document, {}).manifest
    assert manifest.replaced(version="2").document == {**manifest.document, "version": "2"}
    written = json.dumps(manifest.document, sort_keys=True)
    assert '"note": {"by": ["somebody", 1, null]}' in written


def test_null_counts_as_absent_and_is_written_as_null_again() -> None:
    manifest = Manifest.read({**shipped(), "gate": None, "compression": None, "judged": None})
    assert (manifest.prefilter, manifest.compression, manifest.judged) == (None, (), ())
    assert manifest.document["gate"] is None


def test_numbers_stay_as_they_were_written() -> None:
    document = changed("gate.threshold", 1)
    assert json.dumps(Manifest.read(document).document) == json.dumps(document)


def test_what_is_replaced_has_the_key_of_the_file() -> None:
    manifest = Manifest.read(shipped())
    assert manifest.prefilter is not None
    other = manifest.replaced(prefilter=manifest.prefilter.replaced(threshold=0.5))
    assert other.document["gate"] == {**shipped()["gate"], "threshold": 0.5}
    with pytest.raises(BundleError, match="gate has to be an object"):
        manifest.replaced(prefilter=3)
