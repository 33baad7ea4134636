"""Zeek's own logs with labels that somebody wrote."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ids_plugin.datasets.labelled_flows import load
from ids_plugin.errors import InputError, UsageError
from tests.support import toy
from tests.support.logs import START, conn


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Ten connections, 60 s apart, of 192.168.1.1 … .10."""
    path = tmp_path / "conn.log"
    path.write_text("".join(json.dumps(conn(n, ts=START + 60 * n)) + "\n" for n in range(10)))
    return path


def said(path: Path, text: str) -> Path:
    path = path.with_name("labels.csv")
    path.write_text(text)
    return path


def labels_of(log: Path, text: str) -> list[str]:
    (network,) = load(f"zeek:{log}", said(log, text))
    return network.flows.sort("ts")["label"].to_list()


def test_labels_by_uid(log: Path) -> None:
    uids = [conn(n)["uid"] for n in (2, 5)]
    (network,) = load(
        f"zeek:{log}", said(log, f"uid,class\n{uids[0]},scan\n{uids[1]},flood\n{uids[0]},flood\n")
    )
    flows = network.flows.sort("ts")
    assert flows["label"].to_list() == [{2: "scan", 5: "flood"}.get(n, "benign") for n in range(10)]
    assert flows["label_detail"].to_list()[:3] == [None, None, "labels.csv, line 2"]
    assert (network.name, network.file) == ("conn", "conn.log")


def test_labels_by_host_and_time_in_either_role_with_both_ends(log: Path) -> None:
    start = datetime.fromtimestamp(START + 60, UTC).isoformat()
    text = f"host,class,from,to\n198.51.100.7,flood,{start},{START + 180}\n192.168.1.9,scan,,\n"
    assert labels_of(log, text) == ["benign", *["flood"] * 3, *["benign"] * 4, "scan", "benign"]


def test_a_time_without_an_offset_is_utc_and_columns_come_in_any_order(log: Path) -> None:
    start = datetime.fromtimestamp(START + 480, UTC).replace(tzinfo=None).isoformat(" ")
    assert (
        labels_of(log, f" class , host,to,from\nscan, 198.51.100.7 ,,{start}\n")
        == ["benign"] * 8 + ["scan"] * 2
    )


def test_the_first_line_that_fits_holds(log: Path) -> None:
    text = "host,class,from,to\n192.168.1.3,benign,,\n198.51.100.7,flood,,\n"
    assert labels_of(log, text) == ["flood", "flood", "benign", *["flood"] * 7]


