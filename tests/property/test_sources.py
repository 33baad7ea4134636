"""Reading and ordering don't depend on how the input is cut or in which order it comes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ids_plugin import registry
from ids_plugin.errors import InputError
from ids_plugin.schema.flow import SCHEMA
from ids_plugin.sources import Input, Read, ordering
from ids_plugin.sources.ordering import ordered
from ids_plugin.sources.readers import lines as line_reader
from ids_plugin.sources.readers.lines import Chunk, chunks
from tests.property.odd_lines import MAKERS, ODD, Dribble, lines
from tests.support.logs import FIELDS, Got, conn, jsonl, tsv

KINDS = sorted(MAKERS)
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GOOD = 13
"""Good records before the odd ones, so that no source is refused for its units."""


def got(data: bytes, kind: str, step: int) -> Got:
    source = Input("x.log", Dribble(data, step), data[:65536], "default")
    return Got(registry.load("sources", kind).read(source, 8192))


@given(
    st.binary(max_size=200).map(lambda data: data.replace(b"\x00", b"\n")),
    st.integers(1, 64),
    st.integers(4, 40),
)
def test_chunks_hold_every_line_once_with_its_number(data: bytes, step: int, longest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_reader, "LONGEST_LINE", longest)
        pieces = list(chunks(Dribble(data, step), step))
    expected = data.split(b"\n")
    found: dict[int, bytes] = {}
    for piece in pieces:
        if isinstance(piece, Chunk):
            texts = piece.data.split(b"\n")
            found |= {
                piece.first + at: text
                for at, text in enumerate(texts[:-1] if texts[-1] == b"" else texts)
            }
        else:
            assert expected[piece.line - 1].startswith(piece.start[:longest])
            assert len(expected[piece.line - 1]) >= longest
            found[piece.line] = expected[piece.line - 1]
    assert [found.get(at + 1, b"") for at in range(len(expected))] == expected


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(data=st.data())
def test_where_the_input_is_cut_changes_nothing(kind: str, data: st.DataObject) -> None:
    good = jsonl(MAKERS[kind](n) for n in range(GOOD))
    log = (
        good
        + b"\n".join(data.draw(st.lists(lines(kind), max_size=12)))
        + data.draw(st.sampled_from([b"", b"\n"]))
    )
    whole, cut = got(log, kind, 1 << 20), got(log, kind, data.draw(st.integers(100, 3000)))
    by_line = pl.col("origin").str.extract(r":(\d+)$").cast(pl.Int64)
    assert_frame_equal(cut.flows.sort(by_line), whole.flows.sort(by_line))
    assert sorted(cut.rejects, key=lambda reject: reject.place) == sorted(
        whole.rejects, key=lambda reject: reject.place
    )
    assert cut.out_of_scope == whole.out_of_scope
    assert whole.flows.height >= GOOD


@QUICK
@given(data=st.data())
def test_where_a_tsv_log_is_cut_changes_nothing(data: st.DataObject) -> None:
    odd = st.lists(
        st.tuples(st.sampled_from(FIELDS), ODD.filter(lambda value: "\n" not in str(value))),
        max_size=2,
    )
    records = [conn(n) | dict(data.draw(odd)) for n in range(data.draw(st.integers(0, 6)))]
    junk = data.draw(
        st.lists(st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"")), max_size=3)
    )
    log = tsv([*(conn(n) for n in range(GOOD)), *records]) + b"\n".join(junk)
    whole, cut = got(log, "zeek", 1 << 20), got(log, "zeek", data.draw(st.integers(100, 3000)))
    assert_frame_equal(cut.flows, whole.flows)
    assert cut.rejects == whole.rejects


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(data=st.data())
def test_what_is_read_is_a_flow(kind: str, data: st.DataObject) -> None:
    log = b"\n".join(data.draw(st.lists(lines(kind), max_size=30)))
    try:
        flows = got(log, kind, 1 << 20).flows
    except InputError:
        return  # refused aloud: other units, or a Zeek log without #fields
    assert dict(flows.schema) == SCHEMA
    assert (
        flows["ts"].null_count()
        == flows["orig_h"].null_count()
        == flows["resp_h"].null_count()
        == 0
    )
    counts = flows.select(pl.col(pl.Int64).min()).row(0)
    assert all(value is None or value >= 0 for value in counts)
    assert (flows["duration"].drop_nulls() >= pl.Series([0], dtype=pl.Duration("us"))).all()


@QUICK
@given(data=st.data())
def test_any_order_of_files_and_lines_gives_the_same_flows(data: st.DataObject) -> None:
    times = st.sampled_from([1_700_000_000.0, 1_700_000_000.5, 1_700_000_001.0, 1_700_003_600.25])
    pick = st.builds(
        lambda ts, n, duration, count: conn(
            0, ts=ts, uid=f"C{n}", duration=duration, orig_bytes=count
        ),
        times,
        st.integers(0, 4),
        st.sampled_from([None, 0.0, 0.5, 3600.0]),
        st.integers(0, 2),
    )
    records = data.draw(st.lists(pick, min_size=1, max_size=60))
    held, batch = data.draw(st.sampled_from([(1 << 16, 1 << 13), (20, 8), (7, 3)]))
    first = _ordered([records], 1 << 16, 1 << 13)
    mixed = data.draw(st.permutations(records))
    at = data.draw(st.integers(0, len(mixed)))
    assert_frame_equal(_ordered([mixed[:at], mixed[at:]], held, batch), first)
    keys = [
        (round(r["ts"] * 1e6) + round((r.get("duration") or 0) * 1e6), r["uid"]) for r in records
    ]
    assert first["uid"].to_list() == [uid for _, uid in sorted(keys)]


def _ordered(files: list[list[dict[str, Any]]], held: int, batch: int) -> pl.DataFrame:
    reads: list[Read] = []
    for at, records in enumerate(files):
        reads += got(jsonl(records), "zeek", 300 if at else 1 << 20).steps
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(ordering, "HELD", held)
        patch.setattr(ordering, "BATCH", batch)
        patch.setattr(ordering, "SMALLEST", 1)
        return pl.concat(ordered(reads, batch_rows=16, spill_dir=Path(folder))).drop("origin")
