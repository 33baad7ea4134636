"""Uniflows: sixteen numbers for each direction, from packets these tests make."""

from __future__ import annotations

import io
import struct

import polars as pl
import pytest

from ids_plugin.errors import InputError
from ids_plugin.flowmeter.uniflows import read
from ids_plugin.schema import uniflow
from tests.support.captures import ACK, PSH, RST, SYN, Record, ethernet, icmp, pcap, tcp, udp

CLIENT, SERVER = ("10.0.0.5", 40_000), ("10.0.0.9", 1883)
URG = 32


def uniflows(*packets: tuple[float, bytes]) -> list[dict[str, object]]:
    found = read(io.BytesIO(pcap(Record(time, ethernet(packet)) for time, packet in packets)))
    assert found.schema == uniflow.SCHEMA
    return found.to_dicts()


def test_each_direction_is_counted_for_itself() -> None:
    there, back = uniflows(
        (0.0, tcp(CLIENT, SERVER, SYN, 100)),
        (0.01, tcp(SERVER, CLIENT, SYN | ACK, 900, 101)),
        (0.02, tcp(CLIENT, SERVER, PSH | ACK, 101, 901, payload=bytes(60))),
        (0.05, tcp(CLIENT, SERVER, PSH | URG | ACK, 161, 901, payload=bytes(30))),
        (0.06, tcp(SERVER, CLIENT, RST, 901)),
    )
    assert (there["ip_src"], there["ip_dst"], back["ip_src"]) == (CLIENT[0], SERVER[0], SERVER[0])
    assert [there[name] for name in uniflow.FEATURES] == [
        40_000, 1883, 6, 3, 25_000, 5_000, 20_000, 30_000, 70, 24, 40, 100, 210, 2, 0, 1
    ]  # fmt: skip
    assert [back[name] for name in uniflow.FEATURES] == [
        1883, 40_000, 6, 2, 50_000, 0, 50_000, 50_000, 40, 0, 40, 40, 80, 0, 1, 0
    ]  # fmt: skip


def test_a_single_packet_has_no_times_between_packets() -> None:
    (one,) = uniflows((5.0, udp(CLIENT, ("10.0.0.9", 161), bytes(12))))
    assert {one[name] for name in ("mean_iat", "std_iat", "min_iat", "max_iat", "std_pkt_len")} == {
        0
    }
    assert (
        one["proto"],
        one["num_pkts"],
        one["num_bytes"],
        one["min_pkt_len"],
        one["max_pkt_len"],
    ) == (
        17,
        1,
        40,
        40,
        40,
    )


def test_silence_begins_a_new_one_and_a_clock_set_back_is_no_time() -> None:
    query = udp(CLIENT, ("10.0.0.9", 53), bytes(20))
    found = uniflows((0.0, query), (60.0, query), (121.0, query), (120.0, query))
    assert [one["num_pkts"] for one in found] == [2, 2]
    assert [one["max_iat"] for one in found] == [60_000_000, 0]


def test_other_protocols_are_left_out() -> None:
    assert uniflows((0.0, icmp(CLIENT[0], SERVER[0], 8, 0, struct.pack("!HH", 1, 1)))) == []


def test_chunks_do_not_matter_and_an_empty_capture_has_none() -> None:
    assert read(io.BytesIO(pcap([]))).schema == uniflow.SCHEMA
    assert isinstance(read(io.BytesIO(pcap([]))), pl.DataFrame)


def test_what_is_no_capture_is_refused() -> None:
    with pytest.raises(InputError):
        read(io.BytesIO(b"no capture at all, but long enough to be one"))
