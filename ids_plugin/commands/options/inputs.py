"""Options that every command with INPUTs has, and what they stand for."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ids_plugin.api import InputOptions
from ids_plugin.commands import counted
from ids_plugin.commands.options.access import access, add_login_options
from ids_plugin.errors import UsageError
from ids_plugin.schema.packet_kinds import describe_kinds, unmeasured_kinds
from ids_plugin.schema.reject import WHOLE
from ids_plugin.sources import ReadOptions

if TYPE_CHECKING:
    from ids_plugin.commands import Console
    from ids_plugin.schema.reject import Reject
    from ids_plugin.sources import Read

UNREAD = 3
"""exit code when an input asked for by its name could not be read at all"""

METERS = ("builtin", "zeek", "suricata")


def add_input_options(parser: argparse.ArgumentParser, *, least: int = 1) -> None:
    """INPUT… (at least so many: 1 or 0) and how to read them."""
    parser.add_argument(
        "inputs",
        nargs="+" if least else "*",
        metavar="INPUT",
        help="capture (pcap, pcapng), Zeek conn.log (TSV or JSON), Suricata eve.json, each also "
        ".gz, .zst, .xz or .bz2; a "
        "directory of these, a glob, or - for standard input; kinds are found by content. Or "
        "elasticsearch:URL/INDEX, "
        "connections that a stack has indexed",
    )
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        metavar="NAME=GLOB",
        help="inputs whose names match GLOB come from sensor NAME; repeatable; all others are one "
        "sensor",
    )
    parser.add_argument(
        "--local-nets",
        default="",
        metavar="NETS",
        help="comma-separated local networks; otherwise private addresses and public ones that "
        "the sensor flags as"
        " local, or where there are none the busiest address",
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
        help="captures: whether packets with wrong checksums count, as with zeek -C, or not "
        "(default: %(default)s, "
        "because hosts that leave checksums to their network card capture wrong ones)",
    )
    parser.add_argument(
        "--open-every",
        type=float,
        default=0,
        metavar="SECONDS",
        help="captures: also records of TCP connections that have lasted this long and are still "
        "open, every SECONDS",
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="ISO 8601, UTC unless it says otherwise; flows that start later",
    )
    parser.add_argument("--until", metavar="TIME", help="flows that start before")
    add_login_options(parser.add_argument_group("for elasticsearch: inputs"))


def input_options(args: argparse.Namespace) -> InputOptions:
    """What the options say of how inputs are read.

    Raises:
        UsageError: an option isn't what it should be; standard input is to be read and was closed.
        ConfigError: settings don't fit together.
    """
    if sys.stdin is None and "-" in args.inputs:
        raise UsageError("standard input is closed")
    return InputOptions(
        sensors=tuple(_sensor(text) for text in args.sensor),
        local_nets=tuple(text for text in args.local_nets.split(",") if text.strip()),
        reading=ReadOptions(
            meter=args.meter,
            verify_checksums=args.checksums == "verify",
            open_every_s=args.open_every,
            community_id=getattr(args, "community_id", False),
            since=moment(args.since, "--since"),
            until=moment(args.until, "--until"),
        ),
        elasticsearch=access(args),
        stdin=sys.stdin.buffer if sys.stdin else None,
    )


def interrupt_reads() -> None:
    """Lets Ctrl-C end a read that waits for input: Polars has blocked reads begin again."""
    signal.siginterrupt(signal.SIGINT, True)


class InputTally:
    """What reading the inputs of a command gave beside flows, and its progress."""

    def __init__(self, console: Console, command: str) -> None:
        self.records = self.rejected = self.out_of_scope = 0
        self.unread: list[Reject] = []
        """inputs of which nothing could be read, or that gave nothing"""
        self.notes: dict[str, int] = {}
        self.progress = console.progress(command)
        self._console = console

    def __call__(self, step: Read) -> None:
        """Counts a step of reading."""
        self.records += step.read
        self.rejected += len(step.rejects)
        self.out_of_scope += sum(step.out_of_scope.values())
        whole = (*step.rejects, *step.warnings)
        self.unread += [reject for reject in whole if reject.place == WHOLE]
        warn(self._console, step.warnings)
        for name, count in step.notes.items():
            self.notes[name] = self.notes.get(name, 0) + count
        self.progress("read", step.read)

    def close(self, what: str = "record") -> None:
        """Ends the progress, and complains of what can't be read."""
        self.progress.close()
        if self.rejected:
            self._console.complain(
                f"{counted(self.rejected, what)} can't be read: ids-plugin flows says which"
            )


def warn(console: Console, warnings: Iterable[Reject]) -> None:
    """Says what a person should know about the inputs; `exit_code` speaks of whole ones."""
    for warning in warnings:
        if warning.place != WHOLE:
            console.complain(f"{warning.input}, {warning.place}: {warning.detail}")


def unmeasured(notes: Mapping[str, object]) -> list[str]:
    """What of captures was not measured, as a part of a summary."""
    kinds = unmeasured_kinds(notes)
    if not kinds:
        return []
    return [f"{counted(sum(kinds.values()), 'packet')} not measured ({describe_kinds(kinds)})"]


def exit_code(unread: Iterable[Reject], inputs: Sequence[str], console: Console) -> int:
    """Names the inputs that could not be read or gave nothing; UNREAD if one of them was asked for
    by its name, else 0."""
    code = 0
    for reject in unread:
        console.complain(f"{reject.input}: {reject.detail}")
        code = UNREAD if reject.input in inputs else code
    return code


def moment(text: str | None, option: str) -> datetime | None:
    """The time an option gives.

    Raises:
        UsageError: it is no ISO 8601 time.
    """
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r} is no time", hint="such as 2026-11-21T06:00:00"
        ) from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _sensor(text: str) -> tuple[str, str]:
    name, separator, pattern = text.partition("=")
    if not (name and separator and pattern):
        raise UsageError(
            f"--sensor {text!r} is not NAME=GLOB", hint="such as --sensor 'branch=logs/branch/*'"
        )
    return name, pattern
