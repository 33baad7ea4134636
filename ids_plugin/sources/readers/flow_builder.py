"""Loose columns as a reader finds them → Flow frame; what can't be a flow's value becomes a fault
of its record."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import polars as pl

from ids_plugin.errors import DialectError
from ids_plugin.schema.flow import (
    CONN_SCHEMA,
    DEFAULT_SENSOR,
    SENSOR_FLAGS,
    empty,
    with_facts,
)

EARLIEST, LATEST = 0, 4_102_444_800
"""Seconds: 1970, where clocks begin that nobody has set, and 2100. Times lie between them, in
whichever unit they are written."""
LONGEST_MEDIAN = 1e7
"""Seconds: no log has connections that last 115 days in the middle; one that claims so counts in
another unit."""
IPV4 = r"^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.|$)){4}$"
COUNTS = (
    "orig_bytes",
    "resp_bytes",
    "missed_bytes",
    "orig_pkts",
    "orig_ip_bytes",
    "resp_pkts",
    "resp_ip_bytes",
)


class Fault(NamedTuple):
    """Why the record at a place (line number) is no flow."""

    line: int
    reason: str
    detail: str


class BuiltFlows(NamedTuple):
    """Flows of the good records, faults of the others, in the order read."""

    flows: pl.DataFrame
    faults: tuple[Fault, ...]


def times(numeric: pl.Expr) -> pl.Expr:
    """Float64 in s, ms, µs or ns since the epoch, told apart by magnitude → Int64 µs, null outside
    1970-2100."""
    factor = (
        pl.when(numeric < LATEST)
        .then(1e6)
        .when(numeric < LATEST * 1e3)
        .then(1e3)
        .when(numeric < LATEST * 1e6)
        .then(1.0)
        .otherwise(1e-3)
    )
    micros = (numeric * factor).round()
    return pl.when(micros.is_between(EARLIEST * 1e6, LATEST * 1e6)).then(micros).cast(pl.Int64)


def text_times(texts: pl.Series) -> pl.Series:
    """ISO 8601 (no offset means UTC; offsets with or without a colon), or numbers as text → Int64
    µs or null."""
    micros = _iso(texts)
    if micros.null_count() == texts.null_count():
        return micros
    odd = texts.str.replace(r"[Zz]$", "+0000").str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
    odd = odd.str.replace(r"(T\d\d:\d\d:\d\d(?:\.\d+)?)$", "${1}+0000")
    numbers = pl.select(times(pl.lit(texts.cast(pl.Float64, strict=False)))).to_series()
    return (
        pl.select(pl.coalesce(pl.lit(micros), pl.lit(_iso(odd)), pl.lit(numbers)))
        .to_series()
        .rename(texts.name)
    )


def _iso(texts: pl.Series) -> pl.Series:
    zulu = texts.len() and str(texts.drop_nulls().first()).endswith("Z")
    form = "%Y-%m-%dT%H:%M:%S%.fZ" if zulu else "%Y-%m-%dT%H:%M:%S%.f%z"
    micros = texts.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("us")
    return micros.set(~micros.is_between(EARLIEST * 1_000_000, LATEST * 1_000_000), None)


def build_flows(draft: pl.DataFrame, *, source: str, name: str, sensor: str) -> BuiltFlows:
    """Flow frame of a draft.

    Args:
        draft: columns of the Flow frame in loose types, absent ones unknown: `ts` Int64 µs,
            `duration` Float64 seconds, ports, counts and `ip_proto` Int64, text, booleans; and
            `line` Int64, the record's place. A `sensor` column says what the message says;
            `local_orig` and `local_resp` what the sensor says: they become `sensor_local_orig` and
            `sensor_local_resp`.
        source: the plugin's name.
        name: the input's name.
        sensor: what the command says; DEFAULT_SENSOR leaves it to the message.
    """
    if not draft.height:
        return BuiltFlows(empty(), ())
    plan = _plan(tuple(draft.columns), source, sensor)
    origin = pl.concat_str(pl.lit(f"{name}:"), pl.col("line").cast(pl.String)).alias("origin")
    made = draft.select(*plan, origin)
    if made["_odd"].any():
        draft = _canonical(draft)
        made = draft.select(*plan, origin)
    flows = with_facts(made.drop("_odd"))
    if not draft.select(_extremes(tuple(draft.columns))).item():
        return BuiltFlows(flows, ())
    wrong = draft.select(pl.any_horizontal(test for _, test in _wrong(draft.columns))).to_series()
    return BuiltFlows(flows.filter(~wrong), _faults(draft.filter(wrong)))


@cache
def _plan(columns: tuple[str, ...], source: str, sensor: str) -> tuple[pl.Expr, ...]:
    """Typed columns of the Flow frame but `origin`, then `_odd`: an address isn't plain IPv4."""
    absent = {
        name: pl.lit(None, dtype=dtype)
        for name, dtype in CONN_SCHEMA.items()
        if name not in columns
    }
    sensor_name = (
        pl.lit(sensor)
        if sensor != DEFAULT_SENSOR
        else _column("sensor", absent).fill_null(DEFAULT_SENSOR)
    )
    no_ports = (_column("proto", absent) == "unknown_transport") & (_column("orig_p", absent) == 0)
    no_ports = (no_ports & (_column("resp_p", absent) == 0)).fill_null(False)
    derived = {
        "sensor": sensor_name,
        "source": pl.lit(source),
        "open": _column("open", absent).fill_null(False),
        "ts": pl.from_epoch("ts", "us").dt.replace_time_zone("UTC"),
        "duration": (_seconds(absent) * 1e6)
        .round()
        .cast(pl.Int64, strict=False)
        .cast(pl.Duration("us")),
        "orig_p": pl.when(~no_ports).then(_column("orig_p", absent)),
        "resp_p": pl.when(~no_ports).then(_column("resp_p", absent)),
    }
    for flag, judged in SENSOR_FLAGS.items():
        derived[flag] = _column(judged, absent)
        derived[judged] = pl.lit(None)
    typed = [
        (derived[name] if name in derived else _column(name, absent))
        .cast(dtype, strict=False)
        .alias(name)
        for name, dtype in CONN_SCHEMA.items()
        if name != "origin"
    ]
    odd = [~_column(name, absent).str.contains(IPV4) for name in ("orig_h", "resp_h")]
    return (*typed, pl.any_horizontal(odd).fill_null(False).alias("_odd"))


