"""What the detection benches count, on cases worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ids_plugin.schema.alert import Document
from tests.bench.support.baselines import beacon_score
from tests.bench.support.real_captures import Capture, judge, watched_hours
from tests.bench.support.zeek_order import in_written_order
from tests.support.factories import START, flow, frame

HOST, PEER, OTHER = "10.0.0.5", "198.51.100.7", "198.51.100.8"
LABEL = {
    "capture": "a__one", "host": HOST, "role": "actor", "class": "command_and_control",
    "peer": PEER, "port": "443", "first": str(START.timestamp()),
    "last": str(START.timestamp() + 500), "attack_flows": "6", "confidence": "sure",
    "accept": "command_and_control|exfiltration",
}  # fmt: skip


def capture(labels: Sequence[dict[str, str]], benign: dict[str, str] | None = None) -> Capture:
    """Six flows to PEER, 100 s apart, and one to OTHER."""
    made = Capture("a__one", Path(), tuple(labels), benign)
    flows = [flow(100 * number, HOST, PEER) for number in range(6)]
    made.__dict__["flows"] = frame([*flows, flow(50, HOST, OTHER)])
    return made


def alert(label: str, peer: str, seconds: float = 200, subject: str = HOST) -> Document:
    """A group of flows from the start until `seconds`, which alerted then."""
    times = [(START + timedelta(seconds=second)).isoformat() for second in (0, seconds)]
    fold: dict[str, Any] = {
        "id": f"{label} {peer}", "subject": subject, "count": 3, "first": times[0],
        "last": times[1], "peers": 1, "top_peers": [{"ip": peer}], "ports": 1,
        "top_ports": [{"port": 443}],
    }  # fmt: skip
    return {
        "@timestamp": times[1], "event": {"kind": "alert"},
        "ids_plugin": {"label": label, "severity": "high", "fold": fold},
    }  # fmt: skip


def test_alert_of_accepted_class_finds_case() -> None:
    verdict = judge(capture([LABEL]), [alert("exfiltration", PEER)])
    (case,) = verdict.cases
    assert case.found
    assert case.delay_s == pytest.approx(200)
    assert case.flows == 6
    assert not verdict.false
    assert not verdict.wrong


def test_alert_of_other_class_is_wrong() -> None:
    verdict = judge(capture([LABEL]), [alert("scan", PEER)])
    assert not verdict.cases[0].found
    assert verdict.cases[0].classes == ("scan",)
    assert verdict.wrong == {"scan": 1}
    assert not verdict.false


def test_alert_without_attack_flow_is_false() -> None:
    verdict = judge(capture([LABEL]), [alert("command_and_control", OTHER)])
    assert not verdict.cases[0].found
    assert len(verdict.false) == 1


def test_nothing_is_false_in_uncertain_capture() -> None:
    unclear = {**LABEL, "class": "unclear"}
    verdict = judge(capture([unclear]), [alert("command_and_control", OTHER)])
    assert not verdict.cases
    assert not verdict.false
    assert not verdict.hours


def test_too_few_flows_are_no_case() -> None:
    few = {**LABEL, "last": str(START.timestamp() + 300), "attack_flows": "4"}
    assert not judge(capture([few]), []).cases


def test_long_pauses_are_not_watched() -> None:
    flows = frame([flow(0), flow(1800), flow(1800 + 7200), flow(1800 + 7200 + 1800)])
    assert watched_hours(flows) == pytest.approx(1.0)


def test_written_order_is_that_of_zeeks_timeouts() -> None:
    rows = [
        flow(0, uid="udp", proto="udp", conn_state="SF", service=None),
        flow(1, uid="dns", proto="udp", conn_state="SF", service="dns"),
        flow(2, uid="closed"),
        flow(3, uid="open", conn_state="S1"),
        flow(4, uid="attempt", conn_state="S0", duration=None),
        flow(400, uid="last"),
    ]
    order = in_written_order(frame(rows))["uid"].to_list()
    assert order == ["closed", "attempt", "dns", "udp", "open", "last"]


def test_regular_contact_is_a_beacon() -> None:
    seconds = np.arange(0.0, 1200.0, 10.0)
    regular = np.stack([seconds, np.full(len(seconds), 200.0)], axis=1)
    rng = np.random.default_rng(3)
    irregular = np.stack(
        [np.cumsum(rng.exponential(600.0, 120)), rng.exponential(50_000.0, 120)], axis=1
    )
    assert beacon_score(regular) > 0.95 > 0.6 > beacon_score(irregular)
