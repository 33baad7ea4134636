"""`ids-plugin setup elasticsearch`: lifecycle policies, templates and data streams."""

from __future__ import annotations

import argparse

from ids_plugin.commands import Command, Console
from ids_plugin.commands.options.access import access, add_access_options
from ids_plugin.commands.setup.steps import report


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `setup elasticsearch`."""
    add_access_options(parser, "--url")


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        ConfigError: settings that can't be.
        MissingExtraError: the client isn't installed.
        ServiceError: a step can't be done; what was done before it stays.
    """
    from ids_plugin.elastic.index_setup import install

    report(
        install(access(args), dry_run=args.dry_run),
        console,
        what="object",
        kind=lambda step: step.kind.replace("_", " "),
        dry_run=args.dry_run,
    )
    return 0


TARGET = Command(
    "elasticsearch",
    "Lifecycle policies, templates and data streams for our documents.",
    "example: ids-plugin setup elasticsearch --url http://localhost:9200",
    configure,
    run,
)
