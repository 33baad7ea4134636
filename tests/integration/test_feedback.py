"""`ids-plugin feedback`: from an analyst's word to an allow-list, beside a real Elasticsearch.

Elastic Security isn't here: its alerts are documents with the field names and types that its
documentation gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import elasticsearch as client
import polars as pl
import pytest

from ids_plugin import cli
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.schema.alert import Document
from tests import services
from tests.support.elastic import Stream

SAMPLE = str(Path(__file__).parents[1] / "lab/sample/capture.pcap.gz")
HEADER = "event.id,verdict,note,analyst,time"


def lines(path: Path) -> list[Document]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scanned")
    assert cli.main(["scan", SAMPLE, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def alerts(scanned: Path) -> list[Document]:
    """The alerts themselves, without the closing documents."""
    return [one for one in lines(scanned / "alerts.ndjson") if one["event"]["kind"] == "alert"]


def table(path: Path, rows: Sequence[str]) -> str:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return str(path)


def test_proposals_hide_exactly_what_was_announced(
    scanned: Path, alerts: list[Document], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["false", "true", "benign"]
    rows = [
        f"{one['event']['id']},{said[at % 3]},known,anna,2026-11-20"
        for at, one in enumerate(alerts)
    ]
    rows += [
        f"{alerts[1]['event']['id']},true,again,bert,2026-11-21",
        "nobody,true,,,",
        "x,maybe,,,",
    ]
    rows += [f"{alerts[0]['event']['id']},benign,,,2026-11-19"]
    out, after = tmp_path / "feedback", tmp_path / "after"
    given = [
        "--verdicts",
        table(tmp_path / "v.csv", rows),
        "--alerts",
        str(scanned),
        "--out",
        str(out),
        "--json",
    ]
    assert cli.main(["feedback", *given, SAMPLE]) == 0
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert result == json.loads((out / "feedback.json").read_text())
    judged = [one["event"]["id"] for at, one in enumerate(alerts) if said[at % 3] != "true"]
    assert result["would_have_hidden"]["alerts"] == len(judged)
    assert result["rejected"] == {"no_verdict": 1, "unknown_alert": 1}
    assert f"v.csv, line {len(alerts) + 3}: unknown_alert" in told.err
    assert [one["event.id"] for one in result["contradictions"]] == [alerts[0]["event"]["id"]]
    assert len(lines(out / "rejects.ndjson")) == 2

    assert (
        cli.main(
            ["scan", SAMPLE, "--out", str(after), "--allow", str(out / "allow.toml"), "--quiet"]
        )
        == 0
    )
    left = {one["event"]["id"] for one in lines(after / "alerts.ndjson")}
    assert {one["event"]["id"] for one in alerts} - left == set(judged)
    assert left <= {one["event"]["id"] for one in lines(scanned / "alerts.ndjson")}
    ledger = json.loads((after / "ledger.json").read_text())
    suppressed = ledger["total"]["suppressed"]
    assert sum(suppressed.values()) == result["would_have_hidden"]["flows"]
    assert len(suppressed) == len(result["proposals"])

    (network,) = load(f"lab:{out / 'labelled.parquet'}")
    counts = dict(
        network.flows.filter(pl.col("source") == "capture")["label_detail"]
        .value_counts()
        .iter_rows()
    )
    closed = {
        one["ids_plugin"]["fold"]["id"]: one
        for one in lines(scanned / "alerts.ndjson")
        if one["event"]["kind"] == "event"
    }
    floods = [one for one in alerts if one["ids_plugin"]["label"] == "flood"]
    flood = max(
        floods,
        key=lambda one: closed[one["ids_plugin"]["fold"]["id"]]["ids_plugin"]["fold"]["count"],
    )
    word, total = said[alerts.index(flood) % 3], closed[flood["ids_plugin"]["fold"]["id"]]
    assert (
        counts[f"judged {word} by anna, alert {flood['event']['id']}"]
        == total["ids_plugin"]["fold"]["count"]
    )


def test_the_same_files_give_the_same_proposals_on_standard_output(
    scanned: Path, alerts: list[Document], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{alerts[0]['event']['id']},false,,,"]
    given = [
        "--verdicts",
        table(tmp_path / "v.csv", rows),
        "--alerts",
        str(scanned / "alerts.ndjson"),
        "--quiet",
    ]
    assert cli.main(["feedback", *given]) == 0
    first = capsys.readouterr().out
    assert cli.main(["feedback", *given]) == 0
    assert capsys.readouterr().out == first
    assert first.count("[[allow]]") == 1


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (
            ["--verdicts", "nowhere.csv", "--alerts", "."],
            3,
            "nowhere.csv: the verdicts can't be read: no such file",
        ),
        (["--verdicts", "v.csv", "--alerts", "nowhere"], 3, "nowhere: the alerts can't be read"),
        (["--verdicts", "v.csv", "--alerts", "broken"], 3, "broken/alerts.ndjson:1: "),
        (["--verdicts", "v.csv", "--alerts", "empty", "--days", "0"], 2, "--days"),
        (["--true-tag", "Benign"], 2, "a tag can't mean two verdicts"),
        (["--elasticsearch", "http://127.0.0.1:1"], 4, "can't be reached"),
    ],
)
def test_what_can_not_be_is_said_and_nothing_is_written(
    given: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "v.csv", ["a1,true,,,"])
    for name, text in (("broken", '{"event": {"id": "a1"}}\n'), ("empty", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "alerts.ndjson").write_text(text)
    assert cli.main(["feedback", *given, "--out", "out"]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


KEYWORD, DATE = {"type": "keyword"}, {"type": "date"}
MAPPING = {
    "@timestamp": DATE, "event.id": KEYWORD, "event.module": KEYWORD, "kibana.alert.original_event.module": KEYWORD,  # noqa: E501
    "kibana.alert.original_event.id": KEYWORD, "kibana.alert.ancestors.id": KEYWORD,
    "kibana.alert.workflow_status": KEYWORD, "kibana.alert.workflow_tags": KEYWORD,
    "kibana.alert.workflow_reason": KEYWORD, "kibana.alert.workflow_user": KEYWORD,
    "kibana.alert.workflow_status_updated_at": DATE,
}  # fmt: skip


class Security:
    """Elastic Security's alerts of a space of their own, and ours in a namespace of its own."""

    def __init__(self, server: services.Elasticsearch, documents: Sequence[Document]) -> None:
        self.stream = Stream(server)
        self.space = services.unique("space")
        self.stream.sink.write(documents)
        self.stream.client.indices.refresh(index=self.stream.name)
        self._index = f".internal.alerts-security.alerts-{self.space}-000001"
        api: client.Elasticsearch = self.stream.client
        api.indices.create(
            index=self._index,
            mappings={"dynamic": False, "properties": MAPPING},
            aliases={f".alerts-security.alerts-{self.space}": {"is_write_index": True}},
        )
        self.options = [
            "--elasticsearch",
            server.url,
            "--namespace",
            self.stream.namespace,
            "--json",
        ]

    def lift(self, alert: Document, status: str, **workflow: Any) -> None:
        """The alert as Elastic Security's rule copies it, and what an analyst did with it."""
        said = {f"kibana.alert.workflow_{name}": value for name, value in workflow.items()}
        copied: Mapping[str, Any] = {
            **alert,
            "event": {**alert["event"], "kind": "signal"},
            "@timestamp": "2026-11-20T08:00:00.000Z",
            "kibana.alert.ancestors": [{"id": alert["event"]["id"], "type": "event", "depth": 0}],
            "kibana.alert.original_event.id": alert["event"]["id"],
            "kibana.alert.original_event.module": alert["event"]["module"],
            "kibana.alert.workflow_status": status,
            **said,
        }
        self.index(copied)

    def index(self, document: Mapping[str, Any]) -> None:
        self.stream.client.index(index=self._index, document=document, refresh=True)


