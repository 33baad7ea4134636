"""Captures → uniflows: sixteen numbers for each direction of every TCP and UDP connection
(schema.uniflow).
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import polars as pl

from ids_plugin.flowmeter.flow_frame import address_texts
from ids_plugin.flowmeter.packets.capture_files import chunks
from ids_plugin.flowmeter.packets.decoder import Decoder
from ids_plugin.flowmeter.packets.packet_columns import TCP, UDP, Packets
from ids_plugin.schema import uniflow

_PSH, _RST, _URG = 8, 4, 32
_DIRECTION_COLUMNS = ["src_high", "src_low", "dst_high", "dst_low", "prt_src", "prt_dst", "proto"]


def read(stream: BinaryIO) -> pl.DataFrame:
    """The uniflows of a capture (pcap, pcapng), in the order of their first packets:
    schema.uniflow.SCHEMA.

    A uniflow is the packets with the same addresses, ports and protocol, one direction alone, until
    a silence of more than IDLE. Times go by the order of packets in the capture; a clock set back
    counts as no time. Needs about 100 bytes of memory a packet.

    Raises:
        InputError: it isn't a capture.
    """
    decoder = Decoder()
    packets = [_packet_columns(decoder.decode(chunk)) for chunk in chunks(stream)]
    if not packets:
        return uniflow.SCHEMA.to_frame()
    return _features(_split_at_silences(pl.concat(packets)))


def _packet_columns(packets: Packets) -> pl.DataFrame:
    """Its TCP and UDP packets."""
    is_measured = np.isin(packets.protocol, (TCP, UDP)) & ~packets.has_bad_checksum
    flags = np.where(packets.protocol == TCP, packets.flags, 0)
    columns = {
        "time": packets.time,
        "src_high": packets.source[0], "src_low": packets.source[1],
        "dst_high": packets.destination[0], "dst_low": packets.destination[1],
        "prt_src": packets.source_port, "prt_dst": packets.destination_port, "proto":
        packets.protocol, "length": packets.ip_bytes, "psh": flags & _PSH != 0, "rst": flags & _RST
        != 0, "urg": flags & _URG != 0,
    }  # fmt: skip
    return pl.DataFrame({name: values[is_measured] for name, values in columns.items()})


def _split_at_silences(packets: pl.DataFrame) -> pl.DataFrame:
    """With `iat` (µs since the packet before; null for a uniflow's first) and `number`, which of
    its way's it is.
    """
    gap = (pl.col("time") - pl.col("time").shift(1)).over(_DIRECTION_COLUMNS).clip(lower_bound=0)
    is_after_silence = gap > uniflow.IDLE
    return packets.with_columns(
        iat=pl.when(is_after_silence).then(None).otherwise(gap),
        number=is_after_silence.fill_null(value=False).cum_sum().over(_DIRECTION_COLUMNS),
    )


def _features(packets: pl.DataFrame) -> pl.DataFrame:
    def whole(value: pl.Expr) -> pl.Expr:
        return (value.fill_null(0) + 0.5).floor().cast(pl.Int64)

    uniflows = packets.group_by([*_DIRECTION_COLUMNS, "number"], maintain_order=True).agg(
        pl.col("time").first(),
        num_pkts=pl.len().cast(pl.Int64),
        mean_iat=whole(pl.col("iat").mean()),
        std_iat=whole(pl.col("iat").std(ddof=0)),
        min_iat=pl.col("iat").min().fill_null(0),
        max_iat=pl.col("iat").max().fill_null(0),
        mean_pkt_len=whole(pl.col("length").mean()),
        std_pkt_len=whole(pl.col("length").std(ddof=0)),
        min_pkt_len=pl.col("length").min(),
        max_pkt_len=pl.col("length").max(),
        num_bytes=pl.col("length").sum(),
        num_psh_flags=pl.col("psh").sum().cast(pl.Int64),
        num_rst_flags=pl.col("rst").sum().cast(pl.Int64),
        num_urg_flags=pl.col("urg").sum().cast(pl.Int64),
    )
    ends = {f"ip_{end}": _address_texts(uniflows, end) for end in ("src", "dst")}
    return uniflows.select(
        pl.col("time").cast(pl.Datetime("us", "UTC")).alias("ts"),
        *(series.alias(name) for name, series in ends.items()),
        *(pl.col(name).clip(upper_bound=uniflow.LARGEST) for name in uniflow.FEATURES),
    )


def _address_texts(uniflows: pl.DataFrame, end: str) -> pl.Series:
    high, low = uniflows[f"{end}_high"].to_numpy(), uniflows[f"{end}_low"].to_numpy()
    return pl.Series(f"ip_{end}", address_texts(high, low), dtype=pl.String)
