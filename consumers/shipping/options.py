"""What `ship` is asked to follow."""

from __future__ import annotations

from dataclasses import dataclass

from ids_plugin.errors import UsageError

INDEX_SCHEME = "elasticsearch:"


@dataclass(frozen=True)
class ShipOptions:
    """What is followed, and where its records go."""

    topic: str
    inputs: tuple[str, ...]
    """paths and globs of logs, or a single elasticsearch:URL/INDEX"""
    rotated: tuple[str, ...] = ()
    """globs of rotated files in other folders"""
    sensor: str | None = None
    is_from_end: bool = False
    """leave out what exists at the very first start"""
    arrival_field: str = "event.ingested"
    """of an index: the date at which a document was indexed"""
    overlap_s: float = 300.0
    """of an index: how long after its arrival a document may become searchable"""

    @property
    def is_of_index(self) -> bool:
        """An index is followed.

        Raises:
            UsageError: it isn't followed alone.
        """
        has_index = any(name.startswith(INDEX_SCHEME) for name in self.inputs)
        if has_index and len(self.inputs) > 1:
            raise UsageError(
                "an index is followed alone", hint="start one ship for each, and one for the files"
            )
        return has_index
