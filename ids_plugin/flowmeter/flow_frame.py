"""Metered connections → Flow frame: texts of addresses, ids, histories and states made for whole
columns.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ids_plugin.flowmeter import conn_log_columns, meter
from ids_plugin.flowmeter.connection_table import Table, mix
from ids_plugin.flowmeter.packets.packet_columns import ICMP, ICMP6, MAPPED, TCP, UDP
from ids_plugin.flowmeter.tunnel_parents import uid_seeds
from ids_plugin.schema import flow
from ids_plugin.schema.community_id import SCTP, community_ids

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

BASE62 = np.frombuffer(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", dtype=np.uint8
)
UID_LETTERS = 18
SPECIAL_IPV4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
SPECIAL_IPV6 = (
    "::/127", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "fc00::/7", "fe80::/10",
    "2002::/24", "2002:a00::/24", "2002:6440::/26", "2002:7f00::/24", "2002:a9fe::/32",
    "2002:ac10::/28", "2002:c000::/40", "2002:c000:200::/40", "2002:c0a8::/32", "2002:c612::/31",
    "2002:c633:6400::/40", "2002:cb00:7100::/40", "2002:f000::/20",
)  # fmt: skip
"""The address blocks IANA keeps off the Internet: what Zeek 8 calls local unless told otherwise."""
LOCAL_IPV4 = tuple(
    (int(net.network_address), int(net.netmask)) for net in map(ipaddress.IPv4Network, SPECIAL_IPV4)
)
LOCAL_IPV6 = tuple(map(ipaddress.IPv6Network, SPECIAL_IPV6))
PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp"}
PROTOCOL_NAMES = [PROTOCOLS.get(number, "unknown_transport") for number in range(256)]
OCTET_LETTERS = np.array(
    [list(f"{octet}.".ljust(4, "\0").encode()) for octet in range(256)], dtype=np.uint8
)
"""(256, 4) letters of each octet and a dot, zeros behind."""
MAX_ADDRESS_LETTERS = 39


def flow_frame(
    finished: meter.EndedConnections,
    name: str,
    sensor: str,
    *,
    still_open: bool = False,
    community: bool = False,
) -> pl.DataFrame:
    """Connections as a Flow frame (schema.flow.SCHEMA), in their order; `name` is the input's.

    They have ended unless `still_open`; Community IDs are made only if asked for.
    """
    table = finished.table
    if not len(table):
        return flow.empty()
    row = np.arange(len(table))
    originator = table["originator"]
    swapped = originator == 1
    own, other = (row, originator), (row, 1 - originator)
    duration = table["last_time"] - table["first_time"]
    lasted = duration > 0
    payload_sizes = conn_log_columns.payload_sizes(table)
    orig, resp = _endpoint(table, swapped), _endpoint(table, ~swapped)
    columns = {
        "ts": _number_column(table["first_time"], pa.timestamp("us", "UTC")),
        "uid": _uid_column(uid_seeds(table)),
        "orig_h": address_texts(*orig),
        "orig_p": _number_column(
            np.where(swapped, table["high_port"], table["low_port"]), pa.uint16()
        ),
        "resp_h": address_texts(*resp),
        "resp_p": _number_column(
            np.where(swapped, table["low_port"], table["high_port"]), pa.uint16()
        ),
        "proto": _name_column(PROTOCOL_NAMES, table["protocol"]),
        "service": _name_column(*conn_log_columns.named_services(table)),
        "duration": _number_column(duration, pa.duration("us"), lasted),
        "orig_bytes": _number_column(payload_sizes[own], pa.int64(), lasted),
        "resp_bytes": _number_column(payload_sizes[other], pa.int64(), lasted),
        "conn_state": _name_column(
            conn_log_columns.CONN_STATES, conn_log_columns.conn_states(finished, payload_sizes)
        ),
        "sensor_local_orig": _bool_column(_is_special(*orig)),
        "sensor_local_resp": _bool_column(_is_special(*resp)),
        "missed_bytes": _number_column(table["missed_bytes"], pa.int64()),
        "history": _history_column(finished),
        "orig_pkts": _number_column(table["packets"][own], pa.int64()),
        "orig_ip_bytes": _number_column(table["ip_bytes"][own], pa.int64()),
        "resp_pkts": _number_column(table["packets"][other], pa.int64()),
        "resp_ip_bytes": _number_column(table["ip_bytes"][other], pa.int64()),
        "tunnel_parents": _parent_column(finished),
        "ip_proto": _number_column(table["protocol"], pa.uint8()),
        "origin": _origin_column(name, table["first_packet"]),
    }
    if community:
        columns["community_id"] = _community_ids(table)
    return _all_columns(columns, sensor, still_open)


def _community_ids(table: Table) -> pa.Array:
    """Community IDs of a table's connections; null for SCTP, whose ports aren't known.

    The table has its ends in the order that the specification asks for, ICMP's type and
    counterpart as ports.
    """
    low_high, low_low, high_high, high_low = (
        table.address(name) for name in ("low_high", "low_low", "high_high", "high_low")
    )
    is_ipv4 = (low_high == 0) & (low_low >> np.uint64(32) == MAPPED >> np.uint64(32))
    protocol = table["protocol"].astype(np.uint8)
    ports = _big_endian(np.stack([table["low_port"], table["high_port"]], axis=1), ">u2")
    low = _big_endian(np.stack([low_high, low_low], axis=1), ">u8")
    high = _big_endian(np.stack([high_high, high_low], axis=1), ">u8")
    ids = pl.Series(community_ids(low, high, protocol, ports, is_ipv4), dtype=pl.String)
    has_id = pl.Series(protocol != SCTP)
    return ids.set(~has_id, None).to_arrow()


def _big_endian(values: npt.NDArray[Any], dtype: str) -> Bytes:
    """(n, bytes of a row) the rows of an array in the byte order of the network."""
    return values.astype(dtype).view(np.uint8).reshape(len(values), -1)


def _all_columns(columns: dict[str, pa.Array], sensor: str, still_open: bool) -> pl.DataFrame:
    """All columns of the schema in its order; what a capture can't know is null."""
    rows = len(columns["ts"])
    constant = {"sensor": sensor, "source": "capture"}
    whole = columns | {name: _constant(text, rows) for name, text in constant.items()}
    whole["open"] = _bool_column(np.full(rows, still_open))
    kinds = {pl.Boolean(): pa.bool_(), pl.String(): pa.large_string()}
    whole |= {
        name: pa.nulls(rows, kinds[dtype])
        for name, dtype in flow.CONN_SCHEMA.items()
        if name not in whole
    }
    arrow = pa.table({name: whole[name] for name in flow.CONN_SCHEMA})
    return flow.with_facts(cast(pl.DataFrame, pl.from_arrow(arrow)))


