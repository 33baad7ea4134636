"""Captures: a lone wrong time moves no clock; a step that stays begins a new epoch, aloud."""

from __future__ import annotations

import pytest

from ids_plugin.schema.reject import Reject
from tests.support.captures import Record, ethernet, pcap
from tests.unit.flowmeter.test_capture import flows, read, session

HOUR = 3600.0


def busy_minutes() -> list[Record]:
    """Sixty connections, one every three seconds."""
    records = []
    for number in range(60):
        packets = session(port=1000 + number, begin=3.0 * number)
        records += [Record(time, ethernet(packet)) for time, packet in packets]
    return sorted(records, key=lambda record: record.time)


def shifted(records: list[Record], begin: int, end: int, seconds: float) -> bytes:
    """The records with the clock of those from `begin` to `end` wrong."""
    return pcap(
        Record(record.time + (seconds if begin <= index < end else 0), record.data)
        for index, record in enumerate(records)
    )


def warnings(data: bytes, chunk_bytes: int = 1 << 16) -> list[Reject]:
    return [warning for step in read(data, chunk_bytes) for warning in step.warnings]


@pytest.mark.parametrize("seconds", [61.0, 400.0, HOUR, 10.0**8, -61.0, -HOUR])
@pytest.mark.parametrize("chunk_bytes", [1 << 10, 1 << 16])
def test_a_lone_wrong_time_changes_no_connection(seconds: float, chunk_bytes: int) -> None:
    records = busy_minutes()
    measured = flows(shifted(records, 300, 301, seconds), chunk_bytes)
    assert [flow["conn_state"] for flow in measured] == ["SF"] * 60
    assert max(flow["duration"].total_seconds() for flow in measured) < 10
    assert not warnings(shifted(records, 300, 301, seconds), chunk_bytes)


def test_a_lone_wrong_time_is_counted() -> None:
    steps = read(shifted(busy_minutes(), 300, 301, HOUR))
    assert sum(step.notes.get("time_ahead", 0) for step in steps) == 1
    assert [reject.place for step in steps for reject in step.rejects] == ["packet 301"]


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
@pytest.mark.parametrize("chunk_bytes", [1 << 10, 1 << 16])
def test_a_step_that_stays_is_one_warning_and_a_new_epoch(seconds: float, chunk_bytes: int) -> None:
    records = busy_minutes()
    first = next(index for index, record in enumerate(records) if record.time >= 90)
    data = shifted(records, first, len(records), seconds)
    (warning,) = warnings(data, chunk_bytes)
    assert warning.place == f"packet {first + 1}"
    assert "3,60" in warning.detail or "3,59" in warning.detail
    measured = flows(data, chunk_bytes)
    assert len(measured) == 60
    assert max(flow["duration"].total_seconds() for flow in measured) < 10


def test_connections_that_are_open_at_a_step_are_closed_there() -> None:
    records = [Record(time, ethernet(packet)) for time, packet in session(close="")]
    records += [Record(1.0 + number, records[-1].data) for number in range(20)]
    measured = flows(shifted(records, 4, len(records), -HOUR))
    assert [flow["orig_pkts"] for flow in measured] == [21, 3]
