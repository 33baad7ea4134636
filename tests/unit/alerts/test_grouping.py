"""Which flows fold together, when a fold opens and closes, and what its totals say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from ids_plugin.alerts import AlertGrouper
from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import CLASSES
from tests.support.factories import (
    BUNDLE,
    SENSOR,
    START,
    alerts_of,
    behaviour,
    evidence,
    flow,
    fold,
    frame,
    part,
    scores,
    step,
    unanswered,
)

MINUTE, HOUR = 60, 3600


def documents(
    rows: list[dict[str, Any]], label: str = "scan", score: float = 0.9
) -> list[Document]:
    flows = frame(rows)
    return fold(flows, scores([label] * len(flows), [score] * len(flows)))[0]


def folds(found: list[Document]) -> list[tuple[str, str, str]]:
    """(subject, role, class) of the alerts."""
    opened = [one for one in found if one["event"]["kind"] == "alert"]
    return [
        (
            one["ids_plugin"]["fold"]["subject"],
            one["ids_plugin"]["fold"]["role"],
            one["ids_plugin"]["label"],
        )
        for one in opened
    ]


def totals(document: Document) -> Document:
    found: Document = document["ids_plugin"]["fold"]
    return found


def test_a_scan_of_all_ports_is_one_alert_and_one_closing_document() -> None:
    one = frame([unanswered(0, "10.0.0.66", "10.0.0.9", 1)])
    ports = pl.Series("resp_p", np.arange(1, 65_536), pl.UInt16)
    times = pl.Series("ts", np.arange(65_535) * 1000, pl.Duration("us")) + START
    flows = one[np.zeros(65_535, np.int64)].with_columns(
        ports, times, times.alias("known"), times.alias("clock")
    )

    opened, closed = fold(flows, scores(["scan"] * len(flows), [0.9] * len(flows)))[0]

    assert (opened["event"]["kind"], totals(opened)["state"], totals(opened)["count"]) == (
        "alert",
        "open",
        1,
    )
    assert (closed["event"]["kind"], totals(closed)["state"], totals(closed)["count"]) == (
        "event",
        "closed",
        65_535,
    )
    assert (totals(closed)["peers"], totals(closed)["ports"]) == (1, 65_535)
    assert totals(opened)["id"] == totals(closed)["id"]
    assert opened["event"]["id"] != closed["event"]["id"]
    assert closed["message"] == "10.0.0.66 scans 10.0.0.9, 65,535 ports: 65,535 flows in 65.5 s"


@pytest.mark.parametrize(
    ("orig_h", "resp_h", "label", "expected"),
    [
        ("10.0.0.5", "8.8.8.8", "exfiltration", ("10.0.0.5", "actor", "exfiltration")),
        (
            "8.8.8.8",
            "10.0.0.5",
            "command_and_control",
            ("10.0.0.5", "target", "command_and_control"),
        ),
        ("10.0.0.5", "10.0.0.9", "scan", ("10.0.0.5", "actor", "scan")),
        ("8.8.8.8", "9.9.9.9", "scan", ("8.8.8.8", "actor", "scan")),
        ("10.0.0.5", "10.0.0.9", "flood", ("10.0.0.9", "target", "flood")),
        ("10.0.0.5", "8.8.8.8", "flood", ("8.8.8.8", "target", "flood")),
        ("8.8.8.8", "10.0.0.5", "flood", ("10.0.0.5", "target", "flood")),
        ("8.8.8.8", "10.0.0.5", "scan", ("10.0.0.5", "target", "inbound_noise")),
        ("8.8.8.8", "10.0.0.5", "brute_force", ("10.0.0.5", "target", "inbound_noise")),
        ("8.8.8.8", "10.0.0.5", "spreading", ("10.0.0.5", "target", "inbound_noise")),
        ("8.8.8.8", "10.0.0.5", "inbound_noise", ("10.0.0.5", "target", "inbound_noise")),
    ],
)
def test_who_a_fold_is_about(
    orig_h: str, resp_h: str, label: str, expected: tuple[str, str, str]
) -> None:
    assert folds(documents([flow(0, orig_h, resp_h)], label)) == [expected]


def test_noise_of_the_internet_comes_from_strangers_only() -> None:
    scored = scores(["inbound_noise"], [0.9])
    scored.probability[0, [CLASSES.index("scan"), CLASSES.index("other")]] = 0.06, 0.04
    assert folds(fold(frame([flow(0)]), scored)[0]) == [("10.0.0.5", "actor", "scan")]


def test_where_nothing_is_known_to_be_local_the_originator_is_the_subject() -> None:
    found = documents([flow(0, local_orig=None, local_resp=None)])
    assert folds(found) == [("10.0.0.5", "actor", "scan")]
    assert found[0]["network"]["direction"] == "unknown"


def test_an_exposed_host_is_one_quiet_alert_whose_totals_name_the_top_strangers() -> None:
    rows = [unanswered(s, f"192.0.2.{s % 200}", "10.0.0.80", 23) for s in range(1000)]
    rows += [unanswered(2000 + s, "198.51.100.1", "10.0.0.80", 23) for s in range(50)]
    opened, closed = documents(rows)
    assert opened["event"]["severity"] == closed["event"]["severity"] == 21
    assert totals(closed)["peers"] == 201
    assert totals(closed)["top_peers"][0] == {"ip": "198.51.100.1", "count": 50}
    assert len(totals(closed)["top_peers"]) == 10
    assert closed["related"]["ip"][:2] == ["10.0.0.80", "198.51.100.1"]


def test_a_spoofed_flood_folds_by_its_victim() -> None:
    opened, closed = alerts_of("flood")
    assert totals(opened)["subject"] == "10.0.0.7"
    assert (totals(closed)["peers"], totals(closed)["count"]) == (1000, 1000)


def test_a_fold_closes_when_the_clock_passes_its_last_flow_by_30_minutes() -> None:
    rows = [flow(0), flow(10 * MINUTE)]
    assert len(documents([*rows, flow(40 * MINUTE - 1)])) == 2
    again = documents([*rows, flow(40 * MINUTE)])
    assert [totals(one)["state"] for one in again] == ["open", "closed", "open", "closed"]
    assert [totals(one).get("closed_by") for one in again] == [None, "quiet", None, "end"]
    assert totals(again[1])["count"] == 2


def test_other_hosts_flows_move_the_clock() -> None:
    folder = AlertGrouper(SENSOR, BUNDLE)
    quiet = scores(["scan"], [0.1])
    assert len(step(folder, frame([flow(0)]), scores(["scan"], [0.9]))[0]) == 1
    assert step(folder, frame([flow(29 * MINUTE, "10.0.0.77")]), quiet)[0] == []
    (closed,) = step(folder, frame([flow(31 * MINUTE, "10.0.0.77")]), quiet)[0]
    assert totals(closed)["closed_by"] == "quiet"
    assert closed["event"]["end"] == "2026-03-02T09:00:00.500000Z"
    assert len(folder) == 0


def test_a_fold_closes_after_a_day_however_busy() -> None:
    found = documents([flow(hour * HOUR / 4) for hour in range(4 * 30)])
    assert [totals(one).get("closed_by") for one in found] == [None, "day", None, "end"]
    assert [totals(one)["count"] for one in found] == [1, 96, 1, 24]


def test_a_delayed_flow_folds_at_the_clock() -> None:
    flows = frame([flow(0), flow(29 * MINUTE)])
    late = frame([flow(1 * MINUTE, uid="Clate")]).with_columns(clock=pl.lit(flows["clock"][-1]))
    after = frame([flow(50 * MINUTE)])
    both = pl.concat([flows, late, after])
    found = fold(both, scores(["scan"] * 4, [0.9] * 4))[0]
    assert [totals(one)["count"] for one in found] == [1, 4]


def test_documents_come_in_the_order_of_what_caused_them() -> None:
    rows = [
        flow(0, "10.0.0.1"),
        flow(5 * MINUTE, "10.0.0.2"),
        flow(33 * MINUTE, "10.0.0.3"),
        flow(36 * MINUTE, "10.0.0.4"),
    ]
    found = [(totals(one)["subject"], totals(one)["state"]) for one in documents(rows)]
    assert found == [
        ("10.0.0.1", "open"),
        ("10.0.0.2", "open"),
        ("10.0.0.1", "closed"),
        ("10.0.0.3", "open"),
        ("10.0.0.2", "closed"),
        ("10.0.0.4", "open"),
        ("10.0.0.3", "closed"),
        ("10.0.0.4", "closed"),
    ]


def test_evidence_is_asked_for_few_and_the_closing_document_has_the_strongest() -> None:
    flows = frame([flow(s, uid=f"C{s}") for s in range(5)])
    scored = scores(["scan"] * 5, [0.6, 0.95, 0.7, 0.95, 0.2])
    plan = AlertGrouper(SENSOR, BUNDLE).plan(flows, scored)
    assert plan.rows.tolist() == [0, 1]
    opened, closed = fold(flows, scored)[0]
    assert (opened["zeek"]["session_id"], opened["ids_plugin"]["score"]) == ("C0", 0.6)
    assert (closed["zeek"]["session_id"], closed["ids_plugin"]["score"]) == ("C1", 0.95)
    assert closed["ids_plugin"]["evidence"]["flows"][0]["uid"] == "C1"


def test_an_earlier_batch_that_was_stronger_keeps_its_evidence() -> None:
    flows = frame([flow(s) for s in range(4)])
    scored = scores(["scan"] * 4, [0.9, 0.6, 0.8, 0.9])
    folder = AlertGrouper(SENSOR, BUNDLE)
    step(folder, flows[:2], part(scored, 0, 2))
    assert folder.plan(flows[2:], part(scored, 2, 4)).rows.tolist() == []


def test_planning_changes_nothing() -> None:
    flows, scored = frame([flow(0)]), scores(["scan"], [0.9])
    folder = AlertGrouper(SENSOR, BUNDLE)
    assert (
        folder.plan(flows, scored).rows.tolist() == folder.plan(flows, scored).rows.tolist() == [0]
    )
    assert len(folder) == 0


@pytest.mark.parametrize("batches", [(), (1,), (2,), (1, 2), (1, 2, 3)])
def test_a_growing_connection_counts_once_with_its_latest_numbers(batches: tuple[int, ...]) -> None:
    growing: dict[str, Any] = {"uid": "Cgrows", "orig_h": "10.0.0.5", "resp_h": "8.8.8.8"}
    rows = [
        flow(0, **growing, duration=timedelta(minutes=1), orig_bytes=10, open=True),
        flow(0, **growing, duration=timedelta(minutes=6), orig_bytes=500, open=True, replaces=True),
        flow(400, "10.0.0.5", "9.9.9.9", orig_bytes=7),
        flow(0, **growing, duration=timedelta(minutes=9), orig_bytes=900, replaces=True),
    ]
    flows = frame(rows)
    found, ledger = fold(flows, scores(["exfiltration"] * 4, [0.9] * 4), batches=batches)
    closed = totals(found[-1])
    assert (closed["count"], closed["orig_bytes"], closed["packets"]) == (2, 907, 22)
    assert closed["top_peers"] == [{"ip": "8.8.8.8", "count": 1}, {"ip": "9.9.9.9", "count": 1}]
    assert (closed["first"], closed["last"]) == (
        "2026-03-02T09:00:00.000000Z",
        "2026-03-02T09:09:00.000000Z",
    )
    assert (ledger.total.opened, ledger.total.folded) == (1, 3)


def test_a_record_that_replaces_one_of_an_earlier_fold_counts_in_its_own() -> None:
    rows = [
        flow(0, uid="C1", open=True, orig_bytes=10),
        flow(0, uid="C1", duration=timedelta(hours=1), replaces=True, orig_bytes=70),
    ]
    found = documents(rows)
    assert [
        (totals(one)["state"], totals(one)["count"], totals(one)["orig_bytes"]) for one in found
    ] == [
        ("open", 1, 10),
        ("closed", 1, 10),
        ("open", 1, 70),
        ("closed", 1, 70),
    ]
    assert len({one["event"]["id"] for one in found}) == 4


def test_what_no_flow_knows_is_left_out_of_the_totals() -> None:
    closed = totals(
        documents(
            [unanswered(s, "10.0.0.5", "10.0.0.9", 22, resp_ip_bytes=None) for s in range(3)]
        )[-1]
    )
    assert "orig_bytes" not in closed
    assert "ip_bytes" not in closed
    assert closed["packets"] == 3


def test_too_many_peers_to_count_are_said_to_be_more() -> None:
    one = frame([unanswered(0, "10.0.0.66", "10.0.0.9", 23)])
    number = pl.int_range(70_000)
    flows = one[np.zeros(70_000, np.int64)].with_columns(
        resp_h=pl.format("198.{}.{}.1", number // 256, number % 256)
    )
    found = fold(flows, scores(["scan"] * 70_000, [0.9] * 70_000), batches=(60_000,))[0]
    assert (totals(found[-1])["peers"], totals(found[-1])["peers_relation"]) == (65_536, "gte")
    assert "scans more than 65,536 hosts" in found[-1]["message"]


def test_open_folds_survive_as_json() -> None:
    flows = frame(behaviour("spreading") + behaviour("inbound_noise"))
    labels = [
        "spreading" if host.startswith("10.") else "inbound_noise" for host in flows["orig_h"]
    ]
    scored = scores(labels, np.linspace(0.6, 0.9, len(flows)).tolist())
    whole = fold(flows, scored)[0]

    first = AlertGrouper(SENSOR, BUNDLE)
    found = step(first, flows[:100], part(scored, 0, 100))[0]
    second = AlertGrouper(SENSOR, BUNDLE)
    second.restore(json.loads(json.dumps(first.state())))
    found += step(second, flows[100:], part(scored, 100, len(flows)))[0]
    assert found + second.finish().documents == whole


def test_the_wall_clock_is_an_argument() -> None:
    flows, scored = frame([flow(0)]), scores(["scan"], [0.9])
    folder = AlertGrouper(SENSOR, BUNDLE)
    plan = folder.plan(flows, scored)
    now = datetime(2026, 4, 1, 12, 0, 0, 5, tzinfo=UTC)
    (opened,) = folder.commit(plan, {0: evidence(flows.row(0, named=True))}, now).documents
    (closed,) = folder.finish(now).documents
    assert (
        opened["event"]["ingested"] == closed["event"]["ingested"] == "2026-04-01T12:00:00.000005Z"
    )
    assert opened["@timestamp"] == "2026-03-02T09:00:00.500000Z"


def test_an_empty_batch_does_nothing() -> None:
    folder = AlertGrouper(SENSOR, BUNDLE)
    step(folder, frame([flow(0)]), scores(["scan"], [0.9]))
    assert step(folder, frame([]), scores([], []))[0] == []
    assert len(folder) == 1


@pytest.mark.parametrize(
    ("doubts", "severities"),
    [
        ((2, 1, 2, 1), ("medium", "high")),
        ((0, 2, 2, 2), ("critical", "critical")),
        ((1, 1, 1, 0), ("high", "critical")),
    ],
)
def test_a_group_stands_as_high_as_its_surest_flow_so_far(
    doubts: tuple[int, ...], severities: tuple[str, str]
) -> None:
    flows = frame([unanswered(at, "10.0.0.31", f"10.0.0.{at}", 445) for at in range(4)])
    doubted = scores(["spreading"] * 4, [0.9] * 4)._replace(doubt=np.array(doubts))
    found = fold(flows, doubted)[0]
    assert tuple(document["ids_plugin"]["severity"] for document in found) == severities
