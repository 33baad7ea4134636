"""The script that docker-compose.yml runs on captures, with a real Suricata."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2] / "consumers/compose"
SAMPLE = Path(__file__).resolve().parents[1] / "lab/sample/capture.pcap.gz"


def test_captures_are_metered_once_each(tmp_path: Path) -> None:
    """Suricata as docker-compose.yml runs it, with its settings; a capture that can't be read
    beside it."""
    if not shutil.which("suricata"):
        pytest.skip("needs suricata: apt-get install suricata")
    captures, logs = tmp_path / "captures", tmp_path / "logs"
    captures.mkdir()
    logs.mkdir()
    with gzip.open(SAMPLE) as packed, (captures / "one.pcap").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    (captures / "two words.pcapng").write_bytes(b"no capture")
    meter = f"""case "$*" in *two*) exit 1;; esac; exec suricata -c {HERE}/suricata.yaml \
        --set outputs.0.eve-log.filename=eve.json -S /dev/null -k none --runmode single -l . "$@" """  # noqa: E501
    environment = {
        "CAPTURES": str(captures),
        "LOGS": str(logs),
        "QUIET_SECONDS": "0",
        "EVERY_SECONDS": "0.2",
    }
    command = ["sh", str(HERE / "captures.sh"), "eve.json", "sh", "-c", meter, "meter"]
    with subprocess.Popen(
        command, env={**os.environ, **environment}, start_new_session=True
    ) as process:
        _until(
            lambda: (
                (captures / "done/one.pcap").exists()
                and (captures / "failed/two words.pcapng").exists()
            )
        )
        os.killpg(process.pid, signal.SIGKILL)
    (log,) = logs.glob("*.json")
    assert log.name.startswith("one.pcap.")
    records = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert len(records) > 1000
    assert {one["event_type"] for one in records} == {"flow"}
    assert records[0]["community_id"].startswith("1:")
    (captures / "done/one.pcap").rename(captures / "one.pcap")
    before = log.stat().st_mtime_ns
    with subprocess.Popen(
        command, env={**os.environ, **environment}, start_new_session=True
    ) as process:
        _until(lambda: (captures / "done/one.pcap").exists())
        os.killpg(process.pid, signal.SIGKILL)
    assert log.stat().st_mtime_ns == before


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)
