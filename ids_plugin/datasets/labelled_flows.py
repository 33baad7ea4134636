"""Labelled flows by name: `lab:DIR_OR_FILE` (or a glob), `iot23:FILE`, and `zeek:PATH` with a file
of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from io import BytesIO
from pathlib import Path

import polars as pl

from ids_plugin import registry
from ids_plugin.datasets.feature_tables import NAMES as TABLES
from ids_plugin.datasets.label_files import labelled
from ids_plugin.errors import InputError, UsageError
from ids_plugin.schema import flow
from ids_plugin.schema.score import CLASSES
from ids_plugin.sources import Input, Read
from ids_plugin.sources.facts import FactStore
from ids_plugin.sources.inputs import read_inputs
from ids_plugin.sources.readers.lines import HEAD

_ALWAYS = ("sensor", "ts", "uid", "orig_h", "resp_h", "proto")
"""columns in which nothing may be absent"""
_WHAT = {
    pl.Int64: "a count", pl.UInt16: "a port", pl.UInt8: "a protocol "
                                                        "number", pl.Boolean: "true or false",
    pl.Datetime: "a time", pl.Duration: "a duration", pl.String: "text",
}  # fmt: skip
_APART = {
    "nab": "time series; python -m tests.bench.nab judges AE-LSTM on them",
    "uniflow": "single directions of connections, for train --family tiny_cnn alone",
}
"""kind that isn't flows → what it is for"""


@dataclass(frozen=True)
class Labelled:
    """The flows of one network (sensor) with labels of schema.score.CLASSES."""

    name: str
    flows: pl.DataFrame
    file: str
    """name of the (first) file they were read from"""
    sha256: str
    """of that file; of `zeek:` also of the others and of the labels"""


def load(spec: str, labels: Path | None = None) -> list[Labelled]:
    """The networks of `KIND:PATH`, in the order of their names.

    Args:
        spec: such as `lab:flows/`.
        labels: of `zeek:`, see sources._labels; other kinds have their own and leave it alone.

    Raises:
        UsageError: the kind is unknown, or has features instead of flows (sources._features), or
            lacks its labels.
        InputError: a file is absent, lacks a column, or has labels that aren't ours.
    """
    kind, _, path = spec.partition(":")
    if kind in TABLES:
        raise UsageError(
            f"{kind}: is a set of ready-made features, no flows", hint=f"flows: {', '.join(KINDS)}"
        )
    if kind in _APART:
        raise UsageError(f"{kind}: has no flows", hint=_APART[kind])
    if kind not in KINDS or not path:
        raise UsageError(
            f"no data set called {spec!r}", hint=f"there are: {', '.join(KINDS)}, each with :PATH"
        )
    if kind == "zeek" and labels is None:
        raise UsageError("zeek: needs the labels of its flows", hint="--labels FILE")
    networks = list(
        _zeek(Path(path), labels) if kind == "zeek" and labels else _KINDS[kind](Path(path))
    )
    if not networks:
        raise InputError("no labelled flows there", location=path)
    return networks


def files(spec: str) -> list[Path]:
    """The files of `KIND:PATH`, in order, without the labels.

    Raises:
        InputError: there is none.
    """
    named = sorted(Path(name) for name in glob(spec.partition(":")[2]))
    if not named:
        raise InputError("no such file or folder", location=spec.partition(":")[2])
    return [
        file
        for path in named
        for file in (sorted(path.rglob("*.parquet")) if path.is_dir() else [path])
    ]


def _lab(path: Path) -> Iterator[Labelled]:
    for file in files(f"lab:{path}"):
        yield from _networks(file.stem, _frame(file), file)


def _frame(file: Path) -> pl.DataFrame:
    """A Flow frame from Parquet; whatever a model would quietly take for something else is
    refused."""
    try:
        frame = flow.with_sensor_flags(pl.read_parquet(file))
        frame = flow.with_facts(frame) if "origin" in frame.columns else frame
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError("is no Parquet file that can be read", location=str(file)) from error
    absent = [name for name in flow.SCHEMA if name not in frame.columns]
    extra = [name for name in frame.columns if name not in flow.SCHEMA]
    if absent or extra:
        what = (
            f"column {absent[0]} is missing"
            if absent
            else f"column {extra[0]} is no column of flows"
        )
        raise InputError(what, location=str(file), hint="made by the lab or by ids-plugin feedback")
    return pl.DataFrame([_column(frame[name], dtype, file) for name, dtype in flow.SCHEMA.items()])


