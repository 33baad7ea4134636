"""What the first payloads of application protocols look like, tested for many payloads at once.

A signature is a test of the first HEAD_WIDTH bytes of a payload, for one transport and, where Zeek
registers its parser for ports only, for these ports. Names that end in `?` are of requests, in `!`
of replies. A connection notes the signatures of each side as bits (SIGNATURE_BIT).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ids_plugin.flowmeter.packets.headers import Bools, Bytes, Int64s, UInt64s
from ids_plugin.flowmeter.packets.packet_columns import TCP, UDP
from ids_plugin.flowmeter.packets.tunnels import NAMES as TUNNELS

INSPECTED_PACKETS = 3
"""Packets with payload of each side that are looked at."""

INSPECTED_PACKETS_TALKATIVE = 8
"""The same on ports of protocols that come to the point late, or carry others."""

IS_TALKATIVE_PORT = np.zeros(65536, dtype=bool)
IS_TALKATIVE_PORT[
    [21, 25, 80, 110, 135, 139, 143, 445, 587, 1080, 3128, 3389, 6666, 6667, 6668, 6669, 8080]
] = True

HEAD_WIDTH = 64

WHOLE_PAYLOAD_BYTES = 2048
"""Bytes of a packet in which authentication inside SMB and RPC is searched."""

REDIS, POSTGRESQL = 6379, 5432

LDAP_REQUESTS = (0x4A, 0x60, 0x63, 0x66, 0x68, 0x6C, 0x6E, 0x77)

LDAP_ANSWERS = (0x61, 0x64, 0x65, 0x67, 0x69, 0x6B, 0x6D, 0x6F, 0x73, 0x78, 0x79)

HTTP_PORTS = (80, 81, 631, 1080, 3128, 8000, 8080, 8888)

IS_HTTP_PORT = np.zeros(65536, dtype=bool)
IS_HTTP_PORT[list(HTTP_PORTS)] = True

METHODS = (
    b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE ",
    b"PATCH ", b"PROPFIND", b"SEARCH ", b"REPORT ", b"MKCOL ", b"LOCK ", b"UNLOCK ", b"MOVE ",
    b"COPY ", b"SUBSCRIB", b"NOTIFY ",
)  # fmt: skip

SIP_METHODS = (
    b"INVITE s", b"REGISTER", b"OPTIONS ", b"ACK sip:", b"BYE sip:", b"CANCEL s", b"SUBSCRIB",
    b"NOTIFY s", b"MESSAGE ", b"INFO sip", b"PRACK si", b"UPDATE s", b"REFER si", b"PUBLISH ",
    b"SIP/2.0 ",
)  # fmt: skip


class PayloadHeads(NamedTuple):
    """Beginnings of m payloads."""

    rows: Bytes
    """(m, WIDTH), zeros behind the end"""
    first_word: UInt64s
    """the first eight bytes, big-endian"""
    captured_bytes: Int64s
    """payload bytes captured"""
    responder_port: Int64s
    """the responder's"""

    def starts(self, *texts: bytes) -> Bools:
        """Whether a payload begins with one of `texts`, at most eight bytes each."""
        is_match = np.zeros(len(self.first_word), dtype=bool)
        for text in texts:
            shift = np.uint64(64 - 8 * len(text))
            is_match |= self.first_word >> shift == np.uint64(int.from_bytes(text, "big"))
        return is_match

    def starts_ignoring_case(self, *texts: bytes) -> Bools:
        """The same without regard to case."""
        lower = self._replace(first_word=self.first_word | np.uint64(0x2020202020202020))
        return lower.starts(*(bytes(byte | 0x20 for byte in text) for text in texts))

    def byte(self, index: int) -> Int64s:
        return self.rows[:, index].astype(np.int64)

    def u16(self, index: int) -> Int64s:
        return self.byte(index) << 8 | self.byte(index + 1)


def _http_request(heads: PayloadHeads) -> Bools:
    return heads.starts(*METHODS)


def _tls(kind: int) -> Callable[[PayloadHeads], Bools]:
    def test(heads: PayloadHeads) -> Bools:
        record = (
            (heads.byte(0) == 0x16)
            & (heads.byte(1) == 3)
            & (heads.byte(2) <= 4)
            & (heads.byte(5) == kind)
        )
        old = (
            (heads.byte(0) >= 0x80)
            & (heads.byte(2) == 1)
            & (heads.byte(3) <= 3)
            & (heads.u16(3) > 0)
        )
        is_match: Bools = record | (old & (kind == 1) & (heads.captured_bytes > 20))
        return is_match

    return test


