"""The Elasticsearch sink and `setup elasticsearch` against a real server.

Of it `PUT _data_stream`, ILM policies and the types constant_keyword and match_only_text are
stand-ins (see tests/services): that data streams are made and that policies are kept says nothing
about a whole Elasticsearch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import elasticsearch as client
import pytest

from ids_plugin import cli
from ids_plugin.config import Secret
from ids_plugin.elastic.index_setup import Step, install
from ids_plugin.elastic.streams import ALERTS, LEDGER, NEEDED, VERSION
from ids_plugin.errors import ServiceError
from ids_plugin.schema import alert
from ids_plugin.schema.alert import Document
from ids_plugin.sinks import Delivered, RetryAfter
from ids_plugin.sinks.elasticsearch import Elasticsearch
from tests import services
from tests.contract.test_ecs import DOCUMENTS, ECS, leaves
from tests.contract.test_templates import FOLDER, LEDGER_DOCUMENTS
from tests.support.elastic import Stream, access, asking, documents
from tests.support.logs import conn
from tests.support.troublemaker import Trouble, Troublemaker

GEOIP = "ids_plugin-geoip"
WRONG = {
    "long": "many",
    "double": "a lot",
    "float": "a lot",
    "date": "yesterday",
    "ip": "10.0.0",
    "boolean": 1.5,
}
"""values that don't fit a type"""


def changed(name: str, value: object) -> Document:
    """An alert whose field `name` (of objects in a list: of all of them) is `value`."""
    document = documents(1, f"changed-{name}")[0]

    def put(node: Any, parts: list[str]) -> Any:
        if isinstance(node, list):
            return [put(one, parts) for one in node] or put({}, parts)
        rest = put(node.get(parts[0], {}), parts[1:]) if parts[1:] else value
        return {**node, parts[0]: rest}

    made: Document = put(document, name.split("."))
    return made


@pytest.fixture
def made(elasticsearch: services.Elasticsearch) -> Stream:
    return Stream(elasticsearch)


@pytest.fixture
def trouble(elasticsearch: services.Elasticsearch) -> Iterator[tuple[Stream, Troublemaker]]:
    """A stream whose sink goes through the troublemaker."""
    with Troublemaker(elasticsearch.url) as maker:
        yield Stream(elasticsearch, maker.url), maker


def test_documents_of_every_class_are_taken_once(made: Stream) -> None:
    now = datetime(2026, 4, 1, 12, tzinfo=UTC)
    assert made.sink.write(DOCUMENTS, ingested=now) == Delivered(len(DOCUMENTS))
    assert made.sink.write(DOCUMENTS) == Delivered(len(DOCUMENTS), known=len(DOCUMENTS))
    assert made.copies() == {one["event"]["id"]: 1 for one in DOCUMENTS}
    expected = {
        **DOCUMENTS[0],
        "event": {**DOCUMENTS[0]["event"], "ingested": "2026-04-01T12:00:00.000000Z"},
    }
    query = {"term": {"event.id": DOCUMENTS[0]["event"]["id"]}}
    assert (
        made.client.search(index=made.name, query=query)["hits"]["hits"][0]["_source"] == expected
    )


def test_documents_of_the_ledger_are_taken(made: Stream) -> None:
    sink = Elasticsearch(made.settings, LEDGER)
    assert sink.write(LEDGER_DOCUMENTS) == Delivered(len(LEDGER_DOCUMENTS))
    made.client.indices.refresh(index=sink.stream)
    answer = made.client.search(
        index=sink.stream, size=0, aggs={"read": {"sum": {"field": "ids_plugin.ledger.read"}}}
    )
    assert answer["aggregations"]["read"]["value"] == 5


