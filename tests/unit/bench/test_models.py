"""The bench of all models: its smallest section runs, is kept, isn't made twice, and what isn't run
is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from ids_plugin import registry
from ids_plugin.datasets.published_layouts import SETS
from tests.bench.models import __main__ as bench
from tests.bench.models import cost, records, sections
from tests.bench.models.families import judge, lookup, tcp_is_malicious, told
from tests.bench.models.flows import Network
from tests.bench.models.settings import FAMILIES
from tests.support import toy_bundle

LAYOUT = SETS["iotid20"][0]
RULE, LEARNER = "iotid20/lookup", "iotid20/lightgbm"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of public data that holds a set of the right shape: an attack's numbers are
    larger."""
    folder = tmp_path / "shared" / "iotid20-sample"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    labels = sorted(LAYOUT.classes, key=lambda label: LAYOUT.classes[label] != "benign")[:2]
    with (folder / "set.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, LAYOUT.required)
        table.writeheader()
        for row in range(400):
            record = {
                name: str(rng.integers(1, 50) * (1 + 99 * (row % 2))) for name in LAYOUT.required
            }
            table.writerow(record | {LAYOUT.label: labels[row % 2]})
    for module in (records, sections):
        monkeypatch.setattr(module, "SHARED", folder.parent)
    records.parts.cache_clear()
    return folder


def run(work: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert bench.main(["--quick", "--seeds", "1", "--json", "--work", str(work), *arguments]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_cells_are_made_once_and_what_is_missing_is_said(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, page = tmp_path / "work", tmp_path / "results.md"
    made = run(work, capsys, "--only", RULE, "--only", LEARNER)
    assert made["not_run"] == []
    assert made["results"]["iotid20"]["lightgbm"]["1"]["accuracy"] > 0.95
    assert made["results"]["iotid20"]["lookup"]["1"]["rows"] == [280, 60, 60]
    again = run(work, capsys, "--only", "iotid20", "--seconds", "0", "--page", str(page))
    assert again["results"] == made["results"]
    assert set(again["not_run"]) == {f"iotid20/{f}/1" for f in records.FAMILIES} - {
        f"{RULE}/1",
        f"{LEARNER}/1",
    }
    written = page.read_text()
    assert "| lightgbm | 1 | " in written
    assert "| cnn | not run |" in written
    assert "- lab: lookup (seed 1), tcp_is_malicious (seed 1)" in written
    assert "<summary>lightgbm</summary>" in (tmp_path / "results-classes.md").read_text()


def test_other_data_make_a_cell_anew(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, capsys, "--only", RULE)
    (shared / "readme.txt").write_text("new")
    assert run(tmp_path, capsys, "--only", RULE, "--seconds", "0")["not_run"] == [f"{RULE}/1"]


def test_an_absent_set_and_an_unknown_section_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (records, sections):
        monkeypatch.setattr(module, "SHARED", tmp_path / "nothing")
    assert bench.main(["--quick", "--seeds", "1", "--work", str(tmp_path), "--only", RULE]) == 0
    assert "iotid20-sample of the shared data is absent" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench.main(["--only", "moon"])
    assert "no section called 'moon'" in capsys.readouterr().err


def test_every_family_of_the_registry_has_its_cells() -> None:
    assert set(registry.names("models")) - {"tiny_cnn", "contacts"} <= set(FAMILIES)
    assert {cell.family for cell in sections.cells(1) if cell.section == "lab"} == set(FAMILIES)


def test_rules_are_judged_as_models_are() -> None:
    batch = toy_bundle.batch()
    rows = np.arange(len(batch))
    steps = batch.steps(rows)
    network = Network("toy", batch.flows, steps.values, steps.mask, batch.table(rows))
    seen = batch.flows.group_by("proto", "conn_state", "history", "label").len("flows")
    found = told(judge(lookup(seen), {"scan": 0.5}, [network]), [0, 1, 2, 4])
    assert found["classes"]["scan"]["recall"] > 0.9
    assert found["by_kind"]["scan"] == [1, 1, 1]
    rule = told(judge(tcp_is_malicious, {"other": 0.5}, [network]), [0, 8])
    assert rule["flows"]["tcp_auc"] == 0.5
    assert "classes" not in rule


def test_a_forest_has_nodes_and_a_network_multiplications() -> None:
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["table"],
        ["probability"],
        domain="ai.onnx.ml",
        nodes_values=[0.5, 0.0, 0.0],
    )
    forest = helper.make_model(helper.make_graph([node], "forest", [], []))
    assert cost.size(forest.SerializeToString())["parameters"] == 3
    network = cost.size(toy_bundle.trained().file("model.onnx"))
    assert network["macs"] > network["parameters"] > 10_000
