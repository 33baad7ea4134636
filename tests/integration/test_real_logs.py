"""Logs that real Zeeks and Suricatas wrote: every record reads, and means what other readers say it
means.

zat is the second opinion on Zeek's logs. Where it is known to be wrong, it is not asked:
- `-` is 0, False or "-" to it, so an unset count looks like an empty one;
- its times are local and naive (the tests run it in UTC);
- the header's separator, `#unset_field` and `#empty_field` are not looked at, so IoT-23's glued
  labels stay glued;
- its JSON reader takes every `ts` for seconds, so milliseconds and ISO 8601 fail;
- it knows no envelope: a tagged record is one column.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ids_plugin.schema.flow import COLUMNS, SCHEMA, SENSOR_FLAGS
from tests.support.logs import read_files
from tests.support.shared_data import ROOT, shared

ZEEK = ROOT / "zeek-8.0.8"
SAME = [name for name in SCHEMA if name != "origin"]
FLAG_OF = {judged: flag for flag, judged in SENSOR_FLAGS.items()}
ZEEK_COLUMNS = [
    (FLAG_OF.get(column.name, column.name), column.zeek) for column in COLUMNS if column.zeek
]
"""columns that hold what the log says, and its fields"""


def captures() -> list[str]:
    return sorted(path.parent.name for path in ZEEK.glob("*/conn.json"))


def variants() -> list[str]:
    return sorted(
        str(path.parent.relative_to(ZEEK)) for path in ZEEK.glob("_variants/*/*/conn.log")
    )


def flows_of(*parts: str) -> pl.DataFrame:
    got = read_files(shared("zeek-8.0.8", *parts))
    assert got.rejects == []
    return got.flows


@pytest.fixture(autouse=True, scope="module")
def utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def zat_rows(path: Path) -> list[dict[str, Any]]:
    """zat's reading of a TSV log, its answers for `-` left out."""
    reader = pytest.importorskip("zat.zeek_log_reader")
    unset = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = list(reader.ZeekLogReader(str(path)).readrows())
    assert len(rows) == len(unset)
    for row, texts in zip(rows, unset, strict=True):
        for name, text in zip(list(row), texts, strict=True):
            if text == "-":
                row[name] = None
    return rows


@pytest.mark.skipif(not ZEEK.exists(), reason="needs zeek-8.0.8 of the shared data")
@pytest.mark.parametrize("log", [*captures(), *[name for name in variants() if "json" not in name]])
def test_tsv_logs_equal_zats_reading(log: str) -> None:
    flows = flows_of(log, "conn.log").with_columns(pl.col("ts").dt.replace_time_zone(None))
    rows = zat_rows(shared("zeek-8.0.8", log, "conn.log"))
    assert flows.height == len(rows)
    for ours, theirs in zip(flows.to_dicts(), rows, strict=True):
        for name, zeek in ZEEK_COLUMNS:
            if ours["proto"] == "unknown_transport" and name in ("orig_p", "resp_p"):
                continue  # Zeek writes 0 where there are no ports
            assert ours[name] == theirs.get(str(zeek)), (name, ours, theirs)


@pytest.mark.skipif(not ZEEK.exists(), reason="needs zeek-8.0.8 of the shared data")
@pytest.mark.parametrize("log", captures())
def test_json_logs_equal_the_tsv_of_the_same_run_and_zats_reading(log: str) -> None:
    tsv, json = flows_of(log, "conn.log"), flows_of(log, "conn.json")
    assert_frame_equal(json.select(SAME).sort("ts", "uid"), tsv.select(SAME).sort("ts", "uid"))
    reader = pytest.importorskip("zat.json_log_to_dataframe").JSONLogToDataFrame()
    theirs = pl.from_pandas(reader.create_dataframe(str(ZEEK / log / "conn.json"), ts_index=False))
    assert theirs.height == json.height
    columns = [
        (name, zeek)
        for name, zeek in ZEEK_COLUMNS
        if zeek in theirs.columns and SCHEMA[name] == pl.Int64()
    ]
    for name, zeek in columns:
        assert json[name].to_list() == theirs[zeek].cast(pl.Int64).to_list(), name
    assert json["uid"].to_list() == theirs["uid"].to_list()
    assert (
        json["ts"].dt.epoch("us").to_list() == theirs["ts"].dt.round("1us").dt.epoch("us").to_list()
    )


