"""The alerts of a replay are those of a scan, byte for byte: any partitions and sensors, processes
shared, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from tests.services import Kafka
from tests.support.stream_harness import TIMEOUT_S, StreamHarness

SAMPLE = Path(__file__).parents[1] / "lab/sample/capture.pcap.gz"
SENSORS = tuple(f"gateway-{number}" for number in range(8))


def program(*arguments: str) -> None:
    """Runs `ids-plugin`."""
    subprocess.run(
        [str(Path(sys.executable).with_name("ids-plugin")), *arguments, "--quiet"], check=True
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sample capture as eight sensors saw it, one in packets and seven in logs: arguments of
    scan and of replay."""
    folder = tmp_path_factory.mktemp("sensors")
    program("flows", str(SAMPLE), "-o", str(folder / f"{SENSORS[0]}.in"))
    for sensor in SENSORS[1:]:
        os.link(folder / f"{SENSORS[0]}.in", folder / f"{sensor}.in")
    (folder / f"{SENSORS[0]}.in").unlink()
    os.link(SAMPLE, folder / f"{SENSORS[0]}.in")
    named = [f"--sensor={sensor}=*/{sensor}.in" for sensor in SENSORS]
    return [*(str(folder / f"{sensor}.in") for sensor in SENSORS), *named]


class Scan(NamedTuple):
    """What a scan gives."""

    records: int
    documents: Counter[bytes]


@pytest.fixture(scope="module")
def scanned(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Scan:
    """A scan of the inputs."""
    out = tmp_path_factory.mktemp("scan")
    program("scan", *inputs, "--out", str(out))
    ledger = orjson.loads((out / "ledger.json").read_bytes())
    return Scan(ledger["total"]["read"], Counter((out / "alerts.ndjson").read_bytes().splitlines()))


def alerts(stream: StreamHarness) -> Counter[bytes]:
    """The documents on ids.alerts, without the time they were written."""
    documents: Counter[bytes] = Counter()
    for record in stream.kafka.read(stream.topics["alerts"]):
        document = orjson.loads(record.value)
        assert document["event"].pop("ingested")
        documents[orjson.dumps(document)] += 1
    return documents


def counted(stream: StreamHarness, verb: str) -> int:
    """Records that a stage is through with."""
    total = stream.ledger(verb).total
    return total.read if verb == "normalise" else total.scored + total.duplicate + total.replaced


@pytest.mark.parametrize(("partitions", "instances", "kills"), [(1, 1, 0), (4, 2, 0), (16, 3, 3)])
def test_alerts_of_a_replay_are_those_of_the_scan(
    partitions: int,
    instances: int,
    kills: int,
    inputs: Sequence[str],
    scanned: Scan,
    kafka: Kafka,
    tmp_path: Path,
) -> None:
    verbs = ("normalise", "detect")
    with StreamHarness(
        kafka, tmp_path, partitions=partitions, flows=4, detect={"snapshot_seconds": 2}
    ) as stream:
        consumers = {
            (verb, str(number)): stream.start(verb, str(number))
            for verb in verbs
            for number in range(instances)
        }
        replay = stream.start("replay", "a", *inputs, "--topic", stream.source, "--speed", "max")
        for kill in range(kills):
            part = scanned.records * (kill + 1) // (kills + 2)
            for verb in verbs:
                stream.until(lambda v=verb, p=part: counted(stream, v) >= p, f"progress of {verb}")  # type: ignore[misc]
                name = (verb, str(kill % instances))
                consumers[name].send_signal(signal.SIGKILL)
                consumers[name].wait()
                consumers[name] = stream.start(*name)
        assert replay.wait(TIMEOUT_S) == 0
        stream.until(lambda: counted(stream, "detect") >= scanned.records, "all records")
        stream.until(lambda: alerts(stream).total() >= scanned.documents.total(), "all alerts")
        assert scanned.documents.total() > 8 * 10
        assert alerts(stream) == scanned.documents
        assert {verb: counted(stream, verb) for verb in verbs} == dict.fromkeys(
            verbs, scanned.records
        )
