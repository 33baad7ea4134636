"""`ids-plugin scan`, as a user runs it: logs in, explained alerts out, and what happens when things
go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ids_plugin import cli
from ids_plugin.schema import flow
from tests.support import toy

ZEEK = {column.name: column.zeek for column in flow.COLUMNS if column.zeek}


def write_json(flows: pl.DataFrame, path: Path) -> Path:
    """A Zeek conn.log in JSON, unset fields left out."""
    rows = flows.select(list(ZEEK)).with_columns(
        ts=pl.col("ts").dt.epoch("us") / 1e6,
        duration=pl.col("duration").dt.total_microseconds() / 1e6,
    )
    with path.open("w") as stream:
        for row in rows.to_dicts():
            stream.write(json.dumps({ZEEK[k]: v for k, v in row.items() if v is not None}) + "\n")
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_json(toy.network(3), tmp_path_factory.mktemp("log") / "conn.log")


def run(*arguments: str | Path) -> int:
    """The exit code of the command line."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def documents(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "alerts.ndjson").read_text().splitlines()]


def test_a_scan_finds_the_attacks_and_says_why(log: Path, tmp_path: Path) -> None:
    assert run("scan", log, "--out", tmp_path, "--quiet") == 0
    alerts = [one for one in documents(tmp_path) if one["event"]["kind"] == "alert"]
    found = {(one["ids_plugin"]["fold"]["subject"], one["ids_plugin"]["label"]) for one in alerts}
    assert ("192.168.1.66", "scan") in found
    for alert in alerts:
        evidence = alert["ids_plugin"]["evidence"]
        assert sum(one["weight"] for one in evidence["flows"]) == pytest.approx(1, abs=1e-4)
        assert alert["ids_plugin"]["fold"]["subject"] in evidence["summary"]
        assert evidence["features"]
        assert evidence["method"]
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["balanced"]
    assert ledger["total"]["scored"] == len(toy.network(3))
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert (tmp_path / "rejects.ndjson").read_text() == ""


def test_records_that_name_their_sensor_are_counted_as_its(log: Path, tmp_path: Path) -> None:
    named = tmp_path / "named.log"
    named.write_text(log.read_text().replace('{"ts"', '{"_system_name": "north", "ts"'))
    assert run("scan", named, log, "--out", tmp_path, "--quiet") == 0
    entries = json.loads((tmp_path / "ledger.json").read_text())["sources"]
    assert {one["sensor"]: one["scored"] for one in entries} == dict.fromkeys(
        ("default", "north"), len(toy.network(3))
    )


def test_every_fold_opens_and_closes_once(log: Path, tmp_path: Path) -> None:
    run("scan", log, "--out", tmp_path, "--quiet")
    states: dict[str, list[str]] = {}
    for one in documents(tmp_path):
        states.setdefault(one["ids_plugin"]["fold"]["id"], []).append(
            one["ids_plugin"]["fold"]["state"]
        )
    assert all(found == ["open", "closed"] for found in states.values())


def test_the_order_of_files_and_lines_changes_no_byte(log: Path, tmp_path: Path) -> None:
    lines = log.read_text().splitlines(keepends=True)
    folder = tmp_path / "logs"
    folder.mkdir()
    for part in range(3):
        (folder / f"{'cab'[part]}.log").write_text("".join(reversed(lines[part::3])))
    run("scan", log, "--out", tmp_path / "one", "--quiet")
    run("scan", folder, "--out", tmp_path / "three", "--quiet")
    assert (tmp_path / "one/alerts.ndjson").read_bytes() == (
        tmp_path / "three/alerts.ndjson"
    ).read_bytes()


def test_json_lines_are_the_documents_of_the_file(
    log: Path, tmp_path: Path, capfdbinary: Any
) -> None:
    run("scan", log, "--out", tmp_path, "--json", "--quiet")
    assert capfdbinary.readouterr().out == (tmp_path / "alerts.ndjson").read_bytes()


