"""Published sets of ready-made features: `nslkdd:`, `cicids2017:`, `iotid20:`, `unsw:`, … and a
file, folder or glob.

They describe flows by other tools' features, so they are tables of their own and never become Flow
frames.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.datasets.published_layouts import SETS, Layout
from ids_plugin.errors import InputError, UsageError
from ids_plugin.schema.score import CLASSES

NAMES = tuple(SETS)
_ENDINGS = (".csv", ".csv.gz", ".csv.zip")
_TWICE = {"Fwd Header Length_duplicated_0": "Fwd Header Length.1"}
"""CICIDS2017 publishes one column twice under one name"""
_KDD_ORDER = ("duration", "protocol_type", "service", "flag")


@dataclass(frozen=True)
class Table:
    """n records of a published set; rows that a model couldn't tell apart are one."""

    name: str
    features: pl.DataFrame
    """(n) Float64 for numbers, finite; String for categories"""
    label: pl.Series
    """(n) of schema.score.CLASSES"""
    detail: pl.Series
    """(n) the set's own label, in lower case"""
    counts: dict[str, int]
    """`read`, `not_finite` (dropped: a number missing, NaN or infinite), `duplicates` (dropped),
    `rows`"""
    files: dict[str, str]
    """name → SHA-256"""

    @property
    def summary(self) -> str:
        """One line: what was read and what was dropped."""
        counts = self.counts
        return (
            f"{self.name}: {counts['read']:,} rows read, {counts['not_finite']:,} without a "
            "finite number dropped, "
            f"{counts['duplicates']:,} duplicates dropped, {counts['rows']:,} left"
        )

    def numbers(self) -> npt.NDArray[np.int64]:
        """(n) class numbers, indices into CLASSES."""
        return self.label.replace_strict(
            list(CLASSES), list(range(len(CLASSES))), return_dtype=pl.Int64
        ).to_numpy()

    def matrix(self, known: Table) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
        """Names (F) and values (n, F): numbers as they are, categories one-hot over the values that
        `known` has.

        Args:
            known: the table that a model is trained on; what it hasn't got is 0 in every column of
                the category.

        Raises:
            UsageError: the two tables don't have the same features.
        """
        if self.features.schema != known.features.schema:
            raise UsageError(
                f"{self.name} and {known.name} have different features and can't be used together"
            )
        columns: list[pl.Expr] = []
        for name, dtype in self.features.schema.items():
            if dtype != pl.String:
                columns.append(pl.col(name))
                continue
            values = known.features[name].unique().sort()
            columns += [
                (pl.col(name) == value).cast(pl.Float64).alias(f"{name}={value}")
                for value in values
            ]
        wide = self.features.select(columns)
        return tuple(wide.columns), wide.to_numpy()


def load_table(spec: str) -> Table:
    """The records of `NAME:PATH`; several files (a folder's CSV files, a glob) are joined in the
    order of their names.

    Raises:
        UsageError: the name is none of NAMES.
        InputError: a file can't be read, lacks a column or has one too many, has text where a
            number belongs or a label that the set hasn't got; or no row is left, or all are of one
            class.
    """
    name, _, path = spec.partition(":")
    if name not in SETS or not path:
        raise UsageError(
            f"no set of ready-made features called {spec!r}", hint=f"there are: {', '.join(NAMES)}"
        )
    files = _files(Path(path))
    layouts = SETS[name]
    parts = []
    for file in files:
        frame, layout = _frame(file, layouts)
        parts.append(_typed(frame, layout, file))
        layouts = (layout,)
    return _table(name, pl.concat(parts), layouts[0], files, path)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.lower().endswith(_ENDINGS))
        if not files:
            raise InputError(f"no file there ends in {', '.join(_ENDINGS)}", location=str(path))
        return files
    files = sorted(Path(name) for name in glob(str(path)))
    if not files:
        raise InputError("no such file or folder", location=str(path))
    return files


def _frame(file: Path, layouts: Sequence[Layout]) -> tuple[pl.DataFrame, Layout]:
    """The file's texts under their published names, and the form that they are of."""
    try:
        frame = pl.read_csv(
            _bytes(file),
            has_header=layouts[0].header,
            infer_schema=False,
            encoding="utf8-lossy",
            null_values=[""],
        )
        if layouts[0].header:
            frame = frame.rename(
                {old: _TWICE.get(old.strip(), old.strip()) for old in frame.columns}
            )
    except (pl.exceptions.PolarsError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"is no table that can be read: {str(error).splitlines()[0]}", location=str(file)
        ) from error
    if not layouts[0].header:
        return _named(frame, layouts[0], file), layouts[0]
    wrong = {index: _wrong(frame.columns, layout) for index, layout in enumerate(layouts)}
    index = min(wrong, key=lambda candidate: len(wrong[candidate][0]) + len(wrong[candidate][1]))
    missing, extra = wrong[index]
    if missing:
        raise InputError(
            f"column {', '.join(map(repr, missing[:5]))} is missing", location=str(file)
        )
    if extra:
        raise InputError(
            f"column {', '.join(map(repr, extra[:5]))} isn't of this set", location=str(file)
        )
    return frame, layouts[index]


