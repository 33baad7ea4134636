"""Analysts' verdicts from a table (CSV).

```csv
event.id,verdict,note,analyst,time
3f0c…,false,inventory scanner,anna,2026-11-21T09:30:00Z
```
`event.id` and `verdict` (true, false, benign) have to be there, in any order; times without an
offset are UTC.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ids_plugin.errors import InputError
from ids_plugin.schema.reject import Reject
from ids_plugin.schema.verdict import VERDICTS, Verdict

REQUIRED_COLUMNS = ("event.id", "verdict")
COLUMNS = (*REQUIRED_COLUMNS, "note", "analyst", "time")
_MAX_REJECT_LENGTH = 200


@dataclass
class Verdicts:
    """What was read: `records = len(verdicts) + len(rejects) + silent`."""

    verdicts: list[Verdict] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    records: int = 0
    """lines, or alerts that an analyst has touched"""
    silent: dict[str, int] = field(default_factory=dict)
    """records that say nothing about the alert, by what they say instead"""

    def add(self, other: Verdicts) -> None:
        """Adds what was read elsewhere, behind its own."""
        self.verdicts += other.verdicts
        self.rejects += other.rejects
        self.records += other.records
        for reason, count in other.silent.items():
            self.silent[reason] = self.silent.get(reason, 0) + count


def read_table(path: Path) -> Verdicts:
    """The verdicts of a CSV file; a line that makes no sense is a reject.

    Raises:
        InputError: it can't be read, or its header isn't ours.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = (
            (error.strerror or str(error)).lower()
            if isinstance(error, OSError)
            else "it is no UTF-8 text"
        )
        raise InputError(f"the verdicts can't be read: {why}", location=str(path)) from error
    read = Verdicts()
    for place, row in _rows(text, path):
        read.records += 1
        try:
            read.verdicts.append(_verdict(row, str(path), f"line {place}"))
        except ValueError as error:
            reason, detail = error.args
            data = ",".join(str(value) for value in row.values())[:_MAX_REJECT_LENGTH]
            read.rejects.append(Reject(str(path), f"line {place}", reason, detail, data))
    return read


def _rows(text: str, path: Path) -> Iterator[tuple[int, dict[str | None, str | list[str] | None]]]:
    """Line numbers and rows by column; what stands beyond the last column is under None."""
    head = text.partition("\n")[0]
    delimiter = ";" if ";" in head and "," not in head else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        _check_header([name.strip() for name in reader.fieldnames or ()], path)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for row in reader:
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise InputError(f"no CSV: {error}", location=f"{path}:{reader.reader.line_num}") from error


def _check_header(names: list[str], path: Path) -> None:
    where = f"{path}:1"
    for name in names:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"the header is {','.join(COLUMNS)}"
            raise InputError(f"unknown column {name!r}", location=where, hint=hint)
    for name in REQUIRED_COLUMNS:
        if name not in names:
            raise InputError(
                f"column {name} is missing",
                location=where,
                hint=f"the header is {','.join(COLUMNS)}",
            )
    if len(set(names)) < len(names):
        raise InputError("a column is there twice", location=where)


def _verdict(row: Mapping[str | None, str | list[str] | None], source: str, place: str) -> Verdict:
    """
    Raises:
        ValueError: (reason, detail) why it is none.
    """
    if None in row or None in row.values():
        raise ValueError("wrong_columns", "it hasn't as many values as the header has columns")
    values = {str(name): str(value).strip() for name, value in row.items()}
    if not values["event.id"]:
        raise ValueError("no_alert", "event.id is empty")
    verdict = values["verdict"].lower()
    if verdict not in VERDICTS:
        raise ValueError(
            "no_verdict", f"verdict is none of {', '.join(VERDICTS)}: {values['verdict']!r}"
        )
    when = moment(values.get("time", ""))
    return Verdict(
        values["event.id"],
        verdict,
        values.get("note", ""),
        values.get("analyst", ""),
        when,
        source,
        place,
    )


def moment(text: str) -> datetime | None:
    """A time, in UTC unless it says otherwise; None where there is none.

    Raises:
        ValueError: (reason, detail) why it is none.
    """
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("bad_time", f"time is no ISO 8601 time: {text!r}") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
