"""Writing flows: Zeek reads it, we read it back, unset stays unset."""

from __future__ import annotations

import io
import json

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ids_plugin.errors import UsageError
from ids_plugin.schema.flow import empty
from ids_plugin.sinks.flow_files import FORMATS, write
from tests.support.logs import conn, eve, jsonl, read

ODD = [
    conn(
        0,
        service='quo"te\\back',
        history="tab\there",
        uid="-",
        label="Malicious",
        tunnel_parents=["Ca", "Cb"],
    ),
    conn(
        1,
        duration=None,
        orig_bytes=None,
        resp_bytes=None,
        service=None,
        local_orig=None,
        ip_proto=None,
    ),
    conn(2, ts=1_700_000_000.000001, duration=205201.298104, id_orig_h="2001:db8::1"),
]


def written(flows: pl.DataFrame, form: str) -> bytes:
    out = io.BytesIO()
    assert write(iter([flows.head(2), flows.slice(2)]), form, out) == flows.height
    return out.getvalue()


@pytest.mark.parametrize("form", ["json", "tsv"])
def test_zeeks_forms_read_back_as_they_were(form: str) -> None:
    flows = read(jsonl(ODD)).flows
    assert_frame_equal(read(written(flows, form)).flows.drop("origin"), flows.drop("origin"))


@pytest.mark.parametrize(("form", "reader"), [("parquet", pl.read_parquet), ("arrow", pl.read_ipc)])
def test_other_forms_hold_the_whole_frame(form: str, reader: object) -> None:
    assert callable(reader)
    flows = read(jsonl([eve(n) for n in range(5)]), "suricata").flows
    assert_frame_equal(reader(io.BytesIO(written(flows, form))), flows)


def test_json_leaves_unset_fields_out() -> None:
    line = json.loads(written(read(jsonl([ODD[1]])).flows, "json"))
    assert "duration" not in line
    assert "label" not in line
    assert line["id.orig_h"] == ODD[1]["id.orig_h"]
    assert isinstance(line["ts"], float)


def test_json_keeps_open_connections_and_sensors() -> None:
    flows = read(jsonl([conn(_path="open_conn")]), sensor="east").flows
    assert_frame_equal(read(written(flows, "json")).flows, flows)


def test_tsv_has_zeeks_header_and_letters() -> None:
    lines = written(read(jsonl([conn()])).flows, "tsv").decode().splitlines()
    assert lines[:5] == [
        "#separator \\x09",
        "#set_separator\t,",
        "#empty_field\t(empty)",
        "#unset_field\t-",
        "#path\tconn",
    ]
    fields = dict(zip(lines[5].split("\t")[1:], lines[7].split("\t"), strict=True))
    types = dict(zip(lines[5].split("\t")[1:], lines[6].split("\t")[1:], strict=True))
    assert (fields["ts"], fields["local_orig"], fields["local_resp"]) == (
        "1700000000.000000",
        "T",
        "F",
    )
    assert (fields["tunnel_parents"], types["id.orig_h"], types["duration"]) == (
        "-",
        "addr",
        "interval",
    )


@pytest.mark.parametrize("form", FORMATS)
def test_no_flows_are_a_valid_file(form: str) -> None:
    out = io.BytesIO()
    assert write(iter([]), form, out) == 0
    readers = {"parquet": pl.read_parquet, "arrow": pl.read_ipc}
    if form in readers:
        assert_frame_equal(readers[form](io.BytesIO(out.getvalue())), empty())


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="json, tsv, parquet, arrow"):
        write(iter([]), "xml", io.BytesIO())
