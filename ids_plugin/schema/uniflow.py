"""A uniflow: the packets of one direction of a connection, in sixteen numbers; what `tiny_cnn`
classifies.

The numbers are those of MQTT-IoT-IDS2020's uniflow files (Hindy et al. 2020,
https://doi.org/10.21227/bhxy-ep04), in whole units that a microcontroller counts in: bytes and
microseconds.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import polars as pl


class Column(NamedTuple):
    """One number of a uniflow."""

    name: str
    unit: str
    text: str


COLUMNS = (
    Column("prt_src", "port", "port that the packets come from"),
    Column("prt_dst", "port", "port that they go to"),
    Column("proto", "IP protocol number", "6 for TCP, 17 for UDP"),
    Column("num_pkts", "packets", "packets"),
    Column("mean_iat", "µs", "mean time between one packet and the next; 0 where there is one"),
    Column("std_iat", "µs", "population standard deviation of these times; 0 where there is one"),
    Column("min_iat", "µs", "shortest of these times; 0 where there is none"),
    Column("max_iat", "µs", "longest of these times; 0 where there is none"),
    Column("mean_pkt_len", "bytes", "mean length of the packets, IP header included"),
    Column("std_pkt_len", "bytes", "population standard deviation of the lengths"),
    Column("min_pkt_len", "bytes", "shortest packet"),
    Column("max_pkt_len", "bytes", "longest packet"),
    Column("num_bytes", "bytes", "sum of the lengths"),
    Column("num_psh_flags", "packets", "TCP packets with the PSH flag"),
    Column("num_rst_flags", "packets", "TCP packets with the RST flag"),
    Column("num_urg_flags", "packets", "TCP packets with the URG flag"),
)
"""In order.

Means and deviations are rounded to whole units, halves up; no number is over LARGEST.
"""
FEATURES = tuple(column.name for column in COLUMNS)
LARGEST = 2**32 - 2
CLASSES = ("normal", "aggressive_scan", "udp_scan", "ssh_brute_force", "mqtt_brute_force")
"""The five classes of the published system, in order."""
IDLE = 60_000_000
"""µs of silence in a direction behind which a new uniflow begins."""
_TYPES: dict[str, pl.DataType] = {
    "ts": pl.Datetime("us", "UTC"),
    "ip_src": pl.String(),
    "ip_dst": pl.String(),
}
SCHEMA = pl.Schema({**_TYPES, **dict.fromkeys(FEATURES, pl.Int64())})
"""What a source gives: when the first packet came, both addresses, the sixteen numbers."""


def fingerprint() -> str:
    """SHA-256 (hex) over names, units and order of the sixteen: ties a bundle to the code that
    computes them."""
    return hashlib.sha256(json.dumps([column[:2] for column in COLUMNS]).encode()).hexdigest()


def describe() -> dict[str, Any]:
    """What a manifest says of uniflows: fingerprint, and the sixteen in order with their units;
    none has a window."""
    return {
        "fingerprint": fingerprint(),
        "earlier": 0,
        "uniflow": [list(column[:2]) for column in COLUMNS],
    }
