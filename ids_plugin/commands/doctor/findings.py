"""Findings of `doctor`. Each module beside this one checks an area, which is its `AREA`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from ids_plugin.config import Config
from ids_plugin.errors import ConfigError, IdsPluginError

PROCESSES = ("normalise", "detect", "deliver")


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    """it works, and won't always"""
    FAILURE = "failure"
    """it doesn't work"""


class Finding(NamedTuple):
    """The result of one check."""

    area: str
    state: State
    what: str
    hint: str = ""
    """what to do about it"""
    code: int = 0
    """what the command ends with because of this"""


class Asked(NamedTuple):
    """What is to be checked."""

    config: Config
    processes: tuple[str, ...] = PROCESSES
    """those that this configuration is for"""


class Area(NamedTuple):
    """Checks that run one after the other; an error ends the checks of its area."""

    name: str
    concerns: frozenset[str]
    """processes"""
    check: Callable[[Asked], Iterator[tuple[State, str, str]]]
    """state, what, hint; raises IdsPluginError where it can't go on"""


def findings(areas: Iterable[Area], asked: Asked) -> Iterator[Finding]:
    """The findings of all areas that concern the processes, as the checks yield them."""
    for area in areas:
        if not area.concerns & set(asked.processes):
            continue
        try:
            for state, what, hint in area.check(asked):
                yield Finding(area.name, state, what, hint, _code(area, state))
        except IdsPluginError as error:
            what = f"{error.location}: {error.message}" if error.location else error.message
            yield Finding(area.name, State.FAILURE, what, error.hint or "", error.exit_code)


def _code(area: Area, state: State) -> int:
    """The exit code of a finding: 4 for a failing service, 2 for settings, 0 without a failure."""
    if state is not State.FAILURE:
        return 0
    return ConfigError.exit_code if area.name == "settings" else 4
