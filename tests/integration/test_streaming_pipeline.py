"""The streaming pipeline end to end: Elasticsearch gets what a scan says, whatever fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import soak

SHORT = soak.Form(
    records=8_000, seed=5, pace=4, outage=5, garbage=10, partitions=16, snapshot_seconds=5, stop=120
)
"""as short as every kind of fault allows: sixteen faults in a minute"""


@pytest.mark.usefixtures("java")
def test_nothing_is_lost_and_nothing_comes_twice_through_faults(tmp_path: Path) -> None:
    report = soak.run(replace(SHORT, keep=tmp_path))
    assert not report["problems"], report
    assert {"scan", "brute_force", "flood", "command_and_control"} <= report["folds"].keys()
    assert len(report["faults"]) >= 14
    assert sum(fault["open_folds"] > 0 for fault in report["faults"]) >= 8
    assert report["garbage"] > 100
