"""Finds a room's plugins: every module of the room whose name has no leading underscore, by its `PLUGIN` attribute."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from ids_plugin.errors import UsageError


def names(room: str) -> tuple[str, ...]:
    """Names of the plugins in `room` (such as "sources"), sorted; nothing is imported but the room itself."""
    package = importlib.import_module(f"ids_plugin.{room}")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load(room: str, name: str) -> Any:
    """The plugin `name` of `room`: the object its module calls `PLUGIN`.

    Raises:
        UsageError: there is no such plugin; the message lists those there are.
    """
    if name not in names(room):
        raise UsageError(f"no {room} plugin called {name!r}", hint=f"there are: {', '.join(names(room))}")
    return importlib.import_module(f"ids_plugin.{room}.{name}").PLUGIN


def load_all(room: str) -> tuple[Any, ...]:
    """All plugins of `room`, in the order of their names."""
    return tuple(load(room, name) for name in names(room))
