"""Flow batches and marks as messages."""

from __future__ import annotations

import polars as pl
import pytest

from ids_plugin.errors import InputError
from ids_plugin.sources.flow_batches import (
    LIMIT,
    NOTHING,
    WIRE,
    Batch,
    Watermarks,
    decode,
    encode,
    encode_watermarks,
)
from tests.support import factories

RUN = "00000000000000a1"


def rows(count: int) -> pl.DataFrame:
    """Flows numbered from 0, one a second."""
    flows = pl.DataFrame(
        [factories.flow(at, uid=f"C{at}") for at in range(count)], infer_schema_length=None
    )
    numbers = pl.int_range(count, dtype=pl.Int64)
    extra = {"seq": numbers, "at": numbers * 1000, "partition": pl.lit(3), "offset": numbers + 7}
    flows = flows.with_columns(**extra)
    return flows.select(pl.col(name).cast(dtype) for name, dtype in WIRE.items())


def back(batch: Batch, limit: int = LIMIT) -> list[Batch]:
    found = [decode(value, headers, "ids.flows/0/0") for value, headers in encode(batch, limit)]
    return [one for one in found if isinstance(one, Batch)]


def test_a_batch_comes_back_as_it_was() -> None:
    batch = Batch("büro", "zeek", RUN, rows(50), since=12, holes=[(3, 5), (9, 9)], end=60)
    (found,) = back(batch)
    assert found.rows.equals(batch.rows)
    assert dict(found.rows.schema) == WIRE
    assert (found.sensor, found.topic, found.run, found.since, found.end) == (
        "büro",
        "zeek",
        RUN,
        12,
        60,
    )
    assert list(found.holes) == [(3, 5), (9, 9)]


def test_a_message_may_have_no_flows() -> None:
    (found,) = back(Batch("a", "zeek", RUN, NOTHING, end=0))
    assert found.rows.height == 0
    assert found.end == 0


def test_a_large_batch_is_split_and_nothing_is_lost() -> None:
    holes = [(at, at) for at in range(5_000, 9_000, 2)]
    batch = Batch("a", "zeek", RUN, rows(900), holes=holes, end=9_000)
    found = back(batch, limit=20_000)
    assert len(found) > 3
    assert pl.concat(part.rows for part in found).equals(batch.rows)
    assert [one for part in found for one in part.holes] == holes
    assert [part.end for part in found if part.end is not None] == [9_000]
    assert all(len(value) <= 20_000 for value, _ in encode(batch, limit=20_000))


def test_marks_come_back_as_they_were() -> None:
    marks = Watermarks(1_000, {"zeek": 4, "conn": 1}, {"zeek/0": 900, "conn/0": 1_000})
    assert decode(*encode_watermarks(marks), "ids.flows/0/0") == marks


@pytest.mark.parametrize("at", [0, 4, 40, 400, -1])
def test_a_damaged_message_is_refused_with_its_place(at: int) -> None:
    ((value, headers),) = encode(Batch("a", "zeek", RUN, rows(20)))
    damaged = bytearray(value)
    damaged[at] ^= 0x40
    with pytest.raises(InputError, match=r"ids\.flows/1/17: a damaged message"):
        decode(bytes(damaged), headers, "ids.flows/1/17")


def test_foreign_messages_are_refused() -> None:
    ((value, headers),) = encode(Batch("a", "zeek", RUN, rows(2).rename({"uid": "id"})))
    with pytest.raises(InputError, match="its columns aren't a flow's: uid, id"):
        decode(value, headers, "here")
    with pytest.raises(InputError, match="no message of ours"):
        decode(b'{"ts": 1}', [], "here")
    with pytest.raises(InputError, match="damaged"):
        decode(b"[]", [("kind", b"marks")], "here")
    with pytest.raises(InputError, match="damaged"):
        decode(value, [("kind", b"flows")], "here")
    with pytest.raises(InputError, match="damaged"):
        decode(value, [("kind", b"\xff\xfe")], "here")
