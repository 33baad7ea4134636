"""Kibana's Vega panels: their requests to a real Elasticsearch, its answers drawn in a real
Chromium by Kibana's Vega.

Kibana itself isn't there: what it does between both is in tests/support/vega.py.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import elasticsearch as client
import pytest

from ids_plugin.elastic.streams import ALERTS
from ids_plugin.schema.alert import Document
from tests import services
from tests.contract.test_ecs import DOCUMENTS
from tests.support import vega
from tests.support.elastic import Stream

sync_api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")

PANELS = vega.specs()
ZONE = "Europe/Berlin"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
)
BARS = {
    "attention": ("bars",),
    "features": ("bars",),
    "expected": ("seen", "usual"),
    "flows": ("bars",),
}
"""panel → named marks of which there is one for every flow or feature"""

HOSTS = ("2001:db8:1234:5678:9abc:def0:1234:5678", "2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa")
WEIGHTS = (0.5, 0.3, 0.1, 0.04, 0.03, 0.01, 0.008, 0.004, 0.004, 0.003, 0.001)
FEATURES: tuple[Document, ...] = (
    {
        "name": "orig_acts_failed_services_600s",
        "value": 800.0,
        "expected": 2.0,
        "contribution": 1.25,
        "text": "distinct peers and ports with failed flows by the originator in 10 min: 800, "
        "usually 2",
        "label": "distinct peers and ports with failed flows by the originator in 10 min",
        "unit": "services",
        "value_text": "800",
        "expected_text": "2",
    },
    {
        "name": "orig_acts_logins_60s",
        "value": 19.0,
        "expected": 0.0,
        "contribution": -0.5,
        "text": "completed sessions with login services by the originator in 1 min: 19, usually 0",
        "label": "completed sessions with login services by the originator in 1 min",
        "unit": "flows",
        "value_text": "19",
        "expected_text": "0",
    },
    {
        "name": "window_upload",
        "value": 75.0,
        "expected": 2_500_000.0,
        "contribution": 2.5,
        "text": "mean volume that the originators sent in the window: 75 B, usually 2.5 MB",
        "label": "mean volume that the originators sent in the window",
        "unit": "B",
        "value_text": "75 B",
        "expected_text": "2.5 MB",
    },
    {
        "name": "upload_share",
        "value": 0.036,
        "expected": 0.5,
        "contribution": -0.75,
        "text": "share of the bytes that the originator sent: 4 %, usually 50 %",
        "label": "share of the bytes that the originator sent",
        "unit": "0-1",
        "value_text": "4 %",
        "expected_text": "50 %",
    },
    {
        "name": "interval",
        "value": 60.0,
        "contribution": 0.12,
        "text": "time since the flow before it: 1 min",
        "label": "time since the flow before it",
        "unit": "s",
        "value_text": "1 min",
    },
)


def _flow(like: Document, lag: int) -> Document:
    changes = {
        "uid": f"CxkDZv2bHuFBqoFR{lag:02}",
        "ts": f"2026-03-02T{20 - lag:02}:59:59.123456Z",
        "lag": lag,
        "weight": WEIGHTS[lag],
        "orig_h": HOSTS[lag % 2],
        "orig_p": 61000 + lag,
        "resp_h": HOSTS[1 - lag % 2],
        "resp_p": 60123,
        "conn_state": "RSTOS0",
        "duration": 0.000028 * 12**lag,
        "orig_bytes": 123 * 10**lag,
        "resp_bytes": 987,
        "reverse": lag % 2 == 1,
    }
    return like | changes


def _longest() -> Document:
    """A closing document with the longest words and the largest numbers that occur."""
    made = copy.deepcopy(DOCUMENTS[0])
    made["event"] |= {"id": "longest", "kind": "event"}
    made["message"] = (
        f"{HOSTS[0]} keeps in touch with a controller at {HOSTS[1]}, port 60123: 1,234 flows in "
        "24.1 h"
    )
    made["observer"]["name"] = "sensor-in-the-data-centre-of-frankfurt-am-main-17"
    made["ids_plugin"]["fold"] |= {"state": "closed", "closed_by": "quiet"}
    evidence = made["ids_plugin"]["evidence"]
    evidence["summary"] = (
        f"{HOSTS[0]} contacted {HOSTS[1]} port 60123/tcp 1,234 times in 1 h, about every 10 s."
    )
    evidence["flows"] = [_flow(evidence["flows"][0], lag) for lag in reversed(range(11))]
    evidence["features"] = list(FEATURES)
    return made


def _bare() -> Document:
    """A document without features, of an ICMP flow alone."""
    made = copy.deepcopy(DOCUMENTS[0])
    made["event"]["id"] = "bare"
    evidence = made["ids_plugin"]["evidence"]
    ping = {"proto": "icmp", "orig_p": 8, "resp_p": 0, "weight": 1.0}
    evidence |= {"features": [], "flows": [evidence["flows"][0] | ping]}
    return made


def _with_uids(document: Document) -> Document:
    """The same with uids as long as Zeek's."""
    made = copy.deepcopy(document)
    for flow in made["ids_plugin"]["evidence"]["flows"]:
        flow["uid"] = f"C{hashlib.sha256(flow['uid'].encode()).hexdigest()[:17]}"
    return made


