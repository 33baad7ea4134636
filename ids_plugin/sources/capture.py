"""Captures (pcap, pcapng) → connections as Zeek would have logged them, without Zeek.

`meter=zeek` or `meter=suricata` among the options runs the real program instead and reads what it wrote.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.errors import InputError
from ids_plugin.schema import flow
from ids_plugin.sources import Input, Read, Reject
from ids_plugin.sources import _meter as meter
from ids_plugin.sources._packets import ICMP, ICMP6, TCP, UDP, Packets, decode
from ids_plugin.sources._pcap import CHUNK, PCAP_MAGICS, PCAPNG_MAGIC, Chunk, Damage, chunks

Int64s = npt.NDArray[np.int64]

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
UID_DIGITS = 17
SPECIAL_IPV4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
SPECIAL_IPV6 = (
    "::/127", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "fc00::/7", "fe80::/10",
    "2002::/24", "2002:a00::/24", "2002:6440::/26", "2002:7f00::/24", "2002:a9fe::/32", "2002:ac10::/28", "2002:c000::/40",
    "2002:c000:200::/40", "2002:c0a8::/32", "2002:c612::/31", "2002:c633:6400::/40", "2002:cb00:7100::/40", "2002:f000::/20",
)  # fmt: skip
LOCAL_NETS = tuple(map(ipaddress.ip_network, SPECIAL_IPV4 + SPECIAL_IPV6))
"""The address blocks IANA keeps off the Internet: what Zeek 8 calls local unless told otherwise."""
PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp"}


class Capture:
    """Reads captures in pieces of `chunk_bytes`; the flows don't depend on it."""

    name = "capture"

    def __init__(self, chunk_bytes: int = CHUNK) -> None:
        self.chunk_bytes = chunk_bytes

    def sniff(self, head: bytes) -> float:
        return 1.0 if head[:4] in PCAP_MAGICS or head[:4] == PCAPNG_MAGIC else 0.0

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """Reads to the end, giving connections out as they end; `batch_rows` is an upper bound on none of it.

        Raises:
            InputError: it isn't a capture.
        """
        measured = meter.Meter()
        try:
            pieces = chunks(source.stream, self.chunk_bytes)
        except InputError as error:
            raise InputError(error.message, location=source.name, hint=error.hint) from None
        addresses = _Addresses()
        for chunk in pieces:
            packets = decode(chunk)
            finished = measured.add(packets)
            yield _step(source, addresses, finished, _rejects(source, chunk, packets), _notes(chunk, packets))
        yield _step(source, addresses, measured.finish(), (), {})


def _step(
    source: Input, addresses: _Addresses, finished: meter.Finished, rejects: tuple[Reject, ...], notes: dict[str, int]
) -> Read:
    flows = _frame(source, addresses, finished)
    return Read(flows=flows, read=len(flows) + len(rejects), rejects=rejects, notes=notes)


def _rejects(source: Input, chunk: Chunk, packets: Packets) -> tuple[Reject, ...]:
    """Damage of the file and packets that contradict themselves, in the order of the capture."""
    bad = [Damage(bad.number, bad.reason, "its headers say otherwise", bad.data) for bad in packets.bad]
    found = sorted([*chunk.damage, *bad], key=lambda damage: damage.packet)
    return tuple(
        Reject(source.name, f"packet {damage.packet}", damage.reason, damage.detail, damage.data.hex()[:200])
        for damage in found
    )


def _notes(chunk: Chunk, packets: Packets) -> dict[str, int]:
    notes = Counter({"packets": len(chunk.offset)})
    notes.update({f"unhandled_{kind}": count for kind, count in packets.unhandled.items()})
    notes.update({f"skipped_{kind}": count for kind, count in chunk.skipped.items()})
    return dict(notes)


