"""Metered connections → Flow frame: texts of addresses, ids, histories and states made for whole columns."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.schema import flow
from ids_plugin.sources import _meter as meter
from ids_plugin.sources._packets import ICMP, ICMP6, MAPPED, TCP, UDP
from ids_plugin.sources._table import Table, mix

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

BASE62 = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
UID_LENGTH = 18
SPECIAL_IPV4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
    "240.0.0.0/4",
)  # fmt: skip
SPECIAL_IPV6 = (
    "::/127", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "fc00::/7", "fe80::/10",
    "2002::/24", "2002:a00::/24", "2002:6440::/26", "2002:7f00::/24", "2002:a9fe::/32", "2002:ac10::/28",
    "2002:c000::/40", "2002:c000:200::/40", "2002:c0a8::/32", "2002:c612::/31", "2002:c633:6400::/40",
    "2002:cb00:7100::/40", "2002:f000::/20",
)  # fmt: skip
"""The address blocks IANA keeps off the Internet: what Zeek 8 calls local unless told otherwise."""
LOCAL_IPV4 = tuple((int(net.network_address), int(net.netmask)) for net in map(ipaddress.IPv4Network, SPECIAL_IPV4))
LOCAL_IPV6 = tuple(map(ipaddress.IPv6Network, SPECIAL_IPV6))
PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp"}


def frame(finished: meter.Finished, name: str, sensor: str) -> pl.DataFrame:
    """Finished connections as a Flow frame (schema.flow.SCHEMA), in their order; `name` is the input's."""
    table = finished.table
    if not len(table):
        return flow.empty()
    row = np.arange(len(table))
    originator = table["originator"]
    swapped = originator == 1
    own, other = (row, originator), (row, 1 - originator)
    duration = table["last_time"] - table["first_time"]
    lasted = pl.Series(duration > 0)
    sizes = meter.sizes(table)
    orig, resp = _end(table, swapped), _end(table, ~swapped)
    columns: dict[str, pl.Series] = {
        "ts": pl.Series(table["first_time"]).cast(pl.Datetime("us", "UTC")),
        "uid": _uids(table),
        "orig_h": _texts(*orig),
        "orig_p": pl.Series(np.where(swapped, table["high_port"], table["low_port"])),
        "resp_h": _texts(*resp),
        "resp_p": pl.Series(np.where(swapped, table["low_port"], table["high_port"])),
        "proto": _protocols(table["protocol"]),
        "service": _chosen(*meter.named_services(table)),
        "duration": _where(lasted, duration),
        "orig_bytes": _where(lasted, sizes[own]),
        "resp_bytes": _where(lasted, sizes[other]),
        "conn_state": _chosen(meter.STATES, meter.conn_states(finished, sizes)),
        "local_orig": pl.Series(_local(*orig)),
        "local_resp": pl.Series(_local(*resp)),
        "missed_bytes": pl.Series(table["missed"]),
        "history": _history(finished),
        "orig_pkts": pl.Series(table["packets"][own]),
        "orig_ip_bytes": pl.Series(table["ip_bytes"][own]),
        "resp_pkts": pl.Series(table["packets"][other]),
        "resp_ip_bytes": pl.Series(table["ip_bytes"][other]),
        "ip_proto": pl.Series(table["protocol"]),
        "origin": f"{name}#packet " + pl.Series(table["first_packet"]).cast(pl.String),
    }
    return _complete(pl.DataFrame(columns), sensor)


def _complete(columns: pl.DataFrame, sensor: str) -> pl.DataFrame:
    """All columns of the schema in its order; what a capture can't know is null."""
    constant = {"sensor": sensor, "source": "capture", "open": False}
    return columns.select(
        pl.col(name).cast(dtype) if name in columns.columns else pl.lit(constant.get(name), dtype=dtype).alias(name)
        for name, dtype in flow.SCHEMA.items()
    )


def _where(known: pl.Series, values: Int64s | pl.Series) -> pl.Series:
    """Values, null where not known."""
    return pl.select(pl.when(known).then(pl.Series(values))).to_series()


def _end(table: Table, swapped: Bools) -> tuple[UInt64s, UInt64s]:
    """Addresses in halves: of the lower end, of the higher where swapped."""
    high = np.where(swapped, table.address("high_high"), table.address("low_high"))
    return high, np.where(swapped, table.address("high_low"), table.address("low_low"))


def _protocols(number: Int64s) -> pl.Series:
    names = ["unknown_transport"] * 256
    for known, name in PROTOCOLS.items():
        names[known] = name
    return _chosen(names, number)


def _chosen(names: Sequence[str | None], index: Int64s) -> pl.Series:
    """The name of each index."""
    return pl.Series(names, dtype=pl.String).gather(index)


def _history(finished: meter.Finished) -> pl.Series:
    """Histories as text, null where there are no letters."""
    text = texts_of(finished.letters, finished.ends)
    return _where(pl.Series(np.diff(finished.ends) > 0), text)


def _is_ipv4(high: UInt64s, low: UInt64s) -> Bools:
    is_ipv4: Bools = (high == 0) & (low >> np.uint64(32) == MAPPED >> np.uint64(32))
    return is_ipv4


def _texts(high: UInt64s, low: UInt64s) -> pl.Series:
    """Canonical text of addresses."""
    octets = low.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 4:]
    dotted = pl.select(pl.concat_str([pl.Series(octets[:, i]) for i in range(4)], separator=".")).to_series()
    six = np.flatnonzero(~_is_ipv4(high, low))
    if not len(six):
        return dotted
    pairs = list(zip(high[six].tolist(), low[six].tolist(), strict=True))
    known = {pair: str(ipaddress.IPv6Address(pair[0] << 64 | pair[1])) for pair in set(pairs)}
    return dotted.scatter(six, [known[pair] for pair in pairs])


def _local(high: UInt64s, low: UInt64s) -> Bools:
    """Whether addresses are of the special blocks."""
    number = (low & np.uint64(0xFFFFFFFF)).astype(np.int64)
    local = np.zeros(len(low), dtype=bool)
    for network, mask in LOCAL_IPV4:
        local |= number & mask == network
    six = np.flatnonzero(~_is_ipv4(high, low))
    for index, pair in zip(six.tolist(), zip(high[six].tolist(), low[six].tolist(), strict=True), strict=True):
        address = ipaddress.IPv6Address(pair[0] << 64 | pair[1])
        local[index] = any(address in net for net in LOCAL_IPV6)
    return local


def _uids(table: Table) -> pl.Series:
    """Zeek-shaped ids from the connection and its first packet: the same capture gives the same ones."""
    seed = mix(table.hash ^ table["first_time"].astype(np.uint64)) + table["first_packet"].astype(np.uint64)
    halves = [mix(seed), mix(seed ^ np.uint64(0x9E3779B97F4A7C15))]
    letters = np.full((len(table), UID_LENGTH), ord("C"), dtype=np.uint8)
    for column in range(1, UID_LENGTH):
        half = column % 2
        letters[:, column] = BASE62[halves[half] % np.uint64(62)]
        halves[half] //= np.uint64(62)
    ends = np.arange(len(table) + 1, dtype=np.int64) * UID_LENGTH
    return texts_of(letters.ravel(), ends)


def texts_of(letters: npt.NDArray[np.uint8], ends: Int64s) -> pl.Series:
    """A String column from ASCII letters, text i being letters[ends[i]:ends[i + 1]]."""
    text = letters.tobytes().decode("ascii")
    return pl.Series([text[begin:end] for begin, end in pairwise(ends.tolist())], dtype=pl.String)
