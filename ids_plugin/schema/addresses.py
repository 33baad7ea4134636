"""Kinds of addresses, as Polars expressions over columns of their text forms."""

from __future__ import annotations

import polars as pl

_GROUP = r"^(22[4-9]|23\d)\.|^ff[0-9a-f]{2}:|^255\.255\.255\.255$"
"""multicast of IPv4 (224.0.0.0/4) and IPv6 (ff00::/8), and the limited broadcast address"""
_LAST_OCTET_255 = r"\.255$"
"""the broadcast address of a /24 network, and of some larger ones"""


def is_group_address(column: str) -> pl.Expr:
    """Boolean: a multicast address or the limited broadcast address; False where null."""
    return pl.col(column).str.contains(_GROUP).fill_null(value=False)


def may_be_group_address(column: str) -> pl.Expr:
    """Boolean: as `is_group_address`, or an IPv4 address that is the broadcast address of a
    network if the network is a /24; False where null. Nobody has to answer at such an address."""
    return pl.col(column).str.contains(f"{_GROUP}|{_LAST_OCTET_255}").fill_null(value=False)