MADE = [_with_uids(one) for one in (*DOCUMENTS, _longest(), _bare())]
LONGEST, BARE = MADE[-2:]
OPEN = [one for one in MADE if one["event"]["kind"] == "alert"]


@pytest.fixture(scope="module")
def stream(elasticsearch: services.Elasticsearch) -> Stream:
    made = Stream(elasticsearch)
    made.sink.write(MADE)
    made.client.indices.refresh(index=made.name)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if reason := vega.missing():
        pytest.skip(reason)
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=vega.chromium(), args=[*FLAGS, "--disable-sync", "--no-first-run"]
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def packages() -> Path:
    if reason := vega.missing():
        pytest.skip(reason)
    return vega.oldest()


@pytest.fixture(scope="module")
def page(browser: Any, packages: Path) -> Iterator[Any]:
    """With the Vega of the oldest Kibana."""
    opened = vega.page_with(browser, vega.scripts(packages), ZONE)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def newest_page(browser: Any) -> Iterator[Any]:
    opened = vega.page_with(browser, vega.NEWEST, ZONE)
    yield opened
    opened.close()


def _draw(page: Any, stream: Stream, name: str, theme: str = "light", **asked: Any) -> vega.Drawn:
    answer = vega.ask(stream.client, PANELS[name], stream.name, **asked)
    return vega.draw(page, vega.filled(PANELS[name], answer, theme), *vega.SIZES[name])


def _only(document: Document) -> list[dict[str, Any]]:
    """The filter that leaves one document."""
    return [{"term": {"event.id": document["event"]["id"]}}]


# What a panel has to say, worked out from the document alone.


def _instant(text: str, pattern: str) -> str:
    return datetime.fromisoformat(text).astimezone(ZoneInfo(ZONE)).strftime(pattern)


def _milliseconds(text: str, pattern: str) -> str:
    return _instant(text, pattern.replace("%L", text[20:23]))


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    steps = ((1, 1000, "ms"), (100, 1, "s"), (6000, 1 / 60, "min"), (float("inf"), 1 / 3600, "h"))
    factor, unit = next((factor, unit) for limit, factor, unit in steps if seconds < limit)
    return f"{seconds * factor:.3g} {unit}"


def _size(count: int | None) -> str:
    if count is None or count < 1000:
        return "–" if count is None else f"{count} B"
    power = min(4, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.3g} {'BkMGT'[power]}B"


def _share(weight: float) -> str:
    return "<1 %" if weight < 0.005 else f"{100 * weight:.0f} %"


