"""deliver on a real Kafka and a real Elasticsearch (what stands in there: tests/services): nothing
lost or twice."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
import pytest
from kafka import KafkaProducer

from ids_plugin.elastic.streams import LEDGER, stream
from ids_plugin.schema.ledger import Counts
from tests import services
from tests.services.server import free_port
from tests.support.elastic import Stream, documents
from tests.support.stream_harness import StreamHarness


@dataclass
class Way:
    """From ids.alerts to a namespace."""

    stream: StreamHarness
    data_stream: Stream
    sent: int = 0

    def send(self, values: Sequence[object], source: str = "zeek") -> None:
        """Alerts as detect writes them; bytes as they are."""
        with contextlib.closing(
            KafkaProducer(bootstrap_servers=self.stream.kafka.bootstrap)
        ) as producer:
            for value in values:
                data = value if isinstance(value, bytes) else orjson.dumps(value)
                headers = [("source", source.encode())]
                producer.send(
                    self.stream.topics["alerts"], data, key=str(self.sent).encode(), headers=headers
                )
                self.sent += 1

    def counted(self) -> Counts:
        """What deliver says became of them."""
        return self.stream.ledger("deliver").total

    def until_settled(self) -> None:
        """Waits until something became of all that was sent."""
        self.stream.until(lambda: _settled(self.counted()) >= self.sent, f"delivery of {self.sent}")

    def block(self, is_blocked: bool | None) -> None:
        """Makes the stream read-only, or (None) not."""
        self.data_stream.client.indices.put_settings(
            index=self.data_stream.name, settings={"index.blocks.write": is_blocked}
        )

    def each_once(self, *names: str) -> bool:
        return self.data_stream.copies() == dict.fromkeys(names, 1)


def _settled(counts: Counts) -> int:
    return counts.delivered + counts.value("refused") + counts.value("rejected")


def ways(kafka: services.Kafka, server: services.Elasticsearch, folder: Path, port: int = 0) -> Way:
    data_stream = Stream(server)
    elastic = {"url": server.url, "namespace": data_stream.namespace}
    return Way(
        StreamHarness(
            kafka, folder, elasticsearch=elastic, health={"port": port}, deliver={"batch": 50}
        ),
        data_stream,
    )


@pytest.fixture
def way(
    kafka: services.Kafka, elasticsearch: services.Elasticsearch, tmp_path: Path
) -> Iterator[Way]:
    made = ways(kafka, elasticsearch, tmp_path)
    with made.stream:
        yield made


def names(count: int, name: str = "one") -> list[str]:
    return [document["event"]["id"] for document in documents(count, name)]


def test_alerts_and_the_ledger_arrive_and_what_does_not_fit_is_put_aside(way: Way) -> None:
    good = documents(120)
    wrong = {**good[0], "event": {**good[0]["event"], "id": "wrong", "severity": "high"}}
    way.send([*good[:60], b"no JSON \xff", wrong, b"[]", *good[60:], *good[:5]])
    consumer = way.stream.start("deliver")
    way.until_settled()
    assert way.each_once(*names(120))
    counts = way.stream.ledger("deliver")
    assert (
        counts.of("zeek", "gateway").to_dict()
        == Counts(delivered=125, refused={"document_parsing_exception": 1}).to_dict()
    )
    assert counts.of("zeek", "").to_dict() == Counts(read=2, rejected={"no_document": 2}).to_dict()
    rejects = {reject["reason"]: reject for reject in way.stream.json("rejects")}
    assert len(way.stream.json("rejects")) == 3
    reject = rejects["document_parsing_exception"]
    assert "event.severity" in reject["detail"]
    assert json.loads(base64.b64decode(reject["bytes"])) == wrong
    assert reject["topic"] == reject["input"] == way.stream.topics["alerts"]
    assert reject["place"] == f"partition {reject['partition']} offset {reject['offset']}"
    sums = {"read": {"sum": {"field": "ids_plugin.ledger.delivered"}}}
    ledger = stream(LEDGER, way.data_stream.namespace)

    def delivered() -> float:
        way.data_stream.client.indices.refresh(index=ledger)
        answer = way.data_stream.client.search(index=ledger, size=0, aggs=sums)
        return float(answer["aggregations"]["read"]["value"])

    way.stream.until(lambda: delivered() == 125, "the ledger in Elasticsearch")
    assert way.stream.stop(consumer) == 0
    document = way.data_stream.client.search(index=way.data_stream.name, size=1)["hits"]["hits"][0][
        "_source"
    ]
    assert document["event"]["ingested"] > "2026"


def test_killed_again_and_again_across_rollovers(way: Way) -> None:
    """Two instances are killed in turn while documents come and the stream rolls over."""
    running = [way.stream.start("deliver", name) for name in "ab"]
    for turn in range(6):
        way.send(documents(150, f"turn{turn}"))
        time.sleep(0.7)
        if turn % 2:
            way.data_stream.roll_over()
        victim = turn % 2
        running[victim].kill()
        running[victim].wait()
        if turn % 3 == 0:
            way.data_stream.roll_over()
        running[victim] = way.stream.start("deliver", "ab"[victim])
    way.until_settled()
    assert way.each_once(*(name for turn in range(6) for name in names(150, f"turn{turn}")))
    assert way.counted().delivered == way.sent == 900
    assert [way.stream.stop(process) for process in running] == [0, 0]


def test_instances_come_and_go_while_documents_wait(way: Way) -> None:
    """What one instance holds when partitions are given out anew is delivered and counted once, by
    whoever has it."""

    running = {"a": way.stream.start("deliver", "a")}
    for turn, name in enumerate("bc"):
        way.block(True)
        way.send(documents(40, f"turn{turn}"))
        way.stream.until(partial(_is_waiting, way, turn + 1), "waiting")
        running[name] = way.stream.start("deliver", name)
        time.sleep(3)
        assert way.stream.stop(running.pop("ab"[turn])) == 0
        way.block(None)
        way.until_settled()
    assert way.each_once(*(name for turn in range(2) for name in names(40, f"turn{turn}")))
    assert way.counted().delivered == way.sent


def test_who_was_frozen_and_comes_back_counts_nothing_again(way: Way) -> None:
    """An instance is frozen with documents in its hands; another has delivered them when it goes
    on."""
    way.block(True)
    frozen = way.stream.start("deliver", "a")
    way.send(documents(60))
    way.stream.until(lambda: "read-only" in way.stream.logs(), "waiting")
    frozen.send_signal(signal.SIGSTOP)
    way.stream.start("deliver", "b")
    way.block(None)
    way.until_settled()
    way.data_stream.roll_over()
    frozen.send_signal(signal.SIGCONT)
    way.send(documents(60, "later"))
    way.until_settled()
    time.sleep(3)
    assert way.each_once(*names(60), *names(60, "later"))
    assert way.counted().delivered == way.sent
    assert way.stream.stop(frozen) == 0


def test_elasticsearch_away_for_a_while(kafka: services.Kafka, tmp_path: Path) -> None:
    """It is killed, comes back, turns read-only and back: the place is kept, and the process says
    how things are."""
    port = free_port()
    with services.Elasticsearch(heap="512m") as server:
        way = ways(kafka, server, tmp_path, port)
        with way.stream:
            consumer = way.stream.start("deliver")
            way.send(documents(100, "before"))
            way.until_settled()
            assert health(port) == (200, "ok")
            server.kill9()
            way.send(documents(100, "during"))
            way.stream.until(lambda: health(port)[0] == 503, "readiness lost")
            time.sleep(3)
            assert "can't be reached" in health(port)[1]
            server.start()
            way.until_settled()
            way.data_stream.client.indices.put_settings(
                index=way.data_stream.name, settings={"index.blocks.read_only": True}
            )
            way.send(documents(100, "after"))
            way.stream.until(lambda: "read-only" in health(port)[1], "a word on what is wrong")
            stopped = way.stream.stop(consumer)
            way.data_stream.client.indices.put_settings(
                index=way.data_stream.name, settings={"index.blocks.read_only": None}
            )
            way.stream.start("deliver")
            way.until_settled()
            assert stopped == 0
            assert way.each_once(
                *(name for phase in ("before", "during", "after") for name in names(100, phase))
            )
            assert way.counted().delivered == 300
    logged = [line["message"] for line in map(orjson.loads, way.stream.logs().splitlines()[1:])]
    away = [
        message
        for message in logged
        if "can't be reached" in message and not message.startswith("working again")
    ]
    assert len(away) <= 4, (
        "more than refused and starting, for alerts and for the ledger: " + "\n".join(away)
    )


def health(port: int) -> tuple[int, str]:
    """What /readyz answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


