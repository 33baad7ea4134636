"""Which networks are local, per sensor, and the flows' local flags filled from them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ids_plugin.errors import ConfigError
from ids_plugin.flowmeter.flow_frame import SPECIAL_IPV4, SPECIAL_IPV6

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""RFC 1918, RFC 4193."""
LINK = ("169.254.0.0/16", "fe80::/10", "127.0.0.0/8", "::1/128")
"""Link-local and loopback: local too, but every host has them, so they don't say whether a log knows private ranges."""
COUNTED = 200_000
"""Addresses counted at most for a sensor without private addresses; beyond it the rarest are forgotten."""


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks from their text forms.

    Raises:
        ConfigError: a text is no network.
    """
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is no network", hint="such as 192.168.0.0/16 or 2001:db8::/32"
            ) from error
    return tuple(found)


_PRIVATE, _LINK, _SPECIAL = (
    networks(PRIVATE),
    networks(LINK),
    networks((*SPECIAL_IPV4, *SPECIAL_IPV6)),
)


@dataclass
class _Seen:
    """What a sensor's flows say about its networks."""

    flagged: bool = False
    private: bool = False
    counts: pl.DataFrame | None = None


@dataclass
class Locality:
    """Watches flows (`see`), then fills `local_orig` and `local_resp` of every flow (`fill`).

    Per sensor: the networks configured, else the sensor's own flags if it was told, else private ranges, else (no
    private address in sight) the address that takes part in most flows.
    """

    configured: tuple[Network, ...] = ()
    _sensors: dict[str, _Seen] = field(default_factory=dict)

    def see(self, flows: pl.DataFrame) -> None:
        """Takes in a Flow frame; call with all flows before `fill`."""
        names = flows["sensor"].unique().to_list()
        for name in names:
            seen = self._sensors.setdefault(name, _Seen())
            if not self.configured:
                _see(seen, flows if len(names) == 1 else flows.filter(pl.col("sensor") == name))

    def rule(self, sensor: str) -> str:
        """configured, flags, private or busiest."""
        seen = self._sensors.get(sensor, _Seen())
        if self.configured:
            return "configured"
        if seen.flagged:
            return "flags"
        return "private" if seen.private or seen.counts is None else "busiest"

    def networks(self, sensor: str) -> tuple[Network, ...]:
        """The sensor's local networks; with the rule `flags` those for flows without flags."""
        rule = self.rule(sensor)
        if rule == "configured":
            return self.configured
        if rule == "busiest":
            return (*networks([_busiest(self._sensors[sensor])]), *_LINK)
        return (*_PRIVATE, *_LINK)

    def fill(self, flows: pl.DataFrame) -> pl.DataFrame:
        """The frame with `local_orig` and `local_resp` of every flow, never null."""
        names = flows["sensor"].unique().to_list()
        unknown = flows["local_orig"].null_count() + flows["local_resp"].null_count()
        if not unknown and all(self.rule(str(name)) == "flags" for name in names):
            return flows
        fills = [self._filled(str(name)) for name in names]
        if len(names) == 1:
            return flows.with_columns(fills[0])
        found = [
            pl.coalesce(
                pl.when(pl.col("sensor") == name).then(exprs[at])
                for name, exprs in zip(names, fills, strict=True)
            ).alias(column)
            for at, column in enumerate(("local_orig", "local_resp"))
        ]
        return flows.with_columns(found) if names else flows

    def _filled(self, sensor: str) -> list[pl.Expr]:
        return _bool_column(self.networks(sensor), keep=self.rule(sensor) == "flags")

    def describe(self) -> dict[str, Any]:
        """For the ledger: sensor → rule and networks."""
        return {
            name: {"rule": self.rule(name), "networks": [str(net) for net in self.networks(name)]}
            for name in sorted(self._sensors)
        }


def fill_at_once(flows: pl.DataFrame, configured: Sequence[Network] = ()) -> pl.DataFrame:
    """The frame with `local_orig` and `local_resp`, never null, where nothing but each flow itself can be asked: the
    networks configured, else its own flags, else private ranges."""
    if not configured and not flows["local_orig"].null_count() + flows["local_resp"].null_count():
        return flows
    return flows.with_columns(_bool_column(configured or (*_PRIVATE, *_LINK), keep=not configured))


def _bool_column(nets: Sequence[Network], keep: bool) -> list[pl.Expr]:
    found = []
    for flag, address in (("local_orig", "orig_h"), ("local_resp", "resp_h")):
        inside = within(pl.col(address), nets)
        found.append((pl.coalesce(pl.col(flag), inside) if keep else inside).alias(flag))
    return found


def _see(seen: _Seen, flows: pl.DataFrame) -> None:
    if not seen.flagged:
        seen.flagged = _told(flows)
    if seen.flagged or seen.private:
        seen.counts = None
        return
    either = [within(pl.col(name), _PRIVATE).any() for name in ("orig_h", "resp_h")]
    seen.private = bool(flows.select(pl.any_horizontal(either)).item())
    if seen.private:
        seen.counts = None
        return
    addresses = pl.concat(
        [flows["orig_h"], flows.filter(pl.col("orig_h") != pl.col("resp_h"))["resp_h"]]
    )
    counts = addresses.alias("address").value_counts().with_columns(pl.col("count").cast(pl.Int64))
    if seen.counts is not None:
        counts = pl.concat([seen.counts, counts]).group_by("address").agg(pl.col("count").sum())
    if counts.height > COUNTED:
        counts = counts.sort(["count", "address"], descending=[True, False]).head(COUNTED // 2)
    seen.counts = counts


def _told(flows: pl.DataFrame) -> bool:
    """Whether the sensor calls an address local that no Zeek would without being told: then its flags are knowledge,
    not the default list, which counts documentation and benchmark ranges in."""
    for flag, address in (("local_orig", "orig_h"), ("local_resp", "resp_h")):
        named = flows.select(pl.col(address).filter(pl.col(flag)).unique())
        if named.height and not named.select(within(pl.col(address), _SPECIAL).all()).item():
            return True
    return False


def _busiest(seen: _Seen) -> str:
    assert seen.counts is not None  # noqa: S101
    return str(seen.counts.sort(["count", "address"], descending=[True, False])["address"][0])


def within(address: pl.Expr, nets: Sequence[Network]) -> pl.Expr:
    """Whether an address in canonical text form lies in one of the networks; vectorised, IPv4 and IPv6."""
    four = "|".join(_pattern(net) for net in nets if isinstance(net, ipaddress.IPv4Network))
    six = [net for net in nets if isinstance(net, ipaddress.IPv6Network)]
    tests = [address.str.contains(f"^(?:{four})")] if four else []
    if six:
        tests.append(
            address.map_batches(lambda texts: _within6(texts, six), return_dtype=pl.Boolean)
        )
    return pl.any_horizontal(tests) if tests else pl.lit(False)


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


def _within6(texts: pl.Series, nets: Sequence[ipaddress.IPv6Network]) -> pl.Series:
    """Addresses with a colon are looked at one by one, each once: they are fewer than flows."""
    colons = texts.str.contains(":", literal=True).fill_null(False)
    if not colons.any():
        return pl.repeat(False, texts.len(), eager=True, dtype=pl.Boolean)
    inside = [
        text
        for text in texts.filter(colons).unique()
        if any(ipaddress.IPv6Address(text) in net for net in nets)
    ]
    return texts.is_in(inside)
