"""What every command promises: help with an example that can be typed, one line of JSON, clear
refusals."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ids_plugin import __version__, cli, registry
from ids_plugin.commands import Command

COMMANDS: tuple[Command, ...] = registry.load_all("commands")
each = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)


def parser(command: Command) -> argparse.ArgumentParser:
    """The command's own options, without those all have."""
    own = argparse.ArgumentParser(prog=command.name, exit_on_error=False)
    command.configure(own)
    return own


def options(own: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in own._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from options(one)


def help_of(command: Command, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([command.name, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@each
def test_help_is_complete(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(command, capsys)
    assert command.name in registry.names("commands")
    assert command.help in shown
    assert command.help.endswith(".")
    for option in ("--json", "--quiet", "--debug", "--version"):
        assert option in shown
    for action in options(parser(command)):
        assert action.help, action
        assert action.help.strip()


@each
def test_the_example_can_be_typed(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.example in help_of(command, capsys)
    words = shlex.split(command.example)
    assert words[:3] == ["example:", "ids-plugin", command.name]
    assert parser(command).parse_args(words[3:])


@each
def test_the_version_is_said(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command.name, "--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"ids-plugin {__version__}"


@each
def test_wrong_usage_is_exit_code_2(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command.name, "--no-such-option"])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@each
def test_run_is_documented(command: Command) -> None:
    assert (command.run.__doc__ or "").strip()
    assert (command.configure.__doc__ or "").strip()


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert "example: ids-plugin" in shown
    for command in COMMANDS:
        assert f"    {command.name}" in [
            line[: 4 + len(command.name)] for line in shown.splitlines()
        ]
        assert command.help in " ".join(shown.split())


@pytest.mark.parametrize("arguments", [["--help"], ["scan", "--help"], ["train", "--help"]])
def test_help_starts_without_the_optional_libraries(arguments: list[str]) -> None:
    code = (
        "import contextlib, sys; from ids_plugin import cli\n"
        f"with contextlib.suppress(SystemExit): cli.main({arguments!r})\n"
        "heavy = {'torch', 'onnx', 'sklearn', 'kafka', 'elasticsearch', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_command_is_imported_alone() -> None:
    code = (
        "import contextlib, sys; from ids_plugin import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['doctor', '--help'])\n"
        "print('ids_plugin.commands.scan' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
