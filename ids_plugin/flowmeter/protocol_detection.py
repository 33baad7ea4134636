"""Application protocols by what the first packets of both sides say.

Zeek's rule (https://docs.zeek.org/en/v8.0.8/frameworks/dpd.html): a protocol counts once its parser has confirmed it.
Here a payload that looks like the protocol stands for a successful parse: from both sides, or from one side on a
registered port where Zeek's parser confirms a single message.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.flowmeter.connection_table import mix
from ids_plugin.flowmeter.packets.decoder import TCP, UDP
from ids_plugin.flowmeter.packets.tunnels import NAMES as TUNNELS

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

LOOKED_AT_FIRST = 3
"""Packets with payload of each side that are looked at."""
LOOKED_AT = 8
"""The same on ports of protocols that come to the point late, or carry others."""
TALKATIVE = np.zeros(65536, dtype=bool)
TALKATIVE[
    [21, 25, 80, 110, 135, 139, 143, 445, 587, 1080, 3128, 3389, 6666, 6667, 6668, 6669, 8080]
] = True
WIDTH = 64
DEEP = 2048
"""Bytes of a packet in which authentication inside SMB and RPC is searched."""

REDIS, POSTGRESQL = 6379, 5432
LDAP_REQUESTS = (0x4A, 0x60, 0x63, 0x66, 0x68, 0x6C, 0x6E, 0x77)
LDAP_ANSWERS = (0x61, 0x64, 0x65, 0x67, 0x69, 0x6B, 0x6D, 0x6F, 0x73, 0x78, 0x79)
HTTP_PORTS = (80, 81, 631, 1080, 3128, 8000, 8080, 8888)
WEB = np.zeros(65536, dtype=bool)
WEB[list(HTTP_PORTS)] = True
METHODS = (
    b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE ", b"PATCH ", b"PROPFIND",
    b"SEARCH ", b"REPORT ", b"MKCOL ", b"LOCK ", b"UNLOCK ", b"MOVE ", b"COPY ", b"SUBSCRIB", b"NOTIFY ",
)  # fmt: skip
SIP_METHODS = (
    b"INVITE s", b"REGISTER", b"OPTIONS ", b"ACK sip:", b"BYE sip:", b"CANCEL s", b"SUBSCRIB", b"NOTIFY s", b"MESSAGE ",
    b"INFO sip", b"PRACK si", b"UPDATE s", b"REFER si", b"PUBLISH ", b"SIP/2.0 ",
)  # fmt: skip


class Heads(NamedTuple):
    """Beginnings of m payloads."""

    rows: Bytes
    """(m, WIDTH), zeros behind the end"""
    word: UInt64s
    """the first eight bytes, big-endian"""
    length: Int64s
    """payload bytes captured"""
    port: Int64s
    """the responder's"""

    def starts(self, *texts: bytes) -> Bools:
        """Whether a payload begins with one of `texts`, at most eight bytes each."""
        found = np.zeros(len(self.word), dtype=bool)
        for text in texts:
            shift = np.uint64(64 - 8 * len(text))
            found |= self.word >> shift == np.uint64(int.from_bytes(text, "big"))
        return found

    def folded(self, *texts: bytes) -> Bools:
        """The same without regard to case."""
        lower = self._replace(word=self.word | np.uint64(0x2020202020202020))
        return lower.starts(*(bytes(byte | 0x20 for byte in text) for text in texts))

    def byte(self, index: int) -> Int64s:
        return self.rows[:, index].astype(np.int64)

    def u16(self, index: int) -> Int64s:
        return self.byte(index) << 8 | self.byte(index + 1)


def _http_request(heads: Heads) -> Bools:
    return heads.starts(*METHODS)


def _tls(kind: int) -> Callable[[Heads], Bools]:
    def test(heads: Heads) -> Bools:
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
        found: Bools = record | (old & (kind == 1) & (heads.length > 20))
        return found

    return test


def _dtls(heads: Heads) -> Bools:
    version = (heads.byte(1) == 0xFE) & ((heads.byte(2) == 0xFF) | (heads.byte(2) == 0xFD))
    found: Bools = (heads.byte(0) == 0x16) & version & (heads.length > 13)
    return found


