"""Data connections that FTP control connections announce: PASV, PORT, EPSV and EPRT."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple


class Endpoint(NamedTuple):
    """Where an FTP control connection announced a data connection."""

    high: int
    low: int
    port: int


_PASSIVE = re.compile(rb"^(?:227[^(]*\(|PORT )(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)", re.IGNORECASE)

_EXTENDED = re.compile(rb"^229[^(]*\((.)\1\1(\d{1,5})\1\)")

_EXTENDED_PORT = re.compile(rb"^EPRT (.)([12])\1([0-9a-fA-F.:]+)\1(\d{1,5})\1", re.IGNORECASE)

FTP_ANNOUNCEMENTS = (b"227 ", b"229 ", b"PORT", b"EPRT", b"port", b"eprt")

FTP_CONTROL = 21


def announced_endpoint(payload: bytes, server: tuple[int, int]) -> Endpoint | None:
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
