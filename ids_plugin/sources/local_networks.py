"""Who is local: one rule that each flow can answer by itself, and what a whole input can add to it.

The rule of a flow, the same for files, streams and training:

1. The networks that are configured, if there are any: nothing else is local.
2. Otherwise private addresses (RFC 1918, RFC 4193), link-local and loopback addresses, and the
   addresses that the sensor calls local outside of every special-purpose range. A Zeek without
   `networks.cfg` calls all special-purpose ranges local, those for documentation too: inside of
   them a flag says nothing.

Multicast and broadcast addresses are never local. The carrier's shared range (100.64.0.0/10) is
local only where it is configured: it is one side's inside and the other side's outside.

A whole input adds one thing (`Locality`): where a sensor shows no local host at all, the address
in most flows is local.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import polars as pl

from ids_plugin.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""RFC 1918, RFC 4193."""
LINK_NETWORKS = ("169.254.0.0/16", "fe80::/10", "127.0.0.0/8", "::1/128")
"""Link-local and loopback. Every host has such addresses: they don't show that a log knows private
networks."""
MULTICAST_NETWORKS = ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")
"""Multicast and the limited broadcast address: no host has one of them as its own."""
SPECIAL_PURPOSE_NETWORKS = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
    "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "240.0.0.0/4",
    "::/127", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16",
    "fc00::/7", "fe80::/10",
)  # fmt: skip
"""IANA's special-purpose address registries, their largest blocks:
https://www.iana.org/assignments/iana-ipv4-special-registry/ and
https://www.iana.org/assignments/iana-ipv6-special-registry/, as of November 2026."""
MAX_COUNTED_ADDRESSES = 200_000
"""Addresses counted at most for a sensor without local hosts; above it the rarest are forgotten."""
ENDPOINTS = (("orig_h", "local_orig", "sensor_local_orig"),
             ("resp_h", "local_resp", "sensor_local_resp"))  # fmt: skip
"""Address, our judgement and the sensor's flag of each end of a flow."""
MEANINGS = {
    "configured": "the configured networks and nothing else",
    "private": "private, link-local and loopback addresses, and public ones that the sensor flags"
    " as local (it flags none)",
    "flags": "private, link-local and loopback addresses, and public ones that the sensor flags"
    " as local",
    "busiest": "link-local and loopback addresses, and the address in most flows, since no flow"
    " shows a local host; a stream can't know this",
}
"""Rules by their names in the ledger."""


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks from their text forms.

    Raises:
        ConfigError: a text is no network.
    """
    parsed: list[Network] = []
    for text in texts:
        try:
            parsed.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is no network", hint="such as 192.168.0.0/16 or 2001:db8::/32"
            ) from error
    return tuple(parsed)


_PRIVATE = networks(PRIVATE_NETWORKS)
_LINK = networks(LINK_NETWORKS)
_MULTICAST = networks(MULTICAST_NETWORKS)
_NOT_PUBLIC = networks((*SPECIAL_PURPOSE_NETWORKS, *MULTICAST_NETWORKS))


@dataclass(frozen=True)
class LocalRule:
    """The rule that each flow can answer by itself."""

    configured: tuple[Network, ...] = ()

    def judge(self, flows: pl.DataFrame, extra: tuple[Network, ...] = ()) -> pl.DataFrame:
        """The Flow frame with `local_orig` and `local_resp` (Boolean, never null).

        Args:
            flows: Flow frame; its `local_orig` and `local_resp` are not asked but replaced.
            extra: networks that are local too where none are configured.
        """
        judged = [
            self._is_local(flows[address], flows[sensor_flag], extra).alias(flag)
            for address, flag, sensor_flag in ENDPOINTS
        ]
        return flows.with_columns(judged)

    def describe(self, configure: str) -> str:
        """One sentence for people: the rule, and what to configure (`configure` names it)."""
        if self.configured:
            return f"local are the networks of {configure}: {', '.join(map(str, self.configured))}"
        return f"local are {MEANINGS['flags']}; {configure} names your networks instead"

    def _is_local(
        self, address: pl.Series, sensor_flag: pl.Series, extra: tuple[Network, ...]
    ) -> pl.Series:
        if self.configured:
            return _where_within(address, self._configured_expression)
        is_local = _where_within(address, _within_private(extra))
        asked = sensor_flag.fill_null(value=False) & ~is_local
        if asked.any():
            rows = asked.arg_true()
            is_local = is_local.scatter(rows, is_public(address[rows]))
        return is_local

    @cached_property
    def _configured_expression(self) -> pl.Expr:
        inside = within(pl.col("address"), self.configured)
        if any(net.version == other.version and net.overlaps(other)
               for net in self.configured for other in _MULTICAST):  # fmt: skip
            return inside & ~within(pl.col("address"), _MULTICAST)
        return inside


def is_public(addresses: pl.Series) -> pl.Series:
    """Whether addresses (canonical text form) lie outside of every special-purpose range and are
    no multicast or broadcast addresses; Boolean."""
    return ~_where_within(addresses, _WITHIN_NOT_PUBLIC)


class _SensorRule(NamedTuple):
    """What is local to one sensor of a whole input."""

    name: str
    """a key of MEANINGS"""
    networks: tuple[Network, ...]
    extra: tuple[Network, ...] = ()
    """networks that only the whole input shows"""


@dataclass
class _SensorEvidence:
    """What a sensor's flows show about its networks."""

    has_public_flag: bool = False
    """the sensor calls an address outside of the special-purpose ranges local"""
    has_private_address: bool = False
    counts: pl.DataFrame | None = None
    """`address`, `count`; only as long as neither of the above is true"""

    def add(self, flows: pl.DataFrame) -> None:
        """Takes the flows of the sensor in."""
        if not self.has_public_flag:
            self.has_public_flag = _has_public_flag(flows)
        if not self.has_private_address:
            self.has_private_address = _has_private_address(flows)
        if self.has_public_flag or self.has_private_address:
            self.counts = None
        else:
            self.counts = _counted(flows, self.counts)

    def rule(self) -> _SensorRule:
        """The rule without configured networks."""
        if self.counts is None:
            name = "flags" if self.has_public_flag else "private"
            return _SensorRule(name, (*_PRIVATE, *_LINK))
        by_count = self.counts.sort(["count", "address"], descending=[True, False])
        busiest = networks([by_count["address"][0]])
        return _SensorRule("busiest", (*busiest, *_LINK), busiest)


