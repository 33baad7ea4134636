"""Names say what they hold, and pages use the words of the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.words import ROOT, places

READ = [ROOT / name for name in ("ids_plugin", "consumers", "docs", "README.md", "CONTRIBUTING.md")]


def test_no_name_is_empty_and_no_word_is_one_that_nobody_knows() -> None:
    wrong = [f"{place.path.relative_to(ROOT)}:{place.line}: {place.word}" for place in places(READ)]
    assert not wrong, "docs/glossary.md has the words to use instead:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"""Every fold that is open."""\n', ["fold"]),
        ('"""`ids_plugin.fold.id` stays."""\n', []),
        ('"""A stranger knocks at the door."""\n', ["stranger", "door"]),
        ("found = 1\n", ["found"]),
        ("def _tell(given: int) -> None: ...\n", ["_tell", "given"]),
        ("rows = [row for row in ()]\n", []),
    ],
)
def test_what_is_listed_and_what_is_not(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(text)
    assert sorted(place.word for place in places([tmp_path])) == sorted(words)
