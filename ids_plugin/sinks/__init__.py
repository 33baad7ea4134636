"""Sinks: alert documents → outside world. A file here that defines `PLUGIN` is a kind of sink.

Backpressure is a value: a sink that can't take a batch now says when to ask again. Given again, nothing is there twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ids_plugin.schema.alert import Document


class Refusal(NamedTuple):
    """A document that the other side will never take."""

    place: int
    """in the batch, from 0"""
    reason: str
    """one of few, to count by"""
    detail: str


@dataclass(frozen=True)
class Delivered:
    """A batch is where it belongs: `len(batch) = documents + len(refusals)`."""

    documents: int
    refusals: tuple[Refusal, ...] = ()
    known: int = 0
    """of the documents, those that were there before"""

    @property
    def refused(self) -> dict[str, int]:
        """How many were refused, by reason."""
        return dict(Counter(one.reason for one in self.refusals))


class RetryAfter(NamedTuple):
    """The batch isn't where it belongs; the same batch may be given again in so many seconds."""

    seconds: float
    reason: str


class Sink(Protocol):
    """Takes documents in batches, and in the end is closed, or aborted so that nothing half done is left."""

    name: str

    def write(self, documents: Sequence[Document]) -> Delivered | RetryAfter:
        """
        Raises:
            UsageError: the place can't be written to.
            ServiceError: a service refuses us for good.
        """
        ...

    def close(self) -> None: ...

    def abort(self) -> None: ...
