"""docs/deploy.md says what there is: every setting with its default, every right, every unit."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from ids_plugin.commands.doctor.elasticsearch import PRIVILEGES
from ids_plugin.commands.doctor.kafka import USES
from ids_plugin.config import Config, Secret, load

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/deploy.md").read_text()
SECTIONS = get_type_hints(Config)


def rows(section: str) -> dict[str, tuple[str, str]]:
    """Key → default and text, of a section's table."""
    part = PAGE.split(f"### [{section}]\n")[1].split("\n#")[0]
    found = re.findall(r"^\| `(\w+)` \| (?:`([^`]*)` )?\| (.+) \|$", part, flags=re.M)
    return {key: (default, text) for key, default, text in found}


def shown(one: Field[Any]) -> str:
    """A default as the page has it."""
    value = one.default if one.default is not MISSING else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_there_with_its_default(section: str) -> None:
    told, hints = rows(section), get_type_hints(SECTIONS[section])
    assert list(told) == [one.name for one in fields(SECTIONS[section])]
    for one in fields(SECTIONS[section]):
        default, text = told[one.name]
        assert default == shown(one), one.name
        assert (Secret in get_args(hints[one.name])) == (f"`{one.name}_file`" in text), one.name


def test_sections_are_those_there_are() -> None:
    assert set(re.findall(r"^### \[(\w+)\]$", PAGE, flags=re.M)) == set(SECTIONS)


def test_the_example_is_taken(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.+?)```", PAGE, flags=re.S)
    (tmp_path / "api-key").write_text("a:b")
    (tmp_path / "ids.toml").write_text(example.replace("/etc/ids-plugin", str(tmp_path)))
    assert load(tmp_path / "ids.toml", {}).normalise.topics == tuple(
        tomllib.loads(example)["normalise"]["topics"]
    )


@pytest.mark.parametrize("process", USES)
def test_rights_are_those_that_doctor_looks_for(process: str) -> None:
    (read, written) = re.findall(rf"^\| {process} \| (.+?) \| (.+?) \|", PAGE, flags=re.M)[0]
    assert re.findall(r"`(\w+)`", read) == list(USES[process].reads)
    assert re.findall(r"`(\w+)`", written) == list(USES[process].writes)
    for right in PRIVILEGES:
        assert f"`{right}`" in PAGE
        assert f'"{right}"' in PAGE
        assert f'"{right}"' in (ROOT / "consumers/compose/users.sh").read_text()


def test_links_and_paths_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^#+ (.+)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings
    for unit in re.findall(r"ids-(?:normalise|detect|deliver|ship)@", PAGE):
        assert (ROOT / f"consumers/systemd/{unit}.service").exists()
