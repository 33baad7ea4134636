"""Four dialects of ECS: the same connection reads as the same flow wherever a dialect keeps its
bytes."""

from __future__ import annotations

from typing import Any

import pytest

from ids_plugin import registry
from ids_plugin.errors import DialectError
from ids_plugin.sources import zeek
from ids_plugin.sources.messages import MessageReader
from ids_plugin.sources.readers.ndjson import Layout
from tests.support.logs import conn, document, jsonl, read

SHARED: dict[str, Any] = {
    "@timestamp": "2024-05-01T12:00:00.857Z",
    "network": {"transport": "udp", "protocol": "dns"},
}
ENDS: dict[str, Any] = {
    "source": {"ip": "10.0.0.5", "port": 40000},
    "destination": {"ip": "198.51.100.7", "port": 53},
}


def ends(source: dict[str, int], destination: dict[str, int]) -> dict[str, Any]:
    return {"source": ENDS["source"] | source, "destination": ENDS["destination"] | destination}


SECURITY_ONION = (
    SHARED
    | ENDS
    | {
        "event": {"dataset": "conn", "module": "zeek", "duration": 0.076967},
        "client": {"bytes": 75, "ip_bytes": 103, "packets": 1},
        "server": {"bytes": 178, "ip_bytes": 206, "packets": 1},
        "connection": {"state": "SF", "history": "Dd", "local": {"originator": True}},
        "log": {"id": {"uid": "C0"}},
    }
)
CORELIGHT = (
    SHARED
    | ends(
        {"bytes": 75, "ip_bytes": 103, "packets": 1}, {"bytes": 178, "ip_bytes": 206, "packets": 1}
    )
    | {
        "event": {"duration": 76_967_000},
        "network": {
            "transport": "udp",
            "protocol": "dns",
            "connection": {"state": "SF", "history": "Dd"},
        },
        "conn": {"local_orig": True},
        "log": {"id": {"uid": "C0"}},
    }
)
MALCOLM = (
    SHARED
    | ends({"bytes": 103, "packets": 1}, {"bytes": 206, "packets": 1})
    | {
        "event": {"dataset": "conn", "provider": "zeek"},
        "network": {"transport": "udp", "protocol": ["dns"]},
        "client": {"bytes": 75},
        "server": {"bytes": 178},
        "zeek": {
            "uid": "C0",
            "conn": {"conn_state": "SF", "history": "Dd", "duration": 0.076967, "local_orig": True},
        },
    }
)


@pytest.mark.parametrize("record", [SECURITY_ONION, CORELIGHT, MALCOLM])
def test_dialects_with_payload_agree(record: dict[str, Any]) -> None:
    for form in (record, {"_index": "x", "_source": record}):
        flow = read(jsonl([form]), "ecs").row
        assert (flow["uid"], flow["conn_state"], flow["history"], flow["sensor_local_orig"]) == (
            "C0",
            "SF",
            "Dd",
            True,
        )
        assert (flow["orig_bytes"], flow["resp_bytes"]) == (75, 178)
        assert (flow["orig_ip_bytes"], flow["resp_ip_bytes"]) == (103, 206)
        assert flow["duration"].total_seconds() == 0.076967
        assert (flow["service"], flow["proto"], flow["orig_pkts"], flow["resp_p"]) == (
            "dns",
            "udp",
            1,
            53,
        )


def test_elastics_integration_has_ip_bytes_and_no_payload() -> None:
    flow = read(jsonl([document()]), "ecs").row
    assert (flow["orig_ip_bytes"], flow["orig_bytes"], flow["resp_bytes"]) == (103, None, None)
    assert (flow["uid"], flow["duration"].total_seconds()) == ("C0", 0.076967)


def test_icmp_of_elastics_integration() -> None:
    record = document()
    record["source"].pop("port")
    record["destination"].pop("port")
    record["network"]["transport"] = "icmp"
    record["zeek"]["connection"]["icmp"] = {"type": 8, "code": 0}
    flow = read(jsonl([record]), "ecs").row
    assert (flow["proto"], flow["orig_p"], flow["resp_p"]) == ("icmp", 8, 0)


def test_dialects_mixed_in_one_file_are_told_apart_record_by_record() -> None:
    records = [document(), CORELIGHT, SECURITY_ONION, document(), MALCOLM, CORELIGHT]
    for turn in range(len(records)):
        turned = records[turn:] + records[:turn]
        flows = read(jsonl(turned), "ecs").flows
        assert flows["orig_ip_bytes"].to_list() == [103] * 6
        assert flows["orig_bytes"].null_count() == 2


def test_dotted_keys() -> None:
    dotted = {
        "@timestamp": "2024-05-01T12:00:00Z",
        "source.ip": "10.0.0.5",
        "destination.ip": "10.0.0.6",
        "source.ip_bytes": 60,
    }
    assert read(jsonl([dotted]), "ecs").row["orig_ip_bytes"] == 60


def test_documents_about_other_things_are_out_of_scope() -> None:
    dns = {"@timestamp": "2024-05-01T12:00:00Z", "event": {"dataset": "zeek.dns"}}
    beat = {"@timestamp": "2024-05-01T12:00:00Z", "host": {"name": "x"}}
    got = read(jsonl([document(), dns, beat, conn()]), "ecs")
    assert got.out_of_scope == {"ecs_zeek.dns": 1, "ecs_other": 1}
    assert got.reasons == []
    assert got.flows.height == 2, "a sensor's own record among documents is read"


def test_seconds_where_nanoseconds_belong_are_refused() -> None:
    records = [document(n) for n in range(5)]
    for record in records:
        record["event"]["duration"] = 0.25
    with pytest.raises(DialectError, match="nanoseconds"):
        read(jsonl(records), "ecs")


def test_nanoseconds_where_seconds_belong_are_refused() -> None:
    record = SECURITY_ONION | {"event": {"dataset": "conn", "duration": 1e9}}
    with pytest.raises(DialectError, match="duration"):
        read(jsonl([record]), "ecs")


def test_zeeks_time_among_mapped_fields_makes_no_raw_record_of_them() -> None:
    record = MALCOLM | {"zeek": MALCOLM["zeek"] | {"ts": 1_714_564_800_857}}
    assert registry.load("sources", "zeek").sniff(jsonl([record])) == 0
    assert not isinstance(zeek.classify(record), Layout)
    assert isinstance(MessageReader().classify(record), Layout)