def test_the_table_names_hosts_and_reasons(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scan", log) == 0
    captured = capsys.readouterr()
    assert "192.168.1.66" in captured.out
    assert "records read" in captured.err


def test_fail_on_decides_the_exit_code(log: Path) -> None:
    assert run("scan", log, "--quiet", "--fail-on", "low") == 1
    assert run("scan", log, "--quiet", "--fail-on", "critical", "--min-severity", "critical") in (
        0,
        1,
    )


def test_an_allow_list_suppresses_and_the_ledger_says_so(log: Path, tmp_path: Path) -> None:
    allow = tmp_path / "allow.toml"
    allow.write_text('[[allow]]\nhost = "192.168.1.66"\nclass = "scan"\nnote = "our scanner"\n')
    assert run("scan", log, "--allow", allow, "--out", tmp_path / "out", "--quiet") == 0
    subjects = {
        (one["ids_plugin"]["fold"]["subject"], one["ids_plugin"]["label"])
        for one in documents(tmp_path / "out")
    }
    assert ("192.168.1.66", "scan") not in subjects
    ledger = json.loads((tmp_path / "out/ledger.json").read_text())
    assert sum(ledger["total"]["suppressed"].values()) > 0


def test_bad_lines_are_rejects_and_lose_nothing_beside_them(log: Path, tmp_path: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    broken = tmp_path / "broken.log"
    broken.write_bytes(
        b"".join([*lines[:100], b'{"ts": 12, "uid"\n', b"\xff\xfe\n", *lines[100:], b'{"ts":17'])
    )
    run("scan", log, "--out", tmp_path / "good", "--quiet")
    assert run("scan", broken, "--out", tmp_path / "bad", "--quiet") == 0
    assert (tmp_path / "good/alerts.ndjson").read_bytes() == (
        tmp_path / "bad/alerts.ndjson"
    ).read_bytes()
    rejects = [
        json.loads(line) for line in (tmp_path / "bad/rejects.ndjson").read_text().splitlines()
    ]
    assert [one["place"] for one in rejects] == ["line 101", "line 102", f"line {len(lines) + 3}"]
    assert json.loads((tmp_path / "bad/ledger.json").read_text())["balanced"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["scan", "no-such-file.log"], 3),
        (["scan"], 2),
        (["scan", "LOG", "--bundle", "no-such-bundle"], 2),
        (["scan", "LOG", "--since", "yesterday"], 2),
        (["scan", "LOG", "--sensor", "nonsense"], 2),
        (["scan", "LOG", "--local-nets", "300.0.0.0/8"], 2),
        (["scan", "LOG", "--allow", "no-such-allow-list.toml"], 2),
        (["no-such-command"], 2),
        (["--version"], 0),
        (["scan", "--help"], 0),
        (["bundle", "verify", "default"], 0),
        (["bundle", "show", "default", "--json"], 0),
        (["bundle", "verify", "default", "--key", "no-such-key.pem"], 2),
        (["scan", "LOG", "--key", "no-such-key.pem"], 2),
        (["scan", "LOG", "--out", "LOG"], 2),
        (["scan", "LOG", "--out", "LOG/below"], 2),
        (["scan", "LOG", "--no-such-option"], 2),
        (["flows", "LOG", "-o", "LOG/below"], 2),
    ],
)
def test_exit_codes_and_one_line_errors(
    arguments: list[str], code: int, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*[one.replace("LOG", str(log)) for one in arguments]) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if code:
        assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", 0), (b"\x00" * 5000, 3), (b"hello world\n" * 100, 3), (b"\x1f\x8b\x08\x00broken", 3)],
)
def test_inputs_that_are_none(content: bytes, code: int, tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_bytes(content)
    assert run("scan", source, "--quiet") == code


def test_an_input_that_cannot_be_read_beside_one_that_can(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("scan", log, "--out", tmp_path / "good", "--quiet")
    assert run("scan", log, tmp_path / "absent.log", "--out", tmp_path / "both", "--quiet") == 3
    assert f"{tmp_path}/absent.log: can't be opened: no such file" in capsys.readouterr().err
    assert (tmp_path / "good/alerts.ndjson").read_bytes() == (
        tmp_path / "both/alerts.ndjson"
    ).read_bytes()
    assert json.loads((tmp_path / "both/ledger.json").read_text())["total"]["rejected"] == {
        "unreadable": 1
    }


def test_files_are_complete_though_nobody_reads_standard_output(log: Path, tmp_path: Path) -> None:
    run("scan", log, "--out", tmp_path / "good", "--quiet")
    command = (
        f"{sys.executable} -m ids_plugin.cli scan {log} --out {tmp_path}/out --json --quiet | true"
    )
    assert (
        subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stderr
        == ""
    )
    assert (tmp_path / "good/alerts.ndjson").read_bytes() == (
        tmp_path / "out/alerts.ndjson"
    ).read_bytes()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(closed: str, log: Path) -> None:
    command = f"{sys.executable} -m ids_plugin.cli scan {log} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_full_standard_output_is_an_error(log: Path) -> None:
    for command in ("scan", "scan --json", "flows"):
        typed = f"{sys.executable} -m ids_plugin.cli {command} {log} --quiet >/dev/full"
        done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert (
            done.stderr
            == "ids-plugin: standard output: can't be written: no space left on device\n"
        )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_is_interrupted_leaves_nothing_behind(
    number: int, code: int, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    command = [
        sys.executable,
        "-m",
        "ids_plugin.cli",
        "scan",
        "-",
        "--out",
        str(tmp_path / "out"),
        "--quiet",
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as scan:
        while not list((tmp_path / "tmp").glob("ids-plugin-*")):
            assert scan.poll() is None
            time.sleep(0.05)
        scan.send_signal(number)
        try:
            assert scan.wait(60) == code
        finally:
            scan.kill()
        assert scan.stderr
        assert len(scan.stderr.read().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_min_severity_leaves_out_is_noted(log: Path, tmp_path: Path) -> None:
    run("scan", log, "--out", tmp_path, "--min-severity", "critical", "--quiet")
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    written = len(documents(tmp_path))
    assert written + ledger["notes"]["below_min_severity"] == ledger["total"]["documents"]


def test_flows_know_the_local_networks_given(log: Path, tmp_path: Path) -> None:
    run("flows", log, "-o", tmp_path / "flows", "--local-nets", "203.0.113.0/24", "--quiet")
    rows = [json.loads(line) for line in (tmp_path / "flows").read_text().splitlines()]
    assert rows
    assert not any(row["local_orig"] for row in rows if row["id.orig_h"].startswith("192.168."))


def test_a_directory_with_nothing_known_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see\n")
    assert run("scan", tmp_path) == 3
    assert "known kind" in capsys.readouterr().err


def test_whoever_stops_reading_gets_no_traceback(log: Path) -> None:
    command = (
        f"{sys.executable} -m ids_plugin.cli scan {log} --json --quiet | head -c 100 >/dev/null"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_standard_input(log: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ids_plugin.cli", "scan", "-", "--json", "--quiet"],
        input=log.read_bytes(), capture_output=True, check=True,
    )  # fmt: skip
    assert b'"kind":"alert"' in done.stdout


def test_a_full_disk_is_one_line_and_leaves_nothing_half_done(log: Path, tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("not installable here: mounting a small file system needs root")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ids_plugin.cli", "scan", str(log), "--out", str(tmp_path / "out"), "--quiet"],  # noqa: E501
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "no space left" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=False)


def test_a_scan_leaves_no_trace_of_a_library_that_reports_to_its_maker(
    log: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "ids_plugin.cli", "scan", str(log), "--quiet", "--json"]
    subprocess.run(
        command, capture_output=True, check=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert list(tmp_path.iterdir()) == []


def test_scanning_loads_nothing_heavy(log: Path) -> None:
    code = (
        "import sys; from ids_plugin import cli; "
        f"cli.main(['scan', {str(log)!r}, '--quiet', '--json']); "
        "print(sorted({n.split('.')[0] for n in sys.modules} & "
        "{'torch','pandas','sklearn','scipy'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
