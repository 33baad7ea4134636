"""Captures: services as Zeek 8 names them, those of its documentation one by one."""

from __future__ import annotations

import struct

import pytest

from ids_plugin.flowmeter.packets.tunnels import NAMES
from ids_plugin.flowmeter.protocol_detection import ONE_SIDED_PROTOCOLS, TWO_SIDED_PROTOCOLS
from tests.support.captures import ACK, SYN, tcp, udp
from tests.unit.flowmeter.test_capture import CLIENT, SERVER, flows, frames

HELLO = b"\x16\x03\x01\x00\x80\x01" + bytes(120)
HELLO_BACK = b"\x16\x03\x03\x00\x80\x02" + bytes(120)
STARTUP = struct.pack(">IHH", 20, 3, 0) + b"user\0alice\0\0"
TLS_WANTED = b"\0\0\0\x08\x04\xd2\x16\x2f"
BIND = b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00"
BOUND = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00"
LONG_SEARCH = b"\x30\x84\x00\x00\x00\x20\x02\x01\x02\x63\x84\x00\x00\x00\x17" + bytes(23)
QUIC = b"\xc3\x00\x00\x00\x01" + bytes(1245)
NTP = b"\x23" + bytes(47)
SNMP = b"\x30\x26\x02\x01\x01\x04\x06public" + bytes(20)
SMB = b"\0\0\0\x40\xfeSMB" + bytes(60)
GREETING = b"\x4a\0\0\0\x0a5.7.1\0" + bytes(60)
RPC = bytes([5, 0, 11, 3, 16, 0, 0, 0]) + bytes(30)
RPC_BACK = bytes([5, 0, 12, 3, 16, 0, 0, 0]) + bytes(30)