def test_verdicts_come_from_elastic_security(
    elasticsearch: services.Elasticsearch,
    scanned: Path,
    alerts: list[Document],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = Security(elasticsearch, lines(scanned / "alerts.ndjson"))
    at = "2026-11-21T09:00:00.000Z"
    there.lift(alerts[0], "open", tags=["False Positive", "Night shift"])
    there.lift(alerts[1], "closed", reason="benign_positive", user="u_anna", status_updated_at=at)
    there.lift(alerts[2], "acknowledged", tags=["true positive"])
    there.lift(alerts[3], "closed")
    there.lift(alerts[4], "closed", reason="duplicate")
    there.lift(alerts[5], "closed", tags=["Benign", "False Positive"])
    there.lift(alerts[6], "open")
    there.lift(
        alerts[1], "closed", tags=["True Positive"], status_updated_at="2026-11-21T08:59:00Z"
    )
    foreign = {**alerts[7], "event": {**alerts[7]["event"], "module": "endpoint"}}
    there.lift(foreign, "closed", tags=["False Positive"])
    assert (
        cli.main(
            ["feedback", *there.options, "--space", there.space, "--out", str(tmp_path / "out")]
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["alerts"] == {"benign": 1, "false": 1, "true": 1}
    assert result["without_verdict"] == {
        "closed as duplicate, without a tag that is a verdict": 1,
        "closed, without a tag that is a verdict": 1,
    }
    assert result["rejected"] == {"contradicting_tags": 1}
    (contradiction,) = result["contradictions"]
    assert contradiction["holds"] == "benign by u_anna on 2026-11-21: benign positive"
    led = [one["event.id"] for proposal in result["proposals"] for one in proposal["led_by"]]
    assert led == [one["event"]["id"] for one in alerts[:2]]
    assert result["would_have_hidden"]["alerts"] == 2
    assert result["labels"]["by_label"].keys() == {"benign", alerts[2]["ids_plugin"]["label"]}


def test_the_words_of_a_site_count(
    elasticsearch: services.Elasticsearch,
    scanned: Path,
    alerts: list[Document],
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = Security(elasticsearch, lines(scanned / "alerts.ndjson"))
    there.lift(alerts[0], "closed", tags=["Fehlalarm"])
    there.lift(alerts[1], "closed", tags=["False Positive"])
    there.lift(alerts[2], "closed", reason="other")
    copied = {
        "original_event": {"module": "ids_plugin"},
        "ancestors": [{"id": alerts[3]["event"]["id"]}],
    }
    there.index(
        {
            "kibana": {
                "alert": {**copied, "workflow_status": "closed", "workflow_tags": ["FEHLALARM"]}
            }
        }
    )
    there.index(
        {"kibana.alert": {"original_event.module": "ids_plugin", "workflow_tags": ["Fehlalarm"]}}
    )
    words = ["--space", there.space, "--false-tag", "fehlalarm", "--closed-means", "true"]
    assert cli.main(["feedback", *there.options, *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["alerts"] == {"false": 2, "true": 1}
    assert result["rejected"] == {"no_alert": 1}
    assert sum(result["without_verdict"].values()) == 1


def test_a_space_that_is_not_there_is_named(
    elasticsearch: services.Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["feedback", "--elasticsearch", elasticsearch.url, "--space", "nowhere"]) == 3
    assert ".alerts-security.alerts-nowhere" in capsys.readouterr().err


def test_tables_and_elasticsearch_go_together(
    elasticsearch: services.Elasticsearch,
    scanned: Path,
    alerts: list[Document],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Verdicts of a file on alerts that are in Elasticsearch: the same answer as on those of the
    scan."""
    there = Security(elasticsearch, lines(scanned / "alerts.ndjson"))
    rows = [
        f"{one['event']['id']},{'false' if at % 2 else 'true'},,,2026-11-20"
        for at, one in enumerate(alerts)
    ]
    verdicts = ["--verdicts", table(tmp_path / "v.csv", rows)]
    assert cli.main(["feedback", *there.options, *verdicts]) == 0
    assert cli.main(["feedback", "--json", "--alerts", str(scanned), *verdicts]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second
    assert first["would_have_hidden"]["alerts"] == len(alerts) // 2
