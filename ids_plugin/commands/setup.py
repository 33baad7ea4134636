"""`ids-plugin setup`: what services need of ours. A module here called `_setup_NAME` is a target, by its `TARGET`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Iterator

from ids_plugin import commands
from ids_plugin.commands import Command, Console

_PREFIX = "_setup_"


def targets() -> Iterator[Command]:
    """All targets, in the order of their names."""
    for module in sorted(one.name for one in pkgutil.iter_modules(commands.__path__) if one.name.startswith(_PREFIX)):
        yield importlib.import_module(f"ids_plugin.commands.{module}").TARGET


def configure(parser: argparse.ArgumentParser) -> None:
    """A target and its options."""
    choices = parser.add_subparsers(dest="target", metavar="TARGET", required=True, help="which service to set up")
    for target in targets():
        one = choices.add_parser(target.name, help=target.help, description=target.help, epilog=target.example)
        target.configure(one)
        one.add_argument("--dry-run", action="store_true", help="only say what would be changed")
        one.set_defaults(run_target=target.run)


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        UsageError, ConfigError: options or settings that can't be.
        MissingExtraError: the target needs an extra that isn't installed.
        ServiceError: a step can't be done; what was done before it stays.
    """
    code: int = args.run_target(args, console)
    return code


PLUGIN = Command(
    "setup",
    "Install in other services what ours need there; again and again, it changes only what differs.",
    "example: ids-plugin setup elasticsearch --url https://localhost:9200 --api-key-file key --dry-run",
    configure,
    run,
)
