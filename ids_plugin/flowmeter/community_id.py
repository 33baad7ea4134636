"""Community ID v1 of metered connections: https://github.com/corelight/community-id-spec (seed 0)."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import polars as pl
import pyarrow as pa

from ids_plugin.flowmeter.connection_table import Table
from ids_plugin.flowmeter.packets.decoder import ICMP, ICMP6, MAPPED, TCP, UDP
from ids_plugin.flowmeter.packets.headers import Bytes, UInt64s

SCTP = 132


def community_ids(table: Table) -> pa.Array:
    """Community IDs of a table's connections; null for SCTP, whose ports aren't known.

    The table has its ends in the order that the specification asks for, ICMP's type and counterpart as ports.
    """
    halves = [table.address(name) for name in ("low_high", "low_low", "high_high", "high_low")]
    four = (halves[0] == 0) & (halves[1] >> np.uint64(32) == MAPPED >> np.uint64(32))
    low, high = (_bytes(np.stack([halves[at], halves[at + 1]], axis=1)) for at in (0, 2))
    protocol = table["protocol"].astype(np.uint8)
    ports = (
        np.stack([table["low_port"], table["high_port"]], axis=1)
        .astype(">u2")
        .view(np.uint8)
        .reshape(-1, 4)
    )
    middle = np.stack([protocol, np.zeros_like(protocol)], axis=1)
    ported = np.isin(protocol, (TCP, UDP, ICMP, ICMP6))
    found = np.full(len(table), None, dtype=object)
    for short in (True, False):
        begin = 12 if short else 0
        seed = np.zeros((len(table), 2), dtype=np.uint8)
        rows = np.concatenate([seed, low[:, begin:], high[:, begin:], middle, ports], axis=1)
        for with_ports, width in ((True, rows.shape[1]), (False, rows.shape[1] - 4)):
            which = np.flatnonzero((four == short) & (ported == with_ports) & (protocol != SCTP))
            found[which] = _digests(rows[which, :width])
    return pl.Series(found.tolist(), dtype=pl.String).to_arrow()


def _bytes(values: UInt64s) -> Bytes:
    return values.astype(">u8").view(np.uint8).reshape(len(values), -1)


def _digests(rows: Bytes) -> list[str]:
    text, width = rows.tobytes(), rows.shape[1]
    parts = (text[at : at + width] for at in range(0, len(text), width))
    return [
        "1:" + base64.b64encode(hashlib.sha1(part, usedforsecurity=False).digest()).decode()
        for part in parts
    ]
