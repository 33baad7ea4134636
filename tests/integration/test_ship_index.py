"""What arrives in a real Elasticsearch's index onto the stream: each document once, whenever it can
be found."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import helpers

from consumers.shipping.index_feed import IndexCheckpoint, IndexFeed
from ids_plugin import cli
from ids_plugin.elastic.paging import Hit, target
from ids_plugin.sources.messages import Fetched, MessageReader
from tests import services
from tests.integration.test_ship import Ship
from tests.support.elastic import access, asking
from tests.support.logs import conn
from tests.support.stacks import elastic, elastic_losses
from tests.support.stream_harness import StreamHarness

SAMPLE = Path(__file__).parents[1] / "lab/sample/capture.pcap.gz"
NOW = 1_800_000_000_000
OVERLAP = 60_000


class Stack:
    """An index, a clock, and a checkpoint that survives."""

    def __init__(self, server: services.Elasticsearch) -> None:
        self.settings, self.client = access(server), asking(server)
        self.name = services.unique("arrivals")
        self.spec = f"elasticsearch:{server.url}/{self.name}*"
        self.now = NOW
        self.committed: dict[str, bytes] = {}
        self.checkpoint = IndexCheckpoint("me")
        self.feed = self.started()

    def started(self) -> IndexFeed:
        """As after a restart: with what was committed."""
        self.checkpoint = IndexCheckpoint("me")
        for key, value in self.committed.items():
            self.checkpoint.apply(key, orjson.loads(value))
        wanted = target(self.spec)
        return IndexFeed(
            self.settings, wanted, "event.ingested", OVERLAP, self.checkpoint, lambda: self.now
        )

    def arrive(self, times: dict[str, int], index: str = "-1") -> None:
        """Documents by their ids, with the ms at which they say they arrived."""
        actions = (
            {
                "_index": self.name + index,
                "_id": name,
                "_source": {"event": {"ingested": NOW + offset_ms}, "name": name},
            }
            for name, offset_ms in times.items()
        )
        helpers.bulk(self.client, actions, refresh=True)

    def poll(self, commits: int = 1000) -> list[str]:
        """Names of the documents sent in one poll, which ends before all was committed if there are
        fewer `commits`."""
        sent: list[str] = []
        for number, (hits, _) in enumerate(self.feed.poll()):
            if number == commits:
                break
            self.commit(hits)
            sent += [str(hit.document["name"]) for hit in hits]
        return sorted(sent)

    def commit(self, hits: list[Hit]) -> None:
        for message in self.checkpoint.advance("places", hits, self.feed.keep_from):
            self.committed[str(message.key, "utf-8")] = message.value  # type: ignore[arg-type]


@pytest.fixture
def stack(elasticsearch: services.Elasticsearch) -> Stack:
    made = Stack(elasticsearch)
    dates = {"properties": {"event": {"properties": {"ingested": {"type": "date"}}}}}
    made.client.indices.put_index_template(
        name=made.name, index_patterns=[f"{made.name}*"], priority=900, template={"mappings": dates}
    )
    return made


def test_what_is_found_later_is_sent_too_and_nothing_twice(stack: Stack) -> None:
    stack.arrive({"a": -50_000, "b": -1_000, "c": -1_000})
    assert stack.poll() == ["a", "b", "c"]
    assert stack.poll() == []
    stack.arrive({"late": -20_000, "equal": -1_000, "new": 0, "too late": -90_000})
    stack.now += OVERLAP // 5
    assert stack.poll() == ["equal", "late", "new"]
    stack.feed = stack.started()
    assert stack.poll() == []
    stack.arrive({"a": 5_000}, "-2")
    stack.now += 10_000
    assert stack.poll() == ["a"]


def test_a_restart_sends_what_was_not_committed(stack: Stack) -> None:
    stack.arrive({f"{number:04}": number - 10_000 for number in range(2000)})
    first = stack.poll(commits=2)
    assert 0 < len(first) < 2000
    stack.feed = stack.started()
    assert sorted(first + stack.poll()) == [f"{number:04}" for number in range(2000)]


def test_stamps_ahead_of_the_clock_hold_nothing_up(stack: Stack) -> None:
    stack.arrive({"future": 10 * OVERLAP, "a": -5})
    assert stack.poll() == ["a", "future"]
    for turn in range(8):
        stack.now += OVERLAP // 2
        stack.arrive({f"turn {turn}": stack.now - NOW - 10})
        assert stack.poll() == [f"turn {turn}"]
        stack.feed = stack.started()
        assert stack.poll() == []


def test_only_what_may_come_again_is_remembered(stack: Stack) -> None:
    for minute in range(10):
        stack.now = NOW + minute * OVERLAP
        stack.arrive({f"{minute}-{number}": minute * OVERLAP - number for number in range(50)})
        assert len(stack.poll()) == 50
    assert sum(value != b"null" for key, value in stack.committed.items() if "#" in key) <= 3
    stack.now = NOW
    stack.feed = stack.started()
    assert stack.poll() == []


def test_kinds_of_documents_that_dont_say_when_they_came_are_counted(stack: Stack) -> None:
    stack.arrive({"a": 0})
    stack.client.index(index=f"{stack.name}-1", document={"name": "b"}, refresh=True)
    assert stack.feed.count_stamped() == (1, 1)


SENSORS = ("east", "west")
SECONDS = 8


class Agent(threading.Thread):
    """Indexes connections of two sensors; every tenth document can be found only three seconds
    after it arrived."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack, self.sent = stack, 0

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        held: list[tuple[float, dict[str, Any]]] = []
        while time.monotonic() < end or held:
            now = time.monotonic()
            batch = [document for due, document in held if due <= now]
            held = [entry for entry in held if entry[0] > now]
            for _ in range(40 if now < end else 0):
                document = self._document()
                if self.sent % 10:
                    batch.append(document)
                else:
                    held.append((now + 3, document))
            helpers.bulk(
                self.stack.client,
                ({"_index": f"{self.stack.name}-1", "_source": document} for document in batch),
            )
            time.sleep(0.1)

    def _document(self) -> dict[str, Any]:
        made = elastic(conn(self.sent))
        made["event"]["ingested"] = int(time.time() * 1000)
        made["observer"] = {"name": SENSORS[self.sent % 2]}
        self.sent += 1
        return made


