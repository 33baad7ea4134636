"""The report's file: whole or absent, one piece, inert, the same for the same alerts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ids_plugin.errors import UsageError
from ids_plugin.sinks import Delivered
from ids_plugin.sinks.report import CHUNK, ROWS, Report, write
from tests.support import report_documents as made

FIXED_LIMIT = 1_200_000


def _write(path: Path, alerts: int = 3) -> str:
    write(
        path,
        made.documents(alerts),
        ledger=made.ledger(1000, alerts),
        traffic=made.traffic(60, 1),
        bundle=made.BUNDLE,
    )
    return path.read_text("utf-8")


def _unpacked(page: str, kind: str) -> list[Any]:
    chunks = re.findall(rf'<script type="text/plain" class="{kind}">([^<]*)</script>', page)
    return [
        item for chunk in chunks for item in json.loads(zlib.decompress(base64.b64decode(chunk)))
    ]


def test_every_document_is_in_the_file_unchanged(tmp_path: Path) -> None:
    alerts = ROWS + 7
    page = _write(tmp_path / "report.html", alerts)
    assert _unpacked(page, "documents") == list(made.documents(alerts))
    assert [row["id"] for row in _unpacked(page, "rows")] == [
        doc["event"]["id"] for doc in made.documents(alerts)
    ]


def test_the_same_alerts_give_the_same_bytes(tmp_path: Path) -> None:
    assert _write(tmp_path / "a.html") == _write(tmp_path / "b.html")


def test_the_policy_allows_our_own_scripts_and_nothing_else(tmp_path: Path) -> None:
    page = _write(tmp_path / "report.html")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    scripts = re.findall(r'<script(?: type="module")?>(.*?)</script>', page, re.DOTALL)
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    assert policy[1].startswith(f"default-src 'none'; script-src {allowed}; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]


def test_no_element_asks_for_another_file(tmp_path: Path) -> None:
    page = re.sub(
        r"<(script|style)\b.*?</\1>", "", _write(tmp_path / "report.html"), flags=re.DOTALL
    )
    assert (
        re.findall(
            r"<(?:link|img|iframe|object|embed|base)\b|\b(?:src|href)\s*=|url\(|@import", page
        )
        == []
    )


def test_hostile_text_cannot_leave_its_script(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)><!--<script>"
    document = next(made.documents(1))
    document["ids_plugin"]["fold"]["subject"] = hostile
    facts = made.ledger(1, 1) | {"notes": {"note": hostile}}
    write(tmp_path / "report.html", [document], ledger=facts, traffic=[], bundle={"id": hostile})
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<img" not in page
    assert hostile in _unpacked(page, "rows")[0]["host"]


def test_ledger_is_read_after_the_last_document(tmp_path: Path) -> None:
    ledger: dict[str, Any] = {}

    def alerts() -> Iterator[dict[str, Any]]:
        yield from made.documents(1)
        ledger["balanced"] = True

    write(tmp_path / "report.html", alerts(), ledger=ledger, traffic=[], bundle={})
    facts = re.search(r'id="facts">(.*?)</script>', (tmp_path / "report.html").read_text("utf-8"))
    assert facts is not None
    assert json.loads(facts[1])["ledger"] == {"balanced": True}


def test_a_failing_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def alerts() -> Iterator[dict[str, Any]]:
        yield from made.documents(1)
        raise RuntimeError("the input broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        write(tmp_path / "report.html", alerts(), ledger={}, traffic=[], bundle={})
    assert list(tmp_path.iterdir()) == []


def test_documents_may_come_in_batches(tmp_path: Path) -> None:
    documents = list(made.documents(CHUNK))
    with Report(tmp_path / "report.html") as report:
        for start in range(0, len(documents), 50):
            assert report.write(documents[start : start + 50]) == Delivered(
                len(documents[start : start + 50])
            )
    assert report.documents == 2 * CHUNK
    assert _unpacked((tmp_path / "report.html").read_text("utf-8"), "documents") == documents


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere/report\.html: can't be written: no such file"):
        Report(tmp_path / "nowhere" / "report.html")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "report.html.part").symlink_to("/dev/full")
    with pytest.raises(UsageError, match="no space left"):
        write(tmp_path / "report.html", made.documents(3), ledger={}, traffic=[], bundle={})
    assert list(tmp_path.iterdir()) == []


def test_fixed_part_stays_small(tmp_path: Path) -> None:
    assert len(_write(tmp_path / "report.html", alerts=0)) < FIXED_LIMIT


@pytest.mark.parametrize("name", ["vega.min.js", "vega-lite.min.js", "vega-interpreter.min.js"])
def test_vendored_libraries_are_those_of_the_notice(name: str) -> None:
    assets = files("ids_plugin.sinks").joinpath("assets")
    digest = hashlib.sha256(assets.joinpath(name).read_bytes()).hexdigest()
    line = next(
        line
        for line in assets.joinpath("NOTICE").read_text("utf-8").splitlines()
        if line.startswith(name)
    )
    assert line.endswith(digest)
