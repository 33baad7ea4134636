"""Reads newline-delimited JSON by layouts: a chunk in one go where all of it is well, line by line where not.

A layout says where in a JSON object the columns stand. The fast path parses a whole chunk with the layout of its first
line. Lines that don't fit it, or every line of a chunk that doesn't parse, are looked at one by one. Both give the same
flows for the same line, so where a chunk is cut changes nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import polars as pl

from ids_plugin.sources import Input, Read, Reject
from ids_plugin.sources._draft import Fault, make, refuse_wrong_units, text_times, times
from ids_plugin.sources._lines import Chunk, TooLong, chunks

CHUNK = 4 << 20
BYTES_PER_RECORD = 400
SHOWN = 200
INT64 = 1 << 63
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""A lone half of a pair: polars takes it for text, orjson for damage."""
KINDS: dict[str, pl.DataType] = {
    "text": pl.String(),
    "list": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "time": pl.Float64(),
    "iso": pl.String(),
    "bool": pl.Boolean(),
    "ints": pl.List(pl.Int64()),
}


class Field(NamedTuple):
    """Where a column stands; several fields may name one column, the first that is there wins."""

    column: str
    kind: str
    """text, list (texts or one text), int, ints, float, bool, time (number), iso (time as text)"""
    path: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How the records of one shape become draft columns."""

    fields: tuple[Field, ...]
    derive: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
    """what is left to do with the loose columns (units, constants) before `_draft.make`"""
    ours: pl.Expr = field(default_factory=lambda: pl.lit(True))
    """over the loose columns: the row surely is a record of this layout"""
    beside: pl.Expr | None = None
    """over the loose columns: why a row is out of scope, null where it isn't"""
    inner: str | None = None
    """path of a text that holds the record as JSON"""

    @property
    def schema(self) -> dict[str, Any]:
        """What polars is told to read: nested structs along the paths."""
        tree: dict[str, Any] = {}
        for item in self.fields:
            node = tree
            for key in item.path[:-1]:
                node = node.setdefault(key, {})
            node[item.path[-1]] = KINDS[item.kind]
        return {key: _dtype(value) for key, value in tree.items()}

    @property
    def loose(self) -> list[pl.Expr]:
        """Columns out of the frame that polars read."""
        found: dict[str, list[pl.Expr]] = {}
        for item in self.fields:
            at = pl.col(item.path[0])
            for key in item.path[1:]:
                at = at.struct.field(key)
            found.setdefault(_name(item), []).append(at)
        return [(exprs[0] if len(exprs) == 1 else pl.coalesce(exprs)).alias(name) for name, exprs in found.items()]

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Loose columns and their types."""
        return {_name(item): KINDS[item.kind] for item in self.fields}


MESSAGE = Layout((), inner="message")
"""Beats and Elastic Agent: the record as text in `message`."""


class OutOfScope(NamedTuple):
    """A record that is fine and no flow."""

    reason: str


class Bad(NamedTuple):
    """A record that can't be read."""

    reason: str
    detail: str


_Tree = dict[str, Any]
Classify = Callable[[dict[str, Any]], Layout | OutOfScope | Bad]
"""Which layout an object has."""


def _dtype(value: _Tree | pl.DataType) -> pl.DataType:
    return pl.Struct({key: _dtype(inner) for key, inner in value.items()}) if isinstance(value, dict) else value


def _name(item: Field) -> str:
    return "ts_text" if item.kind == "iso" else item.column