def _dtls(heads: PayloadHeads) -> Bools:
    version = (heads.byte(1) == 0xFE) & ((heads.byte(2) == 0xFF) | (heads.byte(2) == 0xFD))
    is_match: Bools = (heads.byte(0) == 0x16) & version & (heads.captured_bytes > 13)
    return is_match


def _mqtt_connect(heads: PayloadHeads) -> Bools:
    near = (heads.u16(4) == 0x4D51) | (heads.u16(5) == 0x4D51)
    is_match: Bools = (heads.byte(0) == 0x10) & near
    return is_match


def _kerberos(heads: PayloadHeads) -> Bools:
    tag, form = heads.byte(0), heads.byte(1)
    known = np.isin(tag, (0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x6F, 0x7E))
    is_match: Bools = known & (form > 2) & (heads.captured_bytes > 8)
    return is_match


def _kerberos_tcp(heads: PayloadHeads) -> Bools:
    known = np.isin(heads.byte(4), (0x6A, 0x6B, 0x6C, 0x6D, 0x7E))
    is_match: Bools = (heads.u16(0) == 0) & known & (heads.captured_bytes > 12)
    return is_match


def _dns(heads: PayloadHeads) -> Bools:
    opcode = heads.byte(2) >> 3 & 15
    sane = (opcode <= 6) & (heads.u16(4) + heads.u16(6) + heads.u16(8) + heads.u16(10) < 1024)
    is_match: Bools = sane & (heads.captured_bytes >= 12)
    return is_match


def _dns_tcp(heads: PayloadHeads) -> Bools:
    opcode = heads.byte(4) >> 3 & 15
    is_match: Bools = (
        (heads.captured_bytes >= 14) & (opcode <= 5) & (heads.u16(0) >= 12) & (heads.u16(6) < 16)
    )
    return is_match


def _ntp(heads: PayloadHeads) -> Bools:
    version, mode = heads.byte(0) >> 3 & 7, heads.byte(0) & 7
    normal = (mode >= 1) & (mode <= 5) & (heads.captured_bytes >= 48)
    control = (mode >= 6) & (heads.captured_bytes >= 8)
    is_match: Bools = (version >= 1) & (version <= 4) & (normal | control)
    return is_match


def _bootp(heads: PayloadHeads) -> Bools:
    is_match: Bools = (
        np.isin(heads.byte(0), (1, 2)) & (heads.byte(2) <= 16) & (heads.captured_bytes >= 240)
    )
    return is_match


def _snmp(heads: PayloadHeads) -> Bools:
    long = (heads.byte(1) & 0x80 != 0) & (heads.byte(1) & 0x7F <= 4)
    integer = (heads.u16(2) == 0x0201) | long & (
        (heads.u16(3) == 0x0201) | (heads.u16(4) == 0x0201)
    )
    is_match: Bools = (heads.byte(0) == 0x30) & integer
    return is_match


def _modbus(heads: PayloadHeads) -> Bools:
    is_match: Bools = (
        (heads.u16(2) == 0)
        & (heads.u16(4) >= 2)
        & (heads.u16(4) < 256)
        & (heads.captured_bytes >= 8)
    )
    return is_match


def _smb(heads: PayloadHeads) -> Bools:
    name = (heads.byte(5) == 0x53) & (heads.byte(6) == 0x4D) & (heads.byte(7) == 0x42)
    is_match: Bools = (heads.byte(0) == 0) & (heads.byte(4) >= 0xFD) & name
    return is_match


def _dce_rpc(*kinds: int) -> Callable[[PayloadHeads], Bools]:
    def test(heads: PayloadHeads) -> Bools:
        version = (heads.byte(0) == 5) & (heads.byte(1) <= 1)
        is_match: Bools = version & np.isin(heads.byte(2), kinds) & (heads.captured_bytes >= 16)
        return is_match

    return test


def _mysql_hello(heads: PayloadHeads) -> Bools:
    version = np.isin(heads.byte(4), (9, 10)) & (heads.byte(5) >= 0x30) & (heads.byte(5) <= 0x39)
    is_match: Bools = (heads.byte(3) == 0) & version
    return is_match


def _mysql_login(heads: PayloadHeads) -> Bools:
    is_match: Bools = (heads.byte(3) == 1) & (heads.captured_bytes > 32)
    return is_match