def test_the_first_line_says_what_is_wrong_and_a_stop_never_waits_for_elasticsearch(
    way: Way, elasticsearch: services.Elasticsearch
) -> None:
    way.data_stream.client.indices.delete_data_stream(name=way.data_stream.name)
    consumer = way.stream.start("deliver")
    way.send(documents(3))
    way.stream.until(lambda: "no data stream" in way.stream.logs(), "a word on what is wrong")
    assert f"ids-plugin setup elasticsearch --url {elasticsearch.url}" in way.stream.logs()
    setup = ["--url", elasticsearch.url, "--namespace", way.data_stream.namespace]
    program = way.stream.command("deliver")[0].replace("ids-consumer", "ids-plugin")
    subprocess.run([program, "setup", "elasticsearch", *setup], check=True, capture_output=True)
    way.until_settled()
    elasticsearch.pause()
    try:
        way.send(documents(5, "paused"))
        time.sleep(1)
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(60) == 0
    finally:
        elasticsearch.resume()
    way.stream.start("deliver")
    way.until_settled()
    assert way.each_once(*names(3), *names(5, "paused"))


def test_a_wrong_name_of_a_topic_is_said(way: Way) -> None:
    way.stream.config.write_text(
        way.stream.config.read_text().replace(way.stream.topics["rejects"], "no.such.topic")
    )
    consumer = way.stream.start("deliver")
    way.stream.until(
        lambda: "topics are missing: no.such.topic" in way.stream.logs(), "a word on what is wrong"
    )
    assert "ids-plugin setup kafka" in way.stream.logs()
    assert way.stream.stop(consumer) == 0


def _is_waiting(way: Way, turns: int) -> bool:
    return way.stream.logs().count("read-only") >= turns
