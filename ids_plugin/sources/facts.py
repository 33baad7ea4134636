"""Facts of flows: what the http, ssl, x509 and dns logs say of connections, joined to Flow frames.

A reader gives the records of these logs as fact tables (`http_table`, `tls_table`,
`certificate_table`, `answer_table`), in any order and in any number of pieces. A `FactStore` merges
them. Flows get their facts when all inputs are read (`sources.ordering`), so the order of files
doesn't matter. Facts are of one sensor each, like all state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.schema.flow import FACT_SCHEMA

MAX_ROWS = 1 << 19
"""Connections of the http log, connections of the ssl log, certificates, and pairs of a host and an
address it looked up, that a store keeps at most of each: about 250 B a connection. Beyond it those
leave that began first."""
MIN_PENDING_ROWS = 1 << 16
"""Rows that are merged together at least: merging costs as much as all rows there are."""
MAX_REQUESTS, MAX_STATUS, MAX_URI_BYTES = (1 << 16) - 1, (1 << 16) - 1, (1 << 32) - 1
DAY_S = 86_400
HOST_ADDRESS = r"^(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\])(?::\d+)?$"
"""A host of a request that is an address, with or without a port."""
BROWSER_AGENT = r"^(?:Mozilla|Opera)/"
ADDRESS = r"^[0-9a-fA-F:.]*[.:][0-9a-fA-F:.]*$"
FactTables = Mapping[str, pl.DataFrame]
"""Kind of table (`http`, `tls`, `certificate`, `answer`) → rows."""
UInt64s = npt.NDArray[np.uint64]


def http_table(requests: pl.DataFrame) -> pl.DataFrame:
    """A row for each request.

    Args:
        requests: `sensor`, `uid`, `time` (Int64 µs), `method`, `host`, `user_agent`, `referrer`
            (texts), `status` (Int64), `uri_bytes` (Int64).
    """
    agent = pl.col("user_agent")
    host = pl.col("host")
    return requests.filter(pl.col("uid").is_not_null() & pl.col("time").is_not_null()).select(
        "sensor",
        "uid",
        "time",
        pl.col("method").alias("http_method"),
        host.alias("http_host"),
        host.str.contains(HOST_ADDRESS).fill_null(value=False).alias("http_host_is_address"),
        agent.alias("http_user_agent"),
        (~agent.str.contains(BROWSER_AGENT)).fill_null(value=False).alias("http_is_tool_agent"),
        pl.col("referrer").is_not_null().alias("http_has_referrer"),
        _within("status", MAX_STATUS).alias("http_status"),
        _within("uri_bytes", MAX_URI_BYTES).alias("http_uri_bytes"),
        pl.lit(1, dtype=pl.Int64).alias("http_requests"),
    )


def _within(name: str, most: int) -> pl.Expr:
    """A number that is not negative, `most` where it is larger; null for others."""
    return pl.when(pl.col(name) >= 0).then(pl.col(name).clip(0, most)).cast(pl.Int64)


def tls_table(handshakes: pl.DataFrame) -> pl.DataFrame:
    """A row for each handshake.

    Args:
        handshakes: `sensor`, `uid`, `time` (Int64 µs), `established` (Boolean), `server_name`,
            `certificate` (texts; the second is the key of the first certificate of the server's
            chain), `is_mismatch` (Boolean).
    """
    return handshakes.filter(pl.col("uid").is_not_null() & pl.col("time").is_not_null()).select(
        "sensor",
        "uid",
        "time",
        pl.col("established").fill_null(value=True).alias("tls_established"),
        pl.col("server_name").alias("tls_server_name"),
        "certificate",
        "is_mismatch",
    )


def certificate_table(certificates: pl.DataFrame) -> pl.DataFrame:
    """A row for each certificate.

    Args:
        certificates: `sensor`, `certificate` (its key, as handshakes name it), `time` (Int64 µs),
            `subject`, `issuer` (texts), `validity_s` (Float64), `has_alternative_name` (Boolean).
    """
    subject, issuer = (pl.col(name).fill_null("") for name in ("subject", "issuer"))
    return certificates.filter(
        pl.col("certificate").is_not_null() & pl.col("time").is_not_null()
    ).select(
        "sensor",
        "certificate",
        "time",
        (subject == issuer).alias("is_self_signed"),
        (pl.col("validity_s") / DAY_S).cast(pl.Float32).alias("tls_validity_days"),
        "has_alternative_name",
    )


def answer_table(answers: pl.DataFrame) -> pl.DataFrame:
    """A row for each address in an answer; what is no address is left out.

    Args:
        answers: `sensor`, `host` (who asked), `address`, `name` (texts), `ttl` (Float64 s), `time`
            (Int64 µs, when the answer came).
    """
    is_whole = pl.all_horizontal(
        pl.col(name).is_not_null() for name in ("host", "address", "name", "time")
    )
    return answers.filter(is_whole & pl.col("address").str.contains(ADDRESS)).select(
        "sensor",
        "host",
        "address",
        "time",
        pl.col("name").alias("resp_name"),
        pl.col("ttl").cast(pl.Float32).alias("resp_name_ttl"),
    )


def _first(name: str) -> pl.Expr:
    return pl.col(name).drop_nulls().first()


def _merged_http(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a connection; merging merged rows again gives the same."""
    merged = rows.group_by("sensor", "uid", maintain_order=True).agg(
        pl.col("time").min(),
        pl.col("http_method").drop_nulls().unique().str.join(","),
        _first("http_host"),
        pl.col("http_host_is_address").any(),
        _first("http_user_agent"),
        pl.col("http_is_tool_agent").any(),
        pl.col("http_has_referrer").any(),
        pl.col("http_status").min(),
        pl.col("http_uri_bytes").max(),
        pl.col("http_requests").sum().clip(0, MAX_REQUESTS),
    )
    methods = pl.col("http_method").str.split(",").list.unique().list.sort().list.join(",")
    return merged.with_columns(pl.when(methods != "").then(methods).alias("http_method"))


