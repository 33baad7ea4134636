"""Sinks take alert documents to the outside world: files, the terminal, Elasticsearch.

A sink is a class that obeys the protocol `Sink`, named by an entry point of the group
`ids_plugin.sinks`. Its classmethod `open` makes it from a target string, so that
`ids-plugin scan --sink NAME=TARGET` reaches the sinks of other packages as well as ours.

Backpressure is a value: a sink that can't take a batch now returns `RetryAfter`. The caller may
write the same batch again; no document is then stored twice.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol, Self, TextIO, TypedDict, runtime_checkable

from ids_plugin.errors import UsageError
from ids_plugin.registry import load
from ids_plugin.schema.alert import Document

STANDARD_OUTPUT = "-"
"""target that stands for standard output"""


class Refusal(NamedTuple):
    """A document that the service will never take."""

    position: int
    """in the batch, from 0"""
    reason: str
    """one of a few fixed words, to count by"""
    detail: str


@dataclass(frozen=True)
class Delivered:
    """The outcome of a batch that was written: `len(batch) = documents + len(refusals)`."""

    documents: int
    refusals: tuple[Refusal, ...] = ()
    known: int = 0
    """of the documents, those that had been stored before"""

    @property
    def refused(self) -> dict[str, int]:
        """How many documents were refused, by reason."""
        return dict(Counter(refusal.reason for refusal in self.refusals))


class RetryAfter(NamedTuple):
    """The batch was not (entirely) written; the caller may write it again after `seconds`."""

    seconds: float
    reason: str


class TrafficBucket(TypedDict, total=False):
    """The traffic of one interval of a timeline."""

    t: int
    """start, µs since the epoch"""
    flows: int
    bytes: int
    """payload or IP bytes, whichever the sources know; left out where none does"""


@dataclass(frozen=True)
class SinkEnvironment:
    """What a sink may need beside its target."""

    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    """for the target `-`"""
    config: Path | None = None
    """settings (TOML) for what a target doesn't say, such as a login; environment variables
    (`IDS_…`) apply with and without it"""
    clock: Callable[[], datetime] | None = None
    """gives the time of ingestion to sinks that stamp documents with it; None: they don't"""


class Sink(Protocol):
    """Takes documents in batches. `close` completes the output, `abort` removes what is incomplete.

    A sink that shows the run as a whole implements `DescribesRun` as well.
    """

    name: str
    """of its entry point"""

    @classmethod
    def open(cls, target: str, environment: SinkEnvironment) -> Self:
        """The sink that writes to `target`: a path, a URL, or `-`, as its docstring says.

        Raises:
            UsageError: the target can't be used.
            ConfigError, MissingExtraError: settings or packages that the sink needs are missing.
        """
        ...

    def write(self, documents: Sequence[Document]) -> Delivered | RetryAfter:
        """Writes a batch.

        Raises:
            UsageError: the target can't be written to.
            ServiceError: a service refuses us for good.
        """
        ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


@runtime_checkable
class DescribesRun(Protocol):
    """A sink that also shows what was read and which model judged it."""

    def describe(
        self, *, ledger: Document, traffic: Sequence[TrafficBucket], bundle: Document
    ) -> None:
        """Called once, after the last `write` and before `close`.

        Args:
            ledger: as in ledger.json.
            traffic: buckets of equal width, oldest first; empty intervals may be left out.
            bundle: `id`, `family` and `trained_on` (names of the training data).
        """
        ...


def open_sink(specification: str, environment: SinkEnvironment) -> Sink:
    """The sink that `NAME=TARGET` describes, such as `ndjson=alerts.ndjson` or `table=-`.

    Raises:
        UsageError: it isn't NAME=TARGET, there is no sink NAME, or TARGET can't be used.
        ConfigError, MissingExtraError: settings or packages that the sink needs are missing.
    """
    name, equals, target = specification.partition("=")
    if not (name and equals and target):
        raise UsageError(
            "is not NAME=TARGET", location=specification, hint="such as ndjson=alerts.ndjson"
        )
    plugin: type[Sink] = load("sinks", name)
    return plugin.open(target, environment)
