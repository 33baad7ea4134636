"""The control detector on a made beacon, and what it reads of flows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from ids_plugin.detectors.contact_profile.facts import (
    LOOKUP_FEATURES,
    FactMemory,
    contact_flows,
    is_external,
    is_tracked,
    lookup_features,
    with_fact_columns,
)
from ids_plugin.detectors.contacts import DAY_US, PLUGIN
from ids_plugin.errors import BundleError
from ids_plugin.windows.contacts import (
    COMPLETED,
    FIRST_SCORED_FLOW,
    HTTP_ADDRESS,
    HTTP_KNOWN,
    HTTP_NO_AGENT,
    HTTP_POST,
    HTTP_RARE_AGENT,
    NO_REPLY,
    REFUSED,
    REPLIED,
    TLS_CERTIFICATE,
    TLS_KNOWN,
    TLS_NO_NAME,
    TLS_SELF_SIGNED,
)
from tests.support import shipped
from tests.support.detecting import judge
from tests.support.factories import Row, flow, frame, unanswered

HOST, CONTROLLER = "10.0.0.31", "203.0.113.9"


def table(rows: list[Row], **facts: Any) -> pl.DataFrame:
    """A frame with the fact columns; `facts` are the same in all rows."""
    return with_fact_columns(frame([row | facts for row in rows]))


def beacon(flows: int) -> list[Row]:
    """A call of the same size every minute."""
    return [
        flow(60 * s, HOST, CONTROLLER, resp_p=4975, orig_bytes=300, resp_bytes=200)
        for s in range(flows)
    ]


def test_a_beacon_alerts_for_a_day_at_a_time_and_says_what_repeats() -> None:
    judged = judge("contacts", beacon(200), days_between=1.0)
    assert judged.classes == {"command_and_control"}
    assert judged.first("command_and_control") >= FIRST_SCORED_FLOW - 1
    assert set(judged.findings.quiet_us.tolist()) == {DAY_US}
    assert not judged.findings.is_target.any()
    evidence = judged.evidence(judged.alerts[-1][0])
    assert evidence.summary.startswith(f"{HOST} contacted {CONTROLLER} port 4975/tcp")
    assert {step.flow.resp_h for step in evidence.flows} == {CONTROLLER}
    assert evidence.features


def test_fewer_flows_than_a_repetition_needs_are_no_finding() -> None:
    few = beacon(FIRST_SCORED_FLOW - 1)
    assert len(judge("contacts", few).findings.rows) == 0


def test_the_threshold_follows_the_days_that_a_bundle_allows_between_false_alerts() -> None:
    rare, often = (judge("contacts", beacon(20), days_between=days) for days in (99.0, 0.25))
    assert set(rare.findings.threshold.tolist()) == {0.99}
    assert set(often.findings.threshold.tolist()) == {0.2}
    assert rare.findings.score.tolist() == often.findings.score.tolist()


def test_one_long_connection_is_one_flow_however_often_the_sensor_tells_of_it() -> None:
    rows = [
        flow(0, HOST, CONTROLLER, resp_p=4975, uid="Clong", open=part < 60)
        | {"duration": timedelta(minutes=part), "orig_bytes": 91 * part}
        for part in range(1, 61)
    ]
    assert len(judge("contacts", rows).findings.rows) == 0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (flow(0, HOST, CONTROLLER), True),
        (flow(0, HOST, "10.0.0.9"), True),
        (flow(0, HOST, CONTROLLER, proto="udp", resp_p=9999), True),
        (flow(0, HOST, CONTROLLER, proto="udp", resp_p=53), False),
        (flow(0, HOST, "224.0.0.251", proto="udp", resp_p=5000), False),
        (flow(0, HOST, "10.0.0.255", proto="udp", resp_p=5000), False),
        (flow(0, HOST, "ff02::fb", proto="udp", resp_p=5000), False),
        (flow(0, HOST, CONTROLLER, proto="icmp", resp_p=0), False),
        (flow(0, CONTROLLER, HOST), False),
        (flow(0, HOST, CONTROLLER, open=True), False),
    ],
)
def test_a_contact_is_what_a_host_begins_with_another_host(row: Row, expected: bool) -> None:
    assert frame([row]).select(is_tracked().fill_null(value=False)).item() is expected


def test_private_and_local_peers_are_not_external() -> None:
    rows = [
        flow(0, HOST, CONTROLLER),
        flow(1, HOST, "10.0.0.9"),
        flow(2, HOST, "192.168.3.4"),
        flow(3, HOST, "198.51.100.4", local_resp=True),
        flow(4, HOST, "fe80::1"),
    ]
    flags = frame(rows).select(is_external())
    assert flags.to_series().to_list() == [True, False, False, False, False]


def test_sizes_and_outcomes_of_flows() -> None:
    rows = [
        flow(0, HOST, CONTROLLER),
        unanswered(1, HOST, CONTROLLER, 443),
        flow(2, HOST, CONTROLLER, conn_state="REJ", resp_pkts=1, orig_bytes=0, resp_bytes=0),
        flow(3, HOST, CONTROLLER, orig_bytes=None, orig_pkts=None, orig_ip_bytes=None),
        flow(4, HOST, CONTROLLER, orig_bytes=None, orig_pkts=2, orig_ip_bytes=180),
    ]
    arrays = contact_flows(table(rows), FactMemory())
    outcomes = [REPLIED | COMPLETED, NO_REPLY, REFUSED, REPLIED | COMPLETED, REPLIED | COMPLETED]
    assert arrays.outcome.tolist() == outcomes
    assert arrays.up[[0, 1, 2, 4]].tolist() == [300.0, 0.0, 0.0, 100.0]
    assert np.isnan(arrays.up[3])
    assert not arrays.http.any()
    assert not arrays.tls.any()


def test_facts_of_other_logs_are_bits() -> None:
    http = {"http_requests": 1, "http_method": "POST", "http_host_is_address": True}
    http |= {"http_has_referrer": True, "http_is_tool_agent": False, "http_status": 200}
    tls = {"tls_established": True, "tls_has_certificate": True, "tls_is_self_signed": True}
    tls |= {"tls_has_alternative_name": True}
    arrays = contact_flows(table([flow(0, HOST, CONTROLLER)], **http, **tls), FactMemory())
    assert arrays.http.tolist() == [HTTP_KNOWN | HTTP_POST | HTTP_ADDRESS | HTTP_NO_AGENT]
    assert arrays.tls.tolist() == [TLS_KNOWN | TLS_NO_NAME | TLS_CERTIFICATE | TLS_SELF_SIGNED]


def test_an_agent_is_rare_where_the_host_uses_it_with_one_peer_alone() -> None:
    peers = ("203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", CONTROLLER)
    rows = [
        flow(s, HOST, peer) | {"http_requests": 1, "http_user_agent": agent}
        for s, (peer, agent) in enumerate(
            zip(peers, ("browser", "browser", "browser", "browser", "odd"), strict=True)
        )
    ]
    http = contact_flows(table(rows), FactMemory()).http
    assert (http & HTTP_RARE_AGENT > 0).tolist() == [False, False, False, False, True]


def test_a_missing_look_up_says_something_only_where_look_ups_are_seen() -> None:
    named = [
        flow(s, HOST, f"203.0.113.{s + 1}") | {"resp_name": f"www{s}.example.net"} for s in range(3)
    ]
    nameless = flow(10, HOST, CONTROLLER)
    looked_up = [name for name, _, _ in LOOKUP_FEATURES].index("looked_up")

    def column(rows: list[Row]) -> list[float]:
        flows, memory = table(rows), FactMemory()
        features = lookup_features(flows, contact_flows(flows, memory), memory)
        return [float(value) for value in features[:, looked_up]]

    assert column([*named, nameless]) == [1, 1, 1, 0]
    unseen = column([flow(s, HOST, f"203.0.113.{s + 1}") for s in range(4)])
    assert np.isnan(unseen).all()


def test_a_model_of_other_columns_is_refused() -> None:
    made = shipped.detector_bundle()
    entry = next(entry for entry in made.manifest.detectors if entry.kind == "contacts").document
    files = dict(entry["files"]) | {"logistic": "counters.json"}
    with pytest.raises(BundleError):
        PLUGIN.open(made, {**entry, "files": files})