def _end(host: str, port: int | None) -> str:
    return (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")


def _ends(flow: Document) -> str:
    ports = (None, None) if flow["proto"] == "icmp" else (flow["orig_p"], flow["resp_p"])
    return f"{_end(flow['orig_h'], ports[0])} → {_end(flow['resp_h'], ports[1])} {flow['proto']}"


def _heading(document: Document, *, long: bool, of: int = 1) -> list[str]:
    ours = document["ids_plugin"]
    facts = [ours["severity"], _instant(document["@timestamp"], "%Y-%m-%d %H:%M:%S %z")]
    if long:
        facts.insert(1, f"score {ours['score']:.3f}, threshold {ours['threshold']:.3f}")
        facts.append(f"sensor {document['observer']['name']}")
    if ours["fold"]["state"] == "closed":
        facts.append("closed: its strongest flow")
    if of > 1:
        facts.append(f"newest of {of} alerts, filter for another")
    return [document["message"], " · ".join(facts)]


def _common(flow: Document) -> list[str]:
    """What both panels of flows say of one."""
    step = f"−{flow['lag']}" if flow["lag"] else "this"
    state = flow.get("conn_state", "–")
    return [
        step,
        _share(flow["weight"]),
        state,
        _size(flow.get("orig_bytes")),
        _size(flow.get("resp_bytes")),
    ]


def _attention(document: Document) -> list[str]:
    evidence = document["ids_plugin"]["evidence"]
    start = {flow["lag"]: datetime.fromisoformat(flow["ts"]) for flow in evidence["flows"]}
    said = [evidence["summary"]]
    for flow in evidence["flows"]:
        port = (
            f"type {flow['orig_p']}"
            if flow["proto"] == "icmp"
            else f"{flow['resp_p']}/{flow['proto']}"
        )
        said += [*_common(flow), f"{'←' if flow['reverse'] else '→'} {port}"]
        if flow["lag"]:
            ago = (start[0] - start[flow["lag"]]) / timedelta(seconds=1)
            said.append("<1 ms" if ago < 0.001 else _span(ago))
    return said


def _flows(document: Document) -> list[str]:
    said = []
    for flow in document["ids_plugin"]["evidence"]["flows"]:
        said += [*_common(flow), _ends(flow), _span(flow.get("duration")), flow["uid"]]
        said.append(_milliseconds(flow["ts"], "%m-%d %H:%M:%S.%L"))
    return said


def _features(document: Document) -> list[str]:
    features = document["ids_plugin"]["evidence"]["features"]
    label = document["ids_plugin"]["label"].replace("_", " ")
    said = (
        [f"log-odds: + speaks for {label}, − against"]
        if features
        else ["This alert names no features."]
    )
    for one in features:
        said += [one["text"], f"{one['contribution']:+.2f}".replace("-", "−")]
    return said


def _expected(document: Document) -> list[str]:
    features = document["ids_plugin"]["evidence"]["features"]
    said = [] if features else ["This alert names no features."]
    for feature in features:
        value, expected = feature.get("value"), feature.get("expected")
        said += [
            _label(feature),
            feature.get("value_text", _number(value)),
            feature.get("expected_text", _number(expected)),
        ]
        if value and expected and value != expected:
            larger = value > expected
            ratio = value / expected if larger else expected / value
            said.append(f"{'×' if larger else '÷'} {_two(ratio)}")
    return said


def _label(feature: Document) -> str:
    """What was measured; the name in documents from before there were labels."""
    return str(feature.get("label", feature["name"]))


def _number(number: float | None) -> str:
    return "–" if number is None else f"{number:,.3g}"


def _in_order(name: str, document: Document) -> list[str]:
    """The first text of each row, from above."""
    features = sorted(
        document["ids_plugin"]["evidence"]["features"], key=lambda one: -abs(one["contribution"])
    )
    if name == "features":
        return [one["text"] for one in features]
    return [_label(feature) for feature in features] if name == "expected" else []


def _two(number: float) -> str:
    """Two digits, then zeros."""
    return f"{round(number, 2 - len(str(int(number)))):,.12g}" if number >= 10 else f"{number:.2g}"


SAID = {"attention": _attention, "features": _features, "expected": _expected, "flows": _flows}


def _flow_tip(flow: Document) -> dict[str, Any]:
    return {
        "flow": _ends(flow),
        "start": _milliseconds(flow["ts"], "%Y-%m-%d %H:%M:%S.%L %z"),
        "weight": _share(flow["weight"]),
        "state": flow.get("conn_state", "–"),
        "duration": _span(flow.get("duration")),
        "bytes by originator": _size(flow.get("orig_bytes")),
        "bytes by responder": _size(flow.get("resp_bytes")),
        "uid": flow["uid"],
    }


def _feature_tip(feature: Document, *, contribution: bool) -> dict[str, Any]:
    tip = {"feature": feature["name"], "said": feature["text"]}
    tip |= {
        name: feature[of]
        for name, of in (("seen", "value"), ("usual", "expected"))
        if of in feature
    }
    return tip | (
        {"contribution": f"{feature['contribution']:+.3f}".replace("-", "−")}
        if contribution
        else {}
    )


def _tips(name: str, document: Document) -> list[dict[str, Any]]:
    evidence = document["ids_plugin"]["evidence"]
    if name in ("attention", "flows"):
        return [_flow_tip(one) for one in evidence["flows"]]
    return [_feature_tip(one, contribution=name == "features") for one in evidence["features"]]


def faults(name: str, document: Document, drawn: vega.Drawn, of: int = 1) -> list[str]:
    """What a panel doesn't say of a document, or says of it that can't be so."""
    said = drawn.said()
    wanted = [*_heading(document, long=name == "attention", of=of), *SAID[name](document)]
    wrong = [f"it doesn't say {text!r}" for text in Counter(wanted) - Counter(said)]
    wrong += [
        f"it says {text!r}"
        for text in said
        if re.search(r"undefined|NaN|null|Invalid|\[object|…", text)
    ]
    rows = _in_order(name, document)
    if rows != [
        one["text"] for one in sorted(drawn.texts, key=lambda one: one["y"]) if one["text"] in rows
    ]:
        wrong.append(f"its rows aren't {rows}")
    tips = _tips(name, document)
    for mark in BARS[name]:
        if (count := len(drawn.marks.get(mark, []))) != len(tips):
            wrong.append(f"{count} {mark} for {len(tips)}")
    shown = [
        {key: value for key, value in tip.items() if value is not None} for tip in drawn.tooltips
    ]
    return wrong + [f"no tooltip {tip}" for tip in tips if tip not in shown] + drawn.noise


@pytest.mark.parametrize("name", PANELS)
def test_fits_vegas_own_schema(packages: Path, tmp_path: Path, name: str) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(vega.filled(PANELS[name], {"hits": {"hits": []}})))
    checker = Path(sys.executable).with_name("check-jsonschema")
    schema = packages / "vega/build/vega-schema.json"
    subprocess.run(
        [str(checker), "--schemafile", str(schema), str(spec)], check=True, capture_output=True
    )
    assert PANELS[name]["$schema"] == "https://vega.github.io/schema/vega/v5.json"