@pytest.mark.skipif(not ZEEK.exists(), reason="needs zeek-8.0.8 of the shared data")
@pytest.mark.parametrize("log", variants())
def test_every_setting_of_zeek_reads_as_the_same_flows(log: str) -> None:
    _, variant, name = log.split("/")
    base = "wikipedia-filtered-plus-udp" if name == "wikipedia" else name
    flows, local = flows_of(log, "conn.log"), flows_of(f"_variants/local/{name}", "conn.log")
    assert (base, flows.height) == (base, local.height)
    columns = [column for column in SAME if column not in ("service", "community_id")]
    if variant == "json_millis":
        local = local.with_columns(pl.col("ts").dt.truncate("1ms"))
    keys = ["ts", "uid"]
    assert_frame_equal(flows.select(columns).sort(keys), local.select(columns).sort(keys))
    assert (flows["community_id"].null_count() == 0) == variant.startswith("ext_")


@pytest.mark.parametrize(
    ("topic", "others"), [("conn_plain", 0), ("all_tagged", 48), ("conn_iso8601_tagged_extra", 0)]
)
def test_messages_of_a_real_zeek_kafka_equal_the_log(topic: str, others: int) -> None:
    got = read_files(shared("zeek-8.0.8", "_kafka", topic, "zeek.jsonl"))
    log = flows_of("_kafka", topic, "conn.log")
    assert got.rejects == []
    assert got.out_of_scope.total() == others
    assert_frame_equal(got.flows.select(SAME).sort("ts", "uid"), log.select(SAME).sort("ts", "uid"))


def test_labelled_scenarios_read_with_their_labels() -> None:
    got = read_files(shared("iot-23"))
    assert (got.flows.height, got.rejects) == (37_576, [])
    assert got.flows["label"].value_counts().sort("label").rows() == [
        ("benign", 8090),
        ("malicious", 29_486),
    ]
    assert got.flows.filter(pl.col("label") == "malicious")["label_detail"].null_count() == 0


def test_rotated_logs_of_three_days_read_with_their_open_connections() -> None:
    got = read_files(shared("zeek-72h"))
    assert (got.flows.height, got.rejects) == (105_990, [])
    assert got.flows["open"].sum() == 72


@pytest.mark.skipif(not shutil.which("suricata"), reason="needs suricata")
@pytest.mark.parametrize(
    "name",
    [
        "wikipedia-filtered-plus-udp",
        "ssh__ssh",
        "icmp__icmp6-ping",
        "dhcp__dhcp_flood",
        "http__206_example_b",
    ],
)
def test_flow_events_of_a_real_suricata_mean_what_zeek_says(name: str, tmp_path: Path) -> None:
    config = tmp_path / "suricata.yaml"
    eve = "{eve-log: {enabled: yes, filename: eve.json, community-id: yes, types: [flow, dns, stats]}}"  # noqa: E501
    config.write_text(f"%YAML 1.1\n---\noutputs:\n  - {eve[1:-1]}\n")
    capture = shared("zeek-8.0.8", name, "capture.pcap")
    command = [
        "suricata",
        "-r",
        str(capture),
        "-c",
        str(config),
        "-l",
        str(tmp_path),
        "-k",
        "none",
        "-S",
        "/dev/null",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    got = read_files(tmp_path / "eve.json")
    assert got.rejects == []
    zeek = flows_of(name, "conn.log")
    both = zeek.join(
        got.flows,
        on=["orig_h", "orig_p", "resp_h", "resp_p", "proto"],
        suffix="_eve",
        nulls_equal=True,
    )
    assert both.height >= 0.95 * zeek.height
    for column, share in {
        "ts": 1.0,
        "ip_proto": 1.0,
        "conn_state": 0.95,
        "orig_pkts": 0.95,
        "resp_pkts": 0.95,
    }.items():
        assert (both[column] == both[f"{column}_eve"]).mean() >= share, column  # type: ignore[operator]
    sizes = pl.all_horizontal(
        pl.col(side) <= pl.col(f"{side}_eve") for side in ("orig_ip_bytes", "resp_ip_bytes")
    )
    assert both.select(sizes.all()).item()  # small frames are padded, so never less
