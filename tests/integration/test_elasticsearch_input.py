"""`elasticsearch:URL/INDEX` as an input, against a real Elasticsearch: the alerts are those of the
conn.log, less what the stack lost (tests/support/stacks.py)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from elasticsearch import helpers

from ids_plugin import cli
from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.elastic.paging import Hit, Pages, connect, target
from ids_plugin.errors import InputError, ServiceError
from ids_plugin.sources import ReadOptions
from ids_plugin.sources.elasticsearch import Index
from ids_plugin.sources.inputs import read_inputs
from ids_plugin.sources.ordering import ordered
from tests import services
from tests.support.elastic import access, asking
from tests.support.logs import Got, conn, eve, read_files
from tests.support.stacks import STACKS, flattened

SAMPLE = Path(__file__).parents[1] / "lab/sample/capture.pcap.gz"
SOME = 1500
"""Flows of the sample that every stack's documents are made of."""
NOON = "2024-05-01T12:00:00Z"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The sample's conn.log."""
    log = tmp_path_factory.mktemp("sample") / "conn.log"
    assert cli.main(["flows", str(SAMPLE), "-o", str(log), "--quiet"]) == 0
    return [orjson.loads(line) for line in log.read_bytes().splitlines()]


class There:
    """Indices of one's own on a server."""

    def __init__(self, server: services.Elasticsearch) -> None:
        self.server, self.settings, self.client = server, access(server), asking(server)
        self.prefix = services.unique("input")

    def index(self, documents: Iterable[dict[str, Any]], name: str = "a", **body: Any) -> str:
        """Indexes documents, ids in their order; the spec that reads them."""
        index = f"{self.prefix}-{name}"
        if not self.client.indices.exists(index=index):
            self.client.indices.create(index=index, **body)
        actions = (
            {"_index": index, "_id": f"{name}{at}", "_source": one}
            for at, one in enumerate(documents)
        )
        helpers.bulk(self.client, actions, chunk_size=2000, refresh=True)
        return self.spec(name)

    def spec(self, name: str) -> str:
        return f"elasticsearch:{self.server.url}/{self.prefix}-{name}"

    def pages(self, spec: str, **how: Any) -> Pages:
        return Pages(connect(self.settings), self.settings, target(spec), **how)


@pytest.fixture
def there(elasticsearch: services.Elasticsearch) -> There:
    return There(elasticsearch)


