"""Reads newline-delimited JSON by layouts: a chunk in one go where all of it is well, line by line
where not.

A layout says where in a JSON object the columns stand. The fast path parses a whole chunk with the
layout of its first line. Lines that don't fit it, or every line of a chunk that doesn't parse, are
looked at one by one. Both give the same flows for the same line, so where a chunk is cut changes
nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import orjson
import polars as pl

from ids_plugin.schema.flow import empty
from ids_plugin.schema.reject import Reject
from ids_plugin.sources import Input, Read
from ids_plugin.sources.facts import FactTables
from ids_plugin.sources.readers.flow_builder import (
    COUNTS,
    Fault,
    build_flows,
    refuse_wrong_units,
    text_times,
    times,
)
from ids_plugin.sources.readers.lines import Chunk, TooLong, chunks, count, whole_lines

CHUNK_BYTES = 4 << 20
BYTES_PER_RECORD = 400
SHOWN_CHARS = 200
BLANK = b" \t\r\0"
"""What may stand around a record: NULs are left where a log is cut while it is written."""
MAX_ENVELOPES = 8
MAX_PREFIX_BYTES = 512
"""Bytes before a record: a syslog header, `@cee:`."""
MAX_GLUED_TRIES = 64
"""Places of a line that doesn't parse where another record may begin."""
GLUED_REASONS = ("bad_json", "bad_utf8", "cut_off")
"""Why a line that holds several records can't be read as one."""
TSV_TABS = 8
"""Tabs from which on a text is taken for a line of Zeek's TSV."""
TSV_WITHOUT_HEADER = "tsv_without_header"
INNER_KEYS = ("message", "log", "event")
"""Where envelopes hold a record as text: Beats and Logstash, Fluent Bit and Docker, Splunk."""
ENVELOPE_SENSORS = (
    ("observer", "name"),
    ("observer", "hostname"),
    ("host", "name"),
    ("agent", "name"),
)
"""Where an envelope names the sensor, `host` as a plain text too; the first that is there wins."""
MIN_BULK_LINES = 32
"""Lines of one layout from which on reading them in one go is faster than one by one."""
BULK_PARTS = 8
"""In how many parts lines are read that don't parse together."""
INT64 = 1 << 63
MAX_NUMBER_CHARS = 32
TRUTHS = {"true": True, "T": True, "false": False, "F": False}
LONG_NUMBER = re.compile(rb"\d{19}")
"""A whole number that may be beyond 64 bits: exact to polars in a text column, rounded by
orjson."""
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
    tidy: tuple[pl.Expr, ...] = ()
    """draft columns out of the loose ones, and `ts` in µs"""
    derive: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    """what else is left to do with the tidy columns before `flow_builder.build_flows`"""
    is_ours: pl.Expr = field(default_factory=lambda: pl.lit(True))
    """over the loose columns: the row surely is a record of this layout"""
    why_out_of_scope: pl.Expr | None = None
    """over the loose columns: why a row is out of scope, null where it isn't"""
    inner: str | None = None
    """a text of the object holds the record as JSON: `inner_text`"""
    rewrite: Callable[[dict[str, Any]], bytes] | None = None
    """what makes the record out of the object, as JSON"""

    @cached_property
    def schema(self) -> dict[str, Any]:
        """What polars is told to read: nested structs along the paths."""
        tree: dict[str, Any] = {}
        for item in self.fields:
            node = tree
            for key in item.path[:-1]:
                node = node.setdefault(key, {})
            node[item.path[-1]] = KINDS[item.kind]
        return {key: _dtype(value) for key, value in tree.items()}

    @cached_property
    def columns(self) -> dict[str, pl.DataType]:
        """Loose columns and their types."""
        return {_name(item): KINDS[item.kind] for item in self.fields}

    @cached_property
    def loose(self) -> list[pl.Expr]:
        """Columns out of the frame that polars read."""
        expressions: dict[str, list[pl.Expr]] = {}
        for item in self.fields:
            column = pl.col(item.path[0])
            for key in item.path[1:]:
                column = column.struct.field(key)
            expressions.setdefault(_name(item), []).append(column)
        return [
            (exprs[0] if len(exprs) == 1 else pl.coalesce(exprs)).alias(name)
            for name, exprs in expressions.items()
        ]

    @cached_property
    def flat(self) -> bool:
        """No column stands inside an object of the record."""
        return all(len(item.path) == 1 for item in self.fields)

    def loose_of(self, keys: frozenset[str]) -> list[pl.Expr]:
        """As `loose` for a flat layout of which only `keys` were read; the other columns are
        null."""
        expressions: dict[str, list[pl.Expr]] = {name: [] for name in self.columns}
        for item in self.fields:
            if item.path[0] in keys:
                expressions[_name(item)].append(pl.col(item.path[0]))
        nothing = {name: pl.lit(None, dtype=dtype) for name, dtype in self.columns.items()}
        return [
            pl.coalesce(exprs or [nothing[name]]).alias(name) for name, exprs in expressions.items()
        ]

    @cached_property
    def odd(self) -> pl.Expr:
        """Over the loose columns: a text that is no text but an object or a list, as polars writes
        them."""
        texts = [name for name, dtype in self.columns.items() if dtype == pl.String()]
        return pl.any_horizontal(
            pl.col(name).str.starts_with(mark) for name in texts for mark in ("{", "[")
        )

    @cached_property
    def tidied(self) -> list[pl.Expr]:
        """Over the loose columns: `ts` in µs from whichever form there is, and `tidy`."""
        forms = []
        if "ts" in self.columns:
            forms.append(times(pl.col("ts")))
        if "ts_text" in self.columns:
            forms.append(pl.col("ts_text").map_batches(text_times, return_dtype=pl.Int64))
        return [pl.coalesce(forms).alias("ts"), *self.tidy]


