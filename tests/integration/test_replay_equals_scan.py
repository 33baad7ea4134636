"""The alerts of a replay are those of a scan, byte for byte: any partitions and sensors, processes shared, killed."""

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
from tests.support.on_kafka import PATIENCE, Wire

SAMPLE = Path(__file__).parents[1] / "lab/sample/capture.pcap.gz"
SENSORS = tuple(f"gateway-{number}" for number in range(8))


def program(*arguments: str) -> None:
    """Runs `ids-plugin`."""
    subprocess.run(
        [str(Path(sys.executable).with_name("ids-plugin")), *arguments, "--quiet"], check=True
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sample capture as eight sensors saw it, one in packets and seven in logs: arguments of scan and of replay."""
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


def alerts(wire: Wire) -> Counter[bytes]:
    """The documents on ids.alerts, without the time they were written."""
    found: Counter[bytes] = Counter()
    for record in wire.kafka.read(wire.topics["alerts"]):
        document = orjson.loads(record.value)
        assert document["event"].pop("ingested")
        found[orjson.dumps(document)] += 1
    return found


def counted(wire: Wire, verb: str) -> int:
    """Records that a stage is through with."""
    total = wire.ledger(verb).total
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
    with Wire(
        kafka, tmp_path, partitions=partitions, flows=4, detect={"snapshot_seconds": 2}
    ) as wire:
        consumers = {
            (verb, str(at)): wire.start(verb, str(at)) for verb in verbs for at in range(instances)
        }
        replay = wire.start("replay", "a", *inputs, "--topic", wire.source, "--speed", "max")
        for kill in range(kills):
            part = scanned.records * (kill + 1) // (kills + 2)
            for verb in verbs:
                wire.until(lambda v=verb, p=part: counted(wire, v) >= p, f"progress of {verb}")  # type: ignore[misc]
                name = (verb, str(kill % instances))
                consumers[name].send_signal(signal.SIGKILL)
                consumers[name].wait()
                consumers[name] = wire.start(*name)
        assert replay.wait(PATIENCE) == 0
        wire.until(lambda: counted(wire, "detect") >= scanned.records, "all records")
        wire.until(lambda: alerts(wire).total() >= scanned.documents.total(), "all alerts")
        assert scanned.documents.total() > 8 * 10
        assert alerts(wire) == scanned.documents
        assert {verb: counted(wire, verb) for verb in verbs} == dict.fromkeys(
            verbs, scanned.records
        )
