"""Words that the code doesn't use: names that name nothing, and words that no reader of the field
knows.

`python -m tests.architecture.words [PATH…]` lists every place; `docs/glossary.md` has the words to
use instead.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
EMPTY_NAMES = frozenset(
    {"one", "found", "told", "at", "given", "kept", "said", "ours", "there", "mine", "theirs"}
)
"""names of variables, parameters and attributes that say nothing of what they hold"""
MUTE_METHODS = frozenset(
    {"_look", "_turn", "_tell", "_ask", "_give", "look", "turn", "tell", "ask", "give"}
)
"""names of functions that don't say what they do"""
OLD_WORDS = re.compile(
    r"\b("
    r"folds?|folder of flows|folded|strangers?|strangeness|opinions?|hoist\w*|blinded|telling|lessons?"  # noqa: E501
    r"|the wire|plumbing|acted upon|doors?|snapshots?"
    r")\b",
    re.IGNORECASE,
)
"""in comments, docstrings, names and pages"""
PUBLIC_NAMES = re.compile(
    r"[\"'`]strangers?[\"'`]|ids_plugin\.fold[\w.*]*|[\"'`]folds?(ed)?[\"'`]"
    r"|fold\.(id|state|role|count|first|last|peers\w*)|counts?\.folded|opened[,+ ]+folded"
    r"|folded: int|hoisted_|leave-one-out folds?|snapshot_seconds|SNAPSHOT_SECONDS"
    r"|(six|ten|\d+)(-| )folds?"
)
"""what the documents, the ledger and the settings call things; that stays"""


CROSS_VALIDATION = re.compile(r"\bfolds?\b", re.IGNORECASE)
CROSS_VALIDATED = (ROOT / "ids_plugin" / "training", ROOT / "ids_plugin" / "datasets")
"""packages in which a fold is what scikit-learn calls so"""


class Place(NamedTuple):
    """Where a word stands."""

    path: Path
    line: int
    word: str


def names(path: Path) -> Iterator[Place]:
    """Empty names in a Python file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if node.id in EMPTY_NAMES:
                yield Place(path, node.lineno, node.id)
        elif isinstance(node, ast.arg) and node.arg in EMPTY_NAMES:
            yield Place(path, node.lineno, node.arg)
        elif isinstance(node, ast.FunctionDef) and node.name in MUTE_METHODS | EMPTY_NAMES:
            yield Place(path, node.lineno, node.name)


def old_words(path: Path) -> Iterator[Place]:
    """Words of the list in a file's text."""
    is_cross_validated = any(path.is_relative_to(folder) for folder in CROSS_VALIDATED)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = PUBLIC_NAMES.sub("", line)
        if is_cross_validated:
            text = CROSS_VALIDATION.sub("", text)
        for match in OLD_WORDS.finditer(text):
            yield Place(path, number, match.group(0))


def places(paths: list[Path]) -> Iterator[Place]:
    """All places in these files and folders."""
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix == ".py" and file != Path(__file__).resolve():
                yield from names(file)
            if file.suffix in {".py", ".md"} and file != Path(__file__).resolve():
                yield from old_words(file)


def main(arguments: list[str]) -> int:
    """Prints the places; 1 where there are any."""
    paths = [Path(argument).resolve() for argument in arguments] or [
        ROOT / "ids_plugin",
        ROOT / "consumers",
        ROOT / "docs",
        ROOT / "README.md",
    ]
    listed = list(places(paths))
    for place in listed:
        print(f"{place.path.relative_to(ROOT)}:{place.line}: {place.word}")
    print(f"{len(listed)} places", file=sys.stderr)
    return int(bool(listed))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
