"""The ledger: what became of every record and every document, per source and sensor.

It balances or the run failed.

read = parsed + rejected
parsed = scored + duplicate + replaced + out_of_scope
over_threshold = opened + folded + suppressed
documents = delivered + refused + pending

`delayed` is a count beside them. Ledgers of stages and processes add up: `normalise` reads,
`detect` scores, `deliver` writes; only the sum has to balance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from ids_plugin.errors import LedgerError

Reasons = dict[str, int]


@dataclass
class Counts:
    """Counters of one source and sensor; a dictionary counts by reason or by rule."""

    read: int = 0
    """records seen"""
    parsed: int = 0
    """of these, understood"""
    rejected: Reasons = field(default_factory=dict)
    duplicate: int = 0
    """the same uid with the same content again"""
    replaced: int = 0
    """records of a growing connection that stand for one that was scored before"""
    out_of_scope: Reasons = field(default_factory=dict)
    """fine, and no flows"""
    scored: int = 0
    delayed: int = 0
    """scored though they came behind the sensor's clock"""
    over_threshold: int = 0
    """scored records over their threshold"""
    opened: int = 0
    """of these, opened an alert group"""
    folded: int = 0
    """of these, joined an open alert group"""
    suppressed: Reasons = field(default_factory=dict)
    """of these, hidden by an entry of the allow-list"""
    documents: int = 0
    """alert documents made"""
    delivered: int = 0
    refused: Reasons = field(default_factory=dict)
    pending: int = 0

    def add(self, other: Counts) -> None:
        """Adds the counters of another stage or run."""
        for name in _NAMES:
            counter, added = getattr(self, name), getattr(other, name)
            if isinstance(counter, dict):
                for reason, count in added.items():
                    tally(counter, reason, count)
            else:
                setattr(self, name, counter + added)

    def value(self, name: str) -> int:
        """A counter by its name, all reasons together."""
        counter = getattr(self, name)
        return sum(counter.values()) if isinstance(counter, dict) else int(counter)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, reasons in alphabetical order."""
        counters = ((name, getattr(self, name)) for name in _NAMES)
        return {
            name: dict(sorted(counter.items())) if isinstance(counter, dict) else counter
            for name, counter in counters
        }


_NAMES = tuple(counter.name for counter in fields(Counts))

EQUATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("read", ("parsed", "rejected")),
    ("parsed", ("scored", "duplicate", "replaced", "out_of_scope")),
    ("over_threshold", ("opened", "folded", "suppressed")),
    ("documents", ("delivered", "refused", "pending")),
)


def tally(reasons: Reasons, reason: str, count: int = 1) -> None:
    """Counts `count` more of a reason."""
    reasons[reason] = reasons.get(reason, 0) + count


class Ledger:
    """Counts by source and sensor, and notes for people (which networks count as local, ...)."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}
        self._entries: dict[tuple[str, str], Counts] = {}

    def of(self, source: str, sensor: str) -> Counts:
        """The counters of a source (an input, or the kind of it) and a sensor; made when they are
        new."""
        return self._entries.setdefault((source, sensor), Counts())

    def items(self) -> Iterable[tuple[tuple[str, str], Counts]]:
        """((source, sensor), counters), in alphabetical order."""
        return sorted(self._entries.items())

    @property
    def total(self) -> Counts:
        """All counters together."""
        whole = Counts()
        for counts in self._entries.values():
            whole.add(counts)
        return whole

    def add(self, other: Ledger) -> None:
        """Adds another ledger; its notes replace ours of the same name."""
        for (source, sensor), counts in other.items():
            self.of(source, sensor).add(counts)
        self.notes.update(other.notes)

    def __add__(self, other: Ledger) -> Ledger:
        both = Ledger()
        both.add(self)
        both.add(other)
        return both

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def problems(self) -> list[str]:
        """Every equation that fails, in words, with its numbers."""
        return [
            f"{source} of sensor {sensor}: {problem}"
            for (source, sensor), counts in self.items()
            for problem in _problems(counts)
        ]

    def check(self) -> None:
        """
        Raises:
            LedgerError: an equation fails; the message names all that do, with their numbers.
        """
        problems = self.problems()
        if problems:
            raise LedgerError(
                "the ledger doesn't balance: " + "; ".join(problems),
                hint="a defect: please report it",
            )

    def to_dict(self) -> dict[str, Any]:
        """What ledger.json holds."""
        entries = [
            {"source": source, "sensor": sensor, **counts.to_dict()}
            for (source, sensor), counts in self.items()
        ]
        return {
            "balanced": not self.problems(),
            "notes": dict(sorted(self.notes.items())),
            "total": self.total.to_dict(),
            "sources": entries,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ledger:
        """The ledger that `to_dict` wrote."""
        ledger = cls()
        ledger.notes = dict(data["notes"])
        for entry in data["sources"]:
            counters = {name: entry[name] for name in _NAMES}
            ledger.of(entry["source"], entry["sensor"]).add(Counts(**counters))
        return ledger


def _problems(counts: Counts) -> Iterable[str]:
    for whole, parts in EQUATIONS:
        if counts.value(whole) != sum(counts.value(part) for part in parts):
            terms = " + ".join(f"{counts.value(part)} {part}" for part in parts)
            yield f"{counts.value(whole)} {whole} are not {terms}"
    negative = [name for name in _NAMES if counts.value(name) < 0]
    if negative:
        yield f"negative: {', '.join(negative)}"
