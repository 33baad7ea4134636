"""Records as they travel: envelopes, syslog, bytes before and between them; files give the same
flows as without."""

from __future__ import annotations

import io
import json
from typing import Any

import polars as pl
import pytest

from ids_plugin.sources import Read, ecs, suricata, zeek
from ids_plugin.sources.inputs import read_inputs

CONN: dict[str, Any] = {
    "ts": 1700000000.25,
    "uid": "C1",
    "id.orig_h": "10.0.0.5",
    "id.orig_p": 40000,
    "id.resp_h": "198.51.100.7",
    "id.resp_p": 443,
    "proto": "tcp",
    "duration": 1.5,
    "orig_bytes": 100,
    "resp_bytes": 200,
    "conn_state": "SF",
    "orig_pkts": 3,
    "orig_ip_bytes": 260,
    "resp_pkts": 4,
    "resp_ip_bytes": 400,
}
EVE: dict[str, Any] = {
    "timestamp": "2024-07-30T16:53:00.5+0000",
    "event_type": "flow",
    "src_ip": "10.1.22.212",
    "src_port": 56000,
    "dest_ip": "198.51.100.5",
    "dest_port": 5005,
    "proto": "TCP",
    "flow": {
        "pkts_toserver": 7,
        "pkts_toclient": 5,
        "bytes_toserver": 900,
        "bytes_toclient": 800,
        "start": "2024-07-30T16:48:20.399198+0000",
        "end": "2024-07-30T16:52:20.399556+0000",
    },
}


def read(data: bytes) -> list[Read]:
    """What standard input with these bytes gives."""
    return list(read_inputs(["-"], batch_rows=1000, stdin=io.BytesIO(data)))


def flows(data: bytes) -> pl.DataFrame:
    return pl.concat([step.flows for step in read(data)])


def rejects(data: bytes) -> list[str]:
    return [reject.reason for step in read(data) for reject in step.rejects]


def test_kinds_are_told_by_what_an_envelope_holds() -> None:
    line = json.dumps({"@timestamp": "2024-01-01T00:00:00Z", "message": json.dumps(EVE)}).encode()
    assert suricata.PLUGIN.sniff(line) > max(zeek.PLUGIN.sniff(line), ecs.PLUGIN.sniff(line))


ENVELOPES: dict[str, dict[str, Any]] = {
    "Beats": {"@timestamp": "2024-01-01T00:00:00Z", "message": None, "log": {"file": {}}},
    "Fluent Bit": {"@timestamp": 1704067200.1, "log": None},
    "Docker": {"log": None, "stream": "stdout", "time": "2024-01-01T00:00:00.1Z"},
    "Splunk": {"time": 1600000000.8, "sourcetype": "zeek:conn:json", "event": None},
    "Vector": {"file": "conn.log", "message": None, "source_type": "file"},
}


@pytest.mark.parametrize("record", [CONN, EVE], ids=["zeek", "eve"])
@pytest.mark.parametrize("name", ENVELOPES)
def test_a_record_in_an_envelope_is_the_record(name: str, record: dict[str, Any]) -> None:
    envelope = {
        key: json.dumps(record) + "\n" if value is None else value
        for key, value in ENVELOPES[name].items()
    }
    plain = flows(json.dumps(record).encode())
    assert flows(json.dumps(envelope).encode()).equals(plain)
    assert plain.height == 1


@pytest.mark.parametrize("count", [1, 40])
def test_an_envelope_names_the_sensor(count: int) -> None:
    lines = [
        {"@timestamp": "2024-01-01T00:00:00Z", "message": json.dumps(CONN), "observer": {"name": n}}
        for n in ("north", "south")
        for _ in range(count)
    ]
    lines.append({"host": "west", "message": json.dumps(CONN)})
    data = b"\n".join(json.dumps(line).encode() for line in lines)
    sensors = flows(data)["sensor"].value_counts(sort=False).sort("sensor").rows()
    assert sensors == [("north", count), ("south", count), ("west", 1)]


@pytest.mark.parametrize(
    "prefix",
    [b"@cee: ", b"<134>Jul 30 16:53:00 fw suricata[71]: ", b"Jul 30 16:53:00 fw suricata: "],
)
def test_what_syslog_puts_before_a_record_is_taken_off(prefix: bytes) -> None:
    line = json.dumps(EVE).encode()
    assert flows(prefix + line).equals(flows(line))


def test_a_line_of_tsv_without_its_header_is_rejected_with_what_to_do() -> None:
    text = "\t".join(str(value) for value in CONN.values())
    data = json.dumps({"@timestamp": "2024-01-01T00:00:00Z", "message": text}).encode()
    assert rejects(data) == ["tsv_without_header"]