TALKS: dict[str, list[tuple[int, bytes, bytes]]] = {
    "http": [(80, b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
             (8123, b"PUT /x HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n")],
    "http,websocket": [(80, b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n")],  # noqa: E501
    "ssl": [(443, HELLO, HELLO_BACK), (4433, HELLO, HELLO_BACK)],
    "ssh": [(22, b"SSH-2.0-a\r\n", b"SSH-2.0-b\r\n")],
    "smtp": [(25, b"EHLO x\r\n", b"220 mail ESMTP\r\n")],
    "ftp": [(21, b"USER a\r\n", b"331 password\r\n")],
    "pop3": [(110, b"USER a\r\n", b"+OK ready\r\n")],
    "imap": [(143, b"a CAPABILITY\r\n", b"* OK ready\r\n")],
    "irc": [(6667, b"NICK a\r\nUSER a b c d\r\n", b":irc 001 a :hi\r\n")],
    "mqtt": [(1883, b"\x10\x10\x00\x04MQTT\x04\x02" + bytes(8), b"\x20\x02\x00\x00")],
    "mysql": [(3306, b"\x20\0\0\1" + bytes(40), GREETING)],
    "postgresql": [(5432, STARTUP, b""), (15432, STARTUP, b"R\0\0\0\x08\0\0\0\0"), (15432, TLS_WANTED, b"N")],  # noqa: E501
    "redis": [(6379, b"PING\r\n", b"+PONG\r\n"), (7000, b"*1\r\n$4\r\nPING\r\n", b"$4\r\nPONG\r\n")],  # noqa: E501
    "ldap_tcp": [(389, BIND, BOUND), (3890, LONG_SEARCH, BOUND)],
    "smb": [(445, SMB, SMB)],
    "dce_rpc": [(135, RPC, RPC_BACK)],
    "socks": [(1080, b"\x05\x01\x00", b"\x05\x00")],
    "rfb": [(5900, b"RFB 003.008\n", b"RFB 003.008\n")],
    "xmpp": [(5222, b"<?xml version='1.0'?><stream:stream xmlns='jabber:client'>", b"<?xml version='1.0'?>")],  # noqa: E501
    "modbus": [(502, struct.pack(">HHHBB", 1, 0, 6, 1, 3) + bytes(4), struct.pack(">HHHBB", 1, 0, 5, 1, 3) + bytes(3))],  # noqa: E501
    "dnp3_tcp": [(20_000, b"\x05\x64\x05\xc9\x01\x00\x00\x04\xe9\x21", b"\x05\x64\x05\x0b\x00\x04\x01\x00\xe9\x21")],  # noqa: E501
    "krb_tcp": [(88, b"\0\0\0\x40\x6a" + bytes(60), b"\0\0\0\x40\x6b" + bytes(60))],
    "dns": [(53, b"\0\x20\0\1\1\0\0\1\0\0\0\0\0\0" + bytes(20), b"")],
    "finger": [(79, b"alice\r\n", b"")],
    "sip": [(5060, b"INVITE sip:a SIP/2.0\r\n", b"SIP/2.0 100 Trying\r\n")],
}  # fmt: skip
DATAGRAMS: dict[str, list[tuple[int, bytes, bytes]]] = {
    "dns": [(53, b"\0\1\1\0\0\1" + bytes(20), b""), (5353, b"\0\1\1\0\0\1" + bytes(20), b"")],
    "dhcp": [(67, b"\1\1\6\0" + bytes(296), b"")],
    "ntp": [(123, NTP, NTP)],
    "snmp": [(161, SNMP, SNMP)],
    "krb": [(88, b"\x6a\x40" + bytes(64), b"")],
    "sip": [(5060, b"REGISTER sip:a SIP/2.0\r\n", b"")],
    "dtls": [(4433, b"\x16\xfe\xfd" + bytes(30), b"\x16\xfe\xfd" + bytes(30))],
    "radius": [(1812, b"\1\1\0\x14" + bytes(16), b"")],
    "quic": [(443, QUIC, b""), (8443, QUIC, b"")],
    "syslog": [(514, b"<13>Oct 11 22:14:15 host su: failed", b"")],
    "ldap_udp": [(389, BIND, BOUND)],
    "rdpeudp": [
        (3389, b"\xff\xff\xff\xff\0\x40\0\x01" + bytes(1224), b"\0\0\0\1\0\x40\0\x05" + bytes(1224))
    ],
    "dnp3_udp": [(20_000, b"\x05\x64\x05\xc9\x01\x00\x00\x04\xe9\x21", b"")],
}
DOCUMENTED = {
    "ayiya", "dce_rpc", "dhcp", "dnp3_tcp", "dnp3_udp", "dns", "dtls", "finger", "ftp", "ftp-data", "geneve", "gssapi",  # noqa: E501
    "gtpv1", "http", "imap", "irc", "krb", "krb_tcp", "ldap_tcp", "ldap_udp", "modbus", "mqtt", "mysql", "ntlm", "ntp",  # noqa: E501
    "pop3", "postgresql", "quic", "radius", "rdp", "rdpeudp", "redis", "rfb", "sip", "smb", "smtp", "snmp", "socks",  # noqa: E501
    "ssh", "ssl", "syslog", "teredo", "vxlan", "websocket", "xmpp",
}  # fmt: skip
"""What Zeek 8.0's default scripts can put into conn.log's service: its protocol analysers with a
registered port or a signature, its tunnels, and those that others start
(https://docs.zeek.org/en/v8.0.8/script-reference/proto-analyzers.html)."""
BY_RULES = {"gssapi", "ntlm", "ftp", "rdp", "imap", "postgresql", "http", "irc"}
"""Ours that more than a sign of either side decides."""


def conversation(port: int, question: bytes, answer: bytes) -> bytes:
    server = (SERVER[0], port)
    packets = [tcp(CLIENT, server, SYN, 1), tcp(server, CLIENT, SYN | ACK, 1, 2)]
    packets += [tcp(CLIENT, server, ACK, 2, 2, question)] if question else []
    packets += [tcp(server, CLIENT, ACK, 2, 2 + len(question), answer)] if answer else []
    return frames(*((index * 0.01, packet) for index, packet in enumerate(packets)))


@pytest.mark.parametrize(
    ("service", "talk"), [(name, talk) for name, talks in TALKS.items() for talk in talks]
)
def test_services_over_tcp(service: str, talk: tuple[int, bytes, bytes]) -> None:
    port, question, answer = talk
    data = conversation(port, question, answer)
    if service == "ftp":
        server = (SERVER[0], port)
        greeting = [(0, tcp(server, CLIENT, ACK, 1, 2, b"220 ready\r\n"))]
        talked = [
            (1, tcp(CLIENT, server, ACK, 2, 12, question)),
            (2, tcp(server, CLIENT, ACK, 12, 10, answer)),
        ]
        data = frames(*greeting, *talked)
    (found,) = flows(data)
    assert ",".join(sorted((found["service"] or "").split(","))) == service


@pytest.mark.parametrize(
    ("service", "talk"), [(name, talk) for name, talks in DATAGRAMS.items() for talk in talks]
)
def test_services_over_udp(service: str, talk: tuple[int, bytes, bytes]) -> None:
    port, question, answer = talk
    server = (SERVER[0], port)
    packets = [(0.0, udp(CLIENT, server, question))] + (
        [(0.1, udp(server, CLIENT, answer))] if answer else []
    )
    (found,) = flows(frames(*packets))
    assert found["service"] == service


@pytest.mark.parametrize(
    ("port", "question", "answer"),
    [
        (6379, b"PING\r\n", b"no\r\n"),
        (7000, b"PING\r\n", b"+PONG\r\n"),
        (15432, STARTUP, b""),
        (15432, TLS_WANTED, b"HTTP/1.0 400\r\n"),
        (389, BIND, b""),
        (389, b"\x30\x80\x02\x01\x01\x60", BOUND),
        (8081, b"", b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n"),
        (110, b"*1\r\n$4\r\nPING\r\n", b"garbage\r\n"),
    ],
)
def test_half_a_conversation_is_no_service(port: int, question: bytes, answer: bytes) -> None:
    (found,) = flows(conversation(port, question, answer))
    assert found["service"] is None


def test_every_service_that_zeek_documents_is_known_and_no_other() -> None:
    renamed = {"sip_tcp": "sip", "dns_tcp": "dns"}
    ours = (
        {renamed.get(name, name) for names in ONE_SIDED_PROTOCOLS.values() for name in names}
        | set(TWO_SIDED_PROTOCOLS)
        | set(NAMES[1:])
    )
    assert ours | BY_RULES == DOCUMENTED
