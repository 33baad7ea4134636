"""The pages of the library run as they stand: every Python block of a page, in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/library.md", "docs/tutorial.md"])
def test_every_block_of_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / page).read_text()
    blocks = [
        token
        for token in MarkdownIt().parse(text)
        if token.type == "fence" and token.info == "python"
    ]
    assert blocks
    scope: dict[str, object] = {}
    for block in blocks:
        first_line = block.map[0] + 1 if block.map else 1
        code = compile("\n" * first_line + block.content, page, "exec")
        exec(code, scope)  # noqa: S102 - the page's own code
