"""The lab itself: a short scenario in real namespaces, every attack in the capture, nothing left
behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.lab import labels, metering, runner

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces"),
    pytest.mark.skipif(
        bool(runner.missing()),
        reason=f"needs: apt-get install {' '.join(sorted(set(runner.missing().values())))}",
    ),
]


def links() -> list[str]:
    shown = subprocess.run(
        ["ip", "-json", "link"], capture_output=True, text=True, check=True
    ).stdout
    return [link["ifname"] for link in json.loads(shown)]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    before = links()
    facts = runner.run(runner.load("smoke"), 11, folder, lambda text: None)
    assert facts["failures"] == []
    assert links() == before
    return folder


def test_every_labelled_activity_shows_in_the_flows(smoke: Path) -> None:
    seen = metering.read(smoke).group_by("label").len()
    counts = dict(seen.iter_rows())
    for klass, fewest in {
        "scan": 40,
        "brute_force": 20,
        "command_and_control": 4,
        "spreading": 15,
        "flood": 200,
        "exfiltration": 20,
        "inbound_noise": 8,
        "benign": 50,
    }.items():
        assert counts.get(klass, 0) >= fewest, counts


def test_the_capture_kept_every_packet_and_no_offloaded_giants(smoke: Path) -> None:
    facts = json.loads((smoke / "scenario.json").read_text())
    assert any(line.startswith("0 packets dropped") for line in facts["tcpdump"])
    command = ["tcpdump", "-n", "-r", str(smoke / "capture.pcap"), "greater", "1515"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""


def test_labels_lie_in_the_run_and_name_classes(smoke: Path) -> None:
    facts = json.loads((smoke / "scenario.json").read_text())
    for activity in labels.read(smoke / "labels.jsonl"):
        assert (
            facts["begin"] - 1
            <= activity.start
            <= activity.end
            <= facts["begin"] + facts["duration"] + 10
        )


def test_nothing_is_left_of_this_process(smoke: Path) -> None:
    names = subprocess.run(
        ["ip", "netns", "list"], capture_output=True, text=True, check=True
    ).stdout
    assert f"lab{os.getpid()}-" not in names
