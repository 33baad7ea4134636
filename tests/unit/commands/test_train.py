"""`ids-plugin train` and `compress`: from labelled flows to a bundle that scans."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ids_plugin import bundle, cli
from ids_plugin.errors import UsageError
from ids_plugin.windows import spec
from tests.support import toy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("networks")
    for seed in range(3):
        toy.network(seed, minutes=5).write_parquet(folder / f"toy-{seed}.parquet")
    return f"lab:{folder}"


@pytest.mark.slow
def test_a_bundle_is_trained_compressed_and_scans(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large, small = tmp_path / "large", tmp_path / "small.idsb"
    record = tmp_path / "record.json"
    options = ["--seed", "3", "--epochs", "1", "--json", "--quiet", "--record", str(record)]
    assert cli.main(["train", "--data", data, "--out", str(large), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    trained = bundle.read(large, spec=spec())
    assert (told["bundle"], told["out"], told["metrics"]) == (
        trained.id,
        str(large),
        trained.manifest.metrics,
    )
    assert trained.manifest.training.seed == 3

    kept = json.loads(record.read_text())
    assert (kept["command"], kept["options"]["seed"], kept["result"]["id"]) == (
        "train",
        3,
        trained.id,
    )
    assert {len(one["sha256"]) for one in kept["data"]} == {64}
    assert {"ids-plugin", "torch", "numpy"} <= kept["versions"].keys()

    assert cli.main(["compress", str(large), "--data", data, "--out", str(small)]) == 0
    shown = capsys.readouterr()
    compressed = bundle.read(small, spec=spec())
    assert "int8" in shown.out
    assert compressed.id[:12] in shown.err
    assert len(compressed.files["model.onnx"]) < len(trained.files["model.onnx"])

    options = [
        "--steps",
        "tune=1,int8",
        "--train",
        data,
        "--record",
        str(tmp_path / "record.json"),
        "--json",
    ]
    assert (
        cli.main(
            ["compress", str(large), "--data", data, "--out", str(tmp_path / "tuned"), *options]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in told["compression"]] == ["fp32", "tune=1", "int8"]
    assert all(
        row["batch_1_us"] > 0 and row["peak_mb"] > row["own_mb"] for row in told["compression"]
    )
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["bundle"], record["from"], record["options"]["steps"]) == (
        told["bundle"],
        trained.id,
        "tune=1,int8",
    )

    toy.network(7, minutes=5).write_parquet(tmp_path / "unseen.parquet")
    arguments = [
        "--bundle",
        str(small),
        "--data",
        f"lab:{tmp_path / 'unseen.parquet'}",
        "--explained",
        "1",
        "--json",
    ]
    assert cli.main(["evaluate", *arguments, "--out", str(tmp_path / "judged")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bundle"] == compressed.id
    judged = bundle.read(tmp_path / "judged", spec=spec())
    assert dict(judged.files) == dict(compressed.files)
    assert [judgement.of for judgement in judged.manifest.judged] == [compressed.id]
    assert "192.168" not in json.dumps(judged.manifest.document["judged"])
    assert cli.main(["bundle", "show", str(tmp_path / "judged")]) == 0
    card = capsys.readouterr().out
    assert f"unseen: {found['total']['found']} of 3 (host, class) found in class" in card
    assert "not trained to name flood" in card


def test_what_cannot_be_is_refused_before_anything_is_written(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["train", "--data", f"lab:{tmp_path}/none", "--out", str(out)]) == 3
    assert cli.main(["train", "--data", data, "--family", "crystal_ball", "--out", str(out)]) == 2
    assert (
        cli.main(["compress", "anomaly_net", "--data", data, "--steps", "magic", "--out", str(out)])
        == 2
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not a bundle")
    assert cli.main(["train", "--data", data, "--out", str(tmp_path / "mine")]) == 2
    assert (
        cli.main(
            [
                "train",
                "--data",
                data,
                "--out",
                str(out),
                "--record",
                str(tmp_path / "none" / "r.json"),
            ]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "is there already and is no bundle" in said
    assert "no such folder" in said
    assert "crystal_ball" in said
    assert "magic" in said
    assert "Traceback" not in said
    assert not out.exists()


@pytest.mark.slow
def test_an_interrupted_training_leaves_nothing(data: str, tmp_path: Path) -> None:
    arguments = [
        "train",
        "--data",
        data,
        "--out",
        str(tmp_path / "out"),
        "--record",
        str(tmp_path / "record.json"),
    ]
    run = "import sys; from ids_plugin.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", run, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "networks: " in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT
    assert said.endswith("ids-plugin: interrupted\n")
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UsageError, match="can't write the bundle"):
            bundle.write(bundle.read(bundle.find("default")), tmp_path / "out.idsb")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