def _mqtt_connect(heads: Heads) -> Bools:
    near = (heads.u16(4) == 0x4D51) | (heads.u16(5) == 0x4D51)
    found: Bools = (heads.byte(0) == 0x10) & near
    return found


def _kerberos(heads: Heads) -> Bools:
    tag, form = heads.byte(0), heads.byte(1)
    known = np.isin(tag, (0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x6F, 0x7E))
    found: Bools = known & (form > 2) & (heads.length > 8)
    return found


def _kerberos_tcp(heads: Heads) -> Bools:
    known = np.isin(heads.byte(4), (0x6A, 0x6B, 0x6C, 0x6D, 0x7E))
    found: Bools = (heads.u16(0) == 0) & known & (heads.length > 12)
    return found


def _dns(heads: Heads) -> Bools:
    opcode = heads.byte(2) >> 3 & 15
    sane = (opcode <= 6) & (heads.u16(4) + heads.u16(6) + heads.u16(8) + heads.u16(10) < 1024)
    found: Bools = sane & (heads.length >= 12)
    return found


def _dns_tcp(heads: Heads) -> Bools:
    opcode = heads.byte(4) >> 3 & 15
    found: Bools = (heads.length >= 14) & (opcode <= 5) & (heads.u16(0) >= 12) & (heads.u16(6) < 16)
    return found


def _ntp(heads: Heads) -> Bools:
    version, mode = heads.byte(0) >> 3 & 7, heads.byte(0) & 7
    normal = (mode >= 1) & (mode <= 5) & (heads.length >= 48)
    control = (mode >= 6) & (heads.length >= 8)
    found: Bools = (version >= 1) & (version <= 4) & (normal | control)
    return found


def _bootp(heads: Heads) -> Bools:
    found: Bools = np.isin(heads.byte(0), (1, 2)) & (heads.byte(2) <= 16) & (heads.length >= 240)
    return found


def _snmp(heads: Heads) -> Bools:
    long = (heads.byte(1) & 0x80 != 0) & (heads.byte(1) & 0x7F <= 4)
    integer = (heads.u16(2) == 0x0201) | long & (
        (heads.u16(3) == 0x0201) | (heads.u16(4) == 0x0201)
    )
    found: Bools = (heads.byte(0) == 0x30) & integer
    return found


def _modbus(heads: Heads) -> Bools:
    found: Bools = (
        (heads.u16(2) == 0) & (heads.u16(4) >= 2) & (heads.u16(4) < 256) & (heads.length >= 8)
    )
    return found


def _smb(heads: Heads) -> Bools:
    name = (heads.byte(5) == 0x53) & (heads.byte(6) == 0x4D) & (heads.byte(7) == 0x42)
    found: Bools = (heads.byte(0) == 0) & (heads.byte(4) >= 0xFD) & name
    return found


def _dce_rpc(*kinds: int) -> Callable[[Heads], Bools]:
    def test(heads: Heads) -> Bools:
        version = (heads.byte(0) == 5) & (heads.byte(1) <= 1)
        found: Bools = version & np.isin(heads.byte(2), kinds) & (heads.length >= 16)
        return found

    return test


def _mysql_hello(heads: Heads) -> Bools:
    version = np.isin(heads.byte(4), (9, 10)) & (heads.byte(5) >= 0x30) & (heads.byte(5) <= 0x39)
    found: Bools = (heads.byte(3) == 0) & version
    return found


def _mysql_login(heads: Heads) -> Bools:
    found: Bools = (heads.byte(3) == 1) & (heads.length > 32)
    return found


def _socks_request(heads: Heads) -> Bools:
    five = (heads.byte(0) == 5) & (heads.byte(1) >= 1) & (heads.length == heads.byte(1) + 2)
    four = (heads.byte(0) == 4) & np.isin(heads.byte(1), (1, 2)) & (heads.length >= 9)
    found: Bools = five | four
    return found


def _socks_reply(heads: Heads) -> Bools:
    five = (heads.byte(0) == 5) & (heads.length >= 2)
    four = (
        (heads.byte(0) == 0)
        & (heads.byte(1) >= 0x5A)
        & (heads.byte(1) <= 0x5D)
        & (heads.length == 8)
    )
    found: Bools = five | four
    return found


