"""Zeek's tab-separated logs: header directives, any separator, files joined end to end, IoT-23's
labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ids_plugin.errors import InputError
from ids_plugin.schema.flow import ZEEK_NAMES, empty
from ids_plugin.sources import Input, Read
from ids_plugin.sources.readers import zeek_facts
from ids_plugin.sources.readers.flow_builder import (
    COUNTS,
    BuiltFlows,
    Fault,
    build_flows,
    refuse_wrong_units,
    text_times,
    times,
)
from ids_plugin.sources.readers.lines import Chunk, TooLong, chunks, count, whole_lines
from ids_plugin.sources.readers.ndjson import (
    BULK_PARTS,
    INT64,
    MIN_BULK_LINES,
    rejects_of,
    too_long,
)

CHUNK_BYTES = 4 << 20
BYTES_PER_RECORD = 150
GLUED = "   "
"""IoT-23 puts its labels into the last field, after three spaces."""
INTS = frozenset(("orig_p", "resp_p", *COUNTS, "ip_proto"))
FLOATS = frozenset(("ts", "duration"))
TEXTS = ("uid", "proto", "service", "conn_state", "history", "tunnel_parents", "community_id")
BOOLS = frozenset(("local_orig", "local_resp"))
LABELS = {"label": "label", "detailed-label": "label_detail", "label_detail": "label_detail"}
IDS = {
    name.replace("id.", "id_"): column
    for name, column in ZEEK_NAMES.items()
    if name.startswith("id.")
}
NAMES = {**ZEEK_NAMES, **IDS, **LABELS}
REQUIRED = ("ts", "orig_h", "resp_h")
OPEN = re.compile(r"(open[-_]conn|conn[-_]long)")
ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|\\)")
INTEGER = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Header:
    """What the directives before the records say."""

    separator: str = "\t"
    set_separator: str = ","
    empty: str = "(empty)"
    unset: str = "-"
    path: str = ""
    fields: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def is_conn(self) -> bool:
        """Its records are about connections."""
        return self.path == "conn" or bool({"conn_state", "orig_ip_bytes"} & set(self.fields))


def is_header(head: bytes) -> bool:
    """Whether these first bytes begin a Zeek TSV log."""
    return head.removeprefix(b"\xef\xbb\xbf").startswith(
        (b"#separator", b"#fields", b"#path", b"#set_separator")
    )


def read(source: Input, batch_rows: int) -> Iterator[Read]:
    """Reads a Zeek TSV log to its end; logs that are not about connections are counted by their
    path.

    Raises:
        InputError: no `#fields` before the first record, or no ts and addresses among them.
        DialectError: the first records can't be in the units they claim.
    """
    size = min(CHUNK_BYTES, max(1 << 16, batch_rows * BYTES_PER_RECORD))
    for made, _ in _parts_read(source, iter([whole_lines(source.head)])):
        refuse_wrong_units(made, source.name)
        break
    for _, step in _parts_read(source, chunks(source.stream, size)):
        yield step


def _parts_read(
    source: Input, pieces: Iterator[Chunk | TooLong]
) -> Iterator[tuple[BuiltFlows, Read]]:
    """What the records between directives gave."""
    header = Header()
    for piece in pieces:
        if isinstance(piece, TooLong):
            yield BuiltFlows(empty(), ()), Read(empty(), 1, (too_long(source.name, piece),))
            continue
        for part in _parts(piece):
            if part.data.startswith(b"#"):
                header = directive(header, part.data)
            else:
                yield _records(source, part, header)


def _parts(piece: Chunk) -> Iterator[Chunk]:
    """Directives one by one, and the records between them."""
    data, start, line = piece.data, 0, piece.first
    while start < len(data):
        if data.startswith(b"#", start):
            end = data.find(b"\n", start) + 1 or len(data)
        else:
            end = data.find(b"\n#", start) + 1 or len(data)
        part = data[start:end] if (start, end) != (0, len(data)) else data
        lines = piece.lines if part is data else count(part, b"\n") + (not part.endswith(b"\n"))
        yield Chunk(part, line, lines)
        start, line = end, line + lines


def directive(header: Header, data: bytes) -> Header:
    """The header with one directive line taken in; #open, #close and comments change nothing."""
    line = data.decode("utf-8", "replace").rstrip("\r\n").removeprefix("\ufeff")
    if line.startswith("#separator"):
        return replace(Header(), separator=unescape(line[len("#separator") :].strip(" \t") or "\t"))
    key, _, value = line.partition(header.separator)
    if key in ("#fields", "#types"):
        return replace(header, **{key[1:]: tuple(value.split(header.separator))})  # type: ignore[arg-type]
    slots = {
        "#set_separator": "set_separator",
        "#empty_field": "empty",
        "#unset_field": "unset",
        "#path": "path",
    }
    return replace(header, **{slots[key]: unescape(value)}) if key in slots else header  # type: ignore[arg-type]


