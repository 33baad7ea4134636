"""`ids-plugin setup kibana` without a Kibana: files for an import by hand."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from ids_plugin import cli
from ids_plugin.commands.setup.kibana import TARGET
from ids_plugin.elastic.kibana_objects import ndjson, objects
from ids_plugin.elastic.kibana_rules import rules


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_objects_and_rules_are_written_for_an_import_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, judging = tmp_path / "saved.ndjson", tmp_path / "rules.ndjson"
    assert (
        cli.main(
            ["setup", "kibana", "--write", str(saved), "--write-rules", str(judging), "--json"]
        )
        == 0
    )
    assert saved.read_bytes() == ndjson(objects())
    assert lines(judging) == rules()
    assert json.loads(capsys.readouterr().out) == {
        str(saved): len(objects()),
        str(judging): len(rules()),
    }


def test_links_lead_where_a_site_wants(tmp_path: Path) -> None:
    saved, url = (
        tmp_path / "saved.ndjson",
        "https://arkime.example/sessions?expression=communityId=={{value}}",
    )
    assert (
        cli.main(["setup", "kibana", "--write", str(saved), "--packets-url", url, "--budget", "7"])
        == 0
    )
    assert lines(saved) == json.loads(json.dumps(objects(packets_url=url, budget=7)))
    assert url in saved.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--packets-url", "https://arkime.example"], "packets_url has no {{value}} in it"),
        (["--space", "My Team"], "space is the identifier of one, not 'My Team'"),
        (["--url", "localhost:5601"], "url is no http or https address"),
        (["--url", "https://me:word@host"], "url holds a user or a password"),
        (["--username", "me"], "username and password belong together"),
        (["--api-key-file", "/no/such/file"], "the secret can't be read"),
        (
            ["--write", "/no/such/folder/file"],
            "/no/such/folder/file: can't be written: no such file",
        ),
    ],
)
def test_what_can_not_be_is_said(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["setup", "kibana", *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "word@" not in said


def test_the_page_says_which_kibana_the_objects_need() -> None:
    needed = max(tuple(map(int, one["typeMigrationVersion"].split("."))) for one in objects())
    page = (Path(__file__).parents[3] / "docs/kibana.md").read_text()
    assert f"Kibana {needed[0]}.{needed[1]} or newer" in page


def test_the_page_has_every_option() -> None:
    page = (Path(__file__).parents[3] / "docs/kibana.md").read_text()
    parser = argparse.ArgumentParser()
    TARGET.configure(parser)
    options = {
        option
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    assert [option for option in options - {"--help"} if option not in page] == []
