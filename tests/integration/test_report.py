"""The report in a real Chromium, opened from disk: what an analyst sees, clicks and types."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ids_plugin.sinks.report import write
from tests.support import report_documents as made

sync_api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")

ALERTS = 40
HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\"><svg onload=\"document.title='owned'\">"
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
)

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=path, args=[*FLAGS, "--disable-sync", "--no-first-run"]
        )
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a report, and fails the test for any request, console message or error of the page."""
    noise: list[str] = []
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.on("console", lambda message: noise.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url))

    def go(path: Path, fragment: str = "") -> Any:
        page.goto(f"{path.as_uri()}#{fragment}")
        page.wait_for_selector("html[data-ready]", state="attached")
        page.wait_for_selector("#timeline svg", state="attached")
        assert noise.pop(0).partition("#")[0] == path.as_uri()
        return page

    yield go
    page.close()
    assert noise == []


def _report(path: Path, documents: list[made.Document]) -> Path:
    alerts = len(documents) // 2
    write(
        path,
        documents,
        ledger=made.ledger(5000, alerts),
        traffic=made.traffic(600, 5),
        bundle=made.BUNDLE,
    )
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _report(tmp_path_factory.mktemp("report") / "report.html", list(made.documents(ALERTS)))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "report.html"
    return _report(path, list(made.documents(10_000, hosts=3000)))


def _rows(page: Any) -> list[str]:
    return [row.inner_text() for row in page.query_selector_all("#rows .row")]


def test_headline_counts_alerts_hosts_and_what_was_read(opened: Open, report: Path) -> None:
    page = opened(report)
    hosts = {document["ids_plugin"]["fold"]["subject"] for document in made.documents(ALERTS)}
    assert page.inner_text("#verdict").startswith(f"{ALERTS} alerts on {len(hosts)} hosts: ")
    assert "5,012 records read from 1 source" in page.inner_text("#facts-line")
    assert "Ledger balances" in page.inner_text("#facts-line")


def test_charts_draw_what_there_is(opened: Open, report: Path) -> None:
    page = opened(report)
    lanes = page.inner_text("#timeline")
    for document in made.documents(ALERTS):
        assert document["ids_plugin"]["label"].replace("_", " ") in lanes
    page.click("#rows .row >> nth=0")
    page.wait_for_selector("#bars svg")
    page.wait_for_selector("#votes svg")
    drawn = page.inner_html("body")
    assert ">undefined<" not in drawn
    assert ">NaN<" not in drawn


def test_filters_by_text_severity_class_and_host(opened: Open, report: Path) -> None:
    page = opened(report)
    page.fill("#text", "flood")
    assert all("flood" in row for row in _rows(page))
    page.fill("#text", "")
    page.click("#severities [data-level=critical]")
    assert {row.split("\n")[0] for row in _rows(page)} == {"critical"}
    page.click("#severities [data-level=critical]")
    page.click("#classes [data-class=scan]")
    assert all("scan" in row for row in _rows(page))
    page.click("#clear")
    page.click("#hosts .host >> nth=0")
    host = page.get_attribute("#hosts .host >> nth=0", "data-host")
    assert all(host in row for row in _rows(page))
    assert f"of {ALERTS} alerts" in page.inner_text("#count")


def test_uid_in_the_filter_finds_its_alert(opened: Open, report: Path) -> None:
    page = opened(report)
    page.fill("#text", list(made.documents(ALERTS))[10]["zeek"]["session_id"])
    assert page.inner_text("#count") == f"1 of {ALERTS} alerts"


def test_a_stretch_of_the_timeline_filters(opened: Open, report: Path) -> None:
    page = opened(report)
    box = page.locator("#timeline").bounding_box()
    page.mouse.move(box["x"] + 400, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 430, box["y"] + 90, steps=4)
    page.mouse.up()
    page.wait_for_selector("#active button")
    assert f"of {ALERTS} alerts" in page.inner_text("#count")


def test_an_alert_opens_its_evidence(opened: Open, report: Path) -> None:
    page = opened(report)
    alert = next(
        doc for doc in made.documents(ALERTS) if len(doc["ids_plugin"]["evidence"]["flows"]) == 11
    )
    page.fill("#text", alert["event"]["id"])
    page.click("#rows .row >> nth=0")
    page.wait_for_selector("#strip svg")
    panel = page.inner_text("#evidence")
    evidence = alert["ids_plugin"]["evidence"]
    assert evidence["summary"] in panel
    assert len(page.query_selector_all("#flows tbody tr")) == len(evidence["flows"])
    assert all(flow["uid"] in panel for flow in evidence["flows"])
    for said in (
        "312",
        "anomaly net",
        "lightgbm",
        "busiest peers",
        alert["network"]["community_id"],
        "T1",
    ):
        assert said in panel


