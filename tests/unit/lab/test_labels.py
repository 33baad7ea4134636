"""Labels of the lab on flows: who, whom, where, when, and which of several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ids_plugin.schema import flow as schema
from tests.lab.labels import SLACK, Activity, label, read, write
from tests.support import factories

BEGIN = factories.START.timestamp()
SCAN = Activity(
    start=BEGIN + 100,
    end=BEGIN + 160,
    klass="scan",
    technique="T1046",
    activity="nmap -sS",
    orig=("10.0.0.5",),
    resp=("10.0.0.9", "10.0.0.10"),
    proto="tcp",
    ports=None,
)


def labelled(rows: list[factories.Row], *labels: Activity) -> list[tuple[str, str | None]]:
    flows = pl.DataFrame(rows, schema=schema.SCHEMA, orient="row", strict=False)
    return label(flows, labels).select("label", "label_detail").rows()


def row(
    seconds: float, orig_h: str = "10.0.0.5", resp_h: str = "10.0.0.9", **columns: object
) -> factories.Row:
    made = factories.flow(seconds, orig_h, resp_h, **columns)
    return {name: made[name] for name in schema.SCHEMA}


def test_a_flow_of_the_activity_gets_class_and_technique() -> None:
    assert labelled([row(120)], SCAN) == [("scan", "T1046 nmap -sS")]


def test_what_nothing_matches_is_benign_without_detail() -> None:
    rows = [row(120, "10.0.0.6"), row(120, resp_h="10.0.0.11"), row(120, proto="udp")]
    assert labelled(rows, SCAN) == [("benign", None)] * 3


def test_answers_seen_the_other_way_round_belong_to_it() -> None:
    guesses = replace(SCAN, klass="brute_force", ports=(22,))
    turned = row(120, "10.0.0.9", "10.0.0.5", orig_p=22, resp_p=50000)
    assert labelled([turned], guesses) == [("brute_force", "T1046 nmap -sS")]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (100 - SLACK / 2, "scan"),
        (100 - SLACK * 2, "benign"),
        (160 + SLACK / 2, "scan"),
        (160 + SLACK * 2, "benign"),
    ],
)
def test_time_has_half_a_second_of_slack_at_both_ends(seconds: float, expected: str) -> None:
    assert labelled([row(seconds)], SCAN)[0][0] == expected


def test_the_more_specific_activity_wins_whatever_the_order() -> None:
    backup = replace(
        SCAN,
        klass="benign",
        technique="",
        activity="backup",
        ports=(21,),
        resp=("10.0.0.9",),
        start=BEGIN,
    )
    rows = [row(120, resp_p=21), row(120, resp_p=80)]
    expected = [("benign", "backup"), ("scan", "T1046 nmap -sS")]
    assert labelled(rows, SCAN, backup) == labelled(rows, backup, SCAN) == expected


def test_of_equally_specific_activities_the_later_start_wins() -> None:
    usual = replace(
        SCAN,
        klass="benign",
        technique="",
        activity="telemetry",
        start=BEGIN,
        end=BEGIN + 600,
        ports=(1883,),
    )
    guesses = replace(SCAN, klass="brute_force", activity="MQTT guesses", ports=(1883,))
    rows = [row(50, resp_p=1883), row(120, resp_p=1883), row(300, resp_p=1883)]
    assert [found[0] for found in labelled(rows, guesses, usual)] == [
        "benign",
        "brute_force",
        "benign",
    ]


def test_networks_and_any_address_match() -> None:
    sweep = replace(SCAN, resp=("10.0.0.0/24",), ports=(22,))
    flood = replace(
        SCAN, klass="flood", activity="flood", orig=None, resp=("10.0.0.9",), ports=(80,)
    )
    rows = [row(120, resp_h="10.0.0.77", resp_p=22), row(120, "77.1.2.3", "10.0.0.9", resp_p=80)]
    assert [found[0] for found in labelled(rows, sweep, flood)] == ["scan", "flood"]


def test_a_flow_without_ports_matches_only_activities_without_ports() -> None:
    refused = replace(SCAN, proto=None)
    answer = row(120, "10.0.0.9", "10.0.0.5", proto="icmp", orig_p=None, resp_p=None)
    assert labelled([answer], refused)[0][0] == "scan"
    assert labelled([answer], replace(refused, ports=(22,)))[0][0] == "benign"


def test_an_empty_frame_and_no_labels_are_fine() -> None:
    assert labelled([], SCAN) == []
    assert labelled([row(1)]) == [("benign", None)]


def test_labels_survive_their_file(tmp_path: Path) -> None:
    later = replace(SCAN, start=BEGIN + 500, end=BEGIN + 501, orig=None, ports=(1, 2))
    write(tmp_path / "labels.jsonl", [later, SCAN])
    assert read(tmp_path / "labels.jsonl") == [SCAN, later]
    assert '"class": "scan"' in (tmp_path / "labels.jsonl").read_text()