def as_written(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return documents


def with_dots(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [flattened(one) for one in documents]


def with_some_dots(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects whose members have dots, beside whole paths."""
    return [
        {
            **{
                name: flattened(value) if isinstance(value, dict) else value
                for name, value in one.items()
            },
            "labels.a": 1,
        }
        for one in documents
    ]


def flows(*specs: object) -> pl.DataFrame:
    """All that the inputs hold in the order of a scan, but for where it was read."""
    steps = read_inputs(
        [str(spec) for spec in specs], batch_rows=8192, stdin=io.BytesIO(), sensors=[("here", "*")]
    )
    return pl.concat(list(ordered(steps, batch_rows=1 << 16))).drop("origin", "source")


@pytest.mark.parametrize("form", [as_written, with_dots, with_some_dots])
@pytest.mark.parametrize("stack", STACKS)
def test_documents_of_each_stack_are_the_records_less_what_it_loses(
    stack: str,
    form: Callable[[Any], Any],
    records: list[dict[str, Any]],
    there: There,
    tmp_path: Path,
) -> None:
    write, lose = STACKS[stack]
    some = records[-SOME:] if form is as_written else records[-SOME // 5 :]
    spec = there.index(form([write(one) for one in some]))
    (tmp_path / "conn.log").write_bytes(b"\n".join(orjson.dumps(lose(one)) for one in some))
    assert flows(spec).equals(flows(tmp_path / "conn.log"))


@pytest.mark.parametrize("stack", ["elastic", "malcolm"])
def test_a_scan_of_the_index_gives_the_alerts_of_a_scan_of_the_log(
    stack: str, records: list[dict[str, Any]], there: There, tmp_path: Path
) -> None:
    write, lose = STACKS[stack]
    spec = there.index(write(one) for one in records)
    (tmp_path / "conn.log").write_bytes(b"\n".join(orjson.dumps(lose(one)) for one in records))
    found = {}
    for name, source in (("index", spec), ("log", str(tmp_path / "conn.log"))):
        out = tmp_path / name
        assert cli.main(["scan", source, "--sensor", "here=*", "--out", str(out), "--quiet"]) == 0
        total = json.loads((out / "ledger.json").read_bytes())["total"]
        assert (total["read"], total["scored"]) == (len(records), len(records))
        found[name] = (out / "alerts.ndjson").read_bytes()
    assert found["index"] == found["log"]
    assert found["log"].count(b"\n") > 10


def test_every_sensor_keeps_its_name(there: There) -> None:
    named = [
        {"observer": {"name": "east"}},
        {"host": {"name": "west"}},
        {"agent": {"name": "north"}},
        {},
    ]
    documents = [
        {"@timestamp": NOON, "message": orjson.dumps(conn(at)).decode(), **name}
        for at, name in enumerate(named)
    ]
    assert read_files(there.index(documents)).flows["sensor"].to_list() == [
        "east",
        "west",
        "north",
        "default",
    ]


def test_the_sensors_own_records_are_read_in_any_envelope(there: There) -> None:
    raw = orjson.dumps(conn(0)).decode()
    documents: list[dict[str, Any]] = [
        {"@timestamp": NOON, "message": raw},
        {
            "@timestamp": NOON,
            "event": {"original": orjson.dumps(conn(1)).decode(), "dataset": "zeek.connection"},
        },
        {"@timestamp": NOON, **conn(2)},
        {"@timestamp": NOON, "json": conn(3)},
        {"ts": conn(4)["ts"], **conn(4)},
        {"@timestamp": NOON, "message": orjson.dumps(eve(5)).decode()},
        {
            "@timestamp": NOON,
            "message": '{"ts": 1.5e9, "query": "a.example"}',
            "log": {"file": {"path": "/z/dns.log"}},
        },
        {"@timestamp": NOON, "message": raw, "log": {"file": {"path": "/z/open_conn.log"}}},
    ]
    got = read_files(there.index(documents))
    assert got.rejects == []
    assert got.out_of_scope.total() == 1
    assert Counts(got.flows["source"]) == {"zeek": 6, "suricata": 1}
    assert got.flows.filter("open")["uid"].to_list() == [conn(0)["uid"]]
    assert got.flows["orig_bytes"].drop_nulls().to_list() == [300] * 6


def Counts(names: pl.Series) -> dict[str, int]:
    return dict(names.value_counts().iter_rows())


def test_suricatas_flows_in_elastics_fields_are_those_of_its_log(
    there: There, tmp_path: Path
) -> None:
    events = [eve(at) for at in range(30)]
    documents = []
    for event in events:
        flow = {name: value for name, value in event["flow"].items() if "_to" not in name}
        kept = {name: event[name] for name in ("event_type", "tcp")} | {
            "flow_id": str(event["flow_id"]),
            "flow": flow,
        }
        sides = {
            side: {
                "address": event[f"{short}_ip"],
                "ip": event[f"{short}_ip"],
                "port": event[f"{short}_port"],
                "packets": event["flow"][f"pkts_{way}"],
                "bytes": event["flow"][f"bytes_{way}"],
            }
            for side, short, way in (
                ("source", "src", "toserver"),
                ("destination", "dest", "toclient"),
            )
        }
        document = {"@timestamp": "2024-05-01T10:05:00.000Z", "event": {"dataset": "suricata.eve"}}
        network = {"transport": "tcp", "protocol": "tls"}
        documents.append({**document, "suricata": {"eve": kept}, "network": network, **sides})
    (tmp_path / "eve.json").write_bytes(b"\n".join(map(orjson.dumps, events)))
    assert flows(there.index(documents)).equals(flows(tmp_path / "eve.json"))


def test_bad_documents_are_rejected_with_their_place(there: There) -> None:
    good = STACKS["elastic"][0](conn(0))
    bad = {**good, "source": {**good["source"], "port": 70_000}}
    odd = {**good, "destination": {"bytes": 7}}
    got = read_files(
        spec := there.index(
            [good, bad, odd, {"@timestamp": NOON, "event": {"dataset": "zeek.dns"}}]
        )
    )
    index = f"{there.prefix}-a"
    assert sorted((one.place, one.reason) for one in got.rejects) == [
        (f"{index}/a1", "bad_port"),
        (f"{index}/a2", "no_address"),
    ]
    assert {one.input for one in got.rejects} == {spec}
    assert got.out_of_scope == {"ecs_zeek.dns": 1}
    assert got.flows["origin"].to_list() == [f"{index}/a0"]


def test_a_period_is_asked_for_and_nothing_of_it_is_missed(there: There, tmp_path: Path) -> None:
    records = [conn(at, ts=1_700_000_000 + at) for at in range(100)]
    mapped = [STACKS["elastic"][0](one) for one in records]
    later = [
        {"@timestamp": "2024-05-01T00:00:00Z", "message": orjson.dumps(one).decode()}
        for one in records
    ]
    log = tmp_path / "conn.log"
    log.write_bytes(b"\n".join(map(orjson.dumps, records)))
    period = {"since": "2023-11-14T22:13:30+00:00", "until": "2023-11-14T22:13:50.500+00:00"}
    for documents, name, fetched in ((mapped, "mapped", 23), (later, "later", 100)):
        spec = there.index(documents, name)
        assert (
            read_files(
                spec,
                options=ReadOptions(
                    since=datetime.fromisoformat(period["since"]),
                    until=datetime.fromisoformat(period["until"]),
                ),
            ).flows.height
            == fetched
        )
        options = ["--since", period["since"], "--until", period["until"], "--quiet"]
        for source, out in ((spec, "index"), (str(log), "log")):
            assert cli.main(["flows", source, *options, "-o", str(tmp_path / out)]) == 0
        found = [
            [orjson.loads(line)["uid"] for line in (tmp_path / out).open()]
            for out in ("index", "log")
        ]
        assert found[0] == found[1]
        assert len(found[0]) == 21


def equal_times(count: int) -> list[dict[str, Any]]:
    return [{"@timestamp": NOON, "n": at} for at in range(count)]


def numbers(hits: Iterable[Hit]) -> list[int]:
    return sorted(hit.document["n"] for hit in hits)


def test_many_pages_of_equal_times_on_several_shards(there: There) -> None:
    spec = there.index(equal_times(1500), settings={"number_of_shards": 3})
    pages = list(there.pages(spec))
    assert len(pages) == 8
    assert numbers(hit for hits in pages for hit in hits) == list(range(1500))


def test_pages_are_as_large_as_the_documents_allow(there: There) -> None:
    spec = there.index({"@timestamp": NOON, "text": "x" * 40_000} for _ in range(600))
    pages = there.pages(spec)
    heights = []
    for hits in pages:
        heights.append(len(hits))
        pages.resize(len(hits), 40_000 * len(hits))
    assert heights == [200, 104, 104, 104, 88]


@pytest.mark.parametrize("lost_after", range(4))
def test_reading_goes_on_where_a_point_in_time_was_lost(lost_after: int, there: There) -> None:
    """Among documents of equal times, and of none; what is indexed meanwhile may come or not, but
    once."""
    undated = [{"n": 500 + at} for at in range(150)]
    nanos = {"mappings": {"properties": {"@timestamp": {"type": "date_nanos"}}}}
    there.index([{"@timestamp": NOON, "n": 700 + at} for at in range(50)], "b", **nanos)
    there.index([*equal_times(500), *undated], settings={"number_of_shards": 2})
    found: list[Hit] = []
    pages = there.pages(there.spec("*"))
    for number, hits in enumerate(pages):
        found += hits
        if number == lost_after:
            there.index([{"@timestamp": "2020-01-01T00:00:00Z", "n": -1}], "old")
            there.client.close_point_in_time(id=str(pages.pit))
    assert pages.reopened == 1
    assert numbers(found) == [*range(650), *range(700, 750)]


def test_a_point_in_time_lost_among_impossible_times_is_an_error(there: There) -> None:
    spec = there.index({"@timestamp": "1969-12-31T00:00:00Z"} for _ in range(300))
    pages = there.pages(spec)
    read = iter(pages)
    assert len(next(read)) == 200
    there.client.close_point_in_time(id=str(pages.pit))
    with pytest.raises(ServiceError, match="before 1970"):
        next(read)


def test_a_document_that_comes_while_others_are_read_waits_for_the_next_scan(there: There) -> None:
    spec = there.index(equal_times(500))
    found: list[Hit] = []
    for hits in there.pages(spec):
        found += hits
        there.index([{"@timestamp": "2024-05-01T13:00:00Z", "n": 1000}], "a")
    assert numbers(found) == list(range(500))
    assert numbers(hit for hits in there.pages(spec) for hit in hits)[-1] == 1000


def test_streams_aliases_patterns_and_queries(there: There) -> None:
    for name, first in (("one", 0), ("two", 10)):
        there.index(({"@timestamp": NOON, **conn(first + at)} for at in range(10)), name)
    there.client.indices.put_alias(index=f"{there.prefix}-*", name=f"{there.prefix}.alias")
    spec, both = there.spec, f"{there.spec('one')},{there.prefix}-two"
    alias = spec("x").replace("-x", ".alias")
    template = {"index_patterns": [f"{there.prefix}-stream"], "data_stream": {}, "priority": 900}
    there.client.indices.put_index_template(name=there.prefix, **template)  # type: ignore[arg-type]
    there.client.index(
        index=f"{there.prefix}-stream", document={"@timestamp": NOON, **conn(50)}, refresh=True
    )
    query = f"{spec('one')}?q=uid:{conn(3)['uid']}"
    heights = [
        read_files(one).flows.height for one in (spec("one"), both, alias, spec("stream"), query)
    ]
    assert heights == [10, 20, 20, 1, 1]


@pytest.fixture
def west(there: There) -> Iterator[str]:
    """The server as its own remote cluster, beside one that is away and may be left out of
    searches."""
    (node,) = there.client.nodes.info(metric="transport")["nodes"].values()
    name = there.prefix
    seeds: dict[str, Any] = {"seeds": [node["transport"]["publish_address"]]}
    away: dict[str, Any] = {"seeds": ["127.0.0.1:9"], "skip_unavailable": True}
    for remotes in (
        {name: seeds, f"{name}-away": away},
        {name: {"seeds": None}, f"{name}-away": dict.fromkeys(away)},
    ):
        flat = {
            f"cluster.remote.{one}.{key}": value
            for one, keys in remotes.items()
            for key, value in keys.items()
        }
        there.client.cluster.put_settings(persistent=flat)
        if remotes[name] is seeds:
            yield name


def test_remote_clusters_are_read_and_missed_when_they_are_away(there: There, west: str) -> None:
    here, index = there.index(equal_times(300)), f"{there.prefix}-b"
    there.index([{"@timestamp": NOON, "n": 300 + at} for at in range(300)], "b")
    remote = there.spec("b").replace(index, f"{west}:{index}")
    assert numbers(hit for hits in there.pages(remote) for hit in hits) == list(range(300, 600))
    assert numbers(hit for hits in there.pages(f"{here},{west}:{index}") for hit in hits) == list(
        range(600)
    )
    with pytest.raises(ServiceError, match=f"didn't answer: {west}-away"):
        list(there.pages(f"{here},{west}-away:{index}"))


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("missing", 3, "no such index"),
        ("missing-*", 3, "no index is called"),
        ("", 2, "is not elasticsearch:URL/INDEX"),
        ("elsewhere:logs", 4, "no such remote cluster"),
        ("EXISTS?q=a:(", 4, "Failed to parse query"),
    ],
)
def test_what_cant_be_read_is_said(
    path: str, code: int, words: str, there: There, capsys: pytest.CaptureFixture[str]
) -> None:
    if "EXISTS" in path:
        there.index([{"@timestamp": NOON}])
        path = path.replace("EXISTS", f"{there.prefix}-a")
    assert cli.main(["scan", f"elasticsearch:{there.server.url}/{path}"]) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_an_absent_server_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["scan", "elasticsearch:http://127.0.0.1:9/logs"]) == 4
    assert "can't be reached" in capsys.readouterr().err


def test_a_password_in_the_url_is_refused_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["scan", "elasticsearch:https://me:hush-hush@127.0.0.1:9/logs"]) == 2
    said = capsys.readouterr().err
    assert "password" in said
    assert "hush" not in said


def test_an_index_that_keeps_no_documents_is_refused(there: There) -> None:
    spec = there.index([{"@timestamp": NOON}], mappings={"_source": {"enabled": False}})
    with pytest.raises(ServiceError, match="doesn't keep documents"):
        read_files(spec)


def test_units_that_cant_be_are_refused(there: There) -> None:
    document = STACKS["elastic"][0](conn(0))
    spec = there.index(
        {**document, "event": {**document["event"], "duration": 0.25}} for _ in range(5)
    )
    with pytest.raises(InputError, match="nanoseconds"):
        read_files(spec)


def test_an_index_beside_other_inputs(there: There, tmp_path: Path) -> None:
    spec = there.index({"@timestamp": NOON, **conn(at)} for at in range(5))
    (tmp_path / "conn.log").write_bytes(orjson.dumps(conn(9)))
    assert read_files(spec, tmp_path / "conn.log").flows.height == 6
    got = read_files(there.spec("missing"), tmp_path / "conn.log")
    assert (got.flows.height, got.reasons) == (1, ["refused"])


def test_nothing_in_an_index_is_no_error(there: There) -> None:
    assert isinstance(read_files(there.index([])), Got)
    assert Index(Settings()).sniff(b"") == 0