def unescape(text: str) -> str:
    r"""Text with Zeek's escapes resolved: `\x..` is a byte, `\\` a backslash."""
    if "\\" not in text:
        return text
    raw = ESCAPE.sub(
        lambda match: bytes.fromhex(match[1].decode()) if match[1] else b"\\", text.encode()
    )
    return raw.decode("utf-8", "replace")


def _unescaped(texts: pl.Series) -> pl.Series:
    old = texts.filter(texts.str.contains("\\", literal=True).fill_null(False)).unique()
    return (
        texts.replace(old, pl.Series([unescape(text) for text in old], dtype=pl.String))
        if old.len()
        else texts
    )


def _records(source: Input, part: Chunk, header: Header) -> tuple[BuiltFlows, Read]:
    if not header.fields:
        raise InputError(
            "a Zeek log without #fields before its records", location=f"{source.name}:{part.first}"
        )
    if not header.is_conn:
        return BuiltFlows(empty(), ()), _other_log(source, part, header)
    columns = _columns(header, source.name)
    frame = _whole_chunk(part, header, columns)
    faults: list[Fault] = []
    if frame is None:
        frame, faults = _line_by_line(part, header, columns)
    draft = _draft(frame, header, b"\\" in part.data)
    made = build_flows(draft, source="zeek", name=source.name, sensor=source.sensor)
    rejects = rejects_of(source.name, part, [*faults, *made.faults])
    return made, Read(made.flows, made.flows.height + len(rejects), rejects)


def _other_log(source: Input, part: Chunk, header: Header) -> Read:
    """Records that are no connections, of which some logs say facts."""
    lines = [line for line in part.data.split(b"\n") if line.strip()]
    log = zeek_facts.log_of(header.path, header.fields)
    out_of_scope = {f"zeek_{header.path or 'other'}": len(lines)} if lines else {}
    if log is None or not lines:
        return Read(empty(), len(lines), (), out_of_scope)
    records = _texts(lines, header, zeek_facts.fields_of(log))
    broken = len(lines) - records.height
    out_of_scope = {f"facts_{log}": records.height, f"zeek_{log}": broken}
    return Read(
        empty(),
        len(lines),
        (),
        {reason: number for reason, number in out_of_scope.items() if number},
        facts=zeek_facts.tables(log, records, source.sensor),
    )


