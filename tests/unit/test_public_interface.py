"""The front door: what `ids_plugin` exports, how it is documented, and that its examples run."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import ids_plugin
from ids_plugin import api, cli

SAMPLE = Path(__file__).parents[1] / "lab/sample/capture.pcap.gz"


@pytest.mark.parametrize("name", ids_plugin.__all__)
def test_every_exported_name_is_there_and_documented(name: str) -> None:
    value = getattr(ids_plugin, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert (inspect.getdoc(value) or "").strip()


def test_dir_lists_what_is_exported() -> None:
    assert set(ids_plugin.__all__) <= set(dir(ids_plugin))
    with pytest.raises(AttributeError):
        ids_plugin.no_such_name  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, ids_plugin\n"
        "heavy = {'polars', 'numpy', 'torch', 'kafka', 'elasticsearch', 'onnxruntime', 'lightgbm'}\n"  # noqa: E501
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    outcome = doctest.testmod(api)
    assert outcome.attempted > 5
    assert outcome.failed == 0


def test_a_scan_gives_frames(tmp_path: Path) -> None:
    result = ids_plugin.scan(SAMPLE)
    assert result.alerts.height == result.ledger.total.opened > 10
    assert dict(result.alerts.schema) == dict(api.ALERT_COLUMNS)
    assert result.flows.schema == ids_plugin.FLOW_SCHEMA
    assert result.flows.height == result.ledger.total.scored
    assert result.rejects.is_empty()
    report = result.to_report(tmp_path / "report.html")
    assert "<html" in report.read_text()


def test_a_scan_in_batches_gives_the_same() -> None:
    whole = ids_plugin.scan([SAMPLE])
    run = ids_plugin.iter_scan([str(SAMPLE)])
    batches = list(run)
    assert [document for batch in batches for document in batch.documents] == whole.documents
    assert pl.concat([batch.flows for batch in batches]).equals(whole.flows)
    assert run.ledger.to_dict() == whole.ledger.to_dict()


def test_the_command_line_gives_the_same(tmp_path: Path) -> None:
    assert cli.main(["scan", str(SAMPLE), "--out", str(tmp_path), "--quiet"]) == 0
    documents = pl.read_ndjson(tmp_path / "alerts.ndjson", infer_schema_length=None)
    result = ids_plugin.scan(SAMPLE)
    assert documents["event"].struct.field("id").to_list() == [
        document["event"]["id"] for document in result.documents
    ]


def test_an_input_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ids_plugin.InputError, match="no such file"):
        ids_plugin.scan(tmp_path / "missing.pcap")
    with pytest.raises(ids_plugin.BundleError):
        ids_plugin.load_bundle("no-such-bundle")
