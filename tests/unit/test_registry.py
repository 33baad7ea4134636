"""A room's plugins are its files: found by name, loaded by name, refused with those there are."""

from __future__ import annotations

from pathlib import Path

import pytest

import ids_plugin
from ids_plugin import registry
from ids_plugin.errors import UsageError

HOME = Path(ids_plugin.__file__).parent


@pytest.mark.parametrize("room", ["commands", "features", "models", "scoring", "sinks", "sources", "windows"])
def test_every_file_without_an_underscore_is_a_plugin(room: str) -> None:
    files = sorted(path.stem for path in (HOME / room).glob("*.py") if not path.stem.startswith("_"))
    assert list(registry.names(room)) == files


def test_loading_all_keeps_the_order_of_names() -> None:
    assert [command.name for command in registry.load_all("commands")] == list(registry.names("commands"))


@pytest.mark.parametrize("name", ["no_such", "_open", "", "__init__", "zeek.nested"])
def test_what_is_no_plugin_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UsageError, match="suricata, zeek"):
        registry.load("sources", name)
