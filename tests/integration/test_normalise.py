"""normalise on a real broker: nothing lost, nothing twice, whatever dies; what can't be read has its place."""

from __future__ import annotations

import base64
import json
import signal
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from ids_plugin.schema.flow import SCHEMA
from tests.services import Kafka
from tests.support.logs import conn
from tests.support.logs import read as read_log
from tests.support.on_kafka import Wire
from tests.support.shared_data import shared
from tests.support.wire_fuzz import headers as fuzzed_headers
from tests.support.wire_fuzz import value as fuzzed_value

RUN = "00000000000000a1"


def lines(count: int, first: int = 0) -> list[bytes]:
    return [json.dumps(conn(number)).encode() for number in range(first, first + count)]


def numbered(count: int, sensor: str = "s") -> list[list[tuple[str, bytes]]]:
    return [
        [("ids-sensor", sensor.encode()), ("ids-seq", f"{RUN}:{at}".encode())]
        for at in range(count)
    ]


def test_raw_records_become_flows_of_their_sensor(kafka: Kafka, tmp_path: Path) -> None:
    with Wire(kafka, tmp_path) as wire:
        process = wire.start("normalise")
        wire.send([*lines(500), b""], [*numbered(500), [*numbered(501)[500], ("ids-end", b"1")]])
        wire.send(lines(100, 1_000))
        wire.until_read(600)
        wire.until(
            lambda: sum(one.flows.height for one in wire.released()) >= 600,
            "the marks that release them",
        )
        assert wire.stop(process) == 0
        released = [one for one in wire.released() if one.sensor == "s"]
        flows = pl.concat(one.flows for one in released)
        assert flows["uid"].to_list() == [conn(at)["uid"] for at in range(500)]
        assert [one.ended for one in released][-1]
        assert flows.select(
            pl.col("origin").str.count_matches("/")
        ).to_series().unique().to_list() == [2]
        default = wire.flows().filter(pl.col("sensor") == "default")
        assert sorted(default["uid"]) == [conn(at)["uid"] for at in range(1_000, 1_100)]


def test_killed_again_and_again_it_loses_and_repeats_nothing(kafka: Kafka, tmp_path: Path) -> None:
    total = 12_000
    with Wire(kafka, tmp_path, normalise={"batch": 50}) as wire:
        wire.send(lines(total), numbered(total))
        for _ in range(3):
            process = wire.start("normalise", "a")
            before = wire.ledger("normalise").total.read
            wire.until(
                partial(_committed_more, wire, min(total - 1, before)),
                "a commit",
            )
            process.send_signal(signal.SIGKILL)
            process.wait()
        wire.start("normalise", "b")
        wire.until_read(total)
        flows = wire.flows()
        assert flows.height == total
        assert sorted(flows["seq"]) == list(range(total))
        assert wire.ledger("normalise").total.parsed == total


def test_two_instances_share_the_work(kafka: Kafka, tmp_path: Path) -> None:
    with Wire(kafka, tmp_path) as wire:
        for instance in ("a", "b"):
            wire.start("normalise", instance)
        wire.until(
            lambda: (
                len({tuple(m.marks) for m in wire.messages() if hasattr(m, "marks") and m.marks})
                > 1
            ),
            "both",
        )
        wire.send(lines(2_000), numbered(2_000))
        wire.until_read(2_000)
        assert sorted(wire.flows()["seq"]) == list(range(2_000))
        assert {entry["instance"] for entry in wire.json("ledger")} == {"a", "b"}
        wire.until(
            lambda: sum(one.flows.height for one in wire.released()) >= 2_000,
            "the marks that release them",
        )
        order = pl.concat([one.flows for one in wire.released()])
        assert order["uid"].to_list() == [conn(at)["uid"] for at in range(2_000)]


def test_garbage_is_rejected_with_its_place_and_bytes(kafka: Kafka, tmp_path: Path) -> None:
    garbage = [b"\x00\xff" * 40_000, b"{", None, b"", b'{"a": 1}', b"\n"]
    with Wire(kafka, tmp_path) as wire:
        wire.send([*lines(10), *garbage], partition=2)
        wire.start("normalise")
        wire.until_read(16)
        rejects = sorted(wire.json("rejects"), key=lambda one: int(one["offset"]))
        assert [one["place"] for one in rejects] == [
            f"partition 2 offset {at}" for at in range(10, 16)
        ]
        assert [one["reason"] for one in rejects] == [
            "bad_utf8",
            "bad_json",
            "empty",
            "empty",
            "unknown_kind",
            "empty",
        ]
        kept = [base64.b64decode(one["bytes"]) for one in rejects]
        assert kept == [(value or b"")[: 1 << 16] for value in garbage]
        assert wire.ledger("normalise").total.value("rejected") == 6


