"""The command `ids-consumer deliver`."""

from __future__ import annotations

import argparse

from ids_plugin.commands import Command, Console

from .options import ServiceOptions, add_service_options, load_settings

STAGE = "deliver"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `deliver`."""
    add_service_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Runs the process until a stop is requested.

    Raises:
        ConfigError: the configuration can't be used.
        MissingExtraError: a client isn't installed.
        UsageError: another process has our name.
    """
    from ..deliver import DeliverConsumer
    from ..runtime.service import Service

    with Service(STAGE, load_settings(ServiceOptions.parse(args), STAGE)) as service:
        DeliverConsumer(service).run()
    return 0


PLUGIN = Command(
    STAGE,
    "Write alerts and the ledger to Elasticsearch, each document once.",
    "example: ids-consumer deliver --config ids.toml",
    configure,
    run,
)
