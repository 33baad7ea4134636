"""Captures measured by the real programs."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from ids_plugin import cli
from ids_plugin.errors import UsageError
from ids_plugin.sources import Input, Meter, ReadOptions
from ids_plugin.sources.capture import PLUGIN
from tests.support.captures import ACK, FIN, SYN, Record, ethernet, pcap, tcp, udp

CLIENT, SERVER = ("10.0.0.5", 40_000), ("10.0.0.6", 8000)
TALK = (
    tcp(CLIENT, SERVER, SYN, 1),
    tcp(SERVER, CLIENT, SYN | ACK, 1, 2),
    tcp(CLIENT, SERVER, ACK, 2, 2, b"x" * 100),
    tcp(SERVER, CLIENT, FIN | ACK, 2, 102),
    tcp(CLIENT, SERVER, FIN | ACK, 102, 3),
    tcp(SERVER, CLIENT, ACK, 3, 103),
    udp(CLIENT, ("10.0.0.7", 9999), b"y" * 20),
)
DATA = pcap(Record(index * 0.01, ethernet(packet)) for index, packet in enumerate(TALK))


def flows(program: Meter, data: bytes = DATA) -> pl.DataFrame:
    source = Input("talk.pcap", io.BytesIO(data), data[:1000], "sensor", ReadOptions(meter=program))
    return pl.concat([step.flows for step in PLUGIN.read(source, 1000)]).sort("proto")


@pytest.mark.parametrize("program", ["zeek", "suricata"])
def test_the_real_program_finds_the_same_flows(program: Meter) -> None:
    if not shutil.which(program):
        pytest.skip(
            f"{program} is not installable here"
            if program == "zeek"
            else "needs suricata: apt-get install suricata"
        )
    found, ours = flows(program), flows("builtin")
    same = ["orig_h", "orig_p", "resp_h", "resp_p", "proto", "orig_pkts", "resp_pkts", "ts"]
    assert found.select(same).equals(ours.select(same))
    assert set(found["sensor"]) == {"sensor"}


def test_a_scan_with_suricata_as_the_meter_balances(tmp_path: Path) -> None:
    if not shutil.which("suricata"):
        pytest.skip("needs suricata: apt-get install suricata")
    capture = tmp_path / "talk.pcap"
    capture.write_bytes(DATA)
    assert (
        cli.main(
            ["scan", str(capture), "--meter", "suricata", "--out", str(tmp_path / "out"), "--quiet"]
        )
        == 0
    )
    ledger = json.loads((tmp_path / "out/ledger.json").read_text())
    assert ledger["balanced"]
    assert [(one["source"], one["scored"]) for one in ledger["sources"]] == [("suricata", 2)]


@pytest.mark.parametrize("program", ["zeek", "suricata"])
def test_a_missing_program_says_how_to_install_it(
    program: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="isn't installed"):
        flows(program)


def test_an_unknown_meter_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="builtin, zeek, suricata"):
        flows("nfstream")  # type: ignore[arg-type]
