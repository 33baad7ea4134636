"""Captures that tests and benches make themselves: single packets, files around them, and mixed
traffic in bulk."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
EPOCH = 1_700_000_000


def checksum(data: bytes) -> int:
    """Internet checksum, RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total) & 0xFFFF


def ip(
    source: str, target: str, protocol: int, payload: bytes, options: bytes = b"", fragment: int = 0
) -> bytes:
    """An IPv4 or IPv6 packet around `payload`; `fragment` is the IPv4 flags-and-offset field."""
    ends = ipaddress.ip_address(source), ipaddress.ip_address(target)
    if ends[0].version == 6:
        return (
            struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
            + ends[0].packed
            + ends[1].packed
            + payload
        )
    length = 20 + len(options)
    head = struct.pack(
        ">BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), 7, fragment, 64, protocol, 0
    )
    head += ends[0].packed + ends[1].packed + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def tcp(
    source: tuple[str, int],
    target: tuple[str, int],
    flags: int,
    sequence: int = 0,
    acknowledged: int = 0,
    payload: bytes = b"",
    window: int = 8192,
) -> bytes:
    """An IP packet with a TCP segment; its checksum is left zero, as on a host that offloads it."""
    ports = struct.pack(">HH", source[1], target[1])
    rest = struct.pack(
        ">IIBBHHH", sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, 0x50, flags, window, 0, 0
    )
    return ip(source[0], target[0], 6, ports + rest + payload)


def udp(source: tuple[str, int], target: tuple[str, int], payload: bytes = b"") -> bytes:
    """An IP packet with a UDP datagram."""
    return ip(
        source[0],
        target[0],
        17,
        struct.pack(">HHHH", source[1], target[1], 8 + len(payload), 0) + payload,
    )


def icmp(source: str, target: str, kind: int, code: int = 0, payload: bytes = b"") -> bytes:
    """An IP packet with an ICMP (or ICMPv6) message."""
    protocol = 58 if ":" in source else 1
    return ip(source, target, protocol, struct.pack(">BBHHH", kind, code, 0, 1, 1) + payload)


def ethernet(packet: bytes, tags: Iterable[tuple[int, int]] = ()) -> bytes:
    """A frame around an IP packet, with VLAN `tags` (ethertype, id) outermost first."""
    kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    middle = b"".join(struct.pack(">HH", *tag) for tag in tags)
    return b"\2\0\0\0\0\1\2\0\0\0\0\2" + middle + struct.pack(">H", kind) + packet


@dataclass(frozen=True)
class Record:
    """A captured packet."""

    time: float
    """seconds after EPOCH"""
    data: bytes
    length: int | None = None
    """bytes on the wire, where fewer were captured"""


