"""`ids-plugin calibrate`: from a log to a bundle that scans."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ids_plugin import bundle, cli
from ids_plugin.schema import flow
from ids_plugin.sinks.flow_files import write
from ids_plugin.windows import spec
from tests.support import toy, toy_bundle


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours and a half of normal traffic as Zeek's JSON."""
    path = tmp_path_factory.mktemp("logs") / "conn.log"
    normal = (
        toy.network(5, minutes=150).filter(pl.col("label") == "benign").sort(flow.known(), "uid")
    )
    with path.open("wb") as stream:
        write([normal], "json", stream)
    return path


@pytest.fixture
def trained(tmp_path: Path) -> str:
    bundle.write(toy_bundle.trained(), tmp_path / "trained")
    return str(tmp_path / "trained")


def test_a_bundle_is_calibrated_verified_and_scans(
    log: Path, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.idsb"
    told = ["calibrate", "--bundle", trained, "--budget", "50/day", str(log), "--out"]
    assert cli.main([*told, str(out), "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    made = bundle.read(out, spec=spec())
    assert (result["bundle"], result["of"]) == (made.id, toy_bundle.trained().id)
    digest = hashlib.sha256(log.read_bytes()).hexdigest()
    assert made.manifest.document["calibration"]["data"] == [{"file": "conn.log", "sha256": digest}]
    assert made.manifest.files == toy_bundle.trained().manifest.files
    assert "held back:" in said.err

    assert cli.main([*told, str(tmp_path / "again"), "--quiet"]) == 0
    assert bundle.read(tmp_path / "again").id == made.id
    assert cli.main(["bundle", "verify", str(out)]) == 0
    assert cli.main(["bundle", "show", str(out)]) == 0
    assert "calibrated on    conn.log" in capsys.readouterr().out
    assert (
        cli.main(
            ["scan", str(log), "--bundle", str(out), "--out", str(tmp_path / "report"), "--quiet"]
        )
        == 0
    )
    ledger = json.loads((tmp_path / "report/ledger.json").read_text())["total"]
    assert ledger["scored"] == result["flows"] + result["held_back"]["flows"]
    assert ledger["over_threshold"] <= result["may_be_over"] + result["held_back"]["after"]["over"]


def test_a_signature_does_not_survive_and_a_key_makes_a_new_one(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(private)
    bundle.write(bundle.sign(toy_bundle.trained(), private), tmp_path / "signed")
    told = [
        "calibrate",
        "--bundle",
        str(tmp_path / "signed"),
        "--budget",
        "2/hour",
        str(log),
        "--out",
    ]
    assert cli.main([*told, str(tmp_path / "bare")]) == 0
    assert "was signed and the new one isn't" in capsys.readouterr().err
    assert bundle.read(tmp_path / "bare").signature is None
    assert cli.main([*told, str(tmp_path / "kept"), "--key", str(tmp_path / "key.pem")]) == 0
    assert bundle.read(tmp_path / "kept", public_key=public).id == bundle.read(tmp_path / "bare").id


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--budget", "1/day"], 2, "too little traffic for 1 alerts a day"),
        (["--budget", "1/day", "--bundle", "anomaly_net"], 2, "too few flows for 1 alerts a day"),
        (["--budget", "20"], 2, "--budget '20' is no number of alerts in a time (such as 20/day)"),
        (["--budget", "0/day"], 2, "--budget '0/day'"),
        (["--budget", "-1/day"], 2, "--budget"),
        (["--budget", "20/day", "--bundle", "nowhere"], 2, "no such bundle"),
        (["--budget", "20/day", "--allow", "nowhere.toml"], 2, "nowhere.toml"),
        (["--budget", "20/day", "nowhere.log"], 3, "nowhere.log"),
    ],
)
def test_what_can_not_be_is_said_and_nothing_is_written(
    options: list[str],
    code: int,
    words: str,
    log: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    inputs = [] if "nowhere.log" in options else [str(log)]
    try:
        found = cli.main(["calibrate", *options, *inputs, "--out", str(out)])
    except SystemExit as stop:
        found = int(stop.code or 0)
    assert found == code
    assert words in capsys.readouterr().err
    assert not out.exists()