@pytest.mark.parametrize("name", PANELS)
def test_says_all_of_every_alert(page: Any, stream: Stream, name: str) -> None:
    wrong = {}
    for document in MADE:
        if found := faults(name, document, _draw(page, stream, name, filters=_only(document))):
            wrong[document["event"]["id"]] = found
    assert not wrong


@pytest.mark.parametrize("name", PANELS)
def test_newer_vega_draws_the_same(page: Any, newest_page: Any, stream: Stream, name: str) -> None:
    for document in (LONGEST, BARE):
        old, new = (
            _draw(one, stream, name, filters=_only(document)) for one in (page, newest_page)
        )
        assert faults(name, document, new) == []
        assert {mark: len(items) for mark, items in new.marks.items()} == {
            mark: len(items) for mark, items in old.marks.items()
        }


@pytest.mark.parametrize("name", PANELS)
def test_of_several_alerts_the_newest_is_shown_and_said_so(
    page: Any, stream: Stream, name: str
) -> None:
    newest = min(
        OPEN,
        key=lambda one: (
            -datetime.fromisoformat(one["@timestamp"]).timestamp(),
            one["event"]["id"],
        ),
    )
    assert faults(name, newest, _draw(page, stream, name), of=len(OPEN)) == []
    label = newest["ids_plugin"]["label"]
    others = [one for one in OPEN if one["ids_plugin"]["label"] != label]
    drawn = _draw(
        page, stream, name, filters=[{"bool": {"must_not": {"term": {"ids_plugin.label": label}}}}]
    )
    next_one = min(
        others,
        key=lambda one: (
            -datetime.fromisoformat(one["@timestamp"]).timestamp(),
            one["event"]["id"],
        ),
    )
    assert faults(name, next_one, drawn, of=len(others)) == []


