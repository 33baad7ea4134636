"""The command `ids-consumer replay`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ids_plugin import config
from ids_plugin.commands import Command, Console, counted

# the options of inputs are those of `ids-plugin scan`: replay takes what scan takes
from ids_plugin.commands.options.inputs import (
    InputTally,
    add_input_options,
    exit_code,
    input_options,
    interrupt_reads,
)
from ids_plugin.errors import UsageError

if TYPE_CHECKING:
    from ..replay import Replayed

SPEED = re.compile(r"(\d+(?:\.\d+)?|\.\d+)x?")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `replay`."""
    add_input_options(parser)
    parser.add_argument(
        "--topic", required=True, help="where the records go: one that normalise reads"
    )
    parser.add_argument(
        "--speed",
        default="1x",
        metavar="NX",
        help="1x: as it was, 10x: ten times as fast, max (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, help="partitions at random, the same for the same number; else in turn"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Sends all flows of the inputs.

    Raises:
        InputError: no input could be read at all.
        UsageError: an option isn't what it should be.
        ServiceError: Kafka doesn't answer at the start, or takes no such records.
    """
    from ..replay import ReplayOptions, replay

    options = ReplayOptions(
        topic=args.topic,
        inputs=tuple(args.inputs),
        reading=input_options(args),
        speed=_speed(args.speed),
        seed=args.seed,
    )
    settings = config.load(Path(args.config) if args.config else None)
    tally, notice = InputTally(console, "replay"), WaitNotice(console)
    interrupt_reads()
    try:
        replayed = replay(options, settings, tally, tally.progress, notice)
    finally:
        tally.progress.close()
    _report(console, args.topic, tally, replayed)
    return exit_code(tally.unread, args.inputs, console)


class WaitNotice:
    """Says once that Kafka takes no records, and once that it takes them again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_waiting = False

    def __call__(self, reason: str) -> None:
        """`reason`: why nothing is sent at the moment; empty where records are sent."""
        if bool(reason) != self._is_waiting:
            self._console.complain(f"waiting: {reason}" if reason else "sending again")
        self._is_waiting = bool(reason)


def _speed(text: str) -> float | None:
    """How many times as fast; None: as fast as possible.

    Raises:
        UsageError: it is no speed.
    """
    if text == "max":
        return None
    match = SPEED.fullmatch(text)
    if not match or not float(match[1]):
        raise UsageError(f"--speed {text!r} is no speed", hint="such as 1x, 10x or max")
    return float(match[1])


def _report(console: Console, topic: str, tally: InputTally, replayed: Replayed) -> None:
    flows = sum(replayed.flows.values())
    if console.json:
        console.result(
            {
                "topic": topic,
                "run": replayed.run,
                "read": tally.records,
                "rejected": tally.rejected,
                "out_of_scope": tally.out_of_scope,
                "flows": flows,
                "sensors": dict(sorted(replayed.flows.items())),
                "seconds": round(replayed.seconds, 3),
            }
        )
    console.say(
        f"{counted(flows, 'flow')} of {counted(len(replayed.flows), 'sensor')} sent to "
        f"{topic} in {replayed.seconds:,.1f} s"
    )


PLUGIN = Command(
    "replay",
    "Send captures and logs onto the streaming pipeline as their sensors would.",
    "example: ids-consumer replay capture.pcap --topic zeek --speed max --config ids.toml",
    configure,
    run,
)