def _numeric(*codes: bytes) -> Callable[[Heads], Bools]:
    def test(heads: Heads) -> Bools:
        found: Bools = heads.starts(*codes) & np.isin(heads.byte(3), (0x20, 0x2D))
        return found

    return test


def _begins_with(*texts: bytes, fold: bool = False) -> Callable[[Heads], Bools]:
    return lambda heads: heads.folded(*texts) if fold else heads.starts(*texts)


def _irc_numeric(heads: Heads) -> Bools:
    """ ":server 001 ..."""
    space = np.argmax(heads.rows == 0x20, axis=1)
    index = np.minimum(space[:, None] + np.arange(1, 4), WIDTH - 1)
    code = np.take_along_axis(heads.rows, index, axis=1)
    found: Bools = heads.starts(b":") & (space > 1) & ((code >= 0x30) & (code <= 0x39)).all(axis=1)
    return found


def _tpkt(kind: int) -> Callable[[Heads], Bools]:
    def test(heads: Heads) -> Bools:
        found: Bools = (heads.u16(0) == 0x0300) & (heads.byte(5) == kind)
        return found

    return test


def _mcs(heads: Heads) -> Bools:
    found: Bools = (
        (heads.u16(0) == 0x0300) & (heads.u16(5) == 0xF080) & np.isin(heads.byte(7), (0x7F, 0x7E))
    )
    return found


def _quic(heads: Heads) -> Bools:
    version = heads.u16(1) << 16 | heads.u16(3)
    known = (version == 1) | (version == 0x6B3343CF) | (version >> 8 == 0xFF0000)
    found: Bools = (heads.byte(0) >= 0xC0) & known & (heads.length >= 1200)
    return found


def _radius(heads: Heads) -> Bools:
    found: Bools = (
        np.isin(heads.byte(0), (1, 2, 3, 4, 5, 11))
        & (heads.u16(2) >= 20)
        & (heads.u16(2) <= heads.length)
    )
    return found


def _redis_request(heads: Heads) -> Bools:
    """An array of strings; on redis's own port any line."""
    digit = (heads.byte(1) >= 0x31) & (heads.byte(1) <= 0x39)
    array = (
        (heads.byte(0) == 0x2A)
        & digit
        & ((heads.rows[:, 2:8] == 0x0D) & (heads.rows[:, 3:9] == 0x0A)).any(axis=1)
    )
    found: Bools = array | ((heads.port == REDIS) & (heads.length > 2))
    return found


def _redis_reply(heads: Heads) -> Bools:
    simple, sized = (
        np.isin(heads.byte(0), tuple(b"-+_,")),
        np.isin(heads.byte(0), tuple(b":$*#(!=%~>")),
    )
    number = np.isin(heads.byte(1), tuple(b"0123456789+-tf"))
    found: Bools = (simple | sized & number) & (heads.length > 2)
    return found


def _postgresql_startup(heads: Heads) -> Bools:
    found: Bools = (
        (heads.u16(4) == 3)
        & (heads.byte(6) == 0)
        & (heads.u16(0) == 0)
        & (heads.u16(2) == heads.length)
    )
    return found


def _postgresql_reply(heads: Heads) -> Bools:
    letter = np.isin(heads.byte(0), tuple(b"RENSKZTDCvX"))
    found: Bools = letter & (heads.u16(1) == 0) & (heads.length >= 5)
    return found


def _postgresql_answer(heads: Heads) -> Bools:
    """Whether TLS may be spoken, in one letter."""
    found: Bools = np.isin(heads.byte(0), (0x53, 0x4E)) & (heads.length == 1)
    return found


def _ldap(*operations: int) -> Callable[[Heads], Bools]:
    """A message by its number and operation, behind a length in short or long form."""

    def test(heads: Heads) -> Bools:
        form = heads.byte(1)
        at = 2 + np.where(form & 0x80 != 0, form & 0x7F, 0)
        rows = np.arange(len(form))
        number = np.minimum(heads.rows[rows, np.minimum(at + 1, WIDTH - 1)], 4)
        operation = heads.rows[rows, np.minimum(at + 2 + number, WIDTH - 1)]
        sane = (heads.byte(0) == 0x30) & ((form <= 0x84) & (form != 0x80)) & (number > 0)
        found: Bools = (
            sane
            & (heads.rows[rows, np.minimum(at, WIDTH - 1)] == 2)
            & np.isin(operation, operations)
        )
        return found

    return test


