"""Captures: what is wrong with them is counted and located by packet; the rest is measured."""

from __future__ import annotations

import gzip
import io
import struct
from collections import Counter
from pathlib import Path

import pytest

from ids_plugin.sources.inputs import read_inputs
from tests.support.captures import (
    ACK,
    EPOCH,
    PSH,
    SYN,
    Record,
    block,
    enhanced,
    ethernet,
    interface,
    ip,
    pcap,
    section,
    tcp,
    udp,
)
from tests.unit.flowmeter.test_capture import CLIENT, SERVER, flows, frames, read, rejects, session

GOOD = [ethernet(packet) for _, packet in session()]


def records() -> list[Record]:
    return [Record(time, ethernet(packet)) for time, packet in session()]


def notes(data: bytes) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for step in read(data):
        counts.update(step.notes)
    del counts["packets"]
    return dict(counts)


def histories(data: bytes) -> list[str]:
    return [flow["history"] for flow in flows(data)]


@pytest.mark.parametrize("cut", [1, 20, 55, 60])
def test_cut_files(cut: int) -> None:
    data = pcap(records())
    assert rejects(data[:-cut])[-1] == ("packet 10", "cut_off")
    parts = section() + interface() + b"".join(enhanced(record) for record in records())
    assert rejects(parts[:-cut])[-1] == ("packet 10", "cut_off")
    assert histories(data[:-cut]) == histories(parts[:-cut]) == ["ShADdFf"]


def test_a_record_whose_length_can_not_be_ends_the_file() -> None:
    data = pcap(records()[:3]) + struct.pack("<IIII", EPOCH, 0, 1 << 30, 60) + bytes(100)
    assert rejects(data) == [("packet 4", "bad_length")]
    assert histories(data) == ["ShA"]


LIES = {
    "shorter_than_claimed": udp(CLIENT, SERVER, b"x")[:2]
    + b"\x01\xf4"
    + udp(CLIENT, SERVER, b"x")[4:],
    "bad_ip_length": udp(CLIENT, SERVER, b"x")[:2] + b"\0\x08" + udp(CLIENT, SERVER, b"x")[4:],
    "bad_ip_version": b"\x25" + udp(CLIENT, SERVER, b"x")[1:],
    "cut_transport_header": ip("10.0.0.1", "10.0.0.2", 6, bytes(12)),
    "bad_tcp_header_length": ip("10.0.0.1", "10.0.0.2", 6, bytes(12) + b"\x10" + bytes(7)),
    "cut_ip_header": udp(CLIENT, SERVER, b"")[:12],
}


@pytest.mark.parametrize("reason", LIES)
def test_lengths_that_lie(reason: str) -> None:
    mixed = [*records()[:2], Record(0.015, ethernet(LIES[reason])), *records()[2:]]
    assert rejects(pcap(mixed)) == [("packet 3", reason)]
    assert histories(pcap(mixed)) == ["ShADdFf"]


def test_a_udp_length_that_lies_is_named_and_believed_as_zeek_does() -> None:
    packet = bytearray(udp(CLIENT, SERVER, b"x" * 40))
    packet[24:26] = struct.pack(">H", 28)
    data = frames((0, bytes(packet)), (1, bytes(packet)))
    assert rejects(data) == [
        ("packet 1", "udp_length_mismatch"),
        ("packet 2", "udp_length_mismatch"),
    ]
    (found,) = flows(data)
    assert (found["orig_bytes"], found["orig_ip_bytes"]) == (40, 2 * 68)


def test_snapshot_lengths_are_counted() -> None:
    data = pcap(
        Record(time, ethernet(packet)[:60], len(ethernet(packet))) for time, packet in session()
    )
    assert notes(data) == {"cut_short": sum(len(packet) > 60 for packet in GOOD)}
    assert rejects(data) == []
    assert flows(data)[0]["resp_bytes"] == 3000


def test_time_running_backwards_is_counted_and_located() -> None:
    times = [100.0, 100.01, 99.999_9, 50.0, 100.02, 60.0]
    data = pcap(Record(time, packet) for time, packet in zip(times, GOOD, strict=False))
    assert rejects(data) == [("packet 4", "time_backwards")]
    assert notes(data) == {"time_backwards": 3}
    assert sum(flow["orig_pkts"] + flow["resp_pkts"] for flow in flows(data)) == 6


def test_zero_timestamps_are_counted_and_located() -> None:
    simple = [block(3, struct.pack("<I", len(packet)) + packet) for packet in GOOD]
    data = section() + interface() + b"".join(simple)
    assert rejects(data) == [("packet 1", "zero_timestamp")]
    assert notes(data) == {"zero_timestamp": 10}
    (found,) = flows(data)
    assert (found["history"], found["ts"].year) == ("ShADdFf", 1970)
    mixed = pcap([records()[0], Record(-EPOCH, GOOD[1]), *records()[2:]])
    assert rejects(mixed) == [("packet 2", "time_backwards"), ("packet 2", "zero_timestamp")]


def test_broken_blocks_are_stepped_over_and_located() -> None:
    blocks = [enhanced(record) for record in records()]
    short = block(6, bytes(8))
    lies = blocks[2][:-4] + struct.pack("<I", 12)
    beyond = enhanced(records()[3], number=9)
    more = bytearray(blocks[4])
    more[20:24] = struct.pack("<I", 1 << 20)
    data = (
        section()
        + interface()
        + b"".join([*blocks[:2], short, lies, beyond, bytes(more), *blocks[5:]])
    )
    assert {reason for _, reason in rejects(data)} == {"bad_block"}
    assert [place for place, _ in rejects(data)] == ["packet 3", "packet 4", "packet 4", "packet 5"]
    assert flows(data)[0]["orig_pkts"] + flows(data)[0]["resp_pkts"] == 7
    lost = data + struct.pack("<II", 6, 3) + bytes(40)
    assert rejects(lost)[-1][1] == "bad_block"


def test_sequence_numbers_that_jump_by_gigabytes() -> None:
    begun = [tcp(CLIENT, SERVER, SYN, 1000), tcp(SERVER, CLIENT, SYN | ACK, 9000, 1001)]
    for jump in (1 << 20, 1 << 30, (1 << 31) - 1, 1 << 31, 3 << 30, (1 << 32) - 2000):
        wild = tcp(CLIENT, SERVER, ACK | PSH, 1001 + jump, 9001, b"x" * 100)
        answer = tcp(SERVER, CLIENT, ACK, 9001, (1101 + jump) & 0xFFFFFFFF)
        after = tcp(CLIENT, SERVER, ACK | PSH, 1001, 9001, b"y" * 100)
        (found,) = flows(
            frames(
                *(
                    (index * 0.01, packet)
                    for index, packet in enumerate([*begun, wild, answer, after])
                )
            )
        )
        assert (found["orig_pkts"], found["resp_pkts"]) == (3, 2)
        assert 0 <= found["orig_bytes"] < 1 << 32
        assert 0 <= found["missed_bytes"] < 1 << 32


def test_compressed_captures_are_read_and_cut_ones_too(tmp_path: Path) -> None:
    packed = gzip.compress(pcap(records()))
    for name, data, expected in (("whole", packed, set()), ("cut", packed[:-20], {"cut_off"})):
        path = tmp_path / f"{name}.pcap.gz"
        path.write_bytes(data)
        steps = list(read_inputs([str(path)], batch_rows=1000, stdin=io.BytesIO()))
        assert sum(len(step.flows) for step in steps) == 1
        assert {reject.reason for step in steps for reject in step.rejects} == expected
