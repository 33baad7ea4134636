"""Sinks: alert documents → outside world. A file here that defines `PLUGIN` is a kind of sink.

Backpressure is a value: a sink that can't take a batch now says when to ask again, and keeps nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ids_plugin.schema.alert import Document


@dataclass(frozen=True)
class Delivered:
    """A batch is where it belongs: `len(batch) = documents + refused`."""

    documents: int
    refused: Mapping[str, int] = field(default_factory=dict)
    """documents that the other side will never take, by reason"""


class RetryAfter(NamedTuple):
    """Nothing of the batch was taken; the same batch may be given again in so many seconds."""

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