@dataclass
class Locality:
    """Judges a whole input: watches all of its flows (`see`), then fills their flags (`fill`).

    The rule is `LocalRule`, per sensor. Where no flow of a sensor shows a local host, the address
    that takes part in most of its flows is local too.
    """

    configured: tuple[Network, ...] = ()
    _sensors: dict[str, _SensorEvidence] = field(default_factory=dict)

    def see(self, flows: pl.DataFrame) -> None:
        """Takes in a Flow frame; call with all flows before `fill`."""
        names = flows["sensor"].unique().to_list()
        for name in names:
            evidence = self._sensors.setdefault(name, _SensorEvidence())
            if not self.configured:
                of_sensor = flows if len(names) == 1 else flows.filter(pl.col("sensor") == name)
                evidence.add(of_sensor)

    def rule(self, sensor: str) -> str:
        """configured, private, flags or busiest: a key of MEANINGS."""
        return self._rule(sensor).name

    def networks(self, sensor: str) -> tuple[Network, ...]:
        """The sensor's local networks; without what its flags add."""
        return self._rule(sensor).networks

    def fill(self, flows: pl.DataFrame) -> pl.DataFrame:
        """The frame with `local_orig` and `local_resp` of every flow, never null."""
        rule = LocalRule(self.configured)
        extras = {
            str(name): extra
            for name in flows["sensor"].unique()
            if (extra := self._rule(str(name)).extra)
        }
        if not extras or flows["sensor"].n_unique() == 1:
            return rule.judge(flows, next(iter(extras.values()), ()))
        rows = flows.with_row_index("_row")
        parts = [
            rule.judge(part, extras.get(str(name), ()))
            for (name,), part in rows.partition_by("sensor", as_dict=True).items()
        ]
        return pl.concat(parts).sort("_row").drop("_row")

    def _rule(self, sensor: str) -> _SensorRule:
        if self.configured:
            return _SensorRule("configured", self.configured)
        return self._sensors.get(sensor, _SensorEvidence()).rule()

    def describe(self) -> dict[str, Any]:
        """For the ledger: sensor → rule, what it means, what to configure, and networks."""
        described = {}
        for sensor in sorted(self._sensors):
            rule = self._rule(sensor)
            described[sensor] = {
                "rule": rule.name,
                "meaning": f"local are {MEANINGS[rule.name]}",
                "configure": "--local-nets, in a stream detect.local_nets",
                "networks": [str(network) for network in rule.networks],
            }
        return described


