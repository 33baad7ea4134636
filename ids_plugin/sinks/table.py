"""The alerts of a scan as a table: one row for each alert group, the worst first, with the main
reasons."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self, TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ids_plugin.schema.alert import ACTOR, SEVERITIES, Document
from ids_plugin.sinks import STANDARD_OUTPUT, Delivered, SinkEnvironment
from ids_plugin.sinks.whole_file import WholeFile
from ids_plugin.writing import writing

FILE_WIDTH = 160
"""columns of a table in a file"""
WIDE = 120
"""columns from which every fact has its own column"""
REASONS = 2
"""features named beside the sentence where there is room"""

_NAMES = {number: name for name, number in SEVERITIES.items()}
_STYLES = {99: "bold white on red", 73: "bold red", 47: "yellow", 21: "cyan"}


class Row(NamedTuple):
    """What the table shows of an alert group."""

    severity: int
    first: str
    last: str
    kind: str
    host: str
    peers: str
    flows: int
    score: float
    message: str
    summary: str
    reasons: str


class Table:
    """Collects documents and prints them when it is closed, one row an alert group.

    The closing document of a group takes the place of its opening one. The target is `-` for
    standard output, or the path of a text file.
    """

    name = "table"

    def __init__(self, target: TextIO | Path, width: int | None = None) -> None:
        """`width` in columns; None: the terminal's (or the variable COLUMNS, or 80), in a file
        FILE_WIDTH."""
        self._stream = None if isinstance(target, Path) else target
        self._file = WholeFile(target) if isinstance(target, Path) else None
        self._width = FILE_WIDTH if width is None and self._file else width
        self._rows: dict[str, Row] = {}

    @classmethod
    def open(cls, target: str, environment: SinkEnvironment) -> Self:
        """A sink for a path, or for standard output (`-`)."""
        return cls(environment.stdout if target == STANDARD_OUTPUT else Path(target))

    def write(self, documents: Sequence[Document]) -> Delivered:
        """Collects alert documents, opening and closing ones."""
        for document in documents:
            self._rows[document["ids_plugin"]["fold"]["id"]] = _row(document)
        return Delivered(len(documents))

    def close(self) -> None:
        """Prints; colours only where the stream is a terminal."""
        lines = self._lines()
        if self._file:
            self._file.write(lines.encode())
            self._file.close()
        if self._stream:
            encoding = self._stream.encoding or "utf-8"
            with writing("standard output"):
                self._stream.write(lines.encode(encoding, "replace").decode(encoding))
                self._stream.flush()

    def _lines(self) -> str:
        text = io.StringIO()
        is_terminal = self._stream is not None and self._stream.isatty()
        console = Console(file=text, force_terminal=is_terminal, width=self._width, highlight=False)
        rows = sorted(
            self._rows.values(), key=lambda row: (-row.severity, -row.score, row.first, row.host)
        )
        if rows:
            console.print(_wide(rows) if console.width >= WIDE else _narrow(rows))
        console.print(_count(rows))
        return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())

    def abort(self) -> None:
        """Prints nothing, and leaves no file behind."""
        self._rows.clear()
        if self._file:
            self._file.abort()


def _row(document: Document) -> Row:
    own = document["ids_plugin"]
    group, evidence = own["fold"], own["evidence"]
    features = sorted(
        evidence.get("features", ()), key=lambda feature: -abs(feature.get("contribution", 0.0))
    )
    return Row(
        severity=document["event"]["severity"],
        first=group["first"],
        last=group["last"],
        kind=document["rule"]["name"],
        host=group["subject"],
        peers=_peers(group),
        flows=group["count"],
        score=own["score"],
        message=document["message"],
        summary=evidence.get("summary", ""),
        reasons="; ".join(feature["text"] for feature in features[:REASONS]),
    )


def _peers(group: Document) -> str:
    arrow = "→" if group["role"] == ACTOR else "←"
    if group["peers"] == 1 and group["top_peers"]:
        return f"{arrow} {group['top_peers'][0]['ip']}"
    more = "> " if group["peers_relation"] == "gte" else ""
    return f"{arrow} {more}{group['peers']:,} hosts"


def _wide(rows: list[Row]) -> RichTable:
    table = _table(
        "severity",
        "class",
        "host",
        "acts on / acted on by",
        "flows",
        "first – last",
        "score",
        "why",
    )
    for column in (4, 6):
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(
            _severity(row.severity),
            _text(row.kind),
            _text(row.host, "bold"),
            _text(row.peers),
            f"{row.flows:,}",
            _period(row),
            f"{row.score:.2f}",
            Text.assemble(
                _text(row.summary), _text(f"\n{row.reasons}" if row.reasons else "", "dim")
            ),
        )
    return table


def _narrow(rows: list[Row]) -> RichTable:
    table = _table("severity", "first (UTC)", "flows", "score", "what and why")
    for column in (2, 3):
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(
            _severity(row.severity),
            _moment(row.first),
            f"{row.flows:,}",
            f"{row.score:.2f}",
            Text.assemble(_text(row.message, "bold"), _text(f"\n{row.summary}")),
        )
    return table


def _table(*columns: str) -> RichTable:
    """All columns keep their width but the last, which wraps."""
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=False)
    for name in columns:
        table.add_column(name, no_wrap=name is not columns[-1], overflow="fold")
    return table


def _severity(number: int) -> Text:
    return Text(_NAMES.get(number, str(number)), _STYLES.get(number, ""))


def _text(text: str, style: str = "") -> Text:
    """As it is: nothing in it is markup, and control characters don't reach the terminal."""
    return Text(
        "".join(
            character if character.isprintable() or character == "\n" else "�" for character in text
        ),
        style,
    )


def _period(row: Row) -> str:
    first, last = _moment(row.first), _moment(row.last)
    day = len("01-31 ")
    return f"{first}–{last[day:]}" if first[:day] == last[:day] else f"{first} – {last}"


def _moment(instant: str) -> str:
    """Month, day, hour and minute of an ISO 8601 time; the year goes without saying."""
    date, time = instant.split("T")
    return f"{date[-5:]} {time[:5]}"


def _count(rows: list[Row]) -> str:
    if not rows:
        return "No alerts."
    counts = Counter(row.severity for row in rows)
    parts = (
        f"{count} {_NAMES.get(number, number)}"
        for number, count in sorted(counts.items(), reverse=True)
    )
    return f"{len(rows):,} alert{'s' if len(rows) > 1 else ''}: {', '.join(parts)}"


PLUGIN = Table
