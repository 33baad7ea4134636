"""The allow-list: what an analyst knows to be fine.

Decided per flow, before flows are grouped, by event time.

```toml
[[allow]]
host = "10.0.0.5"        # this host takes part ...
cidr = "10.0.0.0/16"     # ... and so does one of these; with both given: one on each side
role = "actor"           # it originates the flow ("target": it answers; left out: either)
port = 22                # the responder's, TCP and UDP
class = "scan"           # as the alert would say
note = "inventory scanner"
expires = 2027-01-01     # last day (UTC) on which the entry holds; or a date and time
```
All that an entry says must fit; it says at least one of host, cidr, port and class. The first entry
that fits counts.
"""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ids_plugin.alerts.policy import FlaggedFlows
from ids_plugin.config import read_text
from ids_plugin.errors import ConfigError
from ids_plugin.schema.alert import ACTOR, TARGET
from ids_plugin.schema.score import CLASSES

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Bools = npt.NDArray[np.bool_]

_KEYS = ("host", "cidr", "role", "port", "class", "note", "expires")
_CHOICES = {"class": CLASSES[1:], "role": (ACTOR, TARGET)}


@dataclass(frozen=True)
class Entry:
    """One entry; None is "any"."""

    name: str
    """what the ledger calls it"""
    host: str | None = None
    cidr: Network | None = None
    role: str | None = None
    port: int | None = None
    kind: str | None = None
    until: int | None = None
    """µs since the epoch at which it stops holding"""

    def fits(self, flows: FlaggedFlows) -> Bools:
        """(n) which flows it hides."""
        fit = np.ones(len(flows.rows), np.bool_)
        if self.kind is not None:
            fit &= flows.label == CLASSES.index(self.kind)
        if self.port is not None:
            fit &= np.array([port == self.port for port in flows.flows.port], np.bool_)
        if self.until is not None:
            fit &= flows.flows.known < self.until
        if fit.any() and (self.host is not None or self.cidr is not None):
            fit &= self._sides(flows)
        return fit

    def _sides(self, flows: FlaggedFlows) -> Bools:
        """Host and network stand on opposite sides; the role is the host's, or the network's where
        it is alone."""
        first = self._is_host if self.host is not None else self._is_in
        forward, backward = first(flows.orig_h), first(flows.resp_h)
        if self.host is not None and self.cidr is not None:
            forward, backward = (
                forward & self._is_in(flows.resp_h),
                backward & self._is_in(flows.orig_h),
            )
        return {ACTOR: forward, TARGET: backward, None: forward | backward}[self.role]

    def _is_host(self, addresses: list[str]) -> Bools:
        return np.array([address == self.host for address in addresses], np.bool_)

    def _is_in(self, addresses: list[str]) -> Bools:
        inside = {
            address
            for address in set(addresses)
            if ipaddress.ip_address(address) in (self.cidr or ())
        }
        return np.array([address in inside for address in addresses], np.bool_)


@dataclass(frozen=True)
class AllowList:
    """Entries in the order of the file."""

    entries: tuple[Entry, ...] = ()

    def suppressed(self, flows: FlaggedFlows) -> npt.NDArray[np.int64]:
        """(n) index of the first entry that hides each flow, -1 where none does."""
        hidden = np.full(len(flows.rows), -1, np.int64)
        for number, entry in enumerate(self.entries):
            hidden[(hidden < 0) & entry.fits(flows)] = number
        return hidden


def read_allow_list(path: Path | str | None) -> AllowList | None:
    """The allow-list of a file that a setting or an option names; None where none is named.

    Raises:
        ConfigError: the file can't be read, or `parse` refuses its text.
    """
    if not path:
        return None
    return parse(read_text(path, "the allow-list"), str(path))


def parse(text: str, location: str) -> AllowList:
    """Reads the text of an allow-list; `location` is its file's name, for messages.

    Raises:
        ConfigError: no TOML, an unknown key (the nearest known one is named) or a value that makes
            no sense.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", location=location) from error
    _known(table, ("allow",), location)
    entries = table.get("allow", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(
            "`allow` is no list of entries",
            location=location,
            hint="write [[allow]] before each entry",
        )
    return AllowList(
        tuple(_entry(entry, f"{location}: entry {n}") for n, entry in enumerate(entries, 1))
    )


def _entry(table: Mapping[str, Any], where: str) -> Entry:
    _known(table, _KEYS, where)
    for key in ("host", "cidr", "role", "class", "note"):
        if not isinstance(table.get(key, ""), str):
            raise ConfigError(f"{key} is no text: {table[key]!r}", location=where)
    for key, choices in _CHOICES.items():
        if key in table and table[key] not in choices:
            raise ConfigError(
                f"{key} can't be {table[key]!r}", location=where, hint=_nearest(table[key], choices)
            )
    if not any(key in table for key in ("host", "cidr", "port", "class")):
        raise ConfigError(
            "it would hide everything", location=where, hint="give a host, cidr, port or class"
        )
    if "role" in table and not ("host" in table or "cidr" in table):
        raise ConfigError("role says nothing without a host or cidr", location=where)
    return Entry(
        name=_name(table),
        host=_host(table.get("host"), where),
        cidr=_cidr(table.get("cidr"), where),
        role=table.get("role"),
        port=_port(table.get("port"), where),
        kind=table.get("class"),
        until=_until(table.get("expires"), where),
    )


def _name(table: Mapping[str, Any]) -> str:
    text = ", ".join(f"{key} {table[key]}" for key in _KEYS if key in table and key != "note")
    return f"{text}: {table['note']}" if "note" in table else text


def _known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise ConfigError(f"unknown key {key!r}", location=where, hint=_nearest(key, keys))


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"


def _host(host: str | None, where: str) -> str | None:
    try:
        return None if host is None else str(ipaddress.ip_address(host))
    except ValueError as error:
        raise ConfigError(
            f"host is no address: {host!r}", location=where, hint="a network goes into cidr"
        ) from error


def _cidr(cidr: str | None, where: str) -> Network | None:
    try:
        return None if cidr is None else ipaddress.ip_network(cidr)
    except ValueError as error:
        raise ConfigError(f"cidr is no network: {error}", location=where) from error


def _port(port: object, where: str) -> int | None:
    if port is None:
        return None
    if isinstance(port, int) and not isinstance(port, bool) and 0 <= port <= 65535:
        return port
    raise ConfigError(f"port is no number from 0 to 65535: {port!r}", location=where)


def _until(expires: object, where: str) -> int | None:
    """µs since the epoch: a date holds to its end, a time without an offset is UTC."""
    if isinstance(expires, str):
        try:
            expires = (
                datetime.fromisoformat(expires)
                if len(expires) > 10
                else date.fromisoformat(expires)
            )
        except ValueError as error:
            raise ConfigError(
                f"expires is no date: {expires!r}", location=where, hint="write 2027-01-31"
            ) from error
    if expires is None:
        return None
    if isinstance(expires, datetime):
        moment = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
    elif isinstance(expires, date):
        moment = datetime.combine(expires, time(), UTC) + timedelta(days=1)
    else:
        raise ConfigError(
            f"expires is no date: {expires!r}", location=where, hint="write 2027-01-31"
        )
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
