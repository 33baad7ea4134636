"""Labels that somebody wrote for their own flows: a CSV file by uid, or by host and time."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from ids_plugin.errors import InputError
from ids_plugin.schema.score import CLASSES

_BY_UID = ("uid", "class")
_BY_HOST = ("host", "class", "from", "to")
_LINE = "?line"


def labelled(flows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The flows with `label` (`benign` where no line fits) and `label_detail` (the line).

    Columns `uid,class`, or `host,class,from,to`: flows of the host, in either role, that begin in
    that time, its ends included; ISO 8601 (UTC unless it says otherwise) or seconds since 1970;
    nothing there is no bound. Of several lines that fit a flow the first holds.

    Raises:
        InputError: the file can't be read, has other columns, a class that isn't ours, a host that
            is no address, a time that is none, or a line that fits no flow.
    """
    table = _table(path)
    first, unused = (
        _by_uid(flows, table) if "uid" in table.columns else _by_host(flows, table, path)
    )
    if unused:
        raise InputError(
            "fits no flow", location=f"{path}, line {unused[0]}", hint="an address, a uid or UTC?"
        )
    classes = dict(zip(table[_LINE], table["class"], strict=True))
    return flows.with_columns(
        label=first.replace_strict(classes, default="benign", return_dtype=pl.String),
        label_detail=(f"{path.name}, line " + first.cast(pl.String)),
    )


def _table(path: Path) -> pl.DataFrame:
    try:
        table = pl.read_csv(path, infer_schema=False, null_values=[""])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"can't be read: {str(error).splitlines()[0]}", location=str(path)
        ) from error
    table = table.rename({name: name.strip() for name in table.columns}).with_columns(
        pl.all().str.strip_chars()
    )
    wanted = _BY_UID if "uid" in table.columns else _BY_HOST
    absent = [name for name in wanted if name not in table.columns]
    extra = [name for name in table.columns if name not in wanted]
    if absent or extra:
        what = f"column {absent[0]!r} is missing" if absent else f"column {extra[0]!r} isn't known"
        raise InputError(
            what, location=str(path), hint=f"{','.join(_BY_UID)} or {','.join(_BY_HOST)}"
        )
    table = table.with_columns(pl.int_range(2, pl.len() + 2).alias(_LINE))
    for line, name in table.select(_LINE, "class").iter_rows():
        if name not in CLASSES:
            raise InputError(
                f"class {name!r} is none of {', '.join(CLASSES)}", location=f"{path}, line {line}"
            )
    return table


def _by_uid(flows: pl.DataFrame, table: pl.DataFrame) -> tuple[pl.Series, list[int]]:
    """The first line that fits each flow, and the lines that fit none."""
    lines = table.unique("uid", keep="first", maintain_order=True).select("uid", _LINE)
    first = flows.select("uid").join(lines, on="uid", how="left", maintain_order="left")[_LINE]
    return first, table.filter(~pl.col("uid").is_in(flows["uid"].implode()))[_LINE].to_list()


def _by_host(flows: pl.DataFrame, table: pl.DataFrame, path: Path) -> tuple[pl.Series, list[int]]:
    """As _by_uid."""
    first = np.zeros(len(flows), dtype=np.int64)
    unused = []
    for host, start, end, line in table.select("host", "from", "to", _LINE).iter_rows():
        where = f"{path}, line {line}"
        try:
            address = str(ipaddress.ip_address(host or ""))
        except ValueError as error:
            raise InputError(f"{host!r} is no address", location=where) from error
        here = (pl.col("orig_h") == address) | (pl.col("resp_h") == address)
        if start is not None:
            here &= pl.col("ts") >= _time(start, where)
        if end is not None:
            here &= pl.col("ts") <= _time(end, where)
        fits = flows.select(here.fill_null(False)).to_series().to_numpy()
        if not fits.any():
            unused.append(line)
        first[fits & (first == 0)] = line
    return pl.Series(_LINE, first).replace(0, None), unused


def _time(text: str, where: str) -> datetime:
    try:
        if text.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(text), UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{text!r} is no time", location=where, hint="2026-11-21T09:30:00Z"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
