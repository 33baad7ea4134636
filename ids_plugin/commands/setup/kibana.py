"""`ids-plugin setup kibana`: data views, dashboards and detection rules."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.options.access import add_login_options, with_options
from ids_plugin.commands.setup.steps import report
from ids_plugin.config import Kibana, load

OBJECTS, RULES = "objects", "rules"
LINKS = ("packets_url", "flow_url", "model_url", "budget")
"""keys of the settings that objects are made with"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `setup kibana`."""
    parser.add_argument(
        "--url", metavar="URL", help="Kibana with its base path, such as https://host:5601/kibana"
    )
    parser.add_argument("--space", metavar="ID", help="space that gets them")
    add_login_options(parser)
    for name, what in (
        ("packets", "a community id"),
        ("flow", "a Zeek uid"),
        ("model", "a bundle's id"),
    ):
        text = (
            f"where {what} leads to, with {{{{value}}}} in "
            "its place (default: what Kibana knows of it)"
        )
        parser.add_argument(f"--{name}-url", metavar="URL", help=text)
    parser.add_argument(
        "--budget", type=float, metavar="N", help="alerts a day that the analysts can look at"
    )
    parser.add_argument("--only", choices=(OBJECTS, RULES), help="leave the other out")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="write the objects for an import by hand, and end",
    )
    parser.add_argument(
        "--write-rules",
        type=Path,
        metavar="FILE",
        help="write the rules for an import by hand, and end",
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        ConfigError, UsageError: settings that can't be, a file that can't be written.
        ServiceError: a step can't be done; what was done before it stays.
    """
    from ids_plugin.elastic.kibana_setup import install

    settings = _settings(args)
    saved, judging = wanted(settings)
    if args.write or args.write_rules:
        return _write(((args.write, saved), (args.write_rules, judging)), console)
    saved, judging = [] if args.only == RULES else saved, [] if args.only == OBJECTS else judging
    report(
        install(settings, saved, judging, dry_run=args.dry_run),
        console,
        what="object",
        kind=lambda step: step.kind.replace("_", " "),
        dry_run=args.dry_run,
    )
    return 0


def wanted(settings: Kibana) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Saved objects and rules as a Kibana with these settings has to have them."""
    from ids_plugin.elastic.kibana_objects import objects
    from ids_plugin.elastic.kibana_rules import rules

    links: dict[str, Any] = {
        name: value for name in LINKS if (value := getattr(settings, name)) is not None
    }
    return objects(space=settings.space, **links), rules()


def _settings(args: argparse.Namespace) -> Kibana:
    settings = load(Path(args.config) if args.config else None).kibana
    return with_options(args, settings, "space", *LINKS)


def _write(files: Iterable[tuple[Path | None, list[dict[str, Any]]]], console: Console) -> int:
    """
    Raises:
        UsageError: a file can't be written.
    """
    from ids_plugin.elastic.kibana_objects import ndjson
    from ids_plugin.writing import writing

    written = {}
    for path, made in files:
        if path:
            with writing(path):
                path.write_bytes(ndjson(made))
            written[str(path)] = len(made)
            console.say(f"{path}: {counted(len(made), 'object')}")
    if console.json:
        console.result(written)
    return 0


TARGET = Command(
    "kibana",
    "Data views, dashboards and detection rules for our documents.",
    "example: ids-plugin setup kibana --url https://localhost:5601 "
    "--space soc --api-key-file key --dry-run",
    configure,
    run,
)
