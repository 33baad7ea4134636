"""What the stream tells of itself while it works: the figures that the Prometheus rules are
about."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.services import Kafka
from tests.services.server import free_port
from tests.support.logs import conn
from tests.support.stream_harness import StreamHarness

Page = dict[tuple[str, frozenset[tuple[str, str]]], float]


def page(port: int) -> tuple[str, Page]:
    """/metrics: its text, and name and labels → value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    samples = (
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    )
    return text, {
        (sample.name, frozenset(sample.labels.items())): sample.value for sample in samples
    }


def figure(samples: Page, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def outcomes(samples: Page, stage: str, names: Iterable[str]) -> list[float]:
    return [figure(samples, "ids_records_total", stage=stage, outcome=name) for name in names]


def counts(node: str, total: int) -> bytes:
    """A record of the Zeek package's ids_counts."""
    counters = {
        "ts": 1_772_442_000.0,
        "node": node,
        "stream": "conn",
        "period": 60.0,
        "written": 10,
        "written_total": total,
    }
    return json.dumps(
        {"_path": "ids_counts", **counters, "packets": 90_000, "packets_dropped": 7}
    ).encode()


def scanned(number: int) -> bytes:
    """A SYN that nobody answers, to a host of its own."""
    row = {
        **conn(number),
        "id.orig_h": "10.0.0.66",
        "id.resp_h": f"10.9.{number // 250}.{number % 250 + 1}",
    }
    return json.dumps({**row, "id.resp_p": 23, "conn_state": "S0", "history": "S"}).encode()


def checkpoint_times(samples: Page) -> list[float]:
    return [
        value for (name, _), value in samples.items() if name == "ids_snapshot_timestamp_seconds"
    ]


def settled(samples: Page) -> bool:
    """Everything that the test sends is judged and kept."""
    return sum(outcomes(samples, "detect", ("scored", "duplicate", "replaced"))) == 900 and bool(
        checkpoint_times(samples)
    )


def test_figures_of_sensors_balance_and_checkpoint_times(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ("ids-sensor", b"branch")
    values = [
        *(json.dumps(conn(number)).encode() for number in range(300)),
        *(scanned(number) for number in range(300, 900)),
    ]
    values += [b"{", counts("w1", 500), counts("w2", 420), counts("w1", 510)]
    began, ports = time.time(), {verb: free_port() for verb in ("normalise", "detect")}
    with StreamHarness(kafka, tmp_path, detect={"snapshot_seconds": 1}) as stream:
        for verb, port in ports.items():
            monkeypatch.setenv("IDS_HEALTH_PORT", str(port))
            stream.start(verb)
        stream.send(values, [[named] for _ in values], partition=0)
        stream.until_read(len(values))
        stream.until(lambda: stream.ledger("detect").total.scored > 0, "scores")
        stream.until(lambda: settled(page(ports["detect"])[1]), "all scores and a checkpoint")
        text, read = page(ports["normalise"])
        judged = page(ports["detect"])[1]
    assert figure(read, "ids_sensor_read_total", sensor="branch") == 901
    assert figure(read, "ids_sensor_last_record_timestamp_seconds", sensor="branch") >= began
    labels = {"sensor": "branch", "stream": "conn", "what": "written_total"}
    written = {node: figure(read, "ids_sensor_records", node=node, **labels)
            for node in ("w1", "w2")}  # fmt: skip
    assert written == {"w1": 510, "w2": 420}
    total, *parts = outcomes(read, "normalise", ("read", "parsed", "rejected"))
    assert total == len(values) == sum(parts)
    over, *parts = outcomes(judged, "detect", ("over_threshold", "opened", "folded", "suppressed"))
    assert over == sum(parts) > 0
    assert figure(read, "ids_lag_records", topic=stream.source, partition="0") == 0
    assert min(checkpoint_times(judged)) >= began
    if shutil.which("promtool"):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
