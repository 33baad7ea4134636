"""Captures: connections as Zeek would log them, from packets these tests make."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from ids_plugin.errors import InputError
from ids_plugin.schema import flow
from ids_plugin.sources import Input, Read
from ids_plugin.sources.capture import PLUGIN, Capture
from tests.support.captures import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Record,
    block,
    enhanced,
    ethernet,
    icmp,
    interface,
    ip,
    pcap,
    section,
    tcp,
    udp,
)

CLIENT, SERVER = ("10.0.0.5", 40_000), ("93.184.216.34", 80)


def read(data: bytes, chunk_bytes: int = 1 << 16, name: str = "test.pcap") -> list[Read]:
    return list(
        Capture(chunk_bytes).read(Input(name, io.BytesIO(data), data[:65536], "sensor"), 1000)
    )


def flows(data: bytes, chunk_bytes: int = 1 << 16) -> list[dict[str, Any]]:
    """Flows in order of their time."""
    flow_frame = pl.concat([step.flows for step in read(data, chunk_bytes)])
    assert flow_frame.schema == pl.Schema(flow.SCHEMA)
    return flow_frame.sort("ts", "origin").to_dicts()


def frames(*packets: tuple[float, bytes]) -> bytes:
    return pcap(Record(time, ethernet(packet)) for time, packet in packets)


def session(*, port: int = 80, begin: float = 0.0, close: str = "fin") -> list[tuple[float, bytes]]:
    """A connection with a request of 100 bytes and an answer of 3,000."""
    server = (SERVER[0], port)
    steps = [
        tcp(CLIENT, server, SYN, 1000),
        tcp(server, CLIENT, SYN | ACK, 9000, 1001),
        tcp(CLIENT, server, ACK, 1001, 9001),
        tcp(CLIENT, server, ACK | PSH, 1001, 9001, b"GET / HTTP/1.1\r\n".ljust(100, b"x")),
        tcp(server, CLIENT, ACK, 9001, 1101, b"HTTP/1.1 200 OK\r\n".ljust(1500, b"y")),
        tcp(server, CLIENT, ACK | PSH, 10501, 1101, b"y" * 1500),
        tcp(CLIENT, server, ACK, 1101, 12001),
    ]
    if close == "fin":
        steps += [
            tcp(CLIENT, server, FIN | ACK, 1101, 12001),
            tcp(server, CLIENT, FIN | ACK, 12001, 1102),
        ]
        steps += [tcp(CLIENT, server, ACK, 1102, 12002)]
    elif close == "rst":
        steps += [tcp(server, CLIENT, RST | ACK, 12001, 1101)]
    return [(begin + index * 0.01, packet) for index, packet in enumerate(steps)]


def test_a_normal_connection_has_zeeks_meaning_of_every_column() -> None:
    (found,) = flows(frames(*session()))
    assert (found["orig_h"], found["orig_p"], found["resp_h"], found["resp_p"]) == (
        *CLIENT,
        *SERVER,
    )
    assert found["duration"].total_seconds() == pytest.approx(0.08), "the last ACK doesn't count"
    assert (found["orig_bytes"], found["resp_bytes"]) == (100, 3000)
    assert (found["conn_state"], found["history"], found["service"]) == ("SF", "ShADdFf", "http")
    assert (found["orig_pkts"], found["resp_pkts"]) == (6, 4)
    assert (found["orig_ip_bytes"], found["resp_ip_bytes"]) == (6 * 40 + 100, 4 * 40 + 3000)
    assert (found["sensor_local_orig"], found["sensor_local_resp"]) == (True, False)
    assert (found["proto"], found["ip_proto"], found["missed_bytes"]) == ("tcp", 6, 0)
    assert (found["origin"], found["source"], found["sensor"]) == (
        "test.pcap#packet 1",
        "capture",
        "sensor",
    )
    assert len(found["uid"]) == 18
    assert found["uid"].startswith("C")


@pytest.mark.parametrize(
    ("flags", "state", "history"),
    [
        ([(0, SYN)], "S0", "S"),
        ([(0, SYN), (1, SYN | ACK)], "S1", "Sh"),
        ([(0, SYN), (1, RST | ACK)], "REJ", "Sr"),
        ([(0, SYN), (0, RST)], "RSTOS0", "SR"),
        ([(0, SYN), (1, SYN | ACK), (0, RST)], "RSTO", "ShR"),
        ([(0, SYN), (1, SYN | ACK), (0, ACK), (1, RST)], "RSTR", "ShAr"),
        ([(0, SYN), (1, SYN | ACK), (0, ACK), (0, FIN | ACK)], "S2", "ShAF"),
        ([(0, SYN), (1, SYN | ACK), (0, ACK), (1, FIN | ACK)], "S3", "ShAf"),
        ([(0, SYN), (0, FIN)], "SH", "SF"),
        ([(0, FIN)], "SH", "F"),
        ([(0, ACK)], "OTH", "A"),
        ([(0, FIN | SYN | RST)], "RSTO", "I"),
    ],
)
def test_state_and_history(flags: list[tuple[int, int]], state: str, history: str) -> None:
    ends = (("10.0.0.5", 40_000), ("10.0.0.6", 55_555))
    packets = [
        (
            index * 0.01,
            tcp(
                ends[side],
                ends[1 - side],
                bits,
                100 * side + 1 + (not bits & SYN),
                102 - 100 * side,
            ),
        )
        for index, (side, bits) in enumerate(flags)
    ]
    found = flows(frames(*packets))[0]
    assert found["history"] == history
    if history != "I":
        assert found["conn_state"] == state


def test_a_syn_ack_first_is_turned_round_by_the_servers_port() -> None:
    (found,) = flows(frames((0, tcp(SERVER, CLIENT, SYN | ACK, 5, 6))))
    assert (found["orig_h"], found["history"], found["conn_state"]) == (CLIENT[0], "^h", "OTH")


def test_unanswered_syns_five_seconds_apart_are_two_attempts() -> None:
    packets = [(time, tcp(CLIENT, SERVER, SYN, 7)) for time in (0, 1, 3, 7)]
    first, second = flows(frames(*packets))
    assert (first["orig_pkts"], second["orig_pkts"]) == (3, 1)
    assert first["duration"].total_seconds() == 3
    assert (second["duration"], second["orig_bytes"]) == (None, None)


@pytest.mark.parametrize("chunk_bytes", [80, 1 << 16])
def test_a_silent_sides_beginning_is_what_was_acknowledged_last(chunk_bytes: int) -> None:
    """A SYN with the number acknowledged first comes too late: its server has gone on."""
    answers = (
        (0.1, tcp(SERVER, CLIENT, SYN | ACK, 9000, 1001)),
        (0.4, tcp(SERVER, CLIENT, PSH | ACK, 9001, 1019, b"a")),
    )
    late, first = flows(frames(*answers, (0.5, tcp(CLIENT, SERVER, SYN, 1000))), chunk_bytes)[::-1]
    assert (first["history"], late["history"]) == ("^hd", "S")
    (row,) = flows(frames(*answers, (0.5, tcp(CLIENT, SERVER, SYN, 1018))), chunk_bytes)
    assert row["history"] == "^hdS"


def test_ports_used_again_are_a_new_connection() -> None:
    first, second = flows(frames(*session(), *session(begin=1)))
    assert first["uid"] != second["uid"]
    assert (first["conn_state"], second["conn_state"]) == ("SF", "SF")


def test_idle_tcp_ends_after_five_minutes_and_logins_after_an_hour() -> None:
    def pause(port: int, length: float) -> int:
        begun = session(port=port, close="")
        later = tcp(CLIENT, (SERVER[0], port), ACK, 1101, 12001, b"z")
        return len(flows(frames(*begun, (length, later))))

    assert pause(80, 290) == 1
    assert pause(80, 310) == 2
    assert pause(22, 3590) == 1
    assert pause(22, 3610) == 2


def test_udp_ends_after_a_minute_and_dns_as_zeek_looks() -> None:
    def count(port: int, times: tuple[float, ...]) -> int:
        query = bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 0, 0, 1, 0, 1])
        return len(
            flows(frames(*((time, udp(CLIENT, ("10.0.0.1", port), query)) for time in times)))
        )

    assert count(9999, (0, 59)) == 1
    assert count(9999, (0, 61)) == 2
    assert count(53, (0, 5, 12)) == 1
    assert count(53, (0, 15)) == 2


def test_udp_and_icmp() -> None:
    data = frames(
        (0, udp(CLIENT, ("10.0.0.1", 9999), b"12345")),
        (0.5, udp(("10.0.0.1", 9999), CLIENT, b"123")),
        (1, icmp("10.0.0.5", "10.0.0.6", 8, payload=b"p" * 56)),
        (1.5, icmp("10.0.0.6", "10.0.0.5", 0, payload=b"p" * 56)),
        (2, icmp("10.0.0.1", "10.0.0.5", 3, 1, b"q" * 28)),
        (3, icmp("fe80::1", "fe80::2", 128, payload=b"p" * 8)),
    )
    datagram, echo, unreachable, echo6 = flows(data)
    assert (datagram["conn_state"], datagram["history"]) == ("SF", "Dd")
    assert (datagram["orig_bytes"], datagram["resp_bytes"]) == (5, 3)
    assert (datagram["orig_ip_bytes"], datagram["resp_ip_bytes"]) == (33, 31)
    assert (echo["orig_p"], echo["resp_p"], echo["orig_bytes"], echo["resp_bytes"]) == (
        8,
        0,
        56,
        56,
    )
    assert (echo["proto"], echo["conn_state"], echo["history"]) == ("icmp", "OTH", None)
    assert (unreachable["orig_p"], unreachable["resp_p"]) == (3, 1)
    assert (echo6["orig_p"], echo6["resp_p"], echo6["ip_proto"]) == (128, 129, 58)
    assert (echo6["sensor_local_orig"], echo6["orig_h"]) == (True, "fe80::1")


def test_bytes_that_were_never_seen_are_missed() -> None:
    steps = session(close="")
    lost = [*steps[:4], *steps[5:], (1, tcp(SERVER, CLIENT, FIN | ACK, 12001, 1101))]
    (found,) = flows(frames(*lost))
    assert (found["missed_bytes"], found["resp_bytes"]) == (1500, 3000)
    assert "g" in found["history"]


def test_a_retransmission_is_told_and_not_counted_twice() -> None:
    steps = session(close="")
    (found,) = flows(frames(*steps[:5], (0.045, steps[4][1]), *steps[5:]))
    assert (found["resp_bytes"], found["history"]) == (3000, "ShADdt")


def test_sequence_numbers_may_wrap() -> None:
    begin = 0xFFFFFFF0
    packets = [tcp(CLIENT, SERVER, SYN, begin), tcp(SERVER, CLIENT, SYN | ACK, 1, begin + 1)]
    packets += [
        tcp(CLIENT, SERVER, ACK, begin + 1 + 1000 * step, 2, b"a" * 1000) for step in range(5)
    ]
    packets += [tcp(SERVER, CLIENT, ACK, 2, begin + 5001)]
    (found,) = flows(frames(*((index * 0.01, packet) for index, packet in enumerate(packets))))
    assert (found["orig_bytes"], found["missed_bytes"], found["history"]) == (5000, 0, "ShDa")


def test_repeated_letters_are_logarithmic() -> None:
    steps = session(close="")
    again = [(0.05 + index / 1000, steps[4][1]) for index in range(25)]
    (found,) = flows(frames(*steps[:5], *again))
    assert found["history"].count("t") == 2, "the 1st and the 10th"


def test_a_closing_waits_for_missing_bytes() -> None:
    steps = session(close="")
    fin, early = tcp(SERVER, CLIENT, FIN | ACK, 12001, 1101), steps[5][1]
    packets = [
        *steps[:4],
        (0.04, early),
        (0.05, fin),
        (0.06, tcp(CLIENT, SERVER, FIN | ACK, 1101, 9001)),
    ]
    (found,) = flows(frames(*packets, (0.9, steps[4][1])))
    assert found["duration"].total_seconds() == pytest.approx(0.9)


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "raw": (101, lambda packet: packet),
    "ipv4": (228, lambda packet: packet),
    "null": (0, lambda packet: struct.pack("<I", 2) + packet),
    "loop": (108, lambda packet: struct.pack(">I", 2) + packet),
    "sll": (113, lambda packet: struct.pack(">HHH8sH", 0, 1, 6, b"", 0x0800) + packet),
    "sll2": (276, lambda packet: struct.pack(">HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, b"") + packet),
    "vlan": (1, lambda packet: ethernet(packet, [(0x8100, 7)])),
    "qinq": (1, lambda packet: ethernet(packet, [(0x88A8, 7), (0x8100, 8)])),
    "mpls": (1, lambda packet: b"\0" * 12 + struct.pack(">HI", 0x8847, 0x140) + packet),
    "pppoe": (
        1,
        lambda packet: b"\0" * 12 + struct.pack(">HHHHH", 0x8864, 0x1100, 1, 0, 0x21) + packet,
    ),
}


@pytest.mark.parametrize("kind", LINKS)
def test_link_types_give_the_same_flows(kind: str) -> None:
    link, wrap = LINKS[kind]
    found = flows(pcap((Record(time, wrap(packet)) for time, packet in session()), link=link))
    assert found == flows(frames(*session()))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_byte_orders_and_resolutions_of_pcap(order: str, nanoseconds: bool) -> None:
    records = [Record(time, ethernet(packet)) for time, packet in session()]
    assert flows(pcap(records, order=order, nanoseconds=nanoseconds)) == flows(pcap(records))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "ticks"), [(None, 10**6), (9, 10**9), (3, 1000), (0x94, 1 << 20)]
)
def test_pcapng_with_interfaces_of_their_own_kind(
    order: str, resolution: int | None, ticks: int
) -> None:
    steps = [(round(time, 2), packet) for time, packet in session()]
    parts = [section(order), interface(1, None, order), interface(101, resolution, order)]
    parts += [enhanced(Record(time, packet), 1, ticks, order) for time, packet in steps[:5]]
    parts += [
        block(5, b"\0" * 8, order),
        *(enhanced(Record(t, ethernet(p)), 0, order=order) for t, p in steps[5:]),
    ]
    found = flows(b"".join(parts))
    expected = flows(frames(*steps))
    assert [row["history"] for row in found] == [row["history"] for row in expected]
    assert found[0]["duration"].total_seconds() == pytest.approx(
        expected[0]["duration"].total_seconds(), abs=1e-3
    )
    assert found[0]["ts"].timestamp() == pytest.approx(expected[0]["ts"].timestamp(), abs=1e-3)


def test_lengths_come_from_headers_where_the_capture_is_cut_short() -> None:
    records = [
        Record(time, ethernet(packet)[:60], len(ethernet(packet))) for time, packet in session()
    ]
    (found,) = flows(pcap(records))
    assert (found["orig_bytes"], found["resp_bytes"], found["resp_ip_bytes"]) == (100, 3000, 3160)


def test_ipv4_options_and_ipv6_extensions() -> None:
    datagram = struct.pack(">HHHH", 1000, 2000, 12, 0) + b"data"
    hop = bytes([17, 0, 1, 4, 0, 0, 0, 0])
    data = frames(
        (0, ip("10.0.0.1", "10.0.0.2", 17, datagram, options=b"\x94\x04\0\0")),
        (1, ip("fd00::1", "fd00::2", 0, hop + datagram)),
    )
    assert [(row["orig_p"], row["orig_ip_bytes"]) for row in flows(data)] == [
        (1000, 36),
        (1000, 60),
    ]


def rejects(data: bytes) -> list[tuple[str, str]]:
    return [(found.place, found.reason) for step in read(data) for found in step.rejects]


def test_bad_packets_are_rejected_by_number_and_the_rest_is_measured() -> None:
    good = [ethernet(packet) for _, packet in session()]
    claims_more = bytearray(ethernet(udp(CLIENT, SERVER, b"x")))
    claims_more[16:18] = struct.pack(">H", 500)
    records = [
        Record(0, good[0]),
        Record(0.01, bytes(claims_more)),
        Record(0.02, good[1][:20]),
        Record(0.03, good[1]),
    ]
    records += [Record(0.04, ethernet(ip("10.0.0.1", "10.0.0.2", 6, b"\0" * 12)))]
    data = pcap(records)
    assert rejects(data) == [
        ("packet 2", "shorter_than_claimed"),
        ("packet 3", "cut_ip_header"),
        ("packet 5", "cut_transport_header"),
    ]
    assert [row["history"] for row in flows(data)] == ["Sh"]


def test_what_is_not_ip_is_counted_by_kind() -> None:
    arp = b"\xff" * 12 + b"\x08\x06" + b"\0" * 28
    records = [Record(0, arp), Record(1, arp), Record(2, b"\0" * 12 + b"\x00\x26" + b"\x42" * 38)]
    steps = read(pcap(records))
    assert steps[0].notes == {"packets": 3, "unhandled_arp": 2, "unhandled_llc": 1}
    assert read(pcap([Record(0, b"\0" * 40)], link=147))[0].notes == {
        "packets": 1,
        "unhandled_link_type_147": 1,
    }


def test_a_file_cut_in_a_packet_gives_the_rest() -> None:
    data = frames(*session())
    assert rejects(data[:-5]) == [("packet 10", "cut_off")]
    assert flows(data[:-5])[0]["orig_pkts"] == 5


def test_broken_pcapng_blocks_are_stepped_over() -> None:
    steps = [enhanced(Record(time, ethernet(packet))) for time, packet in session()]
    lies = bytearray(steps[2])
    lies[-4:] = struct.pack("<I", 8)
    foreign = enhanced(Record(0, b"x" * 40), number=3)
    data = section() + interface() + b"".join([*steps[:2], bytes(lies), foreign, *steps[3:]])
    assert rejects(data) == [("packet 3", "bad_block"), ("packet 3", "bad_block")]
    assert flows(data)[0]["orig_pkts"] == 5
    assert rejects(data + b"\6\0\0\0\7\0\0\0" + b"\0" * 8) == [
        *rejects(data),
        ("packet 11", "bad_block"),
    ]


def test_what_is_no_capture_is_refused() -> None:
    for data in (b"", b"\x00" * 64, b"{}\n"):
        with pytest.raises(InputError):
            read(data)


def test_sniffs_by_content() -> None:
    assert PLUGIN.sniff(pcap([])) == 1.0
    assert PLUGIN.sniff(section()) == 1.0
    assert PLUGIN.sniff(b"#separator \\x09\n") == 0.0


def test_reading_in_small_chunks_changes_nothing() -> None:
    packets = sorted(
        [*session(), *session(port=443, begin=0.005), *session(port=22, begin=3, close="rst")]
    )
    data = frames(*packets)
    whole = {row["uid"]: row for row in flows(data)}
    for size in (64, 700, 5000):
        assert {row["uid"]: row for row in flows(data, size)} == whole


def test_given_out_when_they_end() -> None:
    data = frames(*session(), *((10 + index, udp(CLIENT, SERVER, b"x")) for index in range(5)))
    assert [len(step.flows) for step in read(data, 256)].index(1) < len(read(data, 256)) - 1


def test_time_running_backwards_is_survived() -> None:
    steps = session()
    found = flows(frames(*[(100 - time, packet) for time, packet in steps]))
    assert sum(row["orig_pkts"] + row["resp_pkts"] for row in found) == len(steps)


@pytest.mark.parametrize(
    ("port", "question", "answer", "service"),
    [
        (22, b"SSH-2.0-a\r\n", b"SSH-2.0-b\r\n", "ssh"),
        (2222, b"SSH-2.0-a\r\n", b"SSH-2.0-b\r\n", "ssh"),
        (
            443,
            b"\x16\x03\x01\x00\x80\x01" + b"\0" * 40,
            b"\x16\x03\x03\x00\x80\x02" + b"\0" * 40,
            "ssl",
        ),
        (443, b"\x16\x03\x01\x00\x80\x01" + b"\0" * 40, b"\x15\x03\x01\x00\x02\x02\x28", None),
        (1883, b"\x10\x10\x00\x04MQTT\x04\x02" + b"\0" * 8, b"\x20\x02\x00\x00", "mqtt"),
        (25, b"EHLO x\r\n", b"220 mail ESMTP\r\n", "smtp"),
        (8081, b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", "http"),
        (80, b"GET / HTTP/1.1\r\n\r\n", b"", "http"),
        (8081, b"GET / HTTP/1.1\r\n\r\n", b"", None),
        (6667, b"NICK a\r\nUSER a b c d\r\n", b":irc NOTICE * :hi\r\n", "irc"),
        (23, b"root\r\n", b"login: ", None),
    ],
)
def test_services_by_what_both_sides_say(
    port: int, question: bytes, answer: bytes, service: str | None
) -> None:
    server = (SERVER[0], port)
    packets = [tcp(CLIENT, server, SYN, 1), tcp(server, CLIENT, SYN | ACK, 1, 2)]
    packets += [
        tcp(CLIENT, server, ACK, 2, 2, question),
        tcp(server, CLIENT, ACK, 2, 2 + len(question), answer),
    ]
    assert (
        flows(frames(*((i * 0.01, packet) for i, packet in enumerate(packets))))[0]["service"]
        == service
    )


def test_ftp_announces_its_data_connections() -> None:
    server = ("10.0.0.9", 21)
    data = [
        tcp(CLIENT, ("10.0.0.9", 5 * 256 + 3), SYN, 1),
        tcp(("10.0.0.9", 5 * 256 + 3), CLIENT, SYN | ACK, 1, 2),
    ]
    talk = [tcp(server, CLIENT, ACK, 2, 2, b"227 Entering Passive Mode (10,0,0,9,5,3)\r\n")]
    found = flows(frames(*((i * 0.01, packet) for i, packet in enumerate(talk + data))))
    assert found[1]["service"] == "ftp-data"
