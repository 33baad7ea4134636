"""The Zeek package: every script parses, the package holds what it names, a real Zeek does what its
tests say."""

from __future__ import annotations

import configparser
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from ids_plugin.sources import Input, ReadOptions
from ids_plugin.sources.messages import Fetched, MessageReader
from ids_plugin.sources.zeek import PLUGIN
from tests.support.captures import ACK, EPOCH, FIN, SYN, Record, ethernet, pcap, tcp, udp

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "zeek_scripts").glob("*.zeek"))
TESTS = sorted((ROOT / "testing/tests").glob("*.zeek"))
BEGIN = float(EPOCH)
SERVER = ("192.0.2.20", 443)


def trace() -> bytes:
    """1,000 s: a connection that lasts throughout, a datagram, and one pair of sockets used
    twice."""
    talks = [
        *talk(("192.168.1.10", 40_000), range(0, 1001, 100)),
        (10.0, udp(("192.168.1.10", 5353), ("192.0.2.53", 9999), b"hello")),
        *talk(("192.168.1.11", 40_001), range(200, 202)),
        *talk(("192.168.1.11", 40_001), range(350, 551, 50)),
    ]
    return pcap(
        Record(time, ethernet(packet)) for time, packet in sorted(talks, key=lambda pair: pair[0])
    )


def talk(client: tuple[str, int], seconds: range) -> list[tuple[float, bytes]]:
    """A TCP connection with one byte each way at every time but the last, which ends it."""
    begin, last, start = seconds[0], seconds[-1], seconds[0] * 1000 + 1
    packets = [
        (begin + 0.0, tcp(client, SERVER, SYN, start)),
        (begin + 0.01, tcp(SERVER, client, SYN | ACK, start, start + 1)),
        (begin + 0.02, tcp(client, SERVER, ACK, start + 1, start + 1)),
    ]
    at = start + 1
    for second in seconds[:-1]:
        packets.append((second + 0.03, tcp(client, SERVER, ACK, at, at, b"q")))
        packets.append((second + 0.04, tcp(SERVER, client, ACK, at, at + 1, b"a")))
        at += 1
    packets.append((last + 0.03, tcp(client, SERVER, FIN | ACK, at, at)))
    packets.append((last + 0.04, tcp(SERVER, client, FIN | ACK, at, at + 1)))
    packets.append((last + 0.05, tcp(client, SERVER, ACK, at + 1, at + 1)))
    return packets


@pytest.mark.parametrize("script", [*SCRIPTS, *TESTS], ids=lambda path: path.name)
def test_every_script_parses_and_is_formatted(script: Path) -> None:
    program = Path(sys.executable).with_name("zeek-script")
    parsed = subprocess.run([program, "parse", script], capture_output=True, text=True, check=False)
    assert parsed.returncode == 0, parsed.stderr
    assert "[error]" not in parsed.stdout
    if script in SCRIPTS:
        formatted = subprocess.run(
            [program, "format", script], capture_output=True, text=True, check=True
        )
        assert formatted.stdout == script.read_text()


def test_the_package_loads_each_of_its_scripts() -> None:
    package = configparser.ConfigParser()
    package.read(ROOT / "zkg.meta")
    assert ROOT / package["package"]["script_dir"] == SCRIPTS[0].parent
    loaded = re.findall(
        r"^@load \./(\w+)$", (SCRIPTS[0].parent / "__load__.zeek").read_text(), re.MULTILINE
    )
    assert sorted(loaded) == [script.stem for script in SCRIPTS if script.stem != "__load__"]


def test_options_are_documented() -> None:
    text = (ROOT / "docs/sensors.md").read_text()
    options = [
        name
        for script in SCRIPTS
        for name in re.findall(r"^\t(?:const|option) (\w+)", script.read_text(), re.MULTILINE)
    ]
    assert len(options) > 5
    assert [name for name in options if f"`IDSPlugin::{name}`" not in text] == []


def test_the_trace_of_the_scenarios_is_what_is_made_here() -> None:
    assert (ROOT / "testing/Traces/long.pcap").read_bytes() == trace()


def test_the_built_in_meter_sees_four_connections_in_it() -> None:
    from ids_plugin.sources.capture import PLUGIN as CAPTURE

    data = trace()
    source = Input("long.pcap", io.BytesIO(data), data[:1000], "s", ReadOptions(meter="builtin"))
    flows = [
        flow for step in CAPTURE.read(source, 1000) for flow in step.flows.iter_rows(named=True)
    ]
    lasted = sorted(
        round(flow["duration"].total_seconds() if flow["duration"] else 0) for flow in flows
    )
    assert lasted == [0, 1, 200, 1000]


def test_records_as_the_scripts_write_them_are_read_for_what_they_are() -> None:
    common = {
        "uid": "C1",
        "id.orig_h": "10.0.0.1",
        "id.orig_p": 1,
        "id.resp_h": "10.0.0.2",
        "id.resp_p": 2,
    }
    conn = {
        "ts": BEGIN,
        **common,
        "proto": "tcp",
        "conn_state": "S1",
        "orig_pkts": 1,
        "orig_ip_bytes": 40,
    }
    counts = {
        "ts": 60.0,
        "node": "zeek",
        "stream": "conn",
        "period": 60.0,
        "written": 17,
        "written_total": 17,
    }
    told = [("conn", conn), ("open_conn", conn | {"uid": "C2"}), ("ids_counts", counts)]
    records = [
        orjson.dumps({"_path": path, "_system_name": "edge", **record}) for path, record in told
    ]
    fetched = Fetched("zeek", 0, range(3), [0] * 3, records, [()] * 3)
    found = MessageReader({}).read([fetched], 0)
    (batch,) = found.batches
    assert batch.sensor == "edge"
    assert dict(batch.rows.select("uid", "open").iter_rows()) == {"C1": False, "C2": True}
    assert [one["written"] for one in found.counters] == [17]
    data = b"\n".join(records[:2]) + b"\n"
    (step,) = PLUGIN.read(Input("conn.log", io.BytesIO(data), data, "s", ReadOptions()), 10)
    assert step.flows["open"].to_list() == [False, True]


def test_the_scenarios_on_a_real_zeek() -> None:
    if not shutil.which("zeek"):
        pytest.skip("zeek is not installable here")
    btest = Path(sys.executable).with_name("btest")
    done = subprocess.run(
        [btest, "-d", "-c", "btest.cfg"],
        cwd=ROOT / "testing",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