MESSAGE = Layout((), inner="message")
"""Beats and Elastic Agent: the record as text in `message`."""


Fact = tuple[str, dict[str, Any]]
"""Which log a record is of, and the record."""


class OutOfScope(NamedTuple):
    """A record that is fine and no flow."""

    reason: str
    fact: Fact | None = None
    """what it says of a flow"""


class Bad(NamedTuple):
    """A record that can't be read."""

    reason: str
    detail: str


_Tree = dict[str, Any]
LinesByReason = dict[str, list[int]]
"""Numbers of the lines that are fine and no flows, by reason."""
Classify = Callable[[dict[str, Any]], Layout | OutOfScope | Bad]
"""Which layout an object has."""


def _dtype(value: _Tree | pl.DataType) -> pl.DataType:
    return (
        pl.Struct({key: _dtype(inner) for key, inner in value.items()})
        if isinstance(value, dict)
        else value
    )


def _name(item: Field) -> str:
    return "ts_text" if item.kind == "iso" else item.column


@dataclass
class SeenKeys:
    """Which keys the records of a source have had so far. Absent keys cost as much to read as
    present ones.

    Reading only `keys` is right for a chunk of flat objects whenever every colon of it is accounted
    for: one for every value that was read, and those inside of texts. Otherwise there was another
    key, and all are read.
    """

    keys: frozenset[str] = frozenset()
    useful: bool = True
    """False once the source turned out to have keys that are none of ours"""

    def read(self, data: bytes, layout: Layout) -> tuple[pl.DataFrame, list[pl.Expr]]:
        """The frame polars reads, and its loose columns."""
        if not self.useful or b"\\" in data:
            return pl.read_ndjson(data, schema=layout.schema), layout.loose
        if self.keys:
            frame = pl.read_ndjson(
                data, schema={key: layout.schema[key] for key in layout.schema if key in self.keys}
            )
            if _values_read(frame) + _colons_inside(frame) == count(data, b":"):
                return frame, layout.loose_of(self.keys)
        frame = pl.read_ndjson(data, schema=layout.schema)
        had = {column.name for column in frame if column.null_count() < frame.height}
        self.useful, self.keys = not self.keys or not had <= self.keys, self.keys | had
        return frame, layout.loose


def _values_read(frame: pl.DataFrame) -> int:
    return frame.height * frame.width - sum(column.null_count() for column in frame)


