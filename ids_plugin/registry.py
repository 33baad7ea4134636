"""Finds plugins by entry point: `[project.entry-points."ids_plugin.ROOM"]` in a package's
pyproject.toml.

The built-in plugins are listed in ours; another package adds one the same way, and nothing here
changes. A name that two packages use is refused: which of them would run should never depend on the
order of a path.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ids_plugin.errors import UsageError

GROUP_PREFIX = "ids_plugin."


def names(room: str) -> tuple[str, ...]:
    """Names of the plugins of `room` (such as "sources"), sorted; no plugin is imported.

    Raises:
        UsageError: two packages have a plugin of the same name.
    """
    return tuple(sorted(_entries(room)))


def load(room: str, name: str) -> Any:
    """The plugin `name` of `room`: the object that its entry point names.

    Raises:
        UsageError: there is no such plugin (the message lists those there are), or a package's
            plugin can't be imported.
    """
    entries = _entries(room)
    if name not in entries:
        raise UsageError(
            f"no {room} plugin called {name!r}", hint=f"there are: {', '.join(names(room))}"
        )
    try:
        return entries[name].load()
    except (ImportError, AttributeError) as error:
        if entries[name].module.startswith("ids_plugin."):
            raise
        raise UsageError(
            f"the {room} plugin {name!r} can't be imported: {error}", location=entries[name].value
        ) from error


def load_all(room: str) -> tuple[Any, ...]:
    """All plugins of `room`, in the order of their names."""
    return tuple(load(room, name) for name in names(room))


@cache
def _entries(room: str) -> dict[str, EntryPoint]:
    entries: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP_PREFIX + room):
        known = entries.setdefault(entry.name, entry)
        if known.value != entry.value:
            raise UsageError(
                f"two packages have a {room} plugin called {entry.name!r}",
                location=f"{known.value}, {entry.value}",
                hint="uninstall one of them",
            )
    return entries