def _socks_request(heads: PayloadHeads) -> Bools:
    five = (heads.byte(0) == 5) & (heads.byte(1) >= 1) & (heads.captured_bytes == heads.byte(1) + 2)
    four = (heads.byte(0) == 4) & np.isin(heads.byte(1), (1, 2)) & (heads.captured_bytes >= 9)
    is_match: Bools = five | four
    return is_match


def _socks_reply(heads: PayloadHeads) -> Bools:
    five = (heads.byte(0) == 5) & (heads.captured_bytes >= 2)
    four = (
        (heads.byte(0) == 0)
        & (heads.byte(1) >= 0x5A)
        & (heads.byte(1) <= 0x5D)
        & (heads.captured_bytes == 8)
    )
    is_match: Bools = five | four
    return is_match


def _reply_code(*codes: bytes) -> Callable[[PayloadHeads], Bools]:
    def test(heads: PayloadHeads) -> Bools:
        is_match: Bools = heads.starts(*codes) & np.isin(heads.byte(3), (0x20, 0x2D))
        return is_match

    return test


def _begins_with(*texts: bytes, ignore_case: bool = False) -> Callable[[PayloadHeads], Bools]:
    return lambda heads: heads.starts_ignoring_case(*texts) if ignore_case else heads.starts(*texts)


def _irc_numeric(heads: PayloadHeads) -> Bools:
    """ ":server 001 ..."""
    space = np.argmax(heads.rows == 0x20, axis=1)
    index = np.minimum(space[:, None] + np.arange(1, 4), HEAD_WIDTH - 1)
    code = np.take_along_axis(heads.rows, index, axis=1)
    is_match: Bools = (
        heads.starts(b":") & (space > 1) & ((code >= 0x30) & (code <= 0x39)).all(axis=1)
    )
    return is_match


def _tpkt(kind: int) -> Callable[[PayloadHeads], Bools]:
    def test(heads: PayloadHeads) -> Bools:
        is_match: Bools = (heads.u16(0) == 0x0300) & (heads.byte(5) == kind)
        return is_match

    return test


def _mcs(heads: PayloadHeads) -> Bools:
    is_match: Bools = (
        (heads.u16(0) == 0x0300) & (heads.u16(5) == 0xF080) & np.isin(heads.byte(7), (0x7F, 0x7E))
    )
    return is_match


def _quic(heads: PayloadHeads) -> Bools:
    version = heads.u16(1) << 16 | heads.u16(3)
    known = (version == 1) | (version == 0x6B3343CF) | (version >> 8 == 0xFF0000)
    is_match: Bools = (heads.byte(0) >= 0xC0) & known & (heads.captured_bytes >= 1200)
    return is_match


def _radius(heads: PayloadHeads) -> Bools:
    is_match: Bools = (
        np.isin(heads.byte(0), (1, 2, 3, 4, 5, 11))
        & (heads.u16(2) >= 20)
        & (heads.u16(2) <= heads.captured_bytes)
    )
    return is_match


def _redis_request(heads: PayloadHeads) -> Bools:
    """An array of strings; on redis's own port any line."""
    digit = (heads.byte(1) >= 0x31) & (heads.byte(1) <= 0x39)
    array = (
        (heads.byte(0) == 0x2A)
        & digit
        & ((heads.rows[:, 2:8] == 0x0D) & (heads.rows[:, 3:9] == 0x0A)).any(axis=1)
    )
    is_match: Bools = array | ((heads.responder_port == REDIS) & (heads.captured_bytes > 2))
    return is_match


def _redis_reply(heads: PayloadHeads) -> Bools:
    simple, sized = (
        np.isin(heads.byte(0), tuple(b"-+_,")),
        np.isin(heads.byte(0), tuple(b":$*#(!=%~>")),
    )
    number = np.isin(heads.byte(1), tuple(b"0123456789+-tf"))
    is_match: Bools = (simple | sized & number) & (heads.captured_bytes > 2)
    return is_match


def _postgresql_startup(heads: PayloadHeads) -> Bools:
    is_match: Bools = (
        (heads.u16(4) == 3)
        & (heads.byte(6) == 0)
        & (heads.u16(0) == 0)
        & (heads.u16(2) == heads.captured_bytes)
    )
    return is_match


def _postgresql_reply(heads: PayloadHeads) -> Bools:
    letter = np.isin(heads.byte(0), tuple(b"RENSKZTDCvX"))
    is_match: Bools = letter & (heads.u16(1) == 0) & (heads.captured_bytes >= 5)
    return is_match