@dataclass
class _Step:
    """What one chunk gave so far."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    out_of_scope: Counter[str] = field(default_factory=Counter)


def read(source: Input, batch_rows: int, classify: Classify, plugin: str) -> Iterator[Read]:
    """Reads a stream of JSON lines to its end.

    Raises:
        DialectError: the first records can't be in the units they claim.
    """
    size = min(CHUNK, max(1 << 16, batch_rows * BYTES_PER_RECORD))
    checked = False
    for piece in chunks(source.stream, size):
        if isinstance(piece, TooLong):
            detail = f"a line of {piece.size:,} bytes"
            data = piece.start.decode("utf-8", "replace")[:SHOWN]
            rejected = Reject(source.name, f"line {piece.line}", "too_long", detail, data)
            yield Read(_empty(source, plugin), 1, (rejected,))
            continue
        step = _chunk(piece, classify)
        draft = _joined(step.frames)
        made = make(draft, source=plugin, name=source.name, sensor=source.sensor)
        if not checked and made.flows.height + len(made.faults):
            refuse_wrong_units(made, source.name)
            checked = True
        rejects = rejects_of(source.name, piece, [*step.faults, *made.faults])
        total = made.flows.height + len(rejects) + step.out_of_scope.total()
        yield Read(made.flows, total, rejects, dict(step.out_of_scope))


def _empty(source: Input, plugin: str) -> pl.DataFrame:
    return make(_joined([]), source=plugin, name=source.name, sensor=source.sensor).flows


def _joined(frames: list[pl.DataFrame]) -> pl.DataFrame:
    if not frames:
        return pl.DataFrame(schema={"line": pl.Int64, "ts": pl.Int64})
    if len(frames) == 1:
        return frames[0]
    return pl.concat(frames, how="diagonal_relaxed").sort("line", maintain_order=True)


def rejects_of(name: str, piece: Chunk, faults: list[Fault]) -> tuple[Reject, ...]:
    """Rejects of the faults found in a chunk, in the order of their lines."""
    if not faults:
        return ()
    lines = piece.data.split(b"\n")
    found = []
    for fault in sorted(faults):
        data = lines[fault.line - piece.first][: 4 * SHOWN].decode("utf-8", "replace")[:SHOWN]
        found.append(Reject(name, f"line {fault.line}", fault.reason, fault.detail, data))
    return tuple(found)


def _chunk(piece: Chunk, classify: Classify) -> _Step:
    step = _Step()
    lines: list[bytes] | None = None
    layout = _first_layout(piece.data, classify)
    numbers: list[int] | None = None
    if layout is not None:
        fast = _fast(piece, layout, step.out_of_scope)
        if fast is not None:
            frame, others = fast
            step.frames.append(frame)
            numbers = others
    if numbers == []:
        return step
    lines = piece.data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    chosen = range(len(lines)) if numbers is None else numbers
    ended = piece.data.endswith(b"\n")
    _careful(((piece.first + at, lines[at], ended or at < len(lines) - 1) for at in chosen), classify, step)
    return step


def _first_layout(data: bytes, classify: Classify) -> Layout | None:
    end = data.find(b"\n")
    try:
        record = orjson.loads(data[:end] if end >= 0 else data)
    except orjson.JSONDecodeError:
        return None
    found = classify(record) if isinstance(record, dict) else None
    return found if isinstance(found, Layout) and found.inner is None else None


def _fast(piece: Chunk, layout: Layout, out_of_scope: Counter[str]) -> tuple[pl.DataFrame, list[int]] | None:
    """The chunk's rows that fit the layout, and the indices of the other lines; None: it doesn't parse as a whole."""
    if b"\\" in piece.data and SURROGATE.search(piece.data):
        return None
    try:
        frame = pl.read_ndjson(piece.data, schema=layout.schema)
    except (pl.exceptions.PolarsError, ValueError):
        return None
    lines = piece.data.count(b"\n") + (not piece.data.endswith(b"\n"))
    if frame.height != lines:
        return None
    frame = frame.select(*layout.loose)
    texts = [name for name, dtype in layout.columns.items() if dtype == pl.String()]
    odd = [pl.col(name).str.starts_with(mark) for name in texts for mark in ("{", "[")]
    fits = frame.select(layout.ours.fill_null(False) & ~pl.any_horizontal(odd).fill_null(False)).to_series()
    frame = frame.with_columns(pl.int_range(piece.first, piece.first + lines, dtype=pl.Int64).alias("line"))
    others = (~fits).arg_true()
    if layout.beside is not None and others.len():
        reasons = frame[others].select(layout.beside.alias("reason")).to_series()
        out_of_scope.update(reasons.drop_nulls().to_list())
        others = others.filter(reasons.is_null())
    return layout.derive(_timed(frame.filter(fits))), others.to_list()


def _timed(frame: pl.DataFrame) -> pl.DataFrame:
    """`ts` in µs, from whichever of `ts` (a number) and `ts_text` there is."""
    forms = []
    if "ts" in frame.columns:
        forms.append(times(pl.col("ts")))
    if "ts_text" in frame.columns:
        forms.append(pl.lit(text_times(frame["ts_text"])))
    return frame.with_columns(pl.coalesce(forms).alias("ts"))


def _careful(lines: Iterator[tuple[int, bytes, bool]], classify: Classify, step: _Step) -> None:
    """Looks at (number, line, whether its newline is there) one by one."""
    rows: dict[int, tuple[Layout, list[tuple[Any, ...]]]] = {}
    for number, line, ended in lines:
        text = line.strip(b" \t\r")
        if not text:
            continue
        found = _record(text, ended, classify)
        if isinstance(found, Bad):
            step.faults.append(Fault(number, *found))
        elif isinstance(found, OutOfScope):
            step.out_of_scope[found.reason] += 1
        else:
            layout, values = found
            rows.setdefault(id(layout), (layout, []))[1].append((number, *values))
    for layout, found_rows in rows.values():
        schema = {"line": pl.Int64(), **layout.columns}
        frame = pl.DataFrame(found_rows, schema=schema, orient="row")
        step.frames.append(layout.derive(_timed(frame)))


def _record(text: bytes, ended: bool, classify: Classify) -> tuple[Layout, list[Any]] | OutOfScope | Bad:
    """One line's layout and loose values."""
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _bad_json(text, ended, error)
    if not isinstance(record, dict):
        return Bad("bad_json", f"not an object but {type(record).__name__}")
    layout = classify(record)
    if not isinstance(layout, Layout):
        return layout
    if layout.inner is not None:
        return _record(str(record[layout.inner]).encode("utf-8", "replace"), True, classify)
    values = _values(record, layout)
    return values if isinstance(values, Bad) else (layout, values)


