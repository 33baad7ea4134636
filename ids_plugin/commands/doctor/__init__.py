"""`ids-plugin doctor`: checks what a deployment needs, and says what to do about failures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ids_plugin import config
from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.doctor import elasticsearch, findings, kafka, kibana, settings
from ids_plugin.commands.doctor.findings import PROCESSES, Asked, Finding, State
from ids_plugin.errors import ConfigError

AREAS = (settings.AREA, elasticsearch.AREA, kafka.AREA, kibana.AREA)
"""in the order in which they are checked: first the one that needs no service"""
SIGNS = {State.OK: "✓", State.SKIPPED: "·", State.WARNING: "!", State.FAILURE: "✗"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `doctor`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (TOML) of the consumers"
    )
    parser.add_argument(
        "--process",
        action="append",
        choices=(*PROCESSES, "ship"),
        help=f"look only at what this process needs; repeatable (default: {', '.join(PROCESSES)})",
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Exit code 0: nothing fails; 2: settings are wrong; 4: a service can't be used as it is.

    Raises:
        nothing of its own: what can't be checked is a finding.
    """
    results = []
    for finding in _find(args):
        results.append(finding)
        if not console.json and not (console.quiet and finding.state in (State.OK, State.SKIPPED)):
            then = f"\n  → {finding.hint}" if finding.hint else ""
            console.out.write(f"{SIGNS[finding.state]} {finding.area}: {finding.what}{then}\n")
    if console.json:
        console.result([finding._asdict() for finding in results])
    failures = sum(finding.state is State.FAILURE for finding in results)
    warnings = sum(finding.state is State.WARNING for finding in results)
    console.say(f"{counted(failures, 'failure')}, {counted(warnings, 'warning')}")
    return next((finding.code for finding in results if finding.code), 0)


def _find(args: argparse.Namespace) -> Iterator[Finding]:
    try:
        settings_read = config.load(args.config)
    except ConfigError as error:
        what = f"{error.location}: {error.message}" if error.location else error.message
        yield Finding(settings.AREA.name, State.FAILURE, what, error.hint or "", error.exit_code)
        return
    yield from findings.findings(AREAS, Asked(settings_read, tuple(args.process or PROCESSES)))


PLUGIN = Command(
    "doctor",
    "Check everything a deployment needs; say what is wrong and what to do about it.",
    "example: ids-plugin doctor --config ids.toml",
    configure,
    run,
)