def test_mutated_messages_of_all_envelopes_are_accounted_for(kafka: Kafka, tmp_path: Path) -> None:
    from random import Random

    chance = Random(7)
    values = [fuzzed_value(number, chance) for number in range(3_000)]
    several = [fuzzed_headers(number, chance) for number in range(3_000)]
    with Wire(kafka, tmp_path) as wire:
        wire.send(values, several)
        process = wire.start("normalise")
        wire.until_read(2_900)
        assert wire.stop(process) == 0
        total = wire.ledger("normalise").total
        assert total.read == total.parsed + total.value("rejected")
        assert total.parsed == wire.flows().height + total.value("out_of_scope")
        assert total.value("rejected") == len(wire.json("rejects"))


@pytest.mark.parametrize("form", ["all_tagged", "conn_iso8601_tagged_extra", "conn_plain"])
def test_messages_of_a_real_zeek_kafka_are_the_flows_of_the_log_beside_them(
    form: str, kafka: Kafka, tmp_path: Path
) -> None:
    folder = shared("zeek-8.0.8", "_kafka", form)
    values = (folder / "zeek.jsonl").read_bytes().splitlines()
    expected = read_log((folder / "conn.log").read_bytes()).flows
    with Wire(kafka, tmp_path) as wire:
        wire.send(values)
        wire.start("normalise")
        wire.until_read(len(values))
        same = [column for column in SCHEMA if column not in ("origin", "duration")]
        assert wire.flows()[same].sort("uid").equals(expected[same].sort("uid"))


def test_a_second_process_of_the_same_name_takes_over_and_the_first_says_why_it_ends(
    kafka: Kafka, tmp_path: Path
) -> None:
    with Wire(kafka, tmp_path) as wire:
        first = wire.start("normalise", "a")
        wire.send(lines(50), numbered(50))
        wire.until_read(50)
        wire.start("normalise", "a")
        assert first.wait(60) == 2
        wire.send(lines(50, 50), numbered(100)[50:])
        wire.until_read(100)
        assert sorted(wire.flows()["seq"]) == list(range(100))
        assert "another process calls itself a of normalise" in wire.logs()


def test_it_outlives_its_broker_and_ends_in_time_without_it(java: None, tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka") as mortal, Wire(mortal, tmp_path) as wire:
        process = wire.start("normalise")
        wire.send(lines(1_000), numbered(1_000))
        wire.until_read(500)
        mortal.kill9()
        wire.until(lambda: "no answer from Kafka" in wire.logs(), "the complaint")
        mortal.start()
        wire.send(lines(1_000, 1_000), numbered(2_000)[1_000:])
        wire.until_read(2_000)
        assert sorted(wire.flows()["seq"]) == list(range(2_000))
        mortal.kill9()
        assert wire.stop(process) == 0


def test_a_pattern_finds_topics_that_come_later(kafka: Kafka, tmp_path: Path) -> None:
    with Wire(kafka, tmp_path) as wire:
        text = wire.config.read_text().replace(
            f'topics = ["{wire.source}"]', f'pattern = "{wire.source}.*|{wire.topics["flows"]}"'
        )
        wire.config.write_text(text)
        wire.start("normalise")
        wire.send(lines(10))
        wire.until_read(10)
        wire.source = kafka.topic(wire.source, 1)
        wire.send(lines(10, 10))
        wire.until_read(20)
        assert wire.ledger("normalise").total.parsed == 20


def test_it_waits_for_topics_of_ours_and_ends_within_seconds_when_told(
    kafka: Kafka, tmp_path: Path
) -> None:
    with Wire(kafka, tmp_path, topics={"flows": "nowhere"}) as wire:
        process = wire.start("normalise")
        wire.until(lambda: "topics are missing: nowhere" in wire.logs(), "the complaint")
        assert wire.stop(process) == 0


def _committed_more(wire: Wire, records: int) -> bool:
    return records < wire.ledger("normalise").total.read
