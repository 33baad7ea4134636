"""Bundles: written whole or not at all, and refused with the reason when anything about them is
wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ids_plugin import bundle
from ids_plugin.errors import BundleError, UsageError
from ids_plugin.schema.window import Feature, Spec

SPEC = Spec(
    flow=(Feature("duration", "s", "duration"), Feature("bytes", "bytes", "bytes")),
    step=(Feature("interval", "s", "interval"),),
    context=(Feature("peers", "hosts", "peers"),),
    summary=(),
)


def make(private_key: bytes | None = None) -> bundle.Bundle:
    manifest = {
        "family": "anomaly_net",
        "version": "1",
        "classes": ["benign", "scan"],
        "schema": bundle.describe(SPEC),
        "members": [],
    }
    return bundle.seal(
        manifest, {"model.onnx": b"\x08\x01" * 5000, "lightgbm.txt": b"tree\n" * 99}, private_key
    )


def keys() -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.generate()
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


@pytest.fixture(params=["folder", "one.idsb"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    target = tmp_path / str(request.param)
    bundle.write(make(), target)
    return target


def test_what_is_read_is_what_was_written(written: Path) -> None:
    read = bundle.read(written, spec=SPEC)
    assert (read.id, read.manifest, dict(read.files)) == (
        make().id,
        make().manifest,
        dict(make().files),
    )


def test_both_forms_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    bundle.write(make(), tmp_path / "a.idsb")
    bundle.write(make(), tmp_path / "b.idsb")
    assert (tmp_path / "a.idsb").read_bytes() == (tmp_path / "b.idsb").read_bytes()


def test_writing_replaces_a_bundle_and_leaves_nothing_beside_it(written: Path) -> None:
    bundle.write(make(), written)
    assert bundle.read(written).id == make().id
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_writing_leaves_a_folder_that_is_no_bundle_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is no bundle"):
        bundle.write(make(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["model.onnx", "lightgbm.txt"])
@pytest.mark.parametrize("harm", ["changed", "cut", "absent"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, harm: str) -> None:
    bundle.write(make(), tmp_path / "b")
    path = tmp_path / "b" / name
    data = path.read_bytes()
    path.unlink() if harm == "absent" else path.write_bytes(
        data[:-1] if harm == "cut" else b"x" + data[1:]
    )
    with pytest.raises(BundleError, match=name):
        bundle.read(tmp_path / "b")


def test_an_extra_file_is_refused(tmp_path: Path) -> None:
    bundle.write(make(), tmp_path / "b")
    (tmp_path / "b" / "evil.pkl").write_bytes(b"\x80")
    with pytest.raises(BundleError, match=r"evil\.pkl"):
        bundle.read(tmp_path / "b")


def test_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    bundle.write(make(), tmp_path / "b")
    path = tmp_path / "b" / "manifest.json"
    path.write_text(path.read_text().replace("anomaly_net", "anomaly_not"))
    with pytest.raises(BundleError, match="id doesn't fit"):
        bundle.read(tmp_path / "b")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    bundle.write(make(), tmp_path / "b.idsb")
    data = (tmp_path / "b.idsb").read_bytes()
    (tmp_path / "b.idsb").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BundleError, match="cut short"):
        bundle.read(tmp_path / "b.idsb")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    bundle.write(make(), tmp_path / "b")
    path = tmp_path / "b" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": bundle.FORMAT + 1}))
    with pytest.raises(BundleError, match="newer"):
        bundle.read(tmp_path / "b")


def test_an_absent_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        bundle.find(str(tmp_path / "none"))
    with pytest.raises(BundleError, match="can't be read"):
        bundle.read(tmp_path / "none.idsb")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (dataclasses.replace(SPEC, flow=SPEC.flow[:1]), "column bytes is unknown"),
        (
            dataclasses.replace(SPEC, summary=(Feature("spread", "s", "spread"),)),
            "column spread is missing",
        ),
        (
            dataclasses.replace(SPEC, flow=SPEC.flow[::-1]),
            "column duration where bytes is expected",
        ),
        (
            dataclasses.replace(SPEC, step=(Feature("interval", "ms", "interval"),)),
            "interval in s instead of ms",
        ),
    ],
)
def test_foreign_windows_are_refused_by_column(tmp_path: Path, spec: Spec, said: str) -> None:
    bundle.write(make(), tmp_path / "b")
    with pytest.raises(BundleError, match=said):
        bundle.read(tmp_path / "b", spec=spec)


def test_a_required_signature(tmp_path: Path) -> None:
    private, public = keys()
    bundle.write(make(private), tmp_path / "signed.idsb")
    bundle.write(make(), tmp_path / "unsigned")
    assert bundle.read(tmp_path / "signed.idsb", public_key=public).id == make().id
    with pytest.raises(BundleError, match="another key"):
        bundle.read(tmp_path / "signed.idsb", public_key=keys()[1])
    with pytest.raises(BundleError, match="not signed"):
        bundle.read(tmp_path / "unsigned", public_key=public)
    with pytest.raises(UsageError, match="public key"):
        bundle.read(tmp_path / "signed.idsb", public_key=b"nonsense")
