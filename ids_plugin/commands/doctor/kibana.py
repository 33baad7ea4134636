"""Checks of Kibana, where one is configured: access, and that our objects are installed."""

from __future__ import annotations

from collections.abc import Iterator

from ids_plugin.commands.doctor.findings import Area, Asked, State
from ids_plugin.config import Kibana

Found = tuple[State, str, str]


def check(asked: Asked) -> Iterator[Found]:
    """
    Raises:
        ConfigError, MissingExtraError: Kibana can't be asked with what is set or installed.
        ServiceError: it can't be reached, refuses us, or lacks what we need.
    """
    from ids_plugin.commands.setup.kibana import wanted
    from ids_plugin.elastic.kibana_setup import install

    settings = asked.config.kibana
    if settings == Kibana():
        yield State.SKIPPED, "no Kibana is configured: section [kibana]", ""
        return
    steps = list(install(settings, *wanted(settings), dry_run=True))
    for step in steps:
        if step.action == "look":
            yield State.WARNING, f"{step.name}: {step.why}", ""
    due = [
        f"{step.kind.replace('_', ' ')} {step.name}"
        for step in steps
        if step.action in ("create", "update")
    ]
    if due:
        more = f" and {len(due) - 3} more" if len(due) > 3 else ""
        hint = f"ids-plugin setup kibana --url {settings.url} --space {settings.space}"
        yield State.WARNING, f"not installed or out of date: {', '.join(due[:3])}{more}", hint
    else:
        yield State.OK, f"{settings.url} has our dashboards and rules", ""


AREA = Area("kibana", frozenset({"deliver"}), check)
