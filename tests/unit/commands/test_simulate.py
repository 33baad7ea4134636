"""`ids-plugin simulate`: files with what the record says, a check of them, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import orjson
import polars as pl
import pytest

from ids_plugin import cli
from ids_plugin.schema.flow import SCHEMA
from ids_plugin.simulation import corpus
from ids_plugin.simulation.networks import Ranges


@pytest.fixture(scope="module")
def flows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "flows.parquet"
    options = ["--seed", "4", "--networks", "2", "--hours", "2", "--out", str(path)]
    assert cli.main(["simulate", *options]) == 0
    return path


def test_the_record_says_what_is_in_the_file(
    tmp_path: Path, flows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "flows.parquet"
    options = ["--seed", "4", "--networks", "2", "--hours", "2", "--out", str(path), "--json"]
    assert cli.main(["simulate", *options]) == 0
    record = orjson.loads(capsys.readouterr().out)
    flows = pl.read_parquet(path)
    assert dict(flows.schema) == SCHEMA
    assert flows.equals(pl.read_parquet(flows_file))
    assert record["flows"] == len(flows) == sum(record["labels"].values())
    assert record["sha256"] == corpus.rows_digest(flows)


def test_a_file_is_checked(flows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "--check", "--out", str(flows_file)]) == 0
    assert "networks held out: macro-F1" in capsys.readouterr().out
    assert cli.main(["simulate", "--check", "--out", str(flows_file), "--json"]) == 0
    figures = orjson.loads(capsys.readouterr().out)
    assert {"classes", "rules", "lookup", "quiet_hour_share", "benign_share"} == set(figures)


def test_new_flows_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "--check", "--networks", "5", "--hours", "2"]) == 0
    assert "nothing is an attack" in capsys.readouterr().out


def test_the_corpus_and_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tuple(corpus.Shard(name, 3, 1, 1.0, Ranges()) for name in ("train", "validation"))
    monkeypatch.setattr(corpus, "CORPUS", shards)
    assert cli.main(["simulate", "--corpus", "--out", str(tmp_path), "--json"]) == 0
    record = orjson.loads((tmp_path / "record.json").read_bytes())
    assert record["shards"] == orjson.loads(capsys.readouterr().out)
    assert [shard["file"] for shard in record["shards"]] == ["train.parquet", "validation.parquet"]
    assert set(record["made_with"]) == {"numpy", "polars"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--networks", "1"], "--out"),
        (["--corpus"], "--out"),
        (["--networks", "0", "--check"], "--networks"),
        (["--out", "/dev/null/flows.parquet", "--networks", "1", "--hours", "1"], "written"),
    ],
)
def test_what_cannot_be_done_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_cannot_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", "--check", "--out", str(tmp_path / "none.parquet")]) == 3
    assert "none.parquet" in capsys.readouterr().err
