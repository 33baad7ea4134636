"""`ids-plugin train` and `compress`: from labelled flows to a bundle that scans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ids_plugin import bundle, cli
from ids_plugin.windows import spec
from tests import toy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("networks")
    for seed in range(3):
        toy.network(seed, minutes=5).write_parquet(folder / f"toy-{seed}.parquet")
    return f"lab:{folder}"


def test_a_bundle_is_trained_compressed_and_scans(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large, small = tmp_path / "large", tmp_path / "small.idsb"
    options = ["--seed", "3", "--epochs", "1", "--json", "--quiet"]
    assert cli.main(["train", "--data", data, "--out", str(large), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    trained = bundle.read(large, spec=spec())
    assert (told["bundle"], told["out"], told["metrics"]) == (trained.id, str(large), trained.manifest["metrics"])
    assert trained.manifest["training"]["seed"] == 3

    assert cli.main(["compress", str(large), "--data", data, "--out", str(small)]) == 0
    shown = capsys.readouterr()
    compressed = bundle.read(small, spec=spec())
    assert "int8" in shown.out
    assert compressed.id[:12] in shown.err
    assert len(compressed.files["model.onnx"]) < len(trained.files["model.onnx"])

    toy.network(7, minutes=5).write_parquet(tmp_path / "unseen.parquet")
    arguments = ["--bundle", str(small), "--data", f"lab:{tmp_path / 'unseen.parquet'}", "--explained", "1", "--json"]
    assert cli.main(["evaluate", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == compressed.id


def test_what_cannot_be_is_refused_before_anything_is_written(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["train", "--data", f"lab:{tmp_path}/none", "--out", str(out)]) == 3
    assert cli.main(["train", "--data", data, "--family", "crystal_ball", "--out", str(out)]) == 2
    assert cli.main(["compress", "default", "--data", data, "--steps", "magic", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "crystal_ball" in said
    assert "magic" in said
    assert "Traceback" not in said
    assert not out.exists()
