"""`ids-consumer …`: the processes of the streaming pipeline."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ids_plugin.cli import TERMINATED, Program, execute
from ids_plugin.commands import Command, Console
from ids_plugin.errors import MissingExtraError

VERBS = ("deliver", "detect", "normalise", "replay", "ship")
EXTRA_PACKAGES = ("elastic_transport", "elasticsearch", "kafka", "prometheus_client")
"""Packages that come with the extras of the consumers."""


def load(name: str) -> Command:
    """The verb of that name; loading it, and its help, need no extra.

    Where a package of an extra is missing when the verb runs, the error names the extra.
    """
    verb: Command = importlib.import_module(f"{__package__}.commands.{name}").PLUGIN

    def run(args: argparse.Namespace, console: Console) -> int:
        """
        Raises:
            MissingExtraError: a package that the verb needs isn't installed.
        """
        try:
            return verb.run(args, console)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in EXTRA_PACKAGES:
                raise
            hint = "pip install 'ids-plugin[kafka,elastic]'"
            raise MissingExtraError(f"the consumers need {error.name}", hint=hint) from error

    return verb._replace(run=run)


PROGRAM = Program(
    "ids-consumer",
    "The processes of the streaming pipeline: sensors' records on Kafka → flows → alerts → "
    "Elasticsearch.",
    "example: ids-consumer detect --config ids.toml",
    lambda: VERBS,
    load,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns its exit code: 0 also where SIGTERM came before the verb began."""
    code = execute(PROGRAM, argv)
    return 0 if code == TERMINATED else code


if __name__ == "__main__":
    sys.exit(main())
