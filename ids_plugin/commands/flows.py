"""`ids-plugin flows`: inputs → the flow records the pipeline sees, as Zeek's conn.log."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ids_plugin.commands import Command, Console
from ids_plugin.commands._inputs import add_input_options, reads, within_period

if TYPE_CHECKING:
    from ids_plugin.sources import Read

FORMATS = ("json", "tsv", "parquet", "arrow")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `flows`."""
    add_input_options(parser)
    parser.add_argument("--format", choices=FORMATS, default="json", help="Zeek's JSON or TSV, Parquet or Arrow IPC")
    parser.add_argument("-o", "--output", metavar="FILE", help="where they go (default: standard output)")


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        InputError: an input could not be read at all.
    """
    from ids_plugin.commands._inputs import BATCH_ROWS
    from ids_plugin.sources._order import ordered
    from ids_plugin.sources._write import write

    counts = {"read": 0, "rejected": 0}
    progress = console.progress("flows")

    def counted(steps: Iterable[Read]) -> Iterator[Read]:
        for step in steps:
            counts["read"] += step.read
            counts["rejected"] += len(step.rejects)
            for reject in step.rejects:
                console.say(f"{reject.input}, {reject.place}: {reject.reason}: {reject.detail}")
            progress("read", step.read)
            yield within_period(step, args)

    with _opened(args.output, console) as out:
        counts["flows"] = write(ordered(counted(reads(args)), batch_rows=BATCH_ROWS), args.format, out)
    progress.close()
    console.say(f"{counts['read']:,} records read, {counts['rejected']:,} rejected, {counts['flows']:,} flows")
    return 0


@contextlib.contextmanager
def _opened(path: str | None, console: Console) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears under its name when it is complete."""
    if path is None:
        yield console.out.buffer
        return
    part = Path(f"{path}.part")
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


PLUGIN = Command(
    "flows",
    "Write the flow records that the pipeline sees, as Zeek's conn.log.",
    "example: ids-plugin flows capture.pcap --format tsv -o conn.log",
    configure,
    run,
)