def _texts(lines: list[bytes], header: Header, wanted: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The wanted fields of the lines that have as many fields as the header names, as they stand:
    unset and empty ones null, sets taken apart, escapes resolved."""
    separator = header.separator.encode()
    whole = [line for line in lines if line.count(separator) == len(header.fields) - 1]
    names = {name: name for name in wanted} | {name.replace(".", "_"): name for name in wanted}
    places = {names[name]: index for index, name in enumerate(header.fields) if name in names}
    if not whole or len(separator) != 1:
        return pl.DataFrame(schema={name: wanted[name] for name in places})
    frame = pl.read_csv(
        b"\n".join(line.removesuffix(b"\r") for line in whole),
        has_header=False,
        schema={f"{index}": pl.String() for index in range(len(header.fields))},
        separator=header.separator,
        quote_char=None,
        null_values=list({header.unset, header.empty, ""}),
        encoding="utf8-lossy",
    )
    return frame.select(
        _plain_texts(frame[f"{place}"], header, is_set=wanted[name] != pl.String()).alias(name)
        for name, place in places.items()
    )


def _plain_texts(texts: pl.Series, header: Header, *, is_set: bool) -> pl.Series:
    """Texts with their escapes resolved, or the texts of sets."""
    if not is_set:
        return _unescaped(texts)
    sets = texts.str.split(header.set_separator)
    if not texts.str.contains("\\", literal=True).any():
        return sets
    escape = pl.element().map_batches(_unescaped, return_dtype=pl.String)
    return sets.list.eval(escape)


def _columns(header: Header, name: str) -> list[str]:
    """Names of the fields as the reader calls them: ours where it is a flow's, `?n` where it is
    ignored."""
    columns: list[str] = []
    for index, field in enumerate(header.fields):
        column = GLUED if GLUED in field else NAMES.get(field, f"?{index}")
        columns.append(f"?{index}" if column in columns else column)
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise InputError(
            f"a conn log without {', '.join(missing)}",
            location=name,
            hint="its #fields don't name them",
        )
    return columns


def _dtype(column: str, text_time: bool) -> pl.DataType:
    if column == "ts" and text_time:
        return pl.String()
    return pl.Int64() if column in INTS else pl.Float64() if column in FLOATS else pl.String()


def _whole_chunk(part: Chunk, header: Header, columns: list[str]) -> pl.DataFrame | None:
    """All records in one go; None where a line has another number of fields or a value of another
    type."""
    separator = header.separator.encode()
    data = part.data.replace(b"\r\n", b"\n") if b"\r" in part.data else part.data
    if (
        len(separator) != 1
        or count(data, separator) != part.lines * (len(columns) - 1)
        or b"\r" in data
    ):
        return None
    schema = {column: _dtype(column, False) for column in columns}
    try:
        frame = pl.read_csv(
            data,
            has_header=False,
            schema=schema,
            separator=header.separator,
            quote_char=None,
            null_values=[header.unset],
        )
    except (pl.exceptions.PolarsError, ValueError):
        return None
    if frame.height != part.lines or frame["ts"].null_count():
        return None
    used = [column for column in columns if not column.startswith("?")]
    first = pl.int_range(part.first, part.first + part.lines, dtype=pl.Int64).alias("line")
    return frame.select(first, *used).with_columns(times(pl.col("ts")))


def _line_by_line(
    part: Chunk, header: Header, columns: list[str]
) -> tuple[pl.DataFrame, list[Fault]]:
    """Lines with the right number of fields together as far as they parse, the others one by
    one."""
    lines = part.data.split(b"\n")[: part.lines]
    separator = header.separator.encode()
    whole = [
        index
        for index, line in enumerate(lines)
        if line.count(separator) == len(columns) - 1 and _is_text(line)
    ]
    frames = list(_in_bulk(lines, whole, header, columns))
    done = {index for frame in frames for index in frame["line"]}
    ended = part.data.endswith(b"\n")
    rest = [
        (index, line, ended or index < len(lines) - 1)
        for index, line in enumerate(lines)
        if index not in done
    ]
    frame, faults = _one_by_one(rest, header, columns)
    frame = pl.concat([*frames, frame]).sort("line").with_columns(pl.col("line") + part.first)
    return frame, [fault._replace(line=part.first + fault.line) for fault in faults]


def _in_bulk(
    lines: list[bytes], chosen: list[int], header: Header, columns: list[str]
) -> Iterator[pl.DataFrame]:
    """Frames of the chosen lines, of all or of parts of them, as far as they parse; `line` is the
    index of a line."""
    if not chosen:
        return
    frame = _whole_chunk(
        Chunk(b"\n".join(lines[index] for index in chosen), 0, len(chosen)), header, columns
    )
    if frame is not None:
        yield frame.with_columns(pl.Series("line", chosen, dtype=pl.Int64).gather(frame["line"]))
    elif len(chosen) >= 2 * MIN_BULK_LINES:
        size = -(-len(chosen) // BULK_PARTS)
        for index in range(0, len(chosen), size):
            yield from _in_bulk(lines, chosen[index : index + size], header, columns)


def _is_text(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _one_by_one(
    lines: list[tuple[int, bytes, bool]], header: Header, columns: list[str]
) -> tuple[pl.DataFrame, list[Fault]]:
    """Reads (number, line, whether its newline is there) one by one."""
    rows: list[list[Any]] = []
    faults: list[Fault] = []
    for number, line, ended in lines:
        text = line.removesuffix(b"\r")
        if not text.strip():
            continue
        values = _record(text, header, columns, ended)
        if isinstance(values, Fault):
            faults.append(values._replace(line=number))
        else:
            rows.append([number, *values])
    used = [column for column in columns if not column.startswith("?")]
    schema = {"line": pl.Int64(), **{column: _dtype(column, True) for column in used}}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(text_times(frame["ts"])), faults


def _record(line: bytes, header: Header, columns: list[str], ended: bool) -> list[Any] | Fault:
    try:
        texts = line.decode("utf-8").split(header.separator)
    except UnicodeDecodeError as error:
        return Fault(0, "bad_utf8", str(error).split(":")[0])
    if len(texts) != len(columns):
        if not ended:
            return Fault(0, "cut_off", "the input ends in the middle of this record")
        return Fault(
            0, "wrong_fields", f"{len(texts)} fields where the header names {len(columns)}"
        )
    values: list[Any] = []
    for column, text in zip(columns, texts, strict=True):
        if column.startswith("?"):
            continue
        value = None if text in (header.unset, "") else _value(column, text)
        if value is ValueError:
            return Fault(0, "bad_value", f"{column} is no number: {text[:40]!r}")
        values.append(value)
    return values


def _value(column: str, text: str) -> object:
    """A number where the column has numbers, ValueError where it is none."""
    if column in INTS:
        text = text.lstrip(" ")
        number = int(text) if INTEGER.fullmatch(text) and len(text) < 30 else None
        if number is not None and number >= INT64 and column in COUNTS:
            return None
        return number if number is not None and -INT64 <= number < INT64 else ValueError
    if column == "duration":
        try:
            return float(text)
        except ValueError:
            return ValueError
    return text


def _draft(frame: pl.DataFrame, header: Header, escaped: bool) -> pl.DataFrame:
    """The records' texts as a draft has them: empty and unset null, escapes resolved, labels taken
    apart."""
    if GLUED in frame.columns:
        frame = _unglued(frame, header)
    texts = [
        name
        for name in ("service", "tunnel_parents", "label", "label_detail")
        if name in frame.columns
    ]
    frame = frame.with_columns(pl.col(name).replace([header.empty, ""], None) for name in texts)
    if escaped:
        frame = frame.with_columns(
            _unescaped(frame[name]) for name in TEXTS if name in frame.columns
        )
    if header.set_separator != ",":
        sets = [name for name in ("tunnel_parents",) if name in frame.columns]
        frame = frame.with_columns(
            pl.col(name).str.replace_all(header.set_separator, ",", literal=True) for name in sets
        )
    switches = [
        pl.col(name).replace_strict({"T": True, "F": False}, default=None)
        for name in BOOLS & set(frame.columns)
    ]
    lower = [pl.col("label").str.to_lowercase()] if "label" in frame.columns else []
    return frame.with_columns(
        *switches, *lower, pl.lit(bool(OPEN.search(header.path))).alias("open")
    )


def _unglued(frame: pl.DataFrame, header: Header) -> pl.DataFrame:
    """The columns of the field that holds several, parted by three spaces; one that is there
    already stays as it is."""
    glued = next(field for field in header.fields if GLUED in field)
    names = [NAMES.get(field, "") for field in glued.split(GLUED)]
    parts = frame[GLUED].str.splitn(GLUED, len(names)).struct.unnest()
    texts = {*TEXTS, *LABELS.values()} - set(frame.columns)
    new = {name: part for name, part in zip(names, parts, strict=True) if name in texts}
    clean = [
        part.str.strip_chars(" ").replace(header.unset, None).alias(name)
        for name, part in new.items()
    ]
    return frame.drop(GLUED).with_columns(clean)