def _bad_json(text: bytes, ended: bool, error: json.JSONDecodeError) -> Bad:
    if not ended:
        return Bad("cut_off", "the input ends in the middle of this record")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return Bad("bad_utf8", str(wrong).split(":")[0])
    return Bad("bad_json", str(error))


def _values(record: dict[str, Any], layout: Layout) -> list[Any] | Bad:
    """Loose values of a record, in the order of `layout.columns`."""
    values: dict[str, Any] = {}
    for item in layout.fields:
        value: Any = record
        for key in item.path:
            if value is not None and not isinstance(value, dict):
                return Bad("bad_value", f"{'.'.join(item.path)}: no object around it")
            value = value.get(key) if value is not None else None
        name = _name(item)
        if value is None:
            values.setdefault(name, None)
            continue
        value = _value(value, item.kind)
        if value is None:
            return Bad("bad_value", f"{'.'.join(item.path)} is not {item.kind}")
        if values.get(name) is None:
            values[name] = value
    return list(values.values())


def _value(value: object, kind: str) -> object:
    """`value` as `kind` has it, None when it is of another kind: what polars' reader accepts, and lists of texts."""
    if kind in ("text", "list", "iso"):
        return _text(value, kind)
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind == "ints":
        good = isinstance(value, list) and all(_value(item, "int") is not None for item in value)
        return value if good else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if kind == "int":
        return value if isinstance(value, int) and -INT64 <= value < INT64 else None
    return float(value)


def _text(value: object, kind: str) -> str | None:
    if isinstance(value, str):
        return None if value[:1] in ("{", "[") else value
    if kind == "list" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(pl.Series([value]).cast(pl.String)[0])
    return None
