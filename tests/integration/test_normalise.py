"""normalise on a real broker: nothing lost, nothing twice, whatever dies; what can't be read has
its place."""

from __future__ import annotations

import base64
import json
import signal
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from ids_plugin.schema.flow import CONN_SCHEMA
from ids_plugin.sources.flow_batches import Watermarks
from tests.services import Kafka
from tests.support.logs import conn
from tests.support.logs import read as read_log
from tests.support.message_fuzz import headers as fuzzed_headers
from tests.support.message_fuzz import value as fuzzed_value
from tests.support.shared_data import shared
from tests.support.stream_harness import StreamHarness

RUN = "00000000000000a1"


def lines(count: int, first: int = 0) -> list[bytes]:
    return [json.dumps(conn(number)).encode() for number in range(first, first + count)]


def numbered(count: int, sensor: str = "s") -> list[list[tuple[str, bytes]]]:
    return [
        [("ids-sensor", sensor.encode()), ("ids-seq", f"{RUN}:{number}".encode())]
        for number in range(count)
    ]


def test_raw_records_become_flows_of_their_sensor(kafka: Kafka, tmp_path: Path) -> None:
    with StreamHarness(kafka, tmp_path) as stream:
        process = stream.start("normalise")
        stream.send([*lines(500), b""], [*numbered(500), [*numbered(501)[500], ("ids-end", b"1")]])
        stream.send(lines(100, 1_000))
        stream.until_read(600)
        stream.until(
            lambda: sum(part.flows.height for part in stream.released()) >= 600,
            "the marks that release them",
        )
        assert stream.stop(process) == 0
        released = [part for part in stream.released() if part.sensor == "s"]
        flows = pl.concat(part.flows for part in released)
        assert flows["uid"].to_list() == [conn(number)["uid"] for number in range(500)]
        assert [part.is_end for part in released][-1]
        assert flows.select(
            pl.col("origin").str.count_matches("/")
        ).to_series().unique().to_list() == [2]
        default = stream.flows().filter(pl.col("sensor") == "default")
        assert sorted(default["uid"]) == [conn(number)["uid"] for number in range(1_000, 1_100)]


def test_killed_again_and_again_it_loses_and_repeats_nothing(kafka: Kafka, tmp_path: Path) -> None:
    total = 12_000
    with StreamHarness(kafka, tmp_path, normalise={"batch": 50}) as stream:
        stream.send(lines(total), numbered(total))
        for _ in range(3):
            process = stream.start("normalise", "a")
            before = stream.ledger("normalise").total.read
            stream.until(
                partial(_committed_more, stream, min(total - 1, before)),
                "a commit",
            )
            process.send_signal(signal.SIGKILL)
            process.wait()
        stream.start("normalise", "b")
        stream.until_read(total)
        flows = stream.flows()
        assert flows.height == total
        assert sorted(flows["seq"]) == list(range(total))
        assert stream.ledger("normalise").total.parsed == total


def _watermarked_partitions(stream: StreamHarness) -> set[tuple[str, ...]]:
    """The sets of source partitions that the watermark messages speak of."""
    return {
        tuple(message.read_up_to)
        for message in stream.messages()
        if isinstance(message, Watermarks) and message.read_up_to
    }


def test_two_instances_share_the_work(kafka: Kafka, tmp_path: Path) -> None:
    with StreamHarness(kafka, tmp_path) as stream:
        for instance in ("a", "b"):
            stream.start("normalise", instance)
        stream.until(lambda: len(_watermarked_partitions(stream)) > 1, "both")
        stream.send(lines(2_000), numbered(2_000))
        stream.until_read(2_000)
        assert sorted(stream.flows()["seq"]) == list(range(2_000))
        assert {entry["instance"] for entry in stream.json("ledger")} == {"a", "b"}
        stream.until(
            lambda: sum(part.flows.height for part in stream.released()) >= 2_000,
            "the marks that release them",
        )
        order = pl.concat([part.flows for part in stream.released()])
        assert order["uid"].to_list() == [conn(number)["uid"] for number in range(2_000)]


