"""Bench devices: what the lookup table knows, which runs judge, and where the page's tables go."""

from __future__ import annotations

from pathlib import Path

from ids_plugin.schema.uniflow import FEATURES
from ids_plugin.training.tiny import load
from tests.bench import devices
from tests.support import uniflows


def test_the_lookup_table_knows_ports_and_calls_the_unknown_normal(tmp_path: Path) -> None:
    known, judged = load([f"uniflow:{uniflows.runs(tmp_path / 'runs', number=2)}"])
    for run in (known, judged):
        run.counts[:, FEATURES.index("proto")] = 6
    told = devices.lookup([known], [judged])
    assert {told["f1"][name] for name in ("normal", "ssh_brute_force", "mqtt_brute_force")} == {1.0}
    judged.counts[:, FEATURES.index("prt_dst")] = 77
    assert devices.lookup([known], [judged])["accuracy"] == round(
        float((judged.label == 0).mean()), 5
    )


def test_tables_stand_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(Path("docs/devices.md").read_text())
    devices.put(page, "| new |")
    devices.put(page, "| newer |")
    text = page.read_text()
    assert "| newer |" in text
    assert "| new |" not in text
    assert text.startswith("# tiny_cnn")
    assert text.rstrip().endswith("<!-- end -->")


def test_judging_runs_are_none_of_those_to_train_on() -> None:
    train, judge = load([devices.RUNS]), load([devices.JUDGE])
    assert not {run.sha256 for run in train} & {run.sha256 for run in judge}
    assert all(run.name.startswith("mqtt-judge") for run in judge)
    assert not any(run.name.startswith("mqtt-judge") for run in train)
