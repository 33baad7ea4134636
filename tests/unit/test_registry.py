"""Plugins are entry points: listed and loaded by name; an unknown name is refused with those there
are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ids_plugin import registry
from ids_plugin.errors import UsageError

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_names_are_those_of_the_entry_points() -> None:
    listed = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["ids_plugin.sources"]
    assert set(registry.names("sources")) >= listed.keys()
    assert list(registry.names("sources")) == sorted(registry.names("sources"))


def test_loading_all_keeps_the_order_of_names() -> None:
    assert [command.name for command in registry.load_all("commands")] == list(
        registry.names("commands")
    )


@pytest.mark.parametrize("name", ["no_such", "inputs", "", "__init__", "zeek.nested"])
def test_what_is_no_plugin_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UsageError, match="suricata, zeek"):
        registry.load("sources", name)
