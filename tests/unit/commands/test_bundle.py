"""`ids-plugin bundle`: list, show, verify, sign."""

from __future__ import annotations

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

from ids_plugin import bundle, cli

DEFAULT = bundle.read(bundle.find("default"))


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Files with a private and its public key."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def run(*arguments: str | Path) -> int:
    return cli.main(["bundle", *map(str, arguments)])


def test_list_names_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert DEFAULT.id[:12] in capsys.readouterr().out


def test_show_tells_what_it_was_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "default") == 0
    shown = capsys.readouterr().out
    assert DEFAULT.id in shown
    for member in DEFAULT.manifest.members:
        assert member.name in shown
    for files in DEFAULT.manifest.training.data.values():
        assert files[0].file in shown
    for label in DEFAULT.manifest.thresholds:
        assert label in shown


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", "--json", "show", "default"]) == 0
    assert json.loads(capsys.readouterr().out) == DEFAULT.manifest.document
    assert cli.main(["bundle", "--json", "list"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["name"]: row["id"] for row in rows}["default"] == DEFAULT.id
    assert {row["name"] for row in rows} == {"default", "anomaly_net"}
    assert cli.main(["bundle", "--json", "verify", "default"]) == 0
    assert json.loads(capsys.readouterr().out)["intact"] is True


def test_a_signed_copy_is_verified_by_its_key_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys(tmp_path, "ours")
    _, other = keys(tmp_path, "theirs")
    signed = tmp_path / "signed.idsb"
    assert run("sign", "default", "--key", private, "--out", signed) == 0
    assert bundle.read(signed).id == DEFAULT.id
    assert run("verify", signed, "--key", public) == 0
    assert "signed by the key given" in capsys.readouterr().out
    assert run("verify", signed, "--key", other) == 2
    assert "another key" in capsys.readouterr().err
    assert run("verify", "default", "--key", public) == 2
    assert "not signed" in capsys.readouterr().err
    assert run("sign", "default", "--key", public, "--out", tmp_path / "no.idsb") == 2
    assert not (tmp_path / "no.idsb").exists()


def test_a_damaged_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle.write(DEFAULT, tmp_path / "b")
    model = tmp_path / "b" / next(iter(DEFAULT.files))
    model.write_bytes(model.read_bytes()[:-1])
    assert run("verify", tmp_path / "b") == 2
    assert model.name in capsys.readouterr().err
    assert run("show", tmp_path / "none") == 2
    assert run("verify", "default", "--key", tmp_path / "none.pem") == 2