def _column(column: pl.Series, dtype: pl.DataType, file: Path) -> pl.Series:
    where = f"{file}, column {column.name!r}"
    try:
        made = column.cast(dtype, strict=False)
        lost = column.is_not_null() & made.is_null()
        if column.dtype.is_float() and dtype.is_integer():
            lost |= (column != column.floor()).fill_null(value=False)
        if dtype.is_signed_integer() or dtype == pl.Duration:
            lost |= (made.to_physical() < 0).fill_null(value=False)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"holds {column.dtype} where {_WHAT[type(dtype)]} belongs", location=where
        ) from error
    if column.name in _ALWAYS:
        lost |= column.is_null()
    if lost.any():
        row = int(lost.arg_true()[0])
        shown = "nothing" if column[row] is None else repr(str(column[row]))
        raise InputError(
            f"{shown} where {_WHAT[type(dtype)]} belongs", location=f"{where}, row {row + 1}"
        )
    return made


def _iot23(path: Path) -> Iterator[Labelled]:
    zeek = registry.load("sources", "zeek")
    if not path.is_file():
        raise InputError("no such file", location=str(path))
    with path.open("rb") as stream:
        head = stream.read(HEAD)
        stream.seek(0)
        read = [
            _whole(step) for step in zeek.read(Input(str(path), stream, head, path.stem), 50_000)
        ]
    flows = pl.concat(read) if read else flow.empty()
    strange = flows.filter(
        ~pl.col("label").str.to_lowercase().is_in(["benign", "malicious"]).fill_null(value=False)
    )
    if len(strange):
        shown = "no label" if strange["label"][0] is None else f"label {strange['label'][0]!r}"
        where = f"{path}, column 'label', uid {strange['uid'][0]}"
        raise InputError(f"{shown} where Benign or Malicious belongs", location=where)
    if len(flows):
        yield from _networks(
            path.name.split(".")[0], flows.with_columns(label=_iot23_class()), path
        )


def _iot23_class() -> pl.Expr:
    """IoT-23's detailed labels as classes: https://www.stratosphereips.org/datasets-iot23
    ("Labels")."""
    detail = pl.col("label_detail").fill_null("").str.to_lowercase()
    return (
        pl.when(pl.col("label").str.to_lowercase() == "benign").then(pl.lit("benign"))
        .when(detail.str.contains("c&c|heartbeat|filedownload|torii")).then(pl.lit("command_and_control"))
        .when(detail.str.contains("ddos")).then(pl.lit("flood"))
        .when(detail.str.contains("portscan")).then(pl.lit("scan"))
        .when(detail.str.contains("okiru|attack")).then(pl.lit("spreading"))
        .otherwise(pl.lit("other"))
    )  # fmt: skip


def _zeek(path: Path, labels: Path) -> Iterator[Labelled]:
    """Conn logs of one network: a file or a glob."""
    files = sorted(Path(name) for name in glob(str(path)))
    if not files:
        raise InputError("no such file", location=str(path))
    read, facts = [], FactStore()
    for step in read_inputs([str(file) for file in files], batch_rows=50_000, stdin=BytesIO()):
        flows = _whole(step)
        if step.source != "zeek":
            raise InputError("is no log of Zeek's", location=str(path))
        read.append(flows)
        facts.add(step.facts)
    if not sum(map(len, read)):
        raise InputError("no connection in it", location=str(path))
    yield from _networks(
        path.name.split(".")[0], labelled(facts.fill(pl.concat(read)), labels), *files, labels
    )


def _whole(step: Read) -> pl.DataFrame:
    """The flows of a step, if all of it could be read: what is lost of labelled data is lost of
    every figure."""
    if step.rejects:
        bad = step.rejects[0]
        raise InputError(
            f"{bad.reason}: {bad.detail}", location=f"{bad.input}, {bad.place}", hint="leave it out"
        )
    return step.flows


def _networks(name: str, flows: pl.DataFrame, *files: Path) -> Iterator[Labelled]:
    flows = flows.with_columns(label=pl.col("label").fill_null("benign"))
    strange = sorted(set(flows["label"].unique()) - set(CLASSES))
    if strange:
        where = f"{files[0]}, column 'label'"
        raise InputError(f"label {strange[0]!r} is none of {', '.join(CLASSES)}", location=where)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    for (sensor,), part in flows.group_by("sensor", maintain_order=True):
        yield Labelled(
            name if flows["sensor"].n_unique() == 1 else f"{name}/{sensor}",
            part,
            files[0].name,
            digest,
        )


_KINDS: dict[str, Callable[[Path], Iterator[Labelled]]] = {"lab": _lab, "iot23": _iot23}
KINDS = (*_KINDS, "zeek")
