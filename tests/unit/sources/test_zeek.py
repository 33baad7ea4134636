"""Zeek's conn logs: every form they are written in reads as the same flow; what is wrong is a
reject with its place."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ids_plugin.errors import DialectError, InputError
from tests.support.logs import FIELDS, Got, conn, jsonl, read, tsv

PLAIN = read(jsonl([conn()])).row


def same(got: Got) -> bool:
    return got.row == PLAIN and not got.rejects


def test_a_record_has_zeeks_meaning() -> None:
    assert PLAIN["ts"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert PLAIN["duration"] == timedelta(seconds=0.25)
    assert (PLAIN["orig_h"], PLAIN["orig_p"], PLAIN["resp_h"], PLAIN["resp_p"]) == (
        "192.168.1.1",
        40000,
        "198.51.100.7",
        443,
    )
    assert (PLAIN["open"], PLAIN["sensor"], PLAIN["source"], PLAIN["origin"]) == (
        False,
        "default",
        "zeek",
        "conn.log:1",
    )


def with_id(style: str) -> dict[str, Any]:
    record = conn()
    ids = {
        name.removeprefix("id."): record.pop(name)
        for name in list(record)
        if name.startswith("id.")
    }
    return record | (
        {"id": ids} if style == "nested" else {f"id_{name}": value for name, value in ids.items()}
    )


@pytest.mark.parametrize(
    "record",
    [
        conn(ts=1_700_000_000),
        conn(ts=1_700_000_000_000),
        conn(ts=1_700_000_000_000_000),
        conn(ts=1_700_000_000_000_000_000),
        conn(ts="2023-11-14T22:13:20.000000Z"),
        conn(ts="2023-11-14T22:13:20Z"),
        conn(ts="2023-11-14T23:13:20.000000+0100"),
        conn(ts="2023-11-14T23:13:20.000000+01:00"),
        conn(ts="2023-11-14T22:13:20"),
        conn(ts="1700000000.000000"),
        with_id("underscore"),
        with_id("nested"),
        conn(_path="conn", _write_ts="2023-11-14T22:14:00.000000Z"),
        conn(_node_name="worker-1", community="x", vlan=7),
        {"conn": conn()},
        {"conn-2": conn(), "zeek_server": "one"},
        {"message": json.dumps(conn()), "@timestamp": "2023-11-14T22:13:21Z"},
        {"message": json.dumps({"conn": conn()})},
    ],
)
def test_every_json_form_reads_as_the_same_flow(record: dict[str, Any]) -> None:
    assert same(read(jsonl([record])))


@pytest.mark.parametrize("separator", ["\t", ",", "|", ";"])
@pytest.mark.parametrize("unset", ["-", "NULL", ""])
def test_every_tsv_form_reads_as_the_same_flow(separator: str, unset: str) -> None:
    got = read(tsv([conn()], separator=separator, unset=unset))
    assert got.row == PLAIN | {"origin": "conn.log:5"}


def test_columns_may_be_missing_unknown_or_in_another_order() -> None:
    fields = ["_node_name", "uid", "ts", "id.resp_h", "id.orig_h", "vlan"]
    row = read(tsv([conn()], fields)).row
    assert (row["uid"], row["orig_h"], row["resp_h"], row["ts"]) == tuple(
        PLAIN[k] for k in ("uid", "orig_h", "resp_h", "ts")
    )
    assert all(
        row[name] is None
        for name in ("orig_p", "proto", "duration", "orig_bytes", "conn_state", "local_orig")
    )


def test_unset_is_null_never_zero() -> None:
    bare = {"ts", "uid", "id.orig_h", "id.resp_h", "conn_state"}
    record = {name: value for name, value in conn().items() if name in bare}
    for got in (read(jsonl([record])), read(tsv([record]))):
        unset = [name for name in PLAIN if got.row[name] is None]
        assert len(unset) == len(PLAIN) - 5 - 4  # sensor, source, open, origin


def test_labels_of_iot_23_are_taken_apart() -> None:
    glued = "tunnel_parents   label   detailed-label"
    fields = [*FIELDS[:20], glued]
    records = [
        conn(0) | {glued: "-   Malicious   C&C-FileDownload"},
        conn(1) | {glued: "(empty)   benign   -"},
    ]
    flows = read(tsv(records, fields)).flows
    assert flows.select("label", "label_detail", "tunnel_parents").rows() == [
        ("malicious", "C&C-FileDownload", None),
        ("benign", None, None),
    ]


def test_a_glued_field_that_names_other_columns_changes_nothing() -> None:
    glued = "tunnel_parents   ip_proto   label   uid   label"
    fields = [*FIELDS[:20], glued, "ip_proto"]
    got = read(tsv([conn() | {glued: "-   7   Benign   x   Malicious"}], fields))
    assert (got.row["label"], got.row["ip_proto"], got.row["uid"]) == (
        "malicious",
        6,
        conn()["uid"],
    )


def test_open_connections_are_marked() -> None:
    for path in ("open_conn", "open-conn", "conn_long"):
        assert read(tsv([conn()], path=path)).row["open"] is True
    assert read(jsonl([conn(_path="conn_long")])).row["open"] is True
    assert read(jsonl([conn()]), name="logs/open_conn.12:00.log").row["open"] is True
    assert read(tsv([conn()])).row["open"] is False


def test_other_logs_are_out_of_scope_by_name() -> None:
    dns = {
        "ts": 1.7e9,
        "uid": "C1",
        "id.orig_h": "10.0.0.1",
        "id.resp_h": "10.0.0.2",
        "query": "a.example",
    }
    records = [{"weird": dns}, {"conn": conn()}, {"smtp": dns}, dns | {"_path": "dpd"}, dns]
    got = read(jsonl(records))
    assert got.flows.height == 1
    assert got.out_of_scope == {"zeek_weird": 1, "zeek_smtp": 1, "zeek_dpd": 1, "zeek_other": 1}
    files = tsv([dns, dns], ["ts", "uid", "query"], path="files")
    assert read(files).out_of_scope == {"zeek_files": 2}


def test_the_message_names_the_sensor_unless_the_command_does() -> None:
    data = jsonl([conn(_path="conn", _system_name="east")])
    assert read(data).row["sensor"] == "east"
    assert read(data, sensor="west").row["sensor"] == "west"


def test_sets_escapes_and_addresses_are_canonical() -> None:
    record = conn(
        service="http,ssl",
        tunnel_parents=["Ca", "Cb"],
        id_orig_h="2001:DB8:0::0001",
        id_resp_h="::FFFF:1.2.3.4",
    )
    row = read(jsonl([record])).row
    assert (row["service"], row["tunnel_parents"]) == ("http,ssl", "Ca,Cb")
    assert (row["orig_h"], row["resp_h"]) == ("2001:db8::1", "::ffff:1.2.3.4")
    assert read(tsv([conn(service="a\\x09b")])).row["service"] == "a\tb"
    assert read(jsonl([conn(service="", tunnel_parents=[])])).row["service"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id_orig_p": 65536}, "bad_port"),
        ({"id_resp_p": -1}, "bad_port"),
        ({"duration": -0.5}, "bad_duration"),
        ({"duration": 1e15}, "bad_duration"),
        ({"orig_bytes": -1}, "bad_count"),
        ({"ip_proto": 256}, "bad_ip_proto"),
        ({"ts": -17.0}, "bad_time"),
        ({"ts": "yesterday"}, "bad_time"),
        ({"id_orig_h": "300.1.1.1"}, "bad_address"),
        ({"id_orig_h": "01.2.3.4"}, "bad_address"),
        ({"id_resp_h": "fe80::1%eth0"}, "bad_address"),
    ],
)
def test_absurd_values_are_rejects_with_their_line(changes: dict[str, Any], reason: str) -> None:
    good = [conn(n) for n in range(1, 5)]
    for data, first in (
        (jsonl([*good[:2], conn(**changes), *good[2:]]), 0),
        (tsv([*good[:2], conn(**changes), *good[2:]]), 4),
    ):
        got = read(data)
        assert got.reasons == [reason]
        assert got.rejects[0].place == f"line {first + 3}"
        assert got.rejects[0].data.startswith(data.split(b"\n")[first + 2].decode()[:50])
        assert got.flows["uid"].to_list() == [record["uid"] for record in good]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"ts":1700000000.0,"uid":"C1"', "bad_json"),
        (b'{"ts":1700000000.0,"uid":"\xff\xfe"}', "bad_utf8"),
        (b"\x00\x01\x02\x89PNG", "bad_utf8"),
        (b"\x00\x01\x02PNG", "bad_json"),
        (b"[1,2]", "bad_json"),
        (b"null", "bad_json"),
        (b'{"a":1}', "not_zeek"),
        (b'{"ts":1700000000.0,"uid":"C1","conn_state":"SF"}', "no_address"),
        (
            b'{"ts":1700000000.0,"id.orig_h":"10.0.0.1","id.resp_h":"10.0.0.2","conn_state":["SF"]}',
            "bad_value",
        ),
        (
            b'{"ts":1700000000.0,"id.orig_h":"10.0.0.1","id.resp_h":"10.0.0.2","orig_bytes":"dozen"}',
            "bad_value",
        ),
        (b'{"ts":1700000000.0,"id":{"orig_h":"10.0.0.1"},"conn_state":"SF"}', "bad_address"),
    ],
)
def test_damaged_json_lines_are_rejects_beside_good_ones(line: bytes, reason: str) -> None:
    got = read(jsonl([conn(1), conn(2)]) + line + b"\n\n" + jsonl([conn(3)]))
    assert got.reasons == [reason]
    assert got.rejects[0].place == "line 3"
    assert got.flows["origin"].to_list() == ["conn.log:1", "conn.log:2", "conn.log:5"]


@pytest.mark.parametrize("depth", [100, 1000, 1020, 100_000])
def test_deep_nesting_is_no_crash(depth: int) -> None:
    objects = b'{"a":' * depth + b"1" + b"}" * depth
    lists = jsonl([conn(1)]).rstrip(b"}\n") + b',"x":' + b"[" * depth + b"]" * depth + b"}"
    got = read(jsonl([conn(0)]) + objects + b"\n" + lists + b"\n" + jsonl([conn(2)]))
    assert got.flows.height + len(got.rejects) == 4
    assert got.flows.height >= 2


def test_a_key_that_stands_twice_is_taken_as_it_stands_first() -> None:
    line = jsonl([conn(1)]).replace(b'"proto"', b'"uid": "second", "proto"')
    for data in (
        line,
        line + b"junk\n",
        jsonl([{"conn": 1}]).replace(b"1", line.strip()) + b"junk\n",
    ):
        assert read(data).flows["uid"].to_list() == [conn(1)["uid"]]


def test_damaged_tsv_lines_are_rejects_beside_good_ones() -> None:
    good = tsv([conn(1), conn(2)])
    extra = (
        b"1700000000.0\tC1\t10.0.0.1\n"
        + b"1\t2\xff\n"
        + b"\n"
        + good.split(b"\n")[4].replace(b"\t443\t", b"\thttps\t")
        + b"\n"
    )
    got = read(good + extra + b"#close\t2023-11-14\n")
    assert got.reasons == ["wrong_fields", "bad_utf8", "bad_value"]
    assert [reject.place for reject in got.rejects] == ["line 7", "line 8", "line 10"]
    assert got.flows.height == 2


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_last_line_that_is_cut_off_says_so(cut: int) -> None:
    for data in (jsonl([conn(1), conn(2)]), tsv([conn(1), conn(2)])):
        got = read(data[: -1 - cut])
        assert got.flows.height + len(got.rejects) == 2
        assert got.reasons in (["cut_off"], [])


def test_logs_joined_end_to_end_take_each_others_header() -> None:
    other = tsv([conn(1)], ["uid", *[name for name in FIELDS if name != "uid"]], separator=",")
    got = read(tsv([conn(0)]) + b"#close\n" + other)
    assert got.flows["uid"].to_list() == [conn(0)["uid"], conn(1)["uid"]]
    assert not got.rejects


def test_a_line_of_many_megabytes_is_one_reject() -> None:
    data = (
        jsonl([conn(1)])
        + b'{"ts":'
        + b"1" * (9 << 20)
        + b"}\n"
        + jsonl([conn(2)])
        + b"x" * (3 << 20)
    )
    got = read(data)
    assert got.reasons == ["too_long", "too_long"]
    assert [reject.place for reject in got.rejects] == ["line 2", "line 4"]
    assert all(len(reject.data) <= 200 for reject in got.rejects)
    assert got.flows["origin"].to_list() == ["conn.log:1", "conn.log:3"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"ts": -12345.0}, "ts"),
        ({"duration": 1e9}, "duration"),
        ({"duration": 5000.0}, "duration"),
        ({"orig_ip_bytes": 30}, "orig_ip_bytes"),
    ],
)
def test_a_source_in_other_units_is_refused(changes: dict[str, Any], what: str) -> None:
    records = [conn(n) | changes for n in range(30)]
    for data in (jsonl(records), tsv(records)):
        with pytest.raises(DialectError, match=what):
            read(data)


def test_a_tsv_log_without_a_usable_header_is_refused() -> None:
    with pytest.raises(InputError, match="#fields"):
        read(b"#separator \\x09\n#path\tconn\n1\t2\n")
    with pytest.raises(InputError, match="without ts"):
        read(tsv([conn()], ["uid", "conn_state"]))


def test_empty_logs_have_no_flows() -> None:
    for data in (b"", b"\n\n", tsv([])):
        got = read(data)
        assert (got.flows.height, got.rejects) == (0, [])
