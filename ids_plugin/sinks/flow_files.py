"""Flow frames as a Zeek log (JSON lines, TSV with its header), as Parquet or as an Arrow file; a
frame at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import polars as pl
import pyarrow as pa
from pyarrow import ipc, parquet

from ids_plugin.errors import UsageError
from ids_plugin.schema.flow import (
    COLUMNS,
    CONN_SCHEMA,
    DEFAULT_SENSOR,
    SCHEMA,
    SENSOR_FLAGS,
    empty,
)

FORMATS = ("json", "tsv", "parquet", "arrow")
ZEEK_TYPES = {
    "ts": "time",
    "orig_h": "addr",
    "resp_h": "addr",
    "orig_p": "port",
    "resp_p": "port",
    "proto": "enum",
    "duration": "interval",
    "tunnel_parents": "set[string]",
}
ZEEK_COLUMNS = tuple((column.name, column.zeek) for column in COLUMNS if column.zeek)
SENSOR_FLAG_OF = {judged: flag for flag, judged in SENSOR_FLAGS.items()}
LABELS = (("label", "label"), ("label_detail", "detailed-label"))
TO_ESCAPE = r'["\\\x00-\x1f]'


def write(frames: Iterable[pl.DataFrame], form: str, out: BinaryIO) -> int:
    """Writes Flow frames and returns the number of flows.

    Zeek's forms carry what a conn.log has (as `local_orig` and `local_resp` what we judge, or
    before that what the sensor says), the labels where the first frame has any, and in JSON also
    `_path` of open connections and `_system_name` of a named sensor; facts are left out. Parquet
    and Arrow carry the whole frame.

    Args:
        frames: Flow frames.
        form: one of FORMATS.
        out: need not be seekable.

    Raises:
        UsageError: there is no such form.
    """
    writers: dict[str, Callable[[Iterator[pl.DataFrame], BinaryIO], None]] = {
        "json": _write_json,
        "tsv": _write_tsv,
        "parquet": _write_parquet,
        "arrow": _write_arrow,
    }
    if form not in writers:
        raise UsageError(f"no format called {form!r}", hint=f"there are: {', '.join(FORMATS)}")
    count = 0

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal count
        for frame in frames:
            count += frame.height
            yield frame

    writers[form](counted(), out)
    return count


def _write_json(frames: Iterator[pl.DataFrame], out: BinaryIO) -> None:
    for frame in frames:
        out.write(to_json(frame))


def to_json(flows: pl.DataFrame) -> bytes:
    """A Flow frame as Zeek's JSON lines; keys of unset fields are left out."""
    if not flows.height:
        return b""
    texts = [
        name
        for name, dtype in CONN_SCHEMA.items()
        if dtype == pl.String() and name not in ("source", "origin")
    ]
    flows = flows.with_columns(_escaped(flows[name]) for name in texts)
    pairs = [_pair(zeek, _json_value(name)) for name, zeek in ZEEK_COLUMNS]
    pairs += [_pair(key, _quoted(pl.col(name))) for name, key in LABELS]
    pairs.append(_pair("_path", pl.when("open").then(pl.lit('"open_conn"'))))
    pairs.append(
        _pair(
            "_system_name",
            pl.when(pl.col("sensor") != DEFAULT_SENSOR).then(_quoted(pl.col("sensor"))),
        )
    )
    body = pl.concat_str(pairs, ignore_nulls=True).str.slice(1)
    lines = flows.select(pl.concat_str(pl.lit("{"), body, pl.lit("}"))).to_series()
    return ("\n".join(lines.to_list()) + "\n").encode()


def _value(name: str) -> pl.Expr:
    """A column; of one that says who is local what the sensor says, where we have not judged it."""
    if name in SENSOR_FLAG_OF:
        return pl.coalesce(name, SENSOR_FLAG_OF[name])
    return pl.col(name)


def _pair(key: str, value: pl.Expr) -> pl.Expr:
    return pl.concat_str(pl.lit(f',"{key}":'), value)


def _quoted(value: pl.Expr) -> pl.Expr:
    return pl.concat_str(pl.lit('"'), value, pl.lit('"'))