def test_what_does_not_fit_is_refused_and_the_rest_taken(made: Stream) -> None:
    kinds = {name: ECS[name][0] for one in DOCUMENTS for name, _, _ in leaves(one) if name in ECS}
    kinds |= {field.name.replace("*", "one"): field.type for field in alert.FIELDS}
    wrong = {name: WRONG[kind] for name, kind in kinds.items() if kind in WRONG}
    wrong |= {
        "unknown": 1,
        "event.unknown": 1,
        "ids_plugin.evidence.flows.unknown": 1,
        "ids_plugin.score": "0.5",
    }
    wrong |= {"message": {"text": "an object"}, "fold": {}, "event.severity": 47.5}
    given = [changed(name, value) for name, value in wrong.items()]
    between = [one for pair in zip(documents(len(given)), given, strict=True) for one in pair]
    answer = made.sink.write(between)
    assert isinstance(answer, Delivered)
    refused = {
        list(wrong)[refusal.position // 2] for refusal in answer.refusals if refusal.position % 2
    }
    assert refused == wrong.keys() | set()
    assert answer.documents == len(given) == len(answer.refusals)
    assert answer.refused.keys() == {
        "document_parsing_exception",
        "strict_dynamic_mapping_exception",
    }
    assert made.copies() == {f"one-{number}": 1 for number in range(len(given))}


def test_poisoned_documents_are_refused_one_by_one(made: Stream) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    poisoned: list[Any] = [
        {},
        [],
        {"event": 1},
        {"event": {"id": ""}},
        {"event": {"id": "x" * 600}},
    ]
    poisoned += [
        {"event": {"id": "deep"}, "q": deep},
        {"event": {"id": "\ud800"}},
        {"event": {"id": "no time"}},
    ]
    answer = made.sink.write([*documents(1), *poisoned, *documents(2)])
    assert isinstance(answer, Delivered)
    assert [refusal.position for refusal in answer.refusals] == list(range(1, len(poisoned) + 1))
    assert answer.refused == {
        "no_document": 1,
        "no_id": 5,
        "not_json": 1,
        "document_parsing_exception": 1,
    }
    assert made.copies() == {"one-0": 1, "one-1": 1}


def test_a_rollover_makes_no_second_copy(made: Stream) -> None:
    made.sink.write(documents(5))
    made.roll_over()
    made.roll_over()
    assert made.sink.write(documents(8), since=0) == Delivered(8, known=5)
    assert made.copies() == {f"one-{number}": 1 for number in range(8)}


def test_a_rollover_between_look_and_bulk_makes_no_second_copy(
    trouble: tuple[Stream, Troublemaker],
) -> None:
    made, maker = trouble
    other = made.asked_as()

    def another_writer() -> None:
        other.write(documents(5))
        made.roll_over()

    maker.next = [Trouble(f"/{made.name}/_bulk", another_writer)]
    assert isinstance(made.sink.write(documents(8)), Delivered)
    assert made.copies() == {f"one-{number}": 1 for number in range(8)}
    assert any(path.startswith("POST /_bulk") and b"delete" in body for path, body in maker.seen)


@pytest.mark.parametrize("lost", ["_mget", "/_bulk", "GET /logs"])
def test_lost_answers_and_rollovers_make_no_second_copy(
    trouble: tuple[Stream, Troublemaker], lost: str
) -> None:
    """The answer to each kind of request is lost once, with a rollover before it and one after
    it."""
    made, maker = trouble
    for _ in range(2):
        maker.next = [
            Trouble(f"/{made.name}/_bulk", made.roll_over),
            Trouble(lost, made.roll_over, lose_answer=True),
        ]
        assert isinstance(made.sink.write(documents(4)), RetryAfter | Delivered)
        made.roll_over()
        maker.next.clear()
    assert isinstance(made.sink.write(documents(6)), Delivered)
    assert made.copies() == {f"one-{number}": 1 for number in range(6)}


def test_copies_that_a_killed_writer_left_are_taken_away(
    trouble: tuple[Stream, Troublemaker],
) -> None:
    """Two writers wrote the same across a rollover, and both died before they looked again."""
    made, maker = trouble
    other = made.asked_as(url=maker.url)

    def first() -> None:
        maker.next.append(Trouble("GET /logs"))
        maker.next.append(Trouble("GET /logs", lose_answer=True))
        assert isinstance(other.write(documents(3)), RetryAfter)
        made.roll_over()

    maker.next = [Trouble("GET /logs"), Trouble("/_bulk", first)]
    made.sink.write(documents(3))
    assert made.sink.write(documents(3)) == Delivered(3, known=3)
    assert made.copies() == {f"one-{number}": 1 for number in range(3)}


def test_only_indices_that_could_hold_a_document_are_looked_into(
    trouble: tuple[Stream, Troublemaker],
) -> None:
    made, maker = trouble
    made.roll_over()
    (old,), later = documents(1), int(time.time() * 1000) + 2 * 3600_000
    recent = {**old, "@timestamp": datetime.fromtimestamp(later / 1000, UTC).isoformat()}
    for document, since, indices in (
        (recent, None, 2),
        (old, later, 2),
        (recent, 0, 2),
        (recent, later, 1),
    ):
        maker.seen.clear()
        made.sink.write([document], since)
        (body,) = [body for path, body in maker.seen if "_mget" in path]
        assert body.count(b"_index") == indices


def test_requests_are_small_enough_for_proxies(trouble: tuple[Stream, Troublemaker]) -> None:
    made, maker = trouble
    made.roll_over()
    given = [{**one, "message": "x" * 20_000} for one in documents(120)] + [
        {**documents(1, "long")[0], "message": "y" * 2_000_000}
    ]
    assert made.sink.write(given) == Delivered(121)
    assert made.sink.write([*given, *documents(3000, "short")]) == Delivered(3121, known=121)
    sizes = [len(body) for _, body in maker.seen]
    assert sorted(sizes)[-2] < 1_000_000 < max(sizes)
    assert set(made.copies().values()) == {1}


def wait_and_say(made: Stream, *words: str) -> None:
    """The sink waits and says why; nothing of it is refused."""
    answer = made.sink.write(documents(2))
    assert isinstance(answer, RetryAfter)
    for word in words:
        assert word in answer.reason


def test_a_read_only_index_is_waited_for(made: Stream) -> None:
    for block in (
        "index.blocks.read_only",
        "index.blocks.write",
        "index.blocks.read_only_allow_delete",
    ):
        made.client.indices.put_settings(index=made.name, settings={block: True})
        wait_and_say(made, made.name, "read-only", "take the block")
        made.client.indices.put_settings(index=made.name, settings={block: None})
    assert made.sink.problem() is None
    assert made.sink.write(documents(2)) == Delivered(2)


def test_without_its_data_stream_nothing_is_written(
    made: Stream, elasticsearch: services.Elasticsearch
) -> None:
    made.client.indices.delete_data_stream(name=made.name)
    wait_and_say(
        made,
        "no data stream",
        f"ids-plugin setup elasticsearch --url {elasticsearch.url} --namespace",
    )
    assert "no data stream" in str(made.sink.problem())
    assert not made.client.indices.exists(index=made.name)
    list(install(made.settings))
    assert made.sink.write(documents(2)) == Delivered(2)


def test_without_the_ingest_pipeline_nothing_is_written(made: Stream) -> None:
    """A site removed ours, or named one of its own that isn't there."""
    made.client.indices.put_settings(index=made.name, settings={"index.default_pipeline": "gone"})
    wait_and_say(made, "pipeline with id [gone] does not exist", "ids-plugin setup elasticsearch")
    made.client.indices.put_settings(index=made.name, settings={"index.default_pipeline": "_none"})
    assert made.sink.write(documents(2)) == Delivered(2)


def test_what_geoip_finds_out_is_taken_and_can_be_counted(made: Stream) -> None:
    """The server has no GeoIP processor: its outcome is written out, and the rest of our pipeline
    (whose processors are stand-ins) puts it where ECS has it."""
    geo = {"country_iso_code": "NO", "city_name": "Bergen", "location": {"lat": 60.39, "lon": 5.32}}
    found = {"geo": geo, "as": {"asn": 64500, "organization_name": "Example"}}
    (one,) = documents(1)
    public = {**one, "source": one["source"] | found, "destination": one["destination"] | found}
    steps = json.loads((FOLDER / f"ingest_pipeline/{GEOIP}.json").read_text())["processors"]
    made.client.ingest.put_pipeline(
        id=made.namespace, processors=[step for step in steps if "geoip" not in step]
    )
    made.client.indices.put_settings(
        index=made.name, settings={"index.default_pipeline": made.namespace}
    )
    assert made.sink.write([public, *documents(1, "private")]) == Delivered(2)
    assert len(made.copies()) == 2
    aggs: dict[str, Any] = {
        "org": {
            "terms": {"field": "destination.as.organization.name"},
            "aggs": {"as": {"max": {"field": "source.as.number"}}},
        },
        "where": {"geo_centroid": {"field": "source.geo.location"}},
        "countries": {"value_count": {"field": "source.geo.country_iso_code"}},
    }
    answer = made.client.search(index=made.name, size=0, aggs=aggs)["aggregations"]
    assert [(one["key"], one["as"]["value"]) for one in answer["org"]["buckets"]] == [
        ("Example", 64500)
    ]
    assert answer["where"]["location"]["lat"] == pytest.approx(60.39, abs=1e-4)
    assert answer["countries"]["value"] == 1


@pytest.mark.parametrize(
    ("meta", "words"), [({}, "wasn't made from our template"), ({"version": 0}, "older template")]
)
def test_a_stream_from_another_template_is_waited_for_until_setup_rolls_it_over(
    made: Stream, elasticsearch: services.Elasticsearch, meta: dict[str, Any], words: str
) -> None:
    meta = {"managed_by": "ids-plugin", **meta} if meta else {"managed_by": "somebody"}
    made.client.indices.put_mapping(index=made.name, meta=meta)
    wait_and_say(made, words, "ids-plugin setup elasticsearch")
    steps = {step.name: step.action for step in install(made.settings)}
    assert steps[made.name] == "roll over"
    assert made.sink.write(documents(2)) == Delivered(2)


def test_a_closed_index_is_waited_for(made: Stream) -> None:
    made.sink.write(documents(1))
    (index,) = made.client.indices.resolve_index(name=made.name)["data_streams"][0][
        "backing_indices"
    ]
    made.client.indices.close(index=index)
    wait_and_say(made, "closed", "open the index")
    made.client.indices.open(index=index)
    assert made.sink.write(documents(2)) == Delivered(2, known=1)


@pytest.fixture(scope="module")
def guarded(java: None) -> Iterator[services.Elasticsearch]:
    with services.Elasticsearch(
        tls=True, settings={"indexing_pressure.memory.limit": "512kb"}
    ) as server:
        yield server


def key_for(made: Stream, *privileges: str) -> str:
    """An API key with index privileges on our data streams."""
    role: dict[str, Any] = {
        "indices": [{"names": [f"{ALERTS}-*", f"{LEDGER}-*"], "privileges": list(privileges)}]
    }
    answer = made.client.security.create_api_key(
        name=services.unique("key"), role_descriptors={"writer": role}
    )
    return str(answer["encoded"])


def test_a_key_with_the_named_privileges_is_enough(guarded: services.Elasticsearch) -> None:
    made = Stream(guarded)
    key = key_for(made, *NEEDED.replace(" and", ",").split(", "))
    made.sink = made.asked_as(api_key=Secret(key), username=None, password=None)
    assert made.sink.write(documents(3)) == Delivered(3)
    made.roll_over()
    assert made.sink.write(documents(4)) == Delivered(4, known=3)
    twice = {"create": {"_id": "one-0"}}
    made.client.bulk(index=made.name, operations=[twice, documents(1)[0]])
    assert made.sink.write(documents(4)) == Delivered(4, known=4)
    assert made.copies() == {f"one-{number}": 1 for number in range(4)}


def test_who_may_not_is_told_what_is_missing(guarded: services.Elasticsearch) -> None:
    made = Stream(guarded)
    key = key_for(made, *NEEDED.replace(" and", ",").split(", "))
    cases = {
        "403": key_for(made, "read", "view_index_metadata"),
        "401": "bm9ib2R5OnRoYXQtaXMtbm90LWEta2V5",
    }
    for status, secret in cases.items():
        made.sink = made.asked_as(api_key=Secret(secret), username=None, password=None)
        wait_and_say(
            made, status, "create_doc, auto_configure" if status == "403" else "check the API key"
        )
        assert secret not in str(made.sink.problem())
    wrong = "wr0ng"
    made.sink = made.asked_as(password=Secret(wrong))
    wait_and_say(made, "401", "user name and password")
    assert wrong not in str(made.sink.problem())
    made.sink = made.asked_as(api_key=Secret(key), username=None, password=None)
    assert made.sink.write(documents(2)) == Delivered(2)


def test_an_overloaded_server_is_asked_again(guarded: services.Elasticsearch) -> None:
    made = Stream(guarded)
    long = [{**one, "message": "x" * 600_000} for one in documents(1)]
    answer = made.sink.write(long)
    assert isinstance(answer, RetryAfter)
    assert "429" in answer.reason


def test_a_private_authority_is_trusted_where_its_certificate_is_given(
    guarded: services.Elasticsearch, tmp_path: Path
) -> None:
    made = Stream(guarded)
    for ca in (None, services.Certificates(tmp_path).ca):
        answer = made.asked_as(ca_file=ca).write(documents(1))
        assert isinstance(answer, RetryAfter)
        assert "CA file" in answer.reason
    assert made.sink.write(documents(1)) == Delivered(1)


def test_an_index_is_an_input_to_a_key_that_may_read(
    guarded: services.Elasticsearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, index = asking(guarded), services.unique("input")
    there.index(
        index=index, document={"@timestamp": "2024-05-01T12:00:00Z", **conn(1)}, refresh=True
    )
    key = tmp_path / "key"
    options = ["--api-key-file", str(key), "--ca-file", str(guarded.certificates.ca), "--json"]
    for privilege, code in (("read", 0), ("view_index_metadata", 4)):
        role: dict[str, Any] = {"indices": [{"names": [index], "privileges": [privilege]}]}
        made = there.security.create_api_key(
            name=services.unique("key"), role_descriptors={"reader": role}
        )
        key.write_text(str(made["encoded"]))
        assert cli.main(["flows", f"elasticsearch:{guarded.url}/{index}", *options]) == code
    said = capsys.readouterr()
    assert conn(1)["uid"] in said.out
    assert "needs the index privilege read" in said.err


def changes(steps: Iterable[Step]) -> set[str]:
    """What was done, but for the pipeline, whose processor the server of the tests doesn't have."""
    return {step.action for step in steps if step.name != GEOIP}


class TestSetup:
    """On a server of its own, where templates may be broken."""

    @pytest.fixture
    def clean(self, guarded: services.Elasticsearch) -> client.Elasticsearch:
        """The server as it is delivered."""
        asked = asking(guarded)
        asked.options(ignore_status=404).indices.delete_data_stream(name=f"{ALERTS}-*")
        asked.options(ignore_status=404).indices.delete_data_stream(name=f"{LEDGER}-*")
        for template in asked.indices.get_index_template()["index_templates"]:
            if not template["name"].startswith("."):
                asked.indices.delete_index_template(name=template["name"])
        for template in asked.cluster.get_component_template()["component_templates"]:
            if template["name"].startswith("ids_plugin-"):
                asked.cluster.delete_component_template(name=template["name"])
        for name in asked.ilm.get_lifecycle():
            if name.startswith("ids_plugin."):
                asked.ilm.delete_lifecycle(name=name)
        return asked

    @pytest.fixture
    def setup(self, guarded: services.Elasticsearch) -> Callable[..., list[Step]]:
        def run(namespace: str = "default", dry_run: bool = False) -> list[Step]:
            return list(install(replace(access(guarded), namespace=namespace), dry_run=dry_run))

        return run

    def test_it_installs_what_is_missing_and_then_changes_nothing(
        self, clean: client.Elasticsearch, setup: Callable[..., list[Step]]
    ) -> None:
        wanted = setup(dry_run=True)
        assert changes(wanted) == {"create"}
        assert not clean.options(ignore_status=404).indices.exists_index_template(name=ALERTS)
        assert setup() == wanted
        assert changes(setup()) == changes(setup(dry_run=True)) == {"keep"}
        lab = {step.name: step.action for step in setup(namespace="lab") if step.action != "keep"}
        assert lab == {GEOIP: "skip", f"{ALERTS}-lab": "create", f"{LEDGER}-lab": "create"}

    def test_what_was_changed_is_renewed_but_for_how_long_the_site_keeps_it(
        self, clean: client.Elasticsearch, setup: Callable[..., list[Step]]
    ) -> None:
        setup()
        body = clean.indices.get_index_template(name=ALERTS)["index_templates"][0]["index_template"]
        clean.indices.put_index_template(name=ALERTS, body=body | {"priority": 501})
        settings = clean.cluster.get_component_template(name="ids_plugin-settings")[
            "component_templates"
        ][0]
        older = settings["component_template"] | {
            "_meta": {"managed_by": "ids-plugin", "version": 0}
        }
        clean.cluster.put_component_template(name="ids_plugin-settings", body=older)
        policy = clean.ilm.get_lifecycle(name="ids_plugin.alert")["ids_plugin.alert"]["policy"]
        policy["phases"]["delete"]["min_age"] = "30d"
        clean.ilm.put_lifecycle(name="ids_plugin.alert", policy=policy)
        changed = {step.name: step.why for step in setup() if step.action not in ("keep", "skip")}
        assert changed == {
            ALERTS: "it says something else: priority",
            "ids_plugin-settings": f"version 0 → {VERSION}",
        }
        kept = clean.ilm.get_lifecycle(name="ids_plugin.alert")["ids_plugin.alert"]["policy"][
            "phases"
        ]
        assert kept["delete"]["min_age"] == "30d"
        assert (
            clean.indices.get_index_template(name=ALERTS)["index_templates"][0]["index_template"][
                "priority"
            ]
            == 500
        )

    @pytest.mark.parametrize(
        ("meta", "words"),
        [({}, "isn't ours"), ({"managed_by": "ids-plugin", "version": 99}, "newer ids-plugin")],
    )
    def test_what_is_not_ours_or_newer_is_not_touched(
        self,
        clean: client.Elasticsearch,
        setup: Callable[..., list[Step]],
        meta: dict[str, Any],
        words: str,
    ) -> None:
        clean.indices.put_index_template(
            name=ALERTS,
            index_patterns=["logs-ids_plugin.alert-*"],
            priority=300,
            data_stream={},
            meta=meta,
        )
        for dry_run in (True, False):
            with pytest.raises(ServiceError, match=words) as failed:
                setup(dry_run=dry_run)
            assert f"index template {ALERTS}" in str(failed.value)
        there = clean.indices.get_index_template(name=ALERTS)["index_templates"][0][
            "index_template"
        ]
        assert there["priority"] == 300
        clean.indices.delete_index_template(name=ALERTS)
        actions = {step.kind: step.action for step in setup()}
        assert actions == {
            "ilm_policy": "keep",
            "ingest_pipeline": "skip",
            "component_template": "keep",
            "index_template": "create",
            "data_stream": "create",
        }

    def test_a_template_that_takes_our_streams_away_is_named(
        self, clean: client.Elasticsearch, setup: Callable[..., list[Step]]
    ) -> None:
        clean.indices.put_index_template(
            name="stock", index_patterns=["logs-*-*"], priority=100, data_stream={}
        )
        clean.indices.put_index_template(
            name="greedy", index_patterns=["logs-ids*"], priority=900, data_stream={}
        )
        with pytest.raises(ServiceError, match=r"higher priority.*greedy"):
            setup()
        clean.indices.delete_index_template(name="greedy")
        setup()
        clean.indices.put_index_template(
            name="greedy", index_patterns=["logs-ids*"], priority=900, data_stream={}
        )
        with pytest.raises(ServiceError, match=r"higher priority.*greedy"):
            setup(dry_run=True)
        clean.indices.delete_index_template(name="greedy")
        clean.indices.put_index_template(
            name="logs-other", index_patterns=["logs-ids*"], priority=499, data_stream={}
        )
        assert changes(setup()) == {"keep"}

    def test_a_template_of_the_site_that_changes_a_type_of_ours_is_named(
        self, clean: client.Elasticsearch, setup: Callable[..., list[Step]]
    ) -> None:
        def custom(**properties: Any) -> None:
            clean.cluster.put_component_template(
                name=f"{ALERTS}@custom", template={"mappings": {"properties": properties}}
            )

        setup()
        custom(source={"properties": {"ip": {"type": "keyword"}}})
        for dry_run in (True, False):
            with pytest.raises(
                ServiceError, match=rf"index template {ALERTS}: .*@custom makes source.ip keyword"
            ):
                setup(dry_run=dry_run)
        custom(**{"event.severity": {"type": "keyword"}})
        with pytest.raises(ServiceError, match=r"makes event.severity keyword, ours is long"):
            setup()
        custom(site={"properties": {"ticket": {"type": "keyword"}}})
        assert changes(setup()) == {"keep"}
        setup(namespace="site")
        mapping = clean.indices.get_mapping(index=f"{ALERTS}-site").body.popitem()[1]["mappings"]
        assert mapping["dynamic"] == "strict"
        assert mapping["properties"]["site"] == {"properties": {"ticket": {"type": "keyword"}}}
        clean.indices.delete_data_stream(name=f"{ALERTS}-*")
        clean.indices.delete_index_template(name=ALERTS)
        clean.cluster.delete_component_template(name=f"{ALERTS}@custom")

    def test_an_index_or_alias_in_the_place_of_a_data_stream_is_named(
        self, clean: client.Elasticsearch, setup: Callable[..., list[Step]]
    ) -> None:
        """Written before there were templates of ours, by whatever."""
        clean.indices.create(index=f"{ALERTS}-default")
        for dry_run in (True, False):
            with pytest.raises(
                ServiceError,
                match=rf"data stream {ALERTS}-default: an index or alias.*rename or remove",
            ):
                setup(dry_run=dry_run)
        clean.indices.delete(index=f"{ALERTS}-default")
        clean.indices.create(index="old", aliases={f"{ALERTS}-default": {}})
        with pytest.raises(ServiceError, match="an index or alias of this name is in the way: old"):
            setup()
        clean.indices.delete(index="old")
        assert changes(step for step in setup() if step.kind == "data_stream") == {"create"}

    def test_the_command_says_each_change_and_ends_with_4_where_a_step_fails(
        self,
        clean: client.Elasticsearch,
        guarded: services.Elasticsearch,
        tmp_path: Path,
        capsys: Any,
    ) -> None:
        (tmp_path / "password").write_text(guarded.password)
        login = ["--username", guarded.user, "--password-file", str(tmp_path / "password")]
        command = [
            "setup",
            "elasticsearch",
            "--url",
            guarded.url,
            "--ca-file",
            str(guarded.certificates.ca),
            *login,
        ]
        assert cli.main([*command, "--dry-run"]) == 0
        assert "would create index template logs-ids_plugin.alert" in capsys.readouterr().err
        assert cli.main([*command, "--json"]) == 0
        said = capsys.readouterr()
        assert "create data stream logs-ids_plugin.alert-default" in said.err
        assert {step["action"] for step in json.loads(said.out)} == {"create", "skip"}
        assert cli.main(command) == 0
        assert capsys.readouterr().err.endswith("13 objects, 0 changed\n")
        clean.cluster.put_settings(persistent={"cluster.blocks.read_only": True})
        try:
            assert cli.main([*command, "--namespace", "other"]) == 4
        finally:
            clean.cluster.put_settings(persistent={"cluster.blocks.read_only": None})
        said = capsys.readouterr()
        assert "data stream logs-ids_plugin.alert-other: 403" in said.err
        assert guarded.password not in said.err

    def test_a_clash_of_priorities_is_named(
        self, clean: client.Elasticsearch, setup: Callable[..., list[Step]]
    ) -> None:
        clean.indices.put_index_template(
            name="equal", index_patterns=["logs-ids*"], priority=500, data_stream={}
        )
        with pytest.raises(ServiceError, match=r"index template logs-ids_plugin.alert: .*equal"):
            setup()

    def test_who_may_not_do_a_step_is_told_which_and_a_second_run_completes(
        self,
        clean: client.Elasticsearch,
        guarded: services.Elasticsearch,
        setup: Callable[..., list[Step]],
    ) -> None:
        """Each time one right more, and each time what is done stays done."""
        rights = ["monitor"]
        for lacking, step in (
            ("manage_ilm", None),
            ("manage_ingest_pipelines", f"ingest pipeline {GEOIP}"),
            ("manage_index_templates", "component template ids_plugin-alert"),
            ("manage", f"data stream {ALERTS}-default"),
        ):
            if step is not None:
                role: dict[str, Any] = {"cluster": rights, "indices": []}
                key = clean.security.create_api_key(name="half", role_descriptors={"half": role})[
                    "encoded"
                ]
                with pytest.raises(ServiceError, match=rf"{step}: 403.*{lacking}"):
                    list(
                        install(
                            replace(
                                access(guarded), username=None, password=None, api_key=Secret(key)
                            )
                        )
                    )
            rights.append(lacking)
        steps = setup()
        assert changes(step for step in steps if step.kind != "data_stream") == {"keep"}
        assert changes(step for step in steps if step.kind == "data_stream") == {"create"}

    def test_a_key_with_the_documented_privileges_is_enough(
        self, clean: client.Elasticsearch, guarded: services.Elasticsearch
    ) -> None:
        """`manage_ilm` isn't asked for here: the policies' API is a stand-in."""
        role: dict[str, Any] = {
            "cluster": [
                "monitor",
                "manage_ilm",
                "manage_index_templates",
                "manage_ingest_pipelines",
            ],
            "indices": [
                {"names": ["logs-ids_plugin.*", "metrics-ids_plugin.*"], "privileges": ["manage"]}
            ],
        }
        key = Secret(
            clean.security.create_api_key(name="setup", role_descriptors={"setup": role})["encoded"]
        )
        login = replace(access(guarded), username=None, password=None, api_key=key)
        for action in ("create", "keep"):
            assert changes(install(login)) == {action}
        clean.indices.put_mapping(
            index=f"{ALERTS}-default", meta={"managed_by": "ids-plugin", "version": 0}
        )
        assert [step.name for step in install(login) if step.action == "roll over"] == [
            f"{ALERTS}-default"
        ]

    def test_a_read_only_cluster_is_named(
        self, clean: client.Elasticsearch, setup: Callable[..., list[Step]]
    ) -> None:
        clean.cluster.put_settings(persistent={"cluster.blocks.read_only": True})
        try:
            with pytest.raises(
                ServiceError, match=r"component template ids_plugin-alert: 403.*read-only"
            ):
                setup()
        finally:
            clean.cluster.put_settings(persistent={"cluster.blocks.read_only": None})
        assert changes(step for step in setup() if step.kind != "ilm_policy") == {"create"}
