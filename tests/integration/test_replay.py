"""replay on a real broker: every flow once, numbered, in scan's order, however often the broker
goes away."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ids_plugin.schema.flow import SCHEMA, SENSOR_FLAGS
from ids_plugin.sources.local_networks import Locality, LocalRule
from ids_plugin.sources.ordering import ordered
from tests.services import Kafka
from tests.support.logs import conn, jsonl, read_files
from tests.support.stream_harness import StreamHarness

SAMPLE = Path(__file__).parents[1] / "lab/sample/capture.pcap.gz"


@pytest.fixture(scope="module")
def sample() -> pl.DataFrame:
    """Flows of the sample capture as scan takes them."""
    return pl.concat(ordered(iter(read_files(SAMPLE).steps), batch_rows=8192, locality=Locality()))


@pytest.mark.parametrize(("partitions", "options"), [(1, ()), (4, ()), (16, ("--seed", "3"))])
def test_what_arrives_is_what_scan_takes(
    partitions: int, options: tuple[str, ...], sample: pl.DataFrame, kafka: Kafka, tmp_path: Path
) -> None:
    with StreamHarness(kafka, tmp_path, partitions=partitions) as stream:
        stream.start("normalise")
        result = stream.run(
            "replay", str(SAMPLE), "--topic", stream.source, "--speed", "max", *options
        )
        assert result["sensors"] == {"default": sample.height}
        stream.until_read(sample.height)
        stream.until(lambda: any(part.is_end for part in stream.released()), "the end")
        released = stream.released()
        assert released[-1].is_end
        flows = LocalRule().judge(pl.concat([part.flows for part in released]))
        different = ("source", "origin", *SENSOR_FLAGS)
        same = [column for column in SCHEMA if column not in different]
        assert flows[same].equals(sample[same])
        records = kafka.read(stream.source)
        assert {record.key for record in records} == {None}
        assert {record.partition for record in records} == set(range(partitions))


def test_sensors_are_numbered_each_by_itself(kafka: Kafka, tmp_path: Path) -> None:
    for name in ("north", "south"):
        (tmp_path / f"{name}.log").write_bytes(
            jsonl(conn(number, uid=f"{name}{number}") for number in range(40))
        )
    with StreamHarness(kafka, tmp_path) as stream:
        sensors = [f"--sensor={name}={name}.log" for name in ("north", "south")]
        inputs = [str(tmp_path / f"{name}.log") for name in ("north", "south")]
        stream.run("replay", *inputs, "--topic", stream.source, "--speed", "max", *sensors)
        headers = [dict(record.headers) for record in kafka.read(stream.source)]
        runs = {header["ids-seq"].split(b":")[0] for header in headers}
        assert len(runs) == 1
        for sensor in (b"north", b"south"):
            of_sensor = [header for header in headers if header["ids-sensor"] == sensor]
            assert sorted(int(header["ids-seq"].split(b":")[1]) for header in of_sensor) == list(
                range(41)
            )
            assert [
                header["ids-seq"].split(b":")[1] for header in of_sensor if "ids-end" in header
            ] == [b"40"]


def test_speed_is_that_of_the_input_so_many_times(kafka: Kafka, tmp_path: Path) -> None:
    log = tmp_path / "conn.log"
    log.write_bytes(jsonl(conn(number) for number in range(17)))
    with StreamHarness(kafka, tmp_path) as stream:
        result = stream.run("replay", str(log), "--topic", stream.source, "--speed", "2x")
        times = sorted(record.timestamp for record in kafka.read(stream.source))
        assert (
            times[-1] - times[0]
        ) / 1000 > 0.6  # 1 s, but for how late a busy machine begins; it may end later
        assert result["seconds"] >= 0.6


@pytest.fixture
def mortal(java: None, tmp_path: Path) -> Iterator[Kafka]:
    """A broker of one's own."""
    with Kafka(tmp_path / "kafka") as server:
        yield server


def test_it_waits_while_the_broker_is_away_and_loses_and_repeats_nothing(
    mortal: Kafka, tmp_path: Path
) -> None:
    total = 30_000
    log = tmp_path / "conn.log"
    log.write_bytes(jsonl(conn(number) for number in range(total)))
    with StreamHarness(mortal, tmp_path) as stream:
        process = stream.start("replay", "a", str(log), "--topic", stream.source, "--speed", "600x")
        stream.until(lambda: len(mortal.read(stream.source)) > 500, "the first records")
        mortal.kill9()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
        mortal.start()
        assert process.wait(240) == 0
        numbers = [
            int(dict(record.headers)["ids-seq"].split(b":")[1])
            for record in mortal.read(stream.source)
        ]
        assert sorted(set(numbers)) == list(range(total + 1))
        assert "waiting: Kafka takes no records" in stream.logs()


def test_a_missing_topic_is_told(kafka: Kafka, tmp_path: Path) -> None:
    (tmp_path / "conn.log").write_bytes(jsonl([conn(1)]))
    with StreamHarness(kafka, tmp_path) as stream:
        done = subprocess.run(
            stream.command("replay", str(tmp_path / "conn.log"), "--topic", "nowhere"),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 4
        assert b"there is no topic nowhere" in done.stderr
        done = subprocess.run(
            stream.command(
                "replay", str(tmp_path / "conn.log"), "--topic", stream.source, "--speed", "fast"
            ),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 2
        assert json.dumps("fast").encode() not in done.stdout
