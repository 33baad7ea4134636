"""The modules of the report obey ESLint's rules (tests/support/eslint) and can be bundled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.services.server import built

FOLDER = Path(__file__).parents[2] / "ids_plugin" / "sinks" / "assets" / "report"
ESLINT = Path(__file__).parents[1] / "support" / "eslint"
MODULES = sorted(FOLDER.glob("*.js"))


def _install(folder: Path) -> None:
    for name in ("package.json", "eslint.config.js"):
        shutil.copy(ESLINT / name, folder / name)
    command = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*command, "--prefix", str(folder)], check=True, timeout=300)


def test_eslint_has_nothing_to_say() -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    tools = built("eslint", sorted(ESLINT.iterdir()), _install)
    program = tools / "node_modules" / ".bin" / "eslint"
    command = [str(program), "--config", str(tools / "eslint.config.js"), "."]
    result = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_says_what_it_is_for_and_stays_small(module: Path) -> None:
    lines = module.read_text("utf-8").splitlines()
    assert lines[0].startswith("/* ")
    assert len(lines) <= 460
