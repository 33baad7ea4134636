"""`ids-consumer …`: the processes of the streaming pipeline."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ids_plugin.cli import TERMINATED, Program, execute
from ids_plugin.commands import Command
from ids_plugin.errors import MissingExtraError

VERBS = ("deliver", "detect", "normalise", "replay", "ship")


def load(name: str) -> Command:
    """The verb of that name.

    Raises:
        MissingExtraError: what it needs isn't installed.
    """
    try:
        command: Command = importlib.import_module(f"{__package__}.{name}").PLUGIN
    except ModuleNotFoundError as error:
        hint = "pip install 'ids-plugin[kafka,elastic]'"
        raise MissingExtraError(f"the consumers need {error.name}", hint=hint) from error
    return command


PROGRAM = Program(
    "ids-consumer",
    "The processes of the streaming pipeline: sensors' records on Kafka → flows → alerts → Elasticsearch.",
    "example: ids-consumer detect --config ids.toml",
    lambda: VERBS,
    load,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns its exit code: 0 too where SIGTERM came before it had begun."""
    code = execute(PROGRAM, argv)
    return 0 if code == TERMINATED else code


if __name__ == "__main__":
    sys.exit(main())