@cache
def _extremes(columns: tuple[str, ...]) -> pl.Expr:
    """Whether any record may be wrong, from the least and greatest values: cheaper than asking
    each."""
    tests = [pl.col(name).is_null().any() for name in ("ts", "orig_h", "resp_h")]
    limits = {"orig_p": 65535, "resp_p": 65535, "ip_proto": 255}
    tests += [pl.col(name).max() > limit for name, limit in limits.items() if name in columns]
    tests += [pl.col(name).min() < 0 for name in (*limits, *COUNTS, "duration") if name in columns]
    if "duration" in columns:
        longest = pl.col("duration").cast(pl.Float64).max()
        tests += [
            pl.col("ts").max() / 1e6 + longest > LATEST,
            pl.col("duration").cast(pl.Float64).is_nan().any(),
        ]
    return pl.any_horizontal(test.fill_null(False) for test in tests)


def _column(name: str, absent: dict[str, pl.Expr]) -> pl.Expr:
    return absent.get(name, pl.col(name))


def _seconds(absent: dict[str, pl.Expr]) -> pl.Expr:
    return _column("duration", absent).cast(pl.Float64)


def _wrong(columns: Sequence[str]) -> list[tuple[str, pl.Expr]]:
    """Reasons and when they hold; never null."""
    tests = [
        ("bad_time", pl.col("ts").is_null()),
        ("bad_address", pl.any_horizontal(pl.col("orig_h", "resp_h").is_null())),
    ]
    port = [~pl.col(name).is_between(0, 65535) for name in ("orig_p", "resp_p") if name in columns]
    count = [pl.col(name) < 0 for name in COUNTS if name in columns]
    if port:
        tests.append(("bad_port", pl.any_horizontal(port)))
    if "duration" in columns:
        duration = pl.col("duration").cast(pl.Float64)
        late = pl.col("ts") / 1e6 + duration > LATEST
        tests.append(("bad_duration", (duration < 0) | ~duration.is_finite() | late))
    if count:
        tests.append(("bad_count", pl.any_horizontal(count)))
    if "ip_proto" in columns:
        tests.append(("bad_ip_proto", ~pl.col("ip_proto").is_between(0, 255)))
    return [(reason, test.fill_null(False)) for reason, test in tests]