def _postgresql_answer(heads: PayloadHeads) -> Bools:
    """Whether TLS may be spoken, in one letter."""
    is_match: Bools = np.isin(heads.byte(0), (0x53, 0x4E)) & (heads.captured_bytes == 1)
    return is_match


def _ldap(*operations: int) -> Callable[[PayloadHeads], Bools]:
    """A message by its number and operation, behind a length in short or long form."""

    def test(heads: PayloadHeads) -> Bools:
        form = heads.byte(1)
        length_end = 2 + np.where(form & 0x80 != 0, form & 0x7F, 0)
        rows = np.arange(len(form))
        number = np.minimum(heads.rows[rows, np.minimum(length_end + 1, HEAD_WIDTH - 1)], 4)
        operation = heads.rows[rows, np.minimum(length_end + 2 + number, HEAD_WIDTH - 1)]
        sane = (heads.byte(0) == 0x30) & ((form <= 0x84) & (form != 0x80)) & (number > 0)
        is_match: Bools = (
            sane
            & (heads.rows[rows, np.minimum(length_end, HEAD_WIDTH - 1)] == 2)
            & np.isin(operation, operations)
        )
        return is_match

    return test


def _finger(heads: PayloadHeads) -> Bools:
    is_match: Bools = (heads.captured_bytes > 2) & (heads.byte(0) >= 0x20) & (heads.byte(0) < 0x7F)
    return is_match


def _any_payload(heads: PayloadHeads) -> Bools:
    is_match: Bools = heads.captured_bytes > 0
    return is_match


def _rdpeudp(bits: int) -> Callable[[PayloadHeads], Bools]:
    """RDP over UDP: padded to 1,232 bytes, with flags `bits`."""

    def test(heads: PayloadHeads) -> Bools:
        is_match: Bools = (
            (heads.captured_bytes == 1232) & (heads.byte(6) == 0) & (heads.byte(7) & 0x0F == bits)
        )
        return is_match

    return test


def _upgraded(heads: PayloadHeads) -> Bools:
    is_match: Bools = (
        heads.starts(b"HTTP/1.1") & (heads.u16(9) == 0x3130) & (heads.byte(11) == 0x31)
    )
    return is_match


def _dnp3(heads: PayloadHeads) -> Bools:
    is_match: Bools = (heads.u16(0) == 0x0564) & (heads.captured_bytes >= 10)
    return is_match


class Signature(NamedTuple):
    """Something a payload can look like."""

    protocol: int
    matches: Callable[[PayloadHeads], Bools]
    ports: tuple[int, ...] = ()
    """the responder's port must be one of them; any where empty"""


