"""What `doctor` finds. Each module beside this one is an area that it checks, by its `AREA`."""

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
    """One thing that was looked at."""

    area: str
    state: State
    what: str
    hint: str = ""
    """what to do about it"""
    code: int = 0
    """what the command ends with because of this"""


class Asked(NamedTuple):
    """What is to be looked into."""

    config: Config
    processes: tuple[str, ...] = PROCESSES
    """those that this configuration is for"""


class Area(NamedTuple):
    """Things that are looked at one after the other; after an error the rest of them isn't looked at."""

    name: str
    concerns: frozenset[str]
    """processes"""
    check: Callable[[Asked], Iterator[tuple[State, str, str]]]
    """state, what, hint; raises IdsPluginError where it can't go on"""


def findings(areas: Iterable[Area], asked: Asked) -> Iterator[Finding]:
    """Everything that is found, as it is found."""
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
    """Exit codes of the contract: what is wrong in a service is its being unreachable for us, all else our settings."""
    if state is not State.FAILURE:
        return 0
    return ConfigError.exit_code if area.name == "settings" else 4
