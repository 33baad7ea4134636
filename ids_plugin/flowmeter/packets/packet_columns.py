"""Decoded packets as columns: what the decoder makes and the meter takes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ids_plugin.flowmeter.packets.capture_files import byte_rows
from ids_plugin.flowmeter.packets.headers import (
    BadHeader,
    Bools,
    Bytes,
    Int64s,
    UInt64s,
)

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58

MAPPED = np.uint64(0x0000FFFF_00000000)
"""Low half of an IPv4 address kept as IPv6 (::ffff:a.b.c.d)."""


@dataclass
class Packets:
    """IP packets of one chunk in the capture's order, one in a tunnel behind the one that
    carries it; arrays of n.
    """

    number: Int64s
    """number in the capture, from 1"""
    time: Int64s
    """µs since the epoch"""
    source: tuple[UInt64s, UInt64s]
    """address in two halves; IPv4 as ::ffff:a.b.c.d"""
    destination: tuple[UInt64s, UInt64s]
    protocol: Int64s
    """IP protocol number"""
    source_port: Int64s
    """ICMP: the type"""
    destination_port: Int64s
    """ICMP: the type that answers, or the code where none does"""
    is_one_way: Bools
    """ICMP that has no counterpart"""
    ip_bytes: Int64s
    """as the IP header says"""
    payload_bytes: Int64s
    """payload bytes by the headers"""
    flags: Int64s
    """TCP flags byte; this and the next three mean nothing where there is no TCP"""
    sequence: Int64s
    ack_number: Int64s
    window: Int64s
    payload_offset: Int64s
    """where the payload begins in `data`"""
    captured_payload: Int64s
    """captured payload bytes"""
    tunnel_parent: Int64s
    """the tunnel that the packet came out of: index of the packet that carried it, -2 - i for
    `tunnels[i]`, or -1
    """
    tunnel_kind: Int64s
    """kind of tunnel that the packet proves its connection to be, of `_tunnels.NAMES`; 0 for
    none, TOO_DEEP
    """
    has_bad_checksum: Bools
    """the checksum doesn't fit: the packet begins a connection if there is none, and leaves its
    letter, nothing else
    """
    data: Bytes
    arrivals: Int64s
    """µs of every packet of the chunk, also those that aren't IP"""
    first_number: int
    """number of the chunk's first packet"""
    tunnels: UInt64s = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    """seeds of the uids of tunnels that aren't connections: IP in IP, GRE"""
    unhandled: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    """packets that were measured, and what is odd about them"""
    bad_headers: list[BadHeader] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.number)


def select_packets(packets: Packets, which: Bools | Int64s) -> Packets:
    """The packets `which` names, by mask or index."""
    columns: dict[str, Any] = {name: getattr(packets, name)[which] for name in PACKET_COLUMNS}
    for name in ("source", "destination"):
        high, low = getattr(packets, name)
        columns[name] = high[which], low[which]
    return replace(packets, **columns)


PACKET_COLUMNS = frozenset(Packets.__dataclass_fields__) - {
    "source",
    "destination",
    "data",
    "arrivals",
    "first_number",
    "tunnels",
    "unhandled",
    "remarks",
    "bad_headers",
}


def payload_beginnings(data: Bytes, offsets: Int64s, length: Int64s, width: int) -> Bytes:
    """(n, width) first bytes of payloads of `length` bytes at `offsets` in a chunk's data, zeros
    behind their end.
    """
    padded = data if len(data) >= width else np.concatenate([data, np.zeros(width, dtype=np.uint8)])
    start = np.clip(offsets, 0, len(padded) - width)
    rows = byte_rows(padded, start, width)
    rows *= np.arange(width) < length[:, None]
    return rows