SIGNATURES: dict[str, Signature] = {
    "http?": Signature(TCP, _http_request),
    "http!": Signature(TCP, _begins_with(b"HTTP/1.", b"HTTP/0.")),
    "tls?": Signature(TCP, _tls(1)),
    "tls!": Signature(TCP, _tls(2)),
    "ssh": Signature(TCP, _begins_with(b"SSH-", ignore_case=True)),
    "smtp?": Signature(TCP, _begins_with(b"EHLO", b"HELO", ignore_case=True)),
    "220": Signature(TCP, _reply_code(b"220", b"120")),
    "user": Signature(TCP, _begins_with(b"USER ", b"AUTH ", ignore_case=True)),
    "331": Signature(TCP, _reply_code(b"331", b"230", b"234", b"530")),
    "nick": Signature(TCP, _begins_with(b"NICK ", b"USER ", b"CAP LS", b"PASS ", ignore_case=True)),
    "irc!": Signature(TCP, _irc_numeric),
    "irc": Signature(TCP, _begins_with(b":", b"NOTICE "), (6666, 6667, 6668, 6669)),
    "pop3!": Signature(TCP, _begins_with(b"+OK", b"-ERR")),
    "pop3?": Signature(
        TCP, _begins_with(b"USER ", b"APOP ", b"CAPA", b"AUTH", b"STLS", ignore_case=True)
    ),
    "imap!": Signature(TCP, _begins_with(b"* OK", b"* PREAUT"), (143,)),
    "mqtt?": Signature(TCP, _mqtt_connect),
    "mqtt!": Signature(TCP, _begins_with(b"\x20\x02")),
    "krb_tcp": Signature(TCP, _kerberos_tcp, (88,)),
    "dns_tcp": Signature(TCP, _dns_tcp, (53,)),
    "modbus": Signature(TCP, _modbus, (502,)),
    "smb": Signature(TCP, _smb),
    "rpc?": Signature(TCP, _dce_rpc(11, 14)),
    "rpc!": Signature(TCP, _dce_rpc(12, 13, 15)),
    "mysql!": Signature(TCP, _mysql_hello, (1434, 3306)),
    "mysql?": Signature(TCP, _mysql_login, (1434, 3306)),
    "socks?": Signature(TCP, _socks_request),
    "socks!": Signature(TCP, _socks_reply),
    "rdp?": Signature(TCP, _tpkt(0xE0)),
    "rdp!": Signature(TCP, _tpkt(0xD0)),
    "mcs": Signature(TCP, _mcs),
    "rfb": Signature(TCP, _begins_with(b"RFB 003.")),
    "xmpp": Signature(TCP, _begins_with(b"<stream:", b"<?xml ve"), (5222, 5269)),
    "redis?": Signature(TCP, _redis_request),
    "redis!": Signature(TCP, _redis_reply),
    "postgresql?": Signature(TCP, _postgresql_startup),
    "postgresql!": Signature(TCP, _postgresql_reply),
    "postgresql_tls?": Signature(TCP, _begins_with(b"\0\0\0\x08\x04\xd2\x16\x2f")),
    "postgresql_tls!": Signature(TCP, _postgresql_answer),
    "ldap_tcp?": Signature(TCP, _ldap(*LDAP_REQUESTS)),
    "ldap_tcp!": Signature(TCP, _ldap(*LDAP_ANSWERS)),
    "finger": Signature(TCP, _finger, (79,)),
    "101": Signature(TCP, _upgraded),
    "dnp3_tcp": Signature(TCP, _dnp3, (20000,)),
    "sip_tcp": Signature(TCP, _begins_with(*SIP_METHODS), (5060,)),
    "dns": Signature(UDP, _dns, (53, 137, 5353, 5355)),
    "dhcp": Signature(UDP, _bootp, (67, 68, 4011)),
    "ntp": Signature(UDP, _ntp, (123,)),
    "snmp": Signature(UDP, _snmp, (161, 162)),
    "krb": Signature(UDP, _kerberos, (88,)),
    "sip": Signature(UDP, _begins_with(*SIP_METHODS), (5060,)),
    "dtls": Signature(UDP, _dtls),
    "radius": Signature(UDP, _radius, (1812,)),
    "quic": Signature(UDP, _quic),
    "syslog": Signature(UDP, _any_payload, (514,)),
    "ldap_udp?": Signature(UDP, _ldap(0x60, 0x63, 0x77)),
    "ldap_udp!": Signature(UDP, _ldap(*LDAP_ANSWERS)),
    "rdpeudp?": Signature(UDP, _rdpeudp(1)),
    "rdpeudp!": Signature(UDP, _rdpeudp(5)),
    "dnp3_udp": Signature(UDP, _dnp3, (20000,)),
}

WHOLE_PAYLOAD_SIGNATURES = {
    "ntlm": b"NTLMSSP\0",
    "gssapi": b"\x2b\x06\x01\x05\x05\x02",
    "dce_rpc": b"\x05\x00\x0b\x03",
}
"""Bytes anywhere in the beginning of a packet of an SMB connection."""

SIGNATURE_NAMES = {
    TCP: (
        "http",
        "websocket",
        *WHOLE_PAYLOAD_SIGNATURES,
        "ftp-data",
        *(name for name, sign in SIGNATURES.items() if sign.protocol == TCP),
    ),
    UDP: (*TUNNELS[1:], *(name for name, sign in SIGNATURES.items() if sign.protocol == UDP)),
}
"""What is noted of connections, one bit each; the transports have the bits to themselves."""

SIGNATURE_BIT = {
    name: 1 << index for names in SIGNATURE_NAMES.values() for index, name in enumerate(names)
}

TUNNEL_BITS = np.array([SIGNATURE_BIT.get(name, 0) for name in TUNNELS], dtype=np.int64)
"""Bits of the kinds of tunnels."""