def test_logs_by_glob_are_one_network_and_both_files_count(log: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "conn.2.log.gz", "wt") as stream:
        stream.write(json.dumps(conn(11, ts=START + 900)) + "\n")
    path = said(log, "host,class,from,to\n198.51.100.7,flood,,\n")
    (network,) = load(f"zeek:{tmp_path}/conn*", path)
    (alone,) = load(f"zeek:{log}", path)
    assert (len(network.flows), len(alone.flows)) == (11, 10)
    path.write_text("host,class,from,to\n198.51.100.7,scan,,\n")
    assert len({network.sha256, alone.sha256, load(f"zeek:{log}", path)[0].sha256}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid,class\nCnobody,scan\n", "labels.csv, line 2: fits no flow"),
        ("host,class,from,to\n192.168.1.3,scan,,2001-01-01\n", "labels.csv, line 2: fits no flow"),
        (
            "host,class,from,to\n192.168.1.3,okiru,,\n",
            "line 2: class 'okiru' is none of benign, scan",
        ),
        ("host,class,from,to\ncamera,scan,,\n", "line 2: 'camera' is no address"),
        ("host,class,from,to\n192.168.1.3,scan,noon,\n", "line 2: 'noon' is no time"),
        ("host,class,from\n192.168.1.3,scan,\n", "labels.csv: column 'to' is missing"),
        ("uid,class,colour\nC,scan,red\n", "labels.csv: column 'colour' isn't known"),
        ("", "labels.csv: can't be read"),
    ],
)
def test_labels_that_make_no_sense_are_refused(log: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(f"zeek:{log}", said(log, text))


def test_logs_that_cannot_be_taken_whole_are_refused(log: Path, tmp_path: Path) -> None:
    path = said(log, "host,class,from,to\n198.51.100.7,flood,,\n")
    with pytest.raises(UsageError, match=r"zeek: needs the labels.*--labels FILE"):
        load(f"zeek:{log}")
    with pytest.raises(InputError, match="no such file"):
        load(f"zeek:{tmp_path}/none.log", path)
    (tmp_path / "http.log").write_text(
        json.dumps({"_path": "http", "ts": START, "uid": "C1"}) + "\n"
    )
    with pytest.raises(InputError, match="no connection in it"):
        load(f"zeek:{tmp_path}/http.log", path)
    log.write_text(log.read_text() + '{"ts": 17')
    with pytest.raises(InputError, match=r"conn\.log, line 11"):
        load(f"zeek:{log}", path)


def test_labels_of_iot23_become_classes(tmp_path: Path) -> None:
    fields = [
        "ts",
        "uid",
        "id.orig_h",
        "id.orig_p",
        "id.resp_h",
        "id.resp_p",
        "proto",
        "label",
        "detailed-label",
    ]
    rows = [
        [str(START + n), f"C{n}", "192.168.1.5", "1024", "203.0.113.5", "23", "tcp", *labels]
        for n, labels in enumerate([("Benign", "-"), ("Malicious", "PartOfAHorizontalPortScan")])
    ]
    path = tmp_path / "1-1.conn.log.labeled"
    lines = [
        "#separator \\x09",
        "#path\tconn",
        "\t".join(["#fields", *fields]),
        *map("\t".join, rows),
    ]
    path.write_text("\n".join(lines) + "\n")
    (network,) = load(f"iot23:{path}")
    assert network.flows.select(pl.col("label")).to_series().to_list() == ["benign", "scan"]
    path.write_text(path.read_text() + "17000")
    with pytest.raises(InputError, match=r"1-1\.conn\.log\.labeled, line 6"):
        load(f"iot23:{path}")


def only_row(column: str, value: object) -> pl.DataFrame:
    """A network with something odd in its fourth row."""
    flows = toy.network(1, minutes=2)
    odd = pl.int_range(pl.len()) == 3
    dtype = pl.Float64 if isinstance(value, float) else flows.schema[column]
    return flows.with_columns(
        pl.when(odd).then(pl.lit(value)).otherwise(pl.col(column).cast(dtype)).alias(column)
    )


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("orig_bytes", float("nan"), "column 'orig_bytes', row 4: 'nan' where a count belongs"),
        ("resp_pkts", float("inf"), "column 'resp_pkts', row 4: 'inf' where a count belongs"),
        ("orig_ip_bytes", 3.5, "column 'orig_ip_bytes', row 4: '3.5' where a count belongs"),
        ("resp_bytes", -5, "column 'resp_bytes', row 4: '-5' where a count belongs"),
        ("orig_p", -4.0, "column 'orig_p', row 4: '-4.0' where a port belongs"),
        ("ts", None, "column 'ts', row 4: nothing where a time belongs"),
        ("proto", None, "column 'proto', row 4: nothing where text belongs"),
        ("label", "martian", "column 'label': label 'martian' is none of benign, scan"),
    ],
)
def test_values_that_no_flow_has_are_refused_with_file_column_and_row(
    column: str, value: object, message: str, tmp_path: Path
) -> None:
    only_row(column, value).write_parquet(tmp_path / "odd.parquet")
    with pytest.raises(InputError, match=rf"odd\.parquet, {message}"):
        load(f"lab:{tmp_path}/odd.parquet")


def test_columns_too_many_too_few_or_of_another_kind_are_named(tmp_path: Path) -> None:
    flows = toy.network(1, minutes=2)
    for frame, message in (
        (flows.drop("resp_h"), r"odd\.parquet: column resp_h is missing"),
        (
            flows.with_columns(colour=pl.lit("red")),
            r"odd\.parquet: column colour is no column of flows",
        ),
        (
            flows.with_columns(ts=pl.lit("noon")),
            r"odd\.parquet, column 'ts': holds String where a time belongs",
        ),
        (
            flows.with_columns(orig_bytes=pl.lit("many")),
            r"'orig_bytes', row 1: 'many' where a count belongs",
        ),
    ):
        frame.write_parquet(tmp_path / "odd.parquet")
        with pytest.raises(InputError, match=message):
            load(f"lab:{tmp_path}/odd.parquet")


def test_a_log_without_labels_is_no_scenario_of_iot23(log: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"conn\.log, column 'label', uid \S+: no label where Benign or Malicious belongs",
    ):
        load(f"iot23:{log}")


@pytest.mark.parametrize(("kind", "what"), [("nab", "time series"), ("uniflow", "tiny_cnn")])
def test_what_has_no_flows_is_told_apart(kind: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"{kind}: has no flows.*{what}"):
        load(f"{kind}:somewhere")
