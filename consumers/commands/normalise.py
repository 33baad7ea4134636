"""The command `ids-consumer normalise`."""

from __future__ import annotations

import argparse

from ids_plugin.commands import Command, Console

from .options import ServiceOptions, add_service_options, load_settings

STAGE = "normalise"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `normalise`."""
    add_service_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Runs the process until a stop is requested.

    Raises:
        ConfigError: the configuration can't be used.
        UsageError: another process has our name.
    """
    from ..normalise import NormaliseConsumer, source_topics
    from ..runtime.service import Service

    settings = load_settings(ServiceOptions.parse(args), STAGE)
    source_topics(settings, existing=())  # refuses settings that name no topics
    with Service(STAGE, settings) as service:
        NormaliseConsumer(service).run()
    return 0


PLUGIN = Command(
    STAGE,
    "Read sensors' records in any envelope; write flows by sensor.",
    "example: ids-consumer normalise --config ids.toml",
    configure,
    run,
)