@pytest.mark.parametrize("noise", [b"\xef\xbb\xbf", bytes(5000), bytes(200_000)])
def test_bytes_before_the_first_record_are_nothing(noise: bytes) -> None:
    line = json.dumps(CONN).encode() + b"\n"
    assert flows(noise + line).equals(flows(line))
    assert rejects(noise + line) == []


def test_glued_records_are_both_read_and_a_cut_one_costs_itself() -> None:
    first, second = json.dumps(CONN).encode(), json.dumps(CONN | {"uid": "C2"}).encode()
    assert flows(first + second)["uid"].to_list() == ["C1", "C2"]
    cut = first + b"\n" + first[:90] + second + b"\n"
    assert flows(cut)["uid"].to_list() == ["C1", "C2"]
    assert rejects(cut) == ["bad_json"]


def test_numbers_as_text_are_numbers() -> None:
    texts = {k: str(v) if isinstance(v, (int, float)) else v for k, v in CONN.items()}
    assert flows(json.dumps(texts).encode()).equals(flows(json.dumps(CONN).encode()))


def test_a_counter_that_wrapped_costs_its_field() -> None:
    data = json.dumps(CONN | {"orig_bytes": (1 << 64) - 1}).encode()
    assert flows(data)["orig_bytes"].to_list() == [None]
    assert flows(data)["resp_bytes"].to_list() == [200]


def test_vlan_may_be_a_number() -> None:
    assert flows(json.dumps(EVE | {"vlan": 10}).encode()).height == 1


@pytest.mark.parametrize(("text", "number"), [("041", 41), ("IPv6", 41), ("103", 103), ("006", 6)])
def test_protocols_may_be_numbers_as_text(text: str, number: int) -> None:
    assert flows(json.dumps(EVE | {"proto": text}).encode())["ip_proto"].to_list() == [number]


def test_a_clock_that_began_in_1970_is_read_with_a_warning() -> None:
    steps = read(json.dumps(CONN | {"ts": 79.5}).encode())
    assert sum(step.flows.height for step in steps) == 1
    assert ["1970" in w.detail for step in steps for w in step.warnings] == [True]


def test_an_input_that_gave_nothing_says_why() -> None:
    netflow = json.dumps({"timestamp": EVE["timestamp"], "event_type": "netflow"}).encode()
    (warning,) = [w for step in read(netflow) for w in step.warnings]
    assert (warning.place, "no flow events" in warning.detail) == ("whole", True)


def test_filebeat_without_its_pipeline_has_zeeks_time() -> None:
    document = {
        "@timestamp": "2024-01-11T06:33:35.857Z",
        "event": {"dataset": "zeek.connection"},
        "source": {"ip": "10.0.0.5", "bytes": 103, "packets": 1, "port": 38000},
        "destination": {"ip": "198.51.100.7", "bytes": 206, "packets": 1, "port": 53},
        "network": {"transport": "udp"},
        "zeek": {"session_id": "C1", "connection": {"state": "SF", "ts": 1600000000.857497}},
        "temp": {"duration": 0.076967},
    }
    (row,) = flows(json.dumps(document).encode()).to_dicts()
    assert row["ts"].timestamp() == 1600000000.857497
    assert row["duration"].total_seconds() == 0.076967


def test_dotted_and_nested_keys_may_stand_side_by_side() -> None:
    document = {
        "@timestamp": "2024-01-11T06:33:35.857Z",
        "event.dataset": "zeek.connection",
        "event.duration": 2_000_000_000,
        "source.ip": "10.0.0.5",
        "source.port": 38000,
        "destination": {"ip": "198.51.100.7", "bytes": 206, "packets": 1, "port": 53},
        "network": {"transport": "udp"},
        "zeek": {"session_id": "C1", "connection": {"state": "SF"}},
    }
    (row,) = flows(json.dumps(document).encode()).to_dicts()
    assert (row["orig_h"], row["orig_p"], row["duration"].total_seconds()) == ("10.0.0.5", 38000, 2)


def test_the_original_record_in_a_document_counts() -> None:
    document = {
        "@timestamp": "2024-01-11T06:33:35.857Z",
        "event": {"dataset": "zeek.connection", "original": json.dumps(CONN)},
        "source": {"ip": "10.0.0.5", "port": 1},
        "destination": {"ip": "198.51.100.7", "port": 2},
        "zeek": {"session_id": "C1"},
    }
    (row,) = flows(json.dumps(document).encode()).to_dicts()
    assert (row["orig_bytes"], row["ts"].timestamp()) == (100, 1700000000.25)