FIRST_BYTES = {
    "http?": b"".join(method[:1] for method in METHODS),
    "http!": b"H",
    "tls?": bytes((0x16, *range(0x80, 0x100))),
    "tls!": b"\x16",
    "ssh": b"Ss",
    "smtp?": b"EHeh",
    "220": b"12",
    "user": b"UAua",
    "331": b"235",
    "nick": b"NUCPnucp",
    "irc!": b":",
    "pop3!": b"+-",
    "pop3?": b"UACSuacs",
    "mqtt?": b"\x10",
    "mqtt!": b"\x20",
    "smb": b"\0",
    "rpc?": b"\5",
    "rpc!": b"\5",
    "socks?": b"\4\5",
    "socks!": b"\0\5",
    "rdp?": b"\3",
    "rdp!": b"\3",
    "mcs": b"\3",
    "rfb": b"R",
    "redis!": b"-+_,:$*#(!=%~>",
    "postgresql?": b"\0",
    "postgresql!": b"RENSKZTDCvX",
    "postgresql_tls?": b"\0",
    "postgresql_tls!": b"SN",
    "ldap_tcp?": b"0",
    "ldap_tcp!": b"0",
    "101": b"H",
    "dtls": b"\x16",
    "quic": bytes(range(0xC0, 0x100)),
    "ldap_udp?": b"0",
    "ldap_udp!": b"0",
}
"""First bytes with which a payload can have a sign; any for signs that aren't here."""


def _possible_tables() -> tuple[Int64s, Int64s]:
    """The signs a payload can have by first byte and by responder's port: (2, 256), (2, 65536), TCP
    first.

    Bit i is that of the i-th sign.
    """
    by_byte, by_port = np.zeros((2, 256), dtype=np.int64), np.zeros((2, 65536), dtype=np.int64)
    for index, (name, sign) in enumerate(SIGNATURES.items()):
        row = int(sign.protocol == UDP)
        by_byte[row, list(FIRST_BYTES[name]) if name in FIRST_BYTES else slice(None)] |= 1 << index
        by_port[row, list(sign.ports) if sign.ports else slice(None)] |= 1 << index
    return by_byte, by_port


POSSIBLE_BY_FIRST_BYTE, POSSIBLE_BY_PORT = _possible_tables()


def possible_signatures(first: Bytes, length: Int64s, protocol: Int64s, port: Int64s) -> Int64s:
    """What payloads may look like by their first byte and the responder's port, a bit for each of
    SIGNS.

    `captured_bytes` is what was captured of them; every one is TCP or UDP.
    """
    udp = (protocol == UDP).astype(np.int64)
    possible: Int64s = (
        POSSIBLE_BY_FIRST_BYTE[udp, np.where(length > 0, first, 0)] & POSSIBLE_BY_PORT[udp, port]
    )
    return possible


def matching_signatures(rows: Bytes, length: Int64s, possible: Int64s, port: Int64s) -> Int64s:
    """Bits (`SIGNATURE_BIT`) of what each of m payload beginnings (m, WIDTH) looks like, of what
    is `possible` for it.
    """
    possible_any = int(np.bitwise_or.reduce(possible, initial=0))
    signatures = np.zeros(len(rows), dtype=np.int64)
    words = rows[:, :8].view(">u8")[:, 0].astype(np.uint64)
    for index, (name, sign) in enumerate(SIGNATURES.items()):
        if possible_any >> index & 1:
            which = np.flatnonzero(possible & (1 << index))
            is_match = sign.matches(
                PayloadHeads(rows[which], words[which], length[which], port[which])
            )
            signatures[which[is_match]] |= SIGNATURE_BIT[name]
    return signatures


def whole_payload_signatures(payload: bytes, signatures: int) -> int:
    """Bits of what is found anywhere in the beginning of a payload that `names` says is SMB, RPC
    or HTTP.
    """
    if signatures & SIGNATURE_BIT["http?"]:
        return SIGNATURE_BIT["http"] if b" HTTP/" in payload else 0
    if signatures & SIGNATURE_BIT["101"]:
        return SIGNATURE_BIT["websocket"] if b"upgrade: websocket" in payload.lower() else 0
    return sum(
        SIGNATURE_BIT[name] for name, text in WHOLE_PAYLOAD_SIGNATURES.items() if text in payload
    )


NEEDS_WHOLE_PAYLOAD = (
    SIGNATURE_BIT["smb"]
    | SIGNATURE_BIT["rpc?"]
    | SIGNATURE_BIT["rpc!"]
    | SIGNATURE_BIT["http?"]
    | SIGNATURE_BIT["101"]
)
"""Bits of TCP connections whose payloads are looked at as a whole."""