def _has_public_flag(flows: pl.DataFrame) -> bool:
    for address, _, sensor_flag in ENDPOINTS:
        flagged = flows[address].filter(flows[sensor_flag].fill_null(value=False)).unique()
        if flagged.len() and is_public(flagged).any():
            return True
    return False


def _has_private_address(flows: pl.DataFrame) -> bool:
    return any(
        bool(_where_within(flows[address].unique(), _WITHIN_PRIVATE).any())
        for address, _, _ in ENDPOINTS
    )


def _counted(flows: pl.DataFrame, before: pl.DataFrame | None) -> pl.DataFrame:
    """In how many flows each address takes part, of these flows and those before."""
    to_another = flows.filter(pl.col("orig_h") != pl.col("resp_h"))
    addresses = pl.concat([flows["orig_h"], to_another["resp_h"]])
    counts = addresses.alias("address").value_counts().with_columns(pl.col("count").cast(pl.Int64))
    if before is not None:
        counts = pl.concat([before, counts]).group_by("address").agg(pl.col("count").sum())
    if counts.height > MAX_COUNTED_ADDRESSES:
        by_count = counts.sort(["count", "address"], descending=[True, False])
        counts = by_count.head(MAX_COUNTED_ADDRESSES // 2)
    return counts


def within(address: pl.Expr, nets: Sequence[Network]) -> pl.Expr:
    """Whether an address in canonical text form lies in one of the networks (IPv4 and IPv6)."""
    four = [net for net in nets if isinstance(net, ipaddress.IPv4Network)]
    six = [net for net in nets if isinstance(net, ipaddress.IPv6Network)]
    tests = []
    if four:
        patterns = "|".join(_pattern(net) for net in four)
        tests.append(address.str.contains(f"^(?:{patterns})"))
    if six:
        tests.append(
            address.map_batches(lambda texts: _within_ipv6(texts, six), return_dtype=pl.Boolean)
        )
    return pl.any_horizontal(tests) if tests else pl.lit(value=False)


def _where_within(addresses: pl.Series, expression: pl.Expr) -> pl.Series:
    """An expression over the column `address`, of a series."""
    return addresses.alias("address").to_frame().select(expression.alias("is_local")).to_series()


def _pattern(net: ipaddress.IPv4Network) -> str:
    """Regular expression for the beginning of the text of a network's addresses."""
    whole, bits = divmod(net.prefixlen, 8)
    octets = str(net.network_address).split(".")
    prefix = "".join(rf"{octet}\." for octet in octets[:whole])
    if whole == 4:
        return prefix.removesuffix(r"\.") + "$"
    if not bits:
        return prefix or r"\d+\."
    low = int(octets[whole])
    cut = "|".join(str(octet) for octet in range(low, low + (1 << (8 - bits))))
    return rf"{prefix}(?:{cut}){'$' if whole == 3 else chr(92) + '.'}"


def _within_ipv6(texts: pl.Series, nets: Sequence[ipaddress.IPv6Network]) -> pl.Series:
    """Addresses with a colon are tested one by one, each once: they are fewer than flows."""
    has_colon = texts.str.contains(":", literal=True).fill_null(value=False)
    if not has_colon.any():
        return pl.repeat(value=False, n=texts.len(), eager=True, dtype=pl.Boolean)
    prefixes = [(128 - net.prefixlen, int(net.network_address) >> (128 - net.prefixlen))
                for net in nets]  # fmt: skip
    inside = []
    for text in texts.filter(has_colon).unique():
        number = int.from_bytes(socket.inet_pton(socket.AF_INET6, text))
        if any(number >> shift == prefix for shift, prefix in prefixes):
            inside.append(text)
    return texts.is_in(inside)


def _within_private(extra: tuple[Network, ...]) -> pl.Expr:
    if not extra:
        return _WITHIN_PRIVATE_OR_LINK
    return within(pl.col("address"), (*_PRIVATE, *_LINK, *extra))


_WITHIN_PRIVATE = within(pl.col("address"), _PRIVATE)
_WITHIN_PRIVATE_OR_LINK = within(pl.col("address"), (*_PRIVATE, *_LINK))
_WITHIN_NOT_PUBLIC = within(pl.col("address"), _NOT_PUBLIC)
