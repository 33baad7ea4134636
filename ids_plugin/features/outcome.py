"""How the connection went: transport and a coarse group of Zeek's connection state.

Exact history and state are left out on purpose: they tell data sets apart, not attacks.
"""

from __future__ import annotations

import polars as pl

from ids_plugin.features import Group
from ids_plugin.schema.addresses import may_be_group_address
from ids_plugin.schema.window import Feature

UNANSWERED_STATES = ("S0", "SH")
REFUSED_STATES = ("REJ", "RSTOS0", "RSTRH", "SHR")
COMPLETED_STATES = ("SF", "S1", "S2", "S3", "RSTO", "RSTR")

_TCP = pl.col("proto") == "tcp"
_UDP = pl.col("proto") == "udp"
_ICMP = pl.col("proto") == "icmp"
_GROUP_ADDRESS = may_be_group_address("resp_h")
_ECHO = _ICMP & pl.col("orig_p").is_in([8, 128]).fill_null(value=False)
_HEARD = pl.coalesce("resp_pkts", "resp_ip_bytes", "resp_bytes")
_NO_ANSWER = (_HEARD == 0).fill_null(value=False) & ~_GROUP_ADDRESS
_CLOSED = ~pl.col("open").fill_null(value=False)

UNANSWERED = _CLOSED & (
    (_TCP & pl.col("conn_state").is_in(UNANSWERED_STATES).fill_null(value=False))
    | ((_UDP | _ECHO) & _NO_ANSWER)
)
REFUSED = _CLOSED & _TCP & pl.col("conn_state").is_in(REFUSED_STATES).fill_null(value=False)
COMPLETED = pl.col("conn_state").is_in(COMPLETED_STATES).fill_null(value=False) & ~_NO_ANSWER

_TABLE: tuple[tuple[Feature, pl.Expr], ...] = (
    (Feature("tcp", "0/1", "TCP"), _TCP),
    (Feature("udp", "0/1", "UDP"), _UDP),
    (Feature("icmp", "0/1", "ICMP"), _ICMP),
    (
        Feature("failed", "0/1", "nobody answered, or the connection was refused"),
        UNANSWERED | REFUSED,
    ),
    (Feature("refused", "0/1", "the connection was refused"), REFUSED),
    (Feature("completed", "0/1", "data could flow both ways"), COMPLETED),
    (
        Feature("reset", "0/1", "an established connection was reset"),
        pl.col("conn_state").is_in(["RSTO", "RSTR"]).fill_null(value=False),
    ),
    (Feature("still_open", "0/1", "the connection had not ended"), ~_CLOSED),
)

PLUGIN = Group(
    tuple(feature for feature, _ in _TABLE), tuple(expression for _, expression in _TABLE)
)