def _merged_tls(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("sensor", "uid", maintain_order=True).agg(
        pl.col("time").min(),
        pl.col("tls_established").any(),
        _first("tls_server_name"),
        _first("certificate"),
        pl.col("is_mismatch").max(),
    )


def _earliest(key: Sequence[str]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def merge(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.unique(key, keep="first", maintain_order=True)

    return merge


class _Kind(NamedTuple):
    """A kind of fact table."""

    key: tuple[str, ...]
    merge: Callable[[pl.DataFrame], pl.DataFrame]
    """rows by time, several of a key → one row of each key"""


KINDS: Mapping[str, _Kind] = {
    "http": _Kind(("sensor", "uid"), _merged_http),
    "tls": _Kind(("sensor", "uid"), _merged_tls),
    "certificate": _Kind(("sensor", "certificate"), _earliest(("sensor", "certificate"))),
    "answer": _Kind(("sensor", "host", "address"), _earliest(("sensor", "host", "address"))),
}


@dataclass
class _Table:
    """The rows of one kind: merged ones, and those that came since."""

    kind: _Kind
    limit: int
    left_early: int = 0
    _merged: pl.DataFrame | None = None
    _pending: list[pl.DataFrame] = field(default_factory=list)
    _pending_rows: int = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Takes rows in."""
        if not rows.height:
            return
        self._pending.append(rows)
        self._pending_rows += rows.height
        merged_rows = 0 if self._merged is None else self._merged.height
        if self._pending_rows >= max(MIN_PENDING_ROWS, merged_rows // 2):
            self.rows()

    def rows(self) -> pl.DataFrame | None:
        """One row of each key, by time; None without any."""
        if self._pending:
            before = [] if self._merged is None else [self._merged]
            whole = pl.concat([*before, *self._pending])
            self._pending, self._pending_rows = [], 0
            # every column takes part in the order, so that it doesn't depend on that of the files
            by_time = whole.sort("time", *(name for name in whole.columns if name != "time"))
            merged = self.kind.merge(by_time)
            self.left_early += max(0, merged.height - self.limit)
            self._merged = merged.sort("time", maintain_order=True).tail(self.limit).rechunk()
        return self._merged


class _Index:
    """Rows that are looked up by their key, a batch of flows at a time."""

    def __init__(self, rows: pl.DataFrame, key: Sequence[str]) -> None:
        hashes = _hashes(rows, key)
        order = np.argsort(hashes, kind="stable")
        self._key = key
        self._hashes = hashes[order]
        self._rows = rows[order]

    def rows_of(self, flows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """The row of every flow, whose key stands in `columns`; null where there is none."""
        hashes = _hashes(flows, columns)
        place = np.searchsorted(self._hashes, hashes)
        place[place == len(self._hashes)] = 0
        has_row = pl.Series(self._hashes[place] == hashes)
        if not has_row.any():
            return self._gathered(place, has_row)
        rows = self._rows[place]
        for name, column in zip(self._key, columns, strict=True):
            has_row &= (rows[name] == flows[column]).fill_null(value=False)
        return self._gathered(place, has_row)

    def _gathered(self, place: npt.NDArray[np.int64], has_row: pl.Series) -> pl.DataFrame:
        rows = pl.Series(place).set(~has_row, None)
        return self._rows.select(pl.all().gather(rows))


def _hashes(frame: pl.DataFrame, columns: Sequence[str]) -> UInt64s:
    text = pl.concat_str(columns, separator="\t")
    hashes: UInt64s = frame.select(text.hash().alias("hash"))["hash"].to_numpy()
    return hashes


class FactStore:
    """The facts of all inputs, and the flows they are joined to; in bounded memory."""

    def __init__(self, limit: int = MAX_ROWS) -> None:
        """`limit`: rows of each kind that are kept."""
        self._tables = {name: _Table(kind, limit) for name, kind in KINDS.items()}
        self._joins: _Joins | None = None

    @property
    def left_early(self) -> int:
        """Connections, certificates and answers that left because there were more than the
        limit."""
        return sum(table.left_early for table in self._tables.values())

    def add(self, tables: FactTables) -> None:
        """Takes in what a step of reading gave."""
        for name, rows in tables.items():
            self._tables[name].add(rows)
            self._joins = None

    def fill(self, flows: pl.DataFrame) -> pl.DataFrame:
        """The Flow frame with the facts that are known of its flows; others stay as they are."""
        if self._joins is None:
            self._joins = _Joins({name: table.rows() for name, table in self._tables.items()})
        facts = self._joins.facts(flows)
        return flows.with_columns(
            pl.coalesce(pl.lit(column), name).alias(name) for name, column in facts.items()
        )


@dataclass
class _Joins:
    """All rows at one time, as they are looked up."""

    rows: Mapping[str, pl.DataFrame | None]

    def facts(self, flows: pl.DataFrame) -> dict[str, pl.Series]:
        """Fact columns of flows; those of a log that there is nothing of are missing."""
        facts: dict[str, pl.Series] = {}
        for index in (self._http, self._tls):
            if index is not None:
                facts |= _fact_columns(index.rows_of(flows, ("sensor", "uid")))
        if self._answers is not None:
            answers = self._answers.rows_of(flows, ("sensor", "orig_h", "resp_h"))
            is_before = answers["time"] <= flows["ts"].dt.epoch("us")
            known = answers.with_columns(
                pl.when(is_before).then(pl.col(name)).alias(name)
                for name in ("resp_name", "resp_name_ttl")
            )
            facts |= _fact_columns(known)
        return facts

    @cached_property
    def _http(self) -> _Index | None:
        rows = self.rows["http"]
        return None if rows is None else _Index(rows, ("sensor", "uid"))

    @cached_property
    def _answers(self) -> _Index | None:
        rows = self.rows["answer"]
        return None if rows is None else _Index(rows, ("sensor", "host", "address"))

    @cached_property
    def _tls(self) -> _Index | None:
        rows = self.rows["tls"]
        if rows is None:
            return None
        certificates = self.rows["certificate"]
        if certificates is None:
            certificates = _NO_CERTIFICATES
        joined = rows.join(certificates.drop("time"), on=["sensor", "certificate"], how="left")
        has_certificate = pl.col("is_self_signed").is_not_null()
        known = {
            "tls_is_self_signed": "is_self_signed",
            "tls_is_name_mismatch": "is_mismatch",
            "tls_has_alternative_name": "has_alternative_name",
        }
        joined = joined.with_columns(
            has_certificate.alias("tls_has_certificate"),
            *(
                pl.when(has_certificate).then(pl.col(column)).alias(name)
                for name, column in known.items()
            ),
        )
        return _Index(joined, ("sensor", "uid"))


_NO_CERTIFICATES = pl.DataFrame(
    schema={
        "sensor": pl.String,
        "certificate": pl.String,
        "time": pl.Int64,
        "is_self_signed": pl.Boolean,
        "tls_validity_days": pl.Float32,
        "has_alternative_name": pl.Boolean,
    }
)


def _fact_columns(rows: pl.DataFrame) -> dict[str, pl.Series]:
    return {
        name: rows[name].cast(FACT_SCHEMA[name]) for name in rows.columns if name in FACT_SCHEMA
    }
