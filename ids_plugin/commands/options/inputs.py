"""Options that every command with INPUTs has, and what they stand for."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ids_plugin.commands import counted
from ids_plugin.commands.options.access import access, add_login_options
from ids_plugin.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from ids_plugin.commands import Console
    from ids_plugin.schema.reject import Reject
    from ids_plugin.sources import Read
    from ids_plugin.sources.local_networks import Locality

UNREAD = 3
"""exit code when an input asked for by its name could not be read at all"""

METERS = ("builtin", "zeek", "suricata")
BATCH_ROWS = 65_536
"""Records read at a time: large enough that per-batch costs vanish, small enough that a batch is 30 MB"""


def add_input_options(parser: argparse.ArgumentParser, *, least: int = 1) -> None:
    """INPUT… (at least so many: 1 or 0) and how to read them."""
    parser.add_argument(
        "inputs",
        nargs="+" if least else "*",
        metavar="INPUT",
        help="capture (pcap, pcapng), Zeek conn.log (TSV or JSON), Suricata eve.json, each also .gz or .zst; a "
        "directory of these, a glob, or - for standard input; kinds are found by content. Or elasticsearch:URL/INDEX, "
        "connections that a stack has indexed",
    )
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        metavar="NAME=GLOB",
        help="inputs whose names match GLOB come from sensor NAME; repeatable; all others are one sensor",
    )
    parser.add_argument(
        "--local-nets",
        default="",
        metavar="NETS",
        help="comma-separated local networks; otherwise the sensor's own flags, private ranges, or the busiest address",
    )
    parser.add_argument(
        "--meter",
        choices=METERS,
        default="builtin",
        help="what reads captures (default: %(default)s)",
    )
    parser.add_argument(
        "--checksums",
        choices=("ignore", "verify"),
        default="ignore",
        help="captures: whether packets with wrong checksums count, as with zeek -C, or not (default: %(default)s, "
        "because hosts that leave checksums to their network card capture wrong ones)",
    )
    parser.add_argument(
        "--open-every",
        type=float,
        default=0,
        metavar="SECONDS",
        help="captures: also records of TCP connections that have lasted this long and are still open, every SECONDS",
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="ISO 8601, UTC unless it says otherwise; flows that start later",
    )
    parser.add_argument("--until", metavar="TIME", help="flows that start before")
    add_login_options(parser.add_argument_group("for elasticsearch: inputs"))


def reads(args: argparse.Namespace) -> Iterator[Read]:
    """All records of the inputs that `args` name.

    Raises:
        UsageError: standard input is to be read and was closed; an option isn't what it should be.
        ServiceError: the Elasticsearch of an input can't be reached, or refuses us.
    """
    from ids_plugin.sources.inputs import read_inputs

    if sys.stdin is None and "-" in args.inputs:
        raise UsageError("standard input is closed")
    signal.siginterrupt(
        signal.SIGINT, True
    )  # or Ctrl-C waits for input: Polars has blocked reads restart
    return read_inputs(
        args.inputs,
        batch_rows=BATCH_ROWS,
        stdin=sys.stdin.buffer if sys.stdin else io.BytesIO(),
        sensors=[_sensor(text) for text in args.sensor],
        options={
            "meter": args.meter,
            "open_every": str(args.open_every),
            "checksums": args.checksums,
            "community_id": "yes" if getattr(args, "community_id", False) else "",
            "since": _iso(args.since, "--since"),
            "until": _iso(args.until, "--until"),
        },
        elasticsearch=lambda: access(args),
    )


def within_period(step: Read, args: argparse.Namespace) -> Read:
    """The step without the flows outside --since and --until; these are out of scope."""
    import polars as pl

    flows = step.flows
    since, until = moment(args.since, "--since"), moment(args.until, "--until")
    if since is not None:
        flows = flows.filter(pl.col("ts") >= since)
    if until is not None:
        flows = flows.filter(pl.col("ts") < until)
    left_out = len(step.flows) - len(flows)
    if not left_out:
        return step
    return replace(step, flows=flows, out_of_scope=step.out_of_scope | {"outside_period": left_out})


def locality(args: argparse.Namespace) -> Locality:
    """What is local: what --local-nets says, else what the flows show.

    Raises:
        ConfigError: it names what is no network.
    """
    from ids_plugin.sources.local_networks import Locality, networks

    return Locality(networks([text for text in args.local_nets.split(",") if text.strip()]))


def unread(rejects: Iterable[Reject]) -> list[Reject]:
    """Those that are inputs of which nothing could be read."""
    from ids_plugin.schema.reject import WHOLE

    return [reject for reject in rejects if reject.place == WHOLE]


def read_flows(
    args: argparse.Namespace, console: Console, whole: list[Reject], *, of: str = ""
) -> Iterator[pl.DataFrame]:
    """The flows of the inputs in order; inputs of which nothing could be read go into `whole`. How many records (`of`
    what) can't be read is complained of at the end."""
    from ids_plugin.pipeline import BATCH
    from ids_plugin.sources.ordering import ordered

    rejected = 0

    def tallied() -> Iterator[Read]:
        nonlocal rejected
        for step in reads(args):
            whole.extend(unread(step.rejects))
            rejected += len(step.rejects)
            progress("read", step.read)
            yield within_period(step, args)

    progress = console.progress(args.command)
    try:
        yield from ordered(tallied(), batch_rows=BATCH, locality=locality(args))
    finally:
        progress.close()
    if rejected:
        console.complain(
            f"{counted(rejected, 'record')}{of} can't be read: ids-plugin flows says which"
        )


def exit_code(inputs: Iterable[Reject], args: argparse.Namespace, console: Console) -> int:
    """Names the inputs of which nothing could be read; UNREAD if one of them was asked for by its name, else 0."""
    code = 0
    for reject in inputs:
        console.complain(f"{reject.input}: {reject.detail}")
        code = UNREAD if reject.input in args.inputs else code
    return code


def moment(text: str | None, option: str) -> datetime | None:
    """The time an option gives.

    Raises:
        UsageError: it is no ISO 8601 time.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r} is no time", hint="such as 2026-11-21T06:00:00"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _iso(text: str | None, option: str) -> str:
    found = moment(text, option)
    return found.isoformat() if found else ""


def _sensor(text: str) -> tuple[str, str]:
    name, separator, pattern = text.partition("=")
    if not (name and separator and pattern):
        raise UsageError(
            f"--sensor {text!r} is not NAME=GLOB", hint="such as --sensor 'branch=logs/branch/*'"
        )
    return name, pattern
