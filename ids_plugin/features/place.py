"""Where a flow went: inside or outside, to one host or a group, to an infrastructure service or to
a service that asks for a password. Ports only choose these flags; no port number reaches a
model."""

from __future__ import annotations

import polars as pl

from ids_plugin.features import Group
from ids_plugin.schema.addresses import is_group_address
from ids_plugin.schema.window import Feature

INFRASTRUCTURE_PORTS = (53, 67, 68, 123, 137, 138, 546, 547, 853, 1900, 3702, 5351, 5353, 5355)
"""DNS, DHCP, NTP, NetBIOS, DHCPv6, DNS over TLS, SSDP, WS-Discovery, NAT-PMP, mDNS, LLMNR"""
LOGIN_PORTS = (
    21,
    22,
    23,
    110,
    139,
    143,
    389,
    445,
    993,
    995,
    1433,
    1883,
    2222,
    2323,
    3306,
    3389,
    5432,
    5900,
    8883,
)
"""FTP, SSH, telnet, POP3, SMB, IMAP, LDAP, SQL Server, MQTT, MySQL, RDP, PostgreSQL, VNC and usual
second ports"""

_GROUP = is_group_address("resp_h")
_TRANSPORT = pl.col("proto").is_in(["tcp", "udp"]).fill_null(value=False)
_LOCAL_ORIG = pl.col("local_orig").fill_null(value=False)
_LOCAL_RESP = pl.col("local_resp").fill_null(value=False)
_LOGIN = (pl.col("proto") == "tcp") & pl.col("resp_p").is_in(LOGIN_PORTS).fill_null(value=False)

_TABLE: tuple[tuple[Feature, pl.Expr], ...] = (
    (Feature("orig_local", "0/1", "the originator is local"), _LOCAL_ORIG),
    (Feature("resp_local", "0/1", "the responder is local"), _LOCAL_RESP),
    (Feature("outbound", "0/1", "from inside to outside"), _LOCAL_ORIG & ~_LOCAL_RESP & ~_GROUP),
    (Feature("to_group", "0/1", "to a multicast or broadcast address"), _GROUP),
    (
        Feature("infrastructure", "0/1", "DNS, DHCP, NTP or discovery"),
        _TRANSPORT & pl.col("resp_p").is_in(INFRASTRUCTURE_PORTS).fill_null(value=False),
    ),
    (Feature("login_service", "0/1", "to a service that asks for a password"), _LOGIN),
)

PLUGIN = Group(
    tuple(feature for feature, _ in _TABLE), tuple(expression for _, expression in _TABLE)
)
