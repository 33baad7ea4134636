"""A verdict: what an analyst says of an alert."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

TRUE, FALSE, BENIGN = "true", "false", "benign"
VERDICTS = (TRUE, FALSE, BENIGN)
"""an attack as the alert says · a false alarm · as the alert says, unusual, and harmless"""


class Verdict(NamedTuple):
    """One verdict on one alert."""

    alert: str
    """`event.id` of a document of the alert"""
    verdict: str
    """one of VERDICTS"""
    note: str
    analyst: str
    """empty where nobody is named"""
    time: datetime | None
    """with its zone; None where it isn't known"""
    source: str
    place: str
    """where it was read: file and `line 7`, index and id"""

    @property
    def description(self) -> str:
        """For a person: `false by anna on 2026-11-21: inventory scanner`."""
        who = f" by {self.analyst}" if self.analyst else ""
        when = f" on {self.time:%Y-%m-%d}" if self.time else ""
        note = f": {self.note}" if self.note else ""
        return f"{self.verdict}{who}{when}{note}"
