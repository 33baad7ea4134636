"""`ids-plugin …`: finds the command, runs it, and explains errors once, here; `ids-consumer …` does
so with its own.

Exit codes: 0 done · 1 done, and `--fail-on LEVEL` was met · 2 wrong usage or configuration · 3 an
input could not be read at all · 4 a service is unreachable.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

from ids_plugin import __version__, registry
from ids_plugin.commands import Command, Console, standard
from ids_plugin.errors import IdsPluginError
from ids_plugin.writing import writing

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""as shells have it"""


class _Terminated(KeyboardInterrupt):
    """Somebody asked us to end (SIGTERM): as Ctrl-C, so that nothing half done stays behind."""


class Program(NamedTuple):
    """A command line: what it is called, and its commands."""

    name: str
    help: str
    example: str
    names: Callable[[], Iterable[str]]
    """names of the commands; none is imported for it"""
    load: Callable[[str], Command]
    """imports a command"""


PROGRAM = Program(
    "ids-plugin",
    "Learned network intrusion detection for Zeek and Suricata pipelines that says why.",
    "example: ids-plugin scan capture.pcap --out report/",
    lambda: registry.names("commands"),
    lambda name: registry.load("commands", name),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    return execute(PROGRAM, argv)


def execute(program: Program, argv: Sequence[str] | None) -> int:
    """Runs one command of a program; returns its exit code."""
    console, debug = standard(program.name), False
    try:
        with _terminable():
            arguments = sys.argv[1:] if argv is None else list(argv)
            args = _parser(program, arguments).parse_args(arguments)
            console.json, console.quiet, debug = args.json, args.quiet, args.debug
            code: int = args.run(args, console)
            with writing("standard output"):
                console.out.flush()
    except IdsPluginError as error:
        return _explain(console, str(error), error.exit_code, debug)
    except BrokenPipeError:
        _silence(console)
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _explain(console, f"{where}{(error.strerror or str(error)).lower()}", 3, debug)
    except KeyboardInterrupt as stop:
        return _stopped(console, stop, debug)
    except Exception as error:
        if isinstance(
            error.__cause__, KeyboardInterrupt
        ):  # it came while a library was being loaded
            return _stopped(console, error.__cause__, debug)
        message = (
            f"a defect of ours: {type(error).__name__}: {error} (--debug shows where; please "
            "report it)"
        )
        return _explain(console, message, 2, debug)
    return code


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stopped(console: Console, stop: KeyboardInterrupt, debug: bool) -> int:
    if isinstance(stop, _Terminated):
        return _explain(console, "terminated", TERMINATED, debug)
    return _explain(console, "interrupted", INTERRUPTED, debug)


def _explain(console: Console, message: str, code: int, debug: bool) -> int:
    with contextlib.suppress(OSError):
        console.complain(" ".join(message.splitlines()))
        if debug:
            traceback.print_exc(file=console.err)
    return code


def _silence(console: Console) -> None:
    """Whoever read standard output has gone: nothing more is written there, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), console.out.fileno())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help says more)\n")


def _parser(program: Program, arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of a program; where the arguments begin with a command, only that one is
    imported."""
    parser = _Parser(prog=program.name, description=program.help, epilog=program.example)
    parser.add_argument("--version", action="version", version=f"{program.name} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    names = tuple(program.names())
    asked = next(iter(arguments), "")
    for name in [asked] if asked in names else names:
        _add(commands, program.load(name))
    return parser


def _add(commands: argparse._SubParsersAction[_Parser], command: Command) -> None:
    parser = commands.add_parser(
        command.name,
        help=command.help,
        description=command.help,
        epilog=command.example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.configure(parser)
    _add_common(parser)
    parser.set_defaults(run=command.run)


def _add_common(parser: argparse.ArgumentParser, default: object = False) -> None:
    """Options that every command has, before and behind the name of its action."""
    parser.add_argument(
        "--version", action="version", version=f"{parser.prog.split()[0]} {__version__}"
    )
    for name, text in (
        ("--json", "machine-readable result on standard output"),
        ("--quiet", "no progress, no remarks"),
        ("--debug", "show where an error came from"),
    ):
        parser.add_argument(name, action="store_true", default=default, help=text)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _add_common(command, argparse.SUPPRESS)


if __name__ == "__main__":
    sys.exit(main())
