"""Batches unpacked by columns are what kafka-python makes of them record by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from consumers.stream.fetched_columns import batch_body, decode_records

Message = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes]]]
MESSAGES = st.lists(
    st.tuples(
        st.integers(0, 1 << 30),
        st.none() | st.binary(max_size=70),
        st.none() | st.binary(max_size=300),
        st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=200)), max_size=3),
    ),
    min_size=1,
    max_size=20,
)


def batch(messages: Sequence[Message], offset: int = 0, codec: int = 0) -> Any:
    """A batch as it comes from the broker."""
    builder = MemoryRecordsBuilder(2, codec, 1 << 24, offset=offset)
    for message in messages:
        assert builder.append(*message)
    builder.close()
    return MemoryRecords(builder.buffer()).next_batch()


@settings(max_examples=30)
@given(
    several=st.lists(MESSAGES, min_size=1, max_size=4),
    offset=st.integers(0, 1 << 30),
    codec=st.sampled_from([0, 0, 1]),
)
def test_columns_are_the_records(several: list[list[Message]], offset: int, codec: int) -> None:
    bodies = [
        batch_body(batch(messages, offset + 100 * number, codec), 0)
        for number, messages in enumerate(several)
    ]
    expected = [
        record
        for number, messages in enumerate(several)
        for record in batch(messages, offset + 100 * number, codec)
    ]
    columns = decode_records(bodies)
    assert columns.offsets == [record.offset for record in expected]
    assert columns.times == [record.timestamp for record in expected]
    assert columns.values == [record.value for record in expected]
    assert [list(headers) for headers in columns.headers] == [record.headers for record in expected]


def test_what_was_read_before_is_left_out() -> None:
    messages: list[Message] = [(number, None, b"%d" % number, []) for number in range(9)]
    first, second = batch(messages, 10), batch(messages, 30)
    columns = decode_records([batch_body(first, 15), batch_body(second, 15)])
    assert columns.offsets == [*range(15, 19), *range(30, 39)]
    assert columns.values[0] == b"5"


@settings(max_examples=30)
@given(messages=MESSAGES, position=st.integers(0), change=st.integers(1, 255))
def test_damage_is_noticed_or_harmless(messages: list[Message], position: int, change: int) -> None:
    whole = batch_body(batch(messages), 0)
    damaged = bytearray(whole.data)
    damaged[position % len(damaged)] ^= change
    for data in (bytes(damaged), whole.data[: position % len(whole.data)], whole.data + b"\0"):
        try:
            columns = decode_records([whole._replace(data=data)])
        except (CorruptRecordError, UnicodeDecodeError):
            continue
        assert data == bytes(damaged)
        assert len(columns) <= len(messages)


def test_times_of_the_broker_are_those_of_the_batch() -> None:
    whole = batch_body(batch([(7, None, b"x", [])] * 3), 0)
    assert decode_records([whole._replace(log_append_time=99)]).times == [99, 99, 99]


@pytest.mark.parametrize("data", [b"", b"\x80" * 30])
def test_numbers_without_an_end_are_damage(data: bytes) -> None:
    whole = batch_body(batch([(7, None, b"x", [])]), 0)
    with pytest.raises(CorruptRecordError, match="a damaged batch from offset 0 on"):
        decode_records([whole._replace(data=data)])
