"""Commands of `ids-plugin`: one file each; a file here that defines `PLUGIN` is a command.

Modules import what they run inside `run`, so that `--help` and small commands start at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import orjson


class Command(NamedTuple):
    """One command: what it is called, how it is told what to do, and what it does."""

    name: str
    help: str
    example: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Console], int]
    """returns the exit code; raises errors.IdsPluginError"""


@dataclass
class Console:
    """Where a command says things: results on `out`, everything else on `err`."""

    out: TextIO
    err: TextIO
    json: bool = False
    quiet: bool = False
    program: str = "ids-plugin"

    def complain(self, message: str) -> None:
        """One line about what went wrong beside what went well, on standard error; --quiet doesn't
        hide it."""
        print(f"{self.program}: {message}", file=self.err, flush=True)

    def say(self, message: str) -> None:
        """One line for a person, on standard error; nothing with --quiet."""
        if not self.quiet:
            print(message, file=self.err, flush=True)

    def result(self, value: Any) -> None:
        """A machine-readable result: one line of JSON on standard output."""
        self.out.write(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")

    def progress(self, what: str) -> Progress:
        """A counter on standard error while it is a terminal and --quiet isn't given."""
        return Progress(self.err if self.err.isatty() and not self.quiet else None, what)


class Progress:
    """`reading 120,000 · scoring 60,000`, rewritten in place."""

    def __init__(self, stream: TextIO | None, what: str) -> None:
        self._stream, self._what = stream, what
        self._counts: dict[str, int] = {}

    def __call__(self, stage: str, count: int) -> None:
        """Adds to a stage's count and shows all of them."""
        self._counts[stage] = self._counts.get(stage, 0) + count
        if self._stream is not None:
            counts = " · ".join(f"{name} {total:,}" for name, total in self._counts.items())
            self._stream.write(f"\r\x1b[2K{self._what}: {counts}")
            self._stream.flush()

    def close(self) -> None:
        """Clears the line."""
        if self._stream is not None and self._counts:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


def standard(program: str) -> Console:
    """The process's own streams; what is written to one that was closed before we started is
    lost."""
    return Console(sys.stdout or _nowhere(), sys.stderr or _nowhere(), program=program)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")


def counted(count: int, what: str) -> str:
    """`1 alert`, `2,390 alerts`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