def _finger(heads: Heads) -> Bools:
    found: Bools = (heads.length > 2) & (heads.byte(0) >= 0x20) & (heads.byte(0) < 0x7F)
    return found


def _something(heads: Heads) -> Bools:
    found: Bools = heads.length > 0
    return found


def _rdpeudp(bits: int) -> Callable[[Heads], Bools]:
    """RDP over UDP: padded to 1,232 bytes, with flags `bits`."""

    def test(heads: Heads) -> Bools:
        found: Bools = (
            (heads.length == 1232) & (heads.byte(6) == 0) & (heads.byte(7) & 0x0F == bits)
        )
        return found

    return test


def _upgraded(heads: Heads) -> Bools:
    found: Bools = heads.starts(b"HTTP/1.1") & (heads.u16(9) == 0x3130) & (heads.byte(11) == 0x31)
    return found


def _dnp3(heads: Heads) -> Bools:
    found: Bools = (heads.u16(0) == 0x0564) & (heads.length >= 10)
    return found


class Sign(NamedTuple):
    """Something a payload can look like."""

    protocol: int
    test: Callable[[Heads], Bools]
    ports: tuple[int, ...] = ()
    """the responder's port must be one of them; any where empty"""


SIGNS: dict[str, Sign] = {
    "http?": Sign(TCP, _http_request),
    "http!": Sign(TCP, _begins_with(b"HTTP/1.", b"HTTP/0.")),
    "tls?": Sign(TCP, _tls(1)),
    "tls!": Sign(TCP, _tls(2)),
    "ssh": Sign(TCP, _begins_with(b"SSH-", fold=True)),
    "smtp?": Sign(TCP, _begins_with(b"EHLO", b"HELO", fold=True)),
    "220": Sign(TCP, _numeric(b"220", b"120")),
    "user": Sign(TCP, _begins_with(b"USER ", b"AUTH ", fold=True)),
    "331": Sign(TCP, _numeric(b"331", b"230", b"234", b"530")),
    "nick": Sign(TCP, _begins_with(b"NICK ", b"USER ", b"CAP LS", b"PASS ", fold=True)),
    "irc!": Sign(TCP, _irc_numeric),
    "irc": Sign(TCP, _begins_with(b":", b"NOTICE "), (6666, 6667, 6668, 6669)),
    "pop3!": Sign(TCP, _begins_with(b"+OK", b"-ERR")),
    "pop3?": Sign(TCP, _begins_with(b"USER ", b"APOP ", b"CAPA", b"AUTH", b"STLS", fold=True)),
    "imap!": Sign(TCP, _begins_with(b"* OK", b"* PREAUT"), (143,)),
    "mqtt?": Sign(TCP, _mqtt_connect),
    "mqtt!": Sign(TCP, _begins_with(b"\x20\x02")),
    "krb_tcp": Sign(TCP, _kerberos_tcp, (88,)),
    "dns_tcp": Sign(TCP, _dns_tcp, (53,)),
    "modbus": Sign(TCP, _modbus, (502,)),
    "smb": Sign(TCP, _smb),
    "rpc?": Sign(TCP, _dce_rpc(11, 14)),
    "rpc!": Sign(TCP, _dce_rpc(12, 13, 15)),
    "mysql!": Sign(TCP, _mysql_hello, (1434, 3306)),
    "mysql?": Sign(TCP, _mysql_login, (1434, 3306)),
    "socks?": Sign(TCP, _socks_request),
    "socks!": Sign(TCP, _socks_reply),
    "rdp?": Sign(TCP, _tpkt(0xE0)),
    "rdp!": Sign(TCP, _tpkt(0xD0)),
    "mcs": Sign(TCP, _mcs),
    "rfb": Sign(TCP, _begins_with(b"RFB 003.")),
    "xmpp": Sign(TCP, _begins_with(b"<stream:", b"<?xml ve"), (5222, 5269)),
    "redis?": Sign(TCP, _redis_request),
    "redis!": Sign(TCP, _redis_reply),
    "postgresql?": Sign(TCP, _postgresql_startup),
    "postgresql!": Sign(TCP, _postgresql_reply),
    "postgresql_tls?": Sign(TCP, _begins_with(b"\0\0\0\x08\x04\xd2\x16\x2f")),
    "postgresql_tls!": Sign(TCP, _postgresql_answer),
    "ldap_tcp?": Sign(TCP, _ldap(*LDAP_REQUESTS)),
    "ldap_tcp!": Sign(TCP, _ldap(*LDAP_ANSWERS)),
    "finger": Sign(TCP, _finger, (79,)),
    "101": Sign(TCP, _upgraded),
    "dnp3_tcp": Sign(TCP, _dnp3, (20000,)),
    "sip_tcp": Sign(TCP, _begins_with(*SIP_METHODS), (5060,)),
    "dns": Sign(UDP, _dns, (53, 137, 5353, 5355)),
    "dhcp": Sign(UDP, _bootp, (67, 68, 4011)),
    "ntp": Sign(UDP, _ntp, (123,)),
    "snmp": Sign(UDP, _snmp, (161, 162)),
    "krb": Sign(UDP, _kerberos, (88,)),
    "sip": Sign(UDP, _begins_with(*SIP_METHODS), (5060,)),
    "dtls": Sign(UDP, _dtls),
    "radius": Sign(UDP, _radius, (1812,)),
    "quic": Sign(UDP, _quic),
    "syslog": Sign(UDP, _something, (514,)),
    "ldap_udp?": Sign(UDP, _ldap(0x60, 0x63, 0x77)),
    "ldap_udp!": Sign(UDP, _ldap(*LDAP_ANSWERS)),
    "rdpeudp?": Sign(UDP, _rdpeudp(1)),
    "rdpeudp!": Sign(UDP, _rdpeudp(5)),
    "dnp3_udp": Sign(UDP, _dnp3, (20000,)),
}
DEEP_SIGNS = {
    "ntlm": b"NTLMSSP\0",
    "gssapi": b"\x2b\x06\x01\x05\x05\x02",
    "dce_rpc": b"\x05\x00\x0b\x03",
}
"""Bytes anywhere in the beginning of a packet of an SMB connection."""
MARKS = {
    TCP: (
        "http",
        "websocket",
        *DEEP_SIGNS,
        "ftp-data",
        *(name for name, sign in SIGNS.items() if sign.protocol == TCP),
    ),
    UDP: (*TUNNELS[1:], *(name for name, sign in SIGNS.items() if sign.protocol == UDP)),
}
"""What is noted of connections, one bit each; the transports have the bits to themselves."""
BIT = {name: 1 << index for names in MARKS.values() for index, name in enumerate(names)}
CARRIED = np.array([BIT.get(name, 0) for name in TUNNELS], dtype=np.int64)
"""Bits of the kinds of tunnels."""
EITHER = {
    TCP: ("sip_tcp", "krb_tcp", "dns_tcp", "dnp3_tcp", "modbus", "xmpp", "finger", "websocket", "ftp-data"),
    UDP: (
        "dns", "dhcp", "ntp", "snmp", "krb", "sip", "radius", "quic", "syslog", "dnp3_udp",
        "gtpv1", "vxlan", "geneve", "ayiya",
    ),
}  # fmt: skip
"""Protocols that one message confirms."""
PAIRS = {
    "http": ("http?", "http!"),
    "ssl": ("tls?", "tls!"),
    "ssh": ("ssh", "ssh"),
    "smtp": ("smtp?", "220"),
    "pop3": ("pop3?", "pop3!"),
    "irc": ("nick", "irc!"),
    "mqtt": ("mqtt?", "mqtt!"),
    "mysql": ("mysql?", "mysql!"),
    "socks": ("socks?", "socks!"),
    "smb": ("smb", "smb"),
    "dce_rpc": ("rpc?", "rpc!"),
    "rfb": ("rfb", "rfb"),
    "redis": ("redis?", "redis!"),
    "postgresql": ("postgresql?", "postgresql!"),
    "ldap_tcp": ("ldap_tcp?", "ldap_tcp!"),
    "ldap_udp": ("ldap_udp?", "ldap_udp!"),
    "rdpeudp": ("rdpeudp?", "rdpeudp!"),
    "dtls": ("dtls", "dtls"),
    "teredo": ("teredo", "teredo"),
}
"""Protocols that a message of each side confirms: the originator's sign, the responder's."""