class _Addresses:
    """Text of addresses and whether they are local, each worked out once while it is remembered."""

    LIMIT = 1 << 18

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], tuple[str, bool]] = {}

    def of(self, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> tuple[list[str], list[bool]]:
        """Text and localness of n addresses."""
        if len(self.known) > self.LIMIT:
            self.known.clear()
        known, found = self.known, []
        for address in zip(high.tolist(), low.tolist(), strict=True):
            entry = known.get(address)
            if entry is None:
                entry = known[address] = _describe(*address)
            found.append(entry)
        return [text for text, _ in found], [local for _, local in found]


def _describe(high: int, low: int) -> tuple[str, bool]:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    if high == 0 and low >> 32 == 0xFFFF:
        address = ipaddress.IPv4Address(low & 0xFFFFFFFF)
    else:
        address = ipaddress.IPv6Address(high << 64 | low)
    return str(address), any(address in net for net in LOCAL_NETS if net.version == address.version)


def _frame(source: Input, addresses: _Addresses, finished: meter.Finished) -> pl.DataFrame:
    """Finished connections as a Flow frame."""
    table = finished.table
    count = len(table)
    if not count:
        return flow.empty()
    row = np.arange(count)
    originator = table["originator"]
    responder = 1 - originator
    swapped = originator == 1
    ends = []
    for first, second in (("low", "high"), ("high", "low")):
        high = np.where(swapped, table.address[f"{second}_high"], table.address[f"{first}_high"])
        low = np.where(swapped, table.address[f"{second}_low"], table.address[f"{first}_low"])
        ends.append(addresses.of(high, low))
    ports = table["low_port"], table["high_port"]
    protocol = table["protocol"]
    duration = table["last_time"] - table["first_time"]
    lasted = duration > 0
    sizes = meter.sizes(table)
    columns: dict[str, Any] = {
        "ts": table["first_time"],
        "orig_h": ends[0][0],
        "orig_p": np.where(swapped, ports[1], ports[0]),
        "resp_h": ends[1][0],
        "resp_p": np.where(swapped, ports[0], ports[1]),
        "proto": [PROTOCOLS.get(number, "unknown_transport") for number in protocol.tolist()],
        "service": pl.Series(meter.named_services(table), dtype=pl.String),
        "duration": _null(duration, lasted),
        "orig_bytes": _null(sizes[row, originator], lasted),
        "resp_bytes": _null(sizes[row, responder], lasted),
        "conn_state": meter.conn_states(table, finished.history, sizes),
        "local_orig": ends[0][1],
        "local_resp": ends[1][1],
        "missed_bytes": table["missed"],
        "history": [text or None for text in finished.history],
        "orig_pkts": table["packets"][row, originator],
        "orig_ip_bytes": table["ip_bytes"][row, originator],
        "resp_pkts": table["packets"][row, responder],
        "resp_ip_bytes": table["ip_bytes"][row, responder],
        "ip_proto": protocol,
        "uid": _uids(table),
        "origin": [f"{source.name}#packet {number}" for number in table["first_packet"].tolist()],
    }
    frame = pl.DataFrame(columns)
    return _complete(frame, source)


def _complete(frame: pl.DataFrame, source: Input) -> pl.DataFrame:
    constant = {"sensor": source.sensor, "source": "capture", "open": False}
    columns = []
    for name, dtype in flow.SCHEMA.items():
        if name in frame.columns:
            expression = pl.col(name)
            if isinstance(dtype, pl.Datetime):
                expression = expression.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
            columns.append(expression.cast(dtype))
        else:
            columns.append(pl.lit(constant.get(name), dtype=dtype).alias(name))
    return frame.select(columns)


def _null(values: Int64s, known: npt.NDArray[np.bool_]) -> pl.Series:
    series = pl.Series(values)
    return series.zip_with(pl.Series(known), pl.Series([None], dtype=series.dtype).new_from_index(0, len(series)))


def _uids(table: meter.Table) -> list[str]:
    """Zeek-shaped ids from the connection and its first packet: the same capture gives the same ones."""
    packed = np.column_stack([table.hash, table["first_time"].astype(np.uint64), table["first_packet"].astype(np.uint64)])
    data = np.ascontiguousarray(packed).tobytes()
    return [_uid(hashlib.blake2b(data[at : at + 24], digest_size=13).digest()) for at in range(0, len(data), 24)]


def _uid(digest: bytes) -> str:
    number, letters = int.from_bytes(digest, "big"), []
    for _ in range(UID_DIGITS):
        number, digit = divmod(number, 62)
        letters.append(BASE62[digit])
    return "C" + "".join(letters)


PLUGIN = Capture()