@pytest.mark.parametrize("name", PANELS)
def test_no_alert_says_so_and_draws_nothing(page: Any, stream: Stream, name: str) -> None:
    for asked in (
        {"filters": [{"term": {"event.id": "none"}}]},
        {"span": ("2001-01-01", "2001-01-02")},
    ):
        drawn = _draw(page, stream, name, **asked)
        assert drawn.said() == [
            "No alert matches the filters in this time range. Widen the range or remove a filter."
        ]
        assert not [mark for mark in BARS[name] if drawn.marks.get(mark)]
        assert drawn.noise == []


@pytest.mark.parametrize("name", PANELS)
def test_every_field_it_names_is_needed_and_mapped(page: Any, stream: Stream, name: str) -> None:
    """Each one in turn under another name: the request is refused, or what is drawn is found
    wrong."""
    mapped = stream.client.field_caps(index=stream.name, fields="*")["fields"]
    unnoticed = []
    for field in sorted(vega.fields(PANELS[name])):
        assert field in mapped
        if not _noticed(page, stream, name, field):
            unnoticed.append(field)
    assert not unnoticed


def _noticed(page: Any, stream: Stream, name: str, field: str) -> bool:
    spec = copy.deepcopy(PANELS[name])
    url = vega.request(spec)
    url["%timefield%"] = url["%timefield%"].replace(field, f"{field}_x")
    url["body"] = json.loads(json.dumps(url["body"]).replace(f'"{field}"', f'"{field}_x"'))
    newest = min(
        OPEN,
        key=lambda one: (
            -datetime.fromisoformat(one["@timestamp"]).timestamp(),
            one["event"]["id"],
        ),
    )
    for document, filters, of in ((LONGEST, _only(LONGEST), 1), (newest, [], len(OPEN))):
        try:
            answer = vega.ask(stream.client, spec, stream.name, filters)
            drawn = vega.draw(page, vega.filled(spec, answer), *vega.SIZES[name])
        except (client.ApiError, sync_api.Error):
            return True
        if faults(name, document, drawn, of):
            return True
    return False


@pytest.mark.parametrize("name", PANELS)
def test_it_asks_for_alerts_of_the_dashboards_filters_and_time(name: str) -> None:
    url = vega.request(PANELS[name])
    assert (url["%context%"], url["%timefield%"], url["index"]) == (
        True,
        "@timestamp",
        f"{ALERTS}-*",
    )
    assert "query" not in url["body"], "Kibana refuses a query together with %context%"


