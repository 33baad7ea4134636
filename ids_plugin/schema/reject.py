"""A reject: a record that could not be read, with its place and the reason."""

from __future__ import annotations

from typing import NamedTuple

WHOLE = "whole"
"""`place` of a reject that is a whole input: it can't be opened, or nothing of it can be read"""
MAX_REJECT_BYTES = 1 << 16
"""Bytes of an unusable message that its reject on Kafka keeps: a message of 1 MiB would not fit in
Base64."""


class Reject(NamedTuple):
    """A record that could not be read; goes to rejects.ndjson."""

    input: str
    """file name, or `-`"""
    place: str
    """`line 7`, `packet 12`, `byte 4096`, or WHOLE"""
    reason: str
    """short and countable: `bad_json`, `cut_off`, ..."""
    detail: str
    """what exactly, for a person"""
    data: str
    """the beginning of the record, at most 200 characters"""
