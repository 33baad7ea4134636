"""`ids-plugin setup`: installs in other services what ours need there; one module a service."""

from __future__ import annotations

import argparse

from ids_plugin.commands import Command, Console
from ids_plugin.commands.setup import elasticsearch, kafka, kibana

TARGETS = (elasticsearch.TARGET, kafka.TARGET, kibana.TARGET)


def configure(parser: argparse.ArgumentParser) -> None:
    """A target and its options."""
    choices = parser.add_subparsers(
        dest="target", metavar="TARGET", required=True, help="which service to set up"
    )
    for target in TARGETS:
        subparser = choices.add_parser(
            target.name, help=target.help, description=target.help, epilog=target.example
        )
        target.configure(subparser)
        subparser.add_argument(
            "--dry-run", action="store_true", help="only say what would be changed"
        )
        subparser.set_defaults(run_target=target.run)


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
    "Install in other services what ours need there; "
    "again and again, it changes only what differs.",
    "example: ids-plugin setup elasticsearch --url "
    "https://localhost:9200 --api-key-file key --dry-run",
    configure,
    run,
)