BEGINS = {
    "http?": b"".join(method[:1] for method in METHODS), "http!": b"H", "tls?": bytes((0x16, *range(0x80, 0x100))),
    "tls!": b"\x16", "ssh": b"Ss", "smtp?": b"EHeh", "220": b"12", "user": b"UAua", "331": b"235", "nick": b"NUCPnucp",
    "irc!": b":", "pop3!": b"+-", "pop3?": b"UACSuacs", "mqtt?": b"\x10", "mqtt!": b"\x20", "smb": b"\0",
    "rpc?": b"\5", "rpc!": b"\5", "socks?": b"\4\5", "socks!": b"\0\5", "rdp?": b"\3", "rdp!": b"\3", "mcs": b"\3",
    "rfb": b"R", "redis!": b"-+_,:$*#(!=%~>", "postgresql?": b"\0", "postgresql!": b"RENSKZTDCvX",
    "postgresql_tls?": b"\0", "postgresql_tls!": b"SN", "ldap_tcp?": b"0", "ldap_tcp!": b"0", "101": b"H",
    "dtls": b"\x16", "quic": bytes(range(0xC0, 0x100)), "ldap_udp?": b"0", "ldap_udp!": b"0",
}  # fmt: skip
"""First bytes with which a payload can have a sign; any for signs that aren't here."""


