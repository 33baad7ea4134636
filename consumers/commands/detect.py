"""The command `ids-consumer detect`."""

from __future__ import annotations

import argparse

from ids_plugin.commands import Command, Console

from .options import ServiceOptions, add_service_options, load_settings

STAGE = "detect"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `detect`."""
    add_service_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Runs the process until a stop is requested.

    Raises:
        ConfigError, BundleError: the configuration or the bundle can't be used.
        UsageError: another process has our name.
    """
    from ..detect import DetectConsumer
    from ..runtime.service import Service

    with Service(STAGE, load_settings(ServiceOptions.parse(args), STAGE)) as service:
        DetectConsumer(service).run()
    return 0


PLUGIN = Command(
    STAGE,
    "Score flows; write explained alerts.",
    "example: ids-consumer detect --config ids.toml",
    configure,
    run,
)
