"""The README's alert is a real one, commands of all pages can be typed, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import ids_plugin
from tests.contract.test_deploy import parse

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
MOST_WORDS = 1200
PROGRAMS = ("ids-plugin", "ids-consumer")


def commands() -> Iterator[tuple[str, str]]:
    """Page and command line of ours, of the blocks of all pages."""
    for page in PAGES:
        for token in MarkdownIt().parse(page.read_text()):
            is_shell = token.type == "code_block" or (
                token.type == "fence" and token.info in ("", "sh")
            )
            for line in token.content.replace("\\\n", " ").splitlines() if is_shell else ():
                for part in re.split(r"&&|\|\||[|&;]", re.sub(r"\s#.*", "", line.strip())):
                    words = part.split()
                    if len(words) > 1 and Path(words[0]).name in PROGRAMS:
                        yield page.name, part.strip()


def test_the_readme_is_short() -> None:
    assert len(README.split()) < MOST_WORDS


def test_the_readmes_alert_is_one_of_the_sample() -> None:
    example = next(token for token in MarkdownIt().parse(README) if token.type == "fence")
    head, *lines = example.content.strip().splitlines()
    why = " ".join(line.strip() for line in lines)
    documents = ids_plugin.scan(ROOT / "tests/lab/sample/capture.pcap.gz").documents
    (alert,) = (
        document for document in documents if document["ids_plugin"]["evidence"]["summary"] == why
    )
    verdict = alert["ids_plugin"]
    group = verdict["fold"]
    title, subject = alert["rule"]["name"], group["subject"]
    assert head.startswith(
        f"{verdict['severity']}  {title}  {subject} → {group['top_peers'][0]['ip']}"
    )
    assert head.endswith(f"  {group['count']} flows  score {verdict['score']:.2f}")


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_can_be_typed(page: str, line: str) -> None:
    program, *words = shlex.split(line)
    parse(Path(program).name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
