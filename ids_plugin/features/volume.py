"""How much went each way: payload, IP bytes, packets, their ratios and rates, on a log scale."""

from __future__ import annotations

import polars as pl

from ids_plugin.features import Group
from ids_plugin.schema.window import Feature

_SECONDS = pl.col("duration").dt.total_microseconds() / 1e6


def _log(expression: pl.Expr) -> pl.Expr:
    return (expression.cast(pl.Float64) + 1.0).log()


def _share(part: str, other: str) -> pl.Expr:
    total = pl.col(part) + pl.col(other)
    return pl.when(total > 0).then(pl.col(part) / total)


def _per_packet(volume: str, packets: str) -> pl.Expr:
    return _log(pl.when(pl.col(packets) == 0).then(0.0).otherwise(pl.col(volume) / pl.col(packets)))


_TABLE: tuple[tuple[Feature, pl.Expr], ...] = (
    (
        Feature("orig_payload", "log B", "payload sent by the originator"),
        _log(pl.col("orig_bytes")),
    ),
    (Feature("resp_payload", "log B", "payload sent by the responder"), _log(pl.col("resp_bytes"))),
    (
        Feature("orig_volume", "log B", "bytes sent by the originator"),
        _log(pl.col("orig_ip_bytes")),
    ),
    (Feature("resp_volume", "log B", "bytes sent by the responder"), _log(pl.col("resp_ip_bytes"))),
    (
        Feature("orig_packets", "log packets", "packets sent by the originator"),
        _log(pl.col("orig_pkts")),
    ),
    (
        Feature("resp_packets", "log packets", "packets sent by the responder"),
        _log(pl.col("resp_pkts")),
    ),
    (Feature("lasted", "log ms", "duration"), _log((_SECONDS * 1000.0).fill_null(0.0))),
    (
        Feature("orig_bytes_per_packet", "log B", "mean size of the originator's packets"),
        _per_packet("orig_ip_bytes", "orig_pkts"),
    ),
    (
        Feature("resp_bytes_per_packet", "log B", "mean size of the responder's packets"),
        _per_packet("resp_ip_bytes", "resp_pkts"),
    ),
    (
        Feature("upload_share", "0-1", "share of the bytes that the originator sent"),
        _share("orig_ip_bytes", "resp_ip_bytes"),
    ),
    (
        Feature(
            "packet_rate", "log packets/s", "packets a second, of flows of two packets or more"
        ),
        _log(
            pl.when((pl.col("orig_pkts") + pl.col("resp_pkts")) < 2)
            .then(0.0)
            .otherwise(
                (pl.col("orig_pkts") + pl.col("resp_pkts")) / (_SECONDS.fill_null(0.0) + 0.01)
            )
        ),
    ),
)

PLUGIN = Group(
    tuple(feature for feature, _ in _TABLE), tuple(expression for _, expression in _TABLE)
)
