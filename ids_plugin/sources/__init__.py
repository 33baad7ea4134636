"""Sources: bytes → Flow frame and rejects. A file here that defines `PLUGIN` is a kind of input.

Kinds are found by content: every plugin's `sniff` is asked, the surest answer wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, Literal, Protocol

import polars as pl

from ids_plugin.errors import UsageError
from ids_plugin.schema.reject import Reject
from ids_plugin.sources.facts import FactTables

Meter = Literal["builtin", "zeek", "suricata"]
LONGEST_PERIOD_S = 10**9


@dataclass(frozen=True)
class Read:
    """What one step of reading gave: `read = len(flows) + out_of_scope + len(rejects)`."""

    flows: pl.DataFrame
    """schema.flow.SCHEMA, in the order read"""
    read: int
    """records seen in this step"""
    rejects: tuple[Reject, ...] = ()
    out_of_scope: dict[str, int] = field(default_factory=dict)
    """records that are fine and not flows (other logs in the stream, EVE alerts, ...), by reason"""
    notes: dict[str, int] = field(default_factory=dict)
    """counts beside them (packets, packets of unknown link types, ...) for the ledger"""
    warnings: tuple[Reject, ...] = ()
    """what a person should know and cost no record; of a whole input: that it gave nothing"""
    source: str = ""
    """what the flows' column `source` says; who opened the input fills in the plugin's name, and
    `sensor`"""
    sensor: str = ""
    facts: FactTables = field(default_factory=dict)
    """what records of other logs say of flows, to be joined to them by `facts.FactStore`"""


@dataclass(frozen=True)
class ReadOptions:
    """How inputs are read, whatever their kind; what doesn't concern a kind, it ignores.

    Raises:
        UsageError: `open_every_s` isn't 0 and not between 1 and 10⁹.
    """

    meter: Meter = "builtin"
    """what measures captures"""
    verify_checksums: bool = False
    """captures: packets with wrong checksums don't count; without it they do, as with `zeek -C`"""
    open_every_s: float = 0.0
    """captures: seconds between records of a TCP connection that is still open; 0 for none"""
    community_id: bool = False
    """captures: fill the column `community_id`"""
    since: datetime | None = None
    """an index: only documents of flows that may start at this time or later"""
    until: datetime | None = None
    """an index: only documents of flows that may start before this time"""

    def __post_init__(self) -> None:
        if self.open_every_s != 0 and not 1 <= self.open_every_s <= LONGEST_PERIOD_S:
            raise UsageError(
                f"open connections every {self.open_every_s:g} seconds",
                hint="a number from 1 on",
            )


DEFAULT_OPTIONS = ReadOptions()


@dataclass(frozen=True)
class Input:
    """One opened input: its bytes are decompressed already."""

    name: str
    """as the user wrote it; what rejects and flows name"""
    stream: BinaryIO
    """positioned at the start; not seekable"""
    head: bytes
    """the first bytes (up to 64 KiB), also still to come from `stream`"""
    sensor: str
    options: ReadOptions = DEFAULT_OPTIONS


class Source(Protocol):
    """A kind of input."""

    name: str

    def sniff(self, head: bytes) -> float:
        """0–1: how sure it is that `head` begins an input of this kind."""
        ...

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """Reads to the end in steps of about `batch_rows` records, in bounded memory.

        Raises:
            InputError: nothing of it can be read (wrong header, wrong unit); single bad records are
                rejects.
        """
        ...
