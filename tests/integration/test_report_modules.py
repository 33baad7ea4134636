"""The report's modules one by one, as modules in a real Chromium, without a report around them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")

FOLDER = Path(__file__).parents[2] / "ids_plugin" / "sinks" / "assets" / "report"
ORIGIN = "http://report.test"
"""answered by the test itself: nothing leaves the browser"""

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """Calls an exported function of a module and returns what it returns."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.route(f"{ORIGIN}/**", _answer)
        page.goto(f"{ORIGIN}/")

        def run(module: str, function: str, *arguments: object) -> Any:
            return page.evaluate(
                """async ([url, name, values]) => (await import(url))[name](...values)""",
                [f"{ORIGIN}/{module}.js", function, list(arguments)],
            )

        yield run
        browser.close()


def _answer(route: Any) -> None:
    name = route.request.url.rpartition("/")[2]
    if name:
        source = (FOLDER / name).read_text("utf-8")
        route.fulfill(content_type="text/javascript; charset=utf-8", body=source)
    else:
        route.fulfill(content_type="text/html", body="<!doctype html><title>modules</title>")


@pytest.mark.parametrize(
    ("function", "argument", "text"),
    [
        ("words", "brute_force", "brute force"),
        ("words", None, "unknown"),
        ("duration", 0.5, "500 µs"),
        ("duration", 4_250, "4.3 s"),
        ("duration", 185_000, "3 min 5 s"),
        ("duration", 3_600_000, "1 h"),
        ("duration", 187_200_000, "2 d 4 h"),
        ("duration", None, "–"),
        ("byteSize", 999, "999 B"),
        ("byteSize", 1_234_567, "1.2 MB"),
        ("byteSize", None, "–"),
        ("plainValue", 12_345, "12,345"),
        ("plainValue", 0.12345, "0.123"),
        ("plainValue", 0.00012, "1.2e-4"),
        ("timeOfDay", 1_763_733_839_000, "14:03:59"),
        ("dateAndTime", 1_763_733_839_000, "21 Nov 14:03:59"),
        ("preciseTimeOfDay", 1_763_733_839_007, "14:03:59.007"),
        ("dateWithYear", 1_763_733_839_000, "21 Nov 2025"),
        (
            "nestedValue",
            {"default": {"rule": "private", "networks": ["10.0.0.0/8", "fc00::/7"]}},
            "default: rule private; networks 10.0.0.0/8, fc00::/7",
        ),
    ],
)
def test_texts(call: Call, function: str, argument: object, text: str) -> None:
    assert call("text", function, argument) == text


def test_flow_ends_name_ports_or_the_icmp_message(call: Call) -> None:
    flow = {"orig_h": "10.0.0.1", "orig_p": 8, "resp_h": "fe80::1", "resp_p": 0, "proto": "tcp"}
    assert call("text", "flowEnds", flow) == "10.0.0.1:8 → [fe80::1]:0"
    assert call("text", "flowEnds", flow | {"proto": "icmp"}) == "10.0.0.1 → fe80::1 type 8 code 0"


def _row(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "id": "a-open",
        "group": "a",
        "state": "open",
        "role": "actor",
        "host": "10.0.0.5",
        "class": "scan",
        "severity": 47,
        "risk": 40.0,
        "score": 0.9,
        "count": 1,
        "first": "2026-11-21T06:00:00.000000Z",
        "last": "2026-11-21T06:00:01.000000Z",
        "message": "10.0.0.5 scans",
        "summary": "many ports",
        "words": ["T1046"],
    }
    return row | changes


def test_both_documents_of_a_group_are_one_alert(call: Call) -> None:
    closing = _row(id="a-closed", state="closed", count=300, severity=73, words=["peer"])
    (alert,) = call("data", "alertsOfRows", [_row(), closing])
    assert (alert["id"], alert["count"], alert["level"]) == ("a-open", 300, "high")
    assert {"t1046", "peer", "many ports"} <= set(alert["searchText"].split("\n"))


def test_several_behaviours_of_a_host_outrank_one(call: Call) -> None:
    rows = [
        _row(id=str(number), group=str(number), host=host, **{"class": name})
        for number, (host, name) in enumerate(
            [("10.0.0.5", "scan"), ("10.0.0.5", "flood"), ("10.0.0.6", "scan")]
        )
    ]
    hosts = call("data", "hostsByRisk", call("data", "alertsOfRows", rows))
    assert [(host["name"], round(host["risk"], 6)) for host in hosts] == [
        ("10.0.0.5", 64.0),
        ("10.0.0.6", 40.0),
    ]


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True),
        ({"text": "SCAN 10.0"}, True),
        ({"text": "scan flood"}, False),
        ({"host": "10.0.0.6"}, False),
        ({"period": [0, 1]}, False),
        ({"period": [0, 4e12]}, True),
    ],
)
def test_filters(call: Call, change: dict[str, object], passes: bool) -> None:
    (alert,) = call("data", "alertsOfRows", [_row()])
    filters = {"text": "", "host": None, "period": None, "levels": {}, "classes": {}} | change
    assert call("state", "matches", alert, filters) is passes


def test_a_ledger_balances_or_not(call: Call) -> None:
    counts = {"read": 3, "parsed": 2, "rejected": {"truncated": 1}, "scored": 2}
    ledger = {"sources": [counts]}
    total = call("ledger", "totalOf", ledger)
    assert total == {"read": 3, "parsed": 2, "rejected": 1, "scored": 2}
    assert call("ledger", "isBalanced", ledger, total) is True
    assert call("ledger", "isBalanced", ledger, total | {"read": 4}) is False
    assert call("ledger", "isBalanced", {}, {}) is None


def test_lanes_show_when_a_class_was_active(call: Call) -> None:
    alerts = call("data", "alertsOfRows", [_row()])
    start = alerts[0]["first"]
    lanes = call("timeline", "lanesOf", alerts, [start, start + 240_000])
    assert [(lane["t"] - start, lane["t2"] - start) for lane in lanes] == [(0, 2000)]
    assert [(lane["lane"], lane["level"], lane["alerts"]) for lane in lanes] == [
        ("scan", "medium", 1)
    ]


def test_features_show_their_texts_or_else_their_numbers(call: Call) -> None:
    feature = {"name": "orig_bytes", "value": 1.2e6, "expected": 300.0, "contribution": 1.0}
    texts = {"label": "bytes sent", "value_text": "1.2 MB", "expected_text": "300 B"}
    full = call("detail", "featureRow", feature | texts)
    assert (full["label"], full["seen"], full["expected"]) == ("bytes sent", "1.2 MB", "300 B")
    older = call("detail", "featureRow", feature)
    assert (older["label"], older["seen"], older["expected"]) == ("orig bytes", "1,200,000", "300")
    assert json.dumps(older)