def _bytes(file: Path) -> bytes:
    if file.suffix.lower() != ".zip":
        return file.read_bytes()
    with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
        tables = [
            member
            for member in archive.namelist()
            if member.endswith(".csv") and not member.startswith("__MACOSX/")
        ]
        if len(tables) != 1:
            raise InputError(
                f"holds {len(tables)} CSV files where one is expected", location=str(file)
            )
        return archive.read(tables[0])


def _wrong(columns: Sequence[str], layout: Layout) -> tuple[list[str], list[str]]:
    """Columns that are missing, and those that are too many."""
    allowed = {*layout.required, *layout.optional}
    return [column for column in layout.required if column not in columns], [
        column for column in columns if column not in allowed
    ]


def _named(frame: pl.DataFrame, layout: Layout, file: Path) -> pl.DataFrame:
    """NSL-KDD has no header: its columns are known by their order."""
    rest = tuple(name for name in layout.numbers if name not in _KDD_ORDER)
    names = (*_KDD_ORDER, *rest, layout.label, *layout.optional)
    least = len(names) - len(layout.optional)
    if not least <= frame.width <= len(names):
        what = (
            f"column {names[frame.width]!r} is missing"
            if frame.width < least
            else "has columns too many"
        )
        raise InputError(
            f"{what}: {frame.width} columns, not {least} or {len(names)}", location=str(file)
        )
    return frame.rename(dict(zip(frame.columns, names, strict=False)))


def _typed(frame: pl.DataFrame, layout: Layout, file: Path) -> pl.DataFrame:
    """Features, and `?detail`: the label."""
    numbers = frame.select(
        pl.col(name).str.strip_chars().cast(pl.Float64, strict=False) for name in layout.numbers
    )
    for name in layout.numbers:
        odd = (
            frame[name].is_not_null()
            & numbers[name].is_null()
            & (frame[name].str.strip_chars() != "")
        )
        if odd.any():
            row = int(odd.arg_true()[0])
            where = f"{file}, column {name!r}, row {row + 1}"
            raise InputError(f"{frame[name][row]!r} is no number", location=where)
    label = pl.col(layout.label).fill_null("")
    if layout.by_file:
        attack = file.name.split(".")[0].removeprefix("uniflow_").removeprefix("biflow_")
        label = label.replace({"0": "normal", "0.0": "normal", "1": attack, "1.0": attack})
    tidy = label.str.to_lowercase().str.replace_all("[^a-z0-9]+", " ").str.strip_chars()
    return frame.select(
        *(numbers[name] for name in layout.numbers),
        *(pl.col(name).fill_null("").str.strip_chars() for name in layout.texts),
        tidy.alias("?detail"),
        pl.lit(str(file)).alias("?file"),
    )


def _table(
    name: str, rows: pl.DataFrame, layout: Layout, files: Sequence[Path], path: str
) -> Table:
    finite = rows.filter(pl.all_horizontal(pl.col(layout.numbers).is_finite().fill_null(False)))
    strange = finite.filter(~pl.col("?detail").is_in(list(layout.classes)))
    if len(strange):
        row = strange.row(0, named=True)
        where = f"{row['?file']}, column {layout.label!r}"
        raise InputError(
            f"label {row['?detail']!r} is none of {', '.join(layout.classes)}", location=where
        )
    unique = finite.unique(subset=[*layout.features, "?detail"], keep="first", maintain_order=True)
    label = unique["?detail"].replace_strict(layout.classes, return_dtype=pl.String).alias("label")
    if label.n_unique() < 2:
        what = f"all {len(unique):,} rows are {label[0]!r}" if len(unique) else "no row is left"
        raise InputError(
            f"{what}: two classes are needed",
            location=path,
            hint="name a folder or a glob of files",
        )
    counts = {
        "read": len(rows),
        "not_finite": len(rows) - len(finite),
        "duplicates": len(finite) - len(unique),
        "rows": len(unique),
    }
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    features = unique.select(layout.features)
    return Table(name, features, label, unique["?detail"].alias("detail"), counts, digests)