def records(ship: Ship) -> Iterator[Any]:
    yield from ship.kafka.read(ship.topic)


def test_each_document_once_through_kill_9(
    stack: Stack, kafka: services.Kafka, tmp_path: Path
) -> None:
    chance = random.Random(3)
    agent = Agent(stack)
    ship = Ship(kafka, tmp_path, stack.spec)
    ship.command = [word for word in ship.command if word not in ("--sensor", "edge")]
    agent.start()
    ship.start()
    try:
        while agent.is_alive():
            time.sleep(chance.uniform(1.5, 3))
            ship.end(signal.SIGKILL)
            ship.start()
        agent.join()
        ship.until(lambda: len(ship.lines()) >= agent.sent, f"{agent.sent} documents")
        time.sleep(2)
        assert ship.end(signal.SIGTERM) == 0
    finally:
        agent.join()
        if ship.process and ship.process.poll() is None:
            ship.process.kill()
            ship.process.wait()
    shipped = list(records(ship))
    assert Counter(
        orjson.loads(record.value)["zeek"]["session_id"] for record in shipped
    ) == Counter(conn(number)["uid"] for number in range(agent.sent))
    runs = Counter(
        (dict(record.headers)["ids-sensor"], dict(record.headers)["ids-seq"]) for record in shipped
    )
    for sensor in SENSORS:
        numbers = sorted(
            int(number.split(b":")[1]) for name, number in runs if name == sensor.encode()
        )
        assert numbers == list(range(agent.sent // 2))
    fetched = [
        Fetched(
            record.topic,
            record.partition,
            [record.offset],
            [record.timestamp],
            [record.value],
            [record.headers],
        )
        for record in shipped
    ]
    read = MessageReader().read(fetched, int(time.time() * 1000))
    assert sum(batch.rows.height for batch in read.batches) == agent.sent
    assert {batch.sensor for batch in read.batches} == set(SENSORS)


def test_an_index_without_times_of_arrival_is_refused(
    stack: Stack, kafka: services.Kafka, tmp_path: Path
) -> None:
    stack.client.index(index=f"{stack.name}-1", document=conn(1), refresh=True)
    ship = Ship(kafka, tmp_path, stack.spec)
    ship.start()
    assert ship.process
    assert ship.process.wait(60) == 2
    assert "--arrival" in ship.log()


def test_an_index_that_comes_later_is_waited_for(
    stack: Stack, kafka: services.Kafka, tmp_path: Path
) -> None:
    stack.client.index(index=f"{stack.name}-0", document={"event": {"ingested": NOW}}, refresh=True)
    ship = Ship(
        kafka, tmp_path, replace(target(stack.spec), name=stack.spec.replace("*", "-1")).name
    )
    ship.start()
    try:
        ship.until(lambda: "no such index" in ship.log(), "a word about the index")
        stack.arrive({"a": -1000})
        ship.until(lambda: len(ship.lines()) == 1, "the document")
        assert ship.end(signal.SIGTERM) == 0
    finally:
        if ship.process and ship.process.poll() is None:
            ship.process.kill()
            ship.process.wait()


def test_what_arrives_in_order_gives_the_alerts_of_a_scan_of_the_index(
    stack: Stack, kafka: services.Kafka, tmp_path: Path
) -> None:
    log, out = tmp_path / "conn.log", tmp_path / "out"
    assert cli.main(["flows", str(SAMPLE), "-o", str(log), "--quiet"]) == 0
    records = [elastic_losses(orjson.loads(line)) for line in log.read_bytes().splitlines()]
    records.sort(
        key=lambda record: (
            round((record["ts"] + record.get("duration", 0)) * 1e6),
            record["uid"],
        )
    )
    documents = [elastic(record) for record in records]
    for number, document in enumerate(documents):
        document["event"]["ingested"] = NOW - 1_000_000_000 + number
    helpers.bulk(
        stack.client,
        ({"_index": f"{stack.name}-1", "_source": document} for document in documents),
        refresh=True,
    )
    assert cli.main(["scan", stack.spec, "--out", str(out), "--quiet"]) == 0
    wanted = alerts((out / "alerts.ndjson").read_bytes().splitlines())
    places = kafka.topic("places", cleanup_policy="compact")
    with StreamHarness(kafka, tmp_path) as stream:
        stream.config.write_text(
            stream.config.read_text().replace("[topics]", f'[topics]\nplaces = "{places}"')
        )
        stream.start("ship", "s", stack.spec, "--topic", stream.source)
        for verb in ("normalise", "detect"):
            stream.start(verb)
        stream.until(lambda: stream.ledger("detect").total.scored == len(records), "all records")
        values = [record.value for record in kafka.read(stream.topics["alerts"])]
        assert stream.ledger("detect").total.delayed == 0
    assert len(wanted) > 5
    assert alerts(values) == wanted


def alerts(lines: list[bytes]) -> dict[str, Any]:
    """The alerts by their ids, without the time they were written; the end of an index's input
    never comes."""
    by_id = {}
    for document in map(orjson.loads, lines):
        document["event"].pop("ingested", None)
        if document["event"]["kind"] == "alert":
            by_id[document["event"]["id"]] = document
    return by_id
