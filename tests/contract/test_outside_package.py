"""Another package's source, scoring member and sink, used from the command line and on Kafka.

`tests/contract/outside_package` is installed as a package is: modules beside a `*.dist-info` folder
with entry points. Nothing of the product names it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import polars as pl
import pytest

from ids_plugin import bundle
from tests.services import Kafka
from tests.support import shipped, toy
from tests.support.stream_harness import StreamHarness

PACKAGE = Path(__file__).parent / "outside_package"
TITLES = (
    "# gatehouse sessions 1",
    "start;seconds;from;from_port;to;to_port;transport;state;sent;received;packets_out;packets_in",
)
STATES = {"SF": "closed", "S0": "unanswered", "REJ": "refused"}
MEMBER = "refused_by_many"


class Scanned(NamedTuple):
    """What a scan with the package's plugins wrote."""

    documents: dict[str, bytes]
    """by their ids"""
    duty_log: str

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """The documents that are alerts."""
        documents = [orjson.loads(line) for line in self.documents.values()]
        return [document for document in documents if document["event"]["kind"] == "alert"]


def environment() -> dict[str, str]:
    """Of a process that has the package."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE)}


def ids_plugin(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs `ids-plugin` with the package."""
    program = str(Path(sys.executable).with_name("ids-plugin"))
    return subprocess.run(
        [program, *arguments], env=environment(), capture_output=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A firewall's log of a small network with a port scan, under a name that says nothing."""
    flows = toy.network(5, minutes=15).sort("ts")
    columns = (
        (pl.col("ts").dt.epoch("us") / 1e6).alias("start"),
        pl.col("duration").dt.total_microseconds() / 1e6,
        "orig_h",
        "orig_p",
        "resp_h",
        "resp_p",
        "proto",
        pl.col("conn_state").replace_strict(STATES),
        "orig_bytes",
        "resp_bytes",
        "orig_pkts",
        "resp_pkts",
    )
    sessions = flows.select(columns).write_csv(
        separator=";", include_header=False, float_precision=6
    )
    path = tmp_path_factory.mktemp("log") / "monday.txt"
    path.write_text("\n".join((*TITLES, sessions)))
    return path


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped window bundle with a member of the package's kind beside its own."""
    made = shipped.window_bundle()
    manifest: dict[str, Any] = json.loads(json.dumps(made.manifest.document))
    manifest["members"].append({"name": MEMBER, "kind": "refusals", "file": "refusals.json"})
    manifest["combination"]["weights"][MEMBER] = 0.5
    settings = json.dumps({"least": 20, "certainty": 0.98}).encode()
    folder = tmp_path_factory.mktemp("bundle") / "outside"
    bundle.write(bundle.seal(manifest, {**made.files, "refusals.json": settings}), folder)
    return folder


@pytest.fixture(scope="module")
def scanned(log: Path, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    """A scan of the log with the bundle and the sink."""
    out = tmp_path_factory.mktemp("scan")
    options = ("--bundle", str(bundle_folder), "--out", str(out))
    sink = ("--sink", f"duty_log={out / 'duty.txt'}")
    done = ids_plugin("scan", str(log), *options, *sink)
    assert done.returncode == 0, done.stderr.decode()
    lines = (out / "alerts.ndjson").read_bytes().splitlines()
    documents = {orjson.loads(line)["event"]["id"]: line for line in lines}
    return Scanned(documents, (out / "duty.txt").read_text())


def test_a_source_is_found_by_content_and_read(log: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.txt"
    damaged.write_text(log.read_text() + "1714982400.0;;nowhere;1;10.0.0.9;80;tcp;closed;;;;\n7\n")
    done = ids_plugin("flows", str(damaged))
    assert done.returncode == 0, done.stderr.decode()
    flows = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert len(flows) == len(log.read_text().splitlines()) - len(TITLES)
    assert {flow["conn_state"] for flow in flows} == set(STATES)
    assert b"2 rejected" in done.stderr


def test_a_scan_uses_member_and_sink(scanned: Scanned) -> None:
    documents = scanned.alerts
    assert "scan" in {document["ids_plugin"]["label"] for document in documents}
    assert all(MEMBER in document["ids_plugin"]["scores"] for document in documents)
    scan = next(one for one in documents if one["ids_plugin"]["label"] == "scan")
    assert scan["ids_plugin"]["scores"][MEMBER] > 0.5
    lines = scanned.duty_log.splitlines()
    assert len(lines) == len(documents)
    assert all(MEMBER in line for line in lines)


def test_the_member_changes_what_is_decided(log: Path, scanned: Scanned, tmp_path: Path) -> None:
    without = shipped.window_bundle()
    bundle.write(without, tmp_path / "without")
    options = ("--bundle", str(tmp_path / "without"), "--out", str(tmp_path / "out"))
    assert ids_plugin("scan", str(log), *options).returncode == 0
    lines = (tmp_path / "out" / "alerts.ndjson").read_bytes().splitlines()
    before = {document["ids_plugin"]["score"] for document in map(orjson.loads, lines)}
    assert before != {document["ids_plugin"]["score"] for document in scanned.alerts}


def test_plugins_that_are_not_installed_are_named(log: Path, bundle_folder: Path) -> None:
    program = str(Path(sys.executable).with_name("ids-plugin"))
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [program, "scan", str(log), "--bundle", str(bundle_folder)],
        env=bare,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr.decode()
    assert b"refusals" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_replay_on_kafka_gives_the_alerts_of_the_scan(
    log: Path,
    bundle_folder: Path,
    scanned: Scanned,
    kafka: Kafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))
    detect = {"bundle": str(bundle_folder)}
    with StreamHarness(kafka, tmp_path, partitions=2, detect=detect) as stream:
        stream.start("normalise")
        stream.start("detect")
        replayed = stream.run("replay", str(log), "--topic", stream.source, "--speed", "max")
        assert replayed["flows"] == len(log.read_text().splitlines()) - len(TITLES)
        stream.until(lambda: len(stream.json("alerts")) >= len(scanned.documents), "all alerts")
        documents = {document["event"]["id"]: document for document in stream.json("alerts")}
    for document in documents.values():
        assert document["event"].pop("ingested")
    assert {
        name: orjson.dumps(document) for name, document in documents.items()
    } == scanned.documents