@pytest.mark.parametrize(
    ("sizes", "documents"),
    [(vega.SIZES, (LONGEST, *MADE[:2])), (vega.NARROW, MADE[:2])],
    ids=["usual", "narrow"],
)
@pytest.mark.parametrize("name", PANELS)
def test_texts_stay_in_the_panel_and_apart(
    page: Any,
    stream: Stream,
    name: str,
    sizes: Mapping[str, tuple[int, int]],
    documents: Sequence[Document],
) -> None:
    width, height = sizes[name]
    for document in documents:
        answer = vega.ask(stream.client, PANELS[name], stream.name, _only(document))
        texts = vega.draw(page, vega.filled(PANELS[name], answer), width, height).texts
        for one in texts:
            assert "…" not in one["text"]
            assert min(one["x"], one["y"]) >= 0, one
            assert one["x"] + one["width"] <= width, one
            assert one["y"] + one["height"] <= height, one
        for one, other in combinations(texts, 2):
            assert not _overlap(one, other), (one, other)


def _overlap(one: dict[str, Any], other: dict[str, Any], slack: float = 2) -> bool:
    across = min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
    down = min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
    return bool(across > slack and down > slack)


@pytest.mark.parametrize("theme", vega.THEMES)
@pytest.mark.parametrize("name", PANELS)
def test_is_readable_on_light_and_dark(page: Any, stream: Stream, name: str, theme: str) -> None:
    """Text in the theme's own colours; bars at least 3 to 1 against the page where they are
    strongest."""
    drawn = _draw(page, stream, name, theme, filters=_only(LONGEST))
    colours = vega.THEMES[theme]
    assert {one["fill"] for one in drawn.texts} <= {colours.title, colours.label}
    for mark in set(BARS[name]) - {"usual"}:
        for one in drawn.marks[mark]:
            assert _contrast(one["fill"], colours.page) >= 3


def _contrast(one: str, other: str) -> float:
    """As WCAG 2 has it, 1 to 21."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_attention_is_height_and_strength_oldest_left(page: Any, stream: Stream) -> None:
    bars = _draw(page, stream, "attention", filters=_only(LONGEST)).marks["bars"]
    weights = {flow["lag"]: flow["weight"] for flow in LONGEST["ids_plugin"]["evidence"]["flows"]}
    ordered = sorted(bars, key=lambda one: one["x"])
    scale = ordered[-1]["height"] / weights[0]
    for bar, lag in zip(ordered, range(10, -1, -1), strict=True):
        assert bar["height"] == pytest.approx(scale * weights[lag], abs=2)
    assert all(one["opacity"] <= other["opacity"] for one, other in pairwise(ordered))


def test_features_are_sorted_by_size_and_signed(page: Any, stream: Stream) -> None:
    bars = _draw(page, stream, "features", filters=_only(LONGEST)).marks["bars"]
    ordered = sorted(bars, key=lambda one: one["y"])
    sizes = [2.5, 1.25, -0.75, -0.5, 0.12]
    scale = ordered[0]["width"] / 2.5
    assert [round(one["width"] / scale, 1) for one in ordered] == [
        round(abs(one), 1) for one in sizes
    ]
    zero = ordered[0]["x"]
    assert [one["x"] < zero - 1 for one in ordered] == [one < 0 for one in sizes]
    assert len({one["fill"] for one in ordered}) == 2


def test_seen_and_usual_share_a_row_and_its_scale(page: Any, stream: Stream) -> None:
    marks = _draw(page, stream, "expected", filters=_only(LONGEST)).marks
    by_row = [sorted(marks[name], key=lambda one: one["y"]) for name in ("seen", "usual")]
    full = max(one["width"] for one in marks["seen"])
    seen, usual = ([one["width"] / full for one in rows] for rows in by_row)
    assert seen == pytest.approx([75 / 2.5e6, 1, 0.072, 1, 0], abs=0.02)
    assert usual == pytest.approx([1, 2 / 800, 1, 0, 0], abs=0.02)
