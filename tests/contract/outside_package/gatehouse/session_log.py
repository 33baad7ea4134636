"""A source: the session log of a firewall, semicolon-separated values behind a title line.

    # gatehouse sessions 1
    start;seconds;from;from_port;to;to_port;transport;state;sent;received;packets_out;packets_in
    1767225600.250000;0.5;10.0.0.5;49152;10.0.0.9;443;tcp;closed;300;1200;6;5

`start` is in seconds since the epoch; `seconds`, `sent` and `received` are empty where the
firewall doesn't know them.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ids_plugin.errors import InputError
from ids_plugin.schema.reject import Reject
from ids_plugin.sources import Input, Read
from ids_plugin.sources.readers.flow_builder import build_flows

TITLE = b"# gatehouse sessions "
COLUMNS = (
    "start",
    "seconds",
    "from",
    "from_port",
    "to",
    "to_port",
    "transport",
    "state",
    "sent",
    "received",
    "packets_out",
    "packets_in",
)
ZEEK_STATES = {"closed": "SF", "unanswered": "S0", "refused": "REJ", "aborted": "RSTO"}
MICROSECONDS = 1_000_000
LONGEST_EXCERPT = 200


class SessionLog:
    """Reads what the firewall logs about sessions that have ended."""

    name = "gatehouse"

    def sniff(self, head: bytes) -> float:
        """Sure of the title line, and of nothing else."""
        return 0.95 if head.startswith(TITLE) else 0.0

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """Frames of about `batch_rows` sessions.

        Raises:
            InputError: the columns aren't those of this version.
        """
        source.stream.readline()
        columns = source.stream.readline().decode("utf-8", "replace").strip().split(";")
        if tuple(columns) != COLUMNS:
            raise InputError("its columns aren't those of version 1", location=source.name)
        number, lines = 2, []
        for line in source.stream:
            number += 1
            lines.append((number, line.decode("utf-8", "replace").rstrip("\r\n")))
            if len(lines) >= batch_rows:
                yield _frame(lines, source, self.name)
                lines = []
        if lines:
            yield _frame(lines, source, self.name)


def _frame(lines: list[tuple[int, str]], source: Input, plugin: str) -> Read:
    """Flows of some lines; a line with a wrong number of values, or a wrong value, is a reject."""
    sessions = [(number, line.split(";")) for number, line in lines]
    wrong = {number for number, values in sessions if len(values) != len(COLUMNS)}
    table = pl.DataFrame(
        [[str(number), *values] for number, values in sessions if number not in wrong],
        schema=dict.fromkeys(("line", *COLUMNS), pl.String()),
        orient="row",
    )
    built = build_flows(_draft(table), source=plugin, name=source.name, sensor=source.sensor)
    texts = dict(lines)
    reasons = [(number, "bad_session", f"not {len(COLUMNS)} values") for number in sorted(wrong)]
    reasons += [(fault.line, fault.reason, fault.detail) for fault in built.faults]
    rejects = tuple(
        Reject(source.name, f"line {number}", reason, detail, texts[number][:LONGEST_EXCERPT])
        for number, reason, detail in reasons
    )
    return Read(built.flows, read=len(lines), rejects=rejects)


def _draft(table: pl.DataFrame) -> pl.DataFrame:
    """Columns of a flow, in loose types."""

    def number(name: str) -> pl.Expr:
        return pl.col(name).cast(pl.Int64, strict=False)

    micros = (pl.col("start").cast(pl.Float64, strict=False) * MICROSECONDS).round()
    return table.select(
        line=pl.col("line").cast(pl.Int64),
        ts=micros.cast(pl.Int64, strict=False),
        duration=pl.col("seconds").cast(pl.Float64, strict=False),
        uid=pl.concat_str(pl.lit("G"), "start", "from", "from_port", separator="-"),
        orig_h=pl.col("from"),
        orig_p=number("from_port"),
        resp_h=pl.col("to"),
        resp_p=number("to_port"),
        proto=pl.col("transport"),
        conn_state=pl.col("state").replace_strict(ZEEK_STATES, default="OTH"),
        orig_bytes=number("sent"),
        resp_bytes=number("received"),
        orig_pkts=number("packets_out"),
        resp_pkts=number("packets_in"),
    )


PLUGIN = SessionLog()
