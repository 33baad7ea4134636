"""`ids-plugin export` against a real Elasticsearch (what stands in there: tests/services)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ids_plugin import cli
from ids_plugin.elastic.streams import LEDGER
from ids_plugin.schema.ledger import Counts, Ledger
from ids_plugin.schema.score import CLASSES
from tests import services
from tests.bench.support.triage_site import SAMPLE
from tests.contract import test_ecs
from tests.contract.test_ecs import DOCUMENTS
from tests.support.elastic import Stream, documents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a scan leaves."""
    (tmp_path / "alerts.ndjson").write_text("".join(f"{json.dumps(one)}\n" for one in DOCUMENTS))
    return tmp_path


def export(folder: Path, *options: str) -> int:
    return cli.main(["export", str(folder), "--json", *options])


def test_alerts_of_a_scan_are_sent_once(
    folder: Path, elasticsearch: services.Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Stream(elasticsearch)
    options = ("--elasticsearch", elasticsearch.url, "--namespace", there.namespace)
    assert export(folder, *options) == 0
    there.roll_over()
    assert export(folder, *options) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["new"], one["known"]) for one in results] == [
        (len(DOCUMENTS), 0),
        (0, len(DOCUMENTS)),
    ]
    assert there.copies() == {one["event"]["id"]: 1 for one in DOCUMENTS}
    hits = there.client.search(index=there.name, size=1000)["hits"]["hits"]
    sent = {one["event"]["id"]: one for one in DOCUMENTS}
    for document in (hit["_source"] for hit in hits):
        assert document["event"].pop("ingested")
        event = {
            name: value
            for name, value in sent[document["event"]["id"]]["event"].items()
            if name != "ingested"
        }
        assert document == {**sent[document["event"]["id"]], "event": event}


def test_the_sample_arrives_once_with_its_ledger(
    tmp_path: Path, elasticsearch: services.Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scanned, exported, rolled over, exported: as the scan wrote it, and every field of it
    known."""
    there = Stream(elasticsearch)
    assert cli.main(["scan", str(SAMPLE), "--out", str(tmp_path), "--quiet"]) == 0
    written = [json.loads(line) for line in (tmp_path / "alerts.ndjson").read_text().splitlines()]
    for new in (len(written), 0):
        assert (
            export(tmp_path, "--elasticsearch", elasticsearch.url, "--namespace", there.namespace)
            == 0
        )
        assert json.loads(capsys.readouterr().out)["new"] == new
        there.roll_over()
    assert there.copies() == {one["event"]["id"]: 1 for one in written}
    assert {one["ids_plugin"]["label"] for one in written} == set(CLASSES[1:]) - {"other"}
    for document in written:
        test_ecs.test_every_field_is_known_and_of_its_type(document)
        test_ecs.test_event_types_are_those_expected_of_the_categories(document)
        test_ecs.test_what_queues_need_is_there(document)
    stream = f"{LEDGER}-{there.namespace}"
    there.client.indices.refresh(index=stream)
    sums = {"read": {"sum": {"field": "ids_plugin.ledger.read"}}}
    read = there.client.search(index=stream, size=0, aggs=sums)["aggregations"]["read"]["value"]
    assert read == json.loads((tmp_path / "ledger.json").read_text())["total"]["read"] > 0


def test_the_ledger_of_a_scan_is_sent_once(
    folder: Path, elasticsearch: services.Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the time of the last alert, so that a dashboard that shows the alerts shows it too."""
    there, ledger = Stream(elasticsearch), Ledger()
    ledger.of("capture", "gateway").add(
        Counts(read=9, parsed=7, rejected={"no_ts": 2}, scored=7, delivered=2)
    )
    (folder / "ledger.json").write_text(json.dumps(ledger.to_dict()))
    stream = f"{LEDGER}-{there.namespace}"
    for new in (2, 0):
        assert (
            export(folder, "--elasticsearch", elasticsearch.url, "--namespace", there.namespace)
            == 0
        )
        assert json.loads(capsys.readouterr().out)["ledger"] == {
            "new": new,
            "known": 2 - new,
            "refused": {},
        }
        there.client.indices.rollover(alias=stream)
    there.client.indices.refresh(index=stream)
    found = [hit["_source"] for hit in there.client.search(index=stream)["hits"]["hits"]]
    assert {one["@timestamp"][:23] for one in found} == {
        max(one["@timestamp"] for one in DOCUMENTS)[:23]
    }
    counts, reason = sorted((one["ids_plugin"]["ledger"] for one in found), key=len, reverse=True)
    assert (counts["stage"], counts["read"], counts["rejected"]) == ("scan", 9, 2)
    assert (reason["counter"], reason["reason"], reason["count"]) == ("rejected", "no_ts", 2)


def test_a_damaged_ledger_is_named(
    folder: Path, elasticsearch: services.Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Stream(elasticsearch)
    for content in ("{", "[]", '{"sources": [{}]}', '{"notes": {}, "sources": [{"source": 1}]}'):
        (folder / "ledger.json").write_text(content)
        assert (
            export(folder, "--elasticsearch", elasticsearch.url, "--namespace", there.namespace)
            == 3
        )
        assert "ledger.json: no ledger" in capsys.readouterr().err


def test_what_is_refused_is_named_by_its_line(
    folder: Path, elasticsearch: services.Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Stream(elasticsearch)
    with (folder / "alerts.ndjson").open("a") as alerts:
        alerts.write(json.dumps({**documents(1)[0], "strange": 1}) + "\n")
    assert export(folder, "--elasticsearch", elasticsearch.url, "--namespace", there.namespace) == 2
    said = capsys.readouterr()
    assert (
        f"alerts.ndjson:{len(DOCUMENTS) + 1}: refused: strict_dynamic_mapping_exception" in said.err
    )
    assert json.loads(said.out)["refused"] == {"strict_dynamic_mapping_exception": 1}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--elasticsearch", "http://127.0.0.1:1"), 4, "can't be reached"),
        (("--elasticsearch", "localhost:9200"), 2, "http or https"),
        (("--elasticsearch", "http://u:p@localhost"), 2, "holds a user or a password"),
        (("--namespace", "a-b"), 2, "no namespace"),
        (("--api-key-file", "/nonexistent"), 2, "the secret can't be read"),
    ],
)
def test_what_can_not_be_is_said(
    folder: Path,
    options: tuple[str, ...],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(folder, *options) == code
    assert words in capsys.readouterr().err


def test_a_damaged_line_and_a_missing_file_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(folder / "nowhere") == 3
    assert "scan INPUT" in capsys.readouterr().err
    (folder / "alerts.ndjson").write_text('{"half')
    assert export(folder) == 3
    assert "alerts.ndjson:1: no JSON" in capsys.readouterr().err


def test_options_win_over_the_file(
    folder: Path, elasticsearch: services.Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Stream(elasticsearch)
    config, secret = folder / "ids.toml", folder / "password"
    secret.write_text("s3cret\n")
    config.write_text(
        f'[elasticsearch]\nurl = "http://127.0.0.1:1"\nnamespace = "{there.namespace}"\n'
    )
    assert export(folder, "--config", str(config), "--elasticsearch", elasticsearch.url) == 0
    assert json.loads(capsys.readouterr().out)["stream"] == there.name
    login = ("--username", "somebody", "--password-file", str(secret))
    assert export(folder, "--config", str(config), *login) == 4
    assert "s3cret" not in capsys.readouterr().err
