"""Sources: bytes → Flow frame and rejects. A file here that defines `PLUGIN` is a kind of input.

Kinds are found by content: every plugin's `sniff` is asked, the surest answer wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

import polars as pl

from ids_plugin.schema.reject import Reject


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
    source: str = ""
    """what the flows' column `source` says; who opened the input fills in the plugin's name, and `sensor`"""
    sensor: str = ""


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
    options: dict[str, str] = field(default_factory=dict)


class Source(Protocol):
    """A kind of input."""

    name: str

    def sniff(self, head: bytes) -> float:
        """0–1: how sure it is that `head` begins an input of this kind."""
        ...

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """Reads to the end in steps of about `batch_rows` records, in bounded memory.

        Raises:
            InputError: nothing of it can be read (wrong header, wrong unit); single bad records are rejects.
        """
        ...