def _faults(draft: pl.DataFrame) -> tuple[Fault, ...]:
    reason = pl.coalesce(
        pl.when(test).then(pl.lit(reason)) for reason, test in _wrong(draft.columns)
    )
    rows = draft.with_columns(reason.alias("reason")).sort("line").iter_rows(named=True)
    return tuple(Fault(row["line"], row["reason"], _detail(row)) for row in rows)


def _detail(row: dict[str, object]) -> str:
    columns = {
        "bad_time": (),
        "bad_address": ("orig_h", "resp_h"),
        "bad_port": ("orig_p", "resp_p"),
        "bad_duration": ("duration",),
        "bad_count": COUNTS,
        "bad_ip_proto": ("ip_proto",),
    }[str(row["reason"])]
    if not columns:
        return "no time between 1970 and 2100 in s, ms, µs, ns or ISO 8601"
    return ", ".join(
        f"{name} {row.get(name)}"
        for name in columns
        if row.get(name) is not None or columns is not COUNTS
    )


def _canonical(draft: pl.DataFrame) -> pl.DataFrame:
    """Addresses in canonical text form; null where they are none."""
    for name in ("orig_h", "resp_h"):
        old = draft[name].filter(~draft[name].str.contains(IPV4)).unique()
        new = pl.Series([canonical_address(address) for address in old], dtype=pl.String)
        draft = draft.with_columns(pl.col(name).replace(old, new))
    return draft


def canonical_address(text: str) -> str | None:
    """Canonical text form of an IPv4 or IPv6 address, None when it is none."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        return None


def refuse_wrong_units(made: BuiltFlows, name: str) -> None:
    """Refuses a source whose first records can't be in the units it claims.

    Raises:
        DialectError: most of its times are no times, its durations no seconds, or its IP bytes no
            IP bytes.
    """
    late = sum(fault.reason == "bad_time" for fault in made.faults)
    if late > made.flows.height + len(made.faults) - late:
        detail = "most records have no time between 1970 and 2100 in s, ms, µs, ns or ISO 8601"
        raise DialectError(f"ts can't be a time: {detail}", location=name)
    seconds = made.flows["duration"].drop_nulls().dt.total_microseconds() / 1e6
    seconds = seconds.filter(seconds > 0)
    middle = seconds.median()
    if isinstance(middle, float) and middle > LONGEST_MEDIAN:
        raise DialectError(
            "duration can't be in seconds: "
            f"half the connections would last {middle / 86400:,.0f} days",
            location=name,
            hint="is it in ms, µs or ns?",
        )
    whole = seconds.len() >= 20 and bool((seconds % 1 == 0).all())
    if whole and isinstance(middle, float) and middle >= 1000:
        raise DialectError(
            "duration can't be in seconds: all are whole numbers of 1,000 and more", location=name
        )
    _refuse_wrong_bytes(made.flows, name)


def _refuse_wrong_bytes(flows: pl.DataFrame, name: str) -> None:
    sent = flows.select(
        pl.col("orig_pkts").alias("packets"), pl.col("orig_ip_bytes").alias("bytes")
    )
    sent = sent.drop_nulls().filter(pl.col("packets") > 0)
    short = sent.filter(pl.col("bytes") < 20 * pl.col("packets")).height
    if sent.height >= 20 and short > sent.height / 2:
        raise DialectError(
            f"orig_ip_bytes can't be IP bytes: {short} of {sent.height} flows "
            "have less than 20 bytes a packet",
            location=name,
            hint="an IP header alone has 20; is it payload, or another unit?",
        )
