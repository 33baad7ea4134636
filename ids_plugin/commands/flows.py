"""`ids-plugin flows`: inputs → the flow records the pipeline sees, as Zeek's conn.log."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.options.inputs import (
    BATCH_ROWS,
    add_input_options,
    exit_code,
    locality,
    reads,
    unread,
    within_period,
)
from ids_plugin.writing import writing

if TYPE_CHECKING:
    from ids_plugin.schema.reject import Reject
    from ids_plugin.sources import Read

FORMATS = ("json", "tsv", "parquet", "arrow")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `flows`."""
    add_input_options(parser)
    parser.add_argument(
        "--format", choices=FORMATS, default="json", help="Zeek's JSON or TSV, Parquet or Arrow IPC"
    )
    parser.add_argument(
        "--community-id", action="store_true", help="captures: fill the column community_id"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="where they go (default: standard output)"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        InputError: no input could be read at all.
        UsageError: the output can't be written.
    """
    from ids_plugin.sinks.flow_files import write
    from ids_plugin.sources.ordering import ordered

    counts = {"read": 0, "rejected": 0}
    progress = console.progress("flows")
    whole: list[Reject] = []

    def tallied(steps: Iterable[Read]) -> Iterator[Read]:
        for step in steps:
            counts["read"] += step.read
            counts["rejected"] += len(step.rejects)
            whole.extend(unread(step.rejects))
            for reject in step.rejects:
                console.say(f"{reject.input}, {reject.place}: {reject.reason}: {reject.detail}")
            progress("read", step.read)
            yield within_period(step, args)

    try:
        flows = ordered(tallied(reads(args)), batch_rows=BATCH_ROWS, locality=locality(args))
        with _opened(args.output, console) as out:
            counts["flows"] = write(flows, args.format, out)
    finally:
        progress.close()
    if console.json and args.output:
        console.result(counts)
    read, flow = counted(counts["read"], "record"), counted(counts["flows"], "flow")
    console.say(f"{read} read, {counts['rejected']:,} rejected, {flow}")
    return exit_code(whole, args, console)


@contextlib.contextmanager
def _opened(path: str | None, console: Console) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears under its name when it is complete; a device or a pipe stays one."""
    if path is None:
        with writing("standard output"):
            yield console.out.buffer
            console.out.flush()
        return
    if Path(path).exists() and not Path(path).is_file():
        with writing(path), Path(path).open("wb") as stream:
            yield stream
        return
    part = Path(f"{path}.part")
    try:
        with writing(path):
            with part.open("wb") as stream:
                yield stream
            part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


PLUGIN = Command(
    "flows",
    "Write the flow records that the pipeline sees, as Zeek's conn.log.",
    "example: ids-plugin flows capture.pcap --format tsv -o conn.log",
    configure,
    run,
)
