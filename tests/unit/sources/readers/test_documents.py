"""Documents of an index as lines that the readers read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ids_plugin.sources.messages import MessageReader
from ids_plugin.sources.readers.documents import Line, line
from tests.support.logs import conn, eve
from tests.support.stacks import STACKS, flattened

NOON = "2024-05-01T12:00:00Z"


def read(document: dict[str, Any]) -> Line:
    return line(document, MessageReader().classify)


def record(document: dict[str, Any]) -> Any:
    return orjson.loads(read(document).text)


@pytest.mark.parametrize("stack", ["elastic", "security_onion", "corelight"])
def test_dotted_and_nested_are_the_same(stack: str) -> None:
    document = STACKS[stack][0](conn(1))
    half = {
        name: flattened(value) if isinstance(value, dict) else value
        for name, value in document.items()
    }
    assert record(document) == record(flattened(document)) == record(half) == document


def test_numbers_and_truths_written_as_text_are_what_they_stand_for() -> None:
    document = {
        "source": {"bytes": "103", "port": "x"},
        "zeek": {"conn": {"duration": "0.25", "local_orig": "T"}},
    }
    wanted = {
        "source": {"bytes": 103, "port": "x"},
        "zeek": {"conn": {"duration": 0.25, "local_orig": True}},
    }
    assert record(document) == wanted


def test_of_a_field_that_stands_twice_the_first_stays() -> None:
    assert record({"a.b": 1, "a": {"b": 2, "c": 3}}) == {"a": {"b": 1, "c": 3}}
    assert record({"a": 1, "a.b": 2}) == {"a": 1, "a.b": 2}


@pytest.mark.parametrize("place", [{"message": None}, {"event": {"original": None}}])
def test_the_sensors_own_record_goes_before_what_was_made_of_it(place: dict[str, Any]) -> None:
    raw = orjson.dumps(conn(1)).decode()
    kept = (
        {"message": raw}
        if "message" in place
        else {"event": {"dataset": "zeek.connection", "original": raw}}
    )
    assert record({**STACKS["elastic"][0](conn(1)), **kept}) == conn(1)
    file = {"log": {"file": {"path": "/opt/zeek/logs/current/conn.log"}}}
    assert record({"@timestamp": NOON, **kept, **file}) == {"conn": conn(1)}


@pytest.mark.parametrize(
    "text", ["{", "[]", "plain", '{"a": 1}', '{"ts": 1.5e9, "query": "a.example"}']
)
def test_a_message_that_is_no_flow_is_left_alone(text: str) -> None:
    document = {**STACKS["elastic"][0](conn(1)), "message": text}
    assert record(document) == document


@pytest.mark.parametrize(
    ("around", "sensor"),
    [
        ({"observer": {"name": "a"}, "host": {"name": "b"}}, "a"),
        ({"observer": {"hostname": "c"}}, "c"),
        ({"host": {"name": "b"}, "agent": {"name": "d"}}, "b"),
        ({"agent.name": "d"}, "d"),
        ({"observer": {"name": ""}}, None),
        (
            {
                "message": orjson.dumps({**conn(1), "_system_name": "own"}).decode(),
                "host": {"name": "b"},
            },
            "own",
        ),
        (
            {"message": orjson.dumps({**eve(1), "host": "own"}).decode(), "agent": {"name": "d"}},
            "own",
        ),
    ],
)
def test_a_sensor_is_what_the_record_says_or_who_sent_it(
    around: dict[str, Any], sensor: str | None
) -> None:
    assert read({"@timestamp": NOON, **around}).sensor == sensor