def _possible() -> tuple[Int64s, Int64s]:
    """The signs a payload can have by first byte and by responder's port: (2, 256), (2, 65536), TCP first.

    Bit i is that of the i-th sign.
    """
    by_byte, by_port = np.zeros((2, 256), dtype=np.int64), np.zeros((2, 65536), dtype=np.int64)
    for index, (name, sign) in enumerate(SIGNS.items()):
        row = int(sign.protocol == UDP)
        by_byte[row, list(BEGINS[name]) if name in BEGINS else slice(None)] |= 1 << index
        by_port[row, list(sign.ports) if sign.ports else slice(None)] |= 1 << index
    return by_byte, by_port


BY_BYTE, BY_PORT = _possible()


def possible_signs(first: Bytes, length: Int64s, protocol: Int64s, port: Int64s) -> Int64s:
    """What payloads may look like by their first byte and the responder's port, a bit for each of SIGNS.

    `length` is what was captured of them; every one is TCP or UDP.
    """
    udp = (protocol == UDP).astype(np.int64)
    possible: Int64s = BY_BYTE[udp, np.where(length > 0, first, 0)] & BY_PORT[udp, port]
    return possible


def signs(rows: Bytes, length: Int64s, possible: Int64s, port: Int64s) -> Int64s:
    """Bits (`BIT`) of what each of m payload beginnings (m, WIDTH) looks like, of what is `possible` for it."""
    some = int(np.bitwise_or.reduce(possible, initial=0))
    found = np.zeros(len(rows), dtype=np.int64)
    words = rows[:, :8].view(">u8")[:, 0].astype(np.uint64)
    for index, (name, sign) in enumerate(SIGNS.items()):
        if some >> index & 1:
            which = np.flatnonzero(possible & (1 << index))
            here = sign.test(Heads(rows[which], words[which], length[which], port[which]))
            found[which[here]] |= BIT[name]
    return found


def deep_signs(payload: bytes, found: int) -> int:
    """Bits of what is found anywhere in the beginning of a payload that `found` says is SMB, RPC or HTTP."""
    if found & BIT["http?"]:
        return BIT["http"] if b" HTTP/" in payload else 0
    if found & BIT["101"]:
        return BIT["websocket"] if b"upgrade: websocket" in payload.lower() else 0
    return sum(BIT[name] for name, text in DEEP_SIGNS.items() if text in payload)


LOOK_DEEPER = BIT["smb"] | BIT["rpc?"] | BIT["rpc!"] | BIT["http?"] | BIT["101"]
"""Bits of TCP connections whose payloads are looked at as a whole."""


class Endpoint(NamedTuple):
    """Where an FTP control connection announced a data connection."""

    high: int
    low: int
    port: int


_PASSIVE = re.compile(rb"^(?:227[^(]*\(|PORT )(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)", re.IGNORECASE)
_EXTENDED = re.compile(rb"^229[^(]*\((.)\1\1(\d{1,5})\1\)")
_EXTENDED_PORT = re.compile(rb"^EPRT (.)([12])\1([0-9a-fA-F.:]+)\1(\d{1,5})\1", re.IGNORECASE)