def pcap(
    records: Iterable[Record], link: int = 1, order: str = "<", nanoseconds: bool = False
) -> bytes:
    """A pcap file."""
    unit = 1_000_000_000 if nanoseconds else 1_000_000
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, link)]
    for record in records:
        ticks = round((EPOCH + record.time) * 1_000_000) * (unit // 1_000_000)
        length = len(record.data) if record.length is None else record.length
        parts.append(
            struct.pack(order + "IIII", ticks // unit, ticks % unit, len(record.data), length)
            + record.data
        )
    return b"".join(parts)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += b"\0" * (-len(body) % 4)
    length = len(body) + 12
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def section(order: str = "<") -> bytes:
    """A pcapng section header."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int = 1, resolution: int | None = None, order: str = "<") -> bytes:
    """A pcapng interface description; `resolution` is its if_tsresol byte."""
    options = b"" if resolution is None else struct.pack(order + "HHB3xHH", 9, 1, resolution, 0, 0)
    return block(1, struct.pack(order + "HHI", link, 0, 262_144) + options, order)


def enhanced(
    record: Record, number: int = 0, ticks_per_second: int = 1_000_000, order: str = "<"
) -> bytes:
    """A pcapng enhanced packet block of interface `number`."""
    ticks = round((EPOCH + record.time) * 1_000_000) * ticks_per_second // 1_000_000
    length = len(record.data) if record.length is None else record.length
    head = struct.pack(
        order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(record.data), length
    )
    return block(6, head + record.data, order)


def mixed_traffic(
    packets: int, seed: int, per_piece: int = 200_000, lossy: float = 0.0
) -> Iterator[bytes]:
    """A pcap of at least `packets` packets, piece by piece: web, DNS, ICMP, scans; realistic sizes
    and interleaving.

    Of the packets a share `lossy` is missing, and as many come again some packets later.
    """
    yield pcap([])
    random = np.random.default_rng(seed)
    made, clock = 0, EPOCH * 1_000_000
    while made < packets:
        piece, count = _piece(random, clock, per_piece, lossy)
        yield piece
        made += count
        clock += 10_000_000


def syn_flood(
    packets: int, seed: int, per_second: int = 400_000, per_piece: int = 250_000
) -> Iterator[bytes]:
    """A pcap of SYNs from as many random addresses to one port, unanswered."""
    yield pcap([])
    random = np.random.default_rng(seed)
    for first in range(0, packets, per_piece):
        count = min(per_piece, packets - first)
        same = {
            "protocol": 6,
            "target": 0xC6336401,
            "target_port": 80,
            "acknowledged": 0,
            "flags": SYN,
            "length": 0,
        }
        columns = {name: np.full(count, value, dtype=np.int64) for name, value in same.items()}
        columns["source"] = random.integers(0x01000000, 0xDF000000, count)
        columns["source_port"] = random.integers(1024, 65535, count)
        columns["sequence"] = random.integers(0, 1 << 32, count)
        yield _serialise(
            EPOCH * 1_000_000 + (first + np.arange(count)) * 1_000_000 // per_second, columns
        )


def _piece(random: np.random.Generator, clock: int, target: int, lossy: float) -> tuple[bytes, int]:
    """About `target` packets within ten seconds."""
    connections = target // 16
    kind = random.choice(4, size=connections, p=(0.35, 0.4, 0.1, 0.15))
    exchanges = np.minimum(random.geometric(0.06, size=connections), 400)
    per_kind = np.select([kind == 0, kind == 1, kind == 2], [exchanges * 2 + 6, 2, 4], 2)
    owner = np.repeat(np.arange(connections), per_kind)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(per_kind) - per_kind, per_kind)
    begin = clock + random.integers(0, 6_000_000, size=connections)
    gap = random.integers(20, 4_000_000 // np.maximum(per_kind, 1), size=connections)
    time = begin[owner] + step * gap[owner] + random.integers(0, 10, size=len(owner))
    ends = _Ends(random, connections, kind)
    columns = _columns(random, ends, kind, owner, step, per_kind)
    order = np.argsort(time, kind="stable")
    if lossy:
        again = random.choice(len(order), int(lossy * len(order)))
        place = np.concatenate(
            [np.arange(len(order)), again + random.integers(1, 300, len(again)) + 0.5]
        )
        kept = np.flatnonzero(random.random(len(place)) >= lossy)
        order = np.append(order, order[again])[kept[np.argsort(place[kept], kind="stable")]]
        time = np.maximum.accumulate(time[order])
    else:
        time = time[order]
    return _serialise(time, {name: value[order] for name, value in columns.items()}), len(order)


class _Ends:
    """Addresses, ports and first sequence numbers of connections."""

    def __init__(self, random: np.random.Generator, count: int, kind: Int64s) -> None:
        self.client = 0x0A000000 + random.integers(1, 60_000, size=count)
        self.server = 0xC6336400 + random.integers(1, 5_000, size=count)
        self.client_port = random.integers(32_768, 60_999, size=count)
        web = random.choice((80, 443, 8883, 1883, 22), size=count)
        self.server_port = np.select(
            [kind == 0, kind == 1, kind == 2], [web, 53, 0], random.integers(1, 10_000, size=count)
        )
        self.protocol = np.select([kind == 1, kind == 2], [17, 1], 6)
        self.sequence = random.integers(0, 1 << 32, size=(count, 2))


def _columns(
    random: np.random.Generator,
    ends: _Ends,
    kind: Int64s,
    owner: Int64s,
    step: Int64s,
    per_kind: Int64s,
) -> dict[str, Int64s]:
    """Header fields of every packet."""
    total, what = per_kind[owner], kind[owner]
    back = step % 2 == 1
    sizes = np.where(
        back,
        random.choice((0, 1448, 1448, 1448, 600), len(owner)),
        random.choice((0, 0, 80, 400), len(owner)),
    )
    body = (what == 0) & (step > 2) & (step < total - 3)
    length = np.select([body, what == 1, what == 2], [sizes, 40 + back * 80, 56], 0)
    flags = np.select(
        [step == 0, (step == 1) & (what == 0), (step == 1), (what == 0) & (step >= total - 3)],
        [SYN, SYN | ACK, RST | ACK, np.where(step == total - 1, ACK, FIN | ACK)],
        ACK | PSH,
    )
    used = length + (flags & SYN != 0) + (flags & FIN != 0)
    sent = [np.cumsum(np.where(back == side, used, 0)) for side in (0, 1)]
    first = np.cumsum(per_kind) - per_kind
    before = [np.append(0, total_sent)[first][owner] for total_sent in sent]
    isn = ends.sequence[owner]
    own = np.where(
        back, sent[1] - before[1] - used + isn[:, 1], sent[0] - before[0] - used + isn[:, 0]
    )
    other = np.where(back, sent[0] - before[0] + isn[:, 0], sent[1] - before[1] + isn[:, 1])
    client, server = ends.client[owner], ends.server[owner]
    ports = ends.client_port[owner], ends.server_port[owner]
    return {
        "protocol": ends.protocol[owner],
        "source": np.where(back, server, client),
        "target": np.where(back, client, server),
        "source_port": np.where(
            what == 2, np.where(back, 0, 0x0800), np.where(back, ports[1], ports[0])
        ),
        "target_port": np.where(what == 2, 0, np.where(back, ports[0], ports[1])),
        "sequence": own & 0xFFFFFFFF,
        "acknowledged": np.where(step == 0, 0, other) & 0xFFFFFFFF,
        "flags": flags,
        "length": length,
    }


def _serialise(time: Int64s, column: dict[str, Int64s]) -> bytes:
    """Records with Ethernet, IPv4 and transport headers; payloads are zeros."""
    is_tcp = column["protocol"] == 6
    header = np.where(is_tcp, 20, 8)
    captured = 14 + 20 + header + column["length"]
    start = np.cumsum(captured + 16) - (captured + 16)
    head = np.zeros((len(time), 16 + 14 + 20 + 20), dtype=np.uint8)
    for at, value in ((0, time // 1_000_000), (4, time % 1_000_000), (8, captured), (12, captured)):
        _put(head, at, value, "<u4")
    _put(head, 28, np.full(len(time), 0x0800), ">u2")
    _put(head, 30, np.full(len(time), 0x4500), ">u2")
    _put(head, 32, captured - 14, ">u2")
    head[:, 38], head[:, 39] = 64, column["protocol"]
    for at, name, kind in (
        (42, "source", ">u4"),
        (46, "target", ">u4"),
        (50, "source_port", ">u2"),
        (52, "target_port", ">u2"),
    ):
        _put(head, at, column[name], kind)
    udp_length = np.where(column["protocol"] == 17, (column["length"] + 8) << 16, 0)
    _put(head, 54, np.where(is_tcp, column["sequence"], udp_length), ">u4")
    _put(head, 58, np.where(is_tcp, column["acknowledged"], 0), ">u4")
    _put(head, 62, np.where(is_tcp, 0x5000 | column["flags"], 0), ">u2")
    _put(head, 64, np.where(is_tcp, 8192, 0), ">u2")
    data = np.zeros(int((captured + 16).sum()) + 64, dtype=np.uint8)
    for width, rows in ((70, is_tcp), (58, ~is_tcp)):
        data[start[rows][:, None] + np.arange(width)] = head[rows, :width]
    return data[:-64].tobytes()


def _put(head: Bytes, at: int, values: Int64s, kind: str) -> None:
    width = np.dtype(kind).itemsize
    head[:, at : at + width] = values.astype(kind).view(np.uint8).reshape(-1, width)