def _constant(text: str, rows: int) -> pa.Array:
    return pl.Series([text], dtype=pl.String).new_from_index(0, rows).to_arrow()


def _endpoint(table: Table, swapped: Bools) -> tuple[UInt64s, UInt64s]:
    """Addresses in halves: of the lower end, of the higher where swapped."""
    high = np.where(swapped, table.address("high_high"), table.address("low_high"))
    return high, np.where(swapped, table.address("high_low"), table.address("low_low"))


def _number_column(
    values: npt.NDArray[Any], kind: pa.DataType, known: Bools | None = None
) -> pa.Array:
    """A column of numbers, null where not `known`; `pa.array` would load pandas where it is
    installed.
    """
    as_they_lie = np.ascontiguousarray(
        values, dtype=f"{'u' * (kind.bit_width < 64)}int{kind.bit_width}"
    )
    return pa.Array.from_buffers(kind, len(values), [_bitmap(known), pa.py_buffer(as_they_lie)])


def _bool_column(values: Bools) -> pa.Array:
    """A column of truth values."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bitmap(values)])


def _bitmap(values: Bools | None) -> pa.Buffer | None:
    return None if values is None else pa.py_buffer(np.packbits(values, bitorder="little"))


def _name_column(names: Sequence[str | None], index: Int64s) -> pa.Array:
    """The name of each index."""
    return _text_column(
        _letter_matrix(names)[index], np.array([name is not None for name in names])[index]
    )


def _letter_matrix(names: Sequence[str | None]) -> Bytes:
    """(n, longest) ASCII letters of names, zeros behind each."""
    return (
        np.array([name or "" for name in names], dtype="S").view(np.uint8).reshape(len(names), -1)
    )


def _history_column(finished: meter.EndedConnections) -> pa.Array:
    """Histories as text, null where there are no letters."""
    return text_column(
        finished.history_letters, finished.history_ends, np.diff(finished.history_ends) > 0
    )


def _origin_column(name: str, packet: Int64s) -> pa.Array:
    """Where the first packets stand."""
    return (f"{name}#packet " + pl.Series(packet).cast(pl.String)).to_arrow()


def _is_ipv4(high: UInt64s, low: UInt64s) -> Bools:
    is_ipv4: Bools = (high == 0) & (low >> np.uint64(32) == MAPPED >> np.uint64(32))
    return is_ipv4


def address_texts(high: UInt64s, low: UInt64s) -> pa.Array:
    """Canonical text of addresses."""
    octets = low.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 4:]
    letters = OCTET_LETTERS[octets]
    letters[:, 3] *= letters[:, 3] != ord(".")
    letters = letters.reshape(-1, 16)
    six = np.flatnonzero(~_is_ipv4(high, low))
    if not len(six):
        return _text_column(letters)
    letters = np.pad(letters, ((0, 0), (0, MAX_ADDRESS_LETTERS - 16)))
    pairs, which = np.unique(np.stack([high[six], low[six]]), axis=1, return_inverse=True)
    names = [str(ipaddress.IPv6Address(pair[0] << 64 | pair[1])) for pair in pairs.T.tolist()]
    letters[six] = _letter_matrix([name.ljust(MAX_ADDRESS_LETTERS, "\0") for name in names])[which]
    return _text_column(letters)


def _is_special(high: UInt64s, low: UInt64s) -> Bools:
    """Whether addresses are of the special blocks."""
    number = (low & np.uint64(0xFFFFFFFF)).astype(np.int64)
    local = np.zeros(len(low), dtype=bool)
    for network, mask in LOCAL_IPV4:
        local |= number & mask == network
    six = np.flatnonzero(~_is_ipv4(high, low))
    for index, pair in zip(
        six.tolist(), zip(high[six].tolist(), low[six].tolist(), strict=True), strict=True
    ):
        address = ipaddress.IPv6Address(pair[0] << 64 | pair[1])
        local[index] = any(address in net for net in LOCAL_IPV6)
    return local


def _parent_column(finished: meter.EndedConnections) -> pa.Array:
    """Uids of the tunnels that connections came through, null where there was none."""
    seed = finished.table["tunnel_parent"].view(np.uint64)
    if not seed.any():
        return pa.nulls(len(seed), pa.large_string())
    named = _uid_column(seed, seed != 0)
    texts = named.to_pylist()
    further = [each for others in finished.parents.values() for each in others]
    uids = iter(_uid_column(np.array(further, dtype=np.int64).view(np.uint64)).to_pylist())
    for row, others in finished.parents.items():
        texts[row] = ",".join([texts[row], *islice(uids, len(others))])
    return pl.Series(texts, dtype=pl.String).to_arrow()


def _uid_column(seed: UInt64s, known: Bools | None = None) -> pa.Array:
    """Zeek-shaped ids from seeds: the same ones give the same ids; null where not `known`."""
    halves = [mix(seed), mix(seed ^ np.uint64(0x9E3779B97F4A7C15))]
    letters = np.full((len(seed), UID_LETTERS), ord("C"), dtype=np.uint8)
    for column in range(1, UID_LETTERS):
        half = column % 2
        halves[half], digit = np.divmod(halves[half], np.uint64(62))
        letters[:, column] = BASE62[digit]
    ends = np.arange(len(seed) + 1, dtype=np.int64) * UID_LETTERS
    return text_column(letters, ends, known)


def _text_column(letters: Bytes, known: Bools | None = None) -> pa.Array:
    """A column from (n, width) letters, zeros behind each text; null where not `known`."""
    is_letter = letters != 0
    return text_column(letters[is_letter], np.append(0, np.cumsum(is_letter.sum(axis=1))), known)


def text_column(letters: Bytes, ends: Int64s, known: Bools | None = None) -> pa.Array:
    """A column from ASCII letters, text i being letters[ends[i]:ends[i + 1]]; null where not
    `known`.
    """
    parts = pa.py_buffer(np.ascontiguousarray(ends)), pa.py_buffer(np.ascontiguousarray(letters))
    return pa.LargeStringArray.from_buffers(len(ends) - 1, *parts, _bitmap(known))