def _colons_inside(frame: pl.DataFrame) -> int:
    texts = pl.col(pl.String).str.count_matches(":", literal=True).sum().cast(pl.Int64)
    return int(frame.select(pl.sum_horizontal(texts)).item() or 0)


@dataclass
class ParsedChunk:
    """What one chunk gave so far."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    """drafts, each of one layout; rows in any order"""
    faults: list[Fault] = field(default_factory=list)
    out_of_scope: LinesByReason = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)


def probe(source: Input, classify: Classify, plugin: str) -> pl.DataFrame:
    """The draft of the input's head: what is decided about the whole by it doesn't depend on how
    the input is cut.

    Raises:
        DialectError: the records can't be in the units they claim.
    """
    step = parse(whole_lines(source.head), classify, SeenKeys())
    draft = joined(step.frames)
    refuse_wrong_units(
        build_flows(draft, source=plugin, name=source.name, sensor=source.sensor), source.name
    )
    return draft


def read(
    source: Input,
    batch_rows: int,
    classify: Classify,
    plugin: str,
    fact_tables: Callable[[list[Fact], str], FactTables] = lambda facts, sensor: {},
) -> Iterator[Read]:
    """Reads a stream of JSON lines to its end; `fact_tables` makes the tables of records with
    facts."""
    size = min(CHUNK_BYTES, max(1 << 16, batch_rows * BYTES_PER_RECORD))
    habit = SeenKeys()
    for piece in chunks(source.stream, size):
        if isinstance(piece, TooLong):
            yield Read(empty(), 1, (too_long(source.name, piece),))
            continue
        step = parse(piece, classify, habit)
        made = build_flows(
            joined(step.frames), source=plugin, name=source.name, sensor=source.sensor
        )
        rejects = rejects_of(source.name, piece, [*step.faults, *made.faults])
        out_of_scope = {reason: len(lines) for reason, lines in step.out_of_scope.items()}
        total = made.flows.height + len(rejects) + sum(out_of_scope.values())
        facts = fact_tables(step.facts, source.sensor)
        yield Read(made.flows, total, rejects, out_of_scope, facts=facts)


def too_long(name: str, line: TooLong) -> Reject:
    """The reject of a line that is too long."""
    data = line.start.decode("utf-8", "replace")[:SHOWN_CHARS]
    return Reject(name, f"line {line.line}", "too_long", f"a line of {line.size:,} bytes", data)


def joined(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """One draft, in the order of the lines."""
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
    rejects = []
    for fault in sorted(faults):
        data = lines[fault.line - piece.first][: 4 * SHOWN_CHARS].decode("utf-8", "replace")[
            :SHOWN_CHARS
        ]
        rejects.append(Reject(name, f"line {fault.line}", fault.reason, fault.detail, data))
    return tuple(rejects)


def parse(piece: Chunk, classify: Classify, habit: SeenKeys) -> ParsedChunk:
    """What the lines of a chunk are; blank ones are nothing."""
    step = ParsedChunk()
    layout = _first_layout(piece.data, classify)
    bulk = _whole_chunk(piece, layout, habit, step.out_of_scope) if layout is not None else None
    if bulk is not None:
        step.frames.append(bulk[0])
        if not bulk[1]:
            return step
    lines = piece.data.split(b"\n")[: piece.lines]
    ended = piece.data.endswith(b"\n")
    chosen = range(len(lines)) if bulk is None else bulk[1]
    _line_by_line(
        ((piece.first + index, lines[index], ended or index < len(lines) - 1) for index in chosen),
        classify,
        habit,
        step,
    )
    return step


def _first_layout(data: bytes, classify: Classify) -> Layout | None:
    end = data.find(b"\n")
    try:
        record = orjson.loads(data[:end] if end >= 0 else data)
    except orjson.JSONDecodeError:
        return None
    layout = classify(record) if isinstance(record, dict) else None
    is_bare = isinstance(layout, Layout) and layout.inner is None and layout.rewrite is None
    return layout if is_bare and isinstance(layout, Layout) else None


def _whole_chunk(
    piece: Chunk, layout: Layout, habit: SeenKeys, out_of_scope: LinesByReason
) -> tuple[pl.DataFrame, list[int]] | None:
    """The chunk's rows that fit the layout, and the indices of the other lines; None: it doesn't
    parse as a whole."""
    if b"\\" in piece.data and SURROGATE.search(piece.data):
        return None
    flat = layout.flat and b"[" not in piece.data and count(piece.data, b"{") == piece.lines
    try:
        if flat:
            frame, columns = habit.read(piece.data, layout)
        else:
            frame, columns = pl.read_ndjson(piece.data, schema=layout.schema), layout.loose
    except (pl.exceptions.PolarsError, ValueError):
        return None
    if frame.height != piece.lines:
        return None
    line_number = pl.int_range(piece.first, piece.first + piece.lines, dtype=pl.Int64).alias("line")
    fits = layout.is_ours.fill_null(False)
    if not flat:
        fits &= ~layout.odd.fill_null(False)
    reason_expression = (
        pl.lit(None, dtype=pl.String)
        if layout.why_out_of_scope is None
        else layout.why_out_of_scope
    )
    loose = frame.lazy().select(columns)
    frame = loose.with_columns(
        fits.alias("_fits"), reason_expression.alias("_beside"), *layout.tidied, line_number
    ).collect()
    others = (~frame["_fits"]).arg_true()
    if others.len():
        reasons = frame["_beside"].gather(others)
        for index, reason in (
            zip(others, reasons, strict=True) if reasons.null_count() < reasons.len() else ()
        ):
            if reason is not None:
                out_of_scope.setdefault(reason, []).append(piece.first + index)
        others = others.filter(reasons.is_null())
        frame = frame.filter("_fits")
    return layout.derive(frame) if layout.derive else frame, others.to_list()


class _Line(NamedTuple):
    """A line that is a record of a layout."""

    number: int
    text: bytes
    record: dict[str, Any]


def _line_by_line(
    lines: Iterator[tuple[int, bytes, bool]], classify: Classify, habit: SeenKeys, step: ParsedChunk
) -> None:
    """Looks at (number, line, whether its newline is there) one by one, and reads those of one
    layout together."""
    groups: dict[int, tuple[Layout, list[_Line]]] = {}
    for number, outcome in _outcomes(lines, classify):
        if isinstance(outcome, Bad):
            step.faults.append(Fault(number, *outcome))
        elif isinstance(outcome, OutOfScope):
            step.out_of_scope.setdefault(outcome.reason, []).append(number)
            step.facts += [outcome.fact] if outcome.fact else []
        else:
            layout, inner, record = outcome
            groups.setdefault(id(layout), (layout, []))[1].append(_Line(number, inner, record))
    for layout, members in groups.values():
        rest = _in_bulk(layout, members, habit, step) if len(members) >= MIN_BULK_LINES else members
        _one_by_one(layout, rest, step)


def _in_bulk(
    layout: Layout, members: list[_Line], habit: SeenKeys, step: ParsedChunk
) -> list[_Line]:
    """Reads lines of one layout in one go, or in parts where they don't parse; gives back those
    that don't fit it."""
    chunk = Chunk(b"\n".join(member.text for member in members), 0, len(members))
    out_of_scope: LinesByReason = {}
    bulk = _whole_chunk(chunk, layout, habit, out_of_scope)
    if bulk is None and len(members) < 2 * MIN_BULK_LINES:
        return members
    if bulk is None:
        size = -(-len(members) // BULK_PARTS)
        parts = (members[index : index + size] for index in range(0, len(members), size))
        return [member for part in parts for member in _in_bulk(layout, part, habit, step)]
    for reason, places in out_of_scope.items():
        step.out_of_scope.setdefault(reason, []).extend(members[index].number for index in places)
    numbers = pl.Series("line", [member.number for member in members], dtype=pl.Int64)
    step.frames.append(bulk[0].with_columns(numbers.gather(bulk[0]["line"])))
    return [members[index] for index in bulk[1]]


def _outcomes(
    lines: Iterator[tuple[int, bytes, bool]], classify: Classify
) -> Iterator[tuple[int, tuple[Layout, bytes, dict[str, Any]] | OutOfScope | Bad]]:
    """What each line is; lines that hold several records are taken apart."""
    for number, line, ended in lines:
        text = line.strip(BLANK)
        if not text:
            continue
        outcome = read_line(text, ended, classify)
        if not (isinstance(outcome, Bad) and outcome.reason in GLUED_REASONS):
            yield number, outcome
            continue
        pieces = _glued(text, classify)
        if len(pieces) == 1:
            yield number, outcome
            continue
        for piece in pieces:
            yield number, read_line(piece, True, classify)


def _one_by_one(layout: Layout, members: list[_Line], step: ParsedChunk) -> None:
    rows: list[tuple[Any, ...]] = []
    for member in members:
        values = _values(member.record, layout)
        if isinstance(values, Bad):
            step.faults.append(Fault(member.number, *values))
        else:
            rows.append((member.number, *values))
    if rows:
        schema = {"line": pl.Int64(), **layout.columns}
        frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(layout.tidied)
        step.frames.append(layout.derive(frame) if layout.derive else frame)


def read_line(
    text: bytes, ended: bool, classify: Classify, depth: int = 0
) -> tuple[Layout, bytes, dict[str, Any]] | OutOfScope | Bad:
    """One line's layout, the text of the record itself and the record; envelopes and what syslog
    puts before a record are taken off."""
    if depth > MAX_ENVELOPES:
        return Bad("too_deep", f"more than {MAX_ENVELOPES} envelopes around a record")
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        begin = text.find(b"{", 1, MAX_PREFIX_BYTES) if text[:1] != b"{" else -1
        behind = read_line(text[begin:], ended, classify, depth + 1) if begin > 0 else None
        if behind is not None and not isinstance(behind, Bad):
            return behind
        return _bad_json(text, ended, error)
    if not isinstance(record, dict):
        return Bad("bad_json", f"not an object but {type(record).__name__}")
    layout = classify(record)
    if isinstance(layout, Layout) and layout.rewrite is not None:
        return read_line(layout.rewrite(record), True, classify, depth + 1)
    if isinstance(layout, Layout) and layout.inner is not None:
        inner = inner_text(record) or ""
        outcome = read_line(inner.encode("utf-8", "replace"), True, classify, depth + 1)
        return _from_sensor(outcome, envelope_sensor(record))
    keys = text.count(b'":')
    if (keys != len(record) and keys != _key_count(record)) or LONG_NUMBER.search(text):
        with suppress(RecursionError, ValueError):
            record = json.loads(text, object_pairs_hook=_first_wins)
            layout = classify(record)
    return (layout, text, record) if isinstance(layout, Layout) else layout


def is_record(line: bytes, classify: Classify) -> bool:
    """Whether a line of an input's head is a record that `classify` knows, in whatever envelope."""
    text = line.strip(BLANK)
    return not _is_bad(text, classify) or len(_glued(text, classify)) > 1


def inner_text(record: dict[str, Any]) -> str | None:
    """The text of an envelope that holds the record: the first that has an object in it."""
    event = record.get("event")
    texts = [record.get(key) for key in INNER_KEYS]
    texts.append(event.get("original") if isinstance(event, dict) else None)
    candidates = [text.strip() for text in texts if isinstance(text, str)]
    return next((text for text in candidates if "{" in text[:MAX_PREFIX_BYTES]), None)


def envelope(record: dict[str, Any]) -> Layout | Bad | None:
    """MESSAGE if the object is an envelope around a record, Bad if around a line of Zeek's TSV."""
    if inner_text(record) is not None:
        return MESSAGE
    texts = (record.get(key) for key in INNER_KEYS)
    if any(isinstance(text, str) and text.count("\t") >= TSV_TABS for text in texts):
        return Bad(TSV_WITHOUT_HEADER, "a line of Zeek's TSV without its #fields: ship Zeek's JSON")
    return None


def envelope_sensor(record: dict[str, Any]) -> str | None:
    """The sensor's name as an envelope has it."""
    for key, name in ENVELOPE_SENSORS:
        value = record.get(key)
        value = value.get(name) if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            return value
    return None


def _from_sensor(
    outcome: tuple[Layout, bytes, dict[str, Any]] | OutOfScope | Bad, sensor: str | None
) -> tuple[Layout, bytes, dict[str, Any]] | OutOfScope | Bad:
    """The record with the envelope's sensor where it names none itself."""
    if sensor is None or not isinstance(outcome, tuple) or isinstance(outcome, (OutOfScope, Bad)):
        return outcome
    layout, text, record = outcome
    named = with_sensor(record, sensor)
    return (layout, text, record) if named is record else (layout, orjson.dumps(named), named)


def with_sensor(record: dict[str, Any], sensor: str) -> dict[str, Any]:
    """A record of Zeek or Suricata that names its sensor; the same object if it did, or is none."""
    if "event_type" in record:
        return record if "host" in record else {**record, "host": sensor}
    if "ts" in record:
        return record if "_system_name" in record else {**record, "_system_name": sensor}
    for tag, inner in record.items():
        if isinstance(inner, dict) and "ts" in inner:
            return {**record, tag: with_sensor(inner, sensor)}
    return record


def _glued(text: bytes, classify: Classify) -> list[bytes]:
    """The records of a line that holds several: a writer was cut off, or forgot a newline."""
    begin = text.find(b'{"', 1)
    for _ in range(MAX_GLUED_TRIES):
        if begin < 0:
            break
        if not isinstance(read_line(text[begin:], True, classify), Bad):
            head = text[:begin].strip(BLANK)
            return [*(_glued(head, classify) if _is_bad(head, classify) else [head]), text[begin:]]
        begin = text.find(b'{"', begin + 1)
    return [text]


def _is_bad(text: bytes, classify: Classify) -> bool:
    return isinstance(read_line(text, True, classify), Bad)


def _key_count(record: dict[str, Any]) -> int:
    """Keys of an object and of all objects in it."""
    count = 0
    pending: list[Any] = [record]
    while pending:
        value = pending.pop()
        count += len(value) if isinstance(value, dict) else 0
        inner = value.values() if isinstance(value, dict) else value
        pending.extend(item for item in inner if isinstance(item, (dict, list)))
    return count


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which a key stands twice: polars takes the first, orjson the last."""
    return dict(reversed(pairs))


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
        if item.kind == "int" and item.column in COUNTS and _is_beyond_64_bits(value):
            values.setdefault(name, None)
            continue
        value = _value(value, item.kind)
        if value is None:
            return Bad("bad_value", f"{'.'.join(item.path)} is not {item.kind}")
        if values.get(name) is None:
            values[name] = value
    return list(values.values())


def _is_beyond_64_bits(value: object) -> bool:
    """A counter that wrapped around: nothing is known of it, and all of the rest."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= INT64


def as_number(text: str) -> object:
    """The number that some stacks write as text; the text if it is none."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _value(value: object, kind: str) -> object:
    """`value` as `kind` has it, None when it is of another kind: what polars' reader accepts, and
    lists of texts."""
    if kind in ("text", "list", "iso"):
        return _text(value, kind)
    if kind == "bool":
        value = TRUTHS.get(value, value) if isinstance(value, str) else value
        return value if isinstance(value, bool) else None
    if isinstance(value, str) and len(value) <= MAX_NUMBER_CHARS:
        value = as_number(value)
    if kind == "ints":
        value = [value] if isinstance(value, int) else value
        good = isinstance(value, list) and all(_value(item, "int") is not None for item in value)
        return value if good else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if kind == "int":
        return value if isinstance(value, int) and -INT64 <= value < INT64 else None
    with suppress(OverflowError):
        return float(value)
    return None


def _text(value: object, kind: str) -> str | None:
    if isinstance(value, str):
        return None if value[:1] in ("{", "[") else value
    if kind == "list" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -(1 << 127) <= value < 1 << 128 else None
    if isinstance(value, float):
        written = pl.read_ndjson(b'{"text":%s}' % orjson.dumps(value), schema={"text": pl.String()})
        return str(written["text"][0])
    return None
