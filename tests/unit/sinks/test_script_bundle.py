"""Modules become one script, in the order of their imports; what isn't understood is refused."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ids_plugin.sinks.script_bundle import bundle_modules

TEXT = 'const LETTER = "a";\nexport function words() {\n  return LETTER;\n}\n'
VIEW = 'import { words as text } from "./text.js";\nexport const LETTER = text() + "b";\n'
MAIN = 'import {\n  LETTER,\n} from "./view.js";\nimport { words } from "./text.js";\n'


def test_the_bundle_runs_as_its_modules_would() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    main = MAIN + "console.log(LETTER + words());\n"
    script = bundle_modules({"main": main, "text": TEXT, "view": VIEW, "unused": "!"}, "main")
    result = subprocess.run([node, "-e", script], capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("aba\n", "")


@pytest.mark.parametrize(
    ("main", "reason"),
    [
        ('import { words } from "./nowhere.js";\n', "there is no module nowhere.js"),
        ('import { main } from "./main.js";\nexport function main() {}\n', "circular imports"),
        ('import * as text from "./text.js";\n', "can't be bundled"),
        ('import "./text.js";\n', "can't be bundled"),
        ("export default 1;\n", "can't be bundled"),
        ("export let count = 1;\n", "can't be bundled"),
        ('const end = "</script>";\n', "can't be bundled"),
    ],
)
def test_what_is_not_understood_is_refused(main: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bundle_modules({"main": main, "text": TEXT}, "main")
