"""`ids-plugin setup elasticsearch`: lifecycle policies, templates and data streams."""

from __future__ import annotations

import argparse

from ids_plugin.commands import Command, Console
from ids_plugin.commands.options.access import access, add_access_options


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

    steps = []
    for step in install(access(args), dry_run=args.dry_run):
        steps.append(step)
        if step.action != "keep":
            doing = f"would {step.action}" if args.dry_run else step.action
            console.say(
                f"{doing} {step.kind.replace('_', ' ')} {step.name}"
                + (f": {step.why}" if step.why else "")
            )
    changes = sum(step.action not in ("keep", "skip") for step in steps)
    console.say(f"{len(steps)} objects, {changes} {'to change' if args.dry_run else 'changed'}")
    if console.json:
        console.result([step._asdict() for step in steps])
    return 0


TARGET = Command(
    "elasticsearch",
    "Lifecycle policies, templates and data streams for our documents.",
    "example: ids-plugin setup elasticsearch --url http://localhost:9200",
    configure,
    run,
)