def _json_value(name: str) -> pl.Expr:
    """A column as JSON text, null where it is unset."""
    column, dtype = _value(name), SCHEMA[name]
    if name in ("ts", "duration"):
        return _seconds(name)
    if name == "tunnel_parents":
        return pl.concat_str(pl.lit('["'), column.str.replace_all(",", '","'), pl.lit('"]'))
    if dtype == pl.String():
        return _quoted(column)
    return column.cast(pl.String)


def _seconds(name: str) -> pl.Expr:
    """Seconds with six decimals."""
    micros = pl.col(name).to_physical().cast(pl.Int64)
    return pl.concat_str(
        micros // 1_000_000, pl.lit("."), (micros % 1_000_000).cast(pl.String).str.zfill(6)
    )


def _escaped(texts: pl.Series) -> pl.Series:
    """Texts as they stand between quotes in JSON; the few that need it are looked at one by one."""
    odd = texts.filter(texts.str.contains(TO_ESCAPE).fill_null(False)).unique()
    if not odd.len():
        return texts
    return texts.replace(
        odd, pl.Series([json.dumps(text, ensure_ascii=False)[1:-1] for text in odd])
    )


def _write_tsv(frames: Iterator[pl.DataFrame], out: BinaryIO) -> None:
    columns: list[tuple[str, str]] = []
    for frame in frames:
        if not columns:
            columns = _tsv_columns(frame)
            out.write(_tsv_header(columns))
        out.write(_tsv_rows(frame, columns))
    if not columns:
        out.write(_tsv_header(_tsv_columns(empty())))


def _tsv_columns(frame: pl.DataFrame) -> list[tuple[str, str]]:
    labelled = frame["label"].null_count() < frame.height
    return [(name, str(zeek)) for name, zeek in (*ZEEK_COLUMNS, *(LABELS if labelled else ()))]


def _tsv_header(columns: list[tuple[str, str]]) -> bytes:
    kinds = {pl.String(): "string", pl.Boolean(): "bool"}
    types = [ZEEK_TYPES.get(name) or kinds.get(SCHEMA[name], "count") for name, _ in columns]
    lines = [
        "#separator \\x09",
        "#set_separator\t,",
        "#empty_field\t(empty)",
        "#unset_field\t-",
        "#path\tconn",
        "\t".join(["#fields", *(zeek for _, zeek in columns)]),
        "\t".join(["#types", *types]),
    ]
    return ("\n".join(lines) + "\n").encode()


def _tsv_rows(frame: pl.DataFrame, columns: list[tuple[str, str]]) -> bytes:
    if not frame.height:
        return b""
    table = frame.select(_tsv_value(name) for name, _ in columns)
    text = table.write_csv(
        None, separator="\t", include_header=False, quote_style="never", null_value="-"
    )
    return text.encode()


def _tsv_value(name: str) -> pl.Expr:
    column, dtype = _value(name), SCHEMA[name]
    if name in ("ts", "duration"):
        return _seconds(name).alias(name)
    if dtype == pl.Boolean():
        return pl.when(column).then(pl.lit("T")).when(~column).then(pl.lit("F")).alias(name)
    if dtype != pl.String():
        return column
    escaped = column
    for char in "\\\t\n\r":
        escaped = escaped.str.replace_all(char, f"\\x{ord(char):02x}", literal=True)
    return escaped.replace({"-": "\\x2d", "": "(empty)", "(empty)": "\\x28empty)"}).alias(name)


def _write_parquet(frames: Iterator[pl.DataFrame], out: BinaryIO) -> None:
    schema = empty().to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    with parquet.ParquetWriter(pa.PythonFile(out, mode="w"), schema, compression="zstd") as writer:
        for frame in frames:
            writer.write_table(
                frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
            )


def _write_arrow(frames: Iterator[pl.DataFrame], out: BinaryIO) -> None:
    schema = empty().to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    options = ipc.IpcWriteOptions(compression="zstd")
    with ipc.new_file(pa.PythonFile(out, mode="w"), schema, options=options) as writer:
        for frame in frames:
            writer.write_table(
                frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
            )
