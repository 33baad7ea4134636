"""Messages of every envelope, alone and mixed; numbers, ends, sensors; and what is no record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from ids_plugin.schema.flow import CONN_SCHEMA
from ids_plugin.schema.reject import MAX_REJECT_BYTES
from ids_plugin.sources.flow_batches import WIRE, Batch
from ids_plugin.sources.messages import Fetched, Header, MessageReader, Messages
from tests.support.logs import conn, document, eve, jsonl, tsv
from tests.support.logs import read as read_log
from tests.support.shared_data import shared

RUN = "00000000000000a1"
NOW = 2_000_000
ENVELOPES: dict[str, dict[str, Any]] = {
    "untagged": conn(1),
    "tagged": {"conn": conn(2)},
    "tagged with extras": {"site": "x", "conn-2": conn(3, ts="2023-11-14T22:13:20.500000Z")},
    "corelight": conn(4, ts="2023-11-14T22:13:20.500000Z", _path="conn", _system_name="core"),
    "beats": {
        "@timestamp": "2023-11-14T22:13:20Z",
        "message": json.dumps(conn(5)),
        "host": {"name": "beat"},
    },
    "eve": eve(6),
    "ecs": document(7),
}


def fetched(
    values: Sequence[bytes | None],
    headers: Sequence[Sequence[Header]] | None = None,
    topic: str = "zeek",
    partition: int = 3,
    first: int = 10,
) -> Fetched:
    """Messages at offsets from `first` on, one ms apart."""
    offsets = list(range(first, first + len(values)))
    return Fetched(
        topic,
        partition,
        offsets,
        [1_000_000 + at for at in offsets],
        values,
        headers or [()] * len(values),
    )


def lines(*records: object) -> list[bytes]:
    return [json.dumps(record).encode() for record in records]


def numbered(number: int, sensor: str = "s", run: str = RUN, end: bool = False) -> list[Header]:
    """Headers of our own senders."""
    return [
        ("ids-sensor", sensor.encode()),
        ("ids-seq", f"{run}:{number}".encode()),
        *([("ids-end", b"1")] if end else []),
    ]


def read(*parts: Fetched, sensors: dict[str, str] | None = None) -> Messages:
    """What messages give; every one of them is accounted for."""
    found = MessageReader(sensors).read(parts, NOW)
    assert not found.ledger.total.value("scored")
    flows = sum(batch.rows.height for batch in found.batches)
    total = found.ledger.total
    assert total.read == total.parsed + total.value("rejected")
    assert total.value("rejected") == len(found.rejects)
    assert total.parsed == flows + total.value("out_of_scope")
    for batch in found.batches:
        assert dict(batch.rows.schema) == WIRE
        assert set(batch.rows["sensor"]) <= {batch.sensor}
    return found


def flows(found: Messages) -> pl.DataFrame:
    return pl.concat([batch.rows for batch in found.batches]).sort("partition", "offset")


@pytest.mark.parametrize("name", ENVELOPES)
def test_every_envelope_gives_the_flow_its_reader_gives(name: str) -> None:
    kind = {"eve": "suricata", "ecs": "ecs"}.get(name, "zeek")
    expected = read_log(jsonl([ENVELOPES[name]]), kind).flows
    found = flows(read(fetched(lines(ENVELOPES[name]))))
    same = [column for column in CONN_SCHEMA if column not in ("origin", "sensor")]
    assert found[same].equals(expected[same])
    assert found["origin"].to_list() == ["zeek/3/10"]
    assert found[["at", "partition", "offset"]].row(0) == (1_000_010, 3, 10)


def test_envelopes_mixed_in_one_topic() -> None:
    values = lines(*ENVELOPES.values()) * 50
    found = read(fetched(values), fetched(values[::-1], partition=0))
    assert flows(found).height == 2 * len(values)
    assert not found.rejects
    assert dict(flows(found)["source"].value_counts().iter_rows()) == {
        "zeek": 500,
        "suricata": 100,
        "ecs": 100,
    }


def test_the_sensor_is_what_the_header_the_record_the_envelope_or_the_topic_says() -> None:
    values = lines(ENVELOPES["corelight"], ENVELOPES["corelight"], ENVELOPES["beats"], conn(1))
    headers: list[list[Header]] = [[("ids-sensor", "büro".encode())], [], [], []]
    found = read(fetched(values, headers), sensors={"zeek": "branch"})
    assert flows(found)["sensor"].to_list() == ["büro", "core", "beat", "branch"]
    assert [sensor for (_, sensor), _ in found.ledger.items()] == ["beat", "branch", "büro", "core"]
    assert flows(read(fetched(lines(conn(1)))))["sensor"].to_list() == ["default"]


def test_numbered_records_keep_their_numbers_and_tell_of_those_that_gave_no_flow() -> None:
    values = [*lines(conn(0), {"ts": 1.0, "_path": "dns"}, conn(2)), b"{", *lines({"x": 1}), b""]
    headers = [*(numbered(7 + at) for at in range(5)), numbered(12, end=True)]
    (batch,) = read(fetched(values, headers)).batches
    assert (batch.sensor, batch.topic, batch.run, batch.end) == ("s", "zeek", RUN, 12)
    assert batch.rows["seq"].to_list() == [7, 9]
    assert list(batch.holes) == [(8, 8), (10, 11)]
    assert batch.since == 1_000_010


def test_runs_and_sensors_are_kept_apart() -> None:
    other = "00000000000000b2"
    headers = [
        numbered(0),
        numbered(0, "t"),
        numbered(1, run=other),
        [],
        numbered(2),
        numbered(9, "t", end=True),
    ]
    found = read(fetched([*lines(*(conn(at) for at in range(5))), b""], headers))
    told = {
        (batch.sensor, batch.run): (batch.rows["seq"].to_list(), batch.end)
        for batch in found.batches
    }
    assert told == {
        ("default", ""): ([None], None),
        ("s", RUN): ([0, 2], None),
        ("s", other): ([1], None),
        ("t", RUN): ([0], 9),
    }


def test_partitions_of_a_run_are_joined_in_its_order() -> None:
    first = fetched(lines(conn(1), conn(4)), [numbered(1), numbered(4)], partition=0)
    second = fetched(lines(conn(0), conn(3)), [numbered(0), numbered(3)], partition=1)
    (batch,) = read(first, second).batches
    assert batch.rows["seq"].to_list() == [0, 1, 3, 4]
    assert batch.rows["partition"].to_list() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "header", [b"", b"x", b"a1:1", b"00000000000000a1:-1", b"00000000000000A1:1", b"\xff:1"]
)
def test_a_number_that_is_none_is_no_number(header: bytes) -> None:
    (batch,) = read(fetched(lines(conn(1)), [[("ids-sensor", b"s"), ("ids-seq", header)]])).batches
    assert batch.run == ""
    assert batch.rows["seq"].to_list() == [None]


def test_no_record_is_from_the_future_and_one_without_a_time_is_from_now() -> None:
    values = lines(conn(0), conn(1), conn(2))
    found = read(Fetched("zeek", 0, [0, 1, 2], [-1, NOW + 5_000, NOW - 5], values, [(), (), ()]))
    assert flows(found)["at"].to_list() == [NOW, NOW, NOW - 5]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b" \r\n\t " * 9, "empty"),
        (b"\x00\xff\n\x01\n" * 40, "bad_utf8"),
        (bytes(range(256)) * 10, "bad_utf8"),
        (b'{"ts": 1, "uid": "C\xff"}', "bad_utf8"),
        (b'{"ts": 1', "bad_json"),
        (b'{"ts": 1, "uid": "a\nb"}', "bad_json"),
        (b"[1, 2]", "bad_json"),
        (b'{"a": 1}', "unknown_kind"),
        (b'{"message": "{\\"a\\": 1}"}', "unknown_kind"),
        (b'{"message": "{"}', "bad_json"),
        (b'{"ts": "' + b"9" * (1 << 20) + b'"}', "too_long"),
        (tsv([conn(1)]).splitlines()[-1], "tsv"),
        (tsv([conn(1)]).splitlines()[0], "tsv"),
        (lines(conn(1, ts=-5.0))[0], "bad_time"),
        (lines(conn(1, id_orig_h="nowhere"))[0], "bad_address"),
        (lines(document(1) | {"@timestamp": "soon"})[0], "bad_time"),
    ],
)
def test_what_cannot_be_read_is_rejected_with_its_place_and_bytes(
    value: bytes | None, reason: str
) -> None:
    good = lines(conn(0))[0]
    found = read(fetched([good, value, good]))
    assert flows(found)["offset"].to_list() == [10, 12]
    (reject,) = found.rejects
    assert (reject.topic, reject.partition, reject.offset) == ("zeek", 3, 11)
    assert reject.reason == reason
    assert reject.detail
    assert reject.data == (value or b"")[:MAX_REJECT_BYTES]
    assert len(reject.shown) <= 200


def test_records_over_several_lines_and_several_records_in_a_message() -> None:
    pretty = json.dumps(conn(1), indent=2).encode()
    several = (
        b"\n".join([*lines(conn(2), {"ts": 1.0, "_path": "dns"}), b"{", b"", *lines(conn(3))])
        + b"\n"
    )
    found = read(fetched([pretty + b"\n", several]))
    assert flows(found)["uid"].to_list() == [conn(n)["uid"] for n in (1, 2, 3)]
    assert flows(found)["offset"].to_list() == [10, 11, 11]
    assert [(reject.offset, reject.reason) for reject in found.rejects] == [(11, "bad_json")]


def test_several_records_under_one_number_have_none() -> None:
    both = b"\n".join(lines(conn(1), conn(2)))
    found = read(fetched([both], [numbered(4)])).batches
    told = {batch.run: (batch.rows["seq"].to_list(), list(batch.holes)) for batch in found}
    assert told == {"": ([None, None], []), RUN: ([], [(4, 4)])}


def test_other_logs_are_out_of_scope_and_counted_for_their_sensor() -> None:
    other = [
        {"dns": {"ts": 1.0, "uid": "C"}},
        {"ts": 1.0, "_path": "http"},
        {**eve(1), "event_type": "dns"},
    ]
    found = read(fetched(lines(*other, conn(1)) * 40, [[("ids-sensor", b"a")], *[()] * 159]))
    counts = {key: entry.out_of_scope for key, entry in found.ledger.items()}
    assert counts == {
        ("suricata", "default"): {"eve_dns": 40},
        ("zeek", "a"): {"zeek_dns": 1},
        ("zeek", "default"): {"zeek_dns": 39, "zeek_http": 40},
    }


def test_the_sensors_own_counts_are_kept() -> None:
    counts = {"ts": 1.0, "node": "worker-1", "stream": "conn", "written": 17}
    named = counts | {"_path": "ids_counts", "_system_name": "branch"}
    found = read(fetched(lines({"ids_counts": counts}, named, conn(1))))
    assert [one["written"] for one in found.counters] == [17, 17]
    assert [one["sensor"] for one in found.counters] == ["default", "branch"]


def test_topics_are_read_each_by_itself() -> None:
    found = read(
        fetched(lines(conn(1))), fetched(lines(eve(1)), topic="eve"), sensors={"eve": "suri"}
    )
    assert [(batch.topic, batch.sensor) for batch in found.batches] == [
        ("eve", "suri"),
        ("zeek", "default"),
    ]


def test_nothing_gives_nothing() -> None:
    found = read()
    assert found.batches == []
    assert read(fetched([])).batches == []


@pytest.mark.parametrize("form", ["all_tagged", "conn_iso8601_tagged_extra", "conn_plain"])
def test_messages_of_a_real_zeek_kafka_are_the_flows_of_the_log_beside_them(form: str) -> None:
    folder = shared("zeek-8.0.8", "_kafka", form)
    values = (folder / "zeek.jsonl").read_bytes().splitlines()
    found = read(fetched(values[::2], partition=0), fetched(values[1::2], partition=1))
    expected = read_log((folder / "conn.log").read_bytes()).flows
    assert not found.rejects
    same = [column for column in CONN_SCHEMA if column not in ("origin", "duration")]
    assert flows(found)[same].sort("uid").equals(expected[same].sort("uid"))


def test_a_batch_is_one_sensors() -> None:
    found = read(fetched(lines(conn(1, _system_name="a"), conn(2, _system_name="b")) * 20))
    assert [batch.sensor for batch in found.batches] == ["a", "b"]
    assert all(
        isinstance(batch, Batch) and batch.rows["offset"].is_sorted() for batch in found.batches
    )