ANNOUNCES = (b"227 ", b"229 ", b"PORT", b"EPRT", b"port", b"eprt")
FTP_CONTROL = 21


def announced(payload: bytes, server: tuple[int, int]) -> Endpoint | None:
    """The endpoint an FTP message announces; `server` is who sends a 229, address in two halves."""
    passive = _PASSIVE.match(payload)
    if passive:
        numbers = [int(group) & 0xFF for group in passive.groups()]
        return Endpoint(
            0,
            0xFFFF << 32 | int.from_bytes(bytes(numbers[:4]), "big"),
            numbers[4] << 8 | numbers[5],
        )
    extended = _EXTENDED.match(payload)
    if extended:
        return Endpoint(*server, int(extended[2]) & 0xFFFF)
    active = _EXTENDED_PORT.match(payload)
    if active:
        try:
            address = int(ipaddress.ip_address(active[3].decode()))
        except ValueError:
            return None
        address |= 0xFFFF << 32 if active[2] == b"1" else 0
        return Endpoint(address >> 64, address & 0xFFFFFFFF_FFFFFFFF, int(active[4]) & 0xFFFF)
    return None


def services(
    originator: Int64s, responder: Int64s, port: Int64s, protocol: Int64s
) -> tuple[list[str | None], Int64s]:
    """Names that occur among n connections, from the bits both sides have shown, and which of them each has.

    Names are comma-separated as in a conn.log; None where nothing was recognised.
    """
    about = WEB[port].astype(np.int64) | (port == POSTGRESQL) << 1 | (protocol == UDP) << 2
    key = mix(mix(originator.astype(np.uint64)) ^ responder.astype(np.uint64)) ^ about.astype(
        np.uint64
    )
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    seen = zip(
        originator[first].tolist(), responder[first].tolist(), about[first].tolist(), strict=True
    )
    return [_named(*each) for each in seen], inverse.astype(np.int64)


def _named(originator: int, responder: int, about: int) -> str | None:
    """Services of a connection; `about` says whether its port is HTTP's (1), PostgreSQL's (2), and UDP (4)."""
    if not (originator or responder):
        return None
    either, protocol = originator | responder, UDP if about & 4 else TCP
    found = [name for name in EITHER[protocol] if either & BIT[name]]
    for name, (own, other) in PAIRS.items():
        if own in MARKS[protocol] and originator & BIT[own] and responder & BIT[other]:
            found.append(name)
    if protocol == TCP:
        _only_tcp(found, originator, responder, about)
    named = {"sip_tcp": "sip", "dns_tcp": "dns"}
    return ",".join(named.get(name, name) for name in found) or None


def _only_tcp(found: list[str], originator: int, responder: int, about: int) -> None:
    """Adds services that take more than a sign of each side; takes off those that others explain."""
    either = originator | responder
    if about & 1 and originator & BIT["http"] and "http" not in found:
        found.append("http")
    if originator & BIT["nick"] and responder & BIT["irc"] and "irc" not in found:
        found.append("irc")
    if (
        responder & BIT["220"]
        and originator & BIT["user"]
        and responder & BIT["331"]
        and "smtp" not in found
    ):
        found.append("ftp")
    if (
        originator & BIT["rdp?"]
        and responder & BIT["rdp!"]
        and originator & BIT["mcs"]
        and "ssl" not in found
    ):
        found.append("rdp")
    if responder & BIT["imap!"]:
        found.append("imap")
    asked = originator & BIT["postgresql_tls?"] and responder & BIT["postgresql_tls!"]
    if (asked or (about & 2 and originator & BIT["postgresql?"])) and "postgresql" not in found:
        found.append("postgresql")
    if "smb" in found or "dce_rpc" in found:
        found += [name for name in ("gssapi", "ntlm") if either & BIT[name]]
        found += ["dce_rpc"] if "smb" in found and either & BIT["dce_rpc"] else []
    for name, instead in (("irc", "ftp"), ("redis", "pop3"), ("websocket", None)):
        if name in found and (instead in found if instead else "http" not in found):
            found.remove(name)