def test_missing_steps_have_no_bar(opened: Open, report: Path) -> None:
    page = opened(report)
    alert = next(
        doc for doc in made.documents(ALERTS) if len(doc["ids_plugin"]["evidence"]["flows"]) == 4
    )
    page.fill("#text", alert["event"]["id"])
    page.click("#rows .row >> nth=0")
    page.wait_for_selector("#strip svg")
    assert len(page.query_selector_all("#strip .mark-rect path")) == 4


def test_keyboard_alone_is_enough(opened: Open, report: Path) -> None:
    page = opened(report)
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-1"
    page.keyboard.press("Enter")
    page.wait_for_selector("#evidence:not([hidden])")
    first = page.inner_text("#evidence-title")
    page.keyboard.press("j")
    page.wait_for_function(
        "before => document.querySelector('#evidence-title').innerText !== before", arg=first
    )
    page.keyboard.press("Escape")
    assert page.is_hidden("#evidence")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-3"
    page.keyboard.press("/")
    page.keyboard.type("scan")
    page.keyboard.press("Escape")
    assert page.input_value("#text") == ""
    assert page.inner_text("#count") == f"{ALERTS} alerts"


def test_sorts_by_column_and_by_key(opened: Open, report: Path) -> None:
    page = opened(report)
    page.click("#head button >> text=Flows")
    counts = [int(row.split("\n")[-3].replace(",", "")) for row in _rows(page)]
    assert counts == sorted(counts, reverse=True)
    page.keyboard.press("s")
    assert "sorted by score" in page.inner_text("#toast")
    scores = [float(row.split("\n")[-2]) for row in _rows(page)]
    assert scores == sorted(scores, reverse=True)


def test_ids_are_copied_by_key(opened: Open, report: Path) -> None:
    page = opened(report)
    alert = next(made.documents(ALERTS))
    page.fill("#text", alert["event"]["id"])
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector("#evidence:not([hidden])")
    page.keyboard.press("u")
    page.wait_for_selector("#toast.on")
    page.keyboard.press("/")
    page.keyboard.press("Control+V")
    assert page.input_value("#text") == alert["zeek"]["session_id"]


def test_an_address_with_an_event_id_opens_that_alert(opened: Open, report: Path) -> None:
    alert = list(made.documents(ALERTS))[6]
    page = opened(report, alert["event"]["id"])
    page.wait_for_selector("#evidence-title")
    assert alert["ids_plugin"]["fold"]["subject"] in page.inner_text("#evidence-title")


def _poisoned(value: Any) -> Any:
    """The same document with markup in every text."""
    if isinstance(value, dict):
        return {key: _poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_poisoned(inner) for inner in value]
    return HOSTILE + value if isinstance(value, str) else value


def test_hostile_text_stays_text(opened: Open, tmp_path: Path) -> None:
    documents = [_poisoned(document) for document in made.documents(4)]
    for bad, document in zip(documents, made.documents(4), strict=True):
        bad["ids_plugin"]["fold"]["state"] = document["ids_plugin"]["fold"]["state"]
    path = tmp_path / "report.html"
    ledger = made.ledger(10, 4) | {"notes": {HOSTILE: HOSTILE}}
    ledger["sources"][0].update(source=HOSTILE, rejected={HOSTILE: 7})
    write(
        path, documents, ledger=ledger, traffic=made.traffic(600, 5), bundle=_poisoned(made.BUNDLE)
    )
    page = opened(path)
    assert HOSTILE in page.text_content("#hosts .host .address >> nth=0")
    page.click("#ledger summary")
    page.click("#rows .row >> nth=0")
    page.wait_for_selector("#votes svg")
    page.click("#evidence .chip >> nth=1")
    page.wait_for_selector("#votes svg")
    assert page.query_selector_all("img, svg[onload], iframe") == []
    assert page.title() == "ids-plugin report"


def test_no_alert_says_so_calmly(opened: Open, tmp_path: Path) -> None:
    page = opened(_report(tmp_path / "report.html", []))
    assert page.inner_text("#verdict") == "Nothing over the threshold in 5,000 flows"
    assert page.is_hidden("#main")
    assert page.is_visible("#ledger-body table")


def test_ten_thousand_alerts_filter_and_only_what_is_seen_is_drawn(
    opened: Open, large: Path
) -> None:
    page = opened(large)
    assert page.inner_text("#verdict").startswith("10,000 alerts")
    page.fill("#text", "flood")
    assert 0 < len(_rows(page)) < 60
    page.fill("#text", "")
    assert len(_rows(page)) < 60
    page.focus("#list")
    page.keyboard.press("End")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-9999"


def test_both_themes_and_the_toggle(browser: Any, report: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.close()


def test_prints_every_alert_in_the_light_theme(browser: Any, report: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert len(_rows(page)) == ALERTS
    assert len(page.pdf()) > 10_000
    page.close()