def test_garbage_is_rejected_with_its_place_and_bytes(kafka: Kafka, tmp_path: Path) -> None:
    garbage = [b"\x00\xff" * 40_000, b"{", None, b"", b'{"a": 1}', b"\n"]
    with StreamHarness(kafka, tmp_path) as stream:
        stream.send([*lines(10), *garbage], partition=2)
        stream.start("normalise")
        stream.until_read(16)
        rejects = sorted(stream.json("rejects"), key=lambda reject: int(reject["offset"]))
        assert [reject["place"] for reject in rejects] == [
            f"partition 2 offset {offset}" for offset in range(10, 16)
        ]
        assert [reject["reason"] for reject in rejects] == [
            "bad_utf8",
            "bad_json",
            "empty",
            "empty",
            "unknown_kind",
            "empty",
        ]
        stored = [base64.b64decode(reject["bytes"]) for reject in rejects]
        assert stored == [(value or b"")[: 1 << 16] for value in garbage]
        assert stream.ledger("normalise").total.value("rejected") == 6


def test_mutated_messages_of_all_envelopes_are_accounted_for(kafka: Kafka, tmp_path: Path) -> None:
    from random import Random

    chance = Random(7)
    values = [fuzzed_value(number, chance) for number in range(3_000)]
    several = [fuzzed_headers(number, chance) for number in range(3_000)]
    with StreamHarness(kafka, tmp_path) as stream:
        stream.send(values, several)
        process = stream.start("normalise")
        stream.until_read(2_900)
        assert stream.stop(process) == 0
        total = stream.ledger("normalise").total
        assert total.read == total.parsed + total.value("rejected")
        assert total.parsed == stream.flows().height + total.value("out_of_scope")
        assert total.value("rejected") == len(stream.json("rejects"))


@pytest.mark.parametrize("form", ["all_tagged", "conn_iso8601_tagged_extra", "conn_plain"])
def test_messages_of_a_real_zeek_kafka_are_the_flows_of_the_log_beside_them(
    form: str, kafka: Kafka, tmp_path: Path
) -> None:
    folder = shared("zeek-8.0.8", "_kafka", form)
    values = (folder / "zeek.jsonl").read_bytes().splitlines()
    expected = read_log((folder / "conn.log").read_bytes()).flows
    with StreamHarness(kafka, tmp_path) as stream:
        stream.send(values)
        stream.start("normalise")
        stream.until_read(len(values))
        same = [column for column in CONN_SCHEMA if column not in ("origin", "duration")]
        assert stream.flows()[same].sort("uid").equals(expected[same].sort("uid"))


def test_a_second_process_of_the_same_name_takes_over_and_the_first_says_why_it_ends(
    kafka: Kafka, tmp_path: Path
) -> None:
    with StreamHarness(kafka, tmp_path) as stream:
        first = stream.start("normalise", "a")
        stream.send(lines(50), numbered(50))
        stream.until_read(50)
        stream.start("normalise", "a")
        assert first.wait(60) == 2
        stream.send(lines(50, 50), numbered(100)[50:])
        stream.until_read(100)
        assert sorted(stream.flows()["seq"]) == list(range(100))
        assert "another process calls itself a of normalise" in stream.logs()


def test_it_outlives_its_broker_and_ends_in_time_without_it(java: None, tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka") as mortal, StreamHarness(mortal, tmp_path) as stream:
        process = stream.start("normalise")
        stream.send(lines(1_000), numbered(1_000))
        stream.until_read(500)
        mortal.kill9()
        stream.until(lambda: "no answer from Kafka" in stream.logs(), "the complaint")
        mortal.start()
        stream.send(lines(1_000, 1_000), numbered(2_000)[1_000:])
        stream.until_read(2_000)
        assert sorted(stream.flows()["seq"]) == list(range(2_000))
        mortal.kill9()
        assert stream.stop(process) == 0


def test_a_pattern_finds_topics_that_come_later(kafka: Kafka, tmp_path: Path) -> None:
    with StreamHarness(kafka, tmp_path) as stream:
        text = stream.config.read_text().replace(
            f'topics = ["{stream.source}"]',
            f'pattern = "{stream.source}.*|{stream.topics["flows"]}"',
        )
        stream.config.write_text(text)
        stream.start("normalise")
        stream.send(lines(10))
        stream.until_read(10)
        stream.source = kafka.topic(stream.source, 1)
        stream.send(lines(10, 10))
        stream.until_read(20)
        assert stream.ledger("normalise").total.parsed == 20


def test_it_waits_for_topics_of_ours_and_ends_within_seconds_when_told(
    kafka: Kafka, tmp_path: Path
) -> None:
    with StreamHarness(kafka, tmp_path, topics={"flows": "nowhere"}) as stream:
        process = stream.start("normalise")
        stream.until(lambda: "topics are missing: nowhere" in stream.logs(), "the complaint")
        assert stream.stop(process) == 0


def _committed_more(stream: StreamHarness, records: int) -> bool:
    return records < stream.ledger("normalise").total.read
