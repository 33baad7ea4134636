"""`ids-plugin flows`: inputs → the flow records the pipeline sees, as Zeek's conn.log."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ids_plugin import api
from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.options.inputs import (
    InputTally,
    add_input_options,
    exit_code,
    input_options,
    interrupt_reads,
    unmeasured,
)
from ids_plugin.sinks.flow_files import FORMATS, write
from ids_plugin.sources import Read
from ids_plugin.writing import writing


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
    options, output = input_options(args), args.output
    interrupt_reads()
    tally = InputTally(console, "flows")

    def watch(step: Read) -> None:
        tally(step)
        for reject in step.rejects:
            console.say(f"{reject.input}, {reject.place}: {reject.reason}: {reject.detail}")

    try:
        steps = api.watched(api.read_steps(args.inputs, options), watch)
        with _opened(output, console) as out:
            flows = write(api.iter_flows(steps, options), args.format, out)
    finally:
        tally.progress.close()
    if console.json and output:
        console.result({"read": tally.records, "rejected": tally.rejected, "flows": flows})
    parts = [
        f"{counted(tally.records, 'record')} read",
        f"{tally.rejected:,} rejected",
        counted(flows, "flow"),
        *([f"{tally.out_of_scope:,} out of scope"] if tally.out_of_scope else []),
        *unmeasured(tally.notes),
    ]
    console.say(", ".join(parts))
    return exit_code(tally.unread, args.inputs, console)


@contextlib.contextmanager
def _opened(path: str | None, console: Console) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears under its name when it is complete; a device or a
    pipe stays one."""
    if path in (None, "-"):
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
