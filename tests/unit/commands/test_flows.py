"""`ids-plugin flows`: every format gives back the flows that were read, in known order, whole or
not at all."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ids_plugin import cli
from ids_plugin.schema import flow
from ids_plugin.sources.local_networks import Locality
from tests.support.captures import EPOCH, Record, ethernet, pcap, udp
from tests.support.logs import conn, jsonl, read, read_files
from tests.unit.flowmeter.test_capture import frames
from tests.unit.flowmeter.test_capture_options import long_session

RECORDS = [
    conn(0, duration=40.5),
    conn(1, duration=None, orig_bytes=None, resp_bytes=None, service=None, local_orig=None),
    conn(2, service='quo"te\\back', history="tab\there", uid="-", tunnel_parents=["Ca", "Cb"]),
    conn(3, id_orig_h="2001:db8::1", proto="udp", duration=205201.298104),
    *(conn(n) for n in range(4, 90)),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "conn.log"
    path.write_bytes(jsonl(RECORDS))
    return path


def as_written(flows: pl.DataFrame) -> pl.DataFrame:
    """A log holds what we judge local as its own flags: whoever reads it sees them as the
    sensor's."""
    judged = [pl.col(name).alias(f"sensor_{name}") for name in ("local_orig", "local_resp")]
    unknown = [pl.lit(None, pl.Boolean()).alias(name) for name in ("local_orig", "local_resp")]
    return flows.with_columns(judged).with_columns(unknown)


def wanted() -> pl.DataFrame:
    """What is in the records, in known order, with the local flags as the pipeline fills them."""
    flows = read(jsonl(RECORDS)).flows
    locality = Locality()
    locality.see(flows)
    return locality.fill(flows).sort(flow.known(), "uid").drop("origin")


@pytest.mark.parametrize("form", ["json", "tsv"])
def test_zeeks_forms_are_read_again_as_they_were(form: str, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "flows.log"
    assert cli.main(["flows", str(log), "--format", form, "-o", str(out), "--quiet"]) == 0
    assert_frame_equal(read_files(out).flows.drop("origin"), as_written(wanted()))
    again = tmp_path / "again.log"
    assert cli.main(["flows", str(out), "--format", form, "-o", str(again), "--quiet"]) == 0
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(("form", "reader"), [("parquet", pl.read_parquet), ("arrow", pl.read_ipc)])
def test_tables_hold_the_whole_frame(form: str, reader: object, log: Path, tmp_path: Path) -> None:
    assert callable(reader)
    out = tmp_path / "flows"
    assert cli.main(["flows", str(log), "--format", form, "-o", str(out), "--quiet"]) == 0
    found = reader(out)
    assert_frame_equal(found.drop("origin"), wanted())
    assert set(found["origin"]) == {f"{log}:{line}" for line in range(1, len(RECORDS) + 1)}


def test_a_capture_becomes_a_log(tmp_path: Path) -> None:
    ends = ("10.0.0.5", 40000), ("10.0.0.1", 53)
    packets = [
        Record(0.0, ethernet(udp(*ends, b"who?"))),
        Record(0.25, ethernet(udp(*ends[::-1], b"me!!!!"))),
    ]
    source, out = tmp_path / "some.pcap", tmp_path / "conn.log"
    source.write_bytes(pcap(packets))
    assert cli.main(["flows", str(source), "--format", "tsv", "-o", str(out), "--quiet"]) == 0
    row = read_files(out).row
    assert (row["orig_h"], row["resp_p"], row["proto"]) == ("10.0.0.5", 53, "udp")
    assert (row["orig_bytes"], row["resp_bytes"], row["ts"].timestamp()) == (4, 6, EPOCH)


def test_since_and_until_leave_the_rest_out(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "flows.parquet"
    period = ["--since", "2023-11-14T22:13:21", "--until", "2023-11-14T22:13:25+00:00"]
    assert (
        cli.main(["flows", str(log), *period, "--format", "parquet", "-o", str(out), "--quiet"])
        == 0
    )
    assert len(pl.read_parquet(out)) == 32


def test_bad_records_are_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "conn.log"
    source.write_bytes(jsonl(RECORDS[:3]) + b'{"ts": oops\n' + jsonl(RECORDS[3:6]))
    assert cli.main(["flows", str(source), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "line 4" in said
    assert "7 records read, 1 rejected, 6 flows" in said


def test_standard_input_to_standard_output() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ids_plugin.cli", "flows", "-", "--quiet"],
        input=jsonl(RECORDS), capture_output=True, check=True,
    )  # fmt: skip
    assert_frame_equal(read(done.stdout).flows.drop("origin"), as_written(wanted()))
    assert io.BytesIO(done.stdout).readline().startswith(b'{"ts":')
    assert done.stderr == b""


def test_an_input_that_fails_leaves_no_file(tmp_path: Path) -> None:
    assert cli.main(["flows", str(tmp_path / "none.log"), "-o", str(tmp_path / "out")]) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_written_to_and_stays_one(log: Path, tmp_path: Path) -> None:
    """So does a device: root's /dev/null would else be a file from then on."""
    pipe, got = tmp_path / "pipe", tmp_path / "got"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=got.open("wb")) as reader:
        assert cli.main(["flows", str(log), "-o", str(pipe)]) == 0
        reader.wait(60)
    assert pipe.is_fifo()
    assert cli.main(["flows", str(log), "-o", str(tmp_path / "file")]) == 0
    assert got.read_bytes() == (tmp_path / "file").read_bytes() != b""


def test_captures_are_read_with_the_options_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(frames(*long_session(150)))
    assert cli.main(["flows", str(path), "--open-every", "60", "--community-id", "--quiet"]) == 0
    lines = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("_path") for line in lines] == ["open_conn", None]
    assert {line["community_id"][:2] for line in lines} == {"1:"}
    assert cli.main(["flows", str(path), "--open-every", "0.1"]) == 2
    assert cli.main(["flows", str(path), "--checksums", "verify", "--quiet"]) == 0
    refused = orjson.loads(capsys.readouterr().out.splitlines()[0])
    assert (refused["history"], refused["orig_pkts"]) == ("C", 0)
